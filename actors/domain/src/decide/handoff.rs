//! Hand-offs: moves to an agent tool that has yet to answer, and the chain that catches them when it does not.

use crate::{
    Cause, ControlAction, Event, Json, Message, ReceiverId, ReceiverKind, Refusal, Reply, Sender, State, Transition,
    Turn,
    change::{Change, Move, state_change},
    entry::IvaNote,
    thread::Countdown,
};

/// A webhook of the hand-off was answered with a 2xx without error.
pub(crate) fn answered(mut change: Change<'_>, by: &ReceiverId, epoch: u64) -> Transition {
    if change.answers_handoff(by) == Some(epoch) {
        change.thread.control.handoff = None;
    }
    change.done(Reply::Done)
}

/// `send_chat_to_agent`: a hand-off after a countdown; a chat that is with an agent tool already stays there.
pub(crate) fn count_down(
    mut change: Change<'_>,
    countdown_ms: u64,
    metadata: Option<&Json>,
) -> Result<Transition, Refusal> {
    change.require_state("send_chat_to_agent", State::is_open)?;
    if change.state() == State::Bot {
        change.thread.countdown =
            Some(Countdown { at: change.ctx.now.plus(countdown_ms), metadata: metadata.cloned() });
    }
    Ok(change.done(Reply::Done))
}

/// The countdown has ended.
pub(crate) fn counted_down(change: &mut Change<'_>) {
    let Some(countdown) = change.thread.countdown.take() else { return };
    if change.state() == State::Bot && !to_agent(change, None, Cause::SendToAgent, None, countdown.metadata.as_ref()) {
        note(change, IvaNote::NoReceiver, None);
    }
}

/// Hands an open conversation to the first healthy agent tool of: `wanted`, the client's hand-off receiver, the fallback
/// chain. False if there is none.
pub(crate) fn to_agent(
    change: &mut Change<'_>,
    wanted: Option<&ReceiverId>,
    cause: Cause,
    by: Option<&ReceiverId>,
    metadata: Option<&Json>,
) -> bool {
    let policy = change.ctx.policy;
    let takes = |r: &&ReceiverId| policy.healthy(r) && policy.kind(r) != Some(ReceiverKind::Iva);
    let found = wanted.into_iter().chain(&policy.handoff_receiver).chain(&policy.fallback).find(takes).cloned();
    let Some(to) = found else { return false };
    change.give(Move { to: &to, action: ControlAction::Pass, cause, by, metadata, handoff: Some(Vec::new()) });
    change.enter(change.phase_of_holder(), state_change(cause, by));
    true
}

/// Nobody answered the hand-off in time: the next in the chain, else the default receiver.
pub(crate) fn unanswered(change: &mut Change<'_>) {
    let Some(handoff) = change.thread.control.handoff.take() else { return };
    let policy = change.ctx.policy;
    let silent = change.active().clone();
    let mut tried = handoff.tried;
    tried.push(silent.clone());
    let next = policy.fallback.iter().find(|r| !tried.contains(r) && policy.healthy(r));
    let (to, cause) = match next {
        Some(next) => (next, Cause::Fallback),
        None if policy.default_receiver != silent => (&policy.default_receiver, Cause::ReturnToDefault),
        // The default receiver did not answer itself: it keeps the thread, with no further deadline.
        None => return,
    };
    // The default receiver may have been tried before: then nobody is left, and no deadline would help.
    let handoff = (!tried.contains(to)).then_some(tried);
    change.give(Move { to, action: ControlAction::Pass, cause, by: None, metadata: None, handoff });
    change.enter(change.phase_of_holder(), state_change(cause, None));
}

/// What the customer reads when the bot breaks and no agent takes over.
pub(crate) fn apologise(change: &mut Change<'_>, turn: Turn) {
    let body = change.ctx.policy.bot_break_message.clone();
    let answers = Some(turn.message);
    change.say(Message { sender: Sender::Haptik, by: None, body, metadata: None, agent: None, answers });
}

pub(crate) fn note(change: &mut Change<'_>, note: IvaNote, detail: Option<String>) {
    change.report(Event::Iva { note, detail });
}
