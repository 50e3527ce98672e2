//! The one thread that writes: group commit.
//!
//! It takes every step that waits, carries them out in one transaction, syncs once, and answers all. A step checks
//! everything before its first write; one that fails all the same has the transaction rolled back, and the steps are then
//! carried out one by one, so that no step harms another.

use super::{
    batch::{Batch, Memory},
    checkpoint::Checkpoints,
    fault::Fault,
};
use metrics::Histogram;
use rusqlite::Connection;
use std::{
    fs::File,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tract_actors::ports::{Delivery, OutboxSink, StoreError};

/// Steps in one transaction: enough to make the sync's share of each small, few enough to keep the first one's wait short.
const BATCH: usize = 512;

/// Steps that may wait; above the edge's bound on requests in flight, so that only a stuck disk fills it.
const QUEUE: usize = 8192;

/// How long a caller waits for its answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

static COMMIT_SECONDS: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!("tract_store_commit_seconds"));

/// One atomic step. It may be carried out more than once, if the transaction around it was rolled back.
pub(super) trait Step: Send + 'static {
    /// What the caller is told.
    type Outcome: Send + 'static;
    /// Carries it out, all checks first.
    fn apply(&self, batch: &mut Batch<'_>) -> Result<Self::Outcome, Fault>;
}

/// A step with its caller, whatever its outcome is.
trait Work: Send {
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Asked<S: Step> {
    step: S,
    outcome: Option<S::Outcome>,
    caller: oneshot::Sender<Result<S::Outcome, StoreError>>,
}

impl<S: Step> Work for Asked<S> {
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        self.outcome = Some(self.step.apply(batch)?);
        Ok(())
    }
    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { outcome, caller, .. } = *self;
        // A caller that no longer waits has its answer in the store.
        let _ = caller.send(committed.and_then(|()| outcome.ok_or(StoreError::OutcomeUnknown)));
    }
}

enum Message {
    Do(Box<dyn Work>),
    Close(oneshot::Sender<()>),
}

/// The handle to the writer.
pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Message>>>,
    sinks: Sinks,
    thread: Mutex<Option<JoinHandle<()>>>,
}

type Sinks = Arc<Mutex<Vec<Arc<dyn OutboxSink>>>>;

impl Writer {
    /// Starts the thread. It holds the directory's lock until it ends.
    pub(super) fn start(
        conn: Connection,
        memory: Memory,
        checkpoints: Checkpoints,
        lock: File,
    ) -> std::io::Result<Self> {
        let (queue, messages) = mpsc::channel(QUEUE);
        let sinks = Sinks::default();
        let work = Loop { conn, memory: Some(memory), checkpoints, sinks: Arc::clone(&sinks), failing: false };
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || {
            work.run(messages);
            // Explicitly: a process that is being started at this moment would hold a copy of the descriptor for a while,
            // and with it the lock.
            let _ = lock.unlock();
        })?;
        Ok(Self { queue: Mutex::new(Some(queue)), sinks, thread: Mutex::new(Some(thread)) })
    }

    /// Has a step carried out and answers once it is durable.
    pub(super) async fn ask<S: Step>(&self, step: S) -> Result<S::Outcome, StoreError> {
        let started = Instant::now();
        let (caller, answer) = oneshot::channel();
        let work = Message::Do(Box::new(Asked { step, outcome: None, caller }));
        let queue = lock(&self.queue).clone().ok_or_else(closed)?;
        queue.try_send(work).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => StoreError::Unavailable("too many writes are waiting".into()),
            mpsc::error::TrySendError::Closed(_) => closed(),
        })?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
        COMMIT_SECONDS.record(started.elapsed());
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(StoreError::OutcomeUnknown),
        }
    }

    /// Tells this sink of deliveries from the next transaction on.
    pub(super) fn subscribe(&self, sink: Arc<dyn OutboxSink>) {
        lock(&self.sinks).push(sink);
    }

    /// Carries out what waits, and ends.
    pub(super) async fn close(&self) {
        let queue = lock(&self.queue).take();
        let Some(queue) = queue else { return };
        let (done, ended) = oneshot::channel();
        if queue.send(Message::Close(done)).await.is_ok() {
            let _ = ended.await;
        }
        self.join();
    }

    fn join(&self) {
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    /// Waits for the thread, so that whoever opens the directory next finds it free.
    fn drop(&mut self) {
        drop(lock(&self.queue).take());
        self.join();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}

struct Loop {
    conn: Connection,
    /// None when it has to be read again, after a transaction was rolled back.
    memory: Option<Memory>,
    checkpoints: Checkpoints,
    sinks: Sinks,
    failing: bool,
}

/// Why a transaction was rolled back.
struct RolledBack {
    told: StoreError,
    /// Whether the fault was one step's own.
    of_one_step: bool,
}

impl Loop {
    fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(first) = messages.blocking_recv() {
            let mut steps = Vec::new();
            let mut closing = None;
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Do(work) => steps.push(work),
                    Message::Close(done) => {
                        closing = Some(done);
                        break;
                    }
                }
                next = if steps.len() < BATCH { messages.try_recv().ok() } else { None };
            }
            self.group(steps);
            if let Some(done) = closing {
                messages.close();
                let mut late = Vec::new();
                while let Ok(Message::Do(work)) = messages.try_recv() {
                    late.push(work);
                }
                self.group(late);
                self.end();
                let _ = done.send(());
                return;
            }
            self.checkpoints.after_commit(&self.conn);
        }
        self.end();
    }

    /// Commits these steps together, or one by one if one of them is at fault.
    fn group(&mut self, mut steps: Vec<Box<dyn Work>>) {
        if steps.is_empty() {
            return;
        }
        metrics::histogram!("tract_store_batch_steps").record(steps.len() as f64);
        match self.transaction(&mut steps) {
            Ok(deliveries) => {
                self.recovered();
                self.tell(deliveries);
                steps.into_iter().for_each(|step| step.answer(Ok(())));
            }
            Err(RolledBack { of_one_step: true, .. }) if steps.len() > 1 => {
                steps.into_iter().for_each(|step| self.group(vec![step]));
            }
            Err(RolledBack { told, .. }) => {
                self.failed(&told);
                steps.into_iter().for_each(|step| step.answer(Err(told.clone())));
            }
        }
    }

    fn transaction(&mut self, steps: &mut [Box<dyn Work>]) -> Result<Vec<Delivery>, RolledBack> {
        let result = self.attempt(steps);
        if result.is_err() && !self.conn.is_autocommit() {
            // Should even this fail, the next BEGIN fails as well and leads here again.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        result
    }

    fn attempt(&mut self, steps: &mut [Box<dyn Work>]) -> Result<Vec<Delivery>, RolledBack> {
        let rolled_back = |fault: Fault| RolledBack { told: fault.told(), of_one_step: !fault.is_of_storage() };
        let mut memory = match self.memory.take() {
            Some(memory) => memory,
            None => Memory::load(&self.conn).map_err(rolled_back)?,
        };
        self.run_sql("BEGIN IMMEDIATE").map_err(rolled_back)?;
        let mut batch = Batch::new(&self.conn, &mut memory);
        for step in steps {
            step.apply(&mut batch).map_err(rolled_back)?;
        }
        let deliveries = batch.finish().map_err(rolled_back)?;
        self.run_sql("COMMIT").map_err(|fault| {
            let unknown = fault.leaves_commit_unknown();
            let told = if unknown { StoreError::OutcomeUnknown } else { fault.told() };
            RolledBack { told, of_one_step: false }
        })?;
        self.memory = Some(memory);
        Ok(deliveries)
    }

    fn run_sql(&self, sql: &'static str) -> Result<(), Fault> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Commit order is the order of this thread's transactions, and of the steps within each.
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

    /// One line when it begins to fail, and one when it is over, however many callers are told.
    fn failed(&mut self, told: &StoreError) {
        if !self.failing {
            tracing::error!(error = %told, "the store cannot write");
        }
        self.failing = true;
    }

    fn recovered(&mut self) {
        if self.failing {
            tracing::info!("the store writes again");
        }
        self.failing = false;
    }

    fn end(self) {
        self.checkpoints.end(&self.conn);
        if let Err((_, error)) = self.conn.close() {
            tracing::warn!(%error, "the store did not close cleanly");
        }
    }
}
