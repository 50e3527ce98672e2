//! Who holds a thread, and who wants to (section 7).

use crate::{ReceiverId, Timestamp};
use serde::{Deserialize, Serialize};

/// Why control moved or a conversation changed its state: `metadata.cause` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The customer wrote.
    CeuMessage,
    /// An agent wrote.
    AeuMessage,
    /// `pass`
    Pass,
    /// `take`
    Take,
    /// `request`
    Request,
    /// `offer`
    Offer,
    /// `accept`
    Accept,
    /// `decline`
    Decline,
    /// `release`
    Release,
    /// The IVA handed off.
    Handoff,
    /// The IVA gave no usable answer.
    BotBreak,
    /// `send_chat_to_agent`
    SendToAgent,
    /// An offer or hand-off found no answer in time, or a receiver was not healthy: the next in the chain.
    Fallback,
    /// The chain is exhausted, or the conversation is over: back to the default receiver.
    ReturnToDefault,
    /// The holder is no longer a receiver of the client.
    ReceiverRemoved,
    /// The operator moved it: the receiver is being drained.
    Drain,
    /// `aeu_events.allocated`
    Allocated,
    /// `aeu_events.user_timeout`
    UserTimeout,
    /// `conversation_state.waiting`
    Waiting,
    /// `conversation_state.complete`
    Complete,
    /// The IVA ended the conversation.
    IvaComplete,
    /// Nobody said anything for too long.
    IdleTimeout,
    /// A deadline passed.
    Deadline,
    /// Control moved otherwise, which ends offers and requests.
    ControlMoved,
    /// The conversation ended, which ends offers and requests.
    Completed,
}

/// Who holds the thread, and what is pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The one receiver that may speak to the customer.
    pub active: ReceiverId,
    /// The fencing token: from 1, one more with each change of the active receiver.
    pub epoch: u64,
    /// The pending offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// The pending request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// The hand-off that nobody has answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoff: Option<Handoff>,
}

/// Control, offered to a receiver that has yet to accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// To be given back in accept and decline; unique within the thread.
    pub id: String,
    /// Who offers.
    pub from: ReceiverId,
    /// Who may accept.
    pub to: ReceiverId,
    /// When it goes down the fallback chain.
    pub deadline: Timestamp,
    /// How long each receiver in the chain has, in milliseconds.
    pub window_ms: u64,
    /// Who had it before in this chain.
    #[serde(default)]
    pub tried: Vec<ReceiverId>,
}

/// A wish for control, put to the active receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks.
    pub from: ReceiverId,
    /// When it expires.
    pub deadline: Timestamp,
}

/// A hand-off waiting for its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// When it goes down the fallback chain.
    pub deadline: Timestamp,
    /// Who had the conversation before in this chain.
    #[serde(default)]
    pub tried: Vec<ReceiverId>,
}
