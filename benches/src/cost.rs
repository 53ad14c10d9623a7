//! What work takes: time on the clock, and time of processors.

use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

use crate::{GIB, Outcome};

/// What moving some bytes took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// On the clock.
    pub gib_per_s: f64,
    /// Of all processors together.
    pub cpu_s_per_gib: f64,
}

impl Cost {
    /// What `bytes` took.
    pub fn of(bytes: u64, wall: Duration, cpu: f64) -> Self {
        let gib = bytes as f64 / GIB;
        Self {
            gib_per_s: gib / wall.as_secs_f64(),
            cpu_s_per_gib: cpu / gib,
        }
    }

    /// The mean of some runs.
    pub fn mean(runs: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        Self {
            gib_per_s: mean(|cost| cost.gib_per_s),
            cpu_s_per_gib: mean(|cost| cost.cpu_s_per_gib),
        }
    }
}

/// Runs from its start, for this process or another one.
#[derive(Debug)]
pub struct Stopwatch {
    process: Option<u32>,
    cpu: f64,
    start: Instant,
}

impl Stopwatch {
    /// Starts one for this process.
    pub fn start() -> Self {
        Self {
            process: None,
            cpu: own_cpu_seconds(),
            start: Instant::now(),
        }
    }

    /// Starts one for another process, whose processor time the system counts in ticks of 10 ms.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of_process(process: u32) -> Outcome<Self> {
        Ok(Self {
            process: Some(process),
            cpu: cpu_seconds_of(process)?,
            start: Instant::now(),
        })
    }

    /// What `bytes` took since the start.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn stop(self, bytes: u64) -> Outcome<Cost> {
        let wall = self.start.elapsed();
        let cpu = match self.process {
            None => own_cpu_seconds(),
            Some(process) => cpu_seconds_of(process)?,
        };
        Ok(Cost::of(bytes, wall, cpu - self.cpu))
    }
}

/// What some latencies have in common, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Half of them are no longer.
    pub median: f64,
    /// All but a twentieth are no longer.
    pub p95: f64,
    /// The longest.
    pub longest: f64,
}

impl Spread {
    /// That of these, of which there must be one.
    pub fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort();
        let at = |share: f64| {
            let rank = (samples.len() as f64 * share).ceil() as usize;
            samples
                .get(rank.saturating_sub(1))
                .map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
        };
        Self {
            median: at(0.5),
            p95: at(0.95),
            longest: at(1.0),
        }
    }
}

fn own_cpu_seconds() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// User and system time of all threads of a process, from `/proc/PID/stat` (man 5 proc: fields 14 and 15).
fn cpu_seconds_of(process: u32) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").ok_or("no name in /proc/PID/stat")?;
    let ticks: Vec<f64> = rest
        .split(' ')
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_made_of_samples() {
        let spread = Spread::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((spread.median, spread.p95, spread.longest), (50.0, 95.0, 100.0));
        assert!(Spread::of(Vec::new()).median.is_nan());
    }

    #[test]
    fn both_clocks_of_a_process_agree() {
        let theirs = cpu_seconds_of(std::process::id());
        let ours = own_cpu_seconds();
        assert!((theirs.expect("this process runs") - ours).abs() < 0.1);
    }
}
