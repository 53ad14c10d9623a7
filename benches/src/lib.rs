//! What the benches share: nodes on loopback, the clock, a client that costs little, and those that we compare with.

pub mod client;
pub mod cost;
pub mod lab;
pub mod nginx;

/// What a bench does when something fails: it says so and ends.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// One GiB, as a figure to divide by.
pub const GIB: f64 = (1u64 << 30) as f64;
