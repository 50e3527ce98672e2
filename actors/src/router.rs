//! The handle that hides the actors: ask a thread something, and be answered once it is durable.

use crate::ports::IdempotencyKey;
use tract_domain::{ClientId, Command, Refusal, Reply, Timestamp, UserId};

/// A command for one thread, with what surrounds it.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The thread.
    pub user_id: UserId,
    /// On whose behalf; another client's thread is unknown to it.
    pub client: ClientId,
    /// What is asked.
    pub command: Command,
    /// The caller's idempotency key.
    pub idempotency: Option<IdempotencyKey>,
}

/// What a thread answered; committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the domain says.
    pub reply: Reply,
    /// One id for each entry that was committed.
    pub message_ids: Vec<u64>,
    /// When it was committed.
    pub at: Timestamp,
    /// It is the first answer again, for a repeated idempotency key.
    pub replayed: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no such thread for this client.
    #[error("no such user")]
    UnknownUser,
    /// The domain refused; nothing changed.
    #[error("{0}")]
    Refused(Refusal),
    /// The idempotency key was used for another body.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// Too much is in flight; nothing was done.
    #[error("too many requests are in flight")]
    Overloaded,
    /// It could not be done now; nothing was done.
    #[error("{0}")]
    Unavailable(String),
    /// It may have been done: repeat with the same idempotency key.
    #[error("the outcome is unknown")]
    OutcomeUnknown,
}

/// The handle to all conversation actors. Cheap to clone.
#[derive(Clone)]
pub struct Router(());

impl Router {
    /// Asks a thread something. The command completes even if the caller stops waiting.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        let _ = ask;
        Err(Failure::Overloaded)
    }
}
