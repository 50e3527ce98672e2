//! What can go wrong between here and Redis, and what callers are told of it.

use crate::store::record::RecordError;
use redis::{FromRedisValue, RedisError, ServerErrorKind, Value};
use tract_actors::ports::StoreError;

/// Why a read or a step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Redis or the way to it.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// No connection was free or could be made.
    #[error("no connection to Redis: {0}")]
    Pool(#[from] deadpool_redis::PoolError),
    /// A stored form cannot be written or read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What is stored is not what it ought to be.
    #[error("{0}")]
    Unreadable(&'static str),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Fault {
    /// What callers are told of a read, or of a step before it was sent: nothing was done.
    pub(super) fn told(&self) -> StoreError {
        match self {
            Self::Redis(_) | Self::Pool(_) | Self::Closed => StoreError::Unavailable(self.to_string()),
            Self::Record(_) | Self::Unreadable(_) => StoreError::Corrupt(self.to_string()),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        fault.told()
    }
}

/// What a reply's error means for the caller of its step; Redis did nothing then.
pub(super) fn refused(error: &redis::ServerError) -> StoreError {
    let text = error.to_string();
    match error.code() {
        "REFUSED" => StoreError::Corrupt(error.details().unwrap_or("the step was refused").to_owned()),
        // A fault of this program, or of what is stored.
        "ERR" | "WRONGTYPE" => StoreError::Corrupt(text),
        _ => StoreError::Unavailable(text),
    }
}

/// Whether the server answered that it is not there yet, or does not know the scripts: asking again will do.
pub(super) fn is_passing(reply: &Value) -> bool {
    let Value::ServerError(error) = reply else { return false };
    matches!(error.kind(), Some(ServerErrorKind::BusyLoading | ServerErrorKind::NoScript | ServerErrorKind::TryAgain))
}

/// Reads a reply.
pub(super) fn read<T: FromRedisValue>(reply: Value) -> Result<T, Fault> {
    redis::from_redis_value(reply).map_err(|_| Fault::Unreadable("a reply is not of its form"))
}
