//! Retention: what of a thread is old enough to be forgotten, and where a thread begins that comes in its place.

use crate::scene::*;
use tract_domain::{AgentEvent, Entry, Origin, Past, Sender, State, Thread, Timestamp};

/// A thread with all its entries.
struct Story {
    scene: Scene,
    log: Vec<Entry>,
}

impl Story {
    fn tell(&mut self, verb: impl FnOnce(&mut Scene)) -> Timestamp {
        self.scene.now = self.scene.now.plus(60_000);
        self.scene.entries.clear();
        verb(&mut self.scene);
        self.log.append(&mut self.scene.entries);
        self.scene.now
    }
    fn past(&self, before: Timestamp) -> u64 {
        let mut past = Past::new(&self.scene.thread, before);
        let _ = self.log.iter().all(|entry| past.take(entry));
        past.through()
    }
    fn last(&self) -> u64 {
        self.log.last().unwrap().sequence
    }
}

fn earlier(at: Timestamp) -> Timestamp {
    Timestamp(at.0 - 1)
}

#[test]
fn a_conversation_is_past_with_its_end_and_what_came_after_it() {
    let mut story = Story { scene: Scene::new(), log: Vec::new() };
    story.tell(|scene| scene.ceu("hello"));
    story.tell(|scene| scene.pass(SAC, PLAIN).unwrap());
    let ended = story.tell(|scene| scene.event(PLAIN, AgentEvent::Complete).unwrap());
    let end = story.last();
    let afterwards = story.tell(|scene| scene.send(IVA, Sender::Iva).unwrap());
    let postscript = story.last();
    assert!(postscript > end);
    for (before, through) in [(earlier(ended), 0), (ended, end), (earlier(afterwards), end), (afterwards, postscript)] {
        assert_eq!(story.past(before), through);
        assert_eq!(story.scene.thread.rests_since(before), before == afterwards);
    }

    let opened = story.tell(|scene| scene.ceu("me again"));
    let later = opened.plus(99_999_999);
    for before in [afterwards, opened, later] {
        assert_eq!(story.past(before), postscript, "nothing of an open conversation");
        assert!(!story.scene.thread.rests_since(before));
    }
    // What is left of the first conversation once its end is forgotten is past when the next one began.
    story.log.retain(|entry| entry.sequence > end);
    assert_eq!((story.past(afterwards), story.past(opened)), (0, postscript));
    let ended = story.tell(|scene| scene.event(IVA, AgentEvent::Complete).unwrap());
    assert_eq!((story.past(earlier(ended)), story.past(ended)), (postscript, story.last()));
}

#[test]
fn a_thread_rests_when_nothing_is_open_or_pending() {
    for state in [State::None, State::Bot, State::Incomplete, State::Pinned, State::Waiting, State::Complete] {
        let holder = if matches!(state, State::None | State::Bot | State::Complete) { IVA } else { PLAIN };
        let scene = Scene::at(state, holder);
        assert_eq!(scene.thread.rests_since(scene.now), state == State::Complete, "{state:?}");
        assert!(!scene.thread.rests_since(earlier(scene.now)));
    }
}

#[test]
fn a_thread_that_comes_in_anothers_place_counts_on() {
    let policy = policy();
    assert_eq!(Thread::open(&policy), Thread::open_after(&policy, Origin::default()));
    let origin = Origin { sequence: 40, control_epoch: 7, conversation: 3 };
    let mut scene = Scene { thread: Thread::open_after(&policy, origin), ..Scene::new() };
    assert_eq!((scene.state(), scene.active(), scene.epoch()), (State::None, IVA, 8));
    scene.ceu("hello");
    assert_eq!((scene.entries[0].sequence, scene.entries[0].conversation), (41, 4));
    scene.pass(SAC, STRICT).unwrap();
    assert_eq!((scene.epoch(), scene.stands()), (9, (State::Incomplete, STRICT, 4)));
    let said = scene.histories(STRICT);
    assert_eq!(said.len(), 1, "what was said in this conversation");
    assert!(said[0].0 >= 40, "nothing from before it: {said:?}");
}
