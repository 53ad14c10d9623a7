//! nginx with sendfile, serving one file: what a mirror is measured against.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;

/// How long it may take to listen.
const READY: Duration = Duration::from_secs(5);

/// One nginx process without a master, so that all its processor time is one process's; killed when dropped.
#[derive(Debug)]
pub struct Nginx {
    process: Child,
    address: SocketAddr,
}

impl Nginx {
    /// Serves the files of `files`, with its own files in `dir`.
    ///
    /// # Errors
    /// If it is not installed (Debian: `nginx-light`) or does not listen.
    pub fn start(dir: &Path, files: &Path) -> Outcome<Self> {
        // nginx cannot be handed a socket, nor say which port it got.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = dir.join("nginx.conf");
        std::fs::write(&config, configuration(address, dir, files))?;
        let process = Command::new("nginx")
            .arg("-c")
            .arg(&config)
            .arg("-e")
            .arg(dir.join("error.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run nginx (Debian: apt-get install nginx-light): {error}"))?;
        let nginx = Self { process, address };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begun.elapsed() > READY {
                let log = std::fs::read_to_string(dir.join("error.log")).unwrap_or_default();
                return Err(format!("nginx does not listen: {log}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(nginx)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The settings that nginx's documentation names for large files. One process, as the mirror has one thread on two cores.
fn configuration(address: SocketAddr, dir: &Path, files: &Path) -> String {
    let (dir, files) = (dir.display(), files.display());
    // Without this line, a master run by root gives its worker to nobody, who may not read the store.
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    format!(
        "{user}
daemon off;
master_process off;
pid {dir}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen {address};
        root {files};
    }}
}}
"
    )
}
