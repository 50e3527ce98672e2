//! A receiver's message: only the active one may speak.

use super::ceu::said;
use crate::{
    Agent, Body, Cause, Json, Message, ReceiverId, ReceiverKind, Refusal, Sender, State, Transition, change::Change,
};

/// What a receiver wants to say.
pub(crate) struct Outgoing<'m> {
    pub(crate) by: &'m ReceiverId,
    pub(crate) sender: Sender,
    pub(crate) body: &'m Body,
    pub(crate) metadata: Option<&'m Json>,
    pub(crate) agent: Option<&'m Agent>,
}

pub(crate) fn message(
    mut change: Change<'_>,
    outgoing: Outgoing<'_>,
    control_epoch: Option<u64>,
) -> Result<Transition, Refusal> {
    let Outgoing { by, sender, body, metadata, agent } = outgoing;
    require_sender(by, change.require_receiver(by)?, sender)?;
    change.require_active(by)?;
    change.require_epoch(control_epoch)?;

    change.thread.control.handoff = None;
    // The agent enters before speaking, so that whoever reads along sees who speaks.
    if sender == Sender::Aeu && matches!(change.state(), State::Incomplete | State::Waiting) {
        change.pin(Cause::AeuMessage, Some(by), agent.filter(|_| change.thread.phase.agent().is_none()));
    }
    let agent = agent.or(change.thread.phase.agent()).filter(|_| sender != Sender::Iva).cloned();
    let entry = change.say(Message {
        sender,
        by: Some(by.clone()),
        body: body.clone(),
        metadata: metadata.cloned(),
        agent,
        answers: None,
    });
    let reply = said(&change, entry);
    Ok(change.done(reply))
}

fn require_sender(by: &ReceiverId, kind: ReceiverKind, sender: Sender) -> Result<(), Refusal> {
    let (fits, allowed) = match kind {
        ReceiverKind::Iva => (sender == Sender::Iva, "iva"),
        ReceiverKind::Sac | ReceiverKind::Ect => (matches!(sender, Sender::Aeu | Sender::Ect), "aeu or ect"),
    };
    if fits {
        return Ok(());
    }
    Err(Refusal::SenderNotAllowed { by: by.clone(), sender: sender.as_str(), allowed })
}
