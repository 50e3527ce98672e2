//! Section 10: what a customer thinks of a conversation.

use crate::scene::*;
use tract_domain::{Command, Event, Fact, Feedback, State};

const HOUR: u64 = 3_600 * SECOND;

fn feedback(rating: u8) -> Command {
    Command::Feedback(Feedback { resolved: false, rating, comment: Some("slow".to_owned()) })
}

#[test]
fn feedback_stands_in_the_thread_and_changes_nothing_else() {
    for (state, holder) in [(State::Complete, IVA), (State::Bot, IVA), (State::Pinned, PLAIN)] {
        let mut scene = Scene::at(state, holder);
        let before = (scene.epoch(), scene.thread.conversation());
        scene.decide(&feedback(2)).unwrap();
        let [entry] = &scene.entries[..] else { panic!("{:?}", scene.entries) };
        let Fact::Event(Event::Feedback(given)) = &entry.fact else { panic!("{entry:?}") };
        assert_eq!((given.rating, given.resolved, given.comment.as_deref()), (2, false, Some("slow")));
        assert_eq!(scene.effects, [], "no hook tells of it");
        assert_eq!((scene.epoch(), scene.thread.conversation()), before);
        assert_eq!(scene.state(), state);
    }
}

#[test]
fn it_needs_a_conversation() {
    assert_eq!(code(&Scene::new().decide(&feedback(5))), "no_conversation");
}

#[test]
fn more_of_it_within_an_hour_is_a_duplicate() {
    let mut scene = Scene::at(State::Complete, IVA);
    scene.decide(&feedback(5)).unwrap();
    scene.wait(HOUR - 1);
    assert_eq!(code(&scene.decide(&feedback(1))), "duplicate_feedback");
    scene.wait(1);
    scene.decide(&feedback(1)).unwrap();
    scene.now = tract_domain::Timestamp(0);
    assert_eq!(
        code(&scene.decide(&feedback(1))),
        "duplicate_feedback",
        "a clock that goes back gives no second chance"
    );
}
