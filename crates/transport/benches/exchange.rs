//! The data plane beside a bare quinn pair with the same settings, in one run: memory to discard, one connection.
//!
//! `cargo bench -p transport --bench exchange`. Each node has a runtime of one thread, as in production, and both share
//! this machine's cores, so CPU-seconds per GiB (of sender plus receiver) is the figure that travels. Verification and
//! disk are left out. Ours fills a buffer per piece, because a piece is verified and written whole; that copy is 0.1 to 0.15
//! CPU-s/GiB. The bare pair is measured twice: filling the same buffers, and dropping what it receives. Loopback takes
//! packets of any size, so the payload's bound stands for the MTU.

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
/// Pieces asked for at once.
const IN_FLIGHT: usize = 4;
/// 2 GiB per run: a few seconds.
const PIECES: u32 = 512;
/// What opens the congestion window before the clock starts.
const WARM_UP: u32 = 32;
const ROUNDS: usize = 3;
const ALPN: &[u8] = b"bench";

fn main() -> Outcome<()> {
    let piece: Bytes = (0..PIECE).map(|i| ((i * 31) >> 5) as u8).collect();
    println!("{PIECES} pieces of {PIECE} bytes per run, {IN_FLIGHT} in flight");
    println!("                 packswarm            bare quinn, buffers         bare quinn, dropping");
    println!("payload   run    GiB/s  CPU-s/GiB     GiB/s  CPU-s/GiB  ratio     GiB/s  CPU-s/GiB  ratio");
    for payload in [1472, 6500] {
        let config = Config {
            max_udp_payload: payload,
            mtu_upper_bound: payload,
            ..Config::default()
        };
        let mut runs = Vec::new();
        for round in 1..=ROUNDS {
            runs.push([
                packswarm(&config, &piece)?,
                quinn_pair(&config, &piece, Sink::Buffer)?,
                quinn_pair(&config, &piece, Sink::Drop)?,
            ]);
            print_row(payload, &round.to_string(), &runs[round - 1..]);
        }
        print_row(payload, "mean", &runs);
    }
    Ok(())
}

/// Prints the means of `runs`, and the ratios of ours to the others' GiB/s.
fn print_row(payload: u16, run: &str, runs: &[[Cost; 3]]) {
    let mean =
        |which: usize, of: fn(&Cost) -> f64| runs.iter().map(|run| of(&run[which])).sum::<f64>() / runs.len() as f64;
    let [speed, buffers, drops] = [0, 1, 2].map(|which| mean(which, |cost| cost.gib_per_s));
    let [cpu, buffers_cpu, drops_cpu] = [0, 1, 2].map(|which| mean(which, |cost| cost.cpu_s_per_gib));
    let bare = |bare: f64, cpu: f64| format!("{bare:>5.2}  {cpu:>9.2}  {:>5.2}", speed / bare);
    let (buffers, drops) = (bare(buffers, buffers_cpu), bare(drops, drops_cpu));
    println!("{payload:<9} {run:<6} {speed:>5.2}  {cpu:>9.2}     {buffers}     {drops}");
}

/// What the bare receiver does with what it receives.
#[derive(Clone, Copy)]
enum Sink {
    Buffer,
    Drop,
}

/// Buffers for pieces, used again and again.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0
            .lock()
            .expect("nobody panics")
            .pop()
            .unwrap_or_else(|| vec![0; PIECE])
    }

    fn give_back(&self, buffer: Vec<u8>) {
        self.0.lock().expect("nobody panics").push(buffer);
    }
}

/// What a transfer took.
struct Cost {
    gib_per_s: f64,
    cpu_s_per_gib: f64,
}

/// Moves all pieces with `fetch`, once the sender's path carries `payload` bytes.
async fn measure<F>(payload: u16, sender_mtu: impl Fn() -> u16, fetch: impl Fn(u32) -> F) -> Outcome<Cost>
where
    F: Future<Output = Outcome<()>>,
{
    // Discovery stops within 20 bytes of its bound.
    while sender_mtu() + 20 < payload {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pull = |count| {
        futures::stream::iter(0..count)
            .map(&fetch)
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
    };
    pull(WARM_UP).await?;
    let (start, cpu) = (Instant::now(), cpu_seconds());
    pull(PIECES).await?;
    let gib = f64::from(PIECES) * PIECE as f64 / f64::from(1 << 30);
    Ok(Cost {
        gib_per_s: gib / start.elapsed().as_secs_f64(),
        cpu_s_per_gib: (cpu_seconds() - cpu) / gib,
    })
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

fn keys() -> [Arc<NodeKey>; 2] {
    [1, 2].map(|seed| Arc::new(NodeKey::from_seed([seed; 32])))
}

fn packswarm(config: &Config, piece: &Bytes) -> Outcome<Cost> {
    let [receiver, sender] = [runtime()?, runtime()?];
    let [receiver_key, sender_key] = keys();
    let [receiver_id, sender_id] = [receiver_key.node_id(), sender_key.node_id()];
    let cluster = Arc::new(ClusterKeys::parse(&ClusterKeys::generate())?);
    let bind = |key| {
        let (config, cluster) = (config.clone(), cluster.clone());
        async move { Ok(Transport::bind(config, UdpSocket::bind("127.0.0.1:0")?, key, cluster)?) }
    };
    let (holder, mut requests) = run(&sender, bind(sender_key))?;
    let bytes = piece.clone();
    sender.spawn(async move {
        while let Some(event) = requests.recv().await {
            if let Event::Fetch(request) = event {
                tokio::spawn(request.piece(Vec::new(), bytes.clone()));
            }
        }
    });
    let (transport, mut events) = run(&receiver, bind(receiver_key))?;
    receiver.spawn(async move { while events.recv().await.is_some() {} });
    let (payload, path, closing) = (config.mtu_upper_bound, holder.clone(), transport.clone());
    let cost = run(&receiver, async move {
        transport.connect(sender_id, holder.local_addr()).await?;
        let buffers = Buffers::default();
        let fetch = async |number| {
            let fetch = Fetch {
                digest: Digest::EMPTY,
                size: 2 << 30,
                piece: number,
                runs: false,
            };
            let mut buffer = buffers.take();
            transport.fetch(&sender_id, fetch).await?.read_into(&mut buffer).await?;
            buffers.give_back(buffer);
            Ok(())
        };
        measure(payload, || holder.path(&receiver_id).map_or(0, |path| path.mtu), fetch).await
    });
    receiver.block_on(closing.close());
    sender.block_on(path.close());
    cost
}

fn quinn_pair(config: &Config, piece: &Bytes, sink: Sink) -> Outcome<Cost> {
    let [receiver, sender] = [runtime()?, runtime()?];
    let [receiver_key, sender_key] = keys();
    let server = Certificate::generate(&sender_key)?.server_config(ALPN)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
    server.transport_config(Arc::new(same_settings(config)));
    let client = Certificate::generate(&receiver_key)?.client_config(sender_key.node_id(), ALPN)?;
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
    client.transport_config(Arc::new(same_settings(config)));

    let (payload, accepting, dialling) = (config.mtu_upper_bound, config.clone(), config.clone());
    let holder = run(&sender, async move { endpoint(&accepting, Some(server)) })?;
    let (addr, bytes) = (holder.local_addr()?, piece.clone());
    let (accepted, accepts) = tokio::sync::oneshot::channel();
    sender.spawn(async move {
        let connection = holder.accept().await.ok_or("the endpoint is closed")?.await?;
        accepted.send(connection.clone()).map_err(|_| "nobody waits")?;
        serve(connection, bytes).await
    });
    run(&receiver, async move {
        let dialler = endpoint(&dialling, None)?;
        let connection = dialler.connect_with(client, addr, "bench")?.await?;
        let accepted = accepts.await?;
        let buffers = Buffers::default();
        let mtu = || accepted.stats().path.current_mtu;
        let cost = measure(payload, mtu, |_| fetch_bare(&connection, sink, &buffers)).await;
        connection.close(VarInt::from_u32(0), b"");
        dialler.wait_idle().await;
        cost
    })
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

async fn fetch_bare(connection: &Connection, sink: Sink, buffers: &Buffers) -> Outcome<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&[0; 48]).await?;
    send.finish()?;
    let mut buffer = buffers.take();
    let mut chunks: [Bytes; 64] = std::array::from_fn(|_| Bytes::new());
    let mut received = 0;
    while let Some(count) = recv.read_chunks(&mut chunks).await? {
        for chunk in chunks[..count].iter_mut().map(std::mem::take) {
            if let Sink::Buffer = sink {
                buffer[received..received + chunk.len()].copy_from_slice(&chunk);
            }
            received += chunk.len();
        }
    }
    buffers.give_back(buffer);
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
