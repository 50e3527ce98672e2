//! Section 7: hand-offs, what answers them, the fallback chain, and receivers that are not there.

use crate::scene::*;
use tract_domain::{
    AgentEvent, Cause, Command, ControlAction, ControlOp, DeadlineKind, Effect, Entry, Fact, Sender, State, Topic,
    entry::{Event, IvaNote},
};

/// A conversation with the bot, just handed to this receiver by SAC.
fn handed_to(receiver: &str, fallback: &[&str]) -> Scene {
    let mut scene = Scene::with(|p| p.fallback = fallback.iter().map(|r| id(r)).collect());
    scene.ceu("hello");
    scene.pass(SAC, receiver).unwrap();
    scene
}

fn notes(entries: &[Entry]) -> Vec<IvaNote> {
    let note = |e: &Entry| if let Fact::Event(Event::Iva { note, .. }) = &e.fact { Some(*note) } else { None };
    entries.iter().filter_map(note).collect()
}

#[test]
fn what_is_a_hand_off() {
    assert!(handed_to(PLAIN, &[]).awaits_handoff(), "a pass to an ECT");
    assert!(!handed_to(SAC, &[]).awaits_handoff(), "SAC is no ECT");
    let mut scene = Scene::at(State::Bot, IVA);
    scene.operate(op(FREE, ControlOp::Take, None)).unwrap();
    assert!(!scene.awaits_handoff(), "it took");
    let mut scene = Scene::at(State::Bot, IVA);
    scene.operate(op(SAC, ControlOp::Offer, Some(PLAIN))).unwrap();
    scene.operate(op(PLAIN, ControlOp::Accept, None)).unwrap();
    assert!(!scene.awaits_handoff(), "it accepted");
    let mut scene = Scene::with(|p| p.default_receiver = id(PLAIN)).brought_to(State::Pinned, SAC);
    scene.operate(op(SAC, ControlOp::Release, None)).unwrap();
    assert!(scene.awaits_handoff(), "a release to an ECT");
    let mut scene = Scene::with(|p| p.default_receiver = id(PLAIN)).brought_to(State::Pinned, SAC);
    scene.event(SAC, AgentEvent::Complete).unwrap();
    assert_eq!(
        (scene.active(), scene.awaits_handoff()),
        (PLAIN, false),
        "nothing to answer before the customer writes"
    );
    let scene = Scene::with(|p| (p.default_receiver, p.handoff_timeout_ms) = (id(PLAIN), 0));
    let mut off = scene;
    off.ceu("hello");
    assert!(!off.awaits_handoff(), "0 is off");
}

/// What answers a hand-off, for a tool that must say `received` and for one that need not.
#[test]
fn what_answers_a_hand_off() {
    type Answer = fn(&mut Scene, &str);
    let answers: [(&str, Answer, bool, bool); 6] = [
        ("a 2xx", |s, by| s.answered_2xx(by), true, false),
        ("received", |s, by| s.event(by, AgentEvent::Received).unwrap(), true, true),
        ("allocated", |s, by| s.event(by, AgentEvent::Allocated).unwrap(), true, true),
        ("a message from aeu", |s, by| s.send(by, Sender::Aeu).unwrap(), true, true),
        ("a message from ect", |s, by| s.send(by, Sender::Ect).unwrap(), true, true),
        ("a customer message", |s, _| s.ceu("anyone?"), false, false),
    ];
    for (what, answer, plain, strict) in answers {
        for (receiver, expected) in [(PLAIN, plain), (STRICT, strict)] {
            let mut scene = handed_to(receiver, &[SAC]);
            answer(&mut scene, receiver);
            assert_eq!(!scene.awaits_handoff(), expected, "{what} of {receiver}");
            scene.wait(HANDOFF);
            assert_eq!(scene.active(), if expected { receiver } else { SAC }, "{what} of {receiver}");
        }
    }
}

#[test]
fn a_2xx_of_another_hand_off_answers_nothing() {
    let mut scene = handed_to(PLAIN, &[]);
    let epoch = scene.epoch();
    for (by, epoch) in [(PLAIN, epoch - 1), (PLAIN, epoch + 1), (FREE, epoch), ("ghost", epoch)] {
        scene.decide(&Command::HandoffAnswered { by: id(by), epoch }).unwrap();
        assert!(scene.awaits_handoff(), "{by} at {epoch}");
    }
}

/// Only the webhooks of the new holder carry the epoch that their 2xx answers, and none of a tool that must say more.
#[test]
fn only_the_new_holders_webhooks_can_answer() {
    let answering = |scene: &Scene| -> Vec<(String, u64)> {
        let answer = |e: &Effect| match e {
            Effect::Hook { to, answers_handoff: Some(epoch), .. }
            | Effect::History { to, answers_handoff: Some(epoch), .. } => Some((to.to_string(), *epoch)),
            _ => None,
        };
        scene.effects.iter().filter_map(answer).collect()
    };
    let scene = handed_to(PLAIN, &[]);
    assert_eq!(answering(&scene), vec![(PLAIN.to_owned(), scene.epoch()); 2], "pass and incomplete");
    assert_eq!(answering(&handed_to(STRICT, &[])), []);
    let mut scene = handed_to(PLAIN, &[]);
    scene.ceu("anyone?");
    assert_eq!(answering(&scene), [(PLAIN.to_owned(), scene.epoch())], "any webhook about the thread");
    scene.answered_2xx(PLAIN);
    scene.ceu("good");
    assert_eq!(answering(&scene), [], "it has been answered");
}

#[test]
fn no_answer_leads_down_the_fallback_chain_and_then_to_the_default_receiver() {
    let mut scene = handed_to(PLAIN, &[STRICT, PLAIN, FREE]);
    assert!(!scene.wait(HANDOFF - 1));
    assert!(scene.wait(1));
    assert_eq!(scene.stands(), (State::Incomplete, STRICT, 1));
    assert_eq!(scene.controls(), [(ControlAction::Pass, Cause::Fallback)]);
    scene.wait(HANDOFF);
    assert_eq!(scene.active(), FREE, "who was tried is not tried again");
    scene.wait(HANDOFF);
    assert_eq!(scene.stands(), (State::Bot, IVA, 1), "exhausted: back to bot, the same conversation");
    assert_eq!(scene.controls(), [(ControlAction::Pass, Cause::ReturnToDefault)]);
    assert_eq!(scene.channel(), [], "the customer is not told");
    scene.ceu("hello?");
    assert_eq!((scene.iva_turns(), scene.thread.conversation()), (1, 1));
}

#[test]
fn the_fallback_chain_skips_who_is_not_healthy() {
    let mut scene = handed_to(PLAIN, &[STRICT, FREE]);
    scene.unhealthy(STRICT);
    scene.wait(HANDOFF);
    assert_eq!(scene.active(), FREE);
}

#[test]
fn a_chain_that_comes_to_sac_ends_there() {
    let mut scene = handed_to(PLAIN, &[SAC, FREE]);
    scene.wait(HANDOFF);
    assert_eq!((scene.stands(), scene.awaits_handoff()), ((State::Incomplete, SAC, 1), false));
    assert!(!scene.wait(10 * HANDOFF));
}

#[test]
fn a_silent_default_receiver_keeps_the_thread_without_a_further_deadline() {
    let mut scene = Scene::with(|p| p.default_receiver = id(PLAIN));
    scene.ceu("hello");
    scene.wait(HANDOFF);
    assert_eq!((scene.stands(), scene.epoch()), ((State::Incomplete, PLAIN, 1), 1));
    assert_eq!(scene.thread.next_deadline(&scene.policy), None);

    let mut scene = Scene::with(|p| (p.default_receiver, p.fallback) = (id(PLAIN), vec![id(FREE)]));
    scene.ceu("hello");
    scene.wait(HANDOFF);
    assert_eq!(scene.active(), FREE);
    scene.wait(HANDOFF);
    assert_eq!(
        (scene.stands(), scene.awaits_handoff()),
        ((State::Incomplete, PLAIN, 1), false),
        "it has had its chance"
    );
}

#[test]
fn an_exhausted_chain_hands_off_to_a_default_receiver_that_was_not_tried() {
    let mut scene = Scene::with(|p| p.default_receiver = id(PLAIN)).brought_to(State::Pinned, SAC);
    scene.pass(SAC, FREE).unwrap();
    scene.wait(HANDOFF);
    assert_eq!((scene.active(), scene.awaits_handoff()), (PLAIN, true));
    scene.wait(HANDOFF);
    assert_eq!((scene.active(), scene.awaits_handoff()), (PLAIN, false));
}

#[test]
fn an_unhealthy_default_receiver_gets_a_new_conversation_unless_the_chain_has_a_healthy_one() {
    let sick = |fallback: &[&str]| {
        let mut scene =
            Scene::with(|p| (p.default_receiver, p.fallback) = (id(PLAIN), fallback.iter().map(|r| id(r)).collect()));
        scene.unhealthy(PLAIN);
        scene.ceu("hello");
        scene
    };
    assert_eq!(sick(&[]).stands(), (State::Incomplete, PLAIN, 1));
    let scene = sick(&[FREE]);
    assert_eq!(scene.stands(), (State::Incomplete, FREE, 1));
    assert_eq!(scene.controls(), [(ControlAction::Pass, Cause::Fallback)]);
    assert!(scene.entries.iter().all(|e| e.conversation == 1), "the stand-in belongs to the new conversation");
    assert_eq!(scene.told(Topic::MessageReceive).len(), 4, "nobody misses the message, nobody has it twice");
    assert!(scene.awaits_handoff());

    let mut scene = sick(&[IVA]);
    assert_eq!(scene.stands(), (State::Bot, IVA, 1));
    assert_eq!(scene.iva_turns(), 1);
    scene.event(IVA, AgentEvent::Complete).unwrap();
    assert_eq!(scene.active(), PLAIN, "the stand-in stands in for one conversation");

    let mut scene = Scene::with(|p| (p.default_receiver, p.fallback) = (id(PLAIN), vec![id(STRICT), id(FREE)]));
    scene.unhealthy(PLAIN);
    scene.unhealthy(STRICT);
    scene.ceu("hello");
    assert_eq!(scene.active(), FREE);
}

#[test]
fn a_removed_receivers_thread_goes_to_the_default_receiver() {
    let removed = |state: State, default: &'static str| {
        let mut scene = Scene::with(|p| p.default_receiver = id(default)).brought_to(state, PLAIN);
        scene.configure(|p| p.receivers.retain(|r| r.id != id(PLAIN)));
        scene
    };
    for state in [State::Incomplete, State::Pinned, State::Waiting] {
        let mut scene = removed(state, SAC);
        assert_eq!(code(&scene.send(PLAIN, Sender::Aeu)), "not_a_receiver");
        assert_eq!(scene.stands(), (State::Incomplete, SAC, 1), "at its next command, though that was refused");
        assert_eq!(scene.controls(), [(ControlAction::Pass, Cause::ReceiverRemoved)]);
        assert_eq!(scene.told(Topic::ControlPass), [IVA, SAC, FREE, STRICT], "who is gone is told nothing");

        let mut scene = removed(state, IVA);
        scene.ceu("hello?");
        assert_eq!(scene.stands(), (State::Bot, IVA, 1), "at the next customer message, in the same conversation");
        assert_eq!(scene.iva_turns(), 1);
    }
    let mut scene = Scene::with(|p| p.default_receiver = id(PLAIN));
    scene.configure(|p| {
        p.default_receiver = id(FREE);
        p.receivers.retain(|r| r.id != id(PLAIN));
    });
    scene.ceu("hello");
    assert_eq!(scene.stands(), (State::Incomplete, FREE, 1), "also before the first conversation");
    assert!(scene.awaits_handoff());
}

#[test]
fn an_offerer_that_is_gone_is_told_nothing() {
    let mut scene = Scene::at(State::Pinned, FREE);
    scene.operate(op(FREE, ControlOp::Offer, Some(PLAIN))).unwrap();
    scene.configure(|p| p.receivers.retain(|r| r.id != id(FREE)));
    scene.wait(0);
    assert_eq!(scene.told(Topic::ControlExpire), [PLAIN]);
}

#[test]
fn send_to_agent_hands_off_after_its_countdown() {
    let count_down = |scene: &mut Scene, ms| scene.decide(&Command::SendToAgent { countdown_ms: ms, metadata: None });
    let mut scene = Scene::at(State::Bot, IVA);
    count_down(&mut scene, 10 * SECOND).unwrap();
    assert!(!scene.wait(10 * SECOND - 1));
    scene.wait(1);
    assert_eq!(scene.stands(), (State::Incomplete, PLAIN, 1));
    assert_eq!(scene.controls(), [(ControlAction::Pass, Cause::SendToAgent)]);
    assert!(scene.awaits_handoff());

    let mut scene = Scene::at(State::Bot, IVA);
    count_down(&mut scene, 10 * SECOND).unwrap();
    scene.operate(op(SAC, ControlOp::Take, None)).unwrap();
    assert!(!scene.wait(10 * SECOND), "whoever has it now keeps it");

    let mut scene = Scene::at(State::Bot, IVA);
    count_down(&mut scene, 10 * SECOND).unwrap();
    scene.event(IVA, AgentEvent::Complete).unwrap();
    assert_eq!(scene.thread.next_deadline(&scene.policy), None, "the end of the conversation ends it");

    let mut scene = Scene::at(State::Pinned, FREE);
    count_down(&mut scene, 10 * SECOND).unwrap();
    assert!(!scene.wait(10 * SECOND), "an agent has it already");

    for state in [State::None, State::Complete] {
        assert_eq!(code(&count_down(&mut Scene::at(state, IVA), 0)), "invalid_state");
    }

    let mut scene = Scene::at(State::Bot, IVA);
    for tool in [SAC, PLAIN, FREE, STRICT] {
        scene.unhealthy(tool);
    }
    count_down(&mut scene, 5 * SECOND).unwrap();
    scene.wait(5 * SECOND);
    assert_eq!((scene.stands(), notes(&scene.entries)), ((State::Bot, IVA, 1), vec![IvaNote::NoReceiver]));
}

/// Deadlines are data: each pending thing has one, and it is gone with the thing.
#[test]
fn deadlines() {
    let kinds = |scene: &Scene| -> Vec<(DeadlineKind, u64)> {
        let due = scene.thread.deadlines(&scene.policy);
        due.into_iter().map(|(kind, at)| (kind, at.since(scene.now))).collect()
    };
    assert_eq!(kinds(&Scene::new()), []);
    assert_eq!(kinds(&Scene::at(State::Complete, IVA)), []);
    assert_eq!(kinds(&Scene::at(State::Bot, IVA)), [(DeadlineKind::Idle, IDLE)]);
    assert_eq!(kinds(&Scene::at(State::Pinned, PLAIN)), []);
    assert_eq!(kinds(&handed_to(PLAIN, &[])), [(DeadlineKind::Handoff, HANDOFF)]);
    let mut scene = Scene::at(State::Waiting, PLAIN);
    scene.operate(op(PLAIN, ControlOp::Offer, Some(SAC))).unwrap();
    scene.operate(op(FREE, ControlOp::Request, None)).unwrap();
    assert_eq!(kinds(&scene), [(DeadlineKind::Offer, WISH), (DeadlineKind::Request, WISH), (DeadlineKind::Idle, IDLE)]);
}
