//! What a commit has to know of its thread, and where that is kept so that it need not be looked up.

use super::thread_step::uuid;
use rusqlite::Row;
use std::collections::HashMap;
use tract_domain::UserId;
use uuid::Uuid;

/// What a commit has to know of the thread before it: what its row says, and its head.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: i64,
    pub(super) version: u64,
    pub(super) sequence: u64,
    pub(super) commit_id: Option<Uuid>,
    pub(super) state: String,
    pub(super) active: String,
    pub(super) client: String,
    pub(super) business: i64,
}

/// A thread by its handle, as [`Known::read`] and `query::thread` read it.
pub(super) const THREAD: &str = "SELECT id, version, sequence, commit_id, state, active, client, business, \
    user_id, auth_id, deadline, snapshot FROM thread_heads WHERE user_id = ?1";

impl Known {
    /// Reads a row of [`THREAD`].
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            version: row.get::<_, i64>(1)?.unsigned_abs(),
            sequence: row.get::<_, i64>(2)?.unsigned_abs(),
            commit_id: uuid(row, 3)?,
            state: row.get(4)?,
            active: row.get(5)?,
            client: row.get(6)?,
            business: row.get(7)?,
        })
    }
}

/// Some threads that are known, some 300 bytes each; with more than it may hold, it forgets all.
#[derive(Debug)]
pub(super) struct KnownThreads {
    most: usize,
    threads: HashMap<UserId, Known>,
}

impl KnownThreads {
    pub(super) fn at_most(most: usize) -> Self {
        Self { most, threads: HashMap::new() }
    }

    /// Takes a thread out: who changes it gives it back as it is then, or leaves it forgotten.
    pub(super) fn take(&mut self, user_id: &UserId) -> Option<Known> {
        self.threads.remove(user_id)
    }

    pub(super) fn put(&mut self, user_id: UserId, known: Known) {
        if self.threads.len() >= self.most {
            self.threads.clear();
        }
        self.threads.insert(user_id, known);
    }
}
