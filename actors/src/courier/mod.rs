//! The courier of one endpoint: sends what waits for it, in commit order for each thread, concurrently across threads, and
//! tries again what failed. It holds a window of its backlog; the rest stays in the store. It owns the endpoint's breaker,
//! has it disabled, and makes dead letters of what waited too long (section 8).

mod errand;
mod verdict;
mod window;

pub(crate) use self::window::ENTRIES;

use self::{
    errand::{Came, Errand},
    verdict::{Fate, LastSuccess, Verdict},
    window::Window,
};
use crate::{
    breaker::Breaker,
    dispatch::{Inbox, Outcome},
    ports::{Delivery, Endpoint, EndpointKind, Held, KEPT_WHILE_DISABLED_MS, OutboxUpdate, Standing, StoreError},
    router::Router,
    shell::World,
    under_way::{Attempting, UnderWay},
};
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, ArbiterHandle, AsyncContext, Context, Handler, SpawnHandle, WrapFuture,
};
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    watch,
};
use tract_domain::{Timestamp, UserId};

/// The bounds of a courier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CourierSettings {
    /// Attempts in flight.
    pub(crate) attempts: usize,
    /// Deliveries in memory.
    pub(crate) window: usize,
}

/// How long to wait when the store does not answer, in milliseconds.
const PAUSE_MS: u64 = 1_000;

/// Dead letters that are made in one step, so that nobody's commit waits long behind it.
const BURY: usize = 500;

/// Where what became of attempts goes.
#[derive(Clone)]
pub(crate) struct Outcomes {
    pub(crate) updates: mpsc::Sender<Outcome>,
    pub(crate) under_way: Arc<UnderWay>,
}

/// See the module.
pub(crate) struct Courier {
    endpoint: Endpoint,
    is_iva: bool,
    inbox: Arc<Inbox>,
    world: World,
    router: Router,
    outcomes: Outcomes,
    settings: CourierSettings,
    /// The strands that this node acts for.
    held: watch::Receiver<Held>,
    window: Window,
    /// Counts the changes of those strands: what was asked of the store before one is asked again.
    holdings: u64,
    breaker: Breaker,
    /// As it was seen last. When it changes, everything is read anew.
    standing: Standing,
    /// Counts those changes: what was asked of the store before one does not count after it.
    era: u64,
    /// When the endpoint received something last; of the time before this process, once the store was read.
    last_success_at: Option<Timestamp>,
    /// A shared store is not read for it: it is asked when it matters, and a part that is away must not keep this from the
    /// others' backlogs.
    knows_the_past: bool,
    /// The store is being asked, for a page or to bury.
    asking: bool,
    /// It is being disabled.
    disabling: bool,
    in_flight: usize,
    /// Of those, the ones that set out in an era before.
    stale: usize,
    /// Of those in flight, the ones in which the endpoint is really tried.
    trying: usize,
    alarm: Option<(Timestamp, SpawnHandle)>,
    /// The router stops: what is in flight comes back, and nothing more sets out.
    ending: bool,
}

impl Courier {
    pub(crate) fn begin(
        arbiter: &ArbiterHandle,
        endpoint: Endpoint,
        inbox: Arc<Inbox>,
        world: World,
        router: Router,
        outcomes: Outcomes,
        settings: CourierSettings,
    ) -> Addr<Self> {
        Self::start_in_arbiter(arbiter, move |_| Self {
            is_iva: matches!(endpoint.kind(), EndpointKind::Iva { .. }),
            standing: world.tenants.standing(&endpoint),
            endpoint,
            inbox,
            held: world.store.held(),
            knows_the_past: world.store.is_shared(),
            world,
            router,
            outcomes,
            settings,
            window: Window::new(settings.window),
            holdings: 0,
            breaker: Breaker::default(),
            era: 0,
            last_success_at: None,
            asking: false,
            disabling: false,
            in_flight: 0,
            stale: 0,
            trying: 0,
            alarm: None,
            ending: false,
        })
    }

    fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    /// Does everything that can be done now.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        if self.ending {
            if self.in_flight == 0 {
                ctx.stop();
            }
            return;
        }
        let standing = self.world.tenants.standing(&self.endpoint);
        if standing != self.standing {
            self.begin_era(standing, ctx);
        }
        let held = self.held.borrow_and_update().clone();
        if self.window.hold(&held) {
            self.holdings += 1;
            // When to look next depends on what is held.
            self.set_alarm(None, ctx);
        }
        match standing {
            Standing::Disabled { at } => self.lie_low(at, ctx),
            Standing::Enabled { .. } if self.disabling => {}
            Standing::Enabled { .. } => self.send(ctx),
        }
    }

    /// The endpoint was enabled, disabled, or is another one now.
    fn begin_era(&mut self, standing: Standing, ctx: &mut Context<Self>) {
        self.standing = standing;
        self.era += 1;
        self.stale = self.in_flight;
        self.window.clear();
        self.breaker = Breaker::default();
        self.inbox.show_breaker(false);
        (self.asking, self.disabling) = (false, false);
        self.set_alarm(None, ctx);
    }

    fn send(&mut self, ctx: &mut Context<Self>) {
        self.take_in();
        self.read_on(ctx);
        let now = self.now();
        self.window.raise_due(now);
        while self.in_flight < self.settings.attempts && self.window.has_ready() {
            let admitted = self.breaker.admits(now, self.trying);
            if !admitted && !self.is_iva {
                break;
            }
            let Some(delivery) = self.window.take_up() else { break };
            self.set_out(delivery, admitted, ctx);
        }
        let probe = self.breaker.probe_at().filter(|_| self.window.has_ready() && self.trying == 0);
        let next = self.window.next_due().into_iter().chain(probe).min();
        self.set_alarm(next, ctx);
    }

    /// Takes what has been committed since.
    fn take_in(&mut self) {
        if self.asking {
            return;
        }
        let now = self.now();
        let (deliveries, missed) = self.inbox.take();
        for delivery in deliveries {
            self.window.hand_in(delivery, now);
        }
        missed.into_iter().for_each(|strand| self.window.fall_behind(strand));
    }

    /// Reads the backlog on, when there is one and room for it. What was in flight in the era before is waited for, lest
    /// it be sent twice at once.
    fn read_on(&mut self, ctx: &mut Context<Self>) {
        if self.asking || self.stale > 0 {
            return;
        }
        let parts = self.window.wants();
        if parts.is_empty() {
            return;
        }
        self.asking = true;
        let (store, endpoint, known) = (Arc::clone(&self.world.store), self.endpoint.clone(), self.knows_the_past);
        let read = async move {
            let success = if known { None } else { store.endpoint_status(&endpoint).await?.last_success_at };
            Ok::<_, StoreError>((success, parts.clone(), store.outbox(&endpoint, &parts).await?))
        };
        let (era, holdings) = (self.era, self.holdings);
        ctx.spawn(read.into_actor(self).map(move |read, me, ctx| {
            if me.era != era {
                return me.advance(ctx);
            }
            me.asking = false;
            if me.holdings != holdings {
                return me.advance(ctx);
            }
            match read {
                Ok((success, parts, pages)) => {
                    me.knows_the_past = true;
                    me.last_success_at = me.last_success_at.max(success);
                    let afresh = |page: Vec<Delivery>| page.into_iter().map(|delivery| me.afresh(delivery)).collect();
                    let pages = pages.into_iter().map(afresh).collect();
                    me.window.read(&parts, pages, me.now());
                    me.advance(ctx);
                }
                Err(error) => {
                    tracing::warn!(endpoint = ?me.endpoint, %error, "a backlog could not be read");
                    me.wake_in(PAUSE_MS, ctx);
                }
            }
        }));
    }

    /// What failed before the endpoint was enabled has its schedule begin afresh.
    fn afresh(&self, mut delivery: Delivery) -> Delivery {
        if let Standing::Enabled { since } = self.standing
            && delivery.first_attempt_at.is_some_and(|first| first < since)
        {
            (delivery.attempts, delivery.first_attempt_at) = (0, None);
            delivery.due_at = delivery.created_at;
        }
        delivery
    }

    /// Nothing is sent to a disabled endpoint; what has waited for an hour becomes dead letters.
    fn lie_low(&mut self, disabled_at: Timestamp, ctx: &mut Context<Self>) {
        if self.asking {
            return;
        }
        // It is all in the store.
        drop(self.inbox.take());
        if self.alarm.is_some() {
            return;
        }
        let (now, first) = (self.now(), disabled_at.plus(KEPT_WHILE_DISABLED_MS));
        if now < first {
            return self.set_alarm(Some(first), ctx);
        }
        self.asking = true;
        let (store, endpoint, era) = (Arc::clone(&self.world.store), self.endpoint.clone(), self.era);
        let before = Timestamp(now.0.saturating_sub_unsigned(KEPT_WHILE_DISABLED_MS));
        let held: Vec<(u16, u64)> = self.held.borrow().all_active().collect();
        let bury = async move { store.bury(&endpoint, &held, before, BURY, now).await };
        ctx.spawn(bury.into_actor(self).map(move |buried, me, ctx| {
            if me.era != era {
                return me.advance(ctx);
            }
            me.asking = false;
            match buried {
                Ok(buried) => {
                    if buried.count > 0 {
                        metrics::counter!("tract_deliveries_total", "result" => "dead").increment(buried.count);
                        tracing::warn!(endpoint = ?me.endpoint, deliveries = buried.count,
                            "became dead letters: their endpoint has been disabled for over an hour");
                    }
                    match buried.oldest.map(|oldest| oldest.plus(KEPT_WHILE_DISABLED_MS)) {
                        Some(next) if next > me.now() => me.set_alarm(Some(next), ctx),
                        Some(_) => me.advance(ctx),
                        // Nothing waited then; but what came since, perhaps in the same transaction, has its hour too.
                        None => {
                            let (came, missed) = me.inbox.take();
                            if !missed.is_empty() || !came.is_empty() {
                                me.advance(ctx);
                            }
                            // The next one to arrive wakes it.
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(endpoint = ?me.endpoint, %error, "dead letters could not be made");
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

    fn set_alarm(&mut self, next: Option<Timestamp>, ctx: &mut Context<Self>) {
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

    /// Has an attempt made; of an IVA's turn that is not admitted, an end without one.
    fn set_out(&mut self, delivery: Delivery, admitted: bool, ctx: &mut Context<Self>) {
        self.in_flight += 1;
        self.trying += usize::from(admitted);
        let (me, world, router) = (ctx.address(), self.world.clone(), self.router.clone());
        let (era, epoch) = (self.era, self.window.epoch(delivery.strand).unwrap_or_default());
        let attempting = self.outcomes.under_way.begin(delivery.strand);
        self.world.network.spawn(async move {
            let errand = Errand { world, router, delivery, epoch };
            let run = async { if admitted { errand.run().await } else { errand.break_turn().await } };
            let came = AssertUnwindSafe(run).catch_unwind().await.unwrap_or(Came::Died);
            let received = errand.last_success(&came).await;
            let delivery = Box::new(errand.delivery);
            me.do_send(Returned { delivery, era, epoch, tried: admitted, came, received, attempting });
        });
    }

    /// An attempt came back: what it means is worked out, told to the store, and only then the thread goes on.
    fn returned(&mut self, returned: Returned, ctx: &mut Context<Self>) {
        let Returned { delivery, era, epoch, tried, came, received, attempting } = returned;
        self.trying -= usize::from(tried);
        self.last_success_at = self.last_success_at.max(received.at);
        let now = self.now();
        let success = LastSuccess { at: self.last_success_at, ..received };
        let Verdict { reached, change, fate, disable } = verdict::of(*delivery, came, success, now);
        match reached {
            Some(true) => {
                self.breaker.succeeded();
                self.last_success_at = Some(now);
            }
            Some(false) => self.breaker.failed(now),
            None => {}
        }
        self.inbox.show_breaker(self.breaker.is_open());
        if let Some(reason) = disable {
            self.disable(reason, ctx);
        }
        let update = change.map(|change| {
            let (Fate::Over(delivery) | Fate::Changed(delivery)) = &fate;
            OutboxUpdate { endpoint: self.endpoint.clone(), id: delivery.id, epoch, change }
        });
        let Some(update) = update else { return self.go_on(fate, era, epoch, ctx) };
        // Until it is written, the attempt is under way.
        match self.outcomes.updates.try_send(Outcome { update, attempting }) {
            // The channel is bounded: when the store is slow, threads wait here.
            Err(TrySendError::Full(outcome)) => {
                let updates = self.outcomes.updates.clone();
                let told = async move {
                    let _ = updates.send(outcome).await;
                };
                ctx.spawn(told.into_actor(self).map(move |(), me, ctx| me.go_on(fate, era, epoch, ctx)));
            }
            // It closes only when the router stops.
            Ok(()) | Err(TrySendError::Closed(_)) => self.go_on(fate, era, epoch, ctx),
        }
    }

    fn go_on(&mut self, fate: Fate, era: u64, epoch: u64, ctx: &mut Context<Self>) {
        self.in_flight -= 1;
        self.stale -= usize::from(era != self.era);
        let now = self.now();
        let (Fate::Over(delivery) | Fate::Changed(delivery)) = &fate;
        if self.window.epoch(delivery.strand) != Some(epoch) {
            // Its strand has passed on, and perhaps come back: then it was read anew.
            return self.advance(ctx);
        }
        match fate {
            Fate::Changed(delivery) => self.window.changed(*delivery, now),
            Fate::Over(delivery) => {
                let next = self.window.finished(&delivery, now);
                self.read_lane(delivery.user_id.clone(), (delivery.strand, epoch), next, ctx);
            }
        }
        self.advance(ctx);
    }

    /// Has the endpoint disabled. Nothing more is sent to it from now on.
    fn disable(&mut self, reason: String, ctx: &mut Context<Self>) {
        let Standing::Enabled { since } = self.standing else { return };
        if std::mem::replace(&mut self.disabling, true) {
            return;
        }
        metrics::counter!("tract_endpoints_disabled_total").increment(1);
        let (tenants, endpoint, clock) =
            (Arc::clone(&self.world.tenants), self.endpoint.clone(), Arc::clone(&self.world.clock));
        let at = self.now();
        let disabled = self.world.network.spawn(async move {
            while let Err(error) = tenants.disable(&endpoint, since, at, &reason).await {
                tracing::error!(?endpoint, %error, "an endpoint could not be disabled; trying again");
                clock.sleep_until(clock.now().plus(PAUSE_MS)).await;
            }
        });
        let era = self.era;
        ctx.spawn(disabled.into_actor(self).map(move |_, me, ctx| {
            // Unless somebody enabled it anew at this very moment, its standing tells now.
            if me.era == era {
                me.disabling = false;
            }
            me.advance(ctx);
        }));
    }

    /// Reads a thread's next deliveries, if there are any that were left in the store; `of` is its strand and the epoch.
    fn read_lane(&mut self, user_id: UserId, of: (u16, u64), next: Vec<u64>, ctx: &mut Context<Self>) {
        if next.is_empty() {
            return;
        }
        let (store, endpoint) = (Arc::clone(&self.world.store), self.endpoint.clone());
        let era = self.era;
        let is_past = move |me: &Self| me.era != era || me.window.epoch(of.0) != Some(of.1);
        let read = async move {
            let page = store.outbox_by_id(&endpoint, &next).await;
            (page, next)
        };
        ctx.spawn(read.into_actor(self).map(move |(page, next), me, ctx| {
            if is_past(me) {
                return;
            }
            match page {
                Ok(page) => {
                    let page = page.into_iter().map(|delivery| me.afresh(delivery)).collect();
                    let further = me.window.lane_read(&user_id, page, me.now());
                    me.read_lane(user_id, of, further, ctx);
                    me.advance(ctx);
                }
                Err(error) => {
                    tracing::warn!(endpoint = ?me.endpoint, %error, "a thread's backlog could not be read");
                    let clock = Arc::clone(&me.world.clock);
                    let sleep = async move { clock.sleep_until(clock.now().plus(PAUSE_MS)).await };
                    ctx.spawn(sleep.into_actor(me).map(move |(), me, ctx| {
                        if !is_past(me) {
                            me.read_lane(user_id, of, next, ctx);
                        }
                    }));
                }
            }
        }));
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
    delivery: Box<Delivery>,
    era: u64,
    /// The epoch of the lease that it was made under.
    epoch: u64,
    tried: bool,
    came: Came,
    /// When the endpoint last received anything from any node, where that was asked for.
    received: LastSuccess,
    attempting: Attempting,
}

impl Handler<Returned> for Courier {
    type Result = ();
    fn handle(&mut self, returned: Returned, ctx: &mut Context<Self>) {
        self.returned(returned, ctx);
    }
}

/// The router stops.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct End;

impl Handler<End> for Courier {
    type Result = ();
    fn handle(&mut self, _: End, ctx: &mut Context<Self>) {
        self.ending = true;
        self.advance(ctx);
    }
}
