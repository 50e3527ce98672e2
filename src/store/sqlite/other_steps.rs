//! All other steps: users, documents, and housekeeping.

use super::{
    batch::{Batch, int},
    delivery_step::forget_dead_letters,
    fault::Fault,
    retention,
    thread_step::{exists, is_kept, keep, open, uuid},
    writer::Step,
};
use crate::store::record::{self, RecordError};
use rusqlite::OptionalExtension;
use std::{collections::BTreeMap, sync::Arc};
use tract_actors::ports::{
    DEAD_LETTERS_KEPT_MS, DocumentWrite, IdempotencyKey, KeptAnswer, ThreadKey, UserWrite, Written,
};
use tract_domain::{ClientId, Json, ReceiverId, Timestamp, UserId};

/// A write to a user's record, which may open a thread.
pub(super) struct WriteUser {
    write: UserWrite,
    /// The thread to open and its snapshot.
    thread: Option<(ThreadKey, String)>,
    partition: u16,
}

impl WriteUser {
    /// `user_id` is the handle of the thread to open, if there is one.
    pub(super) fn new(write: UserWrite, user_id: Option<UserId>, partition: u16) -> Result<Self, RecordError> {
        let thread = match (&write.open, user_id) {
            (Some(open), Some(user_id)) => {
                let (client, auth_id) = (write.client.clone(), Arc::clone(&write.auth_id));
                let key = ThreadKey { user_id, client, business: open.business, auth_id };
                Some((key, record::write_thread(&open.thread)?))
            }
            _ => None,
        };
        Ok(Self { write, thread, partition })
    }
}

impl Step for WriteUser {
    type Outcome = Written;

    fn apply(&self, batch: &mut Batch<'_>) -> Result<Written, Fault> {
        const SELECT: &str = "SELECT version, commit_id FROM users WHERE client = ?1 AND auth_id = ?2";
        const WRITE: &str = "INSERT INTO users (client, auth_id, version, commit_id, profile) \
            VALUES (?1, ?2, ?3, ?4, coalesce(?5, '{}')) ON CONFLICT (client, auth_id) \
            DO UPDATE SET version = ?3, commit_id = ?4, profile = coalesce(?5, profile)";
        let write = &self.write;
        let (client, auth_id) = (write.client.as_str(), &*write.auth_id);
        let found = batch
            .sql(SELECT)?
            .query_row((client, auth_id), |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), uuid(row, 1)?)));
        let (version, last) = found.optional()?.unwrap_or_default();
        if version != write.expected_version {
            return Ok(if last == Some(write.commit_id) { Written::Applied } else { Written::Conflict });
        }
        if let Some((key, _)) = &write.idempotency
            && is_kept(batch, key, write.now)?
        {
            return Ok(Written::Conflict);
        }

        let (first_version, origin) = retention::origin(batch.connection(), self.partition)?;
        let opened = match (&write.open, &self.thread) {
            (Some(open), Some((key, snapshot))) if !exists(batch, &key.user_id)? => Some((open, key, snapshot)),
            _ => None,
        };
        if opened.is_some_and(|(open, ..)| !retention::is_above(&open.thread, origin)) {
            return Ok(Written::Conflict);
        }

        let commit_id = write.commit_id.as_bytes().as_slice();
        let profile = write.profile.as_ref().map(|p| &*p.0);
        batch.sql(WRITE)?.execute((client, auth_id, int(version + 1), commit_id, profile))?;
        if let Some((first, key, snapshot)) = opened {
            open(batch, key, &first.thread, (snapshot, first_version), &first.outbox, write.now)?;
        }
        if let Some((key, body)) = &write.idempotency {
            keep(batch, key, &KeptAnswer::Body(body.clone()))?;
        }
        Ok(Written::Applied)
    }
}

/// What an ECT calls a user.
pub(super) struct KeepEctUserId {
    pub(super) client: ClientId,
    pub(super) auth_id: Arc<str>,
    pub(super) ect: ReceiverId,
    pub(super) ect_user_id: String,
}

impl Step for KeepEctUserId {
    type Outcome = ();

    fn apply(&self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        const SELECT: &str = "SELECT id, ect_user_ids FROM users WHERE client = ?1 AND auth_id = ?2";
        const UPDATE: &str = "UPDATE users SET ect_user_ids = ?2 WHERE id = ?1";
        let found = batch.sql(SELECT)?.query_row((self.client.as_str(), &*self.auth_id), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        });
        let Some((id, names)) = found.optional()? else { return Ok(()) };
        let mut names: BTreeMap<ReceiverId, String> = record::read_ect_user_ids(&names)?;
        names.insert(self.ect.clone(), self.ect_user_id.clone());
        batch.sql(UPDATE)?.execute((id, record::write_ect_user_ids(&names)?))?;
        Ok(())
    }
}

/// A write to the configuration.
pub(super) struct WriteDocuments(pub(super) DocumentWrite);

impl Step for WriteDocuments {
    type Outcome = Written;

    fn apply(&self, batch: &mut Batch<'_>) -> Result<Written, Fault> {
        const PUT: &str = "INSERT OR REPLACE INTO documents (kind, id, body) VALUES (?1, ?2, ?3)";
        let write = &self.0;
        let mut select = batch.sql("SELECT value FROM meta WHERE name = 'revision'")?;
        let revision: i64 = select.query_row([], |row| row.get(0))?;
        if revision != int(write.expected_revision) {
            return Ok(Written::Conflict);
        }
        for (kind, id) in &write.delete {
            batch.sql("DELETE FROM documents WHERE kind = ?1 AND id = ?2")?.execute((kind, id))?;
        }
        for document in &write.put {
            batch.sql(PUT)?.execute((&document.kind, &document.id, &document.body))?;
        }
        for endpoint in &write.forget {
            batch.forget(endpoint)?;
        }
        if let Some((key, body)) = &write.idempotency {
            // Whoever used this key at the same time wrote documents as well: the revision has told.
            keep(batch, key, &KeptAnswer::Body(body.clone()))?;
        }
        batch.sql("UPDATE meta SET value = ?1 WHERE name = 'revision'")?.execute([revision + 1])?;
        Ok(Written::Applied)
    }
}

/// A signed request that must be the first of its kind.
pub(super) struct RememberRequest {
    pub(super) key: [u8; 32],
    pub(super) until: Timestamp,
    pub(super) now: Timestamp,
}

impl Step for RememberRequest {
    type Outcome = bool;

    fn apply(&self, batch: &mut Batch<'_>) -> Result<bool, Fault> {
        const KNOWN: &str = "SELECT 1 FROM seen_requests WHERE key = ?1 AND until >= ?2";
        const REMEMBER: &str = "INSERT OR REPLACE INTO seen_requests (key, until) VALUES (?1, ?2)";
        if batch.sql(KNOWN)?.exists((self.key.as_slice(), self.now.0))? {
            return Ok(false);
        }
        batch.sql(REMEMBER)?.execute((self.key.as_slice(), self.until.0))?;
        Ok(true)
    }
}

/// An answer that is kept by itself.
pub(super) struct Keep {
    pub(super) key: IdempotencyKey,
    pub(super) body: Json,
    pub(super) now: Timestamp,
}

impl Step for Keep {
    type Outcome = ();

    fn apply(&self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        if !is_kept(batch, &self.key, self.now)? {
            keep(batch, &self.key, &KeptAnswer::Body(self.body.clone()))?;
        }
        Ok(())
    }
}

/// Forgets some of the answers, signed requests and dead letters that have expired; returns how many.
pub(super) struct ForgetExpired(pub(super) Timestamp);

impl ForgetExpired {
    /// At most so many of each in one step, so that nobody waits long behind it.
    pub(super) const MOST: u64 = 1000;
}

impl Step for ForgetExpired {
    type Outcome = u64;

    fn apply(&self, batch: &mut Batch<'_>) -> Result<u64, Fault> {
        const FORGET: &str =
            "DELETE FROM kept WHERE key IN (SELECT key FROM kept WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
        const FORGET_REQUESTS: &str = "DELETE FROM seen_requests WHERE key IN \
            (SELECT key FROM seen_requests WHERE until < ?1 ORDER BY until LIMIT ?2)";
        let gone = batch.sql(FORGET)?.execute((self.0.0, int(Self::MOST)))?
            + batch.sql(FORGET_REQUESTS)?.execute((self.0.0, int(Self::MOST)))?;
        let until = Timestamp(self.0.0.saturating_sub_unsigned(DEAD_LETTERS_KEPT_MS));
        let letters = forget_dead_letters(batch, until, int(Self::MOST))?;
        Ok(u64::try_from(gone + letters).unwrap_or(u64::MAX))
    }
}

/// Writes something, to show that it can be done.
pub(super) struct Ping;

impl Step for Ping {
    type Outcome = ();

    fn apply(&self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        batch.sql("UPDATE meta SET value = (value + 1) % 1000000 WHERE name = 'ping'")?.execute([])?;
        Ok(())
    }
}

/// Bounds the database's size in pages, as a full disk would.
pub(super) struct MaxPages(pub(super) u32);

impl Step for MaxPages {
    type Outcome = ();

    fn apply(&self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        batch.connection().pragma_update_and_check(None, "max_page_count", self.0, |_| Ok(()))?;
        Ok(())
    }
}
