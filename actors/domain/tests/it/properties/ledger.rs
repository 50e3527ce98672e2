//! What entries and effects have said so far, added up without asking the domain.

use super::invariants::moved;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use tract_domain::{
    Command, ControlAction, Effect, Entry, Fact, Policy, ReceiverId, Sender, State, Thread, Timestamp, Topic,
    Transition, Turn,
};

/// A transition, with what it was decided on.
pub(crate) struct Observed<'a> {
    pub(crate) done: &'a Transition,
    /// None for settling.
    pub(crate) command: Option<&'a Command>,
    pub(crate) policy: &'a Policy,
    pub(crate) now: Timestamp,
}

impl<'a> Observed<'a> {
    pub(crate) fn entries(&self) -> &'a [Entry] {
        &self.done.entries
    }
    pub(crate) fn effects(&self) -> &'a [Effect] {
        &self.done.effects
    }
    pub(crate) fn after(&self) -> &'a Thread {
        &self.done.thread
    }
    /// The entries that the channel is told of as this event.
    pub(crate) fn channel(&self, wanted: tract_domain::ChannelEvent) -> impl Iterator<Item = usize> {
        self.effects().iter().filter_map(move |e| match e {
            Effect::Channel { event, entry } if *event == wanted => Some(*entry),
            _ => None,
        })
    }
}

pub(crate) struct Said {
    sequence: u64,
    pub(crate) conversation: u64,
    by: Option<ReceiverId>,
}

impl Said {
    pub(crate) fn told(&self) -> (u64, Option<&ReceiverId>) {
        (self.sequence, self.by.as_ref())
    }
}

pub(crate) struct Ledger {
    pub(crate) sequence: u64,
    pub(crate) last_at: Timestamp,
    pub(crate) moves: u64,
    pub(crate) active: ReceiverId,
    pub(crate) state: State,
    pub(crate) conversation: u64,
    /// When the present state was entered, and when somebody spoke last.
    pub(crate) since: Timestamp,
    pub(crate) spoke: Timestamp,
    pub(crate) offer: Option<(String, ReceiverId, ReceiverId)>,
    pub(crate) request: Option<ReceiverId>,
    pub(crate) offer_ids: HashSet<String>,
    pub(crate) messages: Vec<Said>,
    /// Which messages were put into which receiver's `message.receive` hook, live or as history.
    pub(crate) enqueued: BTreeMap<ReceiverId, BTreeSet<u64>>,
    pub(crate) held: BTreeSet<(ReceiverId, u64)>,
    pub(crate) turns: Vec<Turn>,
    /// Up to which message turns are over.
    pub(crate) answered: u64,
}

impl Ledger {
    pub(crate) fn new(active: ReceiverId) -> Self {
        Self {
            sequence: 0,
            last_at: Timestamp(0),
            moves: 0,
            active,
            state: State::None,
            conversation: 0,
            since: Timestamp(0),
            spoke: Timestamp(0),
            offer: None,
            request: None,
            offer_ids: HashSet::new(),
            messages: Vec::new(),
            enqueued: BTreeMap::new(),
            held: BTreeSet::new(),
            turns: Vec::new(),
            answered: 0,
        }
    }

    /// Adds a transition. A message that a receiver gets twice is found here.
    pub(crate) fn add(&mut self, step: &Observed<'_>) {
        self.answered = step.after().answered();
        for entry in step.entries() {
            self.sequence = entry.sequence;
            self.last_at = entry.at;
            self.conversation = entry.conversation;
            if let Some((_, to)) = moved(entry) {
                self.moves += 1;
                self.active = to.clone();
                (self.offer, self.request) = (None, None);
                if self.state.is_open() {
                    self.held.insert((to.clone(), entry.conversation));
                }
            }
            match &entry.fact {
                Fact::Message(m) => {
                    self.spoke = entry.at;
                    let said = Said { sequence: entry.sequence, conversation: entry.conversation, by: m.by.clone() };
                    self.messages.push(said);
                    if m.sender == Sender::Ceu {
                        let (message, epoch) = (entry.sequence, entry.control_epoch);
                        self.turns.push(Turn { message, conversation: entry.conversation, epoch });
                    }
                }
                Fact::State(change) => {
                    if !self.state.is_open() {
                        self.held.insert((entry.active.clone(), entry.conversation));
                    }
                    self.state = change.to;
                    self.since = step.now;
                }
                Fact::Control(c) => match (c.action, &c.offer_id) {
                    (ControlAction::Offer, Some(id)) => {
                        self.offer_ids.insert(id.clone());
                        self.offer = Some((id.clone(), c.from.clone(), c.to.clone()));
                    }
                    (ControlAction::Request, _) => self.request = Some(c.from.clone()),
                    (ControlAction::Decline | ControlAction::Expire, Some(_)) => self.offer = None,
                    (ControlAction::Expire, None) => self.request = None,
                    _ => {}
                },
                Fact::Event(_) => {}
            }
        }
        for effect in step.effects() {
            match effect {
                Effect::Hook { to, topic: Topic::MessageReceive, entry, .. } => {
                    self.enqueue(to, step.entries()[*entry].sequence);
                }
                Effect::History { to, after, through, .. } => {
                    let range = self.messages.iter().filter(|m| m.sequence > *after && m.sequence <= *through);
                    let theirs: Vec<_> = range.filter(|m| m.by.as_ref() != Some(to)).collect();
                    assert!(
                        theirs.iter().all(|m| m.conversation == self.conversation),
                        "history is of the present conversation"
                    );
                    for sequence in theirs.iter().map(|m| m.sequence).collect::<Vec<_>>() {
                        self.enqueue(to, sequence);
                    }
                }
                _ => {}
            }
        }
    }

    fn enqueue(&mut self, to: &ReceiverId, sequence: u64) {
        let news = self.enqueued.entry(to.clone()).or_default().insert(sequence);
        assert!(news, "{to:?} gets message {sequence} twice");
    }
}
