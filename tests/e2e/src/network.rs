//! Machines behind links of their own, without machines: network namespaces joined by a bridge, each link shaped at both
//! ends.
//!
//! A [`Network`] is a switch, and each [`Host`] in it a namespace with one interface and an address. Everything lives in
//! namespaces, the switch too, so that networks of several tests never meet, whatever addresses they use. Programs run in a
//! host by [`Host::inside`]; a test looks in by [`Host::enter`]. The last user of a network removes it, with whatever still
//! runs in it; what a killed test left behind is removed by the next one.
//!
//! It needs root (`CAP_SYS_ADMIN`, `CAP_NET_ADMIN`) and iproute2, and nftables to part hosts from one another.

mod host;
mod link;
mod namespace;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use host::{Host, Traffic};
pub use link::Link;

use host::{Wire, counters};
use namespace::Namespace;

/// The bridge, in the namespace of the switch.
const BRIDGE: &str = "switch";
/// A host for each address in 10.0.0.0/24.
const MOST_HOSTS: u8 = 250;

/// A switch with hosts, and a link for those that ask for none. Clones are the same network.
#[derive(Debug, Clone)]
pub struct Network {
    shared: Arc<Shared>,
    link: Link,
}

/// What hosts keep alive.
#[derive(Debug)]
struct Shared {
    switch: Namespace,
    number: u32,
    wires: Mutex<BTreeMap<String, Arc<Wire>>>,
}

impl Network {
    /// Whether this process may have one, and if not, why.
    ///
    /// # Errors
    /// In words for whoever started it.
    pub fn available() -> Result<(), String> {
        if rustix::process::geteuid().is_root() {
            return Ok(());
        }
        Err("network namespaces need root: run this as root, or in a container with --privileged".to_owned())
    }

    /// A network without hosts; they get `link` unless they ask for another.
    pub fn new(link: Link) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self::available().unwrap_or_else(|why| panic!("{why}"));
        namespace::sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let switch = Namespace::create(number, "switch");
        // The standard priority of a bridge's forward chain: nothing else is in this namespace.
        let ruleset = "add table bridge lab; \
                       add chain bridge lab parted { type filter hook forward priority 0; policy accept; }";
        switch.ip(&["link", "add", BRIDGE, "type", "bridge"]);
        switch.ip(&["link", "set", BRIDGE, "up"]);
        switch.run(&["nft", ruleset]);
        Self {
            shared: Arc::new(Shared {
                switch,
                number,
                wires: Mutex::default(),
            }),
            link,
        }
    }

    /// The host of this name; a new one if there is none yet.
    pub fn host(&self, name: &str) -> Host {
        self.host_with(name, self.link)
    }

    /// The same behind a link of its own. One that exists gets the link.
    pub fn host_with(&self, name: &str, link: Link) -> Host {
        let mut wires = self.shared.wires.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wire) = wires.get(name) {
            let host = Host::new(Arc::clone(&self.shared), Arc::clone(wire));
            if host.link() != link && link != self.link {
                host.set_link(link);
            }
            return host;
        }
        let count = u8::try_from(wires.len()).expect("there are fewer");
        assert!(count < MOST_HOSTS, "this network has no address for {name}");
        let address = Ipv4Addr::new(10, 0, 0, count + 1);
        let namespace = Namespace::create(self.shared.number, name);
        let wire = Wire::connect(name, namespace, &self.shared.switch, address);
        let wire = Arc::new(wire);
        wires.insert(name.to_owned(), Arc::clone(&wire));
        let host = Host::new(Arc::clone(&self.shared), wire);
        host.set_link(link);
        host
    }

    /// What has passed each host's link so far, by its name: cheap enough to be looked at every second.
    pub fn traffic(&self) -> BTreeMap<String, Traffic> {
        let wires = self.shared.wires.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = self.shared.switch.enter(counters);
        let of = |(name, wire): (&String, &Arc<Wire>)| {
            let port = Traffic::of(wire.port(), &counters);
            // What the switch receives, the host has sent.
            let traffic = Traffic {
                sent: port.received,
                received: port.sent,
            };
            (name.clone(), traffic)
        };
        wires.iter().map(of).collect()
    }

    /// Has everything that `from` send to `to` vanish on the way, silently. The other direction stays as it is.
    pub fn block(&self, from: &[&Host], to: &[&Host]) {
        let set = |hosts: &[&Host]| {
            let ports: Vec<_> = hosts.iter().map(|host| format!("\"{}\"", host.port())).collect();
            format!("{{ {} }}", ports.join(", "))
        };
        let rule = format!(
            "add rule bridge lab parted iifname {} oifname {} drop",
            set(from),
            set(to)
        );
        self.shared.switch.run(&["nft", &rule]);
    }

    /// Parts two groups of hosts from one another. Each reaches all others as before.
    pub fn part(&self, one: &[&Host], other: &[&Host]) {
        self.block(one, other);
        self.block(other, one);
    }

    /// Takes back every [`Network::block`] and [`Network::part`].
    pub fn rejoin(&self) {
        self.shared.switch.run(&["nft", "flush chain bridge lab parted"]);
    }
}
