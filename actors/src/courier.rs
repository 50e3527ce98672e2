//! The courier of one endpoint: sends what waits for it, in commit order for each thread, concurrently across threads, and
//! tries again what failed. It holds a window of its backlog; the rest stays in the store.

use crate::{
    dispatch::Inbox,
    ports::{Attempt, Delivery, Endpoint, EndpointKind, OutboxUpdate, TurnEnd, What},
    router::{Failure, Router},
    schedule,
    shell::World,
};
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, ArbiterHandle, AsyncContext, Context, Handler, SpawnHandle, WrapFuture,
};
use futures_util::FutureExt;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;
use tract_domain::{Timestamp, UserId};

/// The bounds of a courier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CourierSettings {
    /// Attempts in flight.
    pub(crate) attempts: usize,
    /// Deliveries in memory.
    pub(crate) window: usize,
}

/// How many of one thread's deliveries are held: a busy or failing thread must not fill the window.
const LANE: usize = 16;

/// How many threads may wait for their next attempt in memory. An endpoint that fails so many is not read on until some
/// of them are due.
const WAITING: usize = 8192;

/// How long to wait when the store does not answer, in milliseconds.
const PAUSE_MS: u64 = 1_000;

/// How long to wait before an IVA's answer that could not be committed is committed again.
const COMMIT_PAUSE: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Courier {
    endpoint: Endpoint,
    inbox: Arc<Inbox>,
    world: World,
    router: Router,
    updates: mpsc::Sender<OutboxUpdate>,
    settings: CourierSettings,
    /// Every delivery up to this id has been seen: it is in a lane, or its lane knows that there is more in the store.
    cursor: u64,
    /// There may be deliveries above the cursor that the inbox does not have.
    behind: bool,
    /// The store is being read.
    reading: bool,
    lanes: HashMap<UserId, Lane>,
    ready: VecDeque<UserId>,
    waiting: BTreeSet<(Timestamp, u64, UserId)>,
    /// Deliveries in memory, but for the one of each waiting lane.
    held: usize,
    in_flight: usize,
    alarm: Option<(Timestamp, SpawnHandle)>,
}

/// One thread's deliveries to this endpoint, the first of them up for sending.
#[derive(Default)]
struct Lane {
    queue: VecDeque<Delivery>,
    /// The last one that is over. The store may not know it yet.
    over: u64,
    /// There are more in the store behind those in the queue.
    more: bool,
    place: Place,
}

/// Where a lane is.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere yet.
    #[default]
    New,
    /// In `ready`.
    Ready,
    /// Its first delivery is being sent.
    Busy,
    /// In `waiting`, until its first delivery is due.
    Waiting,
    /// Its next deliveries are being read from the store.
    Reading,
}

impl Courier {
    pub(crate) fn begin(
        arbiter: &ArbiterHandle,
        endpoint: Endpoint,
        inbox: Arc<Inbox>,
        world: World,
        router: Router,
        updates: mpsc::Sender<OutboxUpdate>,
        settings: CourierSettings,
    ) -> Addr<Self> {
        Self::start_in_arbiter(arbiter, move |_| Self {
            endpoint,
            inbox,
            world,
            router,
            updates,
            settings,
            cursor: 0,
            behind: true,
            reading: false,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            held: 0,
            in_flight: 0,
            alarm: None,
        })
    }

    /// Does everything that can be done now.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        self.take_in();
        self.read_on(ctx);
        self.raise_due();
        while self.in_flight < self.settings.attempts {
            let Some(user_id) = self.ready.pop_front() else { break };
            self.send_first(&user_id, ctx);
        }
        self.set_alarm(ctx);
    }

    /// Takes what has been committed since. While the store has older ones, these wait there too.
    fn take_in(&mut self) {
        if self.reading {
            return;
        }
        let (deliveries, missed) = self.inbox.take();
        for delivery in deliveries {
            if !self.behind {
                self.admit(delivery);
            }
        }
        self.behind |= missed;
    }

    /// Puts a delivery into its lane, if there is room; else notes that it is in the store.
    fn admit(&mut self, delivery: Delivery) {
        if delivery.id <= self.cursor {
            return;
        }
        if self.held >= self.settings.window || self.waiting.len() >= WAITING {
            self.behind = true;
            return;
        }
        self.cursor = delivery.id;
        let user_id = delivery.user_id.clone();
        let lane = self.lanes.entry(user_id.clone()).or_default();
        if lane.more || matches!(lane.place, Place::Reading | Place::Waiting) || lane.queue.len() >= LANE {
            lane.more = true;
            return;
        }
        lane.queue.push_back(delivery);
        self.held += 1;
        if lane.place == Place::New {
            self.place(&user_id);
        }
    }

    /// Puts a lane where it belongs by its first delivery.
    fn place(&mut self, user_id: &UserId) {
        let Some(lane) = self.lanes.get_mut(user_id) else { return };
        let Some(first) = lane.queue.front() else { return };
        if first.due_at > self.world.clock.now() {
            lane.place = Place::Waiting;
            self.waiting.insert((first.due_at, first.id, user_id.clone()));
            // Only the first is needed until then, and its entry not yet.
            self.held -= lane.queue.len();
            lane.more |= lane.queue.len() > 1;
            lane.queue.truncate(1);
            if let Some(first) = lane.queue.front_mut() {
                first.entry = None;
            }
        } else {
            lane.place = Place::Ready;
            self.ready.push_back(user_id.clone());
        }
    }

    fn raise_due(&mut self) {
        let now = self.world.clock.now();
        while let Some((due_at, ..)) = self.waiting.first()
            && *due_at <= now
        {
            let Some((_, _, user_id)) = self.waiting.pop_first() else { return };
            if let Some(lane) = self.lanes.get_mut(&user_id) {
                lane.place = Place::Ready;
                self.held += 1;
                self.ready.push_back(user_id);
            }
        }
    }

    /// Reads the backlog on, when there is one and room for it.
    fn read_on(&mut self, ctx: &mut Context<Self>) {
        if !self.behind || self.reading || self.held > self.settings.window / 2 || self.waiting.len() >= WAITING {
            return;
        }
        self.reading = true;
        let limit = self.settings.window - self.held;
        let (store, endpoint, after) = (Arc::clone(&self.world.store), self.endpoint.clone(), self.cursor);
        let read = async move { store.outbox(&endpoint, after, limit).await };
        ctx.spawn(read.into_actor(self).map(move |page, me, ctx| {
            me.reading = false;
            match page {
                Ok(page) => {
                    // What was committed meanwhile is in the inbox, or the inbox says that it missed some.
                    me.behind = page.len() >= limit;
                    for delivery in page {
                        me.admit(delivery);
                    }
                    me.advance(ctx);
                }
                Err(error) => {
                    tracing::warn!(endpoint = ?me.endpoint, %error, "a backlog could not be read");
                    me.wake_in(PAUSE_MS, ctx);
                }
            }
        }));
    }

    fn wake_in(&self, ms: u64, ctx: &mut Context<Self>) {
        let clock = Arc::clone(&self.world.clock);
        let sleep = async move { clock.sleep_until(clock.now().plus(ms)).await };
        ctx.spawn(sleep.into_actor(self).map(|(), me, ctx| me.advance(ctx)));
    }

    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        let next = self.waiting.first().map(|(due_at, ..)| *due_at);
        if self.alarm.as_ref().map(|(at, _)| *at) == next {
            return;
        }
        if let Some((_, sleep)) = self.alarm.take() {
            ctx.cancel_future(sleep);
        }
        if let Some(at) = next {
            let clock = Arc::clone(&self.world.clock);
            let sleep = async move { clock.sleep_until(at).await };
            let sleep = ctx.spawn(sleep.into_actor(self).map(|(), me, ctx| {
                me.alarm = None;
                me.advance(ctx);
            }));
            self.alarm = Some((at, sleep));
        }
    }

    fn send_first(&mut self, user_id: &UserId, ctx: &mut Context<Self>) {
        let Some(lane) = self.lanes.get_mut(user_id) else { return };
        let Some(first) = lane.queue.front().cloned() else { return };
        lane.place = Place::Busy;
        self.in_flight += 1;
        let errand = Errand {
            world: self.world.clone(),
            router: self.router.clone(),
            updates: self.updates.clone(),
            delivery: first,
        };
        let (me, user_id) = (ctx.address(), user_id.clone());
        // On the network's runtime: an arbiter's thread must never wait for a connection.
        self.world.network.spawn(async move {
            let outcome = AssertUnwindSafe(errand.run()).catch_unwind().await.unwrap_or(Outcome::Died);
            me.do_send(Returned { user_id, outcome });
        });
    }

    fn returned(&mut self, user_id: UserId, outcome: Outcome, ctx: &mut Context<Self>) {
        self.in_flight -= 1;
        if let Some(lane) = self.lanes.get_mut(&user_id) {
            match outcome {
                Outcome::Finished => {
                    lane.over = lane.queue.pop_front().map_or(lane.over, |over| over.id);
                    self.held -= 1;
                }
                Outcome::Changed(delivery) => {
                    if let Some(first) = lane.queue.front_mut() {
                        *first = *delivery;
                    }
                }
                Outcome::Died => {
                    tracing::error!(endpoint = ?self.endpoint, "an attempt at a delivery failed inside the router");
                    if let Some(first) = lane.queue.front_mut() {
                        first.due_at = self.world.clock.now().plus(PAUSE_MS);
                    }
                }
            }
            if !lane.queue.is_empty() {
                self.place(&user_id);
            } else if lane.more {
                self.read_lane(&user_id, ctx);
            } else {
                self.lanes.remove(&user_id);
            }
        }
        self.advance(ctx);
    }

    /// Reads a thread's next deliveries, which were left in the store.
    fn read_lane(&mut self, user_id: &UserId, ctx: &mut Context<Self>) {
        let Some(lane) = self.lanes.get_mut(user_id) else { return };
        lane.place = Place::Reading;
        lane.more = false;
        let (store, endpoint, of) = (Arc::clone(&self.world.store), self.endpoint.clone(), user_id.clone());
        let after = lane.over;
        let read = async move {
            let page = store.outbox_of(&endpoint, &of, after, LANE).await;
            (of, page)
        };
        ctx.spawn(read.into_actor(self).map(|(user_id, page), me, ctx| {
            me.lane_read(&user_id, page, ctx);
            me.advance(ctx);
        }));
    }

    fn lane_read(
        &mut self,
        user_id: &UserId,
        page: Result<Vec<Delivery>, crate::ports::StoreError>,
        ctx: &mut Context<Self>,
    ) {
        let Some(lane) = self.lanes.get_mut(user_id) else { return };
        match page {
            Err(error) => {
                tracing::warn!(endpoint = ?self.endpoint, %error, "a thread's backlog could not be read");
                let (clock, user_id) = (Arc::clone(&self.world.clock), user_id.clone());
                let sleep = async move { clock.sleep_until(clock.now().plus(PAUSE_MS)).await };
                ctx.spawn(sleep.into_actor(self).map(move |(), me, ctx| me.read_lane(&user_id, ctx)));
            }
            Ok(page) => {
                lane.more |= page.len() >= LANE;
                self.held += page.len();
                lane.queue.extend(page);
                if !lane.queue.is_empty() {
                    self.place(user_id);
                } else if lane.more {
                    // Committed while the store was being read: the inbox is past it, so nobody else will look.
                    self.read_lane(user_id, ctx);
                } else {
                    self.lanes.remove(user_id);
                }
            }
        }
    }
}

/// One attempt, away from the courier.
struct Errand {
    world: World,
    router: Router,
    updates: mpsc::Sender<OutboxUpdate>,
    delivery: Delivery,
}

/// What a courier learns of an attempt.
enum Outcome {
    /// The delivery is over.
    Finished,
    /// It is to be tried (on) as it stands now.
    Changed(Box<Delivery>),
    /// The attempt itself failed: a bug.
    Died,
}

impl Errand {
    async fn run(mut self) -> Outcome {
        let now = self.world.clock.now();
        let kind = self.delivery.endpoint.kind();
        let attempt = match self.world.deliverer.attempt(&self.delivery).await {
            // The IVA is not asked again: whatever went wrong is a bot break.
            Attempt::Failed { reason, .. } if matches!(kind, EndpointKind::Iva { .. }) => {
                Attempt::Turn(TurnEnd::Broke(reason))
            }
            other => other,
        };
        metrics::counter!("tract_deliveries_total", "result" => label(&attempt)).increment(1);
        if self.delivery.attempts > 0 {
            metrics::counter!("tract_delivery_retries_total").increment(1);
        }
        match attempt {
            Attempt::Accepted => {
                self.answer_handoff(&kind).await;
                self.done(None).await
            }
            Attempt::Rejected(error) => {
                tracing::info!(endpoint = ?self.delivery.endpoint, webhook_id = %self.delivery.webhook_id, "rejected");
                self.done(Some(error)).await
            }
            Attempt::Advanced { after, rejected } => {
                if rejected.is_none() {
                    self.answer_handoff(&kind).await;
                }
                if let What::History { through, .. } = self.delivery.what {
                    self.delivery.what = What::History { after, through };
                }
                // Each message of a range has a schedule of its own.
                (self.delivery.attempts, self.delivery.first_attempt_at) = (0, None);
                let (endpoint, id) = (self.delivery.endpoint.clone(), self.delivery.id);
                self.update(OutboxUpdate::Advanced { endpoint, id, after, delivered_at: now, rejected }).await;
                Outcome::Changed(Box::new(self.delivery))
            }
            Attempt::Void(reason) => {
                tracing::debug!(endpoint = ?self.delivery.endpoint, %reason, "nothing to deliver");
                let (endpoint, id) = (self.delivery.endpoint.clone(), self.delivery.id);
                self.update(OutboxUpdate::Done { endpoint, id, delivered_at: None, rejected: None }).await;
                Outcome::Finished
            }
            Attempt::Postponed(reason) => {
                tracing::warn!(endpoint = ?self.delivery.endpoint, %reason, "a delivery is postponed");
                self.delivery.due_at = self.world.clock.now().plus(PAUSE_MS);
                Outcome::Changed(Box::new(self.delivery))
            }
            Attempt::Gone => self.failed("410 Gone".to_owned(), None).await,
            Attempt::Failed { reason, retry_after_ms, .. } => self.failed(reason, retry_after_ms).await,
            Attempt::Turn(end) => self.end_turn(end).await,
        }
    }

    async fn update(&self, update: OutboxUpdate) {
        // The channel is bounded: when the store is slow, attempts wait here. It closes only when the router stops.
        let _ = self.updates.send(update).await;
    }

    async fn done(self, rejected: Option<String>) -> Outcome {
        let delivered_at = Some(self.world.clock.now());
        let (endpoint, id) = (self.delivery.endpoint.clone(), self.delivery.id);
        self.update(OutboxUpdate::Done { endpoint, id, delivered_at, rejected }).await;
        Outcome::Finished
    }

    async fn failed(mut self, reason: String, retry_after_ms: Option<u64>) -> Outcome {
        let now = self.world.clock.now();
        let delivery = &mut self.delivery;
        delivery.attempts += 1;
        let first_attempt_at = *delivery.first_attempt_at.get_or_insert(now);
        delivery.due_at = schedule::next_attempt(delivery.attempts, now, retry_after_ms);
        tracing::warn!(
            endpoint = ?delivery.endpoint,
            webhook_id = %delivery.webhook_id,
            attempts = delivery.attempts,
            %reason,
            "a delivery failed"
        );
        let update = OutboxUpdate::Retry {
            endpoint: delivery.endpoint.clone(),
            id: delivery.id,
            attempts: delivery.attempts,
            first_attempt_at,
            due_at: delivery.due_at,
            error: reason,
        };
        self.update(update).await;
        Outcome::Changed(Box::new(self.delivery))
    }

    /// Before the delivery is forgotten, so that a crash in between repeats it and with it the answer.
    async fn answer_handoff(&self, kind: &EndpointKind) {
        let (Some(epoch), EndpointKind::Hook { receiver, .. }) = (self.delivery.answers_handoff, kind) else { return };
        let told = self.router.handoff_answered(self.delivery.user_id.clone(), receiver.clone(), epoch).await;
        if let Err(failure) = told {
            tracing::warn!(user_id = %self.delivery.user_id, %failure, "a hand-off's answer could not be recorded");
        }
    }

    /// The answer and the end of the delivery are one commit, so an answer counts once. It is kept until it is in.
    async fn end_turn(self, end: TurnEnd) -> Outcome {
        loop {
            match self.router.end_turn(self.delivery.clone(), end.clone()).await {
                Ok(_) => return Outcome::Finished,
                Err(Failure::UnknownUser) => return self.done(None).await,
                Err(failure) => {
                    tracing::warn!(user_id = %self.delivery.user_id, %failure, "an IVA's answer could not be committed");
                    tokio::time::sleep(COMMIT_PAUSE).await;
                }
            }
        }
    }
}

fn label(attempt: &Attempt) -> &'static str {
    match attempt {
        Attempt::Accepted => "accepted",
        Attempt::Rejected(_) => "rejected",
        Attempt::Advanced { .. } => "replayed",
        Attempt::Postponed(_) => "postponed",
        Attempt::Failed { .. } => "failed",
        Attempt::Gone => "gone",
        Attempt::Void(_) => "void",
        Attempt::Turn(TurnEnd::Answered { .. }) => "turn_answered",
        Attempt::Turn(TurnEnd::Deferred) => "turn_deferred",
        Attempt::Turn(TurnEnd::Broke(_)) => "turn_broke",
    }
}

impl Actor for Courier {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Context<Self>) {
        self.advance(ctx);
    }
}

/// There may be something to do.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Wake;

impl Handler<Wake> for Courier {
    type Result = ();
    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        self.advance(ctx);
    }
}

/// An attempt came back.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Returned {
    user_id: UserId,
    outcome: Outcome,
}

impl Handler<Returned> for Courier {
    type Result = ();
    fn handle(&mut self, Returned { user_id, outcome }: Returned, ctx: &mut Context<Self>) {
        self.returned(user_id, outcome, ctx);
    }
}

/// The router stops.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct End;

impl Handler<End> for Courier {
    type Result = ();
    fn handle(&mut self, _: End, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
