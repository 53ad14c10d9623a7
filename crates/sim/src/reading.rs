//! Reading the registry: one flow per reader and blob, piece after piece.
//!
//! The runtime reads on several connections in stripes that follow their rate, so that the first pieces come first; seen
//! from outside that is one flow in order, which is what is modelled. A piece settles when its last byte has come and has
//! been hashed; bytes count as read as soon as they have moved.

use std::collections::VecDeque;

use piece::{Blob, PieceIndex};
use swarm::node::Input;
use wire::control::Access;

use crate::links::Cargo;
use crate::queue::Event;
use crate::world::{World, seconds};

/// One reading of one blob.
#[derive(Debug)]
pub(crate) struct Reader {
    blob: u32,
    open: bool,
    wanted: VecDeque<PieceIndex>,
    flow: Option<(u32, PieceIndex)>,
}

impl World {
    pub(crate) fn open_origin(&mut self, node: u32, blob: u32) {
        self.close_origin(node, blob);
        self.tally.registry_requests += 1;
        let host = &mut self.hosts[node as usize];
        host.readers.push(Reader {
            blob,
            open: false,
            wanted: VecDeque::new(),
            flow: None,
        });
        let life = host.life;
        let at = self.now + seconds(self.scenario.registry.rtt_ms / 1000.0);
        self.queue.push(at, Event::RegistryOpen { node, life, blob });
    }

    pub(crate) fn registry_open(&mut self, node: u32, blob: u32) {
        let Some(reader) = self.reader(node, blob).filter(|reader| !reader.open) else {
            return;
        };
        reader.open = true;
        let input = Input::OriginOpened {
            blob: self.blobs[blob as usize],
            media_type: None,
            access: Access::Public,
            sequential: false,
        };
        self.deliver(node, input);
    }

    pub(crate) fn read_origin(&mut self, node: u32, blob: u32, first: PieceIndex, count: u32) {
        let geometry = self.blobs[blob as usize].geometry();
        let Some(reader) = self.reader(node, blob) else { return };
        let numbers = first.get()..first.get() + count;
        reader
            .wanted
            .extend(numbers.filter_map(|number| geometry.piece(number)));
        self.read_on(node, blob);
    }

    pub(crate) fn close_origin(&mut self, node: u32, blob: u32) {
        let readers = &mut self.hosts[node as usize].readers;
        let Some(place) = readers.iter().position(|reader| reader.blob == blob) else {
            return;
        };
        let reader = readers.swap_remove(place);
        if let Some((flow, piece)) = reader.flow {
            let bytes = self.blobs[blob as usize].geometry().len(piece);
            self.tally.registry_bytes += bytes - self.links.end(self.now, flow).min(bytes);
        }
    }

    /// A piece has come from the registry.
    pub(crate) fn read(&mut self, node: u32, blob: u32) {
        let Some((_, piece)) = self.reader(node, blob).and_then(|reader| reader.flow.take()) else {
            return;
        };
        let Blob { digest, .. } = self.blobs[blob as usize];
        self.tally.registry_bytes += self.blobs[blob as usize].geometry().len(piece);
        if !self.hosts[node as usize].held[blob as usize].has(piece) {
            self.gain(node, blob, piece);
        }
        self.read_on(node, blob);
        self.deliver(node, Input::Settled { digest, piece });
    }

    pub(crate) fn close_all_origins(&mut self, node: u32) {
        while let Some(blob) = self.hosts[node as usize].readers.first().map(|reader| reader.blob) {
            self.close_origin(node, blob);
        }
    }

    /// Begins with the next piece, if one is wanted and none is under way.
    fn read_on(&mut self, node: u32, blob: u32) {
        let Some(reader) = self.reader(node, blob).filter(|reader| reader.flow.is_none()) else {
            return;
        };
        let Some(piece) = reader.wanted.pop_front() else { return };
        let bytes = self.blobs[blob as usize].geometry().len(piece);
        let mut hops = [self.registry; 4];
        let count = self.route_from_registry(node, &mut hops);
        let cargo = Cargo::Registry { node, blob };
        let flow = self.links.start(self.now, &hops[..count], bytes, cargo);
        if let Some(reader) = self.reader(node, blob) {
            reader.flow = Some((flow, piece));
        }
    }

    fn reader(&mut self, node: u32, blob: u32) -> Option<&mut Reader> {
        let mut readers = self.hosts[node as usize].readers.iter_mut();
        readers.find(|reader| reader.blob == blob)
    }
}
