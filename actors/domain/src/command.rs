//! What can be asked of a thread.

use crate::{Agent, Body, Feedback, Json, ReceiverId, Sender};

/// One request, as the edge understood it; whose token made it is `by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A customer's message (section 10).
    Ceu {
        /// The element made of it.
        body: Body,
        /// `file_url` and the like, an object.
        metadata: Option<Json>,
    },
    /// `message/send` (section 6).
    Send {
        /// The token's receiver.
        by: ReceiverId,
        /// In whose name.
        sender: Sender,
        /// The serialised HSL object.
        body: Body,
        /// The sender's metadata, an object.
        metadata: Option<Json>,
        /// The agent that the metadata names.
        agent: Option<Agent>,
        /// The fencing token, if given.
        control_epoch: Option<u64>,
    },
    /// `events/send` (section 6).
    Event {
        /// The token's receiver.
        by: ReceiverId,
        /// What it reports.
        event: AgentEvent,
        /// The agent that the metadata names.
        agent: Option<Agent>,
        /// The sender's metadata, an object.
        metadata: Option<Json>,
    },
    /// `thread_control/request` (section 7).
    Control(ControlRequest),
    /// A webhook about this thread was answered with a 2xx without error.
    HandoffAnswered {
        /// Who answered.
        by: ReceiverId,
        /// The epoch of the hand-off that the webhook belongs to.
        epoch: u64,
    },
    /// The IVA answered a turn (section 9).
    IvaAnswered {
        /// Which turn.
        turn: Turn,
        /// With what.
        answer: IvaAnswer,
    },
    /// The IVA took the turn over to answer later through its token (202).
    IvaDeferred {
        /// Which turn.
        turn: Turn,
    },
    /// A bot break: no usable answer (section 9).
    IvaBroke {
        /// Which turn.
        turn: Turn,
        /// Why, for a person; never what anybody said.
        reason: String,
    },
    /// `send_chat_to_agent` (section 9): a hand-off after a countdown.
    SendToAgent {
        /// How long to wait, in milliseconds.
        countdown_ms: u64,
        /// What the caller adds, such as the team to name; an object.
        metadata: Option<Json>,
    },
    /// `log_feedback_from_user` (section 10): the customer judges the last conversation.
    Feedback(Feedback),
    /// The operator moves the thread from one receiver to another (section 11).
    Drain {
        /// Who holds it.
        from: ReceiverId,
        /// Who is to hold it.
        to: ReceiverId,
    },
}

/// What `events/send` accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentEvent {
    /// `aeu_events.received`
    Received,
    /// `aeu_events.allocated`
    Allocated,
    /// `aeu_events.user_timeout`
    UserTimeout,
    /// `conversation_state.waiting`
    Waiting,
    /// `conversation_state.complete`
    Complete,
}

/// A control operation with its operands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlRequest {
    /// The token's receiver.
    pub by: ReceiverId,
    /// What it wants.
    pub op: ControlOp,
    /// The target; pass, offer and request need it.
    pub receiver: Option<ReceiverId>,
    /// The fencing token, if given.
    pub control_epoch: Option<u64>,
    /// How long an offer or request stands, in milliseconds; default 60 s.
    pub deadline_ms: Option<u64>,
    /// The offer that accept and decline answer; checked when given.
    pub offer_id: Option<String>,
    /// What the requester adds, an object.
    pub metadata: Option<Json>,
}

/// The control operations of section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlOp {
    /// Give control.
    Pass,
    /// Get control.
    Take,
    /// Ask the active receiver for control.
    Request,
    /// Give control, if it is accepted.
    Offer,
    /// Accept an offer.
    Accept,
    /// Decline an offer.
    Decline,
    /// Give control back to the default receiver.
    Release,
}

impl ControlOp {
    /// All of them, in the contract's order.
    pub const ALL: [Self; 7] =
        [Self::Pass, Self::Take, Self::Request, Self::Offer, Self::Accept, Self::Decline, Self::Release];
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Take => "take",
            Self::Request => "request",
            Self::Offer => "offer",
            Self::Accept => "accept",
            Self::Decline => "decline",
            Self::Release => "release",
        }
    }
}

/// The message that a turn of the IVA answers, and the moment that it belongs to. If conversation or epoch has changed, the
/// answer is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The sequence of the customer's message.
    pub message: u64,
    /// The conversation of the customer's message.
    pub conversation: u64,
    /// The epoch of the customer's message.
    pub epoch: u64,
}

/// What the IVA answered; one commit, whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IvaAnswer {
    /// Its messages, in order.
    pub messages: Vec<Body>,
    /// `callback_ops.tract_atc.receiver`: hand over to this receiver. Text, since it may be no receiver at all.
    pub handoff: Option<String>,
    /// `complete: true`
    pub complete: bool,
    /// The conversation's new details, an object.
    pub conversation_details: Option<Json>,
    /// Why details were left out, if they were.
    pub details_fault: Option<String>,
}
