//! The store from outside: what callers see, what a crash leaves, what damage does.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod crash;
mod damage;
mod exchange;
mod hand_out;
mod lifecycle;
mod model;
mod sample;
