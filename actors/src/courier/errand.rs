//! One attempt at a delivery, away from the courier: on the network's runtime, since an arbiter's thread must never wait
//! for a connection.

use super::verdict::{self, LastSuccess};
use crate::{
    ports::{Attempt, AttemptRecord, Attempted, Delivery, EndpointKind, TurnEnd},
    router::{Failure, Router},
    shell::World,
};
use std::time::Duration;

/// How long to wait before an IVA's answer that could not be committed is committed again.
const COMMIT_PAUSE: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Errand {
    pub(super) world: World,
    pub(super) router: Router,
    pub(super) delivery: Delivery,
    /// The epoch of the lease on the delivery's strand.
    pub(super) epoch: u64,
}

/// What a courier learns of an attempt.
#[derive(Debug)]
pub(super) enum Came {
    /// What the endpoint made of it.
    Back {
        /// The outcome; not the end of a turn.
        attempted: Attempted,
        /// The attempt, as it is kept.
        record: AttemptRecord,
    },
    /// A turn of the IVA is over, and so is its delivery: both were one commit.
    TurnOver {
        /// Whether the IVA was there; none if it was not asked.
        reached: Option<bool>,
    },
    /// Its strand has passed on to another node, which begins the delivery anew.
    Superseded,
    /// The attempt itself failed: a bug.
    Died,
}

impl Errand {
    /// When the endpoint last received anything, if other nodes deliver to it too and that decides what becomes of it.
    pub(super) async fn last_success(&self, came: &Came) -> LastSuccess {
        let World { store, .. } = &self.world;
        if !store.is_shared() || !verdict::asks_for_the_last_success(&self.delivery, came) {
            return LastSuccess::default();
        }
        match store.endpoint_status(&self.delivery.endpoint).await {
            Ok(status) => LastSuccess { at: status.last_success_at, is_unsure: false },
            Err(_) => LastSuccess { at: None, is_unsure: true },
        }
    }

    /// Makes the attempt, and tells the thread what came of it where that is the thread's business.
    pub(super) async fn run(&self) -> Came {
        let at = self.world.clock.now();
        let attempted = self.world.deliverer.attempt(&self.delivery).await;
        let latency_ms = self.world.clock.now().since(at);
        let kind = self.delivery.endpoint.kind();
        metrics::counter!("tract_deliveries_total", "result" => label(&attempted)).increment(1);
        if self.delivery.attempts > 0 {
            metrics::counter!("tract_delivery_retries_total").increment(1);
        }
        let error = match &attempted.outcome {
            Attempt::Turn(end) => return self.end_turn(end.clone(), Some(was_reached(&attempted))).await,
            // The IVA is not asked again: whatever went wrong is a bot break.
            Attempt::Failed { reason, .. } if matches!(kind, EndpointKind::Iva { .. }) => {
                return self.end_turn(TurnEnd::Broke(reason.clone()), Some(false)).await;
            }
            Attempt::Accepted => {
                self.answer_handoff(&kind).await;
                None
            }
            Attempt::Rejected(error) => Some(error.clone()),
            Attempt::Failed { reason, .. } => Some(reason.clone()),
            Attempt::Gone => Some("410 Gone".to_owned()),
            Attempt::Postponed(_) | Attempt::Void(_) => None,
        };
        let record = AttemptRecord { at, status: attempted.status, latency_ms, error };
        Came::Back { attempted, record }
    }

    /// Ends a turn without asking the IVA, which has not been there for a while.
    pub(super) async fn break_turn(&self) -> Came {
        metrics::counter!("tract_deliveries_total", "result" => "turn_not_asked").increment(1);
        self.end_turn(TurnEnd::Broke("the bot has not answered for a while and is not asked".to_owned()), None).await
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
    async fn end_turn(&self, end: TurnEnd, reached: Option<bool>) -> Came {
        loop {
            match self.router.end_turn(self.delivery.clone(), self.epoch, end.clone()).await {
                Ok(_) => return Came::TurnOver { reached },
                Err(Failure::UnknownUser) => {
                    let (outcome, at) = (Attempt::Void("the thread is gone".to_owned()), self.world.clock.now());
                    let record = AttemptRecord { at, status: None, latency_ms: 0, error: None };
                    return Came::Back { attempted: Attempted { outcome, status: None, of: None }, record };
                }
                Err(Failure::Superseded) => return Came::Superseded,
                Err(failure) => {
                    tracing::warn!(user_id = %self.delivery.user_id, %failure, "an IVA's answer could not be committed");
                    tokio::time::sleep(COMMIT_PAUSE).await;
                }
            }
        }
    }
}

/// An answer that is no use is a bot break, but the IVA was there: others' questions must not suffer for it.
fn was_reached(attempted: &Attempted) -> bool {
    matches!(attempted.status, Some(200 | 202))
}

fn label(attempted: &Attempted) -> &'static str {
    match &attempted.outcome {
        Attempt::Accepted | Attempt::Rejected(_) if attempted.of.is_some() => "replayed",
        Attempt::Accepted => "accepted",
        Attempt::Rejected(_) => "rejected",
        Attempt::Postponed(_) => "postponed",
        Attempt::Failed { .. } => "failed",
        Attempt::Gone => "gone",
        Attempt::Void(_) => "void",
        Attempt::Turn(TurnEnd::Answered { .. }) => "turn_answered",
        Attempt::Turn(TurnEnd::Deferred) => "turn_deferred",
        Attempt::Turn(TurnEnd::Broke(_)) => "turn_broke",
    }
}
