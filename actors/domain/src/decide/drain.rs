//! A receiver is being drained: the operator moves what it holds to another (section 11).

use crate::{
    Cause, ControlAction, ReceiverId, Refusal, Reply, Transition,
    change::{Change, Move, state_change},
};

/// A conversation goes on as the same one: an agent tool gets it as a hand-off, the IVA in `bot`. A thread at rest only
/// changes hands.
pub(crate) fn move_on(mut change: Change<'_>, from: &ReceiverId, to: &ReceiverId) -> Result<Transition, Refusal> {
    if change.ctx.policy.receiver(to).is_none() {
        return Err(Refusal::UnknownReceiver(to.clone()));
    }
    let (active, epoch) = (change.active().clone(), change.epoch());
    if active != *to {
        if active != *from {
            return Err(Refusal::ReceiverNotActive { named: from.clone(), active, epoch });
        }
        if !change.ctx.policy.healthy(to) {
            return Err(Refusal::ReceiverUnavailable { to: to.clone(), active, epoch });
        }
        let is_open = change.state().is_open();
        let cause = Cause::Drain;
        let handoff = is_open.then(Vec::new);
        change.give(Move { to, action: ControlAction::Pass, cause, by: None, metadata: None, handoff });
        if is_open {
            change.enter(change.phase_of_holder(), state_change(cause, None));
        }
    }
    let reply = Reply::Control { active: change.active().clone(), control_epoch: change.epoch(), offer_id: None };
    Ok(change.done(reply))
}
