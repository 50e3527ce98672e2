//! Registry actors: one on each arbiter. A registry finds, starts, restarts and passivates the conversation actors of its
//! share of threads.

use crate::{
    conversation::{Conversation, Retire},
    router::{Envelope, Failure},
    shell::{ShellSettings, World},
    timekeeper::Timers,
};
use actix::{Actor, Addr, ArbiterHandle, AsyncContext, Context, Handler, dev::SendError, fut::WrapFuture};
use std::{collections::HashMap, sync::Arc};
use tract_domain::{Timestamp, UserId};

/// A registry's mailbox: the commands in flight are bounded before it; this holds a burst of all of them and of timers.
const MAILBOX: usize = 16_384;

/// How many sweeps there are in the time after which an idle actor leaves.
const SWEEPS: u64 = 10;

/// See the module.
pub struct Registry {
    world: World,
    timers: Timers,
    cap: usize,
    passivate_after_ms: u64,
    index: HashMap<UserId, usize>,
    live: Vec<Live>,
    /// Where the search for an actor to passivate goes on: a clock's hand, which gives the recently used another round.
    hand: usize,
}

struct Live {
    user_id: UserId,
    addr: Addr<Conversation>,
    used_at: Timestamp,
    used: bool,
}

impl Registry {
    pub(crate) fn begin(
        arbiter: &ArbiterHandle,
        world: World,
        settings: &ShellSettings,
        registries: usize,
        timers: Timers,
    ) -> Addr<Self> {
        let cap = settings.live_actors.div_ceil(registries.max(1)).max(1);
        let passivate_after_ms = settings.passivate_after_ms;
        Self::start_in_arbiter(arbiter, move |ctx| {
            ctx.set_mailbox_capacity(MAILBOX);
            Self { world, timers, cap, passivate_after_ms, index: HashMap::new(), live: Vec::new(), hand: 0 }
        })
    }

    fn find_or_start(&mut self, user_id: &UserId, now: Timestamp) -> Addr<Conversation> {
        if let Some(live) = self.index.get(user_id).and_then(|at| self.live.get_mut(*at)) {
            live.used_at = now;
            live.used = true;
            return live.addr.clone();
        }
        while self.live.len() >= self.cap {
            self.evict_one();
        }
        let addr = Conversation::begin(user_id.clone(), self.world.clone(), self.timers.clone());
        self.index.insert(user_id.clone(), self.live.len());
        self.live.push(Live { user_id: user_id.clone(), addr: addr.clone(), used_at: now, used: true });
        metrics::gauge!("tract_live_actors").increment(1.0);
        addr
    }

    /// Takes the next actor that was not used since the hand last passed out of the directory.
    fn evict_one(&mut self) {
        loop {
            if self.hand >= self.live.len() {
                self.hand = 0;
            }
            let Some(live) = self.live.get_mut(self.hand) else { return };
            if live.used {
                live.used = false;
                self.hand += 1;
            } else {
                return self.remove(self.hand);
            }
        }
    }

    /// Out of the directory first, then the actor drains its mailbox, then it ends. A thread asked for meanwhile gets a
    /// second actor; the store's version check lets only one of them commit.
    fn remove(&mut self, at: usize) {
        let live = self.live.swap_remove(at);
        self.index.remove(&live.user_id);
        if let Some(moved) = self.live.get(at) {
            self.index.insert(moved.user_id.clone(), at);
        }
        live.addr.do_send(Retire);
        metrics::gauge!("tract_live_actors").decrement(1.0);
    }

    fn sweep(&mut self) {
        let now = self.world.clock.now();
        let mut at = 0;
        while at < self.live.len() {
            let live = &self.live[at];
            if now.since(live.used_at) >= self.passivate_after_ms || !live.addr.connected() {
                self.remove(at);
            } else {
                at += 1;
            }
        }
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let clock = Arc::clone(&self.world.clock);
        let every = (self.passivate_after_ms / SWEEPS).max(1);
        let me = ctx.address();
        ctx.spawn(
            async move {
                loop {
                    clock.sleep_until(clock.now().plus(every)).await;
                    if me.send(Sweep).await.is_err() {
                        return;
                    }
                }
            }
            .into_actor(self),
        );
    }
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Sweep;

impl Handler<Sweep> for Registry {
    type Result = ();
    fn handle(&mut self, _: Sweep, _: &mut Context<Self>) {
        self.sweep();
    }
}

/// A thread has left the store: its actor need not wait until it was idle for long. (After it has left, so that no other
/// actor takes up the thread while it leaves.)
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Dismiss(pub(crate) UserId);

impl Handler<Dismiss> for Registry {
    type Result = ();
    fn handle(&mut self, Dismiss(user_id): Dismiss, _: &mut Context<Self>) {
        if let Some(at) = self.index.get(&user_id).copied() {
            self.remove(at);
        }
    }
}

/// How many conversation actors are in memory.
#[derive(actix::Message)]
#[rtype(result = "usize")]
pub(crate) struct CountLive;

impl Handler<CountLive> for Registry {
    type Result = usize;
    fn handle(&mut self, _: CountLive, _: &mut Context<Self>) -> usize {
        self.live.len()
    }
}

impl Handler<Envelope> for Registry {
    type Result = ();

    fn handle(&mut self, envelope: Envelope, _: &mut Context<Self>) {
        let now = self.world.clock.now();
        let user_id = envelope.user_id.clone();
        let envelope = match self.find_or_start(&user_id, now).try_send(envelope) {
            Ok(()) => return,
            Err(SendError::Full(envelope)) => return envelope.answer(Err(Failure::Overloaded)),
            Err(SendError::Closed(envelope)) => envelope,
        };
        // It died: a fresh one begins from the store.
        tracing::warn!(%user_id, "a conversation actor failed and is started afresh");
        metrics::counter!("tract_actor_restarts_total").increment(1);
        if let Some(at) = self.index.get(&user_id).copied() {
            self.remove(at);
        }
        if let Err(SendError::Full(envelope) | SendError::Closed(envelope)) =
            self.find_or_start(&user_id, now).try_send(envelope)
        {
            envelope.answer(Err(Failure::Overloaded));
        }
    }
}
