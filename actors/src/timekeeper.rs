//! The timekeeper: fires the stored deadlines of all threads, also of those that no actor holds, also after a restart.

use crate::{
    ports::{Clock, Store},
    router::Router,
    shell::World,
};
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, ArbiterHandle, AsyncContext, Context, Handler, SpawnHandle, WrapFuture,
};
use futures_util::{StreamExt, stream};
use std::sync::{Arc, PoisonError, RwLock};
use tract_domain::Timestamp;

/// How many due threads are read at once.
const PAGE: usize = 256;

/// How many of them settle at the same time: a flood of due deadlines leaves room for everyone else.
const ABREAST: usize = 16;

/// How long to wait when the store does not answer, in milliseconds.
const PAUSE_MS: u64 = 1_000;

/// How long to sleep at most when other nodes store deadlines too and are to tell, in milliseconds: their word may be lost.
const LOOK_MS: u64 = 2_000;

/// How often expired idempotency records are forgotten, in milliseconds.
const FORGET_MS: u64 = 10 * 60 * 1_000;

/// See the module.
pub struct Timekeeper {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    router: Option<Router>,
    /// When it looks next.
    next: Option<Timestamp>,
    sleep: Option<SpawnHandle>,
    /// A round is under way, which will look at the store again.
    busy: bool,
    /// A deadline that came up while a round was under way.
    nudged: Option<Timestamp>,
    forget_at: Timestamp,
}

impl Timekeeper {
    fn begin(arbiter: &ArbiterHandle, world: &World) -> Addr<Self> {
        let (store, clock) = (Arc::clone(&world.store), Arc::clone(&world.clock));
        Self::start_in_arbiter(arbiter, move |ctx| {
            // Nudges are tiny and come with commits, which are bounded.
            ctx.set_mailbox_capacity(16_384);
            let forget_at = clock.now().plus(FORGET_MS);
            Self { store, clock, router: None, next: None, sleep: None, busy: false, nudged: None, forget_at }
        })
    }

    fn sleep_until(&mut self, at: Timestamp, ctx: &mut Context<Self>) {
        if let Some(sleep) = self.sleep.take() {
            ctx.cancel_future(sleep);
        }
        self.next = Some(at);
        let clock = Arc::clone(&self.clock);
        let sleep = async move { clock.sleep_until(at).await };
        self.sleep = Some(ctx.spawn(sleep.into_actor(self).map(|(), me, ctx| me.round(ctx))));
    }

    fn round(&mut self, ctx: &mut Context<Self>) {
        let Some(router) = self.router.clone() else { return };
        (self.busy, self.sleep, self.next) = (true, None, None);
        let now = self.clock.now();
        let forget = now >= self.forget_at;
        if forget {
            self.forget_at = now.plus(FORGET_MS);
        }
        let (store, clock, forget_at) = (Arc::clone(&self.store), Arc::clone(&self.clock), self.forget_at);
        let round = async move {
            if forget {
                forget_expired(&*store, now).await;
            }
            let next = settle_due(&*store, &*clock, &router).await;
            next.map_or(forget_at, |next| next.min(forget_at))
        };
        ctx.spawn(round.into_actor(self).map(|next, me, ctx| {
            me.busy = false;
            let next = me.nudged.take().map_or(next, |nudged| next.min(nudged));
            me.sleep_until(next, ctx);
        }));
    }
}

/// Forgets all expired answers, a bounded number in each step.
async fn forget_expired(store: &dyn Store, now: Timestamp) {
    loop {
        match store.forget_expired(now).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return tracing::warn!(%error, "expired answers could not be forgotten"),
        }
    }
}

/// Settles everything that is due; returns when to look again.
async fn settle_due(store: &dyn Store, clock: &dyn Clock, router: &Router) -> Option<Timestamp> {
    loop {
        let now = clock.now();
        let strands: Vec<u16> = store.held().borrow().all_active().map(|(strand, _)| strand).collect();
        let due = match store.due(&strands, now, PAGE).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "due deadlines could not be read");
                return Some(now.plus(PAUSE_MS));
            }
        };
        if due.is_empty() {
            let look = store.is_shared().then(|| now.plus(LOOK_MS));
            return match store.next_due(&strands).await {
                Ok(next) => next.into_iter().chain(look).min(),
                Err(_) => Some(now.plus(PAUSE_MS)),
            };
        }
        let failed = stream::iter(due)
            .map(|user_id| async move {
                let settled = router.settle(user_id.clone()).await;
                if let Err(failure) = &settled {
                    tracing::warn!(%user_id, %failure, "a due deadline could not be carried out");
                }
                settled.is_err()
            })
            .buffer_unordered(ABREAST)
            // All of them: one that cannot be settled must not keep the others from it.
            .fold(false, |any, failed| async move { any | failed })
            .await;
        metrics::counter!("tract_timer_rounds_total").increment(1);
        if failed {
            return Some(clock.now().plus(PAUSE_MS));
        }
    }
}

/// The handle to the timekeeper, whichever is alive. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Timers(Arc<RwLock<Addr<Timekeeper>>>);

impl Timers {
    pub(crate) fn begin(arbiter: &ArbiterHandle, world: &World) -> Self {
        Self(Arc::new(RwLock::new(Timekeeper::begin(arbiter, world))))
    }
    fn addr(&self) -> Addr<Timekeeper> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// The registries run: deadlines may fire.
    pub(crate) fn go(&self, router: Router) {
        self.addr().do_send(Begin(router));
    }
    /// A deadline was stored. Should the timekeeper be dead, the next one reads it from the store.
    pub(crate) fn nudge(&self, at: Timestamp) {
        self.0.read().unwrap_or_else(PoisonError::into_inner).do_send(Nudge(at));
    }
    /// Starts the timekeeper afresh if it has died.
    pub(crate) fn revive(&self, arbiter: &ArbiterHandle, world: &World, router: &Router) {
        if !self.addr().connected() {
            tracing::error!("the timekeeper failed and is started afresh");
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = Timekeeper::begin(arbiter, world);
            self.go(router.clone());
        }
    }
    /// The router stops.
    pub(crate) fn end(&self) {
        self.addr().do_send(End);
    }
}

impl Actor for Timekeeper {
    type Context = Context<Self>;
}

/// The registries run: begin.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Begin(Router);

impl Handler<Begin> for Timekeeper {
    type Result = ();
    fn handle(&mut self, Begin(router): Begin, ctx: &mut Context<Self>) {
        self.router = Some(router);
        self.round(ctx);
    }
}

/// A deadline was stored.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Nudge(Timestamp);

impl Handler<Nudge> for Timekeeper {
    type Result = ();
    fn handle(&mut self, Nudge(at): Nudge, ctx: &mut Context<Self>) {
        if self.busy {
            self.nudged = Some(self.nudged.map_or(at, |nudged| nudged.min(at)));
        } else if self.next.is_none_or(|next| at < next) {
            self.sleep_until(at, ctx);
        }
    }
}

/// The router stops.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct End;

impl Handler<End> for Timekeeper {
    type Result = ();
    fn handle(&mut self, _: End, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
