//! Section 11: the operator moves what a receiver holds to another.

use crate::scene::*;
use tract_domain::{Cause, Command, ControlAction, Reply, State, Topic};

fn drain(from: &str, to: &str) -> Command {
    Command::Drain { from: id(from), to: id(to) }
}

#[test]
fn an_open_conversation_goes_on_as_a_hand_off() {
    let mut scene = Scene::at(State::Pinned, PLAIN);
    let (conversation, epoch) = (scene.thread.conversation(), scene.epoch());
    scene.decide(&drain(PLAIN, FREE)).unwrap();
    assert_eq!(scene.stands(), (State::Incomplete, FREE, conversation));
    assert_eq!(scene.controls(), [(ControlAction::Pass, Cause::Drain)]);
    assert_eq!(scene.told(Topic::ControlPass), [IVA, SAC, PLAIN, FREE, STRICT]);
    assert_eq!(scene.reply, Reply::Control { active: id(FREE), control_epoch: epoch + 1, offer_id: None });
    assert!(scene.awaits_handoff(), "who gets it has to answer");
}

#[test]
fn the_bot_gets_the_same_conversation_back() {
    let mut scene = Scene::at(State::Pinned, PLAIN);
    let conversation = scene.thread.conversation();
    scene.decide(&drain(PLAIN, IVA)).unwrap();
    assert_eq!(scene.stands(), (State::Bot, IVA, conversation));
    assert_eq!(scene.channel(), [], "nothing is completed");
    scene.ceu("still there?");
    assert_eq!(scene.iva_turns(), 1);
}

#[test]
fn a_thread_at_rest_only_changes_hands() {
    for state in [State::None, State::Complete] {
        let mut scene = Scene::at(state, IVA);
        let conversation = scene.thread.conversation();
        scene.decide(&drain(IVA, SAC)).unwrap();
        assert_eq!(scene.stands(), (state, SAC, conversation));
        assert_eq!(scene.state_changes(), [] as [&tract_domain::StateChange; 0]);
        assert!(!scene.awaits_handoff());
        scene.ceu("hello");
        assert_eq!(scene.stands(), (State::Incomplete, SAC, conversation + 1), "the next conversation opens there");
    }
}

#[test]
fn what_is_pending_ends() {
    let mut scene = Scene::at(State::Pinned, FREE);
    scene.operate(op(FREE, tract_domain::ControlOp::Offer, Some(PLAIN))).unwrap();
    scene.decide(&drain(FREE, SAC)).unwrap();
    assert_eq!(scene.offered_to(), None);
    assert_eq!(scene.told(Topic::ControlExpire), [FREE, PLAIN]);
}

#[test]
fn a_thread_that_is_elsewhere_stays_there() {
    let mut scene = Scene::at(State::Pinned, PLAIN);
    assert_eq!(code(&scene.decide(&drain(FREE, SAC))), "receiver_not_active");
    assert_eq!(code(&scene.decide(&drain(PLAIN, "nobody"))), "unknown_receiver");
    scene.unhealthy(FREE);
    assert_eq!(code(&scene.decide(&drain(PLAIN, FREE))), "receiver_unavailable");
    let before = scene.thread.clone();
    scene.decide(&drain(FREE, PLAIN)).unwrap();
    assert_eq!(scene.thread, before, "it is where it should be");
    assert_eq!(scene.active(), PLAIN);
}
