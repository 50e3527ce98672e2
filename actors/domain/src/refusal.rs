//! Why a command is not carried out. A closed set that knows no status codes.

use crate::{ReceiverId, State};

/// The thread stays as it is, because of this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Only the active receiver may do this.
    #[error("{by} does not hold this thread; {active} does")]
    NotActive {
        /// Who asked.
        by: ReceiverId,
        /// Who holds it.
        active: ReceiverId,
        /// The present epoch.
        epoch: u64,
    },
    /// The fencing token is not the present one.
    #[error("control_epoch {given} is not the present one, {epoch}")]
    StaleEpoch {
        /// The token that was given.
        given: u64,
        /// Who holds it.
        active: ReceiverId,
        /// The present epoch.
        epoch: u64,
    },
    /// Not in this state of the conversation.
    #[error("{what} is not possible while the conversation is {}", state.as_str())]
    InvalidState {
        /// What was asked.
        what: &'static str,
        /// The present state.
        state: State,
        /// Who holds it.
        active: ReceiverId,
        /// The present epoch.
        epoch: u64,
    },
    /// This receiver may not speak as that sender.
    #[error("{by} may not send as {sender}; it may send as {allowed}")]
    SenderNotAllowed {
        /// Who asked.
        by: ReceiverId,
        /// As whom.
        sender: &'static str,
        /// What it may.
        allowed: &'static str,
    },
    /// The client does not have the receiver that asks (any more).
    #[error("{0} is not a receiver of this client")]
    NotAReceiver(ReceiverId),
    /// The target is not a receiver of this client.
    #[error("receiver {0} is not known to this client")]
    UnknownReceiver(ReceiverId),
    /// The settings of this receiver do not allow the operation.
    #[error("{by} may not {op}")]
    NotPermitted {
        /// Who asked.
        by: ReceiverId,
        /// What for.
        op: &'static str,
    },
    /// The settings of this receiver do not allow this target.
    #[error("{by} may pass only to a primary or the default receiver, not to {to}")]
    TargetNotPermitted {
        /// Who asked.
        by: ReceiverId,
        /// The target.
        to: ReceiverId,
    },
    /// The target is not healthy.
    #[error("receiver {to} is not available")]
    ReceiverUnavailable {
        /// The target.
        to: ReceiverId,
        /// Who holds it.
        active: ReceiverId,
        /// The present epoch.
        epoch: u64,
    },
    /// A request names somebody other than the active receiver.
    #[error("receiver {named} does not hold this thread; {active} does")]
    ReceiverNotActive {
        /// Who was named.
        named: ReceiverId,
        /// Who holds it.
        active: ReceiverId,
        /// The present epoch.
        epoch: u64,
    },
    /// There is an offer already.
    #[error("an offer to {to} is pending")]
    OfferPending {
        /// To whom.
        to: ReceiverId,
        /// Who holds it.
        active: ReceiverId,
        /// The present epoch.
        epoch: u64,
    },
    /// There is a request already.
    #[error("a request of {from} is pending")]
    RequestPending {
        /// Of whom.
        from: ReceiverId,
        /// Who holds it.
        active: ReceiverId,
        /// The present epoch.
        epoch: u64,
    },
    /// There is no such offer to this receiver (any more).
    #[error("no such offer to {by} is pending")]
    NoOffer {
        /// Who asked.
        by: ReceiverId,
        /// Who holds it.
        active: ReceiverId,
        /// The present epoch.
        epoch: u64,
    },
    /// There is no conversation yet that feedback could be about.
    #[error("there is no conversation yet")]
    NoConversation,
    /// The customer gave feedback within the last hour.
    #[error("duplicate feedback")]
    DuplicateFeedback,
}

impl Refusal {
    /// The contract's code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotActive { .. } => "not_active",
            Self::StaleEpoch { .. } => "stale_epoch",
            Self::InvalidState { .. } => "invalid_state",
            Self::SenderNotAllowed { .. } => "sender_not_allowed",
            Self::NotAReceiver(_) => "not_a_receiver",
            Self::UnknownReceiver(_) => "unknown_receiver",
            Self::NotPermitted { .. } => "not_permitted",
            Self::TargetNotPermitted { .. } => "target_not_permitted",
            Self::ReceiverUnavailable { .. } => "receiver_unavailable",
            Self::ReceiverNotActive { .. } => "receiver_not_active",
            Self::OfferPending { .. } => "offer_pending",
            Self::RequestPending { .. } => "request_pending",
            Self::NoOffer { .. } => "no_offer",
            Self::NoConversation => "no_conversation",
            Self::DuplicateFeedback => "duplicate_feedback",
        }
    }
    /// Who holds the thread, and its epoch, where the refusal is about its present state.
    pub fn holder(&self) -> Option<(&ReceiverId, u64)> {
        match self {
            Self::NotActive { active, epoch, .. }
            | Self::StaleEpoch { active, epoch, .. }
            | Self::InvalidState { active, epoch, .. }
            | Self::ReceiverUnavailable { active, epoch, .. }
            | Self::ReceiverNotActive { active, epoch, .. }
            | Self::OfferPending { active, epoch, .. }
            | Self::RequestPending { active, epoch, .. }
            | Self::NoOffer { active, epoch, .. } => Some((active, *epoch)),
            Self::SenderNotAllowed { .. }
            | Self::NotAReceiver(_)
            | Self::UnknownReceiver(_)
            | Self::NotPermitted { .. }
            | Self::TargetNotPermitted { .. }
            | Self::NoConversation
            | Self::DuplicateFeedback => None,
        }
    }
}
