//! Disks fill up, fail and rot under a pull by several nodes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::http::Request;
use e2e::process::run;
use e2e::pulling::{assert_sound, assert_store_sound};
use e2e::{Cluster, Lab, Model, Node, Options, Pulling, Registry, Role, Throttle, damage, tree, wait};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);
const RATE: u64 = 16 * MIB;

/// A small filesystem of its own, in a file of the lab. It is unmounted when this is dropped.
struct Disk {
    at: PathBuf,
    device: String,
}

impl Disk {
    fn mount(lab: &Lab, name: &str, mib: u64) -> Self {
        let (image, at) = (lab.path(format!("{name}.img")), lab.dir(name));
        let file = std::fs::File::create(&image).expect("the lab is writable");
        file.set_len(mib * MIB).expect("it is sparse");
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
        // An error makes it read-only, as distributions set it up.
        run(Command::new("mount")
            .args(["-o", "loop,errors=remount-ro"])
            .arg(&image)
            .arg(&at));
        let device = run(Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&at));
        Self {
            at,
            device: device.trim().rsplit('/').next().unwrap_or_default().to_owned(),
        }
    }

    /// Leaves no block free.
    fn fill(&self) {
        let file = std::fs::File::create(self.at.join("filler")).expect("there is room");
        let mut end = 0;
        for step in [MIB, 64 << 10, 4 << 10] {
            while rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), end, step).is_ok() {
                end += step;
            }
        }
        assert!(end > 0, "there was room");
    }

    /// Makes the kernel find an error on it, as a failing disk does. From then on it is read-only.
    fn fail(&self) {
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", self.device);
        std::fs::write(trigger, "1").expect("ext4 can be told so");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that a failed test has not ended yet may still use it.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// A cluster of a seed, two peers and a third with its store on that disk.
struct Stage {
    lab: Lab,
    registry: Registry,
    link: Throttle,
    cluster: Cluster,
    small: Node,
    // Last: it is unmounted when nobody uses it any more.
    disk: Disk,
}

impl Stage {
    fn new(name: &str, mib: u64) -> Self {
        let lab = Lab::new(name);
        let registry = Registry::start(&lab, &[]);
        let link = Throttle::start(registry.address(), RATE);
        let options = Options {
            seeds: 1,
            peers: 2,
            ..Options::default()
        };
        let cluster = Cluster::start(&lab, &options);
        let disk = Disk::mount(&lab, "disk", mib);
        let mut setup = cluster.setup(&lab, Role::Peer, "small", "");
        setup.data = disk.at.join("data");
        let small = Node::start(setup, &cluster.memory);
        cluster.wait_joined(4);
        Self {
            lab,
            registry,
            link,
            cluster,
            small,
            disk,
        }
    }

    fn model(&self, name: &str, seed: u64, mib: u64) -> Model {
        Model::pushed(&self.lab, &self.registry, name, seed, &[(mib * MIB) as usize])
    }

    fn begin(&self, model: &Model) -> (Pulling, Vec<Pulling>) {
        let reference = model.reference(self.link.address());
        let name = model.repository().replace('/', "-");
        let small = Pulling::begin(&self.lab, &name, &self.small, &reference);
        (
            small,
            Pulling::begin_all(&self.lab, &name, &self.cluster.peers, &reference),
        )
    }

    fn blob_path(&self, model: &Model) -> String {
        let (repository, digest) = (model.repository(), &model.largest().digest);
        format!("/v2/{repository}/blobs/{digest}?ns={}", self.link.address())
    }

    /// Panics unless the small node gives its clients this blob.
    fn assert_serves(&self, model: &Model) {
        let answer = Request::get(self.small.mirror(), &self.blob_path(model)).send();
        assert_eq!(
            (answer.status, tree::digest(answer.body.as_slice())),
            (200, model.largest().digest.clone())
        );
    }
}

#[test]
fn a_disk_that_fills_up_during_a_pull_harms_neither_what_is_there_nor_anybody_else() {
    let stage = Stage::new("disk-full", 160);
    let (held, running, refused) = (
        stage.model("held", 1, 16),
        stage.model("running", 2, 48),
        stage.model("refused", 3, 32),
    );
    let (small, others) = stage.begin(&held);
    small.succeeds(&held);
    others.into_iter().for_each(|pull| pull.succeeds(&held));

    let (small, others) = stage.begin(&running);
    wait::until_true("a third of it", SOON, || {
        stage.small.pieces(&running.largest().digest) * 3 > 48
    });
    stage.disk.fill();
    // Its room was reserved when it began.
    small.succeeds(&running);
    others.into_iter().for_each(|pull| pull.succeeds(&running));

    // What has no room is refused in words, by its status; the others are not held up. What was there may have to go.
    let path = stage.blob_path(&held);
    assert_eq!(Request::get(stage.small.mirror(), &path).send().status, 200);
    for digest in [&held.largest().digest, &running.largest().digest] {
        let pinned = stage.small.post(&format!("/api/v1/blobs/{digest}/pin"));
        assert_eq!(pinned.status, 200, "{}", pinned.text());
    }
    let (small, others) = stage.begin(&refused);
    let said = small.fails(&refused);
    assert!(said.contains("507"), "{said}");
    others.into_iter().for_each(|pull| pull.succeeds(&refused));
    let answer = Request::get(stage.small.mirror(), &stage.blob_path(&refused)).send();
    assert_eq!(answer.status, 507, "{}", answer.text());
    stage.assert_serves(&held);
    stage.assert_serves(&running);
    // There is room again.
    std::fs::remove_file(stage.disk.at.join("filler")).expect("it is ours");
    let reference = refused.reference(stage.link.address());
    Pulling::begin(&stage.lab, "again", &stage.small, &reference).succeeds(&refused);
    assert_sound(&stage.small);
    stage.cluster.nodes().for_each(assert_sound);
    for model in [&held, &running, &refused] {
        assert_eq!(stage.registry.bytes_of(&model.largest().digest), model.largest().size);
    }
}

#[test]
fn a_disk_that_fails_during_a_pull_is_read_from_and_said_to_have_failed() {
    let mut stage = Stage::new("disk-failed", 160);
    let (held, running) = (stage.model("held", 1, 16), stage.model("running", 2, 48));
    let (small, others) = stage.begin(&held);
    small.succeeds(&held);
    others.into_iter().for_each(|pull| pull.succeeds(&held));

    let (small, others) = stage.begin(&running);
    wait::until_true("a third of it", SOON, || {
        stage.small.pieces(&running.largest().digest) * 3 > 48
    });
    stage.disk.fail();
    let said = small.fails(&running);
    println!("{said}");
    others.into_iter().for_each(|pull| pull.succeeds(&running));
    let answer = Request::get(stage.small.mirror(), &stage.blob_path(&running)).try_send();
    assert!(
        answer.as_ref().map_or(true, |answer| answer.status == 507),
        "{answer:?}"
    );
    stage.assert_serves(&held);
    assert_sound(&stage.small);
    stage.cluster.nodes().for_each(assert_sound);
    assert_eq!(
        stage.registry.bytes_of(&running.largest().digest),
        running.largest().size
    );
    // On another disk all is well again, with what was proven before.
    stage.small.kill();
    let data = stage.lab.dir("rescued");
    run(Command::new("cp")
        .arg("-a")
        .arg(stage.small.setup().data.join("."))
        .arg(&data));
    let mut setup = stage.small.setup().clone();
    (setup.name, setup.data) = ("rescued".to_owned(), data.clone());
    let rescued = Node::start(setup, &stage.cluster.memory);
    let reference = running.reference(stage.link.address());
    Pulling::begin(&stage.lab, "rescued", &rescued, &reference).succeeds(&running);
    assert_store_sound(&data);
}

/// Bits flip in the store of a node that runs, and nobody asks for what they are in.
#[test]
fn bits_that_flip_in_a_running_node_are_found_in_the_background() {
    let lab = Lab::new("scrub");
    let registry = Registry::start(&lab, &[]);
    let options = Options {
        seeds: 1,
        peers: 1,
        peer_config: "[store]\nscrub_rate = \"64MiB\"\n",
        ..Options::default()
    };
    let cluster = Cluster::start(&lab, &options);
    let peer = &cluster.peers[0];
    let model = Model::pushed(&lab, &registry, "scrub", 1, &[(16 * MIB) as usize]);
    let (reference, blob) = (model.reference(registry.address()), model.largest());
    let path = peer.setup().data.join("blobs").join(blob.hex());
    Pulling::begin(&lab, "first", peer, &reference).succeeds(&model);
    damage::flip_bit(&path, 5 * MIB);
    wait::until_true("the damage's discovery", SOON * 2, || {
        peer.metric("packswarm_damaged_pieces_total", &[]) as u64 == 1
    });
    peer.wait_complete(&blob.digest, SOON);
    assert_eq!(tree::digest_of(&path), blob.digest);
    assert!(peer.metric("packswarm_scrubbed_bytes_total", &[]) as u64 >= MIB);
    assert_eq!(
        registry.bytes_of(&blob.digest),
        blob.size,
        "the piece came from the seed"
    );
}

/// Bits flip in blobs that are whole, and in those that are not, while the node is down.
#[test]
fn bits_that_flipped_while_a_node_was_dead_are_found_before_anybody_gets_them() {
    let lab = Lab::new("rot");
    let registry = Registry::start(&lab, &[]);
    let link = Throttle::start(registry.address(), RATE);
    let options = Options {
        seeds: 1,
        peers: 2,
        ..Options::default()
    };
    let mut cluster = Cluster::start(&lab, &options);
    let model = Model::pushed(&lab, &registry, "rot", 1, &[(32 * MIB) as usize, (8 * MIB) as usize]);
    let reference = model.reference(link.address());
    let pulls = Pulling::begin_all(&lab, "first", &cluster.peers, &reference);
    let small = model
        .blobs()
        .iter()
        .find(|blob| blob.size == 8 * MIB)
        .expect("it was pushed")
        .clone();
    let large = model.largest().clone();
    wait::until_true("a whole and a half blob", SOON, || {
        let peer = &cluster.peers[0];
        peer.blob(&small.digest).is_some_and(|blob| blob["complete"] == true) && peer.pieces(&large.digest) > 8
    });
    cluster.peers[0].kill();
    let data = cluster.peers[0].setup().data.clone();
    flip(&data.join("blobs").join(small.hex()), small.size);
    flip(&data.join("partial").join(large.hex()), large.size);
    cluster.peers[0].restart();
    let mut pulls = pulls.into_iter();
    // This client has lost its mirror for a moment, or for good: `pull` asks again for a while.
    drop(pulls.next());
    pulls.for_each(|pull| pull.succeeds(&model));
    Pulling::begin(&lab, "second", &cluster.peers[0], &reference).succeeds(&model);
    // Once more, and this time nobody asks: what looks through the store in the background is the first to open it.
    cluster.peers[0].kill();
    flip(&data.join("blobs").join(small.hex()), small.size);
    cluster.peers[0].restart();
    wait::until_true("what nobody asks for to be found and fetched", SOON, || {
        let path = data.join("blobs").join(small.hex());
        path.exists() && tree::digest_of(&path) == small.digest
    });
    // And a third node that gets what the second has.
    let late = cluster.node(&lab, Role::Peer, "late", "");
    Pulling::begin(&lab, "third", &late, &reference).succeeds(&model);
    assert_sound(&cluster.peers[0]);
    for node in cluster.nodes().chain([&late]) {
        assert_eq!(
            node.metric("packswarm_pieces_rejected_total", &[]) as u64,
            0,
            "{}",
            node.name()
        );
    }
    for blob in [&small, &large] {
        assert_eq!(registry.bytes_of(&blob.digest), blob.size);
    }
}

/// Flips a bit in every second MiB.
fn flip(path: &Path, size: u64) {
    for at in (0..size).step_by(2 * MIB as usize) {
        damage::flip_bit(path, at);
    }
}
