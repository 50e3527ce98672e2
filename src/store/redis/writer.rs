//! Writing: each step is carried out by a *lane*, a task that sends what waits in one pipeline, in order (`lane`).
//!
//! There is a lane for each server that had keys when the store was opened: one, but in a cluster as many as shards. A
//! partition is always in the same lane, so that what is done in it is done, and told, in order, and a shard that is down
//! holds up nobody else's. A step that writes in several lanes, such as one that forgets an endpoint everywhere, has a share
//! in each; it is done when all of them are.
//!
//! Each call finds its server when it is sent, so lanes stay right when keys move to other servers.

use super::{
    fault::Fault,
    lane::Lane,
    script::Call,
    sinks::{Sinks, Standing, lock},
    topology::{Map, Topology},
};
use ::redis::Value;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};
use tract_actors::ports::StoreError;

pub(super) use super::sinks::Told;

/// Steps that may wait; above the edge's bound on requests in flight.
const QUEUE: u32 = 8192;

/// How long a caller waits for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What a step has come to.
pub(super) enum Turn<T> {
    /// It is done.
    Done(T, Told),
    /// This is to be done next.
    More(Vec<Call>),
}

/// One atomic step, or a few that follow each other.
pub(super) trait Step: Send + 'static {
    /// What the caller is told.
    type Outcome: Send + 'static;
    /// What is to be done first. Asked once.
    fn calls(&mut self) -> Result<Vec<Call>, Fault>;
    /// Takes the replies, one for each call, none of them an error.
    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<Self::Outcome>, Fault>;
}

/// A step with its caller, whatever its outcome is.
trait Work: Send {
    /// Takes the replies; what sinks are told, or what is to be done next. A server that refuses it now may have done it
    /// before, if that is possible, or another server.
    fn answered(&mut self, replies: Vec<Value>, perhaps_done: bool) -> Result<Told, Vec<Call>>;
    fn is_wanted(&self) -> bool;
    /// Tells the caller the outcome; this one, if one is given.
    fn answer(&mut self, error: Option<StoreError>);
}

struct Asked<S: Step> {
    step: S,
    outcome: Result<S::Outcome, StoreError>,
    caller: Option<oneshot::Sender<Result<S::Outcome, StoreError>>>,
    _permit: OwnedSemaphorePermit,
}

impl<S: Step> Work for Asked<S> {
    fn answered(&mut self, replies: Vec<Value>, perhaps_done: bool) -> Result<Told, Vec<Call>> {
        let refused = replies.iter().find_map(|reply| match reply {
            Value::ServerError(error) => Some(super::fault::refused(error)),
            _ => None,
        });
        if let Some(error) = refused {
            let unknown = perhaps_done && matches!(error, StoreError::Unavailable(_));
            self.outcome = Err(if unknown { StoreError::OutcomeUnknown } else { error });
            return Ok(Told::default());
        }
        match self.step.answered(replies) {
            Ok(Turn::Done(outcome, told)) => {
                self.outcome = Ok(outcome);
                Ok(told)
            }
            Ok(Turn::More(calls)) => Err(calls),
            Err(fault) => {
                self.outcome = Err(fault.told());
                Ok(Told::default())
            }
        }
    }
    fn is_wanted(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| !caller.is_closed())
    }
    fn answer(&mut self, error: Option<StoreError>) {
        let outcome = std::mem::replace(&mut self.outcome, Err(StoreError::OutcomeUnknown));
        if let Some(caller) = self.caller.take() {
            // A caller that no longer waits has its answer in the store.
            let _ = caller.send(error.map_or(outcome, Err));
        }
    }
}

/// A step on its way through its lanes.
struct Joint {
    work: Box<dyn Work>,
    replies: Vec<Value>,
    /// Shares that have not been answered.
    open: usize,
    /// It had more than one share, or more than one turn.
    is_long: bool,
    /// A call of it was sent, and its answer lost.
    perhaps_done: bool,
    lanes: Arc<Lanes>,
}

impl Joint {
    /// Whether something of it may be done, also by what this lane says now.
    fn is_perhaps_done(&mut self, perhaps_done: bool) -> bool {
        self.perhaps_done |= perhaps_done;
        self.perhaps_done || self.is_long
    }
}

/// What one lane has to do of a step.
pub(super) struct Share {
    joint: Arc<Mutex<Joint>>,
    /// Each with its number among the calls of the step.
    pub(super) calls: Vec<(usize, Call)>,
}

/// What a share has come to when it was answered.
pub(super) enum Finished {
    /// Others are not done yet, or there is more to do.
    Not,
    /// The step is done: these are to be told, and then its caller is to be answered.
    Done(Told, Answer),
    /// The same; others may have been told of what was done later.
    Late(Told, Answer),
}

/// A caller to be answered.
pub(super) struct Answer(Arc<Mutex<Joint>>);

impl Answer {
    pub(super) fn give(self) {
        lock(&self.0).work.answer(None);
    }
}

impl Share {
    /// Whether its caller still waits.
    pub(super) fn is_wanted(&self) -> bool {
        lock(&self.joint).work.is_wanted()
    }

    /// It cannot be carried out; nothing was, as far as this lane knows, unless it is said to be possible.
    pub(super) fn give_up(self, why: &'static str, perhaps_done: bool) {
        let mut joint = lock(&self.joint);
        let error = if joint.is_perhaps_done(perhaps_done) {
            StoreError::OutcomeUnknown
        } else {
            StoreError::Unavailable(why.into())
        };
        joint.work.answer(Some(error));
    }

    /// Takes the replies to its calls; whether they were sent before, and the answer lost.
    pub(super) fn answered(self, replies: Vec<Value>, perhaps_done: bool) -> Finished {
        let mut joint = lock(&self.joint);
        let perhaps_done = joint.is_perhaps_done(perhaps_done);
        for ((number, _), reply) in self.calls.iter().zip(replies) {
            if let Some(place) = joint.replies.get_mut(*number) {
                *place = reply;
            }
        }
        joint.open -= 1;
        if joint.open > 0 {
            return Finished::Not;
        }
        let replies = std::mem::take(&mut joint.replies);
        match joint.work.answered(replies, perhaps_done) {
            Ok(told) => {
                let is_long = joint.is_long;
                drop(joint);
                let answer = Answer(self.joint);
                if is_long { Finished::Late(told, answer) } else { Finished::Done(told, answer) }
            }
            Err(calls) => {
                joint.is_long = true;
                let lanes = Arc::clone(&joint.lanes);
                drop(joint);
                lanes.send(&self.joint, calls);
                Finished::Not
            }
        }
    }
}

/// The lanes' queues, and which call goes where.
struct Lanes {
    /// As it was when the store was opened: where a key goes does not change.
    map: Arc<Map>,
    /// Bounded by the permits of the steps.
    queues: Vec<mpsc::UnboundedSender<Share>>,
    down: Vec<Arc<AtomicBool>>,
}

impl Lanes {
    fn lane_of(&self, key: Option<&str>) -> usize {
        let primary = key.and_then(|key| self.map.primary_of(key.as_bytes()));
        primary.and_then(|primary| self.map.primaries().iter().position(|p| p == primary)).unwrap_or(0)
    }

    /// Whether one of these calls would wait for a server that is not there.
    fn is_down(&self, calls: &[Call]) -> bool {
        self.down.iter().any(|down| down.load(Ordering::Relaxed))
            && calls.iter().any(|call| {
                self.down.get(self.lane_of(call.first_key())).is_some_and(|down| down.load(Ordering::Relaxed))
            })
    }

    /// Gives each lane its share of these.
    fn send(&self, joint: &Arc<Mutex<Joint>>, calls: Vec<Call>) {
        let mut shares: Vec<Vec<(usize, Call)>> = self.queues.iter().map(|_| Vec::new()).collect();
        let count = calls.len();
        for (number, call) in calls.into_iter().enumerate() {
            shares[self.lane_of(call.first_key())].push((number, call));
        }
        {
            let mut joint = lock(joint);
            joint.replies = vec![Value::Nil; count];
            joint.open = shares.iter().filter(|calls| !calls.is_empty()).count();
            joint.is_long |= joint.open > 1;
        }
        for (queue, calls) in self.queues.iter().zip(shares) {
            if calls.is_empty() {
                continue;
            }
            let share = Share { joint: Arc::clone(joint), calls };
            if let Err(mpsc::error::SendError(share)) = queue.send(share) {
                share.give_up("the store is closed", false);
            }
        }
    }
}

/// The handle to the lanes. When it is dropped, they do what waits, and end.
pub(super) struct Writer {
    lanes: Mutex<Option<Arc<Lanes>>>,
    permits: Arc<Semaphore>,
    standing: Arc<Standing>,
}

impl Writer {
    /// Starts the lanes.
    pub(super) fn start(topology: &Arc<Topology>, sinks: &Arc<Sinks>, standing: Arc<Standing>) -> Self {
        let map = topology.map();
        let mut lanes = Lanes { map: Arc::clone(&map), queues: Vec::new(), down: Vec::new() };
        for _ in 0..map.primaries().len().max(1) {
            let (queue, shares) = mpsc::unbounded_channel();
            let down = Arc::<AtomicBool>::default();
            let lane = Lane::new(Arc::clone(topology), Arc::clone(sinks), Arc::clone(&standing), Arc::clone(&down));
            tokio::spawn(lane.run(shares));
            lanes.queues.push(queue);
            lanes.down.push(down);
        }
        let permits = Arc::new(Semaphore::new(QUEUE as usize));
        Self { lanes: Mutex::new(Some(Arc::new(lanes))), permits, standing }
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        lock(&self.lanes).is_none()
    }

    /// The lane of this key.
    pub(super) fn lane_of(&self, key: &str) -> Result<usize, Fault> {
        Ok(lock(&self.lanes).as_ref().ok_or(Fault::Closed)?.lane_of(Some(key)))
    }

    /// Has a step carried out and answers once Redis did.
    pub(super) async fn ask<S: Step>(&self, mut step: S) -> Result<S::Outcome, StoreError> {
        let started = Instant::now();
        let lanes = lock(&self.lanes).clone().ok_or(Fault::Closed)?;
        if self.standing.is_emptied() {
            let why = "the store was emptied under way; this router must be started again";
            return Err(StoreError::Unavailable(why.into()));
        }
        let calls = step.calls()?;
        if lanes.is_down(&calls) {
            return Err(StoreError::Unavailable("there is no connection to Redis".into()));
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_| StoreError::Unavailable("too many writes are waiting".into()))?;
        let (caller, answer) = oneshot::channel();
        let work = Asked { step, outcome: Err(StoreError::OutcomeUnknown), caller: Some(caller), _permit: permit };
        let joint = Joint {
            work: Box::new(work),
            replies: Vec::new(),
            open: 0,
            is_long: false,
            perhaps_done: false,
            lanes: Arc::clone(&lanes),
        };
        self.begin(&lanes, joint, calls);
        drop(lanes);
        let answer = timeout(ANSWER_WITHIN, answer).await;
        metrics::histogram!("tract_store_commit_seconds").record(started.elapsed());
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(StoreError::OutcomeUnknown),
        }
    }

    /// Sends the first calls of a step. One that has none is done.
    fn begin(&self, lanes: &Lanes, mut joint: Joint, calls: Vec<Call>) {
        if calls.is_empty() {
            let _ = joint.work.answered(Vec::new(), false);
            joint.work.answer(None);
            return;
        }
        lanes.send(&Arc::new(Mutex::new(joint)), calls);
    }

    /// Has what waits carried out, and ends.
    pub(super) async fn close(&self) {
        let Some(lanes) = lock(&self.lanes).take() else { return };
        self.standing.close();
        drop(lanes);
        // Each step has one until it is done.
        let _ = timeout(ANSWER_WITHIN, self.permits.acquire_many(QUEUE)).await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.standing.close();
    }
}
