//! A customer's message: always accepted, for whoever holds the thread when it is committed.

use crate::{
    Body, Cause, Json, Message, Phase, Reply, Sender, Transition,
    change::{Change, state_change},
};

pub(crate) fn message(mut change: Change<'_>, body: &Body, metadata: Option<&Json>) -> Transition {
    if !change.state().is_open() {
        change.open_conversation();
    }
    let message = Message {
        sender: Sender::Ceu,
        by: None,
        body: body.clone(),
        metadata: metadata.cloned(),
        agent: None,
        answers: None,
    };
    let entry = change.say(message);
    let reply = said(&change, entry);
    if let Phase::Waiting { agent, .. } = &change.thread.phase {
        let agent = agent.clone();
        change.enter(Phase::Pinned { agent }, state_change(Cause::CeuMessage, None));
    }
    change.done(reply)
}

/// The reply for the message that was said last.
pub(crate) fn said(change: &Change<'_>, entry: usize) -> Reply {
    Reply::Message {
        entry,
        sequence: change.thread.sequence,
        conversation: change.thread.conversation,
        control_epoch: change.epoch(),
    }
}
