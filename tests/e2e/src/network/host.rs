//! A host: a namespace, its interface, and the port of the switch that it is connected to.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use super::namespace::{Namespace, tool};
use super::{BRIDGE, Link, Shared};
use crate::process::run;

/// The one interface of a host.
const INTERFACE: &str = "eth0";

/// A host of a network. Clones are the same host; as long as there is one, its network exists.
#[derive(Debug, Clone)]
pub struct Host {
    network: Arc<Shared>,
    wire: Arc<Wire>,
}

/// A host's namespace and how it is connected.
#[derive(Debug)]
pub(super) struct Wire {
    name: String,
    namespace: Namespace,
    port: String,
    address: Ipv4Addr,
    link: Mutex<Link>,
}

/// What has passed a host's interface, IP and Ethernet headers included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes from the host.
    pub sent: u64,
    /// Bytes to the host.
    pub received: u64,
}

impl Traffic {
    /// Of one interface, by the counters of its namespace.
    pub(super) fn of(interface: &str, counters: &str) -> Self {
        let row = counters
            .lines()
            .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
        let mut columns = row.expect("the interface is there").split_whitespace();
        let mut next = |skipped| columns.nth(skipped)?.parse().ok();
        Self {
            received: next(0).expect("counters are numbers"),
            sent: next(7).expect("counters are numbers"),
        }
    }
}

impl Wire {
    /// Connects a namespace to the switch.
    pub(super) fn connect(name: &str, namespace: Namespace, switch: &Namespace, address: Ipv4Addr) -> Self {
        // Names of interfaces have at most 15 characters, so they are numbers.
        let port = format!("port{}", address.octets()[3]);
        let pair = ["link", "add", &port, "type", "veth", "peer", "name", INTERFACE];
        switch.ip(&[&pair[..], &["netns", namespace.name()]].concat());
        switch.ip(&["link", "set", &port, "master", BRIDGE]);
        switch.ip(&["link", "set", &port, "up"]);
        let with_prefix = format!("{address}/24");
        namespace.ip(&["address", "add", &with_prefix, "dev", INTERFACE]);
        namespace.ip(&["link", "set", INTERFACE, "up"]);
        Self {
            name: name.to_owned(),
            namespace,
            port,
            address,
            link: Mutex::new(Link::OPEN),
        }
    }

    /// Its end at the switch.
    pub(super) fn port(&self) -> &str {
        &self.port
    }
}

impl Host {
    pub(super) const fn new(network: Arc<Shared>, wire: Arc<Wire>) -> Self {
        Self { network, wire }
    }

    /// What tests call it.
    pub fn name(&self) -> &str {
        &self.wire.name
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.wire.address.into()
    }

    /// What its link carries at present.
    pub fn link(&self) -> Link {
        *self.wire.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it another link, while everything runs. Connections stay.
    pub fn set_link(&self, link: Link) {
        let (switch, namespace) = (&self.network.switch, &self.wire.namespace);
        let mtu = link.mtu.to_string();
        switch.ip(&["link", "set", &self.wire.port, "mtu", &mtu]);
        namespace.ip(&["link", "set", INTERFACE, "mtu", &mtu]);
        shape(namespace, INTERFACE, link.up);
        shape(switch, &self.wire.port, link.down);
        *self.wire.link.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// Pulls its cable at the switch: nothing passes, and no program is told.
    pub fn cut(&self) {
        self.network.switch.ip(&["link", "set", &self.wire.port, "down"]);
    }

    /// Puts the cable back.
    pub fn heal(&self) {
        self.network.switch.ip(&["link", "set", &self.wire.port, "up"]);
    }

    /// What has passed its interface so far.
    pub fn traffic(&self) -> Traffic {
        self.enter(|| Traffic::of(INTERFACE, &counters()))
    }

    /// Packets that its link has dropped since it was last given one, because more wanted to pass than could.
    pub fn dropped(&self) -> Traffic {
        Traffic {
            sent: self.wire.namespace.dropped(INTERFACE),
            received: self.network.switch.dropped(&self.wire.port),
        }
    }

    /// What `ip netns` calls it.
    pub fn namespace(&self) -> &str {
        self.wire.namespace.name()
    }

    /// The number that `/proc/PID/ns/net` shows for processes in it: `net:[NUMBER]`.
    pub fn namespace_number(&self) -> u64 {
        self.wire.namespace.number()
    }

    /// The same command in this host.
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = tool("ip");
        inside.args(["netns", "exec", self.wire.namespace.name()]);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            inside.current_dir(dir);
        }
        inside
    }

    /// Runs `work` on a thread in this host. Sockets that it makes stay in it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.wire.namespace.enter(work)
    }

    pub(super) fn port(&self) -> &str {
        self.wire.port()
    }
}

/// The counters of all interfaces of the namespace that the thread is in.
pub(super) fn counters() -> String {
    fs::read_to_string("/proc/thread-self/net/dev").expect("Linux has counters")
}

/// Lets an interface send so many bits per second, in bursts as a switch has them.
fn shape(namespace: &Namespace, interface: &str, rate: u64) {
    let qdisc = |action: &str| {
        let mut command = tool("tc");
        command.args(["-n", namespace.name(), "qdisc", action, "dev", interface, "root"]);
        command
    };
    if rate == 0 {
        // Fails only when it was not shaped.
        let _ = qdisc("del").output();
    } else {
        let rate = format!("{rate}bit");
        run(qdisc("replace").args(["tbf", "rate", &rate, "burst", "256kb", "latency", "100ms"]));
    }
}
