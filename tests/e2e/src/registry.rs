//! Debian's `docker-registry` (CNCF Distribution 2.8), with models that were pushed before, and its access log.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::access_log::Entry;
use crate::tokens::Tokens;
use crate::{Host, Lab, Model, Process, tree, wait};

/// The name of the one user of a private registry.
pub const USER: &str = "reader";
/// And the password: the hash below is of it.
pub const PASSWORD: &str = "secret";
const HTPASSWD: &str = "reader:$2b$04$R7O9fAbwX1WbmbppVZ8X4uJNHU2bFmUwmcv4.7eXKJpLDSf6lrMBC\n";
/// A start, and the way from a response's last byte to the log.
const SOON: Duration = Duration::from_secs(20);
/// Larger files are linked instead of copied; the registry changes only small ones in place (tags).
const LINKED: u64 = 64 << 10;

/// A registry that runs.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    address: SocketAddr,
    access: PathBuf,
    certificate: PathBuf,
    storage: PathBuf,
}

/// How it is reached, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// By everybody, with plain HTTP.
    Open,
    /// By [`USER`] with [`PASSWORD`], with plain HTTP.
    Private,
    /// By everybody, with TLS; its certificate is from nobody whom anybody trusts.
    Encrypted,
}

impl Registry {
    /// A registry with these models, for everybody.
    pub fn start(lab: &Lab, models: &[&Model]) -> Self {
        Self::named(lab, "registry", models, Service::Open)
    }

    /// A registry under a name, which its files in the lab have.
    pub fn named(lab: &Lab, name: &str, models: &[&Model], service: Service) -> Self {
        Self::on(
            &lab.dir(name),
            name,
            &stock(lab, name, models),
            &lab.log(name),
            service,
            None,
        )
    }

    /// The same in a host of a network.
    pub fn in_host(lab: &Lab, name: &str, models: &[&Model], service: Service, host: &Host) -> Self {
        Self::on(
            &lab.dir(name),
            name,
            &stock(lab, name, models),
            &lab.log(name),
            service,
            Some(host),
        )
    }

    /// A registry with these models for those to whom this server gives tokens.
    pub fn with_tokens(lab: &Lab, name: &str, models: &[&Model], tokens: &Tokens) -> Self {
        let (dir, root, log) = (lab.dir(name), stock(lab, name, models), lab.log(name));
        Self::configured(&dir, name, &root, &log, (&tokens.registry_config(), ""), None)
    }

    /// A registry on a storage directory, whose own files go to `dir`.
    pub(crate) fn on(
        dir: &Path,
        name: &str,
        storage: &Path,
        log: &Path,
        service: Service,
        host: Option<&Host>,
    ) -> Self {
        let ip = host.map_or(Ipv4Addr::LOCALHOST.into(), Host::address);
        let (auth, tls) = match service {
            Service::Open => (String::new(), String::new()),
            Service::Private => (private(dir), String::new()),
            Service::Encrypted => (String::new(), encrypted(dir, ip)),
        };
        Self::configured(dir, name, storage, log, (&auth, &tls), host)
    }

    fn configured(
        dir: &Path,
        name: &str,
        storage: &Path,
        log: &Path,
        (auth, tls): (&str, &str),
        host: Option<&Host>,
    ) -> Self {
        let ip = host.map_or(Ipv4Addr::LOCALHOST.into(), Host::address);
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {storage:?}}}, maintenance: {{uploadpurging: {{enabled: false}}}}}}\n\
             http: {{addr: '{ip}:0', secret: e2e{tls}}}\n{auth}"
        );
        fs::write(&config, text).expect("the lab is writable");
        let access = dir.join("access.log");
        let stdout = File::create(&access).expect("the lab is writable");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config);
        if let Some(host) = host {
            command = host.inside(&command);
        }
        let process = Process::start_with(name, &mut command, stdout, log);
        let address = wait::until("the registry's start", SOON, || {
            let log = process.log();
            let (_, rest) = log.split_once("listening on ")?;
            rest.split(['"', ' ', ',']).next()?.parse().ok()
        });
        Self {
            process,
            address,
            access,
            certificate: dir.join("cert.pem"),
            storage: storage.to_owned(),
        }
    }

    /// What a seed's or peer's configuration says to read it by plain HTTP, beyond loopback.
    pub fn insecure(&self) -> String {
        format!("[registry]\ninsecure = [\"{}\"]\n", self.address)
    }

    /// The process.
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// The certificate of an encrypted one. It is for `localhost` and the address.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts a blob where it keeps them, as if it had been pushed: thousands of pushes would take minutes. Returns its digest.
    pub(crate) fn place(&self, repository: &str, content: &[u8]) -> String {
        let digest = tree::digest(content);
        let hex = digest.trim_start_matches("sha256:");
        let root = self.storage.join("docker/registry/v2");
        let blob = root.join(format!("blobs/sha256/{}/{hex}", &hex[..2]));
        let link = root.join(format!("repositories/{repository}/_layers/sha256/{hex}"));
        for (dir, name, bytes) in [(blob, "data", content), (link, "link", digest.as_bytes())] {
            fs::create_dir_all(&dir).expect("the lab is writable");
            fs::write(dir.join(name), bytes).expect("there is room on the disk");
        }
        digest
    }

    /// What it has answered so far. A response still under way is not in it.
    pub fn requests(&self) -> Vec<Entry> {
        let text = fs::read_to_string(&self.access).expect("the registry has a log");
        text.lines().filter_map(Entry::parse).collect()
    }

    /// Bytes of a blob that it has sent, by finished responses; not those of its refusals.
    pub fn bytes_of(&self, digest: &str) -> u64 {
        self.requests()
            .iter()
            .filter(|entry| entry.reads_blob(digest) && entry.status < 300)
            .map(|entry| entry.bytes)
            .sum()
    }

    /// Panics unless each byte of the model's blobs left here exactly once, each manifest was fetched once, and only
    /// seeds asked for anything.
    pub fn assert_read_once(&self, model: &Model) {
        for blob in model.blobs() {
            let what = format!("the log of {}", blob.digest);
            wait::until_true(&what, SOON, || self.bytes_of(&blob.digest) >= blob.size);
            assert_eq!(
                self.bytes_of(&blob.digest),
                blob.size,
                "bytes of {} ({:?})",
                blob.digest,
                blob.path
            );
        }
        let of_model = format!("/v2/{}/manifests/", model.repository());
        let requests = self.requests();
        let manifests: Vec<_> = requests
            .iter()
            // A tag older than `registry.tag_ttl` is looked up again by HEAD, which carries no manifest.
            .filter(|entry| entry.method == "GET" && entry.path.starts_with(&of_model))
            .collect();
        assert_eq!(manifests.len(), 1, "requests for the manifest: {manifests:#?}");
        self.assert_only_seeds();
    }

    /// Panics if anybody but seeds asked for anything.
    pub fn assert_only_seeds(&self) {
        let requests = self.requests();
        let others: Vec<_> = requests.iter().filter(|entry| entry.role() != Some("seed")).collect();
        assert!(others.is_empty(), "not from a seed: {others:#?}");
    }

    /// Stops it for good.
    pub fn stop(&mut self) {
        self.process.kill();
    }
}

/// The storage of a registry with these models.
fn stock(lab: &Lab, name: &str, models: &[&Model]) -> PathBuf {
    let root = lab.dir(format!("{name}-storage"));
    for model in models {
        link_tree(model.storage(), &root);
    }
    root
}

/// The configuration of a private registry.
fn private(dir: &Path) -> String {
    let passwords = dir.join("htpasswd");
    fs::write(&passwords, HTPASSWD).expect("the lab is writable");
    format!("auth: {{htpasswd: {{realm: e2e, path: {passwords:?}}}}}\n")
}

/// The configuration of an encrypted registry.
fn encrypted(dir: &Path, ip: IpAddr) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), ip.to_string()]).expect("the name is valid");
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&certificate, made.cert.pem()).expect("the lab is writable");
    fs::write(&key, made.key_pair.serialize_pem()).expect("the lab is writable");
    format!(", tls: {{certificate: {certificate:?}, key: {key:?}}}")
}

/// Adds the files below `from` to `to`, without copying what is large.
fn link_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the lab is writable");
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("directories can be listed");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let metadata = entry.metadata().expect("it was just listed");
        if metadata.is_dir() {
            link_tree(&path, &target);
        } else if !target.exists() {
            let small = metadata.len() < LINKED;
            let added = if small {
                fs::copy(&path, &target).map(drop)
            } else {
                fs::hard_link(&path, &target)
            };
            added.expect("the cache and the lab are on one filesystem");
        }
    }
}
