//! A slow link: a TCP proxy in front of a registry, whose connections share a rate. So that "in the middle of a pull" is
//! long enough to do something in it, on any machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::sockopt;

/// Taken through at a time: small, so that connections take turns.
const CHUNK: usize = 64 << 10;

/// Bytes of each socket's buffers, so that what the registry has written is soon read by somebody: on a real link no more
/// than bandwidth times round trip is in between.
const BUFFER: usize = 128 << 10;

/// Runs until it is dropped. Connections end with the programs at their ends.
#[derive(Debug)]
pub struct Throttle {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Bytes per second towards the client; 0 for all that there is.
    rate: AtomicU64,
    /// When everything let through so far would have passed at that rate.
    due: Mutex<Instant>,
    stopped: AtomicBool,
}

impl Throttle {
    /// Passes everything on to `target`, and the answers back at `rate` bytes per second.
    pub fn start(target: SocketAddr, rate: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let shared = Shared {
            rate: rate.into(),
            due: Mutex::new(Instant::now()),
            stopped: false.into(),
        };
        let shared = Arc::new(shared);
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(server) = TcpStream::connect(target) {
                    join(client, server, &accepting);
                }
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the rate; 0 opens it.
    pub fn set_rate(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::Relaxed);
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes the acceptor, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

fn join(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    for socket in [&client, &server] {
        let small = sockopt::set_socket_recv_buffer_size(socket, BUFFER);
        small
            .and_then(|()| sockopt::set_socket_send_buffer_size(socket, BUFFER))
            .expect("sockets have buffers");
    }
    let clones = client.try_clone().and_then(|client| Ok((client, server.try_clone()?)));
    let (to_client, from_server) = clones.expect("the process may have more files");
    std::thread::spawn(move || copy(client, server, |_| ()));
    let shared = Arc::clone(shared);
    std::thread::spawn(move || copy(from_server, to_client, |bytes| shared.wait(bytes)));
}

fn copy(mut from: TcpStream, mut to: TcpStream, wait: impl Fn(u64)) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        wait(read as u64);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Either end may be gone already. What the other still sends has nowhere to go.
    let _ = to.shutdown(std::net::Shutdown::Write);
    let _ = from.shutdown(std::net::Shutdown::Read);
}

impl Shared {
    fn wait(&self, bytes: u64) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let pause = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            *due = (*due).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *due - now
        };
        std::thread::sleep(pause);
    }
}
