//! Section 7: what is pending, how it ends, and who is told.

use crate::scene::*;
use std::collections::BTreeSet;
use tract_domain::{AgentEvent, Cause, ControlAction::*, ControlOp, ControlRequest, State, Topic};

/// `free` holds the thread and has offered it to `plain`.
fn offered(fallback: &[&str]) -> Scene {
    let mut scene = Scene::with(|p| p.fallback = fallback.iter().map(|r| id(r)).collect());
    scene = scene.brought_to(State::Pinned, FREE);
    scene.operate(op(FREE, ControlOp::Offer, Some(PLAIN))).unwrap();
    scene
}

#[test]
fn a_declined_offer_goes_down_the_chain_and_control_stays_with_the_offerer() {
    // The chain names the offerer, one that was tried and one that is not healthy: all three are skipped.
    let mut scene = offered(&[FREE, PLAIN, IVA, SAC, STRICT]);
    scene.unhealthy(IVA);
    scene.operate(op(PLAIN, ControlOp::Decline, None)).unwrap();
    assert_eq!(scene.controls(), [(Decline, Cause::Decline), (Offer, Cause::Fallback)]);
    assert_eq!(scene.told(Topic::ControlDecline), [FREE], "whoever offered");
    assert_eq!((scene.offered_to(), scene.told(Topic::ControlOffer)), (Some(SAC), vec![SAC]));
    scene.operate(op(SAC, ControlOp::Decline, None)).unwrap();
    assert_eq!(scene.offered_to(), Some(STRICT));
    scene.operate(op(STRICT, ControlOp::Decline, None)).unwrap();
    assert_eq!((scene.offered_to(), scene.stands()), (None, (State::Pinned, FREE, 1)), "exhausted");
}

#[test]
fn an_offer_that_expires_goes_down_the_chain() {
    let mut scene = offered(&[SAC]);
    assert!(!scene.wait(WISH - 1));
    assert!(scene.wait(1));
    assert_eq!(scene.controls(), [(Expire, Cause::Deadline), (Offer, Cause::Fallback)]);
    assert_eq!(scene.told(Topic::ControlExpire), [FREE, PLAIN], "whoever offered, and the pending one");
    assert_eq!(scene.offered_to(), Some(SAC));
    assert_eq!(code(&scene.operate(op(PLAIN, ControlOp::Accept, None))), "no_offer", "too late");
    scene.operate(op(SAC, ControlOp::Accept, None)).unwrap();
    assert_eq!(scene.stands(), (State::Incomplete, SAC, 1));
}

#[test]
fn an_offer_stands_as_long_as_its_maker_says_and_so_does_each_next_one() {
    let mut scene = Scene::with(|p| p.fallback = vec![id(SAC)]).brought_to(State::Pinned, FREE);
    let request = op(FREE, ControlOp::Offer, Some(PLAIN));
    scene.operate(ControlRequest { deadline_ms: Some(5 * SECOND), ..request }).unwrap();
    assert!(!scene.wait(5 * SECOND - 1));
    assert!(scene.wait(1));
    assert_eq!(scene.offered_to(), Some(SAC));
    assert!(!scene.wait(5 * SECOND - 1));
    assert!(scene.wait(1));
    assert_eq!(scene.offered_to(), None);
}

#[test]
fn a_request_expires_and_only_who_asked_is_told() {
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.operate(op(FREE, ControlOp::Request, None)).unwrap();
    assert!(!scene.wait(WISH - 1));
    assert!(scene.wait(1));
    assert_eq!((scene.controls(), scene.told(Topic::ControlExpire)), (vec![(Expire, Cause::Deadline)], vec![FREE]));
    assert_eq!((scene.requested_by(), scene.active()), (None, PLAIN));
    let request = op(FREE, ControlOp::Request, None);
    scene.operate(ControlRequest { deadline_ms: Some(SECOND), ..request }).unwrap();
    assert!(scene.wait(SECOND), "as long as its maker says");
}

#[test]
fn a_request_is_answered_by_a_pass() {
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.operate(op(SAC, ControlOp::Request, None)).unwrap();
    scene.pass(PLAIN, SAC).unwrap();
    assert_eq!(scene.controls(), [(Pass, Cause::Pass)], "fulfilled, not expired");
    assert_eq!((scene.requested_by(), scene.active()), (None, SAC));
}

#[test]
fn any_change_of_control_ends_both() {
    let mut scene = offered(&[STRICT]);
    scene.operate(op(FREE, ControlOp::Request, None)).unwrap();
    assert_eq!(scene.requested_by(), None, "the holder has nothing to ask for");
    scene.operate(op(IVA, ControlOp::Request, None)).unwrap();
    scene.operate(op(SAC, ControlOp::Take, None)).unwrap();
    assert_eq!(scene.controls(), [(Expire, Cause::ControlMoved), (Expire, Cause::ControlMoved), (Take, Cause::Take)]);
    assert_eq!(scene.told(Topic::ControlExpire), [FREE, PLAIN, IVA]);
    assert_eq!((scene.offered_to(), scene.requested_by()), (None, None), "and nothing goes down the chain");
}

#[test]
fn completion_ends_both() {
    let mut scene = offered(&[STRICT]);
    scene.operate(op(SAC, ControlOp::Request, None)).unwrap();
    scene.event(FREE, AgentEvent::Complete).unwrap();
    let ended = [(Expire, Cause::Completed), (Expire, Cause::Completed), (Pass, Cause::ReturnToDefault)];
    assert_eq!(scene.controls(), ended);
    assert_eq!((scene.offered_to(), scene.requested_by()), (None, None));
}

#[test]
fn an_accepted_offer_ends_somebody_elses_request() {
    let mut scene = offered(&[]);
    scene.operate(op(SAC, ControlOp::Request, None)).unwrap();
    scene.operate(op(PLAIN, ControlOp::Accept, None)).unwrap();
    assert_eq!(scene.controls(), [(Expire, Cause::ControlMoved), (Pass, Cause::Accept)]);
    assert_eq!(scene.told(Topic::ControlExpire), [SAC]);
}

#[test]
fn an_offer_that_the_iva_accepts_completes_the_conversation() {
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.operate(op(PLAIN, ControlOp::Offer, Some(IVA))).unwrap();
    assert_eq!(scene.state(), State::Pinned, "not before it is accepted");
    scene.operate(op(IVA, ControlOp::Accept, None)).unwrap();
    assert_eq!(scene.stands(), (State::Complete, IVA, 1));
}

#[test]
fn messages_and_states_leave_both_alone() {
    let mut scene = offered(&[]);
    scene.operate(op(SAC, ControlOp::Request, None)).unwrap();
    scene.ceu("hello?");
    scene.event(FREE, AgentEvent::Waiting).unwrap();
    assert_eq!((scene.offered_to(), scene.requested_by()), (Some(PLAIN), Some(SAC)));
}

#[test]
fn offer_ids_are_unique() {
    let mut scene = offered(&[SAC, STRICT]);
    let mut ids = BTreeSet::from([scene.offer_id().unwrap()]);
    for _ in 0..2 {
        scene.wait(WISH);
        assert!(ids.insert(scene.offer_id().unwrap()));
    }
    scene.wait(WISH);
    scene.operate(op(FREE, ControlOp::Offer, Some(PLAIN))).unwrap();
    assert!(ids.insert(scene.offer_id().unwrap()));
}
