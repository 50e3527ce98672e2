//! What time and configuration bring about.

use super::{control, handoff};
use crate::{
    Cause, Completion, ControlAction, DeadlineKind, Reply, Transition,
    change::{Change, End, Move, state_change},
};

/// Carries out everything that is due, earliest first; none if nothing is.
pub(crate) fn settle(mut change: Change<'_>) -> Option<Transition> {
    let mut settled = replace_removed(&mut change);
    while let Some(kind) = earliest_due(&change) {
        match kind {
            DeadlineKind::Handoff => handoff::unanswered(&mut change),
            DeadlineKind::Offer => control::offer_expired(&mut change),
            DeadlineKind::Request => control::request_expired(&mut change),
            DeadlineKind::Countdown => handoff::counted_down(&mut change),
            DeadlineKind::Idle => fell_silent(&mut change),
        }
        settled = true;
    }
    settled.then(|| change.done(Reply::Done))
}

/// Each deadline that fires takes away what it was for or sets it to a later time, so this ends.
fn earliest_due(change: &Change<'_>) -> Option<DeadlineKind> {
    let due = change.thread.deadlines(change.ctx.policy).into_iter().filter(|(_, at)| *at <= change.ctx.now);
    due.min_by_key(|(kind, at)| (*at, *kind)).map(|(kind, _)| kind)
}

fn fell_silent(change: &mut Change<'_>) {
    let (completion, cause) = (Completion::Auto, Cause::IdleTimeout);
    change.complete(End { completion, cause, by: None, metadata: None, stays: false });
}

/// The holder is no longer a receiver of the client: the default receiver gets the thread.
fn replace_removed(change: &mut Change<'_>) -> bool {
    let policy = change.ctx.policy;
    if policy.receiver(change.active()).is_some() {
        return false;
    }
    let cause = Cause::ReceiverRemoved;
    let tried = vec![change.active().clone()];
    let is_open = change.state().is_open();
    change.give(Move {
        to: &policy.default_receiver,
        action: ControlAction::Pass,
        cause,
        by: None,
        metadata: None,
        handoff: is_open.then_some(tried),
    });
    if is_open {
        change.enter(change.phase_of_holder(), state_change(cause, None));
    }
    true
}
