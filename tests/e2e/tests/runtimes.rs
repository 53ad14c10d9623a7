//! `packswarm mirror` writes what runtimes read.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use e2e::clients::{Containerd, skopeo_with};
use e2e::lab::binary;
use e2e::process::run;
use e2e::{Cluster, Lab, Model, Options, Registry};

fn mirror(arguments: &[&str], root: &Path) -> String {
    run(Command::new(binary())
        .arg("mirror")
        .args(arguments)
        .arg("--root")
        .arg(root))
}

fn install(runtime: &str, registry: SocketAddr, mirror_at: SocketAddr, root: &Path) {
    let (registry, mirror_at) = (registry.to_string(), format!("http://{mirror_at}"));
    mirror(
        &[
            "install",
            "--runtime",
            runtime,
            "--registry",
            &registry,
            "--mirror",
            &mirror_at,
        ],
        root,
    );
    assert!(mirror(&["show", "--runtime", runtime], root).contains(&registry));
}

#[test]
fn containerd_and_containers_image_pull_with_what_is_installed() {
    let lab = Lab::new("runtimes");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 1,
            ..Options::default()
        },
    );
    let (at, peer, root) = (registry.address(), &cluster.peers[0], lab.dir("root"));
    let reference = model.reference(at);

    install("containerd", at, peer.mirror(), &root);
    let containerd = Containerd::start_with(&lab, "containerd", root.join("etc/containerd/certs.d"));
    run(&mut containerd.fetch(&reference));
    model.assert_blobs(|blob| containerd.blob(blob));

    install("podman", at, peer.mirror(), &root);
    let copied = lab.path("skopeo");
    let mut drop_ins = fs::read_dir(root.join("etc/containers/registries.conf.d")).expect("it was installed there");
    let drop_in = drop_ins.next().expect("it is a file").expect("it can be listed").path();
    run(&mut skopeo_with(&lab, &drop_in, &reference, &copied));
    model.assert_blobs(|blob| copied.join(blob.hex()));
    registry.assert_read_once(&model);

    for runtime in ["containerd", "podman"] {
        mirror(&["remove", "--runtime", runtime], &root);
        assert!(
            !mirror(&["show", "--runtime", runtime], &root).contains(&at.to_string()),
            "{runtime}"
        );
    }
}
