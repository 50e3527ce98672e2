//! Section 9: turns of the IVA, late answers, bot breaks.

use crate::scene::*;
use tract_domain::{
    AgentEvent, Cause, ChannelEvent, ControlOp, DeadlineKind, Entry, Fact, IvaAnswer, Json, Sender, State, Topic, Turn,
    entry::{Event, IvaNote},
};

fn json(text: &str) -> Json {
    Json(text.into())
}

fn says(texts: &[&str]) -> IvaAnswer {
    IvaAnswer { messages: texts.iter().map(|t| body(t)).collect(), ..IvaAnswer::default() }
}

fn notes(scene: &Scene) -> Vec<IvaNote> {
    let note = |e: &Entry| if let Fact::Event(Event::Iva { note, .. }) = &e.fact { Some(*note) } else { None };
    scene.entries.iter().filter_map(note).collect()
}

#[test]
fn each_customer_message_is_a_turn_while_the_iva_is_active() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        scene.ceu("hello");
        assert_eq!(scene.iva_turns(), 1);
    }
    scene.operate(op(SAC, ControlOp::Take, None)).unwrap();
    scene.ceu("hello");
    assert_eq!(scene.iva_turns(), 0, "the winner has it");
}

#[test]
fn an_answer_is_said_in_order_before_a_hand_off_takes_effect() {
    let mut scene = Scene::at(State::Bot, IVA);
    scene.iva(scene.turn(), IvaAnswer { handoff: Some(FREE.into()), ..says(&["one", "two"]) });
    let said: Vec<_> = scene.messages().iter().map(|m| (m.sender, m.body.0.to_string())).collect();
    assert_eq!(said, [(Sender::Iva, "one".to_owned()), (Sender::Iva, "two".to_owned())]);
    assert_eq!((scene.entries[0].control_epoch, scene.entries[1].control_epoch), (1, 1), "by who then held it");
    assert_eq!(scene.channel(), [ChannelEvent::Message, ChannelEvent::Message]);
    assert_eq!(scene.stands(), (State::Incomplete, FREE, 1));
    assert!(scene.awaits_handoff());
}

#[test]
fn a_hand_off_to_nobody_known_goes_to_the_hand_off_receiver_and_is_noted() {
    for wanted in ["ghost", "iva", "not an id!", ""] {
        let mut scene = Scene::at(State::Bot, IVA);
        scene.iva(scene.turn(), IvaAnswer { handoff: Some(wanted.into()), ..IvaAnswer::default() });
        assert_eq!(scene.stands(), (State::Incomplete, PLAIN, 1), "{wanted:?}");
        assert_eq!(notes(&scene), [IvaNote::UnknownReceiver]);
    }
}

#[test]
fn a_hand_off_that_finds_nobody_healthy_says_the_bot_break_message() {
    let mut scene = Scene::at(State::Bot, IVA);
    for tool in [SAC, PLAIN, FREE, STRICT] {
        scene.unhealthy(tool);
    }
    scene.iva(scene.turn(), IvaAnswer { handoff: Some(FREE.into()), ..says(&["one moment"]) });
    assert_eq!(scene.stands(), (State::Bot, IVA, 1));
    assert_eq!(scene.messages().last().unwrap().sender, Sender::Haptik);
    assert_eq!(notes(&scene), [IvaNote::NoReceiver]);
}

/// Late is an answer whose conversation or epoch has passed: discarded whole, and noted.
#[test]
fn a_late_answer_is_discarded_whole_and_noted() {
    let all = || IvaAnswer {
        handoff: Some(FREE.into()),
        complete: true,
        conversation_details: Some(json("{}")),
        ..says(&["late"])
    };
    let moved: fn(&mut Scene) = |s| s.operate(op(SAC, ControlOp::Take, None)).unwrap();
    let next: fn(&mut Scene) = |s| {
        s.event(IVA, AgentEvent::Complete).unwrap();
        s.ceu("another thing");
    };
    let there_and_back: fn(&mut Scene) = |s| {
        s.operate(op(SAC, ControlOp::Take, None)).unwrap();
        s.pass(SAC, IVA).unwrap();
    };
    for (how, meanwhile) in [("moved", moved), ("next", next), ("there and back", there_and_back)] {
        let mut scene = Scene::at(State::Bot, IVA);
        let turn = scene.turn();
        meanwhile(&mut scene);
        let before: Vec<_> = [scene.stands()].map(|(s, a, n)| (s, a.to_owned(), n)).into();
        scene.iva(turn, all());
        assert_eq!([scene.stands()].map(|(s, a, n)| (s, a.to_owned(), n)).as_slice(), before, "{how}");
        assert_eq!((notes(&scene), scene.entries.len()), (vec![IvaNote::LateAnswer], 1), "{how}");
        assert_eq!(scene.channel(), [], "{how}");
        assert_eq!(scene.thread.conversation_details(scene.now), None, "{how}");
        scene.breaks(turn);
        assert!(scene.entries.is_empty(), "{how}: a late break breaks nothing");
    }
}

#[test]
fn a_turn_that_never_was_the_ivas_is_late() {
    let mut scene = Scene::at(State::Incomplete, PLAIN);
    scene.iva(scene.turn(), says(&["I am the bot"]));
    assert_eq!((scene.channel(), notes(&scene)), (vec![], vec![IvaNote::LateAnswer]));
    scene.iva(Turn { message: 1, conversation: u64::MAX, epoch: u64::MAX }, says(&["I too"]));
    assert_eq!(scene.channel(), []);
}

/// The conversation fell silent while the IVA thought, and the IVA still holds the thread: it may speak, no more.
#[test]
fn an_answer_after_the_end_reopens_nothing() {
    let mut scene = Scene::at(State::Bot, IVA);
    let turn = scene.turn();
    scene.wait(IDLE);
    let details = Some(json("{}"));
    scene.iva(turn, IvaAnswer { handoff: Some(FREE.into()), conversation_details: details, ..says(&["well"]) });
    assert_eq!((scene.stands(), scene.channel()), ((State::Complete, IVA, 1), vec![ChannelEvent::Message]));
    assert_eq!(scene.thread.conversation_details(scene.now), None);
    scene.breaks(turn);
    assert!(scene.entries.is_empty());
}

#[test]
fn a_bot_break_goes_to_the_hand_off_receiver() {
    let mut scene = Scene::at(State::Bot, IVA);
    scene.breaks(scene.turn());
    assert_eq!(scene.stands(), (State::Incomplete, PLAIN, 1));
    assert_eq!((notes(&scene), scene.messages().len()), (vec![IvaNote::BotBreak], 0));
    assert_eq!(scene.controls()[0].1, Cause::BotBreak);
    assert!(scene.awaits_handoff());
}

#[test]
fn a_bot_break_without_human_assistance_says_so() {
    let mut scene = Scene::with(|p| p.human_assistance = false).brought_to(State::Bot, IVA);
    scene.breaks(scene.turn());
    assert_eq!((scene.stands(), scene.channel()), ((State::Bot, IVA, 1), vec![ChannelEvent::Message]));
    let said = scene.messages()[0];
    assert_eq!((said.sender, &said.body, &said.by), (Sender::Haptik, &body("sorry"), &None));
    assert_eq!(scene.told(Topic::MessageReceive), [IVA, SAC, PLAIN, FREE], "everyone but who is not in control");
}

#[test]
fn a_bot_break_with_nobody_healthy_says_so() {
    let mut scene = Scene::at(State::Bot, IVA);
    for tool in [SAC, PLAIN, FREE, STRICT] {
        scene.unhealthy(tool);
    }
    scene.breaks(scene.turn());
    assert_eq!((scene.stands(), scene.messages()[0].sender), ((State::Bot, IVA, 1), Sender::Haptik));
}

#[test]
fn conversation_details_live_as_long_as_the_conversation_and_at_most_three_hours() {
    let hours = 60 * 60 * SECOND;
    let set = |scene: &mut Scene| {
        let conversation_details = Some(json(r#"{"order":1}"#));
        scene.iva(scene.turn(), IvaAnswer { conversation_details, ..says(&["noted"]) });
    };
    let mut scene = Scene::with(|p| p.idle_timeout_ms = 0).brought_to(State::Bot, IVA);
    set(&mut scene);
    scene.wait(3 * hours - 1);
    assert_eq!(scene.thread.conversation_details(scene.now), Some(&json(r#"{"order":1}"#)));
    scene.wait(1);
    assert_eq!(scene.thread.conversation_details(scene.now), None);

    let mut scene = Scene::at(State::Bot, IVA);
    set(&mut scene);
    scene.event(IVA, AgentEvent::Complete).unwrap();
    assert_eq!(scene.state_changes()[0].details, Some(json(r#"{"order":1}"#)), "the end tells them");
    scene.ceu("another thing");
    assert_eq!(scene.thread.conversation_details(scene.now), None);
}

#[test]
fn details_that_were_left_out_are_noted() {
    let mut scene = Scene::at(State::Bot, IVA);
    let details_fault = Some("too long".to_owned());
    scene.iva(scene.turn(), IvaAnswer { details_fault, ..says(&["noted"]) });
    assert_eq!(notes(&scene), [IvaNote::DetailsRefused]);
}

#[test]
fn the_iva_may_answer_later_through_its_token() {
    let mut scene = Scene::at(State::Bot, IVA);
    let turn = scene.turn();
    scene.decide(&tract_domain::Command::IvaDeferred { turn }).unwrap();
    assert!(scene.entries.is_empty());
    scene.send(IVA, Sender::Iva).unwrap();
    assert_eq!((scene.state(), scene.channel()), (State::Bot, vec![ChannelEvent::Message]));
    let due = scene.thread.deadlines(&scene.policy);
    assert_eq!(due.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>(), [DeadlineKind::Idle]);
}

#[test]
fn what_a_turn_brings_names_the_message_that_it_answers() {
    let mut scene = Scene::at(State::Bot, IVA);
    scene.ceu("one");
    let first = scene.turn();
    scene.ceu("two");
    let second = scene.turn();
    assert_eq!(scene.thread.answered(), 0);

    scene.iva(first, says(&["a", "b"]));
    assert!(scene.messages().iter().all(|m| m.answers == Some(first.message)));
    assert_eq!(scene.thread.answered(), first.message);

    scene.configure(|policy| policy.human_assistance = false);
    scene.breaks(second);
    assert_eq!(scene.messages().last().unwrap().answers, Some(second.message), "the apology too");
    assert_eq!(scene.thread.answered(), second.message);

    scene.send(IVA, Sender::Iva).unwrap();
    assert_eq!(scene.messages().last().unwrap().answers, None, "what the bot says by itself answers nothing");
    scene.iva(first, says(&["again"]));
    assert_eq!(scene.thread.answered(), second.message, "it never goes back");
}
