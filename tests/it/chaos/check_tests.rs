//! The checker itself: histories that are as they ought to be, and one for each way in which they may not be.

use super::{
    check::{faults, faults_but_loss},
    history::{Call, Entry, Fact, Moment, Told, Wish},
};

const DEFAULT: &str = "red";

/// A short life of a thread: the customer writes, red answers, blue takes, red is refused, blue offers, red accepts.
struct Story {
    feed: Vec<Entry>,
    calls: Vec<Call>,
}

fn owned(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn control(op: &'static str, to: Option<&str>, offer_id: Option<&str>) -> Wish {
    Wish::Control { op, to: to.map(str::to_owned), offer_id: offer_id.map(str::to_owned) }
}

fn call(id: &str, by: &str, wish: Wish, (begun, ended): (Moment, Moment), told: Told) -> Call {
    let by = (!by.is_empty()).then(|| by.to_owned());
    Call { id: id.to_owned(), by, wish, epoch: None, begun, asked_last: begun, ended, doubtful: false, told }
}

fn said(message_id: u64, sequence: u64, epoch: u64) -> Told {
    Told::Said { message_id, sequence: Some(sequence), epoch: Some(epoch) }
}

fn told_holder(active: &str, epoch: u64, offer_id: Option<&str>) -> Told {
    Told::Holds { active: active.to_owned(), epoch, offer_id: offer_id.map(str::to_owned) }
}

fn refused(code: &str, active: &str, epoch: u64) -> Told {
    Told::Refused { code: code.to_owned(), holder: Some((active.to_owned(), epoch)) }
}

fn stands(sequence: u64, active: &str, epoch: u64, pending: Option<&str>) -> Told {
    let (state, pending) = ("incomplete".to_owned(), pending.map(str::to_owned));
    Told::Stands { sequence, state, active: active.to_owned(), epoch, pending }
}

fn message(call: &str, id: u64, sender: &str, active: &str) -> (Option<String>, Fact) {
    (owned(call), Fact::Message { id, sender: sender.to_owned(), active: active.to_owned() })
}

fn state(from: &str, to: &str) -> (Option<String>, Fact) {
    (None, Fact::State { from: from.to_owned(), to: to.to_owned() })
}

fn moved(call: &str, [action, cause, from, to, by, offer]: [&str; 6]) -> (Option<String>, Fact) {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let [action, cause, from, to] = [action, cause, from, to].map(str::to_owned);
    (given(call), Fact::Control { action, cause, from, to, by: given(by), offer_id: given(offer) })
}

impl Story {
    fn new() -> Self {
        let facts = [
            (1, state("none", "incomplete")),
            (1, message("hello", 10, "ceu", "red")),
            (1, state("incomplete", "pinned")),
            (1, message("hi", 20, "aeu", "red")),
            (2, moved("taking", ["take", "take", "red", "blue", "blue", ""])),
            (2, state("pinned", "incomplete")),
            (2, moved("offering", ["offer", "offer", "blue", "red", "blue", "offer-2-7"])),
            (3, moved("accepting", ["pass", "accept", "blue", "red", "red", ""])),
            (3, state("incomplete", "incomplete")),
        ];
        let feed = facts.into_iter().zip(1..).map(|((epoch, (call, fact)), sequence)| Entry {
            sequence,
            conversation: 1,
            epoch,
            call,
            fact,
        });
        let offer = Some("offer-2-7");
        let calls = vec![
            call("hello", "", Wish::Say, (0, 10), Told::Said { message_id: 10, sequence: None, epoch: None }),
            call("hi", "red", Wish::Send, (11, 20), said(20, 4, 1)),
            call("taking", "blue", control("take", None, None), (15, 30), told_holder("blue", 2, None)),
            call("too late", "red", Wish::Send, (25, 40), refused("not_active", "blue", 2)),
            call("a look", "green", Wish::Look, (28, 35), stands(6, "blue", 2, None)),
            call("offering", "blue", control("offer", Some("red"), None), (41, 50), told_holder("blue", 2, offer)),
            call("accepting", "red", control("accept", None, offer), (51, 60), told_holder("red", 3, None)),
        ];
        Self { feed: feed.collect(), calls }
    }

    fn call(&mut self, id: &str) -> &mut Call {
        self.calls.iter_mut().find(|call| call.id == id).unwrap()
    }

    fn with(mut self, call: Call) -> Self {
        self.calls.push(call);
        self
    }

    /// Appends an entry.
    fn then(mut self, epoch: u64, (call, fact): (Option<String>, Fact)) -> Self {
        let sequence = self.feed.len() as u64 + 1;
        self.feed.push(Entry { sequence, conversation: 1, epoch, call, fact });
        self
    }

    #[track_caller]
    fn is_sound(&self) {
        assert_eq!(faults(DEFAULT, &self.feed, &self.calls), [""; 0]);
    }

    #[track_caller]
    fn fails(&self, expected: &str) {
        let faults = faults(DEFAULT, &self.feed, &self.calls);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected:?} is not among {faults:#?}");
    }
}

#[test]
fn what_one_order_explains_is_sound() {
    Story::new().is_sound();
}

#[test]
fn a_refusal_may_be_of_any_moment_between_asking_and_answer() {
    // Red holds it again from entry 8 on, which was under way.
    let late = call("again", "red", Wish::Send, (52, 70), refused("not_active", "blue", 2));
    Story::new().with(late).is_sound();
    let idle = call("idle", "red", control("pass", Some("red"), None), (55, 70), told_holder("red", 3, None));
    Story::new().with(idle).is_sound();
    let moot = call("moot", "red", control("accept", None, Some("offer-2-7")), (61, 70), refused("no_offer", "red", 3));
    Story::new().with(moot).is_sound();
    let mut stale = call("stale", "red", Wish::Send, (61, 70), refused("stale_epoch", "red", 3));
    stale.epoch = Some(2);
    Story::new().with(stale).is_sound();
}

#[test]
fn a_refusal_that_was_true_only_before_or_after_is_a_fault() {
    let late = call("late", "red", Wish::Send, (61, 70), refused("not_active", "blue", 2));
    Story::new().with(late).fails("never true between entries 8");
    let early = call("early", "red", Wish::Send, (0, 5), refused("not_active", "blue", 2));
    Story::new().with(early).fails("never true between entries 0");
    let moot = call("moot", "red", control("accept", None, Some("offer-2-7")), (51, 60), refused("no_offer", "red", 2));
    Story::new().with(moot).fails("never true");
    let unheard_of = Told::Refused { code: "unknown_user".to_owned(), holder: None };
    Story::new().with(call("lost", "red", Wish::Send, (0, 70), unheard_of)).fails("never true");
}

#[test]
fn what_was_seen_is_not_unseen() {
    let see = |at, sequence, epoch| call("see", "green", Wish::Look, at, stands(sequence, "blue", epoch, None));
    let both = |first, second| Story::new().with(first).with(second);
    let (earlier, later) = (stands(6, "blue", 2, None), stands(7, "blue", 2, Some("red")));
    let look = |id, at, told| call(id, "green", Wish::Look, at, told);
    both(look("1", (42, 44), earlier.clone()), look("2", (45, 47), later.clone())).is_sound();
    both(look("1", (42, 44), later), look("2", (45, 47), earlier)).fails("never true between entries 7");
    Story::new().with(see((61, 62), 6, 2)).fails("never true");
    Story::new().with(see((42, 60), 6, 3)).fails("never true");
}

#[test]
fn what_was_acknowledged_is_there_once_and_as_it_was_told() {
    let mut story = Story::new();
    story.feed.truncate(7);
    story.fails("never true");
    let mut story = Story::new();
    story.call("hi").id = "something else".to_owned();
    story.fails("acknowledged and lost");
    story.fails("nobody asked for this");
    Story::new().then(3, message("hello", 30, "ceu", "red")).fails("doubled");
    let mut story = Story::new();
    story.call("hi").told = said(20, 3, 1);
    story.fails("it was told otherwise");
    let mut story = Story::new();
    story.call("taking").told = told_holder("blue", 3, None);
    story.fails("it was told otherwise");
}

#[test]
fn what_is_in_doubt_is_there_once_or_not() {
    for told in [Told::Unknown, Told::NotDone, refused("not_active", "blue", 2)] {
        let doubted = call("doubted", "blue", Wish::Send, (42, 49), told);
        let doubted = Call { doubtful: true, by: owned("red"), ..doubted };
        Story::new().with(doubted.clone()).is_sound();
        // It is carried out much later, when red holds the thread again.
        let story = Story::new().with(doubted).then(3, message("doubted", 30, "aeu", "red"));
        story.is_sound();
        story.then(3, message("doubted", 40, "aeu", "red")).fails("doubled");
    }
}

#[test]
fn what_was_refused_for_good_is_not_done() {
    let unavailable = call("not done", "red", Wish::Send, (61, 70), Told::NotDone);
    Story::new().with(unavailable.clone()).is_sound();
    Story::new().with(unavailable).then(3, message("not done", 30, "aeu", "red")).fails("it was told that it was not");
    let refusal = call("refused", "red", Wish::Send, (25, 40), refused("not_active", "blue", 2));
    Story::new().with(refusal).then(3, message("refused", 30, "aeu", "red")).fails("although it was refused");
}

#[test]
fn order_follows_time() {
    // What was asked after the offer was answered cannot come before it.
    let mut story = Story::new();
    story.call("taking").begun = 60;
    story.call("taking").ended = 70;
    story.fails("which was answered before it was asked");
}

#[test]
fn only_the_active_receiver_speaks() {
    let mut story = Story::new();
    story.call("hi").by = owned("blue");
    story.fails("red was active");
    let mut story = Story::new();
    story.call("hi").epoch = Some(7);
    story.fails("the epoch was 1");
    let passed = call("passing", "blue", control("pass", Some("blue"), None), (61, 70), told_holder("blue", 4, None));
    let story = Story::new().with(passed);
    story.then(4, moved("passing", ["pass", "pass", "red", "blue", "blue", ""])).fails("red was active");
}

#[test]
fn a_feed_that_cannot_be_is_a_fault() {
    let broken = |by: &dyn Fn(&mut Vec<Entry>), expected| {
        let mut story = Story::new();
        by(&mut story.feed);
        story.fails(expected);
    };
    broken(&|feed| drop(feed.remove(3)), "a gap");
    broken(&|feed| feed[4].epoch = 3, "the epoch ought to be 2");
    broken(&|feed| feed[7].epoch = 2, "the epoch ought to be 3");
    broken(&|feed| feed[3].fact = message("hi", 10, "aeu", "red").1, "not above the one before");
    broken(&|feed| feed[3].fact = message("hi", 20, "aeu", "blue").1, "red is active");
    broken(&|feed| feed[2].fact = state("bot", "pinned").1, "the state was incomplete");
    let accepted = moved("", ["pass", "accept", "blue", "green", "green", ""]).1;
    broken(&|feed| feed[7].fact = accepted.clone(), "no such offer was pending");
    let passed = moved("", ["pass", "pass", "blue", "red", "blue", ""]).1;
    broken(&|feed| feed[7].fact = passed.clone(), "ought to have ended before");
    Story::new().then(3, moved("", ["expire", "deadline", "blue", "red", "", "offer-2-7"])).fails("no such offer");
}

#[test]
fn a_loss_is_counted_and_excuses_nothing_else() {
    let mut story = Story::new();
    story.feed.truncate(3);
    story.fails("acknowledged and lost");
    let (faults, lost) = faults_but_loss(DEFAULT, &story.feed, &story.calls);
    assert_eq!((faults.len(), lost.len()), (0, 1), "{faults:?} {lost:?}");
    let twice = story.then(1, message("hello", 30, "ceu", "red"));
    let (faults, _) = faults_but_loss(DEFAULT, &twice.feed, &twice.calls);
    assert!(faults.iter().any(|fault| fault.starts_with("doubled")), "{faults:?}");
    let mut gap = Story::new();
    gap.feed.remove(3);
    let (faults, _) = faults_but_loss(DEFAULT, &gap.feed, &gap.calls);
    assert!(faults.iter().any(|fault| fault.contains("a gap")), "{faults:?}");
}
