//! Pieces on their way from node to node.
//!
//! ```text
//! Asked ──> Waiting ──> Flowing ──> Arriving ──> Verifying        each may be cancelled by whoever asked
//!    └─────────┴────────────────────> Arriving (refused, or lost)
//! ```

use piece::PieceIndex;
use rand::{Rng as _, RngExt as _};
use swarm::node::{FetchId, Input, Outcome, Output, ServeId};
use wire::exchange::Refusal;

use crate::links::Cargo;
use crate::queue::{Event, Time, TransferId};
use crate::world::World;

/// All requests under way.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    slots: Vec<Transfer>,
    free: Vec<u32>,
}

/// One request for one piece.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    generation: u32,
    client: u32,
    client_life: u32,
    server: u32,
    server_life: u32,
    fetch: FetchId,
    blob: u32,
    piece: PieceIndex,
    bytes: u64,
    state: State,
    outcome: Outcome,
    /// Whoever asked has let go of it.
    cancelled: bool,
    /// Whoever is asked knows that.
    is_reset: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Asked,
    Waiting,
    Flowing { flow: u32 },
    Arriving,
    Verifying,
}

impl From<TransferId> for ServeId {
    fn from(id: TransferId) -> Self {
        Self(u64::from(id.generation) << 32 | u64::from(id.slot))
    }
}

impl From<ServeId> for TransferId {
    fn from(id: ServeId) -> Self {
        Self {
            slot: id.0 as u32,
            generation: (id.0 >> 32) as u32,
        }
    }
}

impl Transfers {
    fn insert(&mut self, mut transfer: Transfer) -> TransferId {
        let Some(slot) = self.free.pop() else {
            self.slots.push(transfer);
            return TransferId {
                slot: self.slots.len() as u32 - 1,
                generation: transfer.generation,
            };
        };
        let generation = self.slots[slot as usize].generation + 1;
        transfer.generation = generation;
        self.slots[slot as usize] = transfer;
        TransferId { slot, generation }
    }

    fn get(&self, id: TransferId) -> Option<Transfer> {
        let transfer = self.slots[id.slot as usize];
        (transfer.generation == id.generation && transfer.state != State::Free).then_some(transfer)
    }

    fn change(&mut self, id: TransferId, change: impl FnOnce(&mut Transfer)) {
        change(&mut self.slots[id.slot as usize]);
    }

    fn free(&mut self, id: TransferId) {
        self.slots[id.slot as usize].state = State::Free;
        self.free.push(id.slot);
    }
}

impl World {
    /// A node asks a neighbour for a piece.
    pub(crate) fn fetch(&mut self, client: u32, server: u32, fetch: FetchId, (blob, piece): (u32, PieceIndex)) {
        self.tally.requests += 1;
        let connected = self.hosts[client as usize].connection_to(server).is_some();
        let transfer = self.transfers.insert(Transfer {
            generation: 0,
            client,
            client_life: self.hosts[client as usize].life,
            server,
            server_life: self.hosts[server as usize].life,
            fetch,
            blob,
            piece,
            bytes: self.blobs[blob as usize].geometry().len(piece),
            state: if connected { State::Asked } else { State::Arriving },
            outcome: Outcome::Lost,
            cancelled: false,
            is_reset: false,
        });
        self.hosts[client as usize].fetching.push((fetch, transfer));
        let at = self.now + self.latency(client, server);
        let event = if connected {
            Event::Asked { transfer }
        } else {
            Event::Answered { transfer }
        };
        self.queue.push(at, event);
    }

    /// The request has reached whom it asks.
    pub(crate) fn asked(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(id) else { return };
        let (client, server) = (transfer.client, transfer.server);
        if !self.is_alive(server, transfer.server_life) {
            // Nothing comes back until the client notices that the connection is dead.
            return;
        }
        if self.hosts[server as usize].connection_to(client).is_none() {
            self.answer(id, Outcome::Lost);
            return;
        }
        self.transfers.change(id, |transfer| transfer.state = State::Waiting);
        self.hosts[server as usize].serving.push(id);
        let input = Input::Serve {
            id: id.into(),
            from: self.id(client),
            digest: self.blobs[transfer.blob as usize].digest,
            piece: transfer.piece.get(),
        };
        self.deliver(server, input);
    }

    /// A node begins to serve a request.
    pub(crate) fn serve(&mut self, server: u32, serve: ServeId) {
        let id = TransferId::from(serve);
        let waiting = self
            .transfers
            .get(id)
            .filter(|transfer| transfer.state == State::Waiting);
        let Some(transfer) = waiting.filter(|transfer| !transfer.is_reset) else {
            // Its asker is gone: the upload ends as soon as it begins.
            self.let_go(server, id);
            if waiting.is_some() {
                self.transfers.free(id);
            }
            self.ended(server, id);
            return;
        };
        self.check_serving(server, transfer.blob, transfer.piece);
        let breaks = self.scenario.faults.loss > 0.0 && self.rng.random_bool(self.scenario.faults.loss);
        let liar = self.hosts[server as usize].liar;
        let (outcome, bytes) = match (breaks, liar) {
            (true, _) => (Outcome::Lost, 1 + self.rng.next_u64() % transfer.bytes),
            (false, true) => (Outcome::WrongBytes, transfer.bytes),
            (false, false) => (Outcome::Stored, transfer.bytes),
        };
        let mut hops = [self.hosts[server as usize].up; 4];
        let count = self.route(server, transfer.client, &mut hops);
        let cargo = Cargo::Piece { slot: id.slot };
        let flow = self.links.start(self.now, &hops[..count], bytes, cargo);
        self.transfers.change(id, |transfer| {
            transfer.state = State::Flowing { flow };
            transfer.outcome = outcome;
            transfer.bytes = bytes;
        });
        let at = self.now + self.latency(server, transfer.client);
        self.queue.push(at, Event::Started { transfer: id });
    }

    /// The first byte of a piece has come.
    pub(crate) fn started(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(id) else { return };
        if !transfer.cancelled && self.is_alive(transfer.client, transfer.client_life) {
            self.deliver(transfer.client, Input::Started { id: transfer.fetch });
        }
    }

    /// A node turns a request down.
    pub(crate) fn refuse(&mut self, server: u32, serve: ServeId, refusal: Refusal) {
        let id = TransferId::from(serve);
        self.let_go(server, id);
        if self
            .transfers
            .get(id)
            .is_some_and(|transfer| transfer.state == State::Waiting)
        {
            self.tally.refusals += 1;
            self.answer(id, Outcome::Refused(refusal));
        }
    }

    /// The last byte of a piece has left.
    pub(crate) fn sent(&mut self, slot: u32) {
        let generation = self.transfers.slots[slot as usize].generation;
        let id = TransferId { slot, generation };
        let Some(transfer) = self.transfers.get(id) else { return };
        self.tally
            .moved(&self.hosts, transfer.server, transfer.client, transfer.bytes);
        self.let_go(transfer.server, id);
        self.answer(id, transfer.outcome);
        self.deliver(transfer.server, Input::Served { id: id.into() });
    }

    /// A node lets go of its request.
    pub(crate) fn cancel(&mut self, client: u32, fetch: FetchId, outputs: &mut Vec<Output>) {
        let host = &mut self.hosts[client as usize];
        let Some(place) = host.fetching.iter().position(|(id, _)| *id == fetch) else {
            return;
        };
        let (_, id) = host.fetching.swap_remove(place);
        let input = Input::Fetched {
            id: fetch,
            outcome: Outcome::Cancelled,
        };
        let now = std::time::Duration::from_nanos(self.now - host.born);
        host.machine.handle(now, input, outputs);
        let Some(transfer) = self.transfers.get(id) else { return };
        self.tally.cancelled += 1;
        self.transfers.change(id, |transfer| transfer.cancelled = true);
        if !self.is_alive(transfer.server, transfer.server_life) {
            // No answer and no reset will ever come of it.
            self.abandon(id);
            return;
        }
        let at = self.now + self.latency(client, transfer.server);
        self.queue.push(at, Event::Reset { transfer: id });
    }

    /// Whoever is asked hears that nobody waits any more.
    pub(crate) fn reset(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(id) else { return };
        match transfer.state {
            // Nothing is noticed before its turn comes.
            State::Waiting => self.transfers.change(id, |transfer| transfer.is_reset = true),
            State::Flowing { .. } => {
                self.abandon(id);
                self.let_go(transfer.server, id);
                self.deliver(transfer.server, Input::Served { id: id.into() });
            }
            // The request overtook nothing, and what arrives is thrown away on arrival.
            State::Free | State::Asked | State::Arriving | State::Verifying => {}
        }
    }

    /// What became of a request reaches whoever asked.
    pub(crate) fn answered(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(id) else { return };
        if transfer.cancelled || !self.is_alive(transfer.client, transfer.client_life) {
            if transfer.outcome == Outcome::Stored {
                self.tally.wasted += transfer.bytes;
            }
            self.transfers.free(id);
            return;
        }
        match transfer.outcome {
            Outcome::Stored | Outcome::WrongBytes => {
                let host = &mut self.hosts[transfer.client as usize];
                host.verified = host.verified.max(self.now) + (transfer.bytes as f64 * host.verify) as Time;
                let at = host.verified;
                self.transfers.change(id, |transfer| transfer.state = State::Verifying);
                self.queue.push(at, Event::Verified { transfer: id });
            }
            Outcome::Unvouched | Outcome::Refused(_) | Outcome::Lost | Outcome::StoreFailed | Outcome::Cancelled => {
                self.finish(id, transfer);
            }
        }
    }

    /// A piece has been verified.
    pub(crate) fn verified(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(id) else { return };
        if transfer.cancelled || !self.is_alive(transfer.client, transfer.client_life) {
            self.tally.wasted += transfer.bytes;
            self.transfers.free(id);
            return;
        }
        if transfer.outcome == Outcome::Stored {
            self.check_stored(transfer.server, transfer.blob, transfer.piece);
            if self.hosts[transfer.client as usize].held[transfer.blob as usize].has(transfer.piece) {
                self.tally.wasted += transfer.bytes;
            } else {
                self.gain(transfer.client, transfer.blob, transfer.piece);
            }
        } else {
            self.tally.wasted += transfer.bytes;
        }
        self.finish(id, transfer);
    }

    /// Ends what a dead node asked and was asked for.
    pub(crate) fn lose_transfers(&mut self, node: u32) {
        for id in std::mem::take(&mut self.hosts[node as usize].serving) {
            // The clients hear nothing until they notice; then they cancel.
            if let Some(transfer) = self.transfers.get(id) {
                self.stop_flow(transfer);
                self.transfers.change(id, |transfer| transfer.state = State::Asked);
                if transfer.cancelled || !self.is_alive(transfer.client, transfer.client_life) {
                    self.transfers.free(id);
                }
            }
        }
        for (_, id) in std::mem::take(&mut self.hosts[node as usize].fetching) {
            let Some(transfer) = self.transfers.get(id) else {
                continue;
            };
            self.transfers.change(id, |transfer| transfer.cancelled = true);
            if !self.is_alive(transfer.server, transfer.server_life) {
                self.abandon(id);
                continue;
            }
            // Whoever serves it keeps its slot until it notices.
            self.stop_flow(transfer);
            let at = self.now + crate::world::seconds(self.scenario.network.notice_s);
            match transfer.state {
                State::Flowing { .. } => {
                    self.transfers.free(id);
                    self.let_go(transfer.server, id);
                    let (node, life) = (transfer.server, transfer.server_life);
                    self.queue.push(
                        at,
                        Event::Served {
                            node,
                            life,
                            transfer: id,
                        },
                    );
                }
                State::Asked | State::Waiting => self.transfers.change(id, |transfer| transfer.is_reset = true),
                State::Free | State::Arriving | State::Verifying => {}
            }
        }
    }

    /// Has the outcome of a request reach whoever asked.
    fn answer(&mut self, id: TransferId, outcome: Outcome) {
        let Some(transfer) = self.transfers.get(id) else { return };
        self.transfers.change(id, |transfer| {
            transfer.state = State::Arriving;
            transfer.outcome = outcome;
        });
        let at = self.now + self.latency(transfer.server, transfer.client);
        self.queue.push(at, Event::Answered { transfer: id });
    }

    fn finish(&mut self, id: TransferId, transfer: Transfer) {
        self.transfers.free(id);
        let fetching = &mut self.hosts[transfer.client as usize].fetching;
        if let Some(place) = fetching.iter().position(|(_, other)| *other == id) {
            fetching.swap_remove(place);
        }
        let input = Input::Fetched {
            id: transfer.fetch,
            outcome: transfer.outcome,
        };
        self.deliver(transfer.client, input);
    }

    /// Throws a transfer away, with what it has moved.
    fn abandon(&mut self, id: TransferId) {
        if let Some(transfer) = self.transfers.get(id) {
            self.stop_flow(transfer);
            self.transfers.free(id);
        }
    }

    fn stop_flow(&mut self, transfer: Transfer) {
        if let State::Flowing { flow } = transfer.state {
            let moved = transfer.bytes - self.links.end(self.now, flow).min(transfer.bytes);
            self.tally.wasted += moved;
            self.tally.moved(&self.hosts, transfer.server, transfer.client, moved);
        }
    }

    /// The machine hears, in an event of its own, that an upload is over.
    fn ended(&mut self, server: u32, transfer: TransferId) {
        let (node, life) = (server, self.hosts[server as usize].life);
        self.queue.push(self.now, Event::Served { node, life, transfer });
    }

    fn let_go(&mut self, server: u32, id: TransferId) {
        let serving = &mut self.hosts[server as usize].serving;
        if let Some(place) = serving.iter().position(|other| *other == id) {
            serving.swap_remove(place);
        }
    }
}
