//! The one task that writes: what waits goes out together, in one pipeline on one connection, in order.
//!
//! Redis carries out what one connection sends in the order in which it was sent, and the next pipeline goes out only when
//! the one before is answered. So sinks are told of deliveries in the order in which they are committed; and many steps
//! share a round trip, and with `appendfsync always` an fsync.
//!
//! When an answer is lost, the same pipeline is sent again, until it is answered: every step can be asked twice and counts
//! once. Nothing overtakes it meanwhile, so that sinks miss nothing. Its callers wait as long as they want to.

use super::{
    counts::Counts,
    fault::{Fault, is_passing},
    script::{Call, load_all},
};
use ::redis::{
    AsyncConnectionConfig, Client, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tract_actors::ports::{Delivery, Endpoint, OutboxSink, StoreError};

/// Steps in one pipeline: enough to share the round trip and the fsync, few enough to keep the first one's wait short.
const BATCH: usize = 256;

/// Steps that may wait; above the edge's bound on requests in flight.
const QUEUE: usize = 8192;

/// How long a caller waits for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a pipeline may take before it is sent again on another connection.
pub(super) const RESPONSE_WITHIN: Duration = Duration::from_secs(4);

/// How long connecting may take.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// How long to wait between attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// How a connection is made.
pub(super) fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(Some(RESPONSE_WITHIN))
}

/// What sinks are told of a step.
#[derive(Default)]
pub(super) struct Told {
    /// These were committed by it, in order, in partitions that this node acts for.
    pub(super) committed: Vec<Delivery>,
    /// It committed something in these partitions for these endpoints, and which is not known.
    pub(super) missed: Vec<(u16, Vec<Endpoint>)>,
}

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
    /// Whether nothing else may be sent with it.
    const ALONE: bool = false;
    /// What is to be done first. Asked once.
    fn calls(&mut self) -> Result<Vec<Call>, Fault>;
    /// Takes the replies, one for each call, none of them an error.
    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<Self::Outcome>, Fault>;
}

/// A step with its caller, whatever its outcome is.
trait Work: Send {
    /// What is to be done first; nothing if it has failed already.
    fn calls(&mut self) -> Vec<Call>;
    /// Takes the replies; what sinks are told, or what is to be done next.
    fn answered(&mut self, replies: Vec<Value>) -> Result<Told, Vec<Call>>;
    fn is_alone(&self) -> bool;
    fn is_wanted(&self) -> bool;
    fn fail(&mut self, error: StoreError);
    fn answer(self: Box<Self>);
}

struct Asked<S: Step> {
    step: S,
    has_failed: bool,
    outcome: Result<S::Outcome, StoreError>,
    caller: oneshot::Sender<Result<S::Outcome, StoreError>>,
}

impl<S: Step> Work for Asked<S> {
    fn calls(&mut self) -> Vec<Call> {
        self.step.calls().unwrap_or_else(|fault| {
            self.outcome = Err(fault.told());
            self.has_failed = true;
            Vec::new()
        })
    }
    fn answered(&mut self, replies: Vec<Value>) -> Result<Told, Vec<Call>> {
        if self.has_failed {
            return Ok(Told::default());
        }
        let refused = replies.iter().find_map(|reply| match reply {
            Value::ServerError(error) => Some(super::fault::refused(error)),
            _ => None,
        });
        if let Some(error) = refused {
            self.outcome = Err(error);
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
    fn is_alone(&self) -> bool {
        S::ALONE
    }
    fn is_wanted(&self) -> bool {
        !self.caller.is_closed()
    }
    fn fail(&mut self, error: StoreError) {
        self.outcome = Err(error);
    }
    fn answer(self: Box<Self>) {
        // A caller that no longer waits has its answer in the store.
        let _ = self.caller.send(self.outcome);
    }
}

enum Message {
    Do(Box<dyn Work>),
    Close(oneshot::Sender<()>),
}

/// Everyone who is told of deliveries.
#[derive(Default)]
pub(super) struct Sinks {
    all: Mutex<Vec<Arc<dyn OutboxSink>>>,
    /// How many deliveries they were told of.
    pub(super) counts: Counts,
}

impl Sinks {
    pub(super) fn add(&self, sink: Arc<dyn OutboxSink>) {
        lock(&self.all).push(sink);
    }
    /// Tells each of them something.
    pub(super) fn each(&self, tell: impl Fn(&dyn OutboxSink)) {
        let sinks = lock(&self.all).clone();
        sinks.iter().for_each(|sink| tell(&**sink));
    }
    fn tell(&self, told: Told) {
        for delivery in &told.committed {
            self.counts.add(delivery.strand, 1);
        }
        for (strand, endpoints) in told.missed {
            self.each(|sink| sink.missed(strand, endpoints.clone()));
        }
        if told.committed.is_empty() {
            return;
        }
        let sinks = lock(&self.all).clone();
        if let Some((last, others)) = sinks.split_last() {
            others.iter().for_each(|sink| sink.enqueued(told.committed.clone()));
            last.enqueued(told.committed);
        }
    }
}

/// What the handle, its task and the keeper of the leases see.
#[derive(Default)]
pub(super) struct Standing {
    /// There is no connection.
    down: AtomicBool,
    /// What was there is not there any more.
    emptied: AtomicBool,
    /// The store is being closed: what cannot be sent now is given up.
    closing: AtomicBool,
}

impl Standing {
    /// Why nothing can be written, if so.
    fn hindrance(&self) -> Option<&'static str> {
        if self.is_emptied() {
            return Some("the store was emptied under way; this router must be started again");
        }
        self.down.load(Ordering::Relaxed).then_some("there is no connection to Redis")
    }
    pub(super) fn is_emptied(&self) -> bool {
        self.emptied.load(Ordering::Relaxed)
    }
    /// The store is not what it was when it was opened: nothing is to be written to it.
    pub(super) fn be_emptied(&self) {
        if !self.emptied.swap(true, Ordering::Relaxed) {
            tracing::error!("the store was emptied, or is another one now: nothing is written here any more");
        }
    }
}

/// The handle to the writer. When it is dropped, the task does what waits, and ends.
pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Message>>>,
    standing: Arc<Standing>,
}

impl Writer {
    /// Starts the task.
    pub(super) fn start(
        client: Client,
        connection: MultiplexedConnection,
        sinks: Arc<Sinks>,
        standing: Arc<Standing>,
    ) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let task = Task { client, connection: Some(connection), sinks, standing: Arc::clone(&standing) };
        tokio::spawn(task.run(messages));
        Self { queue: Mutex::new(Some(queue)), standing }
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        lock(&self.queue).is_none()
    }

    /// Has a step carried out and answers once Redis did.
    pub(super) async fn ask<S: Step>(&self, step: S) -> Result<S::Outcome, StoreError> {
        let started = Instant::now();
        let (caller, answer) = oneshot::channel();
        let queue = lock(&self.queue).clone().ok_or(Fault::Closed)?;
        if let Some(why) = self.standing.hindrance() {
            return Err(StoreError::Unavailable(why.into()));
        }
        let work =
            Message::Do(Box::new(Asked { step, has_failed: false, outcome: Err(StoreError::OutcomeUnknown), caller }));
        queue.try_send(work).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => StoreError::Unavailable("too many writes are waiting".into()),
            mpsc::error::TrySendError::Closed(_) => Fault::Closed.told(),
        })?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
        metrics::histogram!("tract_store_commit_seconds").record(started.elapsed());
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(StoreError::OutcomeUnknown),
        }
    }

    /// Carries out what waits, and ends.
    pub(super) async fn close(&self) {
        self.standing.closing.store(true, Ordering::Relaxed);
        let queue = lock(&self.queue).take();
        let Some(queue) = queue else { return };
        let (done, ended) = oneshot::channel();
        if queue.send(Message::Close(done)).await.is_ok() {
            let _ = ended.await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.standing.closing.store(true, Ordering::Relaxed);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Task {
    client: Client,
    connection: Option<MultiplexedConnection>,
    sinks: Arc<Sinks>,
    standing: Arc<Standing>,
}

/// What came of sending.
enum Sent {
    Answered(Vec<Value>),
    GivenUp { perhaps_done: bool },
}

impl Task {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut held = None;
        loop {
            let first = match held.take() {
                Some(message) => message,
                None => match messages.recv().await {
                    Some(message) => message,
                    None => return,
                },
            };
            let (mut steps, mut next): (Vec<Box<dyn Work>>, _) = (Vec::new(), Some(first));
            while let Some(message) = next.take() {
                match message {
                    Message::Do(work) if !steps.is_empty() && work.is_alone() => {
                        held = Some(Message::Do(work));
                        break;
                    }
                    Message::Do(work) => {
                        let alone = work.is_alone();
                        steps.push(work);
                        if alone || steps.len() >= BATCH {
                            break;
                        }
                    }
                    Message::Close(done) => {
                        messages.close();
                        self.carry_out(std::mem::take(&mut steps)).await;
                        while let Some(Message::Do(work)) = messages.recv().await {
                            self.carry_out(vec![work]).await;
                        }
                        let _ = done.send(());
                        return;
                    }
                }
                next = messages.try_recv().ok();
            }
            self.carry_out(steps).await;
        }
    }

    /// Sends these steps together and answers each.
    async fn carry_out(&mut self, steps: Vec<Box<dyn Work>>) {
        if steps.is_empty() {
            return;
        }
        metrics::histogram!("tract_store_batch_steps").record(steps.len() as f64);
        let mut going: Vec<(Box<dyn Work>, Vec<Call>)> = steps
            .into_iter()
            .map(|mut work| {
                let calls = work.calls();
                (work, calls)
            })
            .collect();
        while !going.is_empty() {
            let replies = match self.send(&mut going).await {
                Sent::Answered(replies) => replies,
                Sent::GivenUp { perhaps_done } => {
                    for (mut work, _) in going {
                        let why = self.standing.hindrance().unwrap_or("the store is closed");
                        let undone = StoreError::Unavailable(why.into());
                        work.fail(if perhaps_done { StoreError::OutcomeUnknown } else { undone });
                        work.answer();
                    }
                    return;
                }
            };
            let mut replies = replies.into_iter();
            let (mut told, mut done, mut next) = (Told::default(), Vec::new(), Vec::new());
            for (mut work, calls) in going {
                match work.answered(replies.by_ref().take(calls.len()).collect()) {
                    Ok(of_step) => {
                        told.committed.extend(of_step.committed);
                        told.missed.extend(of_step.missed);
                        done.push(work);
                    }
                    Err(calls) => next.push((work, calls)),
                }
            }
            // Who has been answered finds its deliveries told.
            self.sinks.tell(told);
            done.into_iter().for_each(|work| work.answer());
            going = next;
        }
    }

    /// Sends the calls of these steps until Redis has answered all. Steps that nobody waits for any more are left out, as
    /// long as they have not been sent.
    async fn send(&mut self, going: &mut Vec<(Box<dyn Work>, Vec<Call>)>) -> Sent {
        let mut sent = false;
        loop {
            if self.standing.is_emptied()
                || (self.standing.closing.load(Ordering::Relaxed) && self.connection.is_none())
            {
                return Sent::GivenUp { perhaps_done: sent };
            }
            if !self.connect().await {
                if !sent {
                    going.retain(|(work, _)| work.is_wanted());
                }
                if going.is_empty() {
                    return Sent::Answered(Vec::new());
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let Some(connection) = &mut self.connection else { continue };
            let mut pipeline = redis::pipe();
            let calls = going.iter().flat_map(|(_, calls)| calls);
            let count = calls.map(|call| call.add_to(&mut pipeline)).count();
            if count == 0 {
                return Sent::Answered(Vec::new());
            }
            sent = true;
            match connection.req_packed_commands(&pipeline, 0, count).await {
                Ok(replies) if replies.iter().any(is_passing) => {
                    self.lose(&"the server is loading, or has lost the scripts");
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(replies) => return Sent::Answered(replies),
                Err(error) => self.lose(&error),
            }
        }
    }

    /// One line when the connection is lost, and one when it is there again.
    fn lose(&mut self, why: &dyn std::fmt::Display) {
        if !self.standing.down.swap(true, Ordering::Relaxed) {
            tracing::error!(%why, "the connection to Redis is lost");
        }
        self.connection = None;
    }

    /// Whether there is a connection, made now if need be, and the scripts are known behind it.
    async fn connect(&mut self) -> bool {
        if self.connection.is_some() {
            return true;
        }
        let made = self.client.get_multiplexed_async_connection_with_config(&connection_config()).await;
        let Ok(mut connection) = made else { return false };
        if load_all().query_async::<()>(&mut connection).await.is_err() {
            return false;
        }
        self.connection = Some(connection);
        if self.standing.down.swap(false, Ordering::Relaxed) {
            tracing::info!("the connection to Redis is there again");
        }
        true
    }
}
