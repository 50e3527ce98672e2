//! The control operations of section 7.

use crate::{
    Cause, Completion, ControlAction, ControlChange, ControlOp, ControlRequest, Offer, ReceiverId, ReceiverKind,
    Refusal, Reply, Request, State, Transition,
    change::{Change, End, Move, both, expiry, state_change},
};

/// How long an offer or request stands unless its maker says otherwise.
const WISH_MS: u64 = 60_000;

pub(crate) fn operate(change: Change<'_>, request: &ControlRequest) -> Result<Transition, Refusal> {
    let kind = change.require_receiver(&request.by)?;
    if let Some(named) = &request.receiver
        && change.ctx.policy.receiver(named).is_none()
    {
        return Err(Refusal::UnknownReceiver(named.clone()));
    }
    match request.op {
        ControlOp::Pass => pass(change, request, kind),
        ControlOp::Take => take(change, request, kind),
        ControlOp::Request => ask(change, request, kind),
        ControlOp::Offer => offer(change, request, kind),
        ControlOp::Accept => accept(change, request),
        ControlOp::Decline => decline(change, request),
        ControlOp::Release => release(change, request),
    }
}

fn pass(mut change: Change<'_>, request: &ControlRequest, kind: ReceiverKind) -> Result<Transition, Refusal> {
    let Some(to) = target(&mut change, request, kind)? else { return Ok(moved(change, None)) };
    hand_on(&mut change, &to, Cause::Pass, request);
    Ok(moved(change, None))
}

fn take(mut change: Change<'_>, request: &ControlRequest, kind: ReceiverKind) -> Result<Transition, Refusal> {
    let allowed = kind.is_primary() || change.ctx.policy.receiver(&request.by).is_some_and(|r| r.may_take);
    require_setting(allowed, request)?;
    present(&change, request)?;
    if *change.active() != request.by {
        require_healthy(&change, &request.by)?;
        hand_on(&mut change, &request.by, Cause::Take, request);
    }
    Ok(moved(change, None))
}

fn ask(mut change: Change<'_>, request: &ControlRequest, kind: ReceiverKind) -> Result<Transition, Refusal> {
    let allowed = kind.is_primary() || change.ctx.policy.receiver(&request.by).is_some_and(|r| r.may_request);
    require_setting(allowed, request)?;
    present(&change, request)?;
    let (active, epoch) = (change.active().clone(), change.epoch());
    if let Some(named) = request.receiver.clone().filter(|named| *named != active) {
        return Err(Refusal::ReceiverNotActive { named, active, epoch });
    }
    if active == request.by {
        return Ok(moved(change, None));
    }
    if let Some(pending) = &change.thread.control.request {
        return Err(Refusal::RequestPending { from: pending.from.clone(), active, epoch });
    }
    let deadline = change.ctx.now.plus(request.deadline_ms.unwrap_or(WISH_MS));
    change.thread.control.request = Some(Request { from: request.by.clone(), deadline });
    let noted = ControlChange {
        action: ControlAction::Request,
        by: Some(request.by.clone()),
        deadline: Some(deadline),
        metadata: request.metadata.clone(),
        ..expiry(Cause::Request, &request.by, &active)
    };
    change.note_control(noted, &[&active]);
    Ok(moved(change, None))
}

fn offer(mut change: Change<'_>, request: &ControlRequest, kind: ReceiverKind) -> Result<Transition, Refusal> {
    let Some(to) = target(&mut change, request, kind)? else { return Ok(moved(change, None)) };
    if let Some(pending) = &change.thread.control.offer {
        let to = pending.to.clone();
        return Err(Refusal::OfferPending { to, active: change.active().clone(), epoch: change.epoch() });
    }
    let window_ms = request.deadline_ms.unwrap_or(WISH_MS);
    let id = put_offer(&mut change, &request.by, &to, window_ms, Vec::new(), Some(request));
    Ok(moved(change, Some(id)))
}

fn accept(mut change: Change<'_>, request: &ControlRequest) -> Result<Transition, Refusal> {
    present(&change, request)?;
    pending_offer(&change, request)?;
    require_healthy(&change, &request.by)?;
    hand_on(&mut change, &request.by, Cause::Accept, request);
    Ok(moved(change, None))
}

fn decline(mut change: Change<'_>, request: &ControlRequest) -> Result<Transition, Refusal> {
    present(&change, request)?;
    let offer = pending_offer(&change, request)?;
    change.thread.control.offer = None;
    let declined = ControlChange {
        action: ControlAction::Decline,
        by: Some(request.by.clone()),
        offer_id: Some(offer.id.clone()),
        metadata: request.metadata.clone(),
        ..expiry(Cause::Decline, &offer.from, &offer.to)
    };
    change.note_control(declined, &[&offer.from]);
    offer_next(&mut change, offer);
    Ok(moved(change, None))
}

fn release(mut change: Change<'_>, request: &ControlRequest) -> Result<Transition, Refusal> {
    change.require_active(&request.by)?;
    present(&change, request)?;
    let default = change.ctx.policy.default_receiver.clone();
    if *change.active() != default {
        require_healthy(&change, &default)?;
        hand_on(&mut change, &default, Cause::Release, request);
    }
    Ok(moved(change, None))
}

/// An offer's deadline has passed.
pub(crate) fn offer_expired(change: &mut Change<'_>) {
    let Some(offer) = change.thread.control.offer.take() else { return };
    let expired = ControlChange { offer_id: Some(offer.id.clone()), ..expiry(Cause::Deadline, &offer.from, &offer.to) };
    change.note_control(expired, &both(&offer.from, &offer.to));
    offer_next(change, offer);
}

/// A request's deadline has passed.
pub(crate) fn request_expired(change: &mut Change<'_>) {
    let Some(request) = change.thread.control.request.take() else { return };
    let asked = change.active().clone();
    change.note_control(expiry(Cause::Deadline, &request.from, &asked), &[&request.from]);
}

/// Offers to the next in the fallback chain; when it is exhausted, control stays where it is.
fn offer_next(change: &mut Change<'_>, declined: Offer) {
    let Offer { from, to, window_ms, mut tried, .. } = declined;
    tried.push(to);
    let policy = change.ctx.policy;
    let next = policy
        .fallback
        .iter()
        .find(|r| **r != from && *r != change.active() && !tried.contains(r) && policy.healthy(r));
    if let Some(next) = next {
        put_offer(change, &from, next, window_ms, tried, None);
    }
}

fn put_offer(
    change: &mut Change<'_>,
    from: &ReceiverId,
    to: &ReceiverId,
    window_ms: u64,
    tried: Vec<ReceiverId>,
    request: Option<&ControlRequest>,
) -> String {
    // Unique within the thread, and needs no randomness: no other offer has this entry.
    let id = format!("offer-{}-{}", change.epoch(), change.thread.sequence + 1);
    let deadline = change.ctx.now.plus(window_ms);
    change.thread.control.offer =
        Some(Offer { id: id.clone(), from: from.clone(), to: to.clone(), deadline, window_ms, tried });
    let cause = if request.is_some() { Cause::Offer } else { Cause::Fallback };
    let offered = ControlChange {
        action: ControlAction::Offer,
        by: request.map(|r| r.by.clone()),
        offer_id: Some(id.clone()),
        deadline: Some(deadline),
        metadata: request.and_then(|r| r.metadata.clone()),
        ..expiry(cause, from, to)
    };
    change.note_control(offered, &[to]);
    id
}

/// Control moves by an operation: to the IVA, which completes the conversation and keeps the thread, or to an agent tool.
fn hand_on(change: &mut Change<'_>, to: &ReceiverId, cause: Cause, request: &ControlRequest) {
    let by = Some(&request.by);
    let action = if cause == Cause::Take { ControlAction::Take } else { ControlAction::Pass };
    let own_doing = matches!(cause, Cause::Take | Cause::Accept);
    let handoff = (!own_doing).then(Vec::new);
    let metadata = request.metadata.as_ref();
    change.give(Move { to, action, cause, by, metadata, handoff });
    if change.active_kind() == Some(ReceiverKind::Iva) {
        let completion = if change.ctx.policy.kind(&request.by) == Some(ReceiverKind::Iva) {
            Completion::Bot
        } else {
            Completion::Agent
        };
        change.complete(End { completion, cause, by, metadata, stays: true });
    } else {
        change.enter(change.phase_of_holder(), state_change(cause, by));
    }
}

/// The target of pass and offer, with everything checked that both ask for; none if it holds the thread already.
fn target(
    change: &mut Change<'_>,
    request: &ControlRequest,
    kind: ReceiverKind,
) -> Result<Option<ReceiverId>, Refusal> {
    if !kind.is_primary() {
        change.require_active(&request.by)?;
    }
    let policy = change.ctx.policy;
    // The edge asks for the receiver; without one, the holder is meant, and nothing moves.
    let to = request.receiver.clone().unwrap_or_else(|| change.active().clone());
    let target_is_primary = policy.kind(&to).is_some_and(ReceiverKind::is_primary);
    let any = kind.is_primary() || policy.receiver(&request.by).is_some_and(|r| r.may_pass_to_any);
    if !(any || target_is_primary || to == policy.default_receiver || to == *change.active()) {
        return Err(Refusal::TargetNotPermitted { by: request.by.clone(), to });
    }
    present(change, request)?;
    if to == *change.active() {
        return Ok(None);
    }
    require_healthy(change, &to)?;
    Ok(Some(to))
}

/// What every operation asks of the present: the epoch, if given, and an open conversation.
fn present(change: &Change<'_>, request: &ControlRequest) -> Result<(), Refusal> {
    change.require_epoch(request.control_epoch)?;
    change.require_state(request.op.as_str(), State::is_open)
}

fn pending_offer(change: &Change<'_>, request: &ControlRequest) -> Result<Offer, Refusal> {
    let fits = |o: &&Offer| o.to == request.by && request.offer_id.as_ref().is_none_or(|id| *id == o.id);
    change.thread.control.offer.as_ref().filter(fits).cloned().ok_or_else(|| Refusal::NoOffer {
        by: request.by.clone(),
        active: change.active().clone(),
        epoch: change.epoch(),
    })
}

fn require_setting(allowed: bool, request: &ControlRequest) -> Result<(), Refusal> {
    if allowed {
        return Ok(());
    }
    Err(Refusal::NotPermitted { by: request.by.clone(), op: request.op.as_str() })
}

fn require_healthy(change: &Change<'_>, to: &ReceiverId) -> Result<(), Refusal> {
    if change.ctx.policy.healthy(to) {
        return Ok(());
    }
    Err(Refusal::ReceiverUnavailable { to: to.clone(), active: change.active().clone(), epoch: change.epoch() })
}

/// The reply of every operation.
fn moved(change: Change<'_>, offer_id: Option<String>) -> Transition {
    let reply = Reply::Control { active: change.active().clone(), control_epoch: change.epoch(), offer_id };
    change.done(reply)
}
