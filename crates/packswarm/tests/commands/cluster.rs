//! A small cluster of real processes, and a registry in this one.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use testbed::{Artifact, Options, Registry};

/// Nothing here takes a tenth of it.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A scheduler, a seed, a peer, and a model in a registry. Dropping it kills them.
pub(crate) struct Cluster {
    pub(crate) peer: Role,
    pub(crate) seed: Role,
    pub(crate) scheduler: Role,
    pub(crate) registry: Registry,
    pub(crate) model: Artifact,
    pub(crate) key: PathBuf,
    pub(crate) dir: TempDir,
    _runtime: tokio::runtime::Runtime,
}

/// A process of a role.
pub(crate) struct Role {
    child: Child,
    ready_file: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) ready: Value,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("model");
        fs::create_dir_all(files.join("tokenizer")).unwrap();
        let weights: Vec<u8> = (0..3_000_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        fs::write(files.join("weights.bin"), weights).unwrap();
        fs::write(files.join("config.json"), "{}").unwrap();
        fs::write(files.join("tokenizer/vocab.txt"), "a\nb\n").unwrap();
        let model = Artifact::from_dir(&files).unwrap();

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let registry = runtime
            .block_on(async { Registry::start(listener, Options::default()) })
            .unwrap();
        registry.publish("org/model", "v1", &model);

        let key = dir.path().join("cluster.key");
        fs::write(&key, run(&["keygen"]).stdout).unwrap();
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let scheduler = Role::start(dir.path(), "scheduler", &key, &[]);
        let at = scheduler.address("control").to_string();
        let seed = Role::start(dir.path(), "seed", &key, &["--scheduler", &at]);
        let peer = Role::start(
            dir.path(),
            "peer",
            &key,
            &["--scheduler", &at, "--mirror", "127.0.0.1:0"],
        );
        Self {
            peer,
            seed,
            scheduler,
            registry,
            model,
            key,
            dir,
            _runtime: runtime,
        }
    }

    /// The model's name.
    pub(crate) fn reference(&self) -> String {
        format!("{}/org/model:v1", self.registry.address())
    }

    /// A path below this cluster's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Asserts that a directory holds the model.
    pub(crate) fn assert_is_model(&self, dir: &Path) {
        for file in ["weights.bin", "config.json", "tokenizer/vocab.txt"] {
            let source = fs::read(self.path("model").join(file)).unwrap();
            assert_eq!(fs::read(dir.join(file)).unwrap(), source, "{file}");
        }
    }
}

impl Role {
    fn start(dir: &Path, role: &str, key: &Path, more: &[&str]) -> Self {
        let ready_file = dir.join(format!("{role}.ready"));
        let config = dir.join(format!("{role}.toml"));
        fs::write(&config, "[log]\nfilter = \"info\"\n").unwrap();
        let log = fs::File::create(dir.join(format!("{role}.log"))).unwrap();
        let mut command = packswarm();
        command
            .arg(role)
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(more);
        command
            .arg("--config")
            .arg(&config)
            .arg("--cluster-key")
            .arg(key)
            .arg("--ready-file")
            .arg(&ready_file);
        command
            .arg("--data-dir")
            .arg(dir.join(format!("{role}-data")))
            .stderr(log);
        let mut child = command.spawn().unwrap();
        let ready = until(&format!("the {role} to be ready"), || {
            assert_eq!(child.try_wait().unwrap(), None, "{}", log_of(dir, role));
            serde_json::from_slice(&fs::read(&ready_file).ok()?).ok()
        });
        Self {
            child,
            ready_file,
            config,
            ready,
        }
    }

    /// One of the addresses of its ready file.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let address = self.ready[name].as_str();
        address
            .unwrap_or_else(|| panic!("no {name} in {}", self.ready))
            .parse()
            .unwrap()
    }

    /// The admin address as commands take it.
    pub(crate) fn admin(&self) -> String {
        format!("http://{}", self.address("admin"))
    }

    /// The mirror as commands take it.
    pub(crate) fn mirror(&self) -> String {
        format!("http://{}", self.address("mirror"))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Its end, after SIGTERM.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        let child = &mut self.child;
        let status = until("a process to end", || child.try_wait().unwrap());
        assert!(!self.ready_file.exists(), "the ready file is gone");
        status
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may have ended already, which is just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has logged.
pub(crate) fn log_of(dir: &Path, role: &str) -> String {
    fs::read_to_string(dir.join(format!("{role}.log"))).unwrap()
}

/// The binary, without the environment's options.
pub(crate) fn packswarm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_packswarm"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PACKSWARM_")) {
        command.env_remove(name);
    }
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    packswarm().args(arguments).output().unwrap()
}

/// What a command prints that must succeed.
pub(crate) fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What a command says that must fail.
pub(crate) fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?} succeeded: {output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
    said
}

/// Waits for something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
