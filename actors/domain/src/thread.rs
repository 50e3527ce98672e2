//! The aggregate: one customer at one business of one client.

use crate::{
    Cause, Command, Effect, Entry, Json, Phase, Policy, ReceiverId, ReceiverKind, Refusal, State, Timestamp, Turn,
    change::Change, control::Control, decide, entry::ControlAction,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// What a decision depends on besides the thread and the command.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The present time.
    pub now: Timestamp,
    /// The client's configuration.
    pub policy: &'a Policy,
}

/// A thread's whole state. Serialised, it is the stored snapshot; fields added later carry serde defaults, so that an
/// older snapshot is always read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// The version of the stored form.
    pub(crate) format: u16,
    pub(crate) sequence: u64,
    pub(crate) conversation: u64,
    pub(crate) control: Control,
    pub(crate) phase: Phase,
    /// Never goes back, whatever the clock does.
    pub(crate) last_entry_at: Timestamp,
    /// The last message either way.
    pub(crate) last_message_at: Timestamp,
    /// The last message's sequence.
    #[serde(default)]
    pub(crate) last_message: u64,
    /// The sequence before the present conversation's first entry.
    #[serde(default)]
    pub(crate) opened_after: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<ConversationDetails>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) countdown: Option<Countdown>,
    /// When the customer last gave feedback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) feedback_at: Option<Timestamp>,
    /// The sequence of the last message of the customer whose turn with the IVA is over, whatever came of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) answered: u64,
    /// Which conversations each receiver has held, and up to where it has been sent messages.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) held: BTreeMap<ReceiverId, Held>,
    /// The last control changes, oldest first: why the thread is where it is.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub(crate) history: VecDeque<Step>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The IVA's own notes on a conversation (section 9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationDetails {
    /// An object.
    pub json: Json,
    /// They live at most 3 hours.
    pub until: Timestamp,
}

/// A hand-off that was asked for and waits for its countdown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Countdown {
    /// When it happens.
    pub at: Timestamp,
    /// What the caller added, an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
}

/// What a receiver has held.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Held {
    /// Inclusive ranges of conversation numbers, ascending.
    pub conversations: Vec<(u64, u64)>,
    /// It has been sent, or has itself sent, everything up to this sequence that it is to get.
    pub through: u64,
}

/// One control change, as `GET /tract/thread/` tells it (section 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The entry.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub action: ControlAction,
    /// From whom.
    pub from: ReceiverId,
    /// To whom.
    pub to: ReceiverId,
    /// Why.
    pub cause: Cause,
    /// Whose doing it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<ReceiverId>,
    /// The epoch after it.
    pub epoch: u64,
}

/// How far threads had counted that are there no more: a thread that is opened anew goes on above it, because receivers
/// remember the last `sequence` and `control_epoch` of a `user_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The last entry's sequence.
    pub sequence: u64,
    /// The last control epoch.
    pub control_epoch: u64,
    /// The last conversation's number.
    pub conversation: u64,
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadlineKind {
    /// A hand-off must be answered, or the next in the chain gets the chat.
    Handoff,
    /// An offer must be accepted, or the next in the chain gets it.
    Offer,
    /// A request must be answered, or it is forgotten.
    Request,
    /// A countdown ends, and the chat goes to an agent.
    Countdown,
    /// A quiet conversation ends.
    Idle,
}

/// What a command or the passing of time did: commit all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The new state.
    pub thread: Thread,
    /// New entries, in sequence.
    pub entries: Vec<Entry>,
    /// What has to happen outside, in order.
    pub effects: Vec<Effect>,
    /// What the caller gets to know.
    pub reply: Reply,
}

/// What the caller gets to know. `entry` is an index into the transition's entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// A message is in the thread.
    Message {
        /// Which entry it is.
        entry: usize,
        /// Its sequence.
        sequence: u64,
        /// Its conversation.
        conversation: u64,
        /// The present epoch.
        control_epoch: u64,
    },
    /// An event was accepted.
    Event {
        /// The thread's last sequence.
        sequence: u64,
        /// Its conversation.
        conversation: u64,
        /// The present epoch.
        control_epoch: u64,
    },
    /// A control operation was carried out, or needed nothing.
    Control {
        /// Who holds the thread now.
        active: ReceiverId,
        /// The present epoch.
        control_epoch: u64,
        /// The offer that was made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offer_id: Option<String>,
    },
    /// Done; there is nothing to tell.
    Done,
}

/// The thread as it stands, for reads.
impl Thread {
    /// The last entry's sequence; 0 when there is none.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
    /// The present conversation; 0 before the first.
    pub fn conversation(&self) -> u64 {
        self.conversation
    }
    /// Who holds it, and what is pending.
    pub fn control(&self) -> &Control {
        &self.control
    }
    /// Where the conversation is.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }
    /// The state's name.
    pub fn state(&self) -> State {
        self.phase.state()
    }
    /// The last control changes, oldest first.
    pub fn history(&self) -> impl ExactSizeIterator<Item = &Step> {
        self.history.iter()
    }
    /// The conversation's details, if they still live.
    pub fn conversation_details(&self, now: Timestamp) -> Option<&Json> {
        self.details.as_ref().filter(|d| d.until > now).map(|d| &d.json)
    }
    /// Whether an answer to this turn of the IVA still counts: it belongs to the conversation and epoch of its message.
    pub fn awaits(&self, turn: Turn, policy: &Policy) -> bool {
        policy.kind(&self.control.active) == Some(ReceiverKind::Iva)
            && self.conversation == turn.conversation
            && self.control.epoch == turn.epoch
    }
    /// The sequence of the last message of the customer whose turn with the IVA is over, whatever came of it; 0 for none.
    pub fn answered(&self) -> u64 {
        self.answered
    }
    /// Whether this receiver ever held this conversation.
    pub fn has_held(&self, receiver: &ReceiverId, conversation: u64) -> bool {
        let held = self.held.get(receiver);
        held.is_some_and(|h| h.conversations.iter().any(|(a, b)| (*a..=*b).contains(&conversation)))
    }
    /// What is due when.
    pub fn deadlines(&self, policy: &Policy) -> Vec<(DeadlineKind, Timestamp)> {
        let mut due = Vec::new();
        if let Some(handoff) = &self.control.handoff {
            due.push((DeadlineKind::Handoff, handoff.deadline));
        }
        if let Some(offer) = &self.control.offer {
            due.push((DeadlineKind::Offer, offer.deadline));
        }
        if let Some(request) = &self.control.request {
            due.push((DeadlineKind::Request, request.deadline));
        }
        if let Some(countdown) = &self.countdown {
            due.push((DeadlineKind::Countdown, countdown.at));
        }
        if let Phase::Bot { since } | Phase::Waiting { since, .. } = self.phase
            && policy.idle_timeout_ms > 0
        {
            due.push((DeadlineKind::Idle, since.max(self.last_message_at).plus(policy.idle_timeout_ms)));
        }
        due
    }
    /// When to settle next.
    pub fn next_deadline(&self, policy: &Policy) -> Option<Timestamp> {
        self.deadlines(policy).into_iter().map(|(_, at)| at).min()
    }
}

/// The version of the stored form that this code writes.
const FORMAT: u16 = 1;

impl Thread {
    /// A new thread: state none, epoch 1, the default receiver active.
    pub fn open(policy: &Policy) -> Self {
        Self::open_after(policy, Origin::default())
    }
    /// A new thread that counts on from there.
    pub fn open_after(policy: &Policy, origin: Origin) -> Self {
        Self {
            format: FORMAT,
            sequence: origin.sequence,
            conversation: origin.conversation,
            control: Control {
                active: policy.default_receiver.clone(),
                epoch: origin.control_epoch + 1,
                offer: None,
                request: None,
                handoff: None,
            },
            phase: Phase::None,
            last_entry_at: Timestamp::default(),
            last_message_at: Timestamp::default(),
            last_message: 0,
            opened_after: origin.sequence,
            details: None,
            countdown: None,
            feedback_at: None,
            answered: 0,
            held: BTreeMap::new(),
            history: VecDeque::new(),
        }
    }
    /// Carries out what time or configuration made due, if anything is.
    pub fn settle(&self, ctx: Context<'_>) -> Option<Transition> {
        decide::due::settle(Change::of(self, ctx))
    }
    /// Decides a command. The thread must be settled: what time has ended is no longer there to be acted on.
    pub fn decide(&self, command: &Command, ctx: Context<'_>) -> Result<Transition, Refusal> {
        let change = Change::of(self, ctx);
        match command {
            Command::Ceu { body, metadata } => Ok(decide::ceu::message(change, body, metadata.as_ref())),
            Command::Send { by, sender, body, metadata, agent, control_epoch } => decide::send::message(
                change,
                decide::send::Outgoing {
                    by,
                    sender: *sender,
                    body,
                    metadata: metadata.as_ref(),
                    agent: agent.as_ref(),
                },
                *control_epoch,
            ),
            Command::Event { by, event, agent, metadata } => {
                decide::event::report(change, by, *event, agent.as_ref(), metadata.as_ref())
            }
            Command::Control(request) => decide::control::operate(change, request),
            Command::HandoffAnswered { by, epoch } => Ok(decide::handoff::answered(change, by, *epoch)),
            Command::IvaAnswered { turn, answer } => Ok(decide::iva::answered(change, *turn, answer)),
            Command::IvaDeferred { turn } => Ok(decide::iva::deferred(change, *turn)),
            Command::IvaBroke { turn, reason } => Ok(decide::iva::broke(change, *turn, reason)),
            Command::SendToAgent { countdown_ms, metadata } => {
                decide::handoff::count_down(change, *countdown_ms, metadata.as_ref())
            }
            Command::Feedback(feedback) => decide::feedback::given(change, feedback),
            Command::Drain { from, to } => decide::drain::move_on(change, from, to),
        }
    }
}
