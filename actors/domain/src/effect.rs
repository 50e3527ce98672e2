//! What has to happen outside once a transition is committed, as data.

use crate::{ReceiverId, Topic};
use serde::{Deserialize, Serialize};

/// One thing to happen. `entry` is an index into the transition's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell a receiver's hook, if it registered one.
    Hook {
        /// Whose hook.
        to: ReceiverId,
        /// Which hook.
        topic: Topic,
        /// What it is told.
        entry: usize,
        /// The epoch of the hand-off that this receiver's 2xx answers, if it answers one.
        answers_handoff: Option<u64>,
    },
    /// Send a receiver the conversation's messages that it was not sent before: those with `after < sequence <= through`,
    /// in order, marked as replayed, before anything else of this transition.
    History {
        /// Whose `message.receive` hook.
        to: ReceiverId,
        /// Exclusive lower bound.
        after: u64,
        /// Inclusive upper bound.
        through: u64,
        /// As in [`Effect::Hook`].
        answers_handoff: Option<u64>,
    },
    /// Tell the business's channel webhook.
    Channel {
        /// What it is told.
        event: ChannelEvent,
        /// Of which entry.
        entry: usize,
    },
    /// Ask the IVA for its answer to a customer's message.
    IvaTurn {
        /// The message.
        entry: usize,
    },
}

/// The four events of the channel webhook (section 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelEvent {
    /// A message to the customer.
    Message,
    /// An agent has entered the conversation.
    ChatPinned,
    /// An agent has ended the conversation.
    ChatComplete,
    /// The conversation is over, and how.
    WebhookConversationComplete,
}

impl ChannelEvent {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::ChatPinned => "chat_pinned",
            Self::ChatComplete => "chat_complete",
            Self::WebhookConversationComplete => "webhook_conversation_complete",
        }
    }
}
