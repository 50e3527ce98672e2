//! Random histories: commands legal and not, time that passes or goes back, configurations that change, crashes.
//!
//! After each step every `invariant_*` holds, and the thread stands where a second, flat reading of the contract says.

mod invariants;
mod ledger;
mod model;
mod script;

use invariants::*;
use ledger::{Ledger, Observed};
use model::{Given, Model};
use proptest::test_runner::{Config, TestRunner};
use script::{Act, Configure, Moment, OfferId, Script, Setup, TurnEnd, WhichTurn, Who, id};
use std::{cell::RefCell, collections::BTreeMap};
use tract_domain::{
    Agent, Body, Command, Context, ControlOp, ControlRequest, Fact, Feedback, IvaAnswer, Json, Policy, ReceiverId,
    Sender, Thread, Timestamp, Transition, Turn,
};

/// Steps in an ordinary run; `TRACT_PROPERTY_STEPS` asks for more (or fewer).
const STEPS: usize = 100_000;
/// Steps in one history, on average.
const LENGTH: usize = 250;

#[test]
fn random_histories_keep_every_invariant() {
    let steps = std::env::var("TRACT_PROPERTY_STEPS").map_or(STEPS, |n| n.parse().expect("TRACT_PROPERTY_STEPS"));
    let seen = RefCell::new(Seen::default());
    while seen.borrow().steps < steps {
        let left = steps - seen.borrow().steps;
        let cases = u32::try_from(left.div_ceil(LENGTH)).expect("so many cases");
        let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
        let play = |script| {
            Play::of(&script).play(&script, &mut seen.borrow_mut());
            Ok(())
        };
        if let Err(broken) = TestRunner::new(config).run(&script::script(LENGTH), play) {
            panic!("{broken}");
        }
    }
    if steps >= STEPS {
        seen.borrow().assert_varied();
    }
}

/// What the histories came upon: a property that never met its case proves nothing.
#[derive(Default)]
struct Seen {
    steps: usize,
    refusals: BTreeMap<&'static str, u32>,
    facts: BTreeMap<String, u32>,
}

impl Seen {
    fn note(&mut self, done: &Transition) {
        for entry in &done.entries {
            let fact = match &entry.fact {
                Fact::State(s) => format!("{} to {} by {:?}", s.from.as_str(), s.to.as_str(), s.cause),
                Fact::Control(c) => format!("{:?} by {:?}", c.action, c.cause),
                Fact::Message(m) => format!("message of {}", m.sender.as_str()),
                Fact::Event(tract_domain::Event::Agent { topic, .. }) => format!("{topic:?}"),
                Fact::Event(tract_domain::Event::Iva { note, .. }) => note.as_str().to_owned(),
                Fact::Event(tract_domain::Event::Feedback(_)) => "feedback".to_owned(),
            };
            *self.facts.entry(fact).or_default() += 1;
        }
    }

    fn assert_varied(&self) {
        let codes = [
            "duplicate_feedback",
            "invalid_state",
            "no_conversation",
            "no_offer",
            "not_a_receiver",
            "not_active",
            "not_permitted",
            "offer_pending",
            "receiver_not_active",
            "receiver_unavailable",
            "request_pending",
            "sender_not_allowed",
            "stale_epoch",
            "target_not_permitted",
            "unknown_receiver",
        ];
        assert!(self.refusals.keys().eq(&codes), "every refusal was met, and no other: {:?}", self.refusals);
        let expected = include_str!("must_be_met.txt").lines().filter(|l| !l.is_empty());
        let missed: Vec<&str> = expected.filter(|fact| !self.facts.contains_key(*fact)).collect();
        assert!(missed.is_empty(), "never met: {missed:#?}");
    }
}

/// A history being played.
struct Play {
    policy: Policy,
    now: Timestamp,
    thread: Thread,
    model: Model,
    ledger: Ledger,
}

impl Play {
    fn of(script: &Script) -> Self {
        let policy = script.setup.policy();
        let thread = Thread::open(&policy);
        let (model, ledger) = (Model::new(&policy), Ledger::new(policy.default_receiver.clone()));
        Self { policy, now: Timestamp(1_700_000_000_000), thread, model, ledger }
    }

    fn play(mut self, script: &Script, seen: &mut Seen) {
        for step in &script.steps {
            seen.steps += 1;
            self.now = Timestamp(self.now.0 + step.ms);
            if let Act::Configure(change) = &step.act {
                self.configure(&script.setup, change);
            }
            self.settle(seen);
            if let Some(command) = self.command(&step.act) {
                self.decide(&command, seen);
            }
            // The process may die at any time: what goes on is what was stored.
            self.thread = invariant_a_snapshot_is_read_back(&self.thread);
        }
    }

    fn configure(&mut self, setup: &Setup, change: &Configure) {
        setup.configure(&mut self.policy, change);
    }

    fn settle(&mut self, seen: &mut Seen) {
        let given = Given { policy: &self.policy, now: self.now, last_entry: self.ledger.last_at, offer_id: None };
        let expected = self.model.settle(given);
        let done = self.thread.settle(Context { now: self.now, policy: &self.policy });
        assert_eq!(done.is_some(), expected, "whether anything was due");
        if let Some(done) = done {
            self.take_over(done, None, seen);
        }
        invariant_settling_leaves_nothing_due(&self.thread, Context { now: self.now, policy: &self.policy });
    }

    fn decide(&mut self, command: &Command, seen: &mut Seen) {
        let offer_id = self.thread.control().offer.as_ref().map(|o| o.id.clone());
        let given = Given {
            policy: &self.policy,
            now: self.now,
            last_entry: self.ledger.last_at,
            offer_id: offer_id.as_deref(),
        };
        let before = self.model.clone();
        let expected = self.model.decide(command, given);
        match self.thread.decide(command, Context { now: self.now, policy: &self.policy }) {
            Ok(done) => {
                assert_eq!(expected, Ok(()), "the contract refuses {command:?}");
                self.take_over(done, Some(command), seen);
            }
            Err(refusal) => {
                assert_eq!(expected, Err(refusal.code()), "{command:?}: {refusal}");
                if let Some((active, epoch)) = refusal.holder() {
                    let control = self.thread.control();
                    assert_eq!((active, epoch), (&control.active, control.epoch), "a refusal tells the present");
                }
                self.model = before;
                self.model.assert_matches(&self.thread, &self.policy);
                *seen.refusals.entry(refusal.code()).or_default() += 1;
            }
        }
    }

    fn take_over(&mut self, done: Transition, command: Option<&Command>, seen: &mut Seen) {
        let step = Observed { done: &done, command, policy: &self.policy, now: self.now };
        check(&self.ledger, &step);
        invariant_no_operation_changes_nothing(&self.thread, &step);
        self.ledger.add(&step);
        invariant_no_listener_misses_a_message(&self.ledger, &step);
        invariant_held_covers_the_conversations(&self.ledger, &step);
        self.model.assert_matches(&done.thread, &self.policy);
        seen.note(&done);
        self.thread = done.thread;
    }

    // ---- from a script to commands ----

    fn command(&self, act: &Act) -> Option<Command> {
        Some(match act {
            Act::Nothing | Act::Configure(_) => return None,
            Act::Ceu => Command::Ceu { body: body(), metadata: None },
            Act::Send { by, sender, epoch, agent } => Command::Send {
                by: self.who(*by),
                sender: sender.unwrap_or(if self.who(*by) == id(0) { Sender::Iva } else { Sender::Aeu }),
                body: body(),
                metadata: None,
                agent: agent.map(named),
                control_epoch: self.epoch(*epoch),
            },
            Act::Event { by, event, agent } => {
                Command::Event { by: self.who(*by), event: *event, agent: agent.map(named), metadata: None }
            }
            Act::Control { by, op, to, epoch, window, offer } => Command::Control(ControlRequest {
                by: self.who(*by),
                op: *op,
                receiver: to.map(|to| self.who(to)),
                control_epoch: self.epoch(*epoch),
                deadline_ms: *window,
                offer_id: self.offer_id(*offer),
                metadata: None,
            }),
            Act::Negotiate { to, accept } => {
                let pending = self.thread.control().offer.is_some();
                let (by, op, to) = match (pending, accept) {
                    (true, true) => (Who::Offered, ControlOp::Accept, None),
                    (true, false) => (Who::Offered, ControlOp::Decline, None),
                    (false, _) => (Who::Holder, ControlOp::Offer, *to),
                };
                Command::Control(ControlRequest {
                    by: self.who(by),
                    op,
                    receiver: to.map(|to| self.who(to)),
                    control_epoch: None,
                    deadline_ms: None,
                    offer_id: None,
                    metadata: None,
                })
            }
            Act::HandoffAnswered { by, epoch } => {
                let epoch = self.epoch(*epoch).unwrap_or(self.thread.control().epoch);
                Command::HandoffAnswered { by: self.who(*by), epoch }
            }
            Act::Iva { turn, end } => {
                let turn = self.turn(*turn)?;
                match end {
                    TurnEnd::Deferred => Command::IvaDeferred { turn },
                    TurnEnd::Broke => Command::IvaBroke { turn, reason: "timeout".to_owned() },
                    TurnEnd::Answered { messages, handoff, complete, details, fault } => {
                        let answer = IvaAnswer {
                            messages: vec![body(); *messages],
                            handoff: handoff.map(|i| script::ROSTER.get(i).unwrap_or(&"no id!").to_string()),
                            complete: *complete,
                            conversation_details: details.then(|| Json(r#"{"a":1}"#.into())),
                            details_fault: fault.then(|| "too long".to_owned()),
                        };
                        Command::IvaAnswered { turn, answer }
                    }
                }
            }
            Act::Feedback => Command::Feedback(Feedback { resolved: true, rating: 5, comment: None }),
            Act::Drain { from, to } => Command::Drain { from: self.who(*from), to: self.who(*to) },
            Act::SendToAgent { countdown } => Command::SendToAgent { countdown_ms: *countdown, metadata: None },
        })
    }

    fn who(&self, who: Who) -> ReceiverId {
        let control = self.thread.control();
        match who {
            Who::Holder => control.active.clone(),
            Who::Offered => control.offer.as_ref().map_or_else(|| id(1), |o| o.to.clone()),
            Who::Asking => control.request.as_ref().map_or_else(|| id(2), |r| r.from.clone()),
            Who::Named(index) => id(index),
        }
    }

    fn epoch(&self, moment: Moment) -> Option<u64> {
        match moment {
            Moment::Unsaid => None,
            Moment::Present => Some(self.thread.control().epoch),
            Moment::Stale => Some(self.thread.control().epoch - 1),
        }
    }

    fn offer_id(&self, which: OfferId) -> Option<String> {
        match which {
            OfferId::Unsaid => None,
            OfferId::Present => self.thread.control().offer.as_ref().map(|o| o.id.clone()),
            OfferId::Wrong => Some("offer-0-0".to_owned()),
        }
    }

    fn turn(&self, which: WhichTurn) -> Option<Turn> {
        match which {
            WhichTurn::Back(back) => self.ledger.turns.iter().rev().nth(back).copied(),
            WhichTurn::Present => {
                let (message, conversation) = (self.thread.sequence(), self.thread.conversation());
                Some(Turn { message, conversation, epoch: self.thread.control().epoch })
            }
        }
    }
}

fn body() -> Body {
    Body("said".into())
}

fn named(agent: u8) -> Agent {
    Agent { name: Some(format!("agent {agent}")), ..Agent::default() }
}
