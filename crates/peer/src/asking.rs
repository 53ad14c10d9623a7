//! Asking the schedulers, and other nodes when none answers.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use control::{AskError, To};
use futures::{StreamExt as _, stream};
use piece::{Blob, Digest, NodeId};
use swarm::node::{Ask, HoldingNow, Input, Node, Report};
use wire::control::{Address, Holding, MAX_ENTRIES, Neighbour, Reading, Request, Response, Role, Source};

use crate::parts::Parts;

/// Seeds that are summoned one after another, and how long each has to answer: others of them may be out of reach.
const SUMMONED: usize = 3;
const SUMMONS: Duration = Duration::from_secs(3);
/// Between two registrations that a scheduler refuses.
const REFUSED: Duration = Duration::from_secs(5);
/// Holders looked up at the same time.
const LOOKUPS: usize = 8;
/// Holders looked up for one blob.
const MAX_HOLDERS: usize = 20;

/// The digest under which seeds can be found in Kademlia when no scheduler answers.
pub(crate) fn seeds_key() -> Digest {
    Digest::of(b"packswarm seeds")
}

/// Asks a scheduler, and tells the machine what it said.
pub(crate) fn ask(parts: Arc<Parts>, scheduler: NodeId, ask: Ask) {
    tokio::spawn(async move {
        match ask {
            Ask::Register { holdings } => register(&parts, scheduler, holdings).await,
            Ask::Join {
                digest,
                size,
                source,
                urgent,
            } => {
                let request = Request::Join {
                    digest,
                    size,
                    source: source.clone(),
                    urgent,
                };
                match parts.control.ask(To::Node(scheduler), request).await {
                    Ok(Response::Joined { mut swarm }) => {
                        swarm.about.get_or_insert(source);
                        parts.told(scheduler, digest, swarm).await;
                    }
                    // A scheduler that has restarted: the machine registers and joins again.
                    Ok(Response::Reported { known, .. }) => {
                        parts.engine.tell(Input::Reported { scheduler, known }).await;
                    }
                    Ok(other) => tracing::debug!(?other, "the scheduler did not take a join"),
                    // The machine asks again when the scheduler is back.
                    Err(error) => tracing::debug!(%error, "the scheduler could not be asked"),
                }
            }
            Ask::Report(report) => send_report(&parts, scheduler, report).await,
        }
    });
}

async fn register(parts: &Arc<Parts>, scheduler: NodeId, holdings: Vec<HoldingNow>) {
    let holdings: Vec<Holding> = holdings.into_iter().map(|holding| fill_in(parts, holding)).collect();
    let mut pages = holdings.chunks(MAX_ENTRIES).peekable();
    let mut first = true;
    while first || pages.peek().is_some() {
        first = false;
        let holdings = pages.next().unwrap_or_default().to_vec();
        let request = Request::Register {
            protocol: wire::PROTOCOL,
            role: parts.role,
            data: Address(parts.advertised),
            locality: parts.locality.clone(),
            holdings,
            more: pages.peek().is_some(),
        };
        match parts.control.ask(To::Node(scheduler), request).await {
            Ok(Response::Registered { report_every }) if pages.peek().is_none() => {
                let report_every = Duration::from_millis(report_every.into());
                let registered = Input::Registered {
                    scheduler,
                    report_every,
                };
                parts.engine.tell(registered).await;
                parts.registered.send_replace(true);
            }
            Ok(Response::Registered { .. }) => {}
            Ok(other) => tracing::debug!(?other, "the scheduler did not take the registration"),
            Err(AskError::Refused(reason)) => {
                tracing::error!(
                    reason,
                    "the scheduler refuses this node; asking again every {} s",
                    REFUSED.as_secs()
                );
                return ask_again(parts, scheduler).await;
            }
            Err(error) => {
                tracing::debug!(%error, "registration failed; it is repeated when the scheduler is back");
                return;
            }
        }
    }
}

/// A refusal may pass: the operator raises a limit, or lets the node back in.
async fn ask_again(parts: &Parts, scheduler: NodeId) {
    let mut schedulers = parts.control.schedulers();
    // One that is gone and comes back is asked for that reason already.
    let gone = schedulers.wait_for(|now| !now.connected.contains(&scheduler));
    if tokio::time::timeout(REFUSED, gone).await.is_err() {
        parts.engine.tell(Input::SchedulerUp { scheduler }).await;
    }
}

async fn send_report(parts: &Arc<Parts>, scheduler: NodeId, report: Report) {
    let Report {
        holdings,
        gone,
        failed,
        accusations,
        lonely,
    } = report;
    let holdings = holdings.into_iter().map(|holding| fill_in(parts, holding)).collect();
    let request = Request::Report {
        holdings,
        gone,
        failed,
        accusations,
        lonely,
    };
    match parts.control.ask(To::Node(scheduler), request).await {
        Ok(Response::Reported { known, swarms }) => {
            parts.engine.tell(Input::Reported { scheduler, known }).await;
            for (digest, swarm) in swarms {
                parts.told(scheduler, digest, swarm).await;
            }
        }
        Ok(other) => tracing::debug!(?other, "the scheduler did not take a report"),
        Err(error) => tracing::debug!(%error, "a report was lost"),
    }
}

/// A holding as it travels: with the midstate that the store knows.
fn fill_in(parts: &Parts, now: HoldingNow) -> Holding {
    let HoldingNow {
        blob,
        pieces,
        wants,
        media_type,
        reading,
    } = now;
    let reading = reading.map(|reading| Reading {
        epoch: reading.epoch,
        boundary: reading.boundary,
        midstate: parts
            .file(&blob.digest)
            .and_then(|file| file.boundary(reading.boundary)),
        source: reading.source,
        access: reading.access,
    });
    Holding {
        blob,
        pieces,
        wants,
        media_type,
        reading,
    }
}

/// What this node holds of a blob, for another node's lookup.
pub(crate) fn holding_of(machine: &Node, parts: &Parts, digest: &Digest) -> Option<Holding> {
    machine.holding(digest).map(|holding| fill_in(parts, holding))
}

/// Looks for holders of a blob through Kademlia. Where nobody has any of it, or nobody any more of it (`stuck`), one seed is
/// summoned to fetch it: the same one by whoever knows, and reaches, the same seeds.
pub(crate) fn find_holders(parts: Arc<Parts>, digest: Digest, origin: Option<(u64, Source)>, stuck: bool) {
    tokio::spawn(async move {
        let nodes = parts.control.providers(&digest, MAX_HOLDERS).await;
        let mut holders: Vec<(Neighbour, Holding)> = stream::iter(nodes)
            .map(|node| lookup(&parts, node, digest))
            .buffer_unordered(LOOKUPS)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let somebody = holders
            .iter()
            .any(|(_, holding)| holding.pieces > 0 || holding.reading.is_some());
        if let Some((size, source)) = origin.filter(|_| (stuck || !somebody) && parts.role == Role::Peer) {
            holders.extend(summon(&parts, Blob { digest, size }, source).await);
        }
        tracing::debug!(%digest, found = holders.len(), "looked for holders without a scheduler");
        parts.engine.tell(Input::Holders { digest, holders }).await;
    });
}

async fn summon(parts: &Parts, blob: Blob, source: Source) -> Option<(Neighbour, Holding)> {
    let mut seeds = find_seeds(parts).await;
    seeds.sort_by_key(|seed| Reverse(swarm::rank(&blob.digest, seed)));
    for seed in seeds.into_iter().take(SUMMONED) {
        let request = Request::Preheat {
            blobs: vec![(blob, source.clone())],
            to: None,
        };
        let asked = parts.control.ask(To::Node(seed), request);
        match tokio::time::timeout(SUMMONS, asked).await {
            Ok(Ok(_)) => return lookup(parts, seed, blob.digest).await,
            Ok(Err(error)) => tracing::debug!(?seed, %error, "a seed could not be summoned"),
            Err(_) => tracing::debug!(?seed, "a seed does not answer; the next one is summoned"),
        }
    }
    None
}

async fn lookup(parts: &Parts, node: NodeId, digest: Digest) -> Option<(Neighbour, Holding)> {
    let response = parts
        .control
        .ask(To::Node(node), Request::Lookup { digest })
        .await
        .ok()?;
    let Response::Found { data, role, holding } = response else {
        return None;
    };
    let mut address = data.0;
    if address.ip().is_unspecified() {
        address.set_ip(parts.seen_at.of(&node)?);
    }
    parts.roles.learn(node, role);
    let neighbour = Neighbour {
        node,
        data: Address(address),
        role,
        locality: Default::default(),
    };
    Some((neighbour, holding?))
}

/// The seeds that Kademlia knows.
pub(crate) async fn find_seeds(parts: &Parts) -> Vec<NodeId> {
    debug_assert!(parts.role != Role::Scheduler, "a scheduler holds no blobs");
    parts.control.providers(&seeds_key(), MAX_HOLDERS).await
}
