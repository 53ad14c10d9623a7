//! The data plane beside bare quinn with the same settings, in one run: memory to memory, from one neighbour and from eight.
//!
//! `cargo bench -p transport --bench exchange`. Each node has a runtime of one thread, as in production, and all share
//! this machine's cores, so CPU-seconds per GiB (of senders plus receiver) is the figure that travels. Verification and
//! disk are left out; `cargo bench -p peer` has them. Every measurement is made with both and with two ends of the way:
//! - *dropped*: what arrives is dropped as it comes. This compares the planes themselves.
//! - *whole*: each piece is in memory before it goes, as one must be that is proven and then written. packswarm gives the
//!   chunks as they came, as its nodes take them; the bare receiver copies them into buffers that it uses again and again.
//!
//! Loopback takes packets of any size, so the payload's bound stands for the MTU.

use std::error::Error;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use identity::tls::Certificate;
use identity::{ClusterKeys, NodeKey};
use piece::Digest;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, TokioRuntime, TransportConfig, VarInt};
use rustix::net::sockopt;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use transport::{Config, Event, Transport};
use wire::exchange::Fetch;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const PIECE: usize = 4 << 20;
/// Pieces asked for at once, of one neighbour and of all: a node's own limits.
const IN_FLIGHT: usize = 4;
const IN_FLIGHT_OF_ALL: usize = 16;
/// 1 GiB per measurement: a second or two.
const PIECES: usize = 256;
/// What opens the congestion windows before the clock starts.
const WARM_UP: usize = 64;
const ROUNDS: usize = 3;
const ALPN: &[u8] = b"bench";

fn main() -> Outcome<()> {
    let piece: Bytes = (0..PIECE).map(|i| ((i * 31) >> 5) as u8).collect();
    println!("{PIECES} pieces of {PIECE} bytes per measurement; GiB/s and CPU-s/GiB");
    println!("                           dropped                               whole");
    println!("payload  from  run         packswarm    bare quinn   ratio       packswarm    bare quinn   ratio");
    for (payload, neighbours) in [(1472, 1), (1472, 8), (6500, 1), (6500, 8)] {
        let config = Config {
            max_udp_payload: payload,
            mtu_upper_bound: payload,
            ..Config::default()
        };
        let bench = Bench {
            config,
            neighbours,
            piece: piece.clone(),
        };
        let mut runs = Vec::new();
        for round in 1..=ROUNDS {
            runs.push([
                bench.packswarm(End::Dropped)?,
                bench.bare_quinn(End::Dropped)?,
                bench.packswarm(End::Whole)?,
                bench.bare_quinn(End::Whole)?,
            ]);
            bench.print_row(&round.to_string(), &runs[round - 1..]);
        }
        bench.print_row("mean", &runs);
    }
    Ok(())
}

/// What becomes of the bytes.
#[derive(Clone, Copy)]
enum End {
    Dropped,
    Whole,
}

/// What a transfer took.
struct Cost {
    gib_per_s: f64,
    cpu_s_per_gib: f64,
}

/// What is measured with both.
struct Bench {
    config: Config,
    neighbours: usize,
    piece: Bytes,
}

impl Bench {
    /// Prints the means of `runs`, and the ratios of ours to the other's GiB/s and CPU-s/GiB.
    fn print_row(&self, run: &str, runs: &[[Cost; 4]]) {
        let mean = |which: usize, of: fn(&Cost) -> f64| {
            runs.iter().map(|run| of(&run[which])).sum::<f64>() / runs.len() as f64
        };
        let pair = |ours: usize, bare: usize| {
            let [speed, bare_speed] = [ours, bare].map(|which| mean(which, |cost| cost.gib_per_s));
            let [cpu, bare_cpu] = [ours, bare].map(|which| mean(which, |cost| cost.cpu_s_per_gib));
            let (speeds, cpus) = (speed / bare_speed, cpu / bare_cpu);
            format!("{speed:>5.2} {cpu:>5.2}  {bare_speed:>5.2} {bare_cpu:>5.2}  {speeds:>5.2} {cpus:>5.2}")
        };
        let (payload, neighbours) = (self.config.mtu_upper_bound, self.neighbours);
        println!(
            "{payload:<8} {neighbours:<5} {run:<5}  {}    {}",
            pair(0, 1),
            pair(2, 3)
        );
    }

    /// Moves all pieces with `fetch`, which is given a piece's number and its neighbour's, once the senders' paths carry the
    /// payload.
    async fn measure<F>(
        config: &Config,
        neighbours: usize,
        sender_mtu: impl Fn(usize) -> u16,
        fetch: impl Fn(u32, usize) -> F,
    ) -> Outcome<Cost>
    where
        F: Future<Output = Outcome<()>>,
    {
        // Discovery stops within 20 bytes of its bound.
        while (0..neighbours).any(|from| sender_mtu(from) + 20 < config.mtu_upper_bound) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let pull = |count: usize| {
            futures::stream::iter(0..count)
                .map(|number| fetch(number as u32, number % neighbours))
                .buffer_unordered((IN_FLIGHT * neighbours).min(IN_FLIGHT_OF_ALL))
                .try_collect::<()>()
        };
        pull(WARM_UP).await?;
        let (start, cpu) = (Instant::now(), cpu_seconds());
        pull(PIECES).await?;
        let gib = (PIECES * PIECE) as f64 / f64::from(1 << 30);
        Ok(Cost {
            gib_per_s: gib / start.elapsed().as_secs_f64(),
            cpu_s_per_gib: (cpu_seconds() - cpu) / gib,
        })
    }

    fn packswarm(&self, end: End) -> Outcome<Cost> {
        let (config, neighbours) = (self.config.clone(), self.neighbours);
        let cluster = Arc::new(ClusterKeys::parse(&ClusterKeys::generate())?);
        let bind = |number| {
            let (config, cluster) = (config.clone(), cluster.clone());
            let key = Arc::new(key(number));
            async move { Ok(Transport::bind(config, UdpSocket::bind("127.0.0.1:0")?, key, cluster)?) }
        };
        let runtimes: Vec<Runtime> = (0..neighbours).map(|_| runtime()).collect::<Outcome<_>>()?;
        let mut holders = Vec::new();
        for (number, runtime) in runtimes.iter().enumerate() {
            let (holder, mut requests) = run(runtime, bind(number))?;
            let bytes = self.piece.clone();
            runtime.spawn(async move {
                while let Some(event) = requests.recv().await {
                    if let Event::Fetch(request) = event {
                        tokio::spawn(request.piece(Vec::new(), bytes.clone()));
                    }
                }
            });
            holders.push(holder);
        }
        let receiver = runtime()?;
        let (transport, mut events) = run(&receiver, bind(neighbours))?;
        receiver.spawn(async move { while events.recv().await.is_some() {} });
        let (config, paths, fetching) = (self.config.clone(), holders.clone(), transport.clone());
        let cost = run(&receiver, async move {
            let ids: Vec<_> = (0..neighbours).map(|number| key(number).node_id()).collect();
            for (id, holder) in ids.iter().zip(&paths) {
                fetching.connect(*id, holder.local_addr()).await?;
            }
            let me = key(neighbours).node_id();
            let mtu = |from: usize| paths[from].path(&me).map_or(0, |path| path.mtu);
            let fetch = |number, from: usize| fetch_ours(&fetching, number, ids[from], end);
            Self::measure(&config, neighbours, mtu, fetch).await
        });
        receiver.block_on(transport.close());
        for (runtime, holder) in runtimes.iter().zip(holders) {
            runtime.block_on(holder.close());
        }
        cost
    }

    fn bare_quinn(&self, end: End) -> Outcome<Cost> {
        let (config, neighbours) = (self.config.clone(), self.neighbours);
        let [receiver, runtimes] =
            [1, neighbours].map(|count| (0..count).map(|_| runtime()).collect::<Outcome<Vec<_>>>());
        let (receiver, runtimes) = (receiver?, runtimes?);
        let mut holders = Vec::new();
        for (number, runtime) in runtimes.iter().enumerate() {
            let server = Certificate::generate(&key(number))?.server_config(ALPN)?;
            let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
            server.transport_config(Arc::new(same_settings(&config)));
            let config = config.clone();
            let holder = run(runtime, async move { endpoint(&config, Some(server)) })?;
            let (addr, bytes) = (holder.local_addr()?, self.piece.clone());
            let (accepted, accepts) = tokio::sync::oneshot::channel();
            runtime.spawn(async move {
                let connection = holder.accept().await.ok_or("the endpoint is closed")?.await?;
                accepted.send(connection.clone()).map_err(|_| "nobody waits")?;
                serve(connection, bytes).await
            });
            holders.push((addr, accepts));
        }
        run(&receiver[0], async move {
            let dialler = endpoint(&config, None)?;
            let certificate = Certificate::generate(&key(neighbours))?;
            let (mut connections, mut accepted) = (Vec::new(), Vec::new());
            for (number, (addr, accepts)) in holders.into_iter().enumerate() {
                let client = certificate.client_config(key(number).node_id(), ALPN)?;
                let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
                client.transport_config(Arc::new(same_settings(&config)));
                connections.push(dialler.connect_with(client, addr, "bench")?.await?);
                accepted.push(accepts.await?);
            }
            let buffers = Buffers::default();
            let mtu = |from: usize| accepted[from].stats().path.current_mtu;
            let fetch = |_, from: usize| fetch_bare(&connections[from], end, &buffers);
            let cost = Self::measure(&config, neighbours, mtu, fetch).await;
            dialler.close(VarInt::from_u32(0), b"");
            dialler.wait_idle().await;
            cost
        })
    }
}

fn cpu_seconds() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn runtime() -> Outcome<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?)
}

/// Runs `future` on the runtime's one worker, not on this thread beside it.
fn run<T: Send + 'static>(runtime: &Runtime, future: impl Future<Output = Outcome<T>> + Send + 'static) -> Outcome<T> {
    runtime.block_on(runtime.spawn(future))?
}

/// The neighbours' keys, and behind them the receiver's.
fn key(number: usize) -> NodeKey {
    NodeKey::from_seed([number as u8 + 1; 32])
}

async fn fetch_ours(transport: &Transport, number: u32, from: piece::NodeId, end: End) -> Outcome<()> {
    let fetch = Fetch {
        digest: Digest::EMPTY,
        size: 2 << 30,
        piece: number,
        runs: false,
    };
    let mut incoming = transport.fetch(&from, fetch).await?;
    match end {
        End::Dropped => {
            let mut chunks = incoming.chunks(PIECE);
            while let Some(chunks) = chunks.next().await? {
                chunks.fill(Bytes::new());
            }
        }
        End::Whole => drop(incoming.read(PIECE).await?),
    }
    Ok(())
}

/// Buffers for pieces, used again and again.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().expect("nobody panics").pop();
        spare.unwrap_or_else(|| vec![0; PIECE])
    }

    fn give_back(&self, buffer: Vec<u8>) {
        self.0.lock().expect("nobody panics").push(buffer);
    }
}

/// Answers each stream with the piece.
async fn serve(connection: Connection, piece: Bytes) -> Outcome<()> {
    loop {
        let (mut send, mut recv) = connection.accept_bi().await?;
        let piece = piece.clone();
        tokio::spawn(async move {
            recv.read_to_end(64).await?;
            send.write_chunk(piece).await?;
            send.finish()?;
            Outcome::Ok(())
        });
    }
}

async fn fetch_bare(connection: &Connection, end: End, buffers: &Buffers) -> Outcome<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&[0; 48]).await?;
    send.finish()?;
    let mut buffer = match end {
        End::Dropped => Vec::new(),
        End::Whole => buffers.take(),
    };
    let mut chunks: [Bytes; 64] = std::array::from_fn(|_| Bytes::new());
    let mut received = 0;
    while let Some(count) = recv.read_chunks(&mut chunks).await? {
        for chunk in chunks[..count].iter_mut().map(std::mem::take) {
            if let End::Whole = end {
                buffer[received..received + chunk.len()].copy_from_slice(&chunk);
            }
            received += chunk.len();
        }
    }
    if let End::Whole = end {
        buffers.give_back(buffer);
    }
    if received == PIECE {
        Ok(())
    } else {
        Err("a piece came short".into())
    }
}

/// What `transport` sets from its configuration.
fn same_settings(config: &Config) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(config.mtu_upper_bound);
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(config.stream_receive_window))
        .receive_window(VarInt::from_u32(config.connection_receive_window))
        .send_window(config.send_window)
        .initial_mtu(config.initial_mtu)
        .mtu_discovery_config(Some(discovery));
    transport
}

fn endpoint(config: &Config, server: Option<quinn::ServerConfig>) -> Outcome<Endpoint> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    sockopt::set_socket_recv_buffer_size(&socket, config.socket_buffer)?;
    sockopt::set_socket_send_buffer_size(&socket, config.socket_buffer)?;
    let mut endpoint = EndpointConfig::default();
    endpoint.max_udp_payload_size(config.max_udp_payload)?;
    Ok(Endpoint::new(endpoint, server, socket, Arc::new(TokioRuntime))?)
}
