//! The one task that writes: what waits goes out together, in one pipeline on one connection, in order.
//!
//! Redis carries out what one connection sends in the order in which it was sent, and the next pipeline goes out only when
//! the one before is answered. So the ids of deliveries, which this task gives out, increase in the order in which they are
//! committed and in which sinks are told; and many steps share a round trip, and with `appendfsync always` an fsync.
//!
//! When an answer is lost, the same pipeline is sent again, until it is answered: every step can be asked twice and counts
//! once. Nothing overtakes it meanwhile, so that sinks miss nothing. Its callers wait as long as they want to.

use super::{
    fault::{Fault, is_passing},
    script::{Call, Script, load_all},
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
    time::{Instant, MissedTickBehavior, interval},
};
use tract_actors::ports::{Delivery, OutboxSink, StoreError};

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

/// How long the lease lasts when it is not renewed.
pub(super) const LEASE_LASTS: Duration = Duration::from_secs(3);

/// How often it is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How a connection is made.
pub(super) fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(Some(RESPONSE_WITHIN))
}

/// Where ids of deliveries come from. They carry their partition, and increase over all of them.
pub(super) struct Ids {
    pub(super) last: u64,
    pub(super) partitions: u16,
}

impl Ids {
    /// The next id, in this partition.
    pub(super) fn next(&mut self, partition: u16) -> u64 {
        self.last += 1;
        self.last * u64::from(self.partitions) + u64::from(partition)
    }
}

/// What a step has come to.
pub(super) enum Turn<T> {
    /// It is done, and these were committed by it, in order.
    Done(T, Vec<Delivery>),
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
    fn calls(&mut self, ids: &mut Ids) -> Vec<Call>;
    /// Takes the replies, one for each call, none of them an error.
    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<Self::Outcome>, Fault>;
}

/// A step with its caller, whatever its outcome is.
trait Work: Send {
    fn calls(&mut self, ids: &mut Ids) -> Vec<Call>;
    /// Takes the replies; what was committed, or what is to be done next.
    fn answered(&mut self, replies: Vec<Value>) -> Result<Vec<Delivery>, Vec<Call>>;
    fn is_alone(&self) -> bool;
    fn is_wanted(&self) -> bool;
    fn fail(&mut self, error: StoreError);
    fn answer(self: Box<Self>);
}

struct Asked<S: Step> {
    step: S,
    outcome: Result<S::Outcome, StoreError>,
    caller: oneshot::Sender<Result<S::Outcome, StoreError>>,
}

impl<S: Step> Work for Asked<S> {
    fn calls(&mut self, ids: &mut Ids) -> Vec<Call> {
        self.step.calls(ids)
    }
    fn answered(&mut self, replies: Vec<Value>) -> Result<Vec<Delivery>, Vec<Call>> {
        let refused = replies.iter().find_map(|reply| match reply {
            Value::ServerError(error) => Some(super::fault::refused(error)),
            _ => None,
        });
        if let Some(error) = refused {
            self.outcome = Err(error);
            return Ok(Vec::new());
        }
        match self.step.answered(replies) {
            Ok(Turn::Done(outcome, deliveries)) => {
                self.outcome = Ok(outcome);
                Ok(deliveries)
            }
            Ok(Turn::More(calls)) => Err(calls),
            Err(fault) => {
                self.outcome = Err(fault.told());
                Ok(Vec::new())
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

type Sinks = Arc<Mutex<Vec<Arc<dyn OutboxSink>>>>;

/// What the handle and the task both see.
#[derive(Default)]
struct Standing {
    /// There is no connection.
    down: AtomicBool,
    /// Another node has the store now.
    superseded: AtomicBool,
    /// The store is being closed: what cannot be sent now is given up.
    closing: AtomicBool,
}

impl Standing {
    /// Why nothing can be written, if so.
    fn hindrance(&self) -> Option<&'static str> {
        if self.superseded.load(Ordering::Relaxed) {
            return Some("another node has opened this store, or it was emptied; this one must be started again");
        }
        self.down.load(Ordering::Relaxed).then_some("there is no connection to Redis")
    }
    fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Relaxed)
    }
}

/// The handle to the writer. When it is dropped, the task does what waits, gives back the lease, and ends.
pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Message>>>,
    sinks: Sinks,
    standing: Arc<Standing>,
}

impl Writer {
    /// Starts the task. `holder` is who has the lease.
    pub(super) fn start(client: Client, connection: MultiplexedConnection, ids: Ids, holder: String) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let (sinks, standing) = (Sinks::default(), Arc::new(Standing::default()));
        let task = Task {
            client,
            connection: Some(connection),
            ids,
            holder,
            sinks: Arc::clone(&sinks),
            standing: Arc::clone(&standing),
        };
        tokio::spawn(task.run(messages));
        Self { queue: Mutex::new(Some(queue)), sinks, standing }
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
        let work = Message::Do(Box::new(Asked { step, outcome: Err(StoreError::OutcomeUnknown), caller }));
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

    /// Tells this sink of deliveries from the next pipeline on.
    pub(super) fn subscribe(&self, sink: Arc<dyn OutboxSink>) {
        lock(&self.sinks).push(sink);
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Task {
    client: Client,
    connection: Option<MultiplexedConnection>,
    ids: Ids,
    holder: String,
    sinks: Sinks,
    standing: Arc<Standing>,
}

/// What came of sending.
enum Sent {
    Answered(Vec<Value>),
    GivenUp { perhaps_done: bool },
}

impl Task {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut renew = interval(RENEW_EVERY);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held = None;
        loop {
            let first = match held.take() {
                Some(message) => Some(message),
                None => tokio::select! {
                    biased;
                    _ = renew.tick() => {
                        self.renew().await;
                        continue;
                    }
                    message = messages.recv() => message,
                },
            };
            let mut steps: Vec<Box<dyn Work>> = Vec::new();
            let mut next = match first {
                None => break,
                Some(message) => Some(message),
            };
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
                        self.release().await;
                        let _ = done.send(());
                        return;
                    }
                }
                next = messages.try_recv().ok();
            }
            self.carry_out(steps).await;
        }
        self.release().await;
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
                let calls = work.calls(&mut self.ids);
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
            let (mut deliveries, mut done, mut next) = (Vec::new(), Vec::new(), Vec::new());
            for (mut work, calls) in going {
                match work.answered(replies.by_ref().take(calls.len()).collect()) {
                    Ok(committed) => {
                        deliveries.extend(committed);
                        done.push(work);
                    }
                    Err(calls) => next.push((work, calls)),
                }
            }
            // Who has been answered finds its deliveries told.
            self.tell(deliveries);
            done.into_iter().for_each(|work| work.answer());
            going = next;
        }
    }

    /// Sends the calls of these steps until Redis has answered all. Steps that nobody waits for any more are left out, as
    /// long as they have not been sent.
    async fn send(&mut self, going: &mut Vec<(Box<dyn Work>, Vec<Call>)>) -> Sent {
        let mut sent = false;
        loop {
            if self.standing.is_superseded()
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
                Ok(replies) => {
                    let superseded = |reply: &Value| matches!(reply, Value::ServerError(e) if e.code() == "SUPERSEDED");
                    if replies.iter().any(superseded) {
                        self.be_superseded();
                    }
                    return Sent::Answered(replies);
                }
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

    fn be_superseded(&mut self) {
        if !self.standing.superseded.swap(true, Ordering::Relaxed) {
            tracing::error!("another node has opened this store, or it was emptied: nothing is written here any more");
        }
    }

    /// Keeps the lease, which tells others that the store is in use.
    async fn renew(&mut self) {
        if self.standing.is_superseded() || !self.connect().await {
            return;
        }
        let Some(connection) = &mut self.connection else { return };
        let mut pipeline = redis::pipe();
        lease(&self.holder).add_to(&mut pipeline);
        match connection.req_packed_commands(&pipeline, 0, 1).await {
            Ok(replies) => match replies.first() {
                Some(Value::Int(0)) => {}
                Some(Value::Int(_)) => self.be_superseded(),
                _ => self.lose(&"the lease could not be renewed"),
            },
            Err(error) => self.lose(&error),
        }
    }

    async fn release(&mut self) {
        if let Some(connection) = &mut self.connection {
            let mut pipeline = redis::pipe();
            let mut call = Call::new(Script::Release);
            call.key(super::keys::LEASE).text(self.holder.as_str()).add_to(&mut pipeline);
            // Else it expires.
            let _ = connection.req_packed_commands(&pipeline, 0, 1).await;
        }
    }

    fn tell(&self, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        let sinks = lock(&self.sinks).clone();
        if let Some((last, others)) = sinks.split_last() {
            others.iter().for_each(|sink| sink.enqueued(deliveries.clone()));
            last.enqueued(deliveries);
        }
    }
}

/// Takes or renews the lease.
pub(super) fn lease(holder: &str) -> Call {
    let mut call = Call::new(Script::Lease);
    call.key(super::keys::LEASE).text(holder).number(LEASE_LASTS.as_millis());
    call
}
