//! The part of a client's configuration that decisions depend on.

use crate::{Body, ReceiverId};

/// What kind of receiver it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReceiverKind {
    /// The bot.
    Iva,
    /// The built-in agent inbox.
    Sac,
    /// A third-party agent tool.
    Ect,
}

impl ReceiverKind {
    /// Primary receivers may take (section 7).
    pub fn is_primary(self) -> bool {
        !matches!(self, Self::Ect)
    }
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Iva => "iva",
            Self::Sac => "sac",
            Self::Ect => "ect",
        }
    }
}

/// A receiver that the client has enabled, with its settings.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Its id.
    pub id: ReceiverId,
    /// Its kind.
    pub kind: ReceiverKind,
    /// Its name for people.
    pub name: String,
    /// An ECT: its `message.receive` hook is registered and enabled; the IVA: configured; SAC: enabled.
    pub healthy: bool,
    /// An ECT that may `take`.
    pub may_take: bool,
    /// An ECT that may `request`.
    pub may_request: bool,
    /// An ECT that may pass and offer to any receiver, not only a primary or the default one.
    pub may_pass_to_any: bool,
    /// An ECT whose 2xx is not enough to answer a hand-off.
    pub requires_received: bool,
    /// An ECT that gets messages only while it is in control (`receive = "active"`).
    pub only_while_active: bool,
}

/// What decisions on a thread depend on: a client's receivers, order of hand-off, and time-outs (milliseconds).
#[derive(Debug, Clone)]
pub struct Policy {
    /// All enabled receivers, in the configuration's order.
    pub receivers: Vec<Receiver>,
    /// Gets a new conversation. It is one of `receivers`.
    pub default_receiver: ReceiverId,
    /// `handoff_receiver`, else SAC, else the only ECT.
    pub handoff_receiver: Option<ReceiverId>,
    /// Tried in turn when a hand-off is not answered or an offer not accepted.
    pub fallback: Vec<ReceiverId>,
    /// How long a hand-off may go unanswered; 0 is for ever.
    pub handoff_timeout_ms: u64,
    /// How long a conversation may be quiet in `bot` or `waiting`; 0 is for ever.
    pub idle_timeout_ms: u64,
    /// Whether a bot break goes to an agent.
    pub human_assistance: bool,
    /// What the customer reads when the bot breaks and no agent takes over.
    pub bot_break_message: Body,
}

impl Policy {
    /// The receiver with this id, if the client has it.
    pub fn receiver(&self, id: &ReceiverId) -> Option<&Receiver> {
        self.receivers.iter().find(|r| r.id == *id)
    }
    /// Whether this receiver exists and is healthy.
    pub fn healthy(&self, id: &ReceiverId) -> bool {
        self.receiver(id).is_some_and(|r| r.healthy)
    }
    /// The kind of this receiver, if the client has it.
    pub fn kind(&self, id: &ReceiverId) -> Option<ReceiverKind> {
        self.receiver(id).map(|r| r.kind)
    }
}
