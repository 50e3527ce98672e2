//! The facts of a thread: its gapless sequence of entries (section 1).

use crate::{Body, Cause, Json, ReceiverId, Sender, State, Timestamp, Topic};
use serde::{Deserialize, Serialize};

/// One committed fact. Its message id is given out by the store in the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Previous + 1.
    pub sequence: u64,
    /// The conversation it belongs to; 0 before the first.
    pub conversation: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// The fencing token once this entry is in.
    pub control_epoch: u64,
    /// Who holds control once this entry is in.
    pub active: ReceiverId,
    /// What happened.
    pub fact: Fact,
}

/// What happened. The feed's kinds (section 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Somebody said something.
    Message(Message),
    /// Something was reported that is neither a message nor a change.
    Event(Event),
    /// The conversation entered a state.
    State(StateChange),
    /// Control moved, or a move was asked for, offered, declined or expired.
    Control(ControlChange),
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub sender: Sender,
    /// The receiver that sent it; none for the customer and the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<ReceiverId>,
    /// The serialised HSL object.
    pub body: Body,
    /// The sender's metadata, an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
    /// The agent it speaks for: the one in its own metadata, else the last allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// The sequence of the customer's message whose turn brought this one; none for what was said without being asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
}

/// A human agent, as an ECT names it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Agent {
    /// `agent_id`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `agent_name`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `agent_email`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// `profile_image`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_image: Option<String>,
    /// `team_name`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_name: Option<String>,
}

impl Agent {
    /// Whether nothing at all is known of the agent.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A report that changes neither control nor, by itself, the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The agent side said so (`aeu_events`).
    Agent {
        /// `AeuReceived`, `AeuAllocated` or `AeuUserTimeout`.
        topic: Topic,
        /// Who said it.
        by: ReceiverId,
        /// The agent, if it named one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Agent>,
        /// The sender's metadata, an object.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metadata: Option<Json>,
    },
    /// Something about the IVA that an operator will ask about later.
    Iva {
        /// What it was.
        note: IvaNote,
        /// Details for a person; never what anybody said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// The customer judged the conversation.
    Feedback(Feedback),
}

/// What a customer thinks of a conversation (section 10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    /// `query_resolved`
    pub resolved: bool,
    /// `query_rating`, 1 to 5.
    pub rating: u8,
    /// `feedback`, in the customer's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// What can be noted about the IVA (section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IvaNote {
    /// The bot gave no usable answer.
    BotBreak,
    /// An answer came after the conversation or control had moved on; it was discarded whole.
    LateAnswer,
    /// The bot named a hand-off receiver that there is not.
    UnknownReceiver,
    /// A hand-off found no healthy receiver.
    NoReceiver,
    /// The answer's context details broke a bound and were left out.
    DetailsRefused,
}

impl IvaNote {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BotBreak => "bot_break",
            Self::LateAnswer => "late_answer",
            Self::UnknownReceiver => "unknown_receiver",
            Self::NoReceiver => "no_receiver",
            Self::DetailsRefused => "details_refused",
        }
    }
}

/// The conversation entered a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// From this state.
    pub from: State,
    /// To this state.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// Whose doing it was; none for the customer, time and the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<ReceiverId>,
    /// How it ended, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<Completion>,
    /// The agent concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// What the sender of the event added, an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
    /// The conversation's details as they stood when it ended, an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
}

/// How a conversation ended (`completion_type`, section 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completion {
    /// The bot ended it: `gogo`.
    Bot,
    /// An agent tool ended it: `agent`.
    Agent,
    /// It fell silent: `autocomplete`.
    Auto,
}

/// What happened to control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlAction {
    /// It moved (every move but a take).
    Pass,
    /// It was taken.
    Take,
    /// It was asked for.
    Request,
    /// It was offered.
    Offer,
    /// The offer was declined.
    Decline,
    /// The offer or request ended without an answer.
    Expire,
}

impl ControlAction {
    /// The hook that tells of it.
    pub fn topic(self) -> Topic {
        match self {
            Self::Pass => Topic::ControlPass,
            Self::Take => Topic::ControlTake,
            Self::Request => Topic::ControlRequest,
            Self::Offer => Topic::ControlOffer,
            Self::Decline => Topic::ControlDecline,
            Self::Expire => Topic::ControlExpire,
        }
    }
    /// Whether the active receiver changed.
    pub fn moves(self) -> bool {
        matches!(self, Self::Pass | Self::Take)
    }
}

/// Control moved, or a move was asked for, offered, declined or expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlChange {
    /// What happened.
    pub action: ControlAction,
    /// A move: the former holder. Offer, decline: the offerer. Request: who asks. Expire: whose wish expired.
    pub from: ReceiverId,
    /// A move: the new holder. Offer, decline: the pending receiver. Request: the active one. Expire: who was asked.
    pub to: ReceiverId,
    /// Why.
    pub cause: Cause,
    /// Whose doing it was; none for the customer, time and the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<ReceiverId>,
    /// The offer concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer_id: Option<String>,
    /// When an offer or request expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// What the requester added, an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
}
