//! Every option there is, by the table that it stands in.

mod http;
mod locality;
mod log;
mod mirror;
mod planes;
mod process;
mod registry;
mod scheduling;
mod store;
mod swarm;

pub(crate) use http::Http;
pub(crate) use locality::Locality;
pub(crate) use log::{Format, Log};
pub(crate) use mirror::{Access, Mirror};
pub(crate) use planes::{Control, Transport};
pub(crate) use process::{Joining, Process};
pub(crate) use registry::Registry;
pub(crate) use scheduling::{Memory, Scheduling};
pub(crate) use store::{Pieces, Store};
pub(crate) use swarm::{Exchange, Origin, Rates};
