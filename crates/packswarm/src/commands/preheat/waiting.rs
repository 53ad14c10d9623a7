//! Waiting until a preheat is done, as the scheduler's admin API tells it.

use std::collections::BTreeMap;
use std::time::Duration;

use piece::Blob;
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use wire::control::Source;

use super::{Args, Target};
use crate::failure::Failure;
use crate::http::Admin;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row that must find nobody waiting: a peer that is being told joins within a moment, but until then the
/// scheduler cannot say whether the holders of a blob are peers or seeds.
const SETTLED: u32 = 3;
/// Where a process serves its admin API unless told otherwise.
const ADMIN_PORT: u16 = 7656;

#[derive(Debug, Deserialize)]
struct Swarms {
    swarms: Vec<Swarm>,
    next: Option<String>,
}

/// A blob as the scheduler sees it.
#[derive(Debug, Deserialize)]
struct Swarm {
    digest: String,
    nodes: usize,
    whole: usize,
    waiting: usize,
}

#[derive(Debug, Deserialize)]
struct Status {
    seeds: usize,
    peers: usize,
    preheats: usize,
}

/// Returns when whoever was told has every blob.
pub(super) async fn until_there(args: &Args, blobs: &[(Blob, Source)]) -> Result<(), Failure> {
    let admin = Admin::new(&admin_address(args)?)?;
    let deadline = Instant::now() + args.timeout;
    let mut settled = 0;
    loop {
        let status: Status = admin.get_as("/api/v1/status").await?;
        let swarms = swarms(&admin).await?;
        let states = blobs.iter().map(|(blob, _)| {
            let swarm = swarms.get(&blob.digest.to_string());
            swarm.map_or(There::No, |swarm| there(swarm, args.to, &status))
        });
        let states: Vec<There> = states.collect();
        let done = states.iter().filter(|state| **state != There::No).count();
        settled = if done == blobs.len() { settled + 1 } else { 0 };
        if settled >= SETTLED || states.iter().all(|state| *state == There::Surely) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "{done} of {} blobs are there; the rest did not come in time",
                blobs.len()
            )
            .into());
        }
        sleep(LOOK).await;
    }
}

/// Whether a blob is where it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    No,
    /// Unless somebody has yet to join.
    Presumably,
    Surely,
}

fn there(swarm: &Swarm, to: Target, status: &Status) -> There {
    match to {
        Target::Seeds if swarm.whole >= 1 => There::Surely,
        Target::Seeds => There::No,
        Target::Peers if status.preheats > 0 || swarm.waiting > 0 || swarm.whole < swarm.nodes.max(status.peers) => {
            There::No
        }
        Target::Peers if swarm.whole >= status.peers + status.seeds => There::Surely,
        Target::Peers => There::Presumably,
    }
}

fn admin_address(args: &Args) -> Result<String, Failure> {
    if let Some(admin) = &args.admin {
        return Ok(admin.clone());
    }
    let host = args.scheduler.first().and_then(|scheduler| scheduler.rsplit_once(':'));
    let host = host.ok_or("a scheduler is named by HOST:PORT")?.0;
    Ok(format!("http://{host}:{ADMIN_PORT}"))
}

async fn swarms(admin: &Admin) -> Result<BTreeMap<String, Swarm>, Failure> {
    let mut found = BTreeMap::new();
    let mut path = "/api/v1/swarms".to_owned();
    loop {
        let page: Swarms = admin.get_as(&path).await?;
        found.extend(page.swarms.into_iter().map(|swarm| (swarm.digest.clone(), swarm)));
        match page.next {
            Some(after) => path = format!("/api/v1/swarms?after={after}"),
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_done_when_none_of_them_waits() {
        let swarm = |nodes, whole, waiting| Swarm {
            digest: String::new(),
            nodes,
            whole,
            waiting,
        };
        let mut status = Status {
            seeds: 2,
            peers: 8,
            preheats: 0,
        };
        assert_eq!(there(&swarm(1, 1, 0), Target::Seeds, &status), There::Surely);
        assert_eq!(there(&swarm(1, 0, 1), Target::Seeds, &status), There::No);
        assert_eq!(there(&swarm(10, 10, 0), Target::Peers, &status), There::Surely);
        assert_eq!(there(&swarm(9, 9, 0), Target::Peers, &status), There::Presumably);
        assert_eq!(there(&swarm(9, 8, 1), Target::Peers, &status), There::No);
        assert_eq!(
            there(&swarm(3, 3, 0), Target::Peers, &status),
            There::No,
            "five have not joined"
        );
        status.preheats = 1;
        assert_eq!(
            there(&swarm(10, 10, 0), Target::Peers, &status),
            There::No,
            "some are still told"
        );
    }
}
