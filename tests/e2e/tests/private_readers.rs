//! Whoever reads a private blob from its registry reads it with a client's credential: another reader goes on with it, a token
//! ends under way, and no seed may be there.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use e2e::clients::pull_through;
use e2e::http::{Answer, Request};
use e2e::process::run;
use e2e::proxy::Fault;
use e2e::tokens::{Tokens, User};
use e2e::{Cluster, Lab, Model, Options, Proxy, Registry, Throttle, base64, tree, wait};

const SOON: Duration = Duration::from_secs(60);
const READER: User = User {
    name: "reader",
    password: "correct-horse-battery",
    repositories: &["models/small"],
};
/// Slow enough to do something in the middle of a blob of 16 MiB.
const RATE: u64 = 6 << 20;

struct Stage {
    lab: Lab,
    model: Model,
    tokens: Tokens,
    registry: Registry,
}

impl Stage {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let model = Model::small(&lab);
        let tokens = Tokens::start(&lab.dir("tokens"), &[READER]);
        let registry = Registry::with_tokens(&lab, "registry", &[&model], &tokens);
        Self {
            lab,
            model,
            tokens,
            registry,
        }
    }

    fn bearer(&self) -> String {
        self.tokens.bearer(&READER, &self.model.repository())
    }

    /// `packswarm pull` by the reader, through a mirror of this machine.
    fn pull(&self, mirror: SocketAddr, registry: SocketAddr, to: &str) -> Command {
        let auth = base64(format!("{}:{}", READER.name, READER.password).as_bytes());
        let config = format!("{{\"auths\":{{\"{registry}\":{{\"auth\":\"{auth}\"}}}}}}");
        std::fs::write(self.lab.dir("docker-config").join("config.json"), config).expect("the lab is writable");
        pull_through(&self.lab, mirror, &self.model.reference(registry), &self.lab.path(to))
    }

    /// What a mirror answers who asks for the largest blob from a byte on.
    fn open(&self, mirror: SocketAddr, registry: SocketAddr, authorization: Option<&str>, from: usize) -> Answer {
        let digest = &self.model.largest().digest;
        let path = format!("/v2/{}/blobs/{digest}?ns={registry}", self.model.repository());
        let range = format!("bytes={from}-");
        let request = Request::get(mirror, &path).header("Range", &range);
        let shown = authorization.into_iter();
        let request = shown.fold(request, |request, shown| request.header("Authorization", shown));
        request.open().expect("the mirror answers")
    }
}

#[test]
fn another_reader_goes_on_with_what_clients_have_lent() {
    let stage = Stage::new("private-takeover");
    let link = Throttle::start(stage.registry.address(), RATE);
    let mut cluster = Cluster::start(
        &stage.lab,
        &Options {
            seeds: 2,
            peers: 2,
            ..Options::default()
        },
    );
    let names = ["a", "b"];
    thread::scope(|threads| {
        for (name, peer) in names.iter().zip(&cluster.peers) {
            let mut command = stage.pull(peer.mirror(), link.address(), name);
            threads.spawn(move || run(&mut command));
        }
        let seeds = &mut cluster.seeds;
        let reader = wait::until("the reader's progress", SOON, || {
            seeds.iter().position(|seed| seed.received("registry") > 6 << 20)
        });
        seeds[reader].kill();
    });
    for name in names {
        tree::assert_same(&stage.model.files(), &stage.lab.path(name));
    }
    stage.registry.assert_only_seeds();
}

#[test]
fn a_token_that_ends_in_the_middle_of_a_blob_costs_its_client_another_and_the_registry_nothing() {
    let stage = Stage::new("private-token-ends");
    let proxy = Proxy::start(stage.registry.address());
    let cluster = Cluster::start(
        &stage.lab,
        &Options {
            seeds: 2,
            peers: 1,
            seed_config: "[registry]\nretries = 1\nbackoff = \"50ms\"\n",
            ..Options::default()
        },
    );
    let (mirror, blob) = (cluster.peers[0].mirror(), stage.model.largest().clone());
    let (old, new) = (stage.bearer(), stage.bearer());
    let cut = blob.size / 2;
    let (of_cut, of_end, ended) = (blob.clone(), blob.clone(), old.clone());
    proxy.when(
        1,
        move |seen| seen.reads(&of_cut, cut) && seen.authorization.is_some(),
        Fault::CutAfter(cut),
    );
    let is_ended = move |seen: &e2e::proxy::Seen| {
        seen.reads(&of_end, of_end.size - 1) && seen.authorization.as_ref() == Some(&ended)
    };
    let refused = proxy.when(usize::MAX, is_ended, Fault::Status(401, None));

    let mut body = Vec::new();
    let mut first = stage.open(mirror, proxy.address(), Some(&old), 0);
    assert_eq!(first.status, 206);
    // Its end, or the connection's.
    let _ = first.read_to_end(&mut body);
    let come = body.len() as u64;
    assert!((1..=cut).contains(&come), "{come} of {cut} bytes before the cut");
    assert!(proxy.end(refused) > 0, "the old token is of no use any more");

    let mut rest = stage.open(mirror, proxy.address(), Some(&new), body.len());
    assert_eq!(rest.status, 206);
    rest.read_to_end(&mut body).expect("the rest comes");
    assert_eq!(tree::digest(body.as_slice()), blob.digest);
    let read = proxy.bytes_of(&blob.digest);
    assert!(
        (blob.size..blob.size + cut).contains(&read),
        "{read} bytes were read of {}, not from the beginning again",
        blob.size
    );
    proxy.assert_only_seeds();
}

#[test]
fn without_a_seed_peers_read_for_their_clients_and_let_nobody_else_in() {
    let stage = Stage::new("private-no-seed");
    let cluster = Cluster::start(
        &stage.lab,
        &Options {
            peers: 2,
            peer_config: "[origin]\nwait = \"1s\"\n",
            ..Options::default()
        },
    );
    let address = stage.registry.address();
    let nobody = |when: &str| {
        for peer in &cluster.peers {
            for shown in [None, Some("Basic Og=="), Some("Bearer x.y.z")] {
                let mut answer = stage.open(peer.mirror(), address, shown, 0);
                let mut text = String::new();
                answer.read_to_string(&mut text).expect("errors are text");
                assert_eq!(answer.status, 401, "{when}, with {shown:?}: {text}");
            }
        }
    };
    nobody("before anybody has it");
    for (name, peer) in ["a", "b"].iter().zip(&cluster.peers) {
        run(&mut stage.pull(peer.mirror(), address, name));
        tree::assert_same(&stage.model.files(), &stage.lab.path(name));
    }
    nobody("though both have it");
    for blob in stage.model.blobs() {
        wait::until_true("the registry's log", SOON, || {
            stage.registry.bytes_of(&blob.digest) >= blob.size
        });
        assert_eq!(stage.registry.bytes_of(&blob.digest), blob.size, "{}", blob.digest);
    }
}
