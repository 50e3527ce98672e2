//! What can go wrong within the database, and what callers are told of it.

use crate::store::record::RecordError;
use rusqlite::{ErrorCode, ffi::SQLITE_IOERR_WRITE};
use tract_actors::ports::StoreError;

/// Why a step or a query failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// SQLite said so.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// A stored form cannot be written or read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The step contradicts what is stored, in a way that reloading does not mend: a fault of this program.
    #[error("{0}")]
    Refused(&'static str),
}

impl Fault {
    /// Whether it is about the storage as a whole, so that whatever else is in the transaction would fail as well.
    pub(super) fn is_of_storage(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        !matches!(
            error.sqlite_error_code(),
            None | Some(
                ErrorCode::ConstraintViolation
                    | ErrorCode::TypeMismatch
                    | ErrorCode::TooBig
                    | ErrorCode::ParameterOutOfRange
            )
        )
    }

    /// Whether a COMMIT that failed like this may yet be found in the file after a crash: what was written before the
    /// failed sync may have reached the disk. When writing itself failed (beyond a quota or the largest size of a file),
    /// the frame that makes it a commit was not written whole, and is the last one.
    pub(super) fn leaves_commit_unknown(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        let unwritten = error.sqlite_error().is_some_and(|e| e.extended_code == SQLITE_IOERR_WRITE);
        error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) && !unwritten
    }

    /// What callers are told; nothing was done.
    pub(super) fn told(&self) -> StoreError {
        match self {
            Self::Sql(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt(self.to_string()),
                _ => StoreError::Unavailable(self.to_string()),
            },
            Self::Record(_) | Self::Refused(_) => StoreError::Corrupt(self.to_string()),
        }
    }
}
