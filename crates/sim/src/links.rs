//! How fast bytes move: every link is shared among the flows that cross it.
//!
//! The sharing approximates max-min fairness with work in proportion to the flows of the links that a change touches:
//! - a flow that starts gets, on each of its links, what max-min fairness gives it there when all others want no more than
//!   they have; the least of these is its rate. Links that are then over their rate cut their fastest flows to a common level;
//! - what a link has to spare after an end or a cut goes to its slowest flows first, as far as their other links have room.
//!
//! So no link ever carries more than its rate, none is idle while a flow on it could use it (but for changes two links away,
//! which the next event there makes good), and flows that share a bottleneck converge to equal rates.
//!
//! A flow's event is moved only when it ends earlier than announced; one that comes too early is announced again.

use crate::queue::Time;

/// Links that one flow crosses at most: an uplink, out of a zone, into a zone, a downlink.
pub(crate) const MAX_HOPS: usize = 4;
/// A raise below this share of a flow's rate is left for the next event, so that the queue is not filled with trifles.
const TRIFLE: f64 = 1.0 / 256.0;
/// Bytes below which a flow counts as done: rounding of one nanosecond at 1 Tbit/s is 125.
const DUST: f64 = 256.0;

/// Names a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkId(u32);

/// What a flow carries, for whoever started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cargo {
    /// A piece from a node: the transfer's slot.
    Piece { slot: u32 },
    /// A piece from the registry to a reader.
    Registry { node: u32, blob: u32 },
}

/// All links and the flows on them.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: Vec<Link>,
    flows: Vec<Flow>,
    free: Vec<u32>,
    /// Links that may have something to spare.
    spare: Vec<LinkId>,
    /// Flows that end earlier than announced.
    sooner: Vec<u32>,
    scratch: Vec<(f64, u32)>,
}

#[derive(Debug)]
struct Link {
    /// Bytes per nanosecond.
    rate: f64,
    flows: Vec<u32>,
    used: f64,
    is_spare: bool,
}

#[derive(Debug, Clone)]
struct Flow {
    hops: [LinkId; MAX_HOPS],
    /// Where each of its links lists it.
    places: [u32; MAX_HOPS],
    count: u8,
    alive: bool,
    is_sooner: bool,
    cargo: Cargo,
    left: f64,
    rate: f64,
    since: Time,
    due: Time,
    version: u32,
}

/// What a flow's event turns out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The event is out of date.
    Stale,
    /// The flow has become slower: look again then.
    Later { at: Time, version: u32 },
    /// Its last byte has moved.
    Done(Cargo),
}

impl Links {
    /// A link that carries so many bits per second.
    pub(crate) fn add(&mut self, bits_per_second: f64) -> LinkId {
        self.links.push(Link {
            rate: bits_per_second / 8e9,
            flows: Vec::new(),
            used: 0.0,
            is_spare: false,
        });
        LinkId(u32::try_from(self.links.len() - 1).expect("there are fewer links than nodes times four"))
    }

    /// Begins to move `bytes` over `hops`.
    pub(crate) fn start(&mut self, now: Time, hops: &[LinkId], bytes: u64, cargo: Cargo) -> u32 {
        let mut flow = Flow {
            hops: [LinkId(0); MAX_HOPS],
            places: [0; MAX_HOPS],
            count: hops.len() as u8,
            alive: true,
            is_sooner: false,
            cargo,
            left: bytes as f64,
            rate: 0.0,
            since: now,
            due: Time::MAX,
            version: 0,
        };
        flow.hops[..hops.len()].copy_from_slice(hops);
        let id = self.free.pop().unwrap_or_else(|| {
            self.flows.push(flow.clone());
            self.flows.len() as u32 - 1
        });
        // An event for the flow that was here before must not be taken for one of this flow.
        flow.version = self.flows[id as usize].version + 1;
        for (place, hop) in hops.iter().enumerate() {
            let link = &mut self.links[hop.0 as usize];
            flow.places[place] = link.flows.len() as u32;
            link.flows.push(id);
        }
        self.flows[id as usize] = flow;
        let share = hops.iter().map(|hop| self.share(*hop, id)).fold(f64::MAX, f64::min);
        self.set_rate(now, id, share);
        for hop in hops {
            self.cut(now, *hop, id);
        }
        id
    }

    /// Ends a flow, done or not; returns the bytes that it has not moved.
    pub(crate) fn end(&mut self, now: Time, id: u32) -> u64 {
        self.set_rate(now, id, 0.0);
        let (hops, places, count) = {
            let flow = &mut self.flows[id as usize];
            flow.alive = false;
            flow.version += 1;
            (flow.hops, flow.places, flow.count as usize)
        };
        for (hop, place) in hops.iter().zip(places).take(count) {
            let link = &mut self.links[hop.0 as usize];
            link.flows.swap_remove(place as usize);
            if let Some(moved) = link.flows.get(place as usize).copied() {
                let flow = &mut self.flows[moved as usize];
                let at = flow.hops[..flow.count as usize].iter().position(|other| other == hop);
                flow.places[at.expect("a listed flow crosses the link")] = place;
            }
        }
        self.free.push(id);
        let left = self.flows[id as usize].left;
        if left <= DUST { 0 } else { left as u64 }
    }

    /// What the event that was announced as `(flow, version)` means now.
    pub(crate) fn due(&mut self, now: Time, id: u32, version: u32) -> Due {
        let flow = &mut self.flows[id as usize];
        if !flow.alive || flow.version != version {
            return Due::Stale;
        }
        flow.settle(now);
        if flow.left <= DUST {
            return Due::Done(flow.cargo);
        }
        flow.version += 1;
        flow.due = flow.end(now);
        Due::Later {
            at: flow.due,
            version: flow.version,
        }
    }

    /// Hands out what links have to spare, and announces what ends earlier than was said.
    pub(crate) fn settle(&mut self, now: Time, mut announce: impl FnMut(Time, u32, u32)) {
        while let Some(link) = self.spare.pop() {
            self.links[link.0 as usize].is_spare = false;
            self.raise(now, link);
        }
        while let Some(id) = self.sooner.pop() {
            let flow = &mut self.flows[id as usize];
            flow.is_sooner = false;
            let end = flow.end(now);
            if flow.alive && end < flow.due {
                flow.due = end;
                flow.version += 1;
                announce(flow.due, id, flow.version);
            }
        }
    }

    /// What a flow gets on one link if all others want no more than they have.
    fn share(&self, link: LinkId, id: u32) -> f64 {
        let link = &self.links[link.0 as usize];
        let others = link.flows.iter().filter(|other| **other != id);
        self.level(others, link.rate, 1)
    }

    /// The level `s` at which the flows, each with no more than it has and at most `s`, and `greedy` more with `s` each, fill
    /// `rate`.
    fn level<'a>(&self, flows: impl Iterator<Item = &'a u32> + Clone, rate: f64, greedy: usize) -> f64 {
        let rates = flows.map(|flow| self.flows[*flow as usize].rate);
        let mut level = 0.0;
        loop {
            // Those at or below the level keep what they have; the others share the rest.
            let (mut left, mut sharing) = (rate, greedy);
            for rate in rates.clone() {
                if rate <= level {
                    left -= rate;
                } else {
                    sharing += 1;
                }
            }
            if sharing == 0 {
                return level;
            }
            let next = (left / sharing as f64).max(0.0);
            if next <= level * (1.0 + 1e-12) {
                return next.max(level);
            }
            level = next;
        }
    }

    /// Brings a link back to its rate by cutting its fastest flows to one level, but for `newest`.
    fn cut(&mut self, now: Time, link: LinkId, newest: u32) {
        let state = &self.links[link.0 as usize];
        let rate = state.rate;
        if state.used <= rate * (1.0 + 1e-9) {
            return;
        }
        let left = rate - self.flows[newest as usize].rate;
        let level = self.level(state.flows.iter().filter(|flow| **flow != newest), left, 0);
        let mut place = 0;
        while let Some(id) = self.links[link.0 as usize].flows.get(place).copied() {
            place += 1;
            if id != newest && self.flows[id as usize].rate > level {
                self.set_rate(now, id, level);
            }
        }
    }

    /// Gives what a link has to spare to its slowest flows, as far as their other links have room.
    fn raise(&mut self, now: Time, link: LinkId) {
        let mut able = std::mem::take(&mut self.scratch);
        // What some cannot take is offered to the others once more.
        for _ in 0..2 {
            let spare = self.room(link);
            let state = &self.links[link.0 as usize];
            if state.flows.is_empty() || spare <= state.rate * TRIFLE / state.flows.len() as f64 {
                break;
            }
            able.clear();
            able.extend(state.flows.iter().map(|id| (self.flows[*id as usize].rate, *id)));
            able.retain(|(rate, id)| self.room_for(*id) > rate * TRIFLE);
            able.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let level = fill(&able, spare);
            for (rate, id) in &able {
                let more = (level - rate).min(self.room_for(*id));
                if more > rate * TRIFLE {
                    self.set_rate(now, *id, rate + more);
                }
            }
        }
        self.scratch = able;
    }

    fn room(&self, link: LinkId) -> f64 {
        let link = &self.links[link.0 as usize];
        link.rate - link.used
    }

    /// By how much a flow could be faster without taking from any other.
    fn room_for(&self, id: u32) -> f64 {
        let flow = &self.flows[id as usize];
        let hops = flow.hops[..flow.count as usize].iter();
        hops.map(|hop| self.room(*hop)).fold(f64::MAX, f64::min)
    }

    fn set_rate(&mut self, now: Time, id: u32, rate: f64) {
        let flow = &mut self.flows[id as usize];
        flow.settle(now);
        let change = rate - flow.rate;
        flow.rate = rate;
        if change > 0.0 && !std::mem::replace(&mut flow.is_sooner, true) {
            self.sooner.push(id);
        }
        for hop in &flow.hops[..flow.count as usize] {
            let link = &mut self.links[hop.0 as usize];
            link.used = if link.flows.len() == 1 {
                rate
            } else {
                link.used + change
            };
            if change < 0.0 && !std::mem::replace(&mut link.is_spare, true) {
                self.spare.push(*hop);
            }
        }
    }
}

impl Flow {
    /// Counts what has moved since the rate last changed.
    fn settle(&mut self, now: Time) {
        self.left -= self.rate * (now - self.since) as f64;
        self.since = now;
    }

    fn end(&self, now: Time) -> Time {
        if self.rate <= 0.0 {
            return Time::MAX;
        }
        let nanoseconds = (self.left.max(0.0) / self.rate).ceil();
        if nanoseconds > 1e18 {
            Time::MAX
        } else {
            now + (nanoseconds as Time).max(1)
        }
    }
}

/// The level to which `spare` raises the slowest of `flows`, which are sorted by rate.
fn fill(flows: &[(f64, u32)], spare: f64) -> f64 {
    let mut sum = spare;
    for (index, (rate, _)) in flows.iter().enumerate() {
        sum += rate;
        let level = sum / (index + 1) as f64;
        if flows.get(index + 1).is_none_or(|(next, _)| *next >= level) {
            return level;
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARGO: Cargo = Cargo::Piece { slot: 0 };
    /// One gigabyte per second: a byte per nanosecond.
    const GBYTE: f64 = 8e9;

    /// The moments at which flows end, in order.
    fn run(links: &mut Links, mut events: Vec<(Time, u32, u32)>) -> Vec<(Time, u32)> {
        let (mut ended, mut now) = (Vec::new(), 0);
        loop {
            links.settle(now, |at, flow, version| events.push((at, flow, version)));
            events.sort_unstable_by_key(|event| std::cmp::Reverse(*event));
            let Some((at, flow, version)) = events.pop() else {
                return ended;
            };
            now = at;
            match links.due(now, flow, version) {
                Due::Stale => {}
                Due::Later { at, version } => events.push((at, flow, version)),
                Due::Done(_) => {
                    links.end(now, flow);
                    ended.push((now, flow));
                }
            }
        }
    }

    fn near(ended: &[(Time, u32)], expected: &[(Time, u32)]) {
        let close = |a: Time, b: Time| a.abs_diff(b) <= b / 100;
        let all =
            ended.len() == expected.len() && ended.iter().zip(expected).all(|(a, b)| a.1 == b.1 && close(a.0, b.0));
        assert!(all, "{ended:?} is not {expected:?}");
    }

    #[test]
    fn flows_of_one_link_share_it_and_the_rest_speeds_up() {
        let mut links = Links::default();
        let (up, a, b) = (links.add(GBYTE), links.add(GBYTE), links.add(GBYTE));
        let first = links.start(0, &[up, a], 1_000_000, CARGO);
        let second = links.start(0, &[up, b], 3_000_000, CARGO);
        // Half each until 2 ms; then the second has 2 MB left and the link for itself.
        near(&run(&mut links, Vec::new()), &[(2_000_000, first), (4_000_000, second)]);
    }

    #[test]
    fn what_one_cannot_use_the_other_gets() {
        let mut links = Links::default();
        let (up, slow, fast) = (links.add(GBYTE), links.add(GBYTE / 10.0), links.add(GBYTE));
        let one = links.start(0, &[up, slow], 1_000_000, CARGO);
        let other = links.start(0, &[up, fast], 9_000_000, CARGO);
        let ended = run(&mut links, Vec::new());
        near(&ended[..1], &[(10_000_000, one.min(other))]);
        assert!(ended[1].0 <= 10_100_000, "{ended:?}");
    }

    #[test]
    fn a_flow_that_ends_early_leaves_what_it_did_not_move() {
        let mut links = Links::default();
        let (up, down) = (links.add(GBYTE), links.add(GBYTE));
        let flow = links.start(0, &[up, down], 1_000_000, CARGO);
        assert_eq!(links.end(250_000, flow), 750_000);
        assert_eq!(links.due(1_000_000, flow, 1), Due::Stale);
    }

    proptest::proptest! {
        /// Flows come and go; no link is ever over its rate, and none that a change touches has room that a flow on it could
        /// use. What that flow leaves free elsewhere may wait for the next change there.
        #[test]
        fn links_are_full_and_never_over(
            rates in proptest::collection::vec(1u32..100, 6),
            flows in proptest::collection::vec((0usize..3, 3usize..6, proptest::bool::ANY), 1..60),
        ) {
            let mut links = Links::default();
            let ids: Vec<LinkId> = rates.iter().map(|rate| links.add(f64::from(*rate) * 1e8)).collect();
            let mut alive: Vec<u32> = Vec::new();
            for (step, (from, to, ends)) in flows.into_iter().enumerate() {
                let now = step as Time * 1000;
                let changed = if ends && !alive.is_empty() {
                    let flow = alive.swap_remove(step % alive.len());
                    let hops = links.flows[flow as usize].hops;
                    links.end(now, flow);
                    [hops[0], hops[1]]
                } else {
                    alive.push(links.start(now, &[ids[from], ids[to]], 1 << 40, CARGO));
                    [ids[from], ids[to]]
                };
                links.settle(now, |_, _, _| {});
                for id in &ids {
                    let link = &links.links[id.0 as usize];
                    let sum: f64 = link.flows.iter().map(|flow| links.flows[*flow as usize].rate).sum();
                    proptest::prop_assert!(sum <= link.rate * 1.000_001, "{sum} over {}", link.rate);
                    proptest::prop_assert!((sum - link.used).abs() <= link.rate * 1e-6);
                }
                let touched = |flow: &&u32| links.flows[**flow as usize].hops[..2].iter().any(|hop| changed.contains(hop));
                for flow in alive.iter().filter(touched) {
                    let rate = links.flows[*flow as usize].rate;
                    let least = links.flows[*flow as usize].hops[..2].iter().map(|hop| links.links[hop.0 as usize].rate);
                    let floor = least.fold(f64::MAX, f64::min) / 64.0;
                    proptest::prop_assert!(rate > 0.0 && links.room_for(*flow) <= floor.max(rate / 8.0));
                }
            }
        }
    }
}
