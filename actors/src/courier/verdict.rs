//! What an attempt that came back means for its delivery and its endpoint. Pure: times come in as values.

use super::{PAUSE_MS, errand::Came};
use crate::{
    ports::{Attempt, AttemptRecord, Attempted, Delivery, End, OutboxChange, What},
    schedule::{self, Failed, Next},
};
use tract_domain::Timestamp;

/// See the module.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Whether the endpoint was there; none if it was not tried.
    pub(super) reached: Option<bool>,
    /// What the store is to know.
    pub(super) change: Option<OutboxChange>,
    /// What becomes of the delivery in its lane.
    pub(super) fate: Fate,
    /// The endpoint is to be disabled, for this reason.
    pub(super) disable: Option<String>,
}

/// What becomes of a delivery in its lane.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is over.
    Over(Box<Delivery>),
    /// It is to be tried (on) as it stands now.
    Changed(Box<Delivery>),
}

/// When an endpoint last received anything.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastSuccess {
    /// As far as is known.
    pub(super) at: Option<Timestamp>,
    /// Other nodes may know better, and the store did not say.
    pub(super) is_unsure: bool,
}

/// Whether the verdict depends on when the endpoint last received anything, from whichever node.
pub(super) fn asks_for_the_last_success(delivery: &Delivery, came: &Came) -> bool {
    let Came::Back { attempted: Attempted { outcome: Attempt::Failed { .. }, .. }, record } = came else {
        return false;
    };
    schedule::is_last(&failure(delivery, record, None))
}

/// A delivery that failed (again).
fn failure(delivery: &Delivery, attempt: &AttemptRecord, retry_after_ms: Option<u64>) -> Failed {
    let (id, attempts, at) = (delivery.id, delivery.attempts + 1, attempt.ended_at());
    let first_attempt_at = delivery.first_attempt_at.unwrap_or(attempt.at);
    Failed { id, attempts, first_attempt_at, at, retry_after_ms }
}

/// The verdict on an attempt, by when its endpoint last received anything.
pub(super) fn of(delivery: Delivery, came: Came, success: LastSuccess, now: Timestamp) -> Verdict {
    let (attempted, record) = match came {
        Came::Back { attempted, record } => (attempted, record),
        Came::TurnOver { reached } => {
            return Verdict { reached, change: None, fate: Fate::Over(Box::new(delivery)), disable: None };
        }
        // Until the courier hears of it too.
        Came::Superseded => return later(delivery, now),
        Came::Died => {
            tracing::error!(endpoint = ?delivery.endpoint, "an attempt at a delivery failed inside the router");
            return later(delivery, now);
        }
    };
    let Attempted { outcome, of, .. } = attempted;
    match outcome {
        Attempt::Accepted => {
            if of.is_none() && delivery.attempts == 0 && !delivery.replayed {
                let waited_ms = now.since(delivery.created_at);
                metrics::histogram!("tract_delivery_seconds").record(waited_ms as f64 / 1000.0);
            }
            received(delivery, End::Delivered, of, record)
        }
        Attempt::Rejected(_) => {
            tracing::info!(endpoint = ?delivery.endpoint, webhook_id = %delivery.webhook_id, "rejected");
            received(delivery, End::Rejected, of, record)
        }
        Attempt::Void(reason) => {
            tracing::debug!(endpoint = ?delivery.endpoint, %reason, "nothing to deliver");
            let change = Some(OutboxChange::Void);
            Verdict { reached: None, change, fate: Fate::Over(Box::new(delivery)), disable: None }
        }
        Attempt::Postponed(reason) => {
            tracing::warn!(endpoint = ?delivery.endpoint, %reason, "a delivery is postponed");
            later(delivery, now)
        }
        Attempt::Gone => failed(delivery, record, of, None, |_| Next::Disable),
        Attempt::Failed { retry_after_ms, .. } => {
            failed(delivery, record, of, retry_after_ms, |failed| match schedule::next(failed, success.at) {
                // An endpoint is not disabled for want of an answer.
                Next::Disable if success.is_unsure => Next::Retry(schedule::once_more(failed)),
                next => next,
            })
        }
        // A turn is over once its end is committed, and then comes back as such.
        Attempt::Turn(_) => later(delivery, now),
    }
}

/// No attempt was made; it is soon.
fn later(mut delivery: Delivery, now: Timestamp) -> Verdict {
    delivery.due_at = now.plus(PAUSE_MS);
    Verdict { reached: None, change: None, fate: Fate::Changed(Box::new(delivery)), disable: None }
}

fn received(delivery: Delivery, end: End, of: Option<u64>, attempt: AttemptRecord) -> Verdict {
    let (change, fate) = over(delivery, end, of, attempt);
    Verdict { reached: Some(true), change: Some(change), fate, disable: None }
}

/// The delivery is over, or one message of its range is and the range goes on after it.
fn over(mut delivery: Delivery, end: End, of: Option<u64>, attempt: AttemptRecord) -> (OutboxChange, Fate) {
    match (of, delivery.what) {
        (Some(after), What::History { through, .. }) => {
            delivery.what = What::History { after, through };
            // Each message of a range has a schedule of its own.
            (delivery.attempts, delivery.first_attempt_at) = (0, None);
            (OutboxChange::Over { end, attempt, of }, Fate::Changed(Box::new(delivery)))
        }
        _ => (OutboxChange::Over { end, attempt, of: None }, Fate::Over(Box::new(delivery))),
    }
}

fn failed(
    mut delivery: Delivery,
    attempt: AttemptRecord,
    of: Option<u64>,
    retry_after_ms: Option<u64>,
    next: impl FnOnce(Failed) -> Next,
) -> Verdict {
    let reason = attempt.error.clone().unwrap_or_default();
    let failure = failure(&delivery, &attempt, retry_after_ms);
    let Failed { attempts, first_attempt_at, at, .. } = failure;
    (delivery.attempts, delivery.first_attempt_at) = (attempts, Some(first_attempt_at));
    let next = next(failure);
    let (endpoint, webhook_id) = (&delivery.endpoint, &delivery.webhook_id);
    let due_at = match next {
        Next::Retry(due_at) => {
            tracing::warn!(?endpoint, %webhook_id, attempts, %reason, "a delivery failed");
            due_at
        }
        // Kept, with the others, for when the endpoint is enabled.
        Next::Disable => {
            tracing::warn!(?endpoint, %webhook_id, attempts, %reason, "a delivery failed; its endpoint is to be disabled");
            at
        }
        Next::Dead => {
            tracing::warn!(?endpoint, %webhook_id, attempts, %reason, "a delivery is given up: a dead letter");
            metrics::counter!("tract_deliveries_total", "result" => "dead").increment(1);
            let (change, fate) = over(delivery, End::Dead, of, attempt);
            return Verdict { reached: Some(false), change: Some(change), fate, disable: None };
        }
    };
    delivery.due_at = due_at;
    let times = if attempts == 1 { "attempt" } else { "attempts" };
    let disable = (next == Next::Disable).then(|| format!("{reason}, after {attempts} {times}"));
    let change = Some(OutboxChange::Retry { attempts, first_attempt_at, due_at, attempt, of });
    Verdict { reached: Some(false), change, fate: Fate::Changed(Box::new(delivery)), disable }
}

#[cfg(test)]
#[path = "verdict/tests.rs"]
mod tests;
