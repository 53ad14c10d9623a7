//! Waiting until a preheat is done, as the schedulers' admin APIs tell it.

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
    let addresses = admin_addresses(args)?;
    let admins: Vec<Admin> = addresses
        .iter()
        .map(|address| Admin::new(address))
        .collect::<Result<_, _>>()?;
    let deadline = Instant::now() + args.timeout;
    let mut settled = 0;
    loop {
        let (status, swarms) = look(&admins).await?;
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

/// What the schedulers that answer know, of which each knows some of the blobs.
async fn look(admins: &[Admin]) -> Result<(Status, BTreeMap<String, Swarm>), Failure> {
    let mut known: Option<(Status, BTreeMap<String, Swarm>)> = None;
    let mut failed = None;
    for admin in admins {
        match look_at(admin).await {
            Ok(seen) => match &mut known {
                Some(known) => add(known, seen),
                None => known = Some(seen),
            },
            Err(error) => failed = Some(error),
        }
    }
    match (known, failed) {
        (Some(known), _) => Ok(known),
        (None, Some(error)) => Err(error),
        (None, None) => Err("no scheduler is named".into()),
    }
}

async fn look_at(admin: &Admin) -> Result<(Status, BTreeMap<String, Swarm>), Failure> {
    let status: Status = admin.get_as("/api/v1/status").await?;
    Ok((status, swarms(admin).await?))
}

/// Adds what another scheduler knows. Two know the same blob; who waits for it is known to one of them.
fn add((status, swarms): &mut (Status, BTreeMap<String, Swarm>), (other, more): (Status, BTreeMap<String, Swarm>)) {
    status.seeds = status.seeds.max(other.seeds);
    status.peers = status.peers.max(other.peers);
    status.preheats += other.preheats;
    for (digest, swarm) in more {
        match swarms.get_mut(&digest) {
            Some(known) => {
                known.nodes = known.nodes.max(swarm.nodes);
                known.whole = known.whole.max(swarm.whole);
                known.waiting = known.waiting.max(swarm.waiting);
            }
            None => {
                swarms.insert(digest, swarm);
            }
        }
    }
}

fn admin_addresses(args: &Args) -> Result<Vec<String>, Failure> {
    if let Some(admin) = &args.admin {
        return Ok(vec![admin.clone()]);
    }
    let address = |scheduler: &String| {
        let (host, _) = scheduler.rsplit_once(':').ok_or("a scheduler is named by HOST:PORT")?;
        Ok(format!("http://{host}:{ADMIN_PORT}"))
    };
    args.scheduler.iter().map(address).collect()
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
    fn what_two_schedulers_know_of_a_blob_is_one() {
        let status = |peers, preheats| Status {
            seeds: 1,
            peers,
            preheats,
        };
        let swarm = |digest: &str, whole, waiting| {
            let swarm = Swarm {
                digest: digest.to_owned(),
                nodes: 3,
                whole,
                waiting,
            };
            (digest.to_owned(), swarm)
        };
        let mut known = (status(2, 0), BTreeMap::from([swarm("a", 1, 2)]));
        let other = (status(3, 1), BTreeMap::from([swarm("a", 2, 0), swarm("b", 3, 0)]));
        add(&mut known, other);
        let (status, swarms) = known;
        assert_eq!((status.seeds, status.peers, status.preheats), (1, 3, 1));
        let seen = |digest: &str| (swarms[digest].whole, swarms[digest].waiting);
        assert_eq!((seen("a"), seen("b")), ((2, 2), (3, 0)));
    }

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
