//! The task that owns the machine: takes an event, hands it over, carries out what comes back.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use control::{Control, Event, Reply, To};
use identity::{ExpelledFile, ExpelledFileError};
use piece::{Blob, Digest, NodeId};
use swarm::scheduler::{AskId, ExpelError, Input, Output, RequestId, Scheduler as Machine};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use wire::control::{Request, Response, Role, Source, Upstream, UpstreamAnswer};

use crate::pushes::{Lost, MAX_WAITING, Pushes};
use crate::view::{self, Banned, Nodes, Status, Swarms};

/// Events taken in one turn, so that timers, pushes and operators have theirs under any load.
const BUDGET: usize = 256;
/// How often the gauges are set.
const GAUGES: Duration = Duration::from_secs(1);

/// What an operator asks.
#[derive(Debug)]
pub(crate) enum Question {
    /// How the scheduler is.
    Status(oneshot::Sender<Status>),
    /// A page of nodes.
    Nodes(Option<NodeId>, usize, oneshot::Sender<Nodes>),
    /// A page of swarms.
    Swarms(Option<Digest>, usize, oneshot::Sender<Swarms>),
    /// To have blobs fetched ahead of any client.
    Preheat(Vec<(Blob, Source)>, Role, oneshot::Sender<Response>),
    /// To expel a node for a reason, or, without one, to let it back in.
    Expel(NodeId, Option<String>, oneshot::Sender<Result<bool, ExpelFailure>>),
    /// Who is out.
    Banned(oneshot::Sender<Banned>),
}

/// Why a node was not expelled, or not for good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExpelFailure {
    /// It cannot be.
    #[error(transparent)]
    Refused(#[from] ExpelError),
    /// It is, until this scheduler ends.
    #[error("{0}; it is done, but a restart of the scheduler forgets it")]
    Forgetful(#[from] ExpelledFileError),
}

/// Who waits for an answer.
#[derive(Debug)]
enum Asker {
    Node(Reply),
    Operator(oneshot::Sender<Response>),
}

/// Everything that the task owns.
#[derive(Debug)]
pub(crate) struct Driver {
    machine: Machine,
    me: NodeId,
    control: Control,
    metrics: admin::Metrics,
    started: Instant,
    /// Requests that were not answered yet; the control plane bounds how many nodes' there are.
    askers: BTreeMap<RequestId, Asker>,
    next_request: u64,
    /// Questions under way to seeds; the machine bounds them.
    asks: JoinSet<(AskId, Option<UpstreamAnswer>)>,
    pushes: Pushes,
    /// Where to remember who is expelled.
    expelled: Option<ExpelledFile>,
    out: Vec<Output>,
}

impl Driver {
    pub(crate) fn new(
        machine: Machine,
        me: NodeId,
        control: Control,
        metrics: admin::Metrics,
        expelled: Option<ExpelledFile>,
    ) -> Self {
        Self {
            machine,
            me,
            pushes: Pushes::new(control.clone(), MAX_WAITING),
            control,
            metrics,
            started: Instant::now(),
            askers: BTreeMap::new(),
            next_request: 0,
            asks: JoinSet::new(),
            expelled,
            out: Vec::new(),
        }
    }

    /// Runs until `stop`, or until the control plane has closed.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut questions: mpsc::Receiver<Question>,
        stop: CancellationToken,
    ) {
        let mut gauges = interval(GAUGES);
        gauges.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.machine.deadline().map(|after| self.started + after);
            tokio::select! {
                () = stop.cancelled() => return,
                event = events.recv() => {
                    let Some(event) = event else { return };
                    self.take(event);
                    for _ in 1..BUDGET {
                        let Ok(event) = events.try_recv() else { break };
                        self.take(event);
                    }
                }
                Some(answered) = self.asks.join_next() => {
                    let (id, answer) = answered.expect("a question to a seed neither panics nor is cancelled");
                    self.handle(Input::UpstreamAnswered { id, answer });
                }
                told = self.pushes.next() => {
                    if let Err(Lost(node)) = told {
                        self.handle(Input::Disconnected(node));
                    }
                }
                Some(question) = questions.recv() => self.answer(question),
                _ = gauges.tick() => {
                    let status = self.machine.status(self.started.elapsed());
                    self.metrics.set_scheduler(status.seeds + status.peers, status.swarms);
                }
                () = until(deadline) => self.handle(Input::Tick),
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Request {
                from,
                observed,
                request,
                reply,
            } => {
                self.metrics.scheduler_request(kind(&request));
                // A socket for both families sees IPv4 addresses in IPv6 clothes.
                self.ask(from, observed.ip().to_canonical(), request, Asker::Node(reply));
            }
            Event::Connected(node, _) => self.handle(Input::Connected(node)),
            Event::Disconnected(node) => {
                self.pushes.forget(&node);
                self.handle(Input::Disconnected(node));
            }
            // A scheduler has none.
            Event::SchedulerUp(_) | Event::SchedulerSettled(_) | Event::SchedulerDown(_) => {}
        }
    }

    fn ask(&mut self, from: NodeId, observed: IpAddr, request: Request, asker: Asker) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.askers.insert(id, asker);
        self.handle(Input::Request {
            from,
            observed,
            id,
            request,
        });
    }

    fn handle(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut out = std::mem::take(&mut self.out);
            self.machine.handle(self.started.elapsed(), input, &mut out);
            inputs.extend(self.perform_all(&mut out));
            self.out = out;
        }
    }

    /// Carries out everything; returns what follows from it.
    fn perform_all(&mut self, out: &mut Vec<Output>) -> Vec<Input> {
        let mut lost = Vec::new();
        for output in out.drain(..) {
            if let Err(Lost(node)) = self.perform(output) {
                lost.push(Input::Disconnected(node));
            }
        }
        lost
    }

    /// Expels a node or lets it back in, and remembers it. What cannot be remembered is done all the same, and said.
    fn expel(&mut self, now: Duration, node: NodeId, reason: Option<String>) -> Result<bool, ExpelFailure> {
        let mut out = Vec::new();
        let changed = match reason {
            Some(reason) => self.machine.expel(now, node, reason, &mut out)?,
            None => self.machine.readmit(&node, &mut out),
        };
        let lost = self.perform_all(&mut out);
        lost.into_iter().for_each(|input| self.handle(input));
        // An operator's rare act and a small file: the loop can wait for the disk.
        if let Some(file) = &self.expelled {
            file.save(self.machine.expelled())?;
        }
        Ok(changed)
    }

    /// Carries out what the machine wants. A node that has too much to be told counts as lost.
    fn perform(&mut self, output: Output) -> Result<(), Lost> {
        match output {
            Output::Reply { id, response } => match self.askers.remove(&id) {
                Some(Asker::Node(reply)) => reply.send(response),
                // An operator who has gone needs no answer.
                Some(Asker::Operator(operator)) => drop(operator.send(response)),
                None => debug_assert!(false, "the machine answers each request once"),
            },
            Output::Update { to, digest, swarm } => {
                tracing::debug!(node = ?to, %digest, ?swarm, "telling");
                return self.pushes.update(to, digest, swarm);
            }
            Output::Expelled { to, nodes } => return self.pushes.expelled(to, nodes),
            Output::Preheat { to, blobs } => return self.pushes.preheat(to, blobs),
            Output::AskSeed { id, to, upstream } => {
                let control = self.control.clone();
                self.asks
                    .spawn(async move { (id, ask_seed(&control, to, upstream).await) });
            }
        }
        Ok(())
    }

    fn answer(&mut self, question: Question) {
        let now = self.started.elapsed();
        // Whoever has gone needs no answer.
        match question {
            Question::Status(to) => drop(to.send(view::status(&self.machine, self.me, now))),
            Question::Nodes(after, most, to) => drop(to.send(view::nodes(&self.machine, now, after, most))),
            Question::Swarms(after, most, to) => drop(to.send(view::swarms(&self.machine, after, most))),
            Question::Expel(node, reason, to) => drop(to.send(self.expel(now, node, reason))),
            Question::Banned(to) => drop(to.send(view::banned(&self.machine, now))),
            Question::Preheat(blobs, to, operator) => {
                let request = Request::Preheat { blobs, to: Some(to) };
                self.metrics.scheduler_request(kind(&request));
                let here = IpAddr::from([127, 0, 0, 1]);
                self.ask(self.me, here, request, Asker::Operator(operator));
            }
        }
    }
}

async fn ask_seed(control: &Control, seed: NodeId, upstream: Upstream) -> Option<UpstreamAnswer> {
    match control.ask(To::Node(seed), Request::Upstream { upstream }).await {
        Ok(Response::Upstream { answer }) => Some(answer),
        Ok(other) => {
            tracing::warn!(?seed, ?other, "a node answered something else than it was asked");
            None
        }
        Err(error) => {
            tracing::warn!(?seed, %error, "a node could not be asked about a registry");
            None
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

/// The name of a request in metrics.
const fn kind(request: &Request) -> &'static str {
    match request {
        Request::Register { .. } => "register",
        Request::Join { .. } => "join",
        Request::Report { .. } => "report",
        Request::Upstream { .. } => "upstream",
        Request::Preheat { .. } => "preheat",
        Request::Update { .. }
        | Request::Lookup { .. }
        | Request::Authorised { .. }
        | Request::Lend { .. }
        | Request::Expelled { .. } => "other",
    }
}
