//! containerd with `ctr`, and a `hosts.toml` that sends it to a mirror.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::model::Blob;
use crate::{Host, Lab, Process, wait};

/// It opens a few databases.
const START: Duration = Duration::from_secs(30);

/// A containerd of the test's own.
#[derive(Debug)]
pub struct Containerd {
    _process: Process,
    root: PathBuf,
    socket: PathBuf,
    hosts: PathBuf,
    host: Option<Host>,
}

impl Containerd {
    /// Starts one whose pulls from `registry` go to `mirror` first.
    pub fn start(lab: &Lab, name: &str, registry: SocketAddr, mirror: SocketAddr) -> Self {
        Self::launch(lab, name, mirror_first(lab, name, registry, mirror), None)
    }

    /// The same in a host of a network, where its clients run too.
    pub fn in_host(lab: &Lab, name: &str, registry: SocketAddr, mirror: SocketAddr, host: &Host) -> Self {
        Self::launch(lab, name, mirror_first(lab, name, registry, mirror), Some(host.clone()))
    }

    /// Starts one that pulls as the files in `hosts` say.
    pub fn start_with(lab: &Lab, name: &str, hosts: PathBuf) -> Self {
        Self::launch(lab, name, hosts, None)
    }

    fn launch(lab: &Lab, name: &str, hosts: PathBuf, host: Option<Host>) -> Self {
        let dir = lab.dir(name);
        let (root, socket, config) = (dir.join("root"), dir.join("ctr.sock"), dir.join("config.toml"));
        let text = format!(
            "version = 2\nroot = {root:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {:?}\n",
            dir.join("state"),
            dir.join("ttrpc.sock"),
        );
        fs::write(&config, text).expect("the lab is writable");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(config);
        if let Some(host) = &host {
            command = host.inside(&command);
        }
        let process = Process::start(name, &mut command, &lab.log(name));
        let containerd = Self {
            _process: process,
            root,
            socket,
            hosts,
            host,
        };
        wait::until_true("containerd's start", START, || {
            let output = containerd.ctr(&["version"]).output();
            output.is_ok_and(|output| output.status.success())
        });
        containerd
    }

    /// `ctr content fetch`.
    pub fn fetch(&self, reference: &str) -> Command {
        self.fetch_as(reference, None)
    }

    /// The same with `USER:PASSWORD`.
    pub fn fetch_as(&self, reference: &str, user: Option<&str>) -> Command {
        let hosts = self.hosts.to_string_lossy();
        let mut command = self.ctr(&["content", "fetch", "--plain-http", "--hosts-dir", &hosts]);
        command
            .args(user.iter().flat_map(|user| ["--user", *user]))
            .arg(reference);
        command
    }

    /// Where it keeps blobs.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("io.containerd.content.v1.content/blobs/sha256")
    }

    /// Where it keeps a blob.
    pub fn blob(&self, blob: &Blob) -> PathBuf {
        self.blobs().join(blob.hex())
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(arguments);
        match &self.host {
            Some(host) => host.inside(&command),
            None => command,
        }
    }
}

/// A directory that sends pulls from `registry` to `mirror` first.
fn mirror_first(lab: &Lab, name: &str, registry: SocketAddr, mirror: SocketAddr) -> PathBuf {
    let hosts = lab.dir(format!("{name}-hosts"));
    let host = hosts.join(registry.to_string().replace(':', "_") + "_");
    fs::create_dir_all(&host).expect("the lab is writable");
    let text =
        format!("server = \"http://{registry}\"\n[host.\"http://{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
    fs::write(host.join("hosts.toml"), text).expect("the lab is writable");
    hosts
}
