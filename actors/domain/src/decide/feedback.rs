//! What a customer thinks of a conversation (section 10).

use crate::{Event, Feedback, Refusal, Reply, State, Transition, change::Change};

/// Within this time after feedback, more of it is a duplicate; in milliseconds.
const AGAIN_MS: u64 = 60 * 60 * 1000;

pub(crate) fn given(mut change: Change<'_>, feedback: &Feedback) -> Result<Transition, Refusal> {
    if change.state() == State::None {
        return Err(Refusal::NoConversation);
    }
    let now = change.ctx.now;
    if change.thread.feedback_at.is_some_and(|at| now.since(at) < AGAIN_MS) {
        return Err(Refusal::DuplicateFeedback);
    }
    change.thread.feedback_at = Some(now);
    change.report(Event::Feedback(feedback.clone()));
    Ok(change.done(Reply::Done))
}
