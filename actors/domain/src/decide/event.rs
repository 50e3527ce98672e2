//! What the active receiver reports: `aeu_events` and `conversation_state` (section 6).

use crate::{
    Agent, AgentEvent, Cause, Completion, Event, Json, Phase, ReceiverId, ReceiverKind, Refusal, Reply, State,
    StateChange, Topic, Transition,
    change::{Change, End, state_change},
};

pub(crate) fn report(
    mut change: Change<'_>,
    by: &ReceiverId,
    event: AgentEvent,
    agent: Option<&Agent>,
    metadata: Option<&Json>,
) -> Result<Transition, Refusal> {
    let kind = change.require_receiver(by)?;
    change.require_active(by)?;
    change.require_state(name(event), |state| match event {
        AgentEvent::Waiting => matches!(state, State::Pinned | State::Waiting),
        _ => state.is_open(),
    })?;
    let say_so = |topic| Event::Agent { topic, by: by.clone(), agent: agent.cloned(), metadata: metadata.cloned() };
    match event {
        AgentEvent::Received => {
            change.thread.control.handoff = None;
            change.report(say_so(Topic::AeuReceived));
        }
        AgentEvent::Allocated => {
            change.thread.control.handoff = None;
            let entry = change.report(say_so(Topic::AeuAllocated));
            if matches!(change.state(), State::Incomplete | State::Waiting) {
                change.pin(Cause::Allocated, Some(by), agent);
            } else if let Some(agent) = agent {
                change.reallocate(agent, entry);
            }
        }
        AgentEvent::UserTimeout => {
            change.report(say_so(Topic::AeuUserTimeout));
            change.complete(End {
                completion: Completion::Auto,
                cause: Cause::UserTimeout,
                by: Some(by),
                metadata,
                stays: false,
            });
        }
        AgentEvent::Waiting => {
            if let Phase::Pinned { agent } = &change.thread.phase {
                let phase = Phase::Waiting { since: change.ctx.now, agent: agent.clone() };
                let waiting = StateChange { metadata: metadata.cloned(), ..state_change(Cause::Waiting, Some(by)) };
                change.enter(phase, waiting);
            }
        }
        AgentEvent::Complete => {
            let completion = if kind == ReceiverKind::Iva { Completion::Bot } else { Completion::Agent };
            change.complete(End { completion, cause: Cause::Complete, by: Some(by), metadata, stays: false });
        }
    }
    let reply = Reply::Event {
        sequence: change.thread.sequence,
        conversation: change.thread.conversation,
        control_epoch: change.epoch(),
    };
    Ok(change.done(reply))
}

fn name(event: AgentEvent) -> &'static str {
    match event {
        AgentEvent::Received => "aeu_events.received",
        AgentEvent::Allocated => "aeu_events.allocated",
        AgentEvent::UserTimeout => "aeu_events.user_timeout",
        AgentEvent::Waiting => "conversation_state.waiting",
        AgentEvent::Complete => "conversation_state.complete",
    }
}
