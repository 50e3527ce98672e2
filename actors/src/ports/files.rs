//! Files that customers sent: kept beside their threads, and gone with the entries that name them.

use super::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use std::{fmt, sync::Arc};
use tract_domain::{Timestamp, UserId};

/// Bytes in each piece of a file but the last: files are read and moved piece by piece, so that nobody holds a whole one.
pub const FILE_PIECE: usize = 256 * 1024;

/// Names a file. Whoever has it may read the file, and nobody can guess it: so it is never logged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileToken(Arc<str>);

impl FileToken {
    /// Characters of every token.
    pub const LENGTH: usize = 32;

    /// Takes a text that has the shape of a token.
    pub fn new(text: &str) -> Option<Self> {
        let url_safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (text.len() == Self::LENGTH && text.bytes().all(url_safe)).then(|| Self(text.into()))
    }
    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for FileToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileToken")
    }
}

/// What is known of a file besides its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// The thread that it belongs to, and whose partition.
    pub user_id: UserId,
    /// What it was found to be, such as `image/png`.
    pub content_type: String,
    /// What it is to be called when it is saved. Its sender chose it: never logged.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// When it came.
    pub at: Timestamp,
}

impl fmt::Debug for FileInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileInfo").field("size", &self.size).finish_non_exhaustive()
    }
}

/// The part of a store that keeps files.
///
/// A file is kept before the message is committed that names it, and is *unnamed* until the store is told which one that
/// was. One that stays so was left behind by a router that died, or by a message that was refused.
#[async_trait]
pub trait Files: Send + Sync + 'static {
    /// Keeps a file durably, unnamed, under a new token.
    async fn put_file(&self, info: FileInfo, bytes: Bytes) -> Result<FileToken, StoreError>;
    /// What is known of a file, if it is there.
    async fn file(&self, token: &FileToken) -> Result<Option<FileInfo>, StoreError>;
    /// A piece of it, counted from 0; none if it is not there.
    async fn file_piece(&self, token: &FileToken, number: u64) -> Result<Option<Vec<u8>>, StoreError>;
    /// This entry of its thread names it: it stays for as long as that does.
    async fn name_file(&self, user_id: &UserId, token: &FileToken, sequence: u64) -> Result<(), StoreError>;
    /// Forgets a file. One that is gone already is found done.
    async fn drop_file(&self, user_id: &UserId, token: &FileToken) -> Result<(), StoreError>;
    /// Files that came at or before that time and are unnamed, oldest first within a partition.
    async fn unnamed_files(&self, before: Timestamp, limit: usize) -> Result<Vec<(UserId, FileToken)>, StoreError>;
    /// Forgets the files that a thread's entries up to this sequence name, at most `most` in one step; returns how many.
    /// Call again until it is fewer.
    async fn forget_files(&self, user_id: &UserId, through: u64, most: usize) -> Result<u64, StoreError>;
}
