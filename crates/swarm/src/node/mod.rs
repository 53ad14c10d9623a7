//! Everything one node decides: whom to connect to, what to ask of whom, what to serve, what to read from the registry,
//! what to tell which scheduler, and what to do when none answers.
//!
//! [`Node::handle`] takes one [`Input`] and appends [`Output`]s; [`Node::deadline`] says when [`Input::Tick`] is due. After
//! every input the machine restores its invariants in one place (`Node::settle`): every idle request slot that could be
//! used is used, every range of the registry that may be read is being read, every `Have` that is due is sent.

mod agenda;
mod alone;
mod announce;
mod ask;
mod asking;
mod blob;
mod config;
mod doubt;
mod downloads;
mod event;
mod expulsion;
mod importing;
mod line;
mod links;
mod openings;
mod origin;
mod pace;
mod picker;
mod reading;
mod reports;
mod schedulers;
mod spreading;
mod uploads;
mod wanting;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use piece::{Bitfield, Digest, NodeId, PieceIndex};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use wire::control::Swarm;
use wire::exchange::Refusal;

pub use ask::{Ask, HoldingNow, ReadingNow, Report};
pub use config::Config;
pub use event::{FetchId, Identity, Input, Outcome, Output, ServeId};

use agenda::Agenda;
use blob::BlobState;
use downloads::Requests;
use links::Links;
use openings::Openings;
use reports::Reporter;
use uploads::Uploads;

/// Where a piece has come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gain {
    Neighbour,
    Registry,
}

/// Housekeeping that no event triggers (idle connections, lookups, second askings) happens at least this often.
const SWEEP: Duration = Duration::from_millis(250);

/// The state machine of one node.
#[derive(Debug)]
pub struct Node {
    me: Identity,
    config: Config,
    rng: ChaCha8Rng,
    blobs: BTreeMap<Digest, BlobState>,
    /// Blobs with missing pieces that somebody waits for: those that clients wait for sort first.
    hungry: BTreeSet<(bool, Digest)>,
    /// Blobs that the last input said something about.
    touched: BTreeSet<Digest>,
    openings: Openings,
    /// When the next `Have`s of a blob are due.
    news: Agenda,
    /// When to see how the pieces fare of which neighbours are told one by one.
    spreading: Agenda,
    links: Links,
    requests: Requests,
    uploads: Uploads,
    reporter: Reporter,
    next_sweep: Duration,
}

impl Node {
    /// A node that knows nothing yet.
    pub fn new(me: Identity, config: Config, seed: u64) -> Self {
        Self {
            me,
            rng: ChaCha8Rng::seed_from_u64(seed),
            blobs: BTreeMap::new(),
            hungry: BTreeSet::new(),
            touched: BTreeSet::new(),
            openings: Openings::default(),
            news: Agenda::default(),
            spreading: Agenda::default(),
            links: Links::new(config.connections),
            requests: Requests::default(),
            uploads: Uploads::new(config.upload_slots, config.upload_queue),
            reporter: Reporter::default(),
            next_sweep: Duration::ZERO,
            config,
        }
    }

    /// Takes what happened at `now` and appends what is to be done.
    pub fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        self.touched.extend(input.subject());
        self.handle_inner(now, input, out);
        self.settle(now, out);
    }

    fn handle_inner(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Want {
                digest,
                size,
                source,
                urgent,
            } => self.want(now, digest, size, source, urgent, out),
            Input::Cursor { digest, piece } => {
                if let Some(wanted) = self.blobs.get_mut(&digest).and_then(|state| state.wanted.as_mut()) {
                    wanted.cursor = piece;
                }
            }
            Input::Opened { blob, bits, media_type } => self.opened(now, blob, bits, media_type, out),
            Input::OpenFailed { digest, failure } => self.fail(digest, failure, out),
            Input::Dropped { digest } => self.dropped(digest, out),
            Input::Connected { node } => self.connected(now, node, out),
            Input::Disconnected { node } => self.disconnected(now, node, out),
            Input::Message { from, message } => self.message(now, from, message, out),
            Input::Started { id } => self.started(now, id),
            Input::Fetched { id, outcome } => self.fetched(now, id, outcome, out),
            Input::Serve {
                id,
                from,
                digest,
                piece,
            } => self.serve(id, from, digest, piece, out),
            Input::Served { id } => self.uploads.ended(id, out),
            Input::OriginOpened {
                blob,
                media_type,
                access,
                sequential,
            } => {
                self.origin_opened(now, blob, media_type, (access, sequential), out);
            }
            Input::Settled { digest, piece } => {
                if let Some(origin) = self.blobs.get_mut(&digest).and_then(|state| state.origin.as_mut()) {
                    origin.settled(piece);
                }
                self.gained(now, digest, piece, Gain::Registry, out);
            }
            Input::ReadFailed {
                digest,
                failure,
                unproven,
            } => self.read_failed(digest, failure, unproven, out),
            Input::ChainBroken { digest, bits, vouchers } => self.chain_broken(now, digest, bits, &vouchers, out),
            Input::Forged { digest, signer } => self.forged(digest, signer, out),
            Input::SchedulerUp { scheduler } => self.scheduler_up(now, scheduler, out),
            Input::SchedulerSettled { scheduler } => self.scheduler_settled(now, &scheduler, out),
            Input::Expelled { by, nodes } => self.expelled(by, nodes, out),
            Input::SchedulerDown { scheduler } => self.scheduler_down(now, &scheduler, out),
            Input::Registered {
                scheduler,
                report_every,
            } => self.registered(now, scheduler, report_every, out),
            Input::Reported { scheduler, known } => self.reported(now, scheduler, known, out),
            Input::Told {
                scheduler,
                digest,
                swarm,
            } => {
                let swarm = self.heed(scheduler, &digest, swarm);
                self.told(now, digest, swarm, out);
            }
            Input::Holders { digest, holders } => self.holders(now, digest, holders, out),
            Input::Tick => {}
        }
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Duration> {
        let sweep = self.has_work().then_some(self.next_sweep);
        [self.news.next(), self.spreading.next(), sweep, self.reporter.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether this blob is held whole.
    pub fn is_complete(&self, digest: &Digest) -> bool {
        self.blobs.get(digest).is_some_and(BlobState::is_complete)
    }

    /// How many neighbours take part in a blob's swarm with this node, and how many of them hold all of it.
    pub fn mates(&self, digest: &Digest) -> (usize, usize) {
        let Some(state) = self.blobs.get(digest) else {
            return (0, 0);
        };
        let whole = state
            .mates
            .values()
            .filter(|mate| mate.field.as_ref().is_some_and(Bitfield::is_full))
            .count();
        (state.mates.len(), whole)
    }

    /// What this node holds of a blob, as reports and lookups tell it.
    pub fn holding(&self, digest: &Digest) -> Option<HoldingNow> {
        self.holding_now(digest)
    }

    /// Whether a scheduler knows this node.
    pub fn is_registered(&self) -> bool {
        self.reporter.is_registered()
    }

    fn has_work(&self) -> bool {
        !self.hungry.is_empty() || !self.requests.is_empty() || !self.links.is_empty()
    }

    /// Restores what must hold between two inputs: for the blobs that the input touched, and for those that wait for what it
    /// set free.
    fn settle(&mut self, now: Duration, out: &mut Vec<Output>) {
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.sweep(now, out);
        }
        self.sort_blobs(now, out);
        self.fill_requests(now, out);
        self.fill_origins(now, out);
        self.touched.clear();
        while let Some(digest) = self.spreading.take_due(now) {
            self.spread(now, digest);
        }
        self.send_news(now, out);
        self.send_reports(now, out);
    }

    fn sweep(&mut self, now: Duration, out: &mut Vec<Output>) {
        self.expire_requests(now, out);
        self.close_idle(now, out);
        self.note_lonely(now);
        let hungry: Vec<Digest> = self.hungry.iter().map(|(_, digest)| *digest).collect();
        for digest in hungry {
            // Requests have become late, and time has passed.
            self.touch(digest);
            self.connect_more(now, digest, out);
            self.look_alone(now, digest, out);
            self.doubt_if_stuck(now, digest, out);
        }
    }

    /// A piece is proven and stored.
    fn gained(&mut self, now: Duration, digest: Digest, piece: PieceIndex, from: Gain, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let Some(pieces) = state.pieces.as_mut().filter(|_| !state.discarding) else {
            return;
        };
        if !pieces.have.set(piece) {
            return;
        }
        pieces.refused.remove(&piece);
        state.importing.came(now, piece);
        if let Some(wanted) = &mut state.wanted {
            wanted.progress = now;
        }
        if from == Gain::Neighbour || !self.begin_spreading(now, digest, piece) {
            self.announce(digest, piece);
        }
        self.news.note(digest, now);
        self.reporter.changed(digest);
        if self.blobs[&digest].is_complete() {
            self.completed(digest, out);
        }
    }

    fn serve(&mut self, id: ServeId, from: NodeId, digest: Digest, piece: u32, out: &mut Vec<Output>) {
        let pieces = self.blobs.get(&digest).and_then(|state| state.pieces.as_ref());
        let here = pieces.and_then(|pieces| {
            pieces
                .geometry
                .piece(piece)
                .filter(|piece| pieces.have.has(*piece))
                .map(|_| pieces.geometry.count())
        });
        match here {
            Some(count) => self.uploads.ask(id, from, (digest, piece, count), out),
            None => out.push(Output::Refuse {
                id,
                refusal: Refusal::NotHere,
            }),
        }
    }

    /// What a scheduler said about a blob, as far as it is heeded.
    fn told(&mut self, now: Duration, digest: Digest, swarm: Swarm, out: &mut Vec<Output>) {
        if swarm.lease.is_some() && !self.blobs.contains_key(&digest) {
            // A seed is told to read what nobody on it asked for.
            self.blobs.insert(digest, BlobState::new(swarm.size));
        }
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        if !swarm.readers.is_empty() && state.readers != swarm.readers {
            state.readers = swarm.readers;
            out.push(state.trust(digest));
        }
        if let Some(retraction) = swarm.retracted {
            self.retracted(digest, retraction, out);
        }
        if let Some(access) = swarm.access {
            out.push(Output::Accessible {
                digest,
                source: swarm.about.clone(),
                access,
            });
        }
        if let Some(epoch) = swarm.revoked {
            self.revoked(digest, epoch, out);
        }
        if let Some(size) = swarm.size {
            self.learn_size(digest, size, swarm.media_type, out);
        }
        if let Some(lease) = swarm.lease {
            self.leased(now, digest, lease, out);
        }
        if let Some(failure) = swarm.failure {
            self.failed_at(digest, swarm.about.as_ref(), failure, out);
            return;
        }
        if swarm
            .neighbours
            .iter()
            .any(|named| self.is_far(named.locality.zone.as_ref()))
        {
            self.begin_importing(digest, out);
        }
        self.links.learn(&digest, swarm.neighbours, self.me.node);
        self.connect_more(now, digest, out);
    }
}
