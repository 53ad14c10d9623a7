//! Plain `curl`, with parallel ranges.

use std::fmt::Write;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::model::Blob;
use crate::{Lab, Model};

/// Transfers at a time.
const PARALLEL: &str = "8";

/// Fetches every blob of a model into `to`, under the hexadecimal digest, in ranges of `range` bytes that are written to
/// files of their own (`HEX.NUMBER`); the manifest into `manifest`.
pub fn curl(lab: &Lab, mirror: SocketAddr, registry: SocketAddr, model: &Model, range: u64, to: &Path) -> Command {
    curl_as(lab, (mirror, registry), model, range, to, None)
}

/// The same from a mirror of a registry, with an `Authorization`.
pub fn curl_as(
    lab: &Lab,
    (mirror, registry): (SocketAddr, SocketAddr),
    model: &Model,
    range: u64,
    to: &Path,
    authorization: Option<&str>,
) -> Command {
    let shown = authorization.map(|shown| format!("header = \"Authorization: {shown}\"\n"));
    let shown = shown.unwrap_or_default();
    let base = format!("http://{mirror}/v2/{}", model.repository());
    let mut config = String::new();
    let mut part = |url: &str, range: Option<(u64, u64)>, file: &str| {
        let range = range
            .map(|(first, last)| format!("range = {first}-{last}\n"))
            .unwrap_or_default();
        let text = format!(
            "url = \"{url}?ns={registry}\"\n{range}output = \"{}\"\nfail\nsilent\nshow-error\n",
            to.join(file).display()
        );
        write!(
            config,
            "{text}{shown}header = \"Accept: application/vnd.oci.image.manifest.v1+json\"\nnext\n"
        )
        .expect("strings take everything");
    };
    part(&format!("{base}/manifests/v1"), None, "manifest");
    for blob in model.blobs() {
        let url = format!("{base}/blobs/{}", blob.digest);
        for (number, first) in (0..blob.size)
            .step_by(usize::try_from(range).expect("ranges fit memory"))
            .enumerate()
        {
            let last = (first + range).min(blob.size) - 1;
            part(&url, Some((first, last)), &format!("{}.{number:04}", blob.hex()));
        }
    }
    fs::create_dir_all(to).expect("the lab is writable");
    let name = to.file_name().expect("it has a name").to_string_lossy();
    let config = lab.file(format!("curl-{name}.conf"), config.trim_end_matches("next\n"));
    let mut command = Command::new("curl");
    command
        .args([
            "--parallel",
            "--parallel-immediate",
            "--fail-early",
            "--parallel-max",
            PARALLEL,
            "--config",
        ])
        .arg(config);
    command
}

/// Puts the ranges of a blob together again.
pub fn join(to: &Path, blob: &Blob) -> PathBuf {
    let whole = to.join(blob.hex());
    let mut file = File::create(&whole).expect("the lab is writable");
    for number in 0.. {
        let Ok(mut part) = File::open(to.join(format!("{}.{number:04}", blob.hex()))) else {
            break;
        };
        std::io::copy(&mut part, &mut file).expect("there is room on the disk");
    }
    whole
}
