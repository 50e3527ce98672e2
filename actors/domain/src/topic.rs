//! What a hook can be registered for (section 4).

use serde::{Deserialize, Serialize};

/// The category of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Messages.
    Message,
    /// Conversation states; `collection_state` is an alias on the wire.
    ConversationState,
    /// What the agent side said.
    AeuEvents,
    /// Users.
    UserEvents,
    /// Moves of thread control.
    ThreadControl,
}

macro_rules! topics {
    ($($(#[$doc:meta])* $variant:ident = $category:ident, $cat:literal, $sub:literal;)*) => {
        /// A category with its subcategory: one thing that a hook can be told about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Topic { $($(#[$doc])* $variant),* }
        impl Topic {
            /// All of them, in the contract's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// Its category.
            pub fn category(self) -> Category {
                match self { $(Self::$variant => Category::$category),* }
            }
            /// Wire names: category, subcategory.
            pub fn names(self) -> (&'static str, &'static str) {
                match self { $(Self::$variant => ($cat, $sub)),* }
            }
        }
    };
}

topics! {
    /// A message entered the thread.
    MessageReceive = Message, "message", "receive";
    /// The conversation entered `bot`.
    StateBot = ConversationState, "conversation_state", "bot";
    /// The conversation entered `incomplete`.
    StateIncomplete = ConversationState, "conversation_state", "incomplete";
    /// The conversation entered `pinned`.
    StatePinned = ConversationState, "conversation_state", "pinned";
    /// The conversation entered `waiting`.
    StateWaiting = ConversationState, "conversation_state", "waiting";
    /// The conversation entered `complete`.
    StateComplete = ConversationState, "conversation_state", "complete";
    /// The chat is in another tool's queue.
    AeuReceived = AeuEvents, "aeu_events", "received";
    /// An agent of another tool has it.
    AeuAllocated = AeuEvents, "aeu_events", "allocated";
    /// The customer went quiet, says another tool.
    AeuUserTimeout = AeuEvents, "aeu_events", "user_timeout";
    /// A user was created.
    CreateUser = UserEvents, "user_events", "create_user";
    /// Control moved.
    ControlPass = ThreadControl, "thread_control", "pass";
    /// Control was taken.
    ControlTake = ThreadControl, "thread_control", "take";
    /// Control was asked for.
    ControlRequest = ThreadControl, "thread_control", "request";
    /// Control was offered.
    ControlOffer = ThreadControl, "thread_control", "offer";
    /// An offer was declined.
    ControlDecline = ThreadControl, "thread_control", "decline";
    /// An offer or request ended without an answer.
    ControlExpire = ThreadControl, "thread_control", "expire";
}

/// The other wire name of the category `conversation_state`.
pub const COLLECTION_STATE: &str = "collection_state";

impl Topic {
    /// Reads wire names; `collection_state` is an alias of `conversation_state`.
    pub fn parse(category: &str, subcategory: &str) -> Option<Self> {
        let category = if category == COLLECTION_STATE { "conversation_state" } else { category };
        Self::ALL.iter().copied().find(|t| t.names() == (category, subcategory))
    }
}
