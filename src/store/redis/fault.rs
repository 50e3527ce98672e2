//! What can go wrong between here and Redis, and what callers are told of it.

use super::target::Address;
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
    /// No server that can do it is known.
    #[error("{0}")]
    Nobody(String),
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
            Self::Redis(_) | Self::Pool(_) | Self::Nobody(_) | Self::Closed => {
                StoreError::Unavailable(self.to_string())
            }
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

/// Why a server did not do what another one would, or the same one later. It did nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The key is on its way there; until it is, both may have some of its slot.
    Moving(Option<Address>),
    /// It is another server's.
    Elsewhere,
    /// It does not know the scripts.
    Unknown,
    /// It is starting, or the keys of a script are on their way, some here and some there.
    Later,
}

/// What an error says of where and when to ask again; nothing, if it is for whoever asked. `from` is who answered.
pub(super) fn redirect(error: &redis::ServerError, from: &Address) -> Option<Redirect> {
    Some(match error.kind()? {
        ServerErrorKind::Ask => {
            let to = error.details().and_then(|details| details.split_once(' ')).map(|(_, to)| to);
            // Without a host it is the one that was asked.
            let to = to.and_then(|to| match to.strip_prefix(':') {
                Some(port) => Some(Address::new(&from.host, port.parse().ok()?)),
                None => Address::read(to),
            });
            Redirect::Moving(to)
        }
        ServerErrorKind::Moved
        | ServerErrorKind::ReadOnly
        | ServerErrorKind::MasterDown
        | ServerErrorKind::ClusterDown => Redirect::Elsewhere,
        ServerErrorKind::NoScript => Redirect::Unknown,
        ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain => Redirect::Later,
        _ => return None,
    })
}

/// Reads a reply.
pub(super) fn read<T: FromRedisValue>(reply: Value) -> Result<T, Fault> {
    redis::from_redis_value(reply).map_err(|_| Fault::Unreadable("a reply is not of its form"))
}
