//! The loop that owns the node's state machine: select → handle → perform.
//!
//! Everything that happens reaches the machine through one bounded channel; everything it decides is performed in tasks of
//! their own, whose results come back through the same channel. The loop itself never waits for I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use piece::{Digest, NodeId};
use swarm::node::{FetchId, Input, Node, Output, ServeId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::{debug, warn};
use wire::control::{Holding, Source};

use crate::asking;
use crate::fetching;
use crate::opening::Opening;
use crate::origin::{self, Origins};
use crate::parts::{Parts, Trusted};
use crate::serving::Uploads;

/// Events that wait for the loop; whoever sends more waits.
const EVENTS: usize = 4096;
/// Inputs handled between two looks at the clock.
const BUDGET: usize = 256;

/// What reaches the loop.
#[expect(
    clippy::large_enum_variant,
    reason = "an event is queued briefly; a box each would cost more"
)]
pub(crate) enum Event {
    /// Something for the machine.
    Input(Input),
    /// A neighbour asks for a piece.
    Asked(transport::FetchRequest),
    /// A question about what this node holds.
    Lookup(Digest, oneshot::Sender<Option<Holding>>),
    /// Other settings; the answer is what they are now.
    Adjust(Change, oneshot::Sender<swarm::node::Config>),
}

type Change = Box<dyn FnOnce(&mut swarm::node::Config) + Send>;

/// The way to the loop. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    events: mpsc::Sender<Event>,
}

impl Engine {
    /// A loop's two ends.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        (Self { events }, receiver)
    }

    /// Tells the machine what happened; waits while the loop is behind. A loop that has ended no longer cares.
    pub(crate) async fn tell(&self, input: Input) {
        let _ = self.events.send(Event::Input(input)).await;
    }

    /// As [`Engine::tell`], from a thread that may block.
    pub(crate) fn tell_blocking(&self, input: Input) {
        let _ = self.events.blocking_send(Event::Input(input));
    }

    /// Gives the machine a hint, which is dropped while the loop is behind.
    pub(crate) fn hint(&self, input: Input) {
        let _ = self.events.try_send(Event::Input(input));
    }

    /// Hands a neighbour's request to the loop.
    pub(crate) async fn asked(&self, request: transport::FetchRequest) {
        let _ = self.events.send(Event::Asked(request)).await;
    }

    /// Wants a blob.
    pub(crate) async fn want(&self, digest: Digest, size: Option<u64>, source: Source, urgent: bool) {
        self.tell(Input::Want {
            digest,
            size,
            source,
            urgent,
        })
        .await;
    }

    /// What this node holds of a blob, for whoever looks it up.
    pub(crate) async fn lookup(&self, digest: Digest) -> Option<Holding> {
        let (answer, answered) = oneshot::channel();
        self.events.send(Event::Lookup(digest, answer)).await.ok()?;
        answered.await.ok().flatten()
    }

    /// Changes the machine's settings, and gives them as they then are; `None` while the node stops.
    pub(crate) async fn adjust(
        &self,
        change: impl FnOnce(&mut swarm::node::Config) + Send + 'static,
    ) -> Option<swarm::node::Config> {
        let (answer, answered) = oneshot::channel();
        let adjust = Event::Adjust(Box::new(change), answer);
        self.events.send(adjust).await.ok()?;
        answered.await.ok()
    }
}

/// The loop's own state.
pub(crate) struct Loop {
    machine: Node,
    parts: Arc<Parts>,
    start: Instant,
    fetches: HashMap<FetchId, AbortHandle>,
    uploads: Uploads,
    origins: Origins,
    out: Vec<Output>,
}

impl Loop {
    pub(crate) fn new(machine: Node, parts: Arc<Parts>) -> Self {
        Self {
            machine,
            uploads: Uploads::default(),
            origins: Origins::default(),
            parts,
            start: Instant::now(),
            fetches: HashMap::new(),
            out: Vec::new(),
        }
    }

    /// Runs until every sender is gone or `stop` resolves.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>, stop: tokio_util::sync::CancellationToken) {
        let mut batch = Vec::with_capacity(BUDGET);
        loop {
            let deadline = self.machine.deadline().map(|due| self.start + due);
            tokio::select! {
                () = stop.cancelled() => break,
                count = events.recv_many(&mut batch, BUDGET) => {
                    if count == 0 { break }
                    for event in batch.drain(..) {
                        self.take(event);
                        self.perform();
                    }
                }
                () = sleep_until(deadline) => {
                    self.handle(Input::Tick);
                    self.perform();
                }
            }
        }
        self.fetches.values().for_each(AbortHandle::abort);
        self.origins.close_all();
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn handle(&mut self, input: Input) {
        let now = self.now();
        self.machine.handle(now, input, &mut self.out);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Input(input) => {
                self.note(&input);
                self.handle(input);
            }
            Event::Asked(request) => {
                let (from, fetch) = (request.node, request.fetch);
                let id = self.uploads.take(request);
                self.handle(Input::Serve {
                    id,
                    from,
                    digest: fetch.digest,
                    piece: fetch.piece,
                });
            }
            Event::Lookup(digest, answer) => {
                let _ = answer.send(asking::holding_of(&self.machine, &self.parts, &digest));
            }
            Event::Adjust(change, answer) => {
                let mut config = self.machine.config().clone();
                change(&mut config);
                self.machine.reconfigure(config.clone());
                let _ = answer.send(config);
            }
        }
    }

    /// Books that the loop itself keeps.
    fn note(&mut self, input: &Input) {
        if let Input::Fetched { id, .. } = input {
            self.fetches.remove(id);
        }
    }

    fn perform(&mut self) {
        // A cancelled request ends at once, which can give rise to more.
        while !self.out.is_empty() {
            for output in std::mem::take(&mut self.out) {
                self.perform_one(output);
            }
        }
    }

    fn perform_one(&mut self, output: Output) {
        let parts = &self.parts;
        match output {
            Output::Open {
                blob,
                media_type,
                source,
            } => parts.open(blob, media_type, source),
            Output::Connect { node, address } => parts.connect(node, address),
            Output::Disconnect { node } => parts.transport.disconnect(&node, "no blob in common"),
            Output::Send { to, message } => self.send(to, message),
            Output::Fetch { id, from, blob, piece } => {
                let task = tokio::spawn(fetching::fetch(Arc::clone(parts), id, from, blob, piece));
                self.fetches.insert(id, task.abort_handle());
            }
            Output::Cancel { id } => {
                if let Some(task) = self.fetches.remove(&id) {
                    task.abort();
                    self.fetched(id, swarm::node::Outcome::Cancelled);
                }
            }
            Output::Serve { id } => self.serve(id),
            Output::Refuse { id, refusal } => self.uploads.refuse(id, refusal),
            Output::OpenOrigin {
                digest,
                size,
                lease,
                first,
                connections,
                stripe,
            } => {
                self.origins.open(
                    parts,
                    Opening {
                        digest,
                        size,
                        lease,
                        first,
                        connections,
                        stripe,
                    },
                );
            }
            Output::ReadOrigin { digest, first, count } => self.origins.read(&digest, first, count),
            Output::CloseOrigin { digest } => self.origins.close(&digest),
            Output::Ask { scheduler, ask } => asking::ask(Arc::clone(parts), scheduler, ask),
            Output::FindHolders {
                digest,
                size,
                source,
                stuck,
            } => {
                asking::find_holders(Arc::clone(parts), digest, size.zip(source), stuck);
            }
            Output::Provide { digest } => parts.providing.provide(digest),
            Output::Unprovide { digest } => parts.providing.unprovide(digest),
            Output::Trust { digest, readers, after } => parts.trust.set(digest, Trusted { readers, after }),
            Output::Distrust { digest, unblamed } => origin::distrust(Arc::clone(parts), digest, unblamed),
            Output::Sized { blob, media_type } => parts.watches.tell(&blob.digest, |seen| {
                seen.blob = Some(blob);
                seen.media_type = media_type.or(seen.media_type.take());
            }),
            Output::Accessible { digest, source, access } => parts.learn_access(digest, source, access),
            Output::Complete { digest } => parts.completed(&digest),
            Output::Failed { digest, failure } => {
                debug!(%digest, status = failure.status, reason = failure.message, "a blob cannot be had");
                parts
                    .begun
                    .lock()
                    .expect("no holder of this lock panics")
                    .remove(&digest);
                parts.watches.tell(&digest, |seen| seen.fail(failure));
            }
            Output::Expel { nodes } => drop(parts.expelled.send_replace(nodes)),
            Output::Ban { node } => {
                warn!(node = %identity::peer_id(node), "banned: its signature stands on a false midstate");
                parts.transport.ban(node);
            }
        }
    }

    fn send(&mut self, to: NodeId, message: wire::exchange::Message) {
        if let Err(error) = self.parts.transport.send(&to, message) {
            // A neighbour that does not drain its messages must not make us buffer for it: it is cut off, and may come back.
            debug!(node = ?to, %error, "message not sent");
            self.parts.transport.disconnect(&to, "it does not read its messages");
        }
    }

    fn fetched(&mut self, id: FetchId, outcome: swarm::node::Outcome) {
        let now = self.now();
        let mut out = std::mem::take(&mut self.out);
        self.machine.handle(now, Input::Fetched { id, outcome }, &mut out);
        self.out = out;
    }

    fn serve(&mut self, id: ServeId) {
        self.uploads.serve(Arc::clone(&self.parts), id);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
