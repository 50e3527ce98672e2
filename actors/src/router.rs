//! The handle that hides the actors: ask a thread something, and be answered once it is durable.

use crate::{
    ports::{Delivery, IdempotencyKey, TurnEnd},
    registry::{CountLive, Dismiss, Registry},
};
use actix::{Addr, dev::SendError};
use metrics::Gauge;
use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tract_domain::{ClientId, Command, ReceiverId, Refusal, Reply, Timestamp, UserId};

/// A command for one thread, with what surrounds it.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The thread.
    pub user_id: UserId,
    /// On whose behalf; another client's thread is unknown to it.
    pub client: ClientId,
    /// What is asked.
    pub command: Command,
    /// The caller's idempotency key.
    pub idempotency: Option<IdempotencyKey>,
}

/// What a thread answered; committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the domain says.
    pub reply: Reply,
    /// One id for each entry that was committed.
    pub message_ids: Vec<u64>,
    /// When it was committed.
    pub at: Timestamp,
    /// It is the first answer again, for a repeated idempotency key.
    pub replayed: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no such thread for this client.
    #[error("no such user")]
    UnknownUser,
    /// The domain refused; nothing changed.
    #[error("{0}")]
    Refused(Refusal),
    /// The idempotency key was used for another body.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// Too much is in flight; nothing was done.
    #[error("too many requests are in flight")]
    Overloaded,
    /// It could not be done now; nothing was done.
    #[error("{0}")]
    Unavailable(String),
    /// The lease that it was done under has passed on to another node; nothing was done. No caller's command sees this.
    #[error("another node has this thread's lease now")]
    Superseded,
    /// It may have been done: repeat with the same idempotency key.
    #[error("the outcome is unknown")]
    OutcomeUnknown,
}

/// What a conversation actor is to do.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    /// A caller's command.
    Ask { client: ClientId, command: Command, idempotency: Option<IdempotencyKey> },
    /// The thread's timer fired.
    Settle,
    /// The thread leaves the store if it has rested since then.
    Leave { before: Timestamp },
    /// A receiver answered a hand-off's webhook.
    HandoffAnswered { by: ReceiverId, epoch: u64 },
    /// A turn of the IVA ended.
    EndTurn { delivery: Box<Delivery>, epoch: u64, end: TurnEnd },
    /// Fails, for tests of what a failure costs others.
    Panic,
}

/// A job on its way: it carries its own way back, so that a caller who hangs up takes nothing away.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Envelope {
    pub(crate) user_id: UserId,
    pub(crate) job: Job,
    pub(crate) reply: oneshot::Sender<Result<Answer, Failure>>,
    pub(crate) stage: Stage,
    /// It waits in a mailbox; gone once the thread's actor takes it up.
    pub(crate) queued: Option<Counted>,
    /// It is not answered yet.
    pub(crate) _in_flight: Counted,
    /// The place in flight that it takes until it is answered.
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

impl Envelope {
    pub(crate) fn answer(self, result: Result<Answer, Failure>) {
        // Nobody may be waiting any more; what was done stays done.
        let _ = self.reply.send(result);
    }
}

/// One more in a gauge, for as long as this lives.
pub(crate) struct Counted(&'static Gauge);

static MAILBOX_JOBS: LazyLock<Gauge> = LazyLock::new(|| metrics::gauge!("tract_mailbox_jobs"));
static JOBS_IN_FLIGHT: LazyLock<Gauge> = LazyLock::new(|| metrics::gauge!("tract_jobs_in_flight"));

impl Counted {
    fn new(gauge: &'static Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// How far a job has come: tells a caller whose actor died what may have happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stage(Arc<AtomicU8>);

impl Stage {
    /// From here on it may have been done.
    pub(crate) fn committing(&self, yes: bool) {
        self.0.store(u8::from(yes), Ordering::Release);
    }
    fn may_be_done(&self) -> bool {
        self.0.load(Ordering::Acquire) == 1
    }
}

/// The handle to all conversation actors. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    registries: Arc<[Addr<Registry>]>,
    places: Arc<Semaphore>,
    bound: usize,
    shard: RandomState,
}

impl Router {
    pub(crate) fn new(registries: Vec<Addr<Registry>>, in_flight: usize) -> Self {
        let places = Arc::new(Semaphore::new(in_flight));
        Self { registries: registries.into(), places, bound: in_flight, shard: RandomState::new() }
    }

    /// Asks a thread something. The command completes even if the caller stops waiting.
    ///
    /// # Errors
    /// See [`Failure`]; all but [`Failure::OutcomeUnknown`] mean that nothing was done.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            metrics::counter!("tract_overloaded_total").increment(1);
            return Err(Failure::Overloaded);
        };
        let Ask { user_id, client, command, idempotency } = ask;
        self.carry(user_id, Job::Ask { client, command, idempotency }, Some(permit)).await
    }

    /// Commands in flight.
    pub fn in_flight(&self) -> usize {
        self.bound.saturating_sub(self.places.available_permits())
    }

    /// Makes the thread's actor panic, for tests of what that costs others.
    #[doc(hidden)]
    pub async fn panic_for_test(&self, user_id: UserId) -> Result<Answer, Failure> {
        self.carry(user_id, Job::Panic, None).await
    }

    /// How many conversation actors are in memory, for tests of when they leave it.
    #[doc(hidden)]
    pub async fn live_actors(&self) -> usize {
        let counts = self.registries.iter().map(|registry| registry.send(CountLive));
        let counts = futures_util::future::join_all(counts).await;
        counts.into_iter().map(|count| count.unwrap_or_default()).sum()
    }

    /// Carries out what is due on a thread.
    pub(crate) async fn settle(&self, user_id: UserId) -> Result<Answer, Failure> {
        self.carry(user_id, Job::Settle, None).await
    }

    /// Has a thread leave the store if it has rested since then; whether it is gone now. Its actor does it, so that nobody
    /// is answered from memory afterwards.
    pub(crate) async fn leave(&self, user_id: UserId, before: Timestamp) -> Result<bool, Failure> {
        match self.carry(user_id.clone(), Job::Leave { before }, None).await {
            Ok(_) => Ok(false),
            Err(Failure::UnknownUser) => {
                self.registry(&user_id).do_send(Dismiss(user_id));
                Ok(true)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Tells a thread that its hand-off was answered.
    pub(crate) async fn handoff_answered(
        &self,
        user_id: UserId,
        by: ReceiverId,
        epoch: u64,
    ) -> Result<Answer, Failure> {
        self.carry(user_id, Job::HandoffAnswered { by, epoch }, None).await
    }

    /// Commits what came of a turn, and that the turn is settled, in one step.
    pub(crate) async fn end_turn(&self, delivery: Delivery, epoch: u64, end: TurnEnd) -> Result<Answer, Failure> {
        let user_id = delivery.user_id.clone();
        self.carry(user_id, Job::EndTurn { delivery: Box::new(delivery), epoch, end }, None).await
    }

    /// Takes no more commands, and waits until those in flight are answered.
    pub(crate) async fn close(&self, within: Duration) {
        let all = u32::try_from(self.bound).unwrap_or(u32::MAX);
        let drained = tokio::time::timeout(within, self.places.acquire_many(all)).await;
        if !matches!(drained, Ok(Ok(_))) {
            tracing::warn!(in_flight = self.in_flight(), "stopping although commands are still in flight");
        }
        self.places.close();
    }

    // No bound on the wait: the actor bounds every one of its own.
    async fn carry(&self, user_id: UserId, job: Job, permit: Option<OwnedSemaphorePermit>) -> Result<Answer, Failure> {
        let (reply, answer) = oneshot::channel();
        let stage = Stage::default();
        let registry = self.registry(&user_id);
        let envelope = Envelope {
            user_id,
            job,
            reply,
            stage: stage.clone(),
            queued: Some(Counted::new(&MAILBOX_JOBS)),
            _in_flight: Counted::new(&JOBS_IN_FLIGHT),
            _permit: permit,
        };
        match registry.try_send(envelope) {
            Ok(()) => {}
            Err(SendError::Full(_)) => return Err(Failure::Overloaded),
            Err(SendError::Closed(_)) => return Err(Failure::Unavailable("the router is stopping".to_owned())),
        }
        match answer.await {
            Ok(result) => result,
            // The actor died with the job in hand.
            Err(_) if stage.may_be_done() => Err(Failure::OutcomeUnknown),
            Err(_) => Err(Failure::Unavailable("the conversation's actor failed; it starts afresh".to_owned())),
        }
    }

    fn registry(&self, user_id: &UserId) -> &Addr<Registry> {
        let hash = self.shard.hash_one(user_id);
        let index = usize::try_from(hash % self.registries.len() as u64).unwrap_or(0);
        &self.registries[index]
    }
}
