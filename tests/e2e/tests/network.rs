//! Hosts in network namespaces: links have the rates that they were given, cables can be pulled, and real processes live in
//! them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use e2e::clients::pull_through;
use e2e::process::run;
use e2e::registry::Service;
use e2e::{Cluster, Host, Lab, Link, Model, Network, Options, Process, Registry, tree, wait};

const MIB: u64 = 1 << 20;
/// Twice what sockets and shapers take in without anything having arrived.
const SENT: u64 = 24 * MIB;
/// What packets say that must not arrive.
const LOST: u8 = 0;
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_link_has_its_rate_and_another_one_at_once_when_told() {
    let network = Network::new(Link::OPEN);
    let from = network.host("from");
    let fast = network.host_with("fast", Link::mbit(160));
    let slow = network.host_with("slow", Link::mbit(10));
    let (from, arrived) = (&from, [&fast, &slow].map(|_| AtomicU64::new(0)));
    thread::scope(|threads| {
        for (host, arrived) in [&fast, &slow].into_iter().zip(&arrived) {
            let listener = host.enter(|| TcpListener::bind((host.address(), 0)).expect("the host has its address"));
            let to = listener.local_addr().expect("it is bound");
            threads.spawn(move || receive(listener, arrived));
            threads.spawn(move || from.enter(|| send(to)));
        }
        let so_far = || [0, 1].map(|which| arrived[which].load(Ordering::Relaxed));
        wait::until_true("all that was sent to the fast one", SOON, || so_far()[0] == SENT);
        let behind = so_far()[1];
        assert!(
            behind < SENT / 4,
            "a sixteenth of the rate, and yet {behind} of {SENT} bytes"
        );
        // At the old rate what is left would take longer than anybody waits here.
        slow.set_link(Link::mbit(1000));
        wait::until_true("all that was sent to the slow one", SOON / 4, || so_far()[1] == SENT);
    });
    assert!(
        from.traffic().sent > 2 * SENT,
        "bytes are counted: {:?}",
        from.traffic()
    );
}

#[test]
fn what_is_sent_over_a_cut_link_is_lost() {
    let network = Network::new(Link::OPEN);
    let (from, to, third) = (network.host("from"), network.host("to"), network.host("third"));
    let receiver = socket(&to);
    let (sender, bystander) = (socket(&from), socket(&third));
    let address = receiver.local_addr().expect("it is bound");
    get_through(&sender, &receiver, 1);
    get_through(&bystander, &receiver, 2);

    to.cut();
    lose_some(&sender, address);
    to.heal();
    get_through(&sender, &receiver, 3);

    network.part(&[&from], &[&to]);
    lose_some(&sender, address);
    get_through(&bystander, &receiver, 4);
    network.rejoin();
    get_through(&sender, &receiver, 5);
}

#[test]
fn networks_do_not_meet_and_leave_nothing_behind() {
    let networks = [Network::new(Link::OPEN), Network::new(Link::OPEN)];
    let lab = Lab::new("namespaces");
    let hosts = networks.clone().map(|network| network.host("host"));
    assert_eq!(hosts[0].address(), hosts[1].address());
    let mut sleeping = hosts[0].inside(Command::new("sleep").arg("600"));
    let mut sleeping = Process::start("sleep", &mut sleeping, &lab.log("sleep"));
    let ours = format!("packswarm-{}-", std::process::id());
    let named = || run(Command::new("ip").args(["netns", "list"]));
    assert!(named().contains(&ours));
    drop((networks, hosts));
    sleeping.wait(SOON);
    wait::until_true("the end of the namespaces", SOON, || !named().contains(&ours));

    // What a process left behind that no longer exists, such as this one.
    let mut gone = Command::new("true").spawn().expect("every system has it");
    let left = format!("packswarm-{}-0-left", gone.id());
    gone.wait().expect("it is our child");
    run(Command::new("ip").args(["netns", "add", &left]));
    drop(Network::new(Link::OPEN));
    assert!(!named().contains(&left));
}

#[test]
fn a_cluster_lives_on_hosts() {
    let lab = Lab::new("hosts");
    let model = Model::small(&lab);
    let network = Network::new(Link::mbit(200));
    let registry = Registry::in_host(&lab, "registry", &[&model], Service::Open, &network.host("registry"));
    let config = registry.insecure();
    let options = Options {
        seeds: 1,
        peers: 2,
        seed_config: &config,
        peer_config: &config,
        network: Some(&network),
        ..Options::default()
    };
    let mut cluster = Cluster::start(&lab, &options);
    let reference = model.reference(registry.address());
    let (first, last) = (lab.path("first"), lab.path("last"));
    let pull = |cluster: &Cluster, number: usize, to| {
        let peer = &cluster.peers[number];
        run(&mut peer.beside(pull_through(&lab, peer.mirror(), &reference, to)));
        tree::assert_same(&model.files(), to);
    };
    pull(&cluster, 0, &first);
    registry.assert_read_once(&model);
    let seed = network.host("seed-0");
    assert!(seed.traffic().received > model.size(), "it came over the seed's link");

    // Whatever comes now comes from the other peer.
    seed.cut();
    network.host("registry").cut();
    pull(&cluster, 1, &last);
    registry.assert_read_once(&model);
    for node in cluster.peers.iter_mut().chain([&mut cluster.scheduler]) {
        node.stop();
    }
}

fn receive(listener: TcpListener, arrived: &AtomicU64) {
    let (mut stream, _) = listener.accept().expect("somebody connects");
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        arrived.fetch_add(read as u64, Ordering::Relaxed);
    }
}

fn send(to: SocketAddr) {
    let mut stream = TcpStream::connect(to).expect("it listens");
    let chunk = vec![0; 64 << 10];
    for _ in 0..SENT / chunk.len() as u64 {
        stream.write_all(&chunk).expect("it reads");
    }
}

/// A socket of a host, which never waits long.
fn socket(host: &Host) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind((host.address(), 0)).expect("the host has its address"));
    let short = Some(Duration::from_millis(20));
    socket.set_read_timeout(short).expect("sockets have time limits");
    socket
}

/// Sends `number` until it arrives. Panics if what is to be lost does.
fn get_through(from: &UdpSocket, to: &UdpSocket, number: u8) {
    let address = to.local_addr().expect("it is bound");
    wait::until_true("a packet", SOON, || {
        from.send_to(&[number], address).expect("nobody tells the sender");
        let mut packet = [number];
        // It does not wait long for one.
        let arrived = to.recv(&mut packet).is_ok();
        assert_ne!(packet[0], LOST);
        arrived && packet[0] == number
    });
}

fn lose_some(from: &UdpSocket, address: SocketAddr) {
    for _ in 0..10 {
        from.send_to(&[LOST], address).expect("nobody tells the sender");
    }
}
