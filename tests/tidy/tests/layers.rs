//! Who may import whom, and who must not know what.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each crate with the crates of ours that it may use. Data goes one way: nothing here points back.
const LAYERS: [(&str, &[&str]); 20] = [
    ("piece", &[]),
    ("wire", &["piece"]),
    ("swarm", &["piece", "wire"]),
    ("identity", &["piece", "wire"]),
    ("store", &["piece"]),
    ("httpd", &[]),
    ("transport", &["piece", "wire", "identity"]),
    ("control", &["piece", "wire", "identity"]),
    ("registry", &["piece", "wire"]),
    ("mirror", &["piece", "wire", "httpd"]),
    ("admin", &["piece", "wire", "httpd"]),
    ("modelpack", &["piece"]),
    ("testbed", &["piece"]),
    (
        "peer",
        &[
            "piece",
            "wire",
            "swarm",
            "identity",
            "store",
            "transport",
            "control",
            "registry",
            "mirror",
            "admin",
            "httpd",
        ],
    ),
    ("seed", &["peer", "swarm", "wire"]),
    (
        "scheduler",
        &["piece", "wire", "swarm", "identity", "control", "admin", "httpd"],
    ),
    (
        "demo",
        &[
            "piece",
            "wire",
            "identity",
            "store",
            "control",
            "registry",
            "peer",
            "seed",
            "scheduler",
            "testbed",
        ],
    ),
    (
        "packswarm",
        &[
            "piece",
            "wire",
            "swarm",
            "identity",
            "store",
            "transport",
            "control",
            "registry",
            "mirror",
            "admin",
            "httpd",
            "modelpack",
            "peer",
            "seed",
            "scheduler",
            "demo",
        ],
    ),
    ("sim", &["piece", "wire", "swarm"]),
    ("tidy", &[]),
];

/// Tests and benches, which stand outside the house and may look into every room.
const OUTSIDE: [&str; 5] = ["e2e", "benches", "faults", "fuzz", "pull-times"];

/// Crates of others with the only crates of ours that may know them.
const SECRETS: [(&str, &[&str]); 8] = [
    ("libp2p", &["control"]),
    ("libp2p-identity", &["identity"]),
    ("libp2p-tls", &["identity"]),
    ("quinn", &["transport"]),
    ("memmap2", &["store"]),
    ("hyper", &["httpd"]),
    ("oci-spec", &["modelpack", "registry", "testbed"]),
    ("clap", &["packswarm", "sim"]),
];

/// What the pure crates cannot do, because their manifests do not let them.
const IMPURE: [&str; 9] = [
    "tokio", "futures", "mio", "rustix", "libc", "reqwest", "quinn", "libp2p", "socket2",
];
const PURE: [&str; 3] = ["piece", "wire", "swarm"];

/// The normal dependencies of each crate of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    let name = |value: &Value| value["name"].as_str().expect("every package has a name").to_owned();
    let normal = |package: &Value| {
        let all = package["dependencies"].as_array().expect("a list").clone();
        all.into_iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| name(&dependency))
            .collect()
    };
    packages
        .iter()
        .map(|package| (name(package), normal(package)))
        .collect()
}

#[test]
fn data_goes_one_way() {
    let layers: BTreeMap<&str, &[&str]> = LAYERS.into_iter().collect();
    let dependencies = dependencies();
    for (package, uses) in &dependencies {
        let Some(allowed) = layers.get(package.as_str()) else {
            assert!(OUTSIDE.contains(&package.as_str()), "{package} has no place in LAYERS");
            continue;
        };
        for used in uses.iter().filter(|used| dependencies.contains_key(*used)) {
            assert!(allowed.contains(&used.as_str()), "{package} must not use {used}");
        }
    }
}

#[test]
fn some_things_are_known_in_one_place_only() {
    for (package, uses) in dependencies() {
        for (secret, knowers) in SECRETS {
            let may = knowers.contains(&package.as_str()) || OUTSIDE.contains(&package.as_str());
            assert!(may || !uses.contains(secret), "{package} must not know {secret}");
        }
    }
}

#[test]
fn the_pure_crates_cannot_do_io() {
    let dependencies = dependencies();
    for package in PURE {
        for impure in IMPURE {
            assert!(
                !dependencies[package].contains(impure),
                "{package} must not know {impure}"
            );
        }
    }
}
