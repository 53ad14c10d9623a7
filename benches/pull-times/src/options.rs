//! What is asked for on the command line.

use std::path::PathBuf;

use clap::Parser;

use crate::systems::Choice;
use crate::units::{Rate, Size};

/// Pulls one model on nodes behind shaped links, cold, with several systems one after another, and compares them.
///
/// The laboratory is made of network namespaces on this machine, so it needs root. One run is one system with one number of
/// nodes; runs alternate between the systems, so that what else happens on the machine meets all of them.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Options {
    /// Numbers of nodes that pull at once, 1 to 16.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 12], value_parser = clap::value_parser!(u16).range(1..=16))]
    pub nodes: Vec<u16>,

    /// Rate of each node's and each seed's link, up and down.
    #[arg(long, default_value = "100mbit")]
    pub rate: Rate,

    /// Rate of the registry's link.
    #[arg(long, default_value = "100mbit")]
    pub registry_rate: Rate,

    /// Bytes of the largest packet on every link.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(1280..=9000))]
    pub mtu: u16,

    /// Bytes of the model.
    #[arg(long, default_value = "256MiB")]
    pub size: Size,

    /// Files of equal size that the model is made of, each of them a blob.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub files: u16,

    /// Seeds, where a system has such a thing.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub seeds: u16,

    /// Runs of each system with each number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub runs: u16,

    /// `straight`, `pull`, `ctr`, or the path of an adapter script. One node straight from the registry is always measured.
    #[arg(long, value_delimiter = ',', default_value = "straight,pull,ctr")]
    pub systems: Vec<Choice>,

    /// Where to write results.json, table.txt and pull-times.svg.
    #[arg(long)]
    pub out: Option<PathBuf>,

    /// Where models, stores and what nodes pull are kept meanwhile; the default is memory, lest the disk be measured.
    #[arg(long, default_value = "/dev/shm/packswarm-pull-times")]
    pub scratch: PathBuf,
}

impl Options {
    /// The sizes of the model's files.
    pub fn file_sizes(&self) -> Vec<usize> {
        let count = u64::from(self.files);
        let size = |number: u64| self.size.bytes() / count + u64::from(number < self.size.bytes() % count);
        (0..count)
            .map(|number| usize::try_from(size(number)).expect("64-bit machines only"))
            .collect()
    }

    /// Bytes that a run with the most nodes keeps in the scratch directory: everybody stores a blob and hands it to somebody.
    pub fn room(&self) -> u64 {
        let nodes = self.nodes.iter().copied().max().unwrap_or(1);
        self.size.bytes() * (2 * u64::from(nodes) + u64::from(self.seeds) + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from([&["pull-times"], arguments].concat())
    }

    #[test]
    fn the_defaults_are_the_published_laboratory() {
        let options = parsed(&[]).unwrap();
        assert_eq!((options.nodes.as_slice(), options.runs), (&[1, 4, 12][..], 3));
        assert_eq!(
            (options.rate.to_string(), options.size.to_string()),
            ("100mbit".into(), "256MiB".into())
        );
        assert_eq!(options.systems, [Choice::Straight, Choice::Pull, Choice::Ctr]);
        assert_eq!(options.room(), (256 << 20) * 27);
    }

    #[test]
    fn lists_and_adapters_are_understood() {
        let options = parsed(&[
            "--nodes",
            "2,3",
            "--systems",
            "pull,./other.sh",
            "--size",
            "10",
            "--files",
            "3",
        ])
        .unwrap();
        assert_eq!(options.nodes, [2, 3]);
        assert_eq!(
            options.systems,
            [Choice::Pull, Choice::Adapter(Path::new("./other.sh").into())]
        );
        assert_eq!(options.file_sizes(), [4, 3, 3]);
    }

    #[test]
    fn what_no_laboratory_can_be_is_refused() {
        for wrong in [
            ["--mtu", "100"],
            ["--nodes", "17"],
            ["--nodes", "0"],
            ["--rate", "fast"],
            ["--systems", "pul"],
            ["--runs", "0"],
        ] {
            assert!(parsed(&wrong).is_err(), "{wrong:?}");
        }
    }
}
