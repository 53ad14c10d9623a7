//! What one scheduler holds: `cargo bench -p scheduler`.
//!
//! First the decisions alone, on one core: 10,000 registered nodes that report and join. Then the whole role over real
//! connections on loopback, with the nodes in the same process, so that what it shows is a lower bound.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on is of no use")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use control::{Control, Event, To};
use identity::{ClusterKeys, NodeKey};
use piece::{Blob, Digest, Midstate, NodeId};
use scheduler::{Config, Listeners, Scheduler};
use swarm::scheduler::{Input, Output, RequestId, Scheduler as Machine};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use wire::control::{Access, Address, Holding, Kind, Locality, Reading, Repository, Request, Response, Role, Source};

const NODES: u32 = 10_000;
const SEEDS: u32 = 20;
/// Blobs that are here already, and how many of them each node holds.
const BLOBS: u32 = 400;
const HELD: u32 = 20;
/// Holdings in a report while a node downloads.
const CHANGED: u32 = 4;
const ROUNDS: u32 = 20;
const CONNECTIONS: usize = 300;
const MEASURE: Duration = Duration::from_secs(5);

fn main() {
    decisions();
    whole_role();
}

fn node(number: u32) -> NodeId {
    NodeId::from_bytes(*Digest::of(&number.to_be_bytes()).as_bytes())
}

fn blob(number: u32) -> Blob {
    let digest = Digest::of(&[&b"blob"[..], &number.to_be_bytes()].concat());
    Blob { digest, size: 4 << 30 }
}

fn source() -> Source {
    let repository = Repository {
        registry: "registry.example".into(),
        name: "org/model".into(),
    };
    Source {
        repository,
        kind: Kind::Blob,
    }
}

fn holding(number: u32, pieces: u32) -> Holding {
    let blob = blob(number);
    Holding {
        blob,
        pieces,
        wants: pieces < blob.geometry().count(),
        media_type: None,
        reading: None,
    }
}

fn registration(number: u32) -> Request {
    let locality = Locality {
        host: None,
        rack: Some(format!("rack {}", number % 250)),
        zone: Some(format!("zone {}", number % 4)),
    };
    Request::Register {
        protocol: wire::PROTOCOL,
        role: if number < SEEDS { Role::Seed } else { Role::Peer },
        data: Address("0.0.0.0:7654".parse().unwrap()),
        locality,
        holdings: (0..HELD)
            .map(|turn| holding((number + turn * 20) % BLOBS, 1024))
            .collect(),
        more: false,
    }
}

fn join(digest: Digest) -> Request {
    Request::Join {
        digest,
        size: None,
        source: source(),
        urgent: true,
    }
}

fn report(holdings: Vec<Holding>) -> Request {
    Request::Report {
        holdings,
        gone: vec![],
        failed: vec![],
        accusations: vec![],
        lonely: vec![],
    }
}

/// The machine, and what it has asked to be done.
struct Bench {
    machine: Machine,
    now: Duration,
    next: u64,
    out: Vec<Output>,
    outputs: usize,
}

impl Bench {
    /// Handles one input per item, a tenth of a millisecond apart, and prints how long that took.
    fn measure(&mut self, what: &str, inputs: Vec<Input>) {
        let count = inputs.len();
        let mut slowest = Duration::ZERO;
        self.outputs = 0;
        let started = Instant::now();
        for input in inputs {
            let before = Instant::now();
            self.machine.handle(self.now, input, &mut self.out);
            slowest = slowest.max(before.elapsed());
            self.outputs += self.out.len();
            self.out.clear();
            self.now += Duration::from_micros(100);
        }
        let took = started.elapsed();
        let rate = count as f64 / took.as_secs_f64();
        println!(
            "{what:<58} {rate:>10.0} /s   mean {:>7.1} us   slowest {:>8.0} us   {} outputs",
            took.as_secs_f64() * 1e6 / count as f64,
            slowest.as_secs_f64() * 1e6,
            self.outputs,
        );
    }

    /// What those who read these blobs report when they have so many pieces.
    fn readers_report(&mut self, blobs: std::ops::Range<u32>, pieces: u32) -> Vec<Input> {
        let swarms = self.machine.swarms(None, usize::MAX);
        let readers = swarms.iter().filter_map(|swarm| {
            let number = blobs.clone().find(|number| blob(*number).digest == swarm.digest)?;
            let reader = swarm.reader?;
            let reading = Reading {
                epoch: reader.epoch,
                boundary: pieces - 1,
                midstate: Some(Midstate::START),
                source: source(),
                access: Access::Public,
            };
            let read = Holding {
                reading: Some(reading),
                ..holding(number, pieces)
            };
            Some((reader.node, report(vec![read])))
        });
        let seed_of = |id| (0..SEEDS).find(|seed| node(*seed) == id);
        let reports: Vec<(u32, Request)> = readers.filter_map(|(id, read)| Some((seed_of(id)?, read))).collect();
        reports
            .into_iter()
            .map(|(seed, read)| self.request(seed, read))
            .collect()
    }

    fn request(&mut self, from: u32, request: Request) -> Input {
        self.next += 1;
        Input::Request {
            from: node(from),
            observed: IpAddr::from([10, 0, 0, 1]),
            id: RequestId(self.next),
            request,
        }
    }
}

fn decisions() {
    println!("decisions on one core, {NODES} nodes ({SEEDS} seeds), {BLOBS} blobs of which each holds {HELD}:");
    let machine = Machine::new(swarm::scheduler::Config::default(), 1, 1);
    let mut bench = Bench {
        machine,
        now: Duration::from_secs(60),
        next: 0,
        out: Vec::new(),
        outputs: 0,
    };
    let inputs = (0..NODES)
        .map(|number| bench.request(number, registration(number)))
        .collect();
    bench.measure("registrations", inputs);
    let inputs = (0..NODES).map(|number| bench.request(number, report(vec![]))).collect();
    bench.measure("heartbeats", inputs);

    // A model of four blobs that nobody has: every node wants all of them, and reports on all of them.
    let model = BLOBS..BLOBS + CHANGED;
    let inputs = model
        .clone()
        .flat_map(|number| (SEEDS..NODES).map(move |from| (number, from)))
        .map(|(number, from)| bench.request(from, join(blob(number).digest)))
        .collect();
    bench.measure("joins of four blobs that nobody has", inputs);
    let inputs = bench.readers_report(model.clone(), 2);
    bench.measure("the readers' first reports, told to all", inputs);
    let mut inputs = Vec::new();
    for round in 1..=ROUNDS {
        inputs.extend((0..SEEDS).map(|seed| bench.request(seed, report(vec![]))));
        inputs.extend(bench.readers_report(model.clone(), round * 40));
        for from in SEEDS..NODES {
            let holdings = model.clone().map(|number| holding(number, round * 40)).collect();
            inputs.push(bench.request(from, report(holdings)));
        }
    }
    bench.measure("reports on four blobs each", inputs);
    let lonely = (SEEDS..NODES).map(|from| {
        let mut request = report(vec![]);
        if let Request::Report { lonely, .. } = &mut request {
            lonely.push(blob(BLOBS).digest);
        }
        (from, request)
    });
    let inputs = lonely.map(|(from, request)| bench.request(from, request)).collect();
    bench.measure("reports that ask for neighbours", inputs);
    let inputs = (0..BLOBS)
        .flat_map(|number| (0..25).map(move |turn| (number, SEEDS + (number * 25 + turn * 7) % (NODES - SEEDS))))
        .map(|(number, from)| bench.request(from, join(blob((number + 7) % BLOBS).digest)))
        .collect();
    bench.measure("joins of blobs that hundreds hold", inputs);
    bench.measure(
        "seeds dying in a swarm of all",
        (0..SEEDS).map(|seed| Input::Disconnected(node(seed))).collect(),
    );
    println!("{:?}\n", bench.machine.status(bench.now));
}

fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap()
}

fn scheduler_of(node: &Control) -> To {
    To::Node(node.schedulers().borrow().connected[0])
}

/// A node that has registered.
async fn connect(at: String, cluster: Arc<ClusterKeys>, number: u32) -> Control {
    let mut config = control::Config::new("127.0.0.1:0".parse().unwrap());
    config.schedulers = vec![at];
    config.kad = false;
    let (control, mut events) = Control::start(config, Arc::new(NodeKey::generate()), cluster)
        .await
        .unwrap();
    while !matches!(events.recv().await, Some(Event::SchedulerUp(_))) {}
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::Request { reply, .. } = event {
                reply.send(Response::Taken);
            }
        }
    });
    control.ask(scheduler_of(&control), registration(number)).await.unwrap();
    control
}

/// Processor time of this thread's process, from /proc: user and system, in seconds.
fn thread_seconds(name: &str) -> f64 {
    let mut total = 0.0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let Some((head, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        if head.contains(name) {
            let fields: Vec<&str> = rest.split(' ').collect();
            let ticks = |at: usize| {
                fields
                    .get(at)
                    .and_then(|field| field.parse::<f64>().ok())
                    .unwrap_or(0.0)
            };
            total += (ticks(11) + ticks(12)) / 100.0;
        }
    }
    total
}

fn whole_role() {
    let servers = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("scheduler-only")
        .enable_all()
        .build()
        .unwrap();
    let clients = runtime(1);
    let cluster = Arc::new(ClusterKeys::parse(&ClusterKeys::generate()).unwrap());
    let keys = Arc::clone(&cluster);
    let scheduler = servers.block_on(servers.spawn(async move {
        let config = Config::new(control::Config::new("127.0.0.1:0".parse().unwrap()));
        let listeners = Listeners {
            admin: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        };
        Scheduler::start(config, listeners, Arc::new(NodeKey::generate()), keys)
            .await
            .unwrap()
    }));
    let scheduler = scheduler.unwrap();
    let at = scheduler.addresses().control.to_string();
    let started = Instant::now();
    let nodes = clients.block_on(async {
        let connecting =
            (0..CONNECTIONS).map(|number| tokio::spawn(connect(at.clone(), Arc::clone(&cluster), number as u32)));
        let mut nodes = Vec::new();
        for node in connecting.collect::<Vec<_>>() {
            nodes.push(node.await.unwrap());
        }
        nodes
    });
    println!(
        "the whole role over {CONNECTIONS} connections on loopback, scheduler and nodes with one thread each:\n\
         connected and registered in {:.2} s",
        started.elapsed().as_secs_f64()
    );
    let (answered, slowest) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let cpu = thread_seconds("scheduler-only");
    let started = Instant::now();
    clients.block_on(async {
        let asking = nodes.iter().map(|node| {
            let (node, answered, slowest) = (node.clone(), Arc::clone(&answered), Arc::clone(&slowest));
            tokio::spawn(async move {
                let mut round = 0;
                while started.elapsed() < MEASURE {
                    round += 1;
                    let request = report(
                        (0..CHANGED)
                            .map(|number| holding(BLOBS + number, round % 1000))
                            .collect(),
                    );
                    let before = Instant::now();
                    if node.ask(scheduler_of(&node), request).await.is_ok() {
                        answered.fetch_add(1, Ordering::Relaxed);
                        slowest.fetch_max(before.elapsed().as_micros() as u64, Ordering::Relaxed);
                    }
                }
            })
        });
        for asking in asking.collect::<Vec<_>>() {
            asking.await.unwrap();
        }
    });
    let (took, cpu) = (started.elapsed().as_secs_f64(), thread_seconds("scheduler-only") - cpu);
    let answered = answered.load(Ordering::Relaxed) as f64;
    println!(
        "reports on four blobs each: {:.0} /s, slowest {:.1} ms; the scheduler used {:.0} us of processor time for each, \
         so one core holds {:.0} /s",
        answered / took,
        slowest.load(Ordering::Relaxed) as f64 / 1000.0,
        cpu * 1e6 / answered,
        answered / cpu,
    );
    servers.block_on(scheduler.stop());
}
