//! The store, and what pieces cost in memory and cores.

use crate::config::section::section;
use crate::config::size;

section! {
    /// Blobs on disk, under `data_dir`.
    Store in store::Config;
    /// The quota; 0B stands for 90 % of the filesystem. A blob counts with its full size from the moment it is begun. Too
    /// small, and blobs go before others have fetched them from here.
    #[serde(with = "size")]
    capacity => capacity: u64, "100GiB";
    /// The share of `capacity` past which the least recently used blobs are evicted. Nearer to 1, new blobs wait for the
    /// deletion of old ones more often; lower, the space above lies idle.
    high_water => high_water: f64, "0.95";
    /// The share of `capacity` at which eviction ends. Nearer to `high_water`, it runs more often; lower, more is lost
    /// than the next blob needs.
    low_water => low_water: f64, "0.5";
    /// Bytes per second at which everything is read again in the background, in search of bits that have flipped on the
    /// disk; 0B for never. Less finds them later; more takes from what the disk can do: 16 MiB are a terabyte in 18 hours.
    #[serde(with = "size")]
    scrub_rate => scrub_rate: u64, "64MiB";
}

section! {
    /// Pieces in memory.
    Pieces in peer::Config;
    /// Memory for pieces on their way to the disk: most of what the process uses. When it is in use, requests wait; less
    /// slows fast links down.
    #[serde(with = "size")]
    buffers => buffers: u64, "128MiB";
    /// Threads that verify pieces, 0 for one per core, at most 8. Two cores verify 5.8 GB/s.
    provers => provers: usize, "17";
}
