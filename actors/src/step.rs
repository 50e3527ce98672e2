//! One job on one thread: load → settle → decide → commit → answer. Never an effect before the commit.

use crate::{
    ports::{
        Commit, Committed, DeadlineChange, Delivery, Kept, KeptAnswer, Leave, NewDelivery, Settled, StoreError,
        Tenants, ThreadKey, TurnEnd, What, Written,
    },
    router::{Answer, Failure, Job, Stage},
    shell::World,
    timekeeper::Timers,
};
use metrics::Histogram;
use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};
use tract_domain::{
    Command, Context, Effect, Event, Fact, Json, Policy, Reply, Thread, Timestamp, Topic, Transition, Turn, UserId,
};
use uuid::Uuid;

/// How often a job decides again when somebody else commits in between. On one node nobody does; of several that want the
/// same thread at once, each try lets one through.
const TRIES: u32 = 64;

/// How many of those follow each other at once; then each waits a little, not as long as the others wait.
const EAGER: u32 = 2;

/// How often the store is asked again whether a commit of unknown outcome is in.
const ASKS: usize = 3;

static COMMIT_SECONDS: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!("tract_commit_seconds"));

/// A thread as committed last.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    key: Arc<ThreadKey>,
    version: u64,
    /// The commit that made this version.
    commit_id: Option<Uuid>,
    thread: Arc<Thread>,
    deadline: Option<Timestamp>,
}

impl Loaded {
    /// A step that leaves the thread as it is: for a commit that only moves its timer or settles a turn.
    fn unchanged(&self) -> Transition {
        Transition { thread: Thread::clone(&self.thread), entries: Vec::new(), effects: Vec::new(), reply: Reply::Done }
    }
}

/// Why a try did not end in an answer.
enum Fault {
    /// Somebody else committed: load, decide again.
    Conflict,
    Failure(Failure),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) | StoreError::Corrupt(why) => {
                tracing::error!(error = %why, "the store failed");
                Self::Unavailable("the store is unavailable".to_owned())
            }
            StoreError::Superseded => Self::Superseded,
            StoreError::OutcomeUnknown => Self::OutcomeUnknown,
        }
    }
}

/// What a try works with.
struct Try<'a> {
    world: &'a World,
    timers: &'a Timers,
    user_id: &'a UserId,
    job: &'a Job,
    stage: &'a Stage,
}

/// Runs a job; gives back the thread as committed last, unless there is doubt about it.
pub(crate) async fn run(
    world: &World,
    timers: &Timers,
    user_id: &UserId,
    mut loaded: Option<Loaded>,
    job: &Job,
    stage: &Stage,
) -> (Option<Loaded>, Result<Answer, Failure>) {
    let attempt = Try { world, timers, user_id, job, stage };
    for tried in 0..TRIES {
        if tried > EAGER {
            tokio::time::sleep(jitter(tried)).await;
        }
        let remembered = loaded.is_some();
        let mut current = match loaded.take() {
            Some(loaded) if attempt.is_foreign(&loaded) => {
                // From memory the refusal would come sooner than for a thread that there is not: the store is asked for
                // that one each time.
                let looked_for = attempt.load().await.and(Err(Failure::UnknownUser));
                return (Some(loaded), looked_for);
            }
            Some(loaded) => loaded,
            None => match attempt.load().await {
                Ok(loaded) => loaded,
                Err(failure) => return (None, Err(failure)),
            },
        };
        let version = (current.version, current.commit_id);
        let decided = attempt.decide(&mut current).await;
        // What another node may have changed meanwhile is no ground for a refusal, or for an answer that commits nothing.
        let unwritten =
            matches!(decided, Ok(_) | Err(Fault::Failure(Failure::Refused(_)))) && current.version == version.0;
        if remembered && unwritten && world.store.is_shared() {
            match attempt.is_current(version).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(failure) => return (None, Err(failure)),
            }
        }
        match decided {
            Ok(answer) => return (Some(current), Ok(answer)),
            Err(Fault::Failure(Failure::OutcomeUnknown)) => return (None, Err(Failure::OutcomeUnknown)),
            Err(Fault::Failure(failure)) if matches!(job, Job::Leave { .. }) => return (None, Err(failure)),
            Err(Fault::Failure(failure)) => return (Some(current), Err(failure)),
            Err(Fault::Conflict) => metrics::counter!("tract_commit_conflicts_total").increment(1),
        }
        // A turn that conflicts although nobody committed was settled before: its answer is in.
        if matches!(job, Job::EndTurn { .. })
            && let Ok(fresh) = attempt.load().await
        {
            if (fresh.version, fresh.commit_id) == version {
                let at = world.clock.now();
                return (Some(fresh), Ok(Answer { reply: Reply::Done, message_ids: Vec::new(), at, replayed: true }));
            }
            loaded = Some(fresh);
        }
    }
    (None, Err(Failure::Unavailable("too many writers on this thread".to_owned())))
}

impl Try<'_> {
    async fn load(&self) -> Result<Loaded, Failure> {
        let stored = self.world.store.thread(self.user_id).await.map_err(read_failure)?.ok_or(Failure::UnknownUser)?;
        Ok(Loaded {
            key: Arc::new(stored.key),
            version: stored.version,
            commit_id: stored.commit_id,
            thread: Arc::new(stored.thread),
            deadline: stored.deadline,
        })
    }

    /// Whether this is the version that is committed now.
    async fn is_current(&self, version: (u64, Option<Uuid>)) -> Result<bool, Failure> {
        Ok(self.world.store.version(self.user_id).await.map_err(read_failure)? == Some(version))
    }

    /// Whether it is asked for by another client than its own.
    fn is_foreign(&self, loaded: &Loaded) -> bool {
        matches!(self.job, Job::Ask { client, .. } if *client != loaded.key.client)
    }

    async fn decide(&self, loaded: &mut Loaded) -> Result<Answer, Fault> {
        if self.is_foreign(loaded) {
            return Err(Failure::UnknownUser.into());
        }
        if let Job::Leave { before } = self.job {
            return self.leave(loaded, *before).await;
        }
        if let Some(answer) = self.kept().await? {
            return Ok(answer);
        }
        let Some(policy) = self.policy(&loaded.key).await? else { return self.without_policy(loaded).await };
        let ctx = Context { now: self.world.clock.now(), policy: &policy };
        if let Some(settled) = loaded.thread.settle(ctx) {
            self.commit(loaded, settled, ctx, Extra::default()).await?;
        }
        let (command, extra) = match self.job {
            Job::Ask { command, idempotency, .. } => {
                (command.clone(), Extra { idempotency: idempotency.clone(), ..Extra::default() })
            }
            Job::HandoffAnswered { by, epoch } => {
                (Command::HandoffAnswered { by: by.clone(), epoch: *epoch }, Extra::default())
            }
            Job::EndTurn { delivery, epoch, end } => {
                let (command, user_details) = self.turn(delivery, end, &loaded.thread, &policy).await?;
                let settles = Some(settled(delivery, *epoch));
                (command, Extra { settles, user_details, idempotency: None })
            }
            Job::Settle | Job::Leave { .. } | Job::Panic => return self.rest(loaded, ctx).await,
        };
        let transition = loaded.thread.decide(&command, ctx).map_err(Failure::Refused)?;
        let nothing = transition.entries.is_empty() && transition.thread == *loaded.thread;
        if nothing && extra == Extra::default() {
            return Ok(Answer { reply: transition.reply, message_ids: Vec::new(), at: ctx.now, replayed: false });
        }
        self.commit(loaded, transition, ctx, extra).await
    }

    /// What the thread is decided by; none if its client or business is gone, also from the configuration as it is stored now:
    /// another node may just have made them.
    async fn policy(&self, key: &ThreadKey) -> Result<Option<Arc<Policy>>, Failure> {
        let World { tenants, store, .. } = self.world;
        let policy = tenants.policy(&key.client, key.business);
        if policy.is_some() || !store.is_shared() {
            return Ok(policy);
        }
        tenants.refresh().await.map_err(read_failure)?;
        Ok(tenants.policy(&key.client, key.business))
    }

    /// The first answer, if the caller's key has been used.
    async fn kept(&self) -> Result<Option<Answer>, Failure> {
        let Job::Ask { idempotency: Some(key), .. } = self.job else { return Ok(None) };
        let kept = self.world.store.kept(key, self.world.clock.now()).await.map_err(read_failure)?;
        match kept {
            None => Ok(None),
            Some(Kept { request, answer: KeptAnswer::Thread { reply, message_ids, at } }) if request == key.request => {
                Ok(Some(Answer { reply, message_ids, at, replayed: true }))
            }
            Some(_) => Err(Failure::KeyReused),
        }
    }

    /// The client or business is gone. Its turns have no one to answer to; its timers have nothing to do.
    async fn without_policy(&self, loaded: &mut Loaded) -> Result<Answer, Fault> {
        let now = self.world.clock.now();
        match self.job {
            Job::Ask { .. } => Err(Failure::UnknownUser.into()),
            Job::Settle | Job::Leave { .. } | Job::Panic | Job::HandoffAnswered { .. } | Job::EndTurn { .. } => {
                let settles = match self.job {
                    Job::EndTurn { delivery, epoch, .. } => Some(settled(delivery, *epoch)),
                    _ => None,
                };
                let mut commit = self.step(loaded, loaded.unchanged(), now);
                commit.settles = settles;
                commit.deadline = DeadlineChange::Set(None);
                self.write(loaded, commit, Reply::Done).await
            }
        }
    }

    /// A timer fired and everything due is carried out; a timer that fired early is set to its right time.
    async fn rest(&self, loaded: &mut Loaded, ctx: Context<'_>) -> Result<Answer, Fault> {
        if loaded.deadline.is_none_or(|at| at > ctx.now) {
            return Ok(Answer { reply: Reply::Done, message_ids: Vec::new(), at: ctx.now, replayed: false });
        }
        let unchanged = loaded.unchanged();
        self.commit(loaded, unchanged, ctx, Extra::default()).await
    }

    /// The thread leaves the store, if it has rested for long enough; then it is unknown.
    async fn leave(&self, loaded: &Loaded, before: Timestamp) -> Result<Answer, Fault> {
        let stays = loaded.deadline.is_some() || !loaded.thread.rests_since(before);
        if stays {
            let at = self.world.clock.now();
            return Ok(Answer { reply: Reply::Done, message_ids: Vec::new(), at, replayed: false });
        }
        let (user_id, thread) = (self.user_id.clone(), Arc::clone(&loaded.thread));
        let leave = Leave { user_id, expected_version: loaded.version, thread };
        // One that is asked for again is found done.
        match self.world.store.leave(leave).await.map_err(Failure::from)? {
            Written::Applied => Err(Failure::UnknownUser.into()),
            Written::Conflict => Err(Fault::Conflict),
        }
    }

    /// What the end of a turn is to the domain.
    async fn turn(
        &self,
        delivery: &Delivery,
        end: &TurnEnd,
        thread: &Thread,
        policy: &Policy,
    ) -> Result<(Command, Option<Json>), Failure> {
        let entry = match &delivery.entry {
            Some(entry) => Arc::clone(entry),
            None => {
                let before = delivery.sequence.saturating_sub(1);
                let found = self.world.store.feed(self.user_id, before, 1).await.map_err(read_failure)?;
                let entry = found.into_iter().next();
                Arc::new(entry.ok_or_else(|| Failure::Unavailable("a turn's message is missing".to_owned()))?)
            }
        };
        let entry = &entry.entry;
        let turn = Turn { message: entry.sequence, conversation: entry.conversation, epoch: entry.control_epoch };
        Ok(match end {
            TurnEnd::Answered { answer, user_details } => {
                // A late answer is discarded whole.
                let user_details = user_details.clone().filter(|_| thread.awaits(turn, policy));
                (Command::IvaAnswered { turn, answer: answer.clone() }, user_details)
            }
            TurnEnd::Deferred => (Command::IvaDeferred { turn }, None),
            TurnEnd::Broke(reason) => (Command::IvaBroke { turn, reason: reason.clone() }, None),
        })
    }

    async fn commit(
        &self,
        loaded: &mut Loaded,
        transition: Transition,
        ctx: Context<'_>,
        extra: Extra,
    ) -> Result<Answer, Fault> {
        let reply = transition.reply.clone();
        let next = transition.thread.next_deadline(ctx.policy);
        let mut commit = self.step(loaded, transition, ctx.now);
        commit.deadline = deadline_change(loaded.deadline, next, ctx.now);
        commit.settles = extra.settles;
        commit.user_details = extra.user_details;
        commit.idempotency = extra.idempotency.map(|key| (key, reply.clone()));
        self.write(loaded, commit, reply).await
    }

    fn step(&self, loaded: &Loaded, transition: Transition, now: Timestamp) -> Commit {
        let commit_id = Uuid::now_v7();
        let outbox = address(&*self.world.tenants, &loaded.key, commit_id, &transition);
        Commit {
            commit_id,
            user_id: self.user_id.clone(),
            expected_version: loaded.version,
            expected_commit: loaded.commit_id,
            thread: Arc::new(transition.thread),
            entries: transition.entries,
            outbox,
            settles: None,
            deadline: DeadlineChange::Keep,
            user_details: None,
            idempotency: None,
            now,
        }
    }

    async fn write(&self, loaded: &mut Loaded, commit: Commit, reply: Reply) -> Result<Answer, Fault> {
        let begun = Instant::now();
        let at = commit.entries.last().map_or(commit.now, |entry| entry.at);
        let mut asked = 0;
        self.stage.committing(true);
        let committed = loop {
            match self.world.store.commit(commit.clone()).await {
                Err(StoreError::OutcomeUnknown) if asked < ASKS => asked += 1,
                // Whether an earlier ask was carried out is still open.
                Err(StoreError::Unavailable(_)) if asked > 0 => break Err(StoreError::OutcomeUnknown),
                other => break other,
            }
        };
        if !matches!(committed, Err(StoreError::OutcomeUnknown)) {
            self.stage.committing(false);
        }
        COMMIT_SECONDS.record(begun.elapsed().as_secs_f64());
        match committed.map_err(Failure::from)? {
            Committed::Conflict => Err(Fault::Conflict),
            Committed::Applied { version, message_ids } => {
                count(&commit);
                (loaded.version, loaded.commit_id) = (version, Some(commit.commit_id));
                loaded.thread = Arc::clone(&commit.thread);
                if let DeadlineChange::Set(deadline) = commit.deadline {
                    loaded.deadline = deadline;
                    if let Some(at) = deadline {
                        self.timers.nudge(at);
                    }
                }
                Ok(Answer { reply, message_ids, at, replayed: false })
            }
        }
    }
}

/// What a commit carries besides the transition.
#[derive(Debug, Default, PartialEq)]
struct Extra {
    settles: Option<Settled>,
    user_details: Option<Json>,
    idempotency: Option<crate::ports::IdempotencyKey>,
}

fn settled(delivery: &Delivery, epoch: u64) -> Settled {
    Settled { endpoint: delivery.endpoint.clone(), id: delivery.id, epoch }
}

/// Up to some milliseconds, more with each try, and seldom what another takes.
fn jitter(tried: u32) -> Duration {
    let (_, random) = Uuid::new_v4().as_u64_pair();
    Duration::from_micros(random % (1_000 * u64::from(tried.min(20))))
}

/// A stored timer may fire early, and then finds its right time: so a deadline that moves back, as the idle one does with
/// each message, costs no write.
fn deadline_change(stored: Option<Timestamp>, next: Option<Timestamp>, now: Timestamp) -> DeadlineChange {
    match (stored, next) {
        (Some(stored), Some(next)) if stored <= next && stored > now => DeadlineChange::Keep,
        (None, None) => DeadlineChange::Keep,
        (Some(stored), None) if stored > now => DeadlineChange::Keep,
        (_, next) => DeadlineChange::Set(next),
    }
}

/// A read has no outcome to be unknown.
fn read_failure(error: StoreError) -> Failure {
    match Failure::from(error) {
        Failure::OutcomeUnknown => Failure::Unavailable("the store did not answer in time".to_owned()),
        other => other,
    }
}

/// Whose endpoints a transition's effects go to. What nobody registered for goes nowhere.
fn address(tenants: &dyn Tenants, key: &ThreadKey, commit_id: Uuid, transition: &Transition) -> Vec<NewDelivery> {
    let sequence = |entry: usize| transition.entries.get(entry).map_or(0, |e| e.sequence);
    let mut outbox = Vec::with_capacity(transition.effects.len());
    for effect in &transition.effects {
        let (endpoint, what, sequence, answers_handoff) = match effect {
            Effect::Hook { to, topic, entry, answers_handoff } => {
                (tenants.hook(&key.client, to, *topic), What::Entry, sequence(*entry), *answers_handoff)
            }
            Effect::History { to, after, through, answers_handoff } => {
                let hook = tenants.hook(&key.client, to, Topic::MessageReceive);
                (hook, What::History { after: *after, through: *through }, *through, *answers_handoff)
            }
            Effect::Channel { event, entry } => {
                (tenants.channel(&key.client, key.business), What::Channel { event: *event }, sequence(*entry), None)
            }
            Effect::IvaTurn { entry } => (tenants.iva(&key.client), What::Turn, sequence(*entry), None),
        };
        if let Some(endpoint) = endpoint {
            let webhook_id = format!("{}-{}", commit_id.simple(), outbox.len());
            outbox.push(NewDelivery { endpoint, webhook_id, what, sequence, answers_handoff });
        }
    }
    outbox
}

fn count(commit: &Commit) {
    for entry in &commit.entries {
        match &entry.fact {
            Fact::Message(message) => {
                metrics::counter!("tract_messages_total", "sender" => message.sender.as_str()).increment(1);
            }
            Fact::Control(change) => {
                let (_, action) = change.action.topic().names();
                metrics::counter!("tract_control_changes_total", "action" => action).increment(1);
            }
            Fact::State(change) => {
                metrics::counter!("tract_state_changes_total", "to" => change.to.as_str()).increment(1);
            }
            Fact::Event(Event::Feedback(feedback)) => {
                let (rating, resolved) = (feedback.rating.to_string(), feedback.resolved.to_string());
                metrics::counter!("tract_feedback_total", "rating" => rating, "resolved" => resolved).increment(1);
            }
            Fact::Event(_) => {}
        }
    }
}
