//! Files that no message names: what is left of an upload when the router dies between file and message, or the message is
//! refused.

use crate::ports::{FileToken, Store, StoreError};
use tract_domain::{Fact, Timestamp, UserId};

/// How long a file may wait for its message, in milliseconds: longer than any request takes.
const WAITED_MS: u64 = 60 * 60 * 1_000;

/// Files that are looked at together.
const PAGE: usize = 100;

/// Entries that are read at once.
const ENTRIES: usize = 500;

/// Removes them, and returns how many. One that a message does name, although the store was not told so in time, stays.
pub(crate) async fn sweep(store: &dyn Store, now: Timestamp) -> Result<u64, StoreError> {
    let before = Timestamp(now.0.saturating_sub_unsigned(WAITED_MS));
    let mut removed = 0;
    loop {
        let page = store.unnamed_files(before, PAGE).await?;
        for (user_id, token) in &page {
            match named_by(store, user_id, token).await? {
                Some(sequence) => store.name_file(user_id, token, sequence).await?,
                None => {
                    store.drop_file(user_id, token).await?;
                    removed += 1;
                }
            }
        }
        if page.len() < PAGE {
            return Ok(removed);
        }
    }
}

/// The entry of the thread that names this file.
async fn named_by(store: &dyn Store, user_id: &UserId, token: &FileToken) -> Result<Option<u64>, StoreError> {
    let mut after = 0;
    loop {
        let page = store.feed(user_id, after, ENTRIES).await?;
        let names = |fact: &Fact| {
            let Fact::Message(message) = fact else { return false };
            // A token needs no escape in JSON, and nobody else can know it.
            message.metadata.as_ref().is_some_and(|metadata| metadata.0.contains(token.expose()))
        };
        if let Some(stored) = page.iter().find(|stored| names(&stored.entry.fact)) {
            return Ok(Some(stored.entry.sequence));
        }
        match page.last() {
            Some(last) if page.len() == ENTRIES => after = last.entry.sequence,
            _ => return Ok(None),
        }
    }
}
