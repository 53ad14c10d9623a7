//! The whole benchmark with the smallest of everything: one node, a model of a few pieces.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

/// Hands over what it finds at the registry, as any adapter would have its system do.
const ADAPTER: &str = r#"#!/bin/sh
set -eu
case "$1" in
    version) echo "copy 1.0" ;;
    up) test -n "$PULL_TIMES_SEED_NAMESPACES"; echo up >> "$PULL_TIMES_DIR/said" ;;
    pull)
        mkdir -p "$PULL_TIMES_OUT"
        base="http://$PULL_TIMES_REGISTRY/v2/models/measured"
        for digest in $(curl -sf -H 'Accept: application/vnd.oci.image.manifest.v1+json' "$base/manifests/v1" |
            grep -o 'sha256:[0-9a-f]*' | sort -u); do
            curl -sf -o "$PULL_TIMES_OUT/${digest#sha256:}" "$base/blobs/$digest"
        done ;;
    down) test "$(cat "$PULL_TIMES_DIR/said")" = up ;;
esac
"#;

fn pull_times() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pull-times"))
}

#[test]
fn one_node_pulls_a_small_model_with_every_kind_of_system() {
    let dir = tempfile::tempdir().expect("the system has a temporary directory");
    let (scratch, out, adapter) = (
        dir.path().join("scratch"),
        dir.path().join("out"),
        dir.path().join("copy"),
    );
    fs::write(&adapter, ADAPTER).expect("it is ours");
    fs::set_permissions(&adapter, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let output = pull_times()
        // Enough that curl needs a few of the ticks of 10 ms in which processor time is counted.
        .args([
            "--nodes", "1", "--seeds", "1", "--runs", "1", "--size", "16MiB", "--files", "2",
        ])
        .args(["--systems", &format!("pull,{}", adapter.display())])
        .arg("--scratch")
        .arg(&scratch)
        .arg("--out")
        .arg(&out)
        .output()
        .expect("it is built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );

    let results = fs::read_to_string(out.join("results.json")).expect("it was to be written");
    let results: Value = serde_json::from_str(&results).expect("it is JSON");
    let rows = results["rows"].as_array().expect("there are rows");
    let systems: Vec<_> = rows.iter().map(|row| row["system"].as_str().expect("named")).collect();
    assert_eq!(systems, ["straight", "packswarm pull", "copy"]);
    for row in rows {
        assert_eq!(row["registry"]["median"], 1.0, "{row}");
        assert!(row["slowest_over_one"].as_f64().expect("a number") > 0.1, "{row}");
        assert!(row["cpu_per_gib"]["median"].as_f64().expect("a number") > 0.0, "{row}");
    }
    let from_seeds = rows[1]["seeds"]["median"].as_f64().expect("a number");
    assert!(
        (1.0..1.01).contains(&from_seeds),
        "the model and its manifest: {}",
        rows[1]
    );
    assert_eq!(results["versions"]["copy"], "copy 1.0");
    let table = fs::read_to_string(out.join("table.txt")).expect("it was to be written");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&table), "{table}");
    let svg = fs::read_to_string(out.join("pull-times.svg")).expect("it was to be written");
    assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
    let left: Vec<_> = fs::read_dir(&scratch)
        .expect("it stays")
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_system_that_fails_is_reported_and_the_others_are_measured() {
    let dir = tempfile::tempdir().expect("the system has a temporary directory");
    let adapter = dir.path().join("broken");
    fs::write(
        &adapter,
        "#!/bin/sh\ntest \"$1\" != pull || { echo no such luck >&2; exit 3; }\n",
    )
    .expect("it is ours");
    fs::set_permissions(&adapter, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let output = pull_times()
        .args([
            "--nodes",
            "1",
            "--seeds",
            "1",
            "--runs",
            "1",
            "--size",
            "1MiB",
            "--systems",
        ])
        .arg(&adapter)
        .arg("--scratch")
        .arg(dir.path().join("scratch"))
        .output()
        .expect("it is built");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("no such luck") && said.contains("| straight"), "{said}");

    let output = pull_times()
        .args(["--size", "1048576GiB"])
        .output()
        .expect("it is built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--scratch"), "{said}");
}
