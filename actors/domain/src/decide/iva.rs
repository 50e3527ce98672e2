//! What came of a turn of the IVA (section 9).

use super::handoff::{apologise, note, to_agent};
use crate::{
    Cause, Completion, IvaAnswer, Message, ReceiverId, ReceiverKind, Reply, Sender, State, Transition, Turn,
    change::{Change, End},
    entry::IvaNote,
    thread::ConversationDetails,
};

/// How long a conversation's details live, in milliseconds.
const DETAILS_MS: u64 = 3 * 60 * 60 * 1000;

/// How much of a receiver's name that nobody knows is kept, in characters.
const NAME: usize = 64;

pub(crate) fn answered(mut change: Change<'_>, turn: Turn, answer: &IvaAnswer) -> Transition {
    end(&mut change, turn);
    if !change.thread.awaits(turn, change.ctx.policy) {
        note(&mut change, IvaNote::LateAnswer, None);
        return change.done(Reply::Done);
    }
    let iva = change.active().clone();
    for body in &answer.messages {
        let (by, answers) = (Some(iva.clone()), Some(turn.message));
        change.say(Message { sender: Sender::Iva, by, body: body.clone(), metadata: None, agent: None, answers });
    }
    if let Some(fault) = &answer.details_fault {
        note(&mut change, IvaNote::DetailsRefused, Some(fault.clone()));
    }
    // The conversation may have ended meanwhile, and the IVA kept the thread: what it said is said, and reopens nothing.
    if change.state() != State::Bot {
        return change.done(Reply::Done);
    }
    if let Some(json) = &answer.conversation_details {
        let until = change.ctx.now.plus(DETAILS_MS);
        change.thread.details = Some(ConversationDetails { json: json.clone(), until });
    }
    if let Some(wanted) = &answer.handoff {
        hand_off(&mut change, turn, &iva, wanted);
    } else if answer.complete {
        let (completion, cause) = (Completion::Bot, Cause::IvaComplete);
        change.complete(End { completion, cause, by: Some(&iva), metadata: None, stays: false });
    }
    change.done(Reply::Done)
}

pub(crate) fn broke(mut change: Change<'_>, turn: Turn, reason: &str) -> Transition {
    end(&mut change, turn);
    if change.thread.awaits(turn, change.ctx.policy) && change.state() == State::Bot {
        note(&mut change, IvaNote::BotBreak, Some(reason.to_owned()));
        if !(change.ctx.policy.human_assistance && to_agent(&mut change, None, Cause::BotBreak, None, None)) {
            apologise(&mut change, turn);
        }
    }
    change.done(Reply::Done)
}

/// The bot answers later, through its token: the turn is over without a word.
pub(crate) fn deferred(mut change: Change<'_>, turn: Turn) -> Transition {
    end(&mut change, turn);
    change.done(Reply::Done)
}

/// The turn is over.
fn end(change: &mut Change<'_>, turn: Turn) {
    change.thread.answered = change.thread.answered.max(turn.message);
}

fn hand_off(change: &mut Change<'_>, turn: Turn, iva: &ReceiverId, wanted: &str) {
    let policy = change.ctx.policy;
    let agent_tool = |r: &ReceiverId| policy.kind(r).is_some_and(|k| k != ReceiverKind::Iva);
    let wanted_id = ReceiverId::new(wanted).ok().filter(agent_tool);
    if wanted_id.is_none() {
        note(change, IvaNote::UnknownReceiver, Some(wanted.chars().take(NAME).collect()));
    }
    if !to_agent(change, wanted_id.as_ref(), Cause::Handoff, Some(iva), None) {
        note(change, IvaNote::NoReceiver, None);
        apologise(change, turn);
    }
}
