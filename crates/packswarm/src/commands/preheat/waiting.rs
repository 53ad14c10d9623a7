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
    peers: usize,
}

/// Returns when whoever was told has every blob.
pub(super) async fn until_there(args: &Args, blobs: &[(Blob, Source)]) -> Result<(), Failure> {
    let admin = Admin::new(&admin_address(args)?)?;
    let deadline = Instant::now() + args.timeout;
    loop {
        let Status { peers } = admin.get_as("/api/v1/status").await?;
        let swarms = swarms(&admin).await?;
        let there = |(blob, _): &&(Blob, Source)| {
            swarms
                .get(&blob.digest.to_string())
                .is_some_and(|swarm| is_there(swarm, args.to, peers))
        };
        let done = blobs.iter().filter(there).count();
        if done == blobs.len() {
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

fn is_there(swarm: &Swarm, to: Target, peers: usize) -> bool {
    match to {
        Target::Seeds => swarm.whole >= 1,
        // Seeds that read it are among its nodes.
        Target::Peers => swarm.waiting == 0 && swarm.whole == swarm.nodes && swarm.nodes >= peers,
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
        assert!(is_there(&swarm(1, 1, 0), Target::Seeds, 8));
        assert!(!is_there(&swarm(1, 0, 1), Target::Seeds, 8));
        assert!(is_there(&swarm(9, 9, 0), Target::Peers, 8));
        assert!(!is_there(&swarm(9, 8, 1), Target::Peers, 8));
        assert!(
            !is_there(&swarm(3, 3, 0), Target::Peers, 8),
            "five peers have not joined yet"
        );
    }
}
