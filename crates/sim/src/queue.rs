//! What is still to happen, in the order of time.
//!
//! Events are small and copied; what is large (an input on its way) waits in a [`Slab`] and the event names its slot. Two
//! events at the same moment happen in the order in which they were announced, so a run never depends on the heap's layout.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Nanoseconds since the simulated world began.
pub(crate) type Time = u64;

/// Something that is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// An input reaches a node, if it has not been restarted since.
    Input { node: u32, life: u32, slot: u32 },
    /// A neighbour's message reaches a node, if the connection it came on still exists.
    Message { node: u32, connection: u32, slot: u32 },
    /// A node notices that whoever was at the other end of a connection is dead.
    Notice { node: u32, connection: u32 },
    /// A node asked to be woken.
    Wake { node: u32 },
    /// A flow may have moved its last byte.
    Flow { flow: u32, version: u32 },
    /// A piece request reaches the node that is asked.
    Asked { transfer: TransferId },
    /// The first byte of a piece reaches the node that asked.
    Started { transfer: TransferId },
    /// What became of a piece request reaches the node that asked.
    Answered { transfer: TransferId },
    /// The node that is asked hears that nobody waits any more.
    Reset { transfer: TransferId },
    /// A piece has been verified.
    Verified { transfer: TransferId },
    /// Whoever was serving hears that the transfer is over.
    Served { node: u32, life: u32, transfer: TransferId },
    /// The registry has answered a reader.
    RegistryOpen { node: u32, life: u32, blob: u32 },
    /// A request reaches the scheduler, if it has not been restarted since.
    Scheduler { life: u32, slot: u32 },
    /// The scheduler asked to be woken.
    WakeScheduler,
    /// Somebody on a node begins to want the model.
    Want { node: u32 },
    /// A node dies.
    Kill { node: u32 },
    /// Whoever reads the registry dies for good.
    KillReader,
    /// A node comes back with what its disk holds.
    Revive { node: u32 },
    /// The scheduler goes away.
    SchedulerDown,
    /// An empty scheduler takes its place.
    SchedulerUp,
}

impl Event {
    /// A number that tells this event from others, for the trace.
    pub(crate) fn fingerprint(&self) -> u64 {
        let wide = |kind: u64, a: u32, b: u32| kind << 58 ^ u64::from(a) << 29 ^ u64::from(b);
        match *self {
            Self::Input { node, slot, .. } => wide(1, node, slot),
            Self::Message { node, slot, .. } => wide(2, node, slot),
            Self::Wake { node } => wide(3, node, 0),
            Self::Flow { flow, version } => wide(4, flow, version),
            Self::Asked { transfer } => wide(5, transfer.slot, transfer.generation),
            Self::Started { transfer } => wide(20, transfer.slot, transfer.generation),
            Self::Answered { transfer } => wide(6, transfer.slot, transfer.generation),
            Self::Reset { transfer } => wide(7, transfer.slot, transfer.generation),
            Self::Verified { transfer } => wide(8, transfer.slot, transfer.generation),
            Self::Served { node, transfer, .. } => wide(9, node, transfer.slot),
            Self::RegistryOpen { node, blob, .. } => wide(10, node, blob),
            Self::Scheduler { slot, .. } => wide(11, slot, 0),
            Self::WakeScheduler => wide(12, 0, 0),
            Self::Want { node } => wide(13, node, 0),
            Self::Kill { node } => wide(14, node, 0),
            Self::Revive { node } => wide(15, node, 0),
            Self::KillReader => wide(16, 0, 0),
            Self::SchedulerDown => wide(17, 0, 0),
            Self::SchedulerUp => wide(18, 0, 0),
            Self::Notice { node, connection } => wide(19, node, connection),
        }
    }
}

/// Names a transfer for as long as it lasts; a later one in the same slot has another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransferId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// Reversed: the heap's greatest is the next to happen.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Nanoseconds that one bucket of the queue spans, as a power of two: some hundred events of 10,000 busy nodes.
const SPAN_BITS: u32 = 15;
/// Buckets ahead of the present one: a quarter of a second, in which nearly everything happens that a node announces.
const BUCKETS: u64 = 1 << 13;

/// The events to come: a calendar queue (R. Brown, "Calendar queues", CACM 31, 1988).
///
/// One heap of the millions of events of a large swarm costs a cache miss per level. So only those of the present bucket of
/// time are in order; those of the next quarter of a second lie in their buckets as they came, and the few after that in a
/// heap.
#[derive(Debug)]
pub(crate) struct Queue {
    /// The bucket that is being emptied.
    bucket: u64,
    /// Its events, and any that were announced for an earlier time.
    present: BinaryHeap<Entry>,
    /// The buckets after it, by their number modulo [`BUCKETS`].
    ring: Vec<Vec<Entry>>,
    /// Events in all of the ring.
    in_ring: usize,
    /// What comes after the ring.
    far: BinaryHeap<Entry>,
    announced: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            bucket: 0,
            present: BinaryHeap::new(),
            ring: vec![Vec::new(); BUCKETS as usize],
            in_ring: 0,
            far: BinaryHeap::new(),
            announced: 0,
        }
    }
}

impl Queue {
    pub(crate) fn push(&mut self, at: Time, event: Event) {
        self.announced += 1;
        let entry = Entry {
            at,
            order: self.announced,
            event,
        };
        if bucket_of(at) < self.bucket + BUCKETS {
            self.put(entry);
        } else {
            self.far.push(entry);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, Event)> {
        while self.present.is_empty() {
            self.advance()?;
        }
        self.present.pop().map(|entry| (entry.at, entry.event))
    }

    /// Puts an event into the present or the ring.
    fn put(&mut self, entry: Entry) {
        let bucket = bucket_of(entry.at);
        if bucket <= self.bucket {
            self.present.push(entry);
        } else {
            self.in_ring += 1;
            self.ring[(bucket % BUCKETS) as usize].push(entry);
        }
    }

    /// Goes on to the next bucket, or to the next that has an event if there is none in the ring. `None` if there is none at all.
    fn advance(&mut self) -> Option<()> {
        self.bucket = if self.in_ring > 0 {
            self.bucket + 1
        } else {
            bucket_of(self.far.peek()?.at)
        };
        let events = std::mem::take(&mut self.ring[(self.bucket % BUCKETS) as usize]);
        self.in_ring -= events.len();
        self.present = BinaryHeap::from(events);
        while let Some(entry) = self.far.peek().filter(|far| bucket_of(far.at) < self.bucket + BUCKETS) {
            self.put(*entry);
            self.far.pop();
        }
        Some(())
    }
}

const fn bucket_of(at: Time) -> u64 {
    at >> SPAN_BITS
}

/// Values by small numbers, reused when they are free.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, item: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.items[slot as usize] = Some(item);
            return slot;
        }
        self.items.push(Some(item));
        u32::try_from(self.items.len() - 1).expect("four billion values do not fit into memory")
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<T> {
        let item = self.items.get_mut(slot as usize)?.take();
        if item.is_some() {
            self.free.push(slot);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::RngExt as _;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn the_same_moment_keeps_its_order() {
        let mut queue = Queue::default();
        for (at, node) in [(5, 0), (1, 1), (5, 2), (1, 3)] {
            queue.push(at, Event::Wake { node });
        }
        let order: Vec<(Time, Event)> = std::iter::from_fn(|| queue.pop()).collect();
        let wake = |node| Event::Wake { node };
        assert_eq!(order, [(1, wake(1)), (1, wake(3)), (5, wake(0)), (5, wake(2))]);
    }

    /// Near and far events, and some announced while others happen: those for the past come next.
    #[test]
    fn events_come_in_the_order_of_a_sorted_list() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut queue, mut sorted) = (Queue::default(), BTreeSet::new());
        let mut announced = 0;
        let mut now: Time = 0;
        for _ in 0..20_000 {
            if rng.random_bool(0.55) {
                let at = (now + (1 << rng.random_range(0..32))).saturating_sub(100);
                queue.push(at, Event::Wake { node: announced });
                sorted.insert((at, announced));
                announced += 1;
            } else {
                let next = sorted.pop_first();
                assert_eq!(queue.pop(), next.map(|(at, node)| (at, Event::Wake { node })));
                now = next.map_or(now, |(at, _)| at);
            }
        }
        let rest: Vec<_> = sorted
            .into_iter()
            .map(|(at, node)| (at, Event::Wake { node }))
            .collect();
        assert!(std::iter::from_fn(|| queue.pop()).eq(rest));
    }

    #[test]
    fn events_stay_small() {
        assert!(size_of::<Entry>() <= 40, "{} bytes", size_of::<Entry>());
    }

    #[test]
    fn slots_are_reused() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!((slab.remove(a), slab.remove(a)), (Some('a'), None));
        assert_eq!(slab.insert('c'), a);
        assert_eq!((slab.remove(a), slab.remove(b)), (Some('c'), Some('b')));
    }
}
