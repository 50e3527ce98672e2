//! The states of a conversation (section 7).

use crate::{Agent, Timestamp, Topic};
use serde::{Deserialize, Serialize};

/// The name of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There was no conversation yet.
    None,
    /// The IVA has it.
    Bot,
    /// It needs an agent; nobody has picked it up.
    Incomplete,
    /// An agent has it.
    Pinned,
    /// The agent waits for the customer.
    Waiting,
    /// It is over; the customer's next message opens another.
    Complete,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::None, Self::Bot, Self::Incomplete, Self::Pinned, Self::Waiting, Self::Complete];
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bot => "bot",
            Self::Incomplete => "incomplete",
            Self::Pinned => "pinned",
            Self::Waiting => "waiting",
            Self::Complete => "complete",
        }
    }
    /// Whether a conversation is going on.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::None | Self::Complete)
    }
    /// The hook that tells of entering it; none is never entered.
    pub fn topic(self) -> Option<Topic> {
        match self {
            Self::None => None,
            Self::Bot => Some(Topic::StateBot),
            Self::Incomplete => Some(Topic::StateIncomplete),
            Self::Pinned => Some(Topic::StatePinned),
            Self::Waiting => Some(Topic::StateWaiting),
            Self::Complete => Some(Topic::StateComplete),
        }
    }
}

/// Where the conversation is, with the data that only this state has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Phase {
    /// There was no conversation yet.
    None,
    /// The IVA has it.
    Bot {
        /// When it was entered.
        since: Timestamp,
    },
    /// It needs an agent.
    Incomplete,
    /// An agent has it.
    Pinned {
        /// The agent, as far as it is known.
        #[serde(default)]
        agent: Agent,
    },
    /// The agent waits for the customer.
    Waiting {
        /// When it was entered.
        since: Timestamp,
        /// The agent, as far as it is known.
        #[serde(default)]
        agent: Agent,
    },
    /// It is over.
    Complete,
}

impl Phase {
    /// Its name.
    pub fn state(&self) -> State {
        match self {
            Self::None => State::None,
            Self::Bot { .. } => State::Bot,
            Self::Incomplete => State::Incomplete,
            Self::Pinned { .. } => State::Pinned,
            Self::Waiting { .. } => State::Waiting,
            Self::Complete => State::Complete,
        }
    }
    /// The agent who has the conversation.
    pub fn agent(&self) -> Option<&Agent> {
        match self {
            Self::Pinned { agent } | Self::Waiting { agent, .. } if !agent.is_empty() => Some(agent),
            _ => None,
        }
    }
}
