//! The client against a registry that does what a script tells it to, faults included.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod askers;
mod authentication;
mod blobs;
mod contents;
mod limits;
mod redirects;
mod scripted;
mod tls;
