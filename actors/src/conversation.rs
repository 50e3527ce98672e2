//! The conversation actor: holds one thread, takes one job at a time, and answers only what is durable.

use crate::{
    router::{Envelope, Job},
    shell::World,
    step::{self, Loaded},
    timekeeper::Timers,
};
use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, WrapFuture};
use tract_domain::UserId;

/// How many jobs may wait for one thread. A thread that has more waiting is one whose store or callers misbehave.
const MAILBOX: usize = 256;

/// See the module.
pub struct Conversation {
    user_id: UserId,
    world: World,
    timers: Timers,
    /// The thread as committed last; none until the first job, and after any doubt.
    loaded: Option<Loaded>,
}

impl Conversation {
    pub(crate) fn begin(user_id: UserId, world: World, timers: Timers) -> Addr<Self> {
        Self::create(|ctx| {
            ctx.set_mailbox_capacity(MAILBOX);
            Self { user_id, world, timers, loaded: None }
        })
    }
}

impl Actor for Conversation {
    type Context = Context<Self>;
}

impl Handler<Envelope> for Conversation {
    type Result = ();

    fn handle(&mut self, mut envelope: Envelope, ctx: &mut Context<Self>) {
        drop(envelope.queued.take());
        if matches!(envelope.job, Job::Panic) {
            die_for_test();
        }
        let (world, user_id, timers) = (self.world.clone(), self.user_id.clone(), self.timers.clone());
        let loaded = self.loaded.take();
        // The next job waits until this one is answered. Every wait on the store is bounded by the store.
        let job = async move {
            let (loaded, result) = step::run(&world, &timers, &user_id, loaded, &envelope.job, &envelope.stage).await;
            envelope.answer(result);
            loaded
        };
        ctx.wait(job.into_actor(self).map(|loaded, me, _| me.loaded = loaded));
    }
}

#[allow(clippy::panic, reason = "tests ask for it, to show that a failing actor harms nobody else")]
fn die_for_test() {
    panic!("a test asked this conversation actor to fail");
}

/// Leaves memory, after everything that was queued before.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Retire;

impl Handler<Retire> for Conversation {
    type Result = ();
    fn handle(&mut self, _: Retire, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
