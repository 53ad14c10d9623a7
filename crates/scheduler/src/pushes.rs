//! What nodes are told without having asked. About one blob a node is told one thing at a time, in order, for a grant must
//! not overtake its revocation. A node that does not listen is lost to the scheduler until it registers again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::sync::Arc;

use control::{AskError, Control, To};
use piece::{Blob, Digest, NodeId};
use tokio::task::JoinSet;
use wire::control::{Request, Source, Swarm};

/// Things that wait for one node at most: twice what it may want at the same time, all of which it may be told to read when
/// another seed has died. About 500 bytes each.
pub(crate) const MAX_WAITING: usize = 32_768;
/// Things under way to one node at the same time.
const MAX_UNDER_WAY: usize = 16;

/// A node that does not listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost(pub(crate) NodeId);

/// Everything on its way to nodes.
#[derive(Debug)]
pub(crate) struct Pushes {
    control: Control,
    most_waiting: usize,
    /// Nodes to which something is under way.
    nodes: BTreeMap<NodeId, Queue>,
    under_way: JoinSet<(NodeId, Option<Digest>, Result<(), AskError>)>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Push>,
    /// Of which blobs something is under way; none stands for what is about none.
    under_way: BTreeSet<Option<Digest>>,
}

#[derive(Debug)]
enum Push {
    Update(Digest, Box<Swarm>),
    Preheat(Arc<[(Blob, Source)]>),
    Expelled(Arc<[NodeId]>),
}

impl Push {
    const fn about(&self) -> Option<Digest> {
        match self {
            Self::Update(digest, _) => Some(*digest),
            Self::Preheat(_) | Self::Expelled(_) => None,
        }
    }
}

impl Pushes {
    /// Nothing yet. A node for which more than `most_waiting` things wait is lost.
    pub(crate) fn new(control: Control, most_waiting: usize) -> Self {
        Self {
            control,
            most_waiting,
            nodes: BTreeMap::new(),
            under_way: JoinSet::new(),
        }
    }

    /// Tells a node what is new about a blob.
    pub(crate) fn update(&mut self, to: NodeId, digest: Digest, swarm: Swarm) -> Result<(), Lost> {
        self.push(to, Push::Update(digest, Box::new(swarm)))
    }

    /// Has a node fetch blobs.
    pub(crate) fn preheat(&mut self, to: NodeId, blobs: Arc<[(Blob, Source)]>) -> Result<(), Lost> {
        self.push(to, Push::Preheat(blobs))
    }

    /// Tells a node who is expelled.
    pub(crate) fn expelled(&mut self, to: NodeId, nodes: Arc<[NodeId]>) -> Result<(), Lost> {
        self.push(to, Push::Expelled(nodes))
    }

    fn push(&mut self, to: NodeId, push: Push) -> Result<(), Lost> {
        let queue = self.nodes.entry(to).or_default();
        if queue.waiting.len() >= self.most_waiting {
            queue.waiting.clear();
            tracing::warn!(node = ?to, "a node does not take what it is told; it will have to register again");
            return Err(Lost(to));
        }
        queue.waiting.push_back(push);
        self.send_next(to);
        Ok(())
    }

    /// The connection to a node is gone: what waits for it is for somebody who no longer is.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        if let Some(queue) = self.nodes.get_mut(node) {
            queue.waiting.clear();
        }
    }

    /// Waits until something has arrived or failed, and sends what waited behind it. Waits for ever while nothing is under
    /// way. May be cancelled.
    pub(crate) async fn next(&mut self) -> Result<(), Lost> {
        let Some(ended) = self.under_way.join_next().await else {
            return pending().await;
        };
        let (node, about, outcome) = ended.expect("telling a node neither panics nor is cancelled");
        if let Some(queue) = self.nodes.get_mut(&node) {
            queue.under_way.remove(&about);
        }
        let heard = match outcome {
            Ok(()) => Ok(()),
            Err(AskError::Refused(reason)) => {
                tracing::debug!(?node, reason, "a node refused what it was told");
                Ok(())
            }
            Err(error) => {
                tracing::debug!(?node, %error, "a node could not be told");
                self.forget(&node);
                Err(Lost(node))
            }
        };
        self.send_next(node);
        heard
    }

    /// Sends as much of what waits for a node as may be under way.
    fn send_next(&mut self, to: NodeId) {
        let Some(queue) = self.nodes.get_mut(&to) else { return };
        while let Some(push) = queue.waiting.front()
            && queue.under_way.len() < MAX_UNDER_WAY
            && queue.under_way.insert(push.about())
        {
            let Some(push) = queue.waiting.pop_front() else { return };
            let control = self.control.clone();
            self.under_way.spawn(async move {
                let about = push.about();
                let request = match push {
                    Push::Update(digest, swarm) => Request::Update { digest, swarm: *swarm },
                    Push::Preheat(blobs) => Request::Preheat {
                        blobs: blobs.to_vec(),
                        to: None,
                    },
                    Push::Expelled(nodes) => Request::Expelled { nodes: nodes.to_vec() },
                };
                (to, about, control.ask(To::Node(to), request).await.map(drop))
            });
        }
        if queue.under_way.is_empty() {
            self.nodes.remove(&to);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use control::Event;
    use identity::{ClusterKeys, NodeKey};
    use tokio::sync::mpsc;
    use tokio::time::timeout;
    use wire::control::Response;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// A scheduler's control plane, and a node that is connected to it.
    async fn connected() -> (Control, mpsc::Receiver<Event>, NodeId, mpsc::Receiver<Event>, Control) {
        let cluster = Arc::new(ClusterKeys::parse(&ClusterKeys::generate()).unwrap());
        let mut config = control::Config::new("127.0.0.1:0".parse().unwrap());
        let start = |config, key| Control::start(config, key, Arc::clone(&cluster));
        let (scheduler, mut events) = start(config.clone(), Arc::new(NodeKey::generate())).await.unwrap();
        config.schedulers = vec![scheduler.local_addr().to_string()];
        let key = Arc::new(NodeKey::generate());
        let id = key.node_id();
        let (node, node_events) = start(config, key).await.unwrap();
        let up = async { while !matches!(events.recv().await, Some(Event::Connected(..))) {} };
        timeout(DEADLINE, up).await.unwrap();
        (scheduler, events, id, node_events, node)
    }

    fn digest(number: u64) -> Digest {
        Digest::of(&number.to_be_bytes())
    }

    fn numbered(number: u64) -> Swarm {
        Swarm {
            size: Some(number),
            ..Swarm::default()
        }
    }

    #[tokio::test]
    async fn a_node_hears_about_each_blob_in_order() {
        let (scheduler, _events, id, mut node_events, _node) = connected().await;
        let mut pushes = Pushes::new(scheduler, MAX_WAITING);
        for number in 0..300 {
            pushes.update(id, digest(number % 3), numbered(number)).unwrap();
        }
        let mut heard: BTreeMap<Digest, Vec<u64>> = BTreeMap::new();
        let listen = async {
            while heard.values().map(Vec::len).sum::<usize>() < 300 {
                tokio::select! {
                    sent = pushes.next() => sent.unwrap(),
                    Some(event) = node_events.recv() => {
                        if let Event::Request { request: Request::Update { digest, swarm }, reply, .. } = event {
                            heard.entry(digest).or_default().extend(swarm.size);
                            reply.send(Response::Taken);
                        }
                    }
                }
            }
        };
        timeout(DEADLINE, listen).await.unwrap();
        for (number, digest) in (0..3).map(|number| (number, digest(number))) {
            let expected: Vec<u64> = (0..100).map(|turn| turn * 3 + number).collect();
            assert_eq!(heard[&digest], expected);
        }
        let rest = async {
            while !pushes.nodes.is_empty() {
                pushes.next().await.unwrap()
            }
        };
        timeout(DEADLINE, rest).await.unwrap();
    }

    #[tokio::test]
    async fn a_node_that_does_not_listen_is_lost() {
        let (scheduler, _events, id, _node_events, _node) = connected().await;
        let mut pushes = Pushes::new(scheduler, 4);
        for number in 0..MAX_UNDER_WAY as u64 + 4 {
            pushes.update(id, digest(number), numbered(number)).unwrap();
        }
        assert_eq!(pushes.update(id, digest(99), numbered(99)), Err(Lost(id)));
        assert!(pushes.nodes[&id].waiting.is_empty(), "what waited is for nobody");
    }

    #[tokio::test]
    async fn a_node_that_cannot_be_reached_is_lost() {
        let (scheduler, _events, _, _node_events, _node) = connected().await;
        let mut pushes = Pushes::new(scheduler, 4);
        let stranger = NodeKey::generate().node_id();
        pushes.update(stranger, digest(1), numbered(1)).unwrap();
        assert_eq!(timeout(DEADLINE, pushes.next()).await.unwrap(), Err(Lost(stranger)));
        assert!(pushes.nodes.is_empty());
    }
}
