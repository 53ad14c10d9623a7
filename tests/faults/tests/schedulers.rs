//! No scheduler from the start, and several of which one is lost and comes back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use e2e::cluster::{keygen, setup};
use e2e::memory::Watch;
use e2e::pulling::assert_sound;
use e2e::{Lab, Model, Node, Pulling, Registry, Role, Throttle, wait};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

/// Panics unless each of the model's blobs was read once, all of it by one node. Returns who read the largest.
fn assert_one_reader(registry: &Registry, model: &Model) -> String {
    let mut reader = String::new();
    for blob in model.blobs() {
        wait::until_true("the registry's log", SOON, || {
            registry.bytes_of(&blob.digest) >= blob.size
        });
        assert_eq!(registry.bytes_of(&blob.digest), blob.size, "{}", blob.digest);
        let requests = registry.requests();
        let of_it = requests.iter().filter(|entry| entry.reads_blob(&blob.digest));
        let mut readers: Vec<&str> = of_it.filter_map(|entry| entry.peer_id()).collect();
        readers.dedup();
        assert_eq!(readers.len(), 1, "{} was read by {readers:?}", blob.digest);
        if blob == model.largest() {
            readers[0].clone_into(&mut reader);
        }
    }
    reader
}

#[test]
fn peers_that_know_one_address_and_no_scheduler_elect_one_reader() {
    let lab = Lab::new("cold-start");
    let registry = Registry::start(&lab, &[]);
    let model = Model::pushed(&lab, &registry, "cold", 1, &[(24 * MIB) as usize, 300_000]);
    let link = Throttle::start(registry.address(), 16 * MIB);
    let (key, memory) = (keygen(&lab, "cluster.key"), Arc::default());
    let first = Node::start(setup(&lab, Role::Peer, "first", "", &key), &memory);
    let config = format!("bootstrap = [\"{}\"]\n", first.control());
    let start = |name| Node::start(setup(&lab, Role::Peer, name, &config, &key), &memory);
    let others = ["second", "third", "fourth"].map(start);
    for node in &others {
        node.wait_log("connected", SOON);
    }
    let nodes = || [&first].into_iter().chain(&others);
    let reference = model.reference(link.address());
    for pull in Pulling::begin_all(&lab, "pulled", nodes(), &reference) {
        pull.succeeds(&model);
    }
    let reader = assert_one_reader(&registry, &model);
    assert!(nodes().any(|node| node.peer_id() == reader));
    nodes().for_each(assert_sound);
}

/// Two seeds and three peers over which schedulers are divided, and models behind a slow registry.
struct Divided {
    lab: Lab,
    registry: Registry,
    link: Throttle,
    key: PathBuf,
    memory: Arc<Watch>,
    schedulers: Vec<Node>,
    seeds: [Node; 2],
    peers: [Node; 3],
}

impl Divided {
    fn start(name: &str, schedulers: usize) -> Self {
        let lab = Lab::new(name);
        let registry = Registry::start(&lab, &[]);
        let link = Throttle::start(registry.address(), 16 * MIB);
        let (key, memory) = (keygen(&lab, "cluster.key"), Arc::default());
        let scheduler = |number| {
            let setup = setup(&lab, Role::Scheduler, &format!("scheduler-{number}"), "", &key);
            Node::start(setup, &memory)
        };
        let schedulers: Vec<Node> = (0..schedulers).map(scheduler).collect();
        let node = |role, name: &str| start(&lab, role, name, &key, &schedulers, &memory);
        let seeds = ["seed-0", "seed-1"].map(|name| node(Role::Seed, name));
        let peers = ["a", "b", "c"].map(|name| node(Role::Peer, name));
        let divided = Self {
            lab,
            registry,
            link,
            key,
            memory,
            schedulers,
            seeds,
            peers,
        };
        divided.wait_for_all_schedulers();
        divided
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.seeds.iter().chain(&self.peers)
    }

    fn model(&self, name: &str, number: u64, sizes: &[usize]) -> Model {
        // So many that each scheduler gets some of them.
        let sizes = [sizes, &[20_000; 32]].concat();
        Model::pushed(&self.lab, &self.registry, name, number, &sizes)
    }

    /// Until every node divides blobs over all schedulers, and each scheduler knows every node.
    fn wait_for_all_schedulers(&self) {
        for node in self.nodes() {
            wait::until_true("all schedulers", SOON, || {
                node.status()["schedulers"].as_array().map(Vec::len) == Some(self.schedulers.len())
            });
        }
        for scheduler in &self.schedulers {
            wait::until_true("every node", SOON, || {
                scheduler.metric("packswarm_scheduler_nodes", &[]) as usize == self.nodes().count()
            });
        }
    }

    fn begin(&self, model: &Model) -> Vec<Pulling> {
        let reference = model.reference(self.link.address());
        Pulling::begin_all(
            &self.lab,
            &model.repository().replace('/', "-"),
            &self.peers,
            &reference,
        )
    }

    fn wait_half(&self, model: &Model) {
        let digest = &model.largest().digest;
        wait::until_true("half of it", SOON, || self.peers[0].pieces(digest) > 16);
    }

    /// The scheduler at which nodes wait for a blob. There is one, and no more than one other knows of the blob.
    fn home(&self, digest: &str) -> usize {
        let waiting: Vec<Option<u64>> = self.schedulers.iter().map(|one| waiting(one, digest)).collect();
        assert!(waiting.iter().flatten().count() <= 2, "{waiting:?}");
        let homes: Vec<usize> = (0..waiting.len()).filter(|one| waiting[*one] > Some(0)).collect();
        assert_eq!(homes.len(), 1, "{waiting:?}");
        homes[0]
    }

    fn assert_read_once(&self, models: &[&Model]) {
        for blob in models.iter().flat_map(|model| model.blobs()) {
            assert_eq!(self.registry.bytes_of(&blob.digest), blob.size, "{}", blob.digest);
        }
    }
}

fn start(lab: &Lab, role: Role, name: &str, key: &Path, schedulers: &[Node], memory: &Arc<Watch>) -> Node {
    let mut setup = setup(lab, role, name, "", key);
    setup.schedulers.extend(schedulers.iter().map(Node::control));
    Node::start(setup, memory)
}

/// How many nodes wait for a blob at a scheduler, if that knows the blob.
fn waiting(scheduler: &Node, digest: &str) -> Option<u64> {
    let body = scheduler.get("/api/v1/swarms?limit=1000").json();
    let swarms = body["swarms"].as_array().expect("a list").clone();
    let swarm = swarms.into_iter().find(|swarm| swarm["digest"] == digest);
    swarm.and_then(|swarm| swarm["waiting"].as_u64())
}

fn leases(scheduler: &Node) -> u64 {
    let granted = &scheduler.status()["leases_granted"];
    granted
        .as_u64()
        .expect("a scheduler says how many leases it has granted")
}

/// Each of so many schedulers has its share of the blobs. One is lost with its share in the middle of a pull, and is back in
/// the middle of the next.
fn one_of_them_is_lost_and_comes_back(name: &str, schedulers: usize) {
    let mut cluster = Divided::start(name, schedulers);
    let many = cluster.model("many", 0, &[]);
    cluster.begin(&many).into_iter().for_each(|pull| pull.succeeds(&many));
    let granted: Vec<u64> = cluster.schedulers.iter().map(leases).collect();
    assert!(granted.iter().all(|granted| *granted > 0), "{granted:?}");
    // One lease for each blob, for none belongs to two; and for the manifest, unless it had come with its tag already.
    let blobs = many.blobs().len() as u64;
    let sum = granted.iter().sum::<u64>();
    assert!(sum == blobs || sum == blobs + 1, "{granted:?} for {blobs} blobs");

    let sizes = [(32 * MIB) as usize, 300_000, 5_000_000];
    let [first, second, third] =
        [("first", 1), ("second", 2), ("third", 3)].map(|(name, number)| cluster.model(name, number, &sizes));
    let pulls = cluster.begin(&first);
    cluster.wait_half(&first);
    let lost = cluster.home(&first.largest().digest);
    cluster.schedulers[lost].kill();
    pulls.into_iter().for_each(|pull| pull.succeeds(&first));
    // A cold pull while it is away, in the middle of which it comes back; and one after that, of which it has its share.
    let pulls = cluster.begin(&second);
    cluster.wait_half(&second);
    cluster.schedulers[lost].restart();
    pulls.into_iter().for_each(|pull| pull.succeeds(&second));
    cluster.wait_for_all_schedulers();
    cluster.begin(&third).into_iter().for_each(|pull| pull.succeeds(&third));
    assert!(leases(&cluster.schedulers[lost]) > 0, "nothing has gone back to it");
    cluster.assert_read_once(&[&many, &first, &second, &third]);
    // Whoever comes now finds everything where it belongs, and nothing is read again.
    let late = start(
        &cluster.lab,
        Role::Peer,
        "late",
        &cluster.key,
        &cluster.schedulers,
        &cluster.memory,
    );
    for model in [&many, &first, &second] {
        let reference = model.reference(cluster.link.address());
        let name = format!("late-{}", model.repository().replace('/', "-"));
        Pulling::begin(&cluster.lab, &name, &late, &reference).succeeds(model);
    }
    cluster.assert_read_once(&[&many, &first, &second, &third]);
    cluster.nodes().for_each(assert_sound);
}

#[test]
fn of_two_schedulers_one_is_lost_in_the_middle_of_a_pull_and_comes_back() {
    one_of_them_is_lost_and_comes_back("two-schedulers", 2);
}

#[test]
fn of_three_schedulers_one_is_lost_in_the_middle_of_a_pull_and_comes_back() {
    one_of_them_is_lost_and_comes_back("three-schedulers", 3);
}
