//! Section 4: who gets which messages: all of them, or those while in control with what was said before.

use crate::scene::*;
use tract_domain::{AgentEvent, Sender, State, Topic};

#[test]
fn a_message_goes_to_everyone_but_its_sender() {
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.ceu("hello");
    assert_eq!(scene.told(Topic::MessageReceive), [IVA, SAC, PLAIN, FREE]);
    scene.send(PLAIN, Sender::Aeu).unwrap();
    assert_eq!(scene.told(Topic::MessageReceive), [IVA, SAC, FREE]);
}

#[test]
fn events_and_states_go_to_standby_tools_that_do_not_read_along() {
    let mut scene = Scene::at(State::Incomplete, PLAIN);
    scene.event(PLAIN, AgentEvent::Allocated).unwrap();
    assert!(scene.told(Topic::AeuAllocated).contains(&STRICT));
    assert!(scene.told(Topic::StatePinned).contains(&STRICT));
}

/// On getting control: the messages of this conversation that it was not sent before, once.
#[test]
fn who_listens_only_while_active_gets_what_was_said_before_once() {
    let mut scene = Scene::at(State::Bot, IVA);
    scene.send(IVA, Sender::Iva).unwrap();
    let through = scene.thread.sequence();
    scene.pass(SAC, STRICT).unwrap();
    assert_eq!(scene.histories(STRICT), [(0, through)], "from the conversation's beginning");
    assert_eq!(scene.histories(PLAIN), []);

    scene.ceu("live");
    assert!(scene.told(Topic::MessageReceive).contains(&STRICT));
    scene.operate(op(SAC, tract_domain::ControlOp::Take, None)).unwrap();
    let left = scene.entries.iter().map(|e| e.sequence).min().unwrap() - 1;
    scene.pass(SAC, STRICT).unwrap();
    assert_eq!(scene.histories(STRICT), [], "nothing was said meanwhile");

    scene.operate(op(SAC, tract_domain::ControlOp::Take, None)).unwrap();
    scene.ceu("while away");
    assert!(!scene.told(Topic::MessageReceive).contains(&STRICT));
    let said = scene.thread.sequence();
    scene.pass(SAC, STRICT).unwrap();
    let [(after, through)] = scene.histories(STRICT)[..] else { panic!("{:?}", scene.effects) };
    assert!(after >= left && after < said && through == said, "only what was said while away: {after}..={through}");
}

#[test]
fn what_an_earlier_conversation_said_is_not_history() {
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.event(PLAIN, AgentEvent::Complete).unwrap();
    let before = scene.thread.sequence();
    scene.ceu("another thing");
    let through = scene.entries.last().unwrap().sequence;
    scene.pass(SAC, STRICT).unwrap();
    assert_eq!(scene.histories(STRICT), [(before, through)]);
}

#[test]
fn a_conversation_that_begins_with_it_has_no_history() {
    let mut scene = Scene::with(|p| p.default_receiver = id(STRICT));
    scene.ceu("hello");
    assert_eq!(scene.histories(STRICT), []);
    assert!(scene.told(Topic::MessageReceive).contains(&STRICT));
}

#[test]
fn a_thread_remembers_who_held_which_conversation() {
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.event(PLAIN, AgentEvent::Complete).unwrap();
    scene.ceu("another thing");
    let held = |who: &str| [1, 2, 3].map(|n| scene.thread.has_held(&id(who), n));
    assert_eq!(held(IVA), [true, true, false]);
    assert_eq!(held(PLAIN), [true, false, false]);
    assert_eq!(held(STRICT), [false; 3]);
}
