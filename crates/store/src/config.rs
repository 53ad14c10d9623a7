//! What an operator sets about the store.

use std::path::PathBuf;

use crate::OpenError;

/// Where the store lies and how much it may hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The directory; made if absent, used by one process at a time. No default.
    pub data_dir: PathBuf,
    /// The quota in bytes; 0, the default, stands for 90 % of the filesystem. A blob counts with its full size from the
    /// moment it is begun. Too small, and blobs are evicted before others have fetched them from here.
    pub capacity: u64,
    /// The share of `capacity` past which eviction sets in. Default 0.9. Nearer to 1, a blob that begins waits for the
    /// deletion of others more often; lower, the space above lies idle.
    pub high_water: f64,
    /// The share of `capacity` at which eviction ends. Default 0.8. Nearer to `high_water`, eviction runs more often;
    /// lower, more is evicted than the next blob needs.
    pub low_water: f64,
    /// Bytes per second at which whoever uses the store should read blobs again in the background, in search of bits that
    /// have flipped; 0 for not at all. Default 16 MiB/s: a terabyte in 18 hours, for less than a hundredth of a core.
    pub scrub_rate: u64,
}

impl Config {
    /// The defaults, in this directory.
    pub fn at(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            capacity: 0,
            high_water: 0.9,
            low_water: 0.8,
            scrub_rate: 16 << 20,
        }
    }
}

/// The quota in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) capacity: u64,
    pub(crate) high: u64,
    pub(crate) low: u64,
}

impl Limits {
    /// The limits that a configuration means on a filesystem of this many bytes.
    pub(crate) fn of(config: &Config, filesystem: u64) -> Result<Self, OpenError> {
        let Config {
            capacity,
            high_water: high,
            low_water: low,
            ..
        } = *config;
        if !(0.0 < low && low <= high && high <= 1.0) {
            return Err(OpenError::WaterMarks { low, high });
        }
        let capacity = if capacity == 0 { filesystem / 10 * 9 } else { capacity };
        let share = |mark: f64| (capacity as f64 * mark) as u64;
        Ok(Self {
            capacity,
            high: share(high),
            low: share(low),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_shares_of_the_capacity() {
        let config = Config {
            capacity: 1000,
            ..Config::at("/x")
        };
        assert_eq!(
            Limits::of(&config, 5).unwrap(),
            Limits {
                capacity: 1000,
                high: 900,
                low: 800
            }
        );
        assert_eq!(
            Limits::of(&Config::at("/x"), 1000).unwrap(),
            Limits {
                capacity: 900,
                high: 810,
                low: 720
            }
        );
    }

    #[test]
    fn refuses_marks_out_of_order() {
        for (low, high) in [(0.9, 0.8), (0.0, 0.5), (0.5, 1.1), (f64::NAN, 0.5)] {
            let config = Config {
                low_water: low,
                high_water: high,
                ..Config::at("/x")
            };
            assert!(
                matches!(Limits::of(&config, 1000), Err(OpenError::WaterMarks { .. })),
                "{low} {high}"
            );
        }
    }
}
