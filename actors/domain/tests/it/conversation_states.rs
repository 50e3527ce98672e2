//! Section 7, the table of states, row by row.

use crate::scene::*;
use tract_domain::{AgentEvent::*, Cause, ChannelEvent, Completion, ControlOp, IvaAnswer, Sender, State, Topic};

const OPEN: [(State, &str); 4] =
    [(State::Bot, IVA), (State::Incomplete, PLAIN), (State::Pinned, PLAIN), (State::Waiting, PLAIN)];

#[test]
fn from_none_and_complete_a_customer_message_with_the_iva_active_opens_in_bot() {
    let mut scene = Scene::new();
    for conversation in 1..=3 {
        scene.ceu("hello");
        assert_eq!(scene.stands(), (State::Bot, IVA, conversation));
        assert_eq!(scene.told(Topic::StateBot), [IVA, SAC, PLAIN, FREE, STRICT], "standby and cause included");
        assert_eq!(scene.iva_turns(), 1);
        scene.event(IVA, Complete).unwrap();
    }
}

#[test]
fn from_none_and_complete_a_customer_message_with_an_agent_tool_active_opens_in_incomplete() {
    for holder in [SAC, PLAIN] {
        let mut scene = Scene::with(|p| p.default_receiver = id(holder));
        for conversation in 1..=3 {
            scene.ceu("hello");
            assert_eq!(scene.stands(), (State::Incomplete, holder, conversation));
            assert_eq!(scene.awaits_handoff(), holder == PLAIN, "a new conversation at an ECT is a hand-off");
            assert_eq!(scene.iva_turns(), 0);
            scene.event(holder, Complete).unwrap();
        }
    }
}

#[test]
fn from_bot_a_hand_off_of_the_iva_leads_to_incomplete() {
    let mut scene = Scene::at(State::Bot, IVA);
    scene.iva(scene.turn(), IvaAnswer { handoff: Some(FREE.into()), ..IvaAnswer::default() });
    assert_eq!(scene.stands(), (State::Incomplete, FREE, 1));
    assert_eq!(scene.state_changes()[0].cause, Cause::Handoff);
}

#[test]
fn from_bot_a_break_leads_to_incomplete_while_human_assistance_is_on() {
    for (on, stands) in [(true, (State::Incomplete, PLAIN, 1)), (false, (State::Bot, IVA, 1))] {
        let mut scene = Scene::with(|p| p.human_assistance = on).brought_to(State::Bot, IVA);
        scene.breaks(scene.turn());
        assert_eq!(scene.stands(), stands);
        assert_eq!(scene.channel().len(), usize::from(!on), "the customer reads the bot-break message, or nothing");
    }
}

#[test]
fn from_any_open_state_control_to_another_agent_tool_leads_to_incomplete() {
    for (state, holder) in OPEN {
        for (by, operation, to) in
            [(SAC, ControlOp::Pass, FREE), (FREE, ControlOp::Take, FREE), (SAC, ControlOp::Take, SAC)]
        {
            let mut scene = Scene::at(state, holder);
            scene.operate(op(by, operation, Some(to))).unwrap();
            assert_eq!(scene.stands(), (State::Incomplete, to, 1), "from {state:?}");
            assert_eq!(scene.told(Topic::StateIncomplete).len(), 5);
        }
    }
}

#[test]
fn from_incomplete_and_waiting_allocated_leads_to_pinned() {
    for state in [State::Incomplete, State::Waiting] {
        let mut scene = Scene::at(state, PLAIN);
        scene.allocate(PLAIN, "Ada");
        assert_eq!(scene.stands(), (State::Pinned, PLAIN, 1));
        assert_eq!(scene.channel(), [ChannelEvent::ChatPinned]);
        assert_eq!(scene.thread.phase().agent(), Some(&agent("Ada")));
        assert_eq!(scene.told(Topic::AeuAllocated), [IVA, SAC, FREE, STRICT], "all but the sender");
    }
}

#[test]
fn from_incomplete_and_waiting_a_message_from_aeu_leads_to_pinned() {
    for state in [State::Incomplete, State::Waiting] {
        let mut scene = Scene::at(state, PLAIN);
        scene.send(PLAIN, Sender::Ect).unwrap();
        assert_eq!(scene.state(), state, "a message from ect does not");
        scene.send(PLAIN, Sender::Aeu).unwrap();
        assert_eq!(scene.stands(), (State::Pinned, PLAIN, 1));
        let entered = state == State::Incomplete;
        assert_eq!(scene.channel().contains(&ChannelEvent::ChatPinned), entered, "an agent enters once");
    }
}

#[test]
fn from_pinned_waiting_leads_to_waiting() {
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.event(PLAIN, Waiting).unwrap();
    assert_eq!(scene.stands(), (State::Waiting, PLAIN, 1));
    assert_eq!(scene.told(Topic::StateWaiting).len(), 5);
    scene.event(PLAIN, Waiting).unwrap();
    assert_eq!((scene.state(), scene.entries.len()), (State::Waiting, 0), "again: accepted, and nothing happens");
}

#[test]
fn from_waiting_a_customer_message_leads_to_pinned_with_the_same_receiver() {
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.allocate(PLAIN, "Ada");
    scene.event(PLAIN, Waiting).unwrap();
    scene.ceu("I am back");
    assert_eq!(scene.stands(), (State::Pinned, PLAIN, 1));
    assert_eq!(scene.thread.phase().agent(), Some(&agent("Ada")), "and the same agent");
    assert_eq!(scene.channel(), [], "who has been there before does not enter");
}

#[test]
fn from_any_open_state_complete_leads_to_complete_and_back_to_the_default_receiver() {
    for (state, holder) in OPEN {
        let mut scene = Scene::at(state, holder);
        scene.event(holder, Complete).unwrap();
        assert_eq!(scene.stands(), (State::Complete, IVA, 1), "from {state:?}");
        let change = scene.state_changes()[0];
        if holder == IVA {
            assert_eq!(change.completion, Some(Completion::Bot));
            assert_eq!(scene.channel(), [ChannelEvent::WebhookConversationComplete]);
        } else {
            assert_eq!(change.completion, Some(Completion::Agent));
            assert_eq!(scene.channel(), [ChannelEvent::ChatComplete, ChannelEvent::WebhookConversationComplete]);
        }
    }
}

#[test]
fn from_any_open_state_user_timeout_leads_to_complete() {
    for (state, holder) in OPEN {
        let mut scene = Scene::at(state, holder);
        scene.event(holder, UserTimeout).unwrap();
        assert_eq!(scene.stands(), (State::Complete, IVA, 1), "from {state:?}");
        assert_eq!(scene.state_changes()[0].completion, Some(Completion::Auto));
        assert_eq!(scene.channel(), [ChannelEvent::WebhookConversationComplete]);
        assert_eq!(scene.told(Topic::AeuUserTimeout).len(), 4, "all but the sender");
    }
}

/// … and *stays* with the IVA: the next customer message opens conversation n+1 in bot with it.
#[test]
fn from_any_open_state_control_given_to_the_iva_leads_to_complete_and_stays() {
    type Give = fn(&mut Scene);
    let gives: [(&str, Give); 4] = [
        ("pass", |s| s.pass(SAC, IVA).unwrap()),
        ("take", |s| s.operate(op(IVA, ControlOp::Take, None)).unwrap()),
        ("release", |s| {
            s.configure(|p| p.default_receiver = id(IVA));
            s.operate(op(PLAIN, ControlOp::Release, None)).unwrap();
            s.configure(|p| p.default_receiver = id(SAC));
        }),
        ("accept", |s| {
            s.operate(op(SAC, ControlOp::Offer, Some(IVA))).unwrap();
            s.operate(op(IVA, ControlOp::Accept, None)).unwrap();
        }),
    ];
    for state in [State::Incomplete, State::Pinned, State::Waiting] {
        for (how, give) in &gives {
            let mut scene = Scene::with(|p| p.default_receiver = id(SAC)).brought_to(state, PLAIN);
            give(&mut scene);
            assert_eq!(scene.stands(), (State::Complete, IVA, 1), "{how} from {state:?}");
            let bots_own = matches!(*how, "take" | "accept");
            let completion = if bots_own { Completion::Bot } else { Completion::Agent };
            assert_eq!(scene.state_changes()[0].completion, Some(completion), "{how}");
            scene.ceu("and another thing");
            assert_eq!(scene.stands(), (State::Bot, IVA, 2), "{how}: it stayed, though SAC is the default");
        }
    }
}

#[test]
fn from_bot_the_iva_says_complete() {
    let mut scene = Scene::at(State::Bot, IVA);
    let answer = IvaAnswer { messages: vec![body("bye")], complete: true, ..IvaAnswer::default() };
    scene.iva(scene.turn(), answer);
    assert_eq!(scene.stands(), (State::Complete, IVA, 1));
    assert_eq!(scene.state_changes()[0].completion, Some(Completion::Bot));
    assert_eq!(scene.channel(), [ChannelEvent::Message, ChannelEvent::WebhookConversationComplete]);
}

#[test]
fn from_bot_and_waiting_silence_leads_to_complete_and_from_elsewhere_to_nothing() {
    for (state, holder, ends) in [
        (State::Bot, IVA, true),
        (State::Incomplete, PLAIN, false),
        (State::Pinned, PLAIN, false),
        (State::Waiting, PLAIN, true),
    ] {
        let mut scene = Scene::at(state, holder);
        assert!(!scene.wait(IDLE - 1), "{state:?}: not before");
        assert_eq!(scene.wait(1), ends, "{state:?}");
        if ends {
            assert_eq!(scene.stands(), (State::Complete, IVA, 1));
            assert_eq!(scene.state_changes()[0].completion, Some(Completion::Auto));
            assert_eq!(scene.channel(), [ChannelEvent::WebhookConversationComplete]);
        }
    }
}

/// Silence is counted since the last message either way, and since entering the state.
#[test]
fn silence_begins_with_the_last_message_or_the_state() {
    let mut scene = Scene::at(State::Bot, IVA);
    scene.wait(IDLE - 1);
    scene.send(IVA, Sender::Iva).unwrap();
    assert!(!scene.wait(IDLE - 1), "a message to the customer");
    scene.ceu("hm");
    assert!(!scene.wait(IDLE - 1), "a message of the customer");
    assert!(scene.wait(1));

    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.wait(IDLE);
    scene.event(PLAIN, Waiting).unwrap();
    assert!(!scene.wait(IDLE - 1), "since entering waiting");
    assert!(scene.wait(1));

    let mut scene = Scene::with(|p| p.idle_timeout_ms = 0).brought_to(State::Bot, IVA);
    assert!(!scene.wait(1_000 * IDLE), "0 is for ever");
}

/// A message or event that is not listed leaves the state alone.
#[test]
fn what_is_not_listed_leaves_the_state_alone() {
    for (state, holder) in OPEN {
        let mut scene = Scene::at(state, holder);
        scene.event(holder, Received).unwrap();
        assert_eq!(scene.state(), state, "received");
        scene.send(holder, if holder == IVA { Sender::Iva } else { Sender::Ect }).unwrap();
        assert_eq!(scene.state(), state, "a message of the holder");
        if state != State::Waiting {
            scene.ceu("hello?");
            assert_eq!(scene.state(), state, "a customer message");
        }
    }
    let mut scene = Scene::at(State::Bot, IVA);
    scene.event(IVA, Allocated).unwrap();
    assert_eq!(scene.state(), State::Bot, "allocated in bot");
}

#[test]
fn allocated_in_pinned_is_a_reallocation() {
    let mut scene = Scene::at(State::Incomplete, PLAIN);
    scene.allocate(PLAIN, "Ada");
    scene.allocate(PLAIN, "Grace");
    assert_eq!(scene.stands(), (State::Pinned, PLAIN, 1));
    assert!(scene.state_changes().is_empty(), "the state was not entered again");
    assert_eq!(scene.thread.phase().agent(), Some(&agent("Grace")));
    assert_eq!(scene.channel(), [ChannelEvent::ChatPinned], "somebody else has entered");
    scene.allocate(PLAIN, "Grace");
    assert_eq!(scene.channel(), [], "who is there already does not enter");
}

#[test]
fn an_agent_without_a_name_enters_once() {
    let mut scene = Scene::at(State::Waiting, PLAIN);
    scene.event(PLAIN, Allocated).unwrap();
    assert_eq!((scene.state(), scene.channel()), (State::Pinned, vec![]));
}

/// `invalid_state` for events: in none and complete; `waiting` also outside pinned and waiting.
#[test]
fn events_need_an_open_conversation() {
    let all = [
        (State::None, IVA),
        (State::Bot, IVA),
        (State::Incomplete, PLAIN),
        (State::Pinned, PLAIN),
        (State::Waiting, PLAIN),
        (State::Complete, IVA),
    ];
    for (state, holder) in all {
        for event in [Received, Allocated, UserTimeout, Waiting, Complete] {
            let open = !matches!(state, State::None | State::Complete);
            let fits = if event == Waiting { matches!(state, State::Pinned | State::Waiting) } else { open };
            let result = Scene::at(state, holder).event(holder, event);
            assert_eq!(code(&result), if fits { "ok" } else { "invalid_state" }, "{event:?} in {state:?}");
        }
    }
}

#[test]
fn events_are_accepted_from_the_active_receiver_only() {
    for event in [Received, Allocated, UserTimeout, Waiting, Complete] {
        let mut scene = Scene::at(State::Pinned, PLAIN);
        for by in [IVA, SAC, FREE] {
            assert_eq!(code(&scene.event(by, event)), "not_active");
        }
        assert_eq!(code(&scene.event("ghost", event)), "not_a_receiver");
    }
}

/// The active receiver may still send in complete, and before the first conversation: that opens nothing.
#[test]
fn a_message_of_the_holder_opens_nothing() {
    for state in [State::None, State::Complete] {
        let mut scene = Scene::at(state, IVA);
        let before = scene.thread.conversation();
        scene.send(IVA, Sender::Iva).unwrap();
        assert_eq!(scene.stands(), (state, IVA, before));
    }
}

/// Who may say what, and in which order it is judged: sender, holder, epoch.
#[test]
fn senders() {
    use Sender::*;
    let rows = [
        (PLAIN, Aeu, None, "ok"),
        (PLAIN, Ect, None, "ok"),
        (PLAIN, Iva, None, "sender_not_allowed"),
        (PLAIN, Haptik, None, "sender_not_allowed"),
        (PLAIN, Ceu, None, "sender_not_allowed"),
        (IVA, Aeu, None, "sender_not_allowed"),
        (IVA, Iva, None, "not_active"),
        (SAC, Aeu, None, "not_active"),
        (SAC, Ect, None, "not_active"),
        (SAC, Iva, None, "sender_not_allowed"),
        (FREE, Aeu, Some(1), "not_active"),
        (PLAIN, Aeu, Some(1), "stale_epoch"),
        (PLAIN, Aeu, Some(99), "stale_epoch"),
        ("ghost", Aeu, None, "not_a_receiver"),
    ];
    for (by, sender, epoch, expected) in rows {
        let mut scene = Scene::at(State::Pinned, PLAIN);
        let before = scene.thread.clone();
        let result = scene.send_at(by, sender, epoch);
        assert_eq!(code(&result), expected, "{by} as {sender:?} at {epoch:?}");
        assert_eq!(result.is_err(), scene.thread == before);
    }
    let mut scene = Scene::at(State::Pinned, PLAIN);
    scene.send_at(PLAIN, Aeu, Some(scene.epoch())).unwrap();
    assert_eq!(scene.channel(), [ChannelEvent::Message]);
}
