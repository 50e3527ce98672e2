//! The step that everything else is for: one commit on one thread.

use super::{
    batch::{About, Batch, int},
    fault::Fault,
    known::{Known, THREAD},
    retention::NEXT_NUMBER,
    writer::Step,
};
use crate::store::record::{self, RecordError};
use rusqlite::OptionalExtension;
use std::{
    cell::Cell,
    sync::{Arc, LazyLock},
};
use tract_actors::ports::{
    Commit, Committed, DeadlineChange, IdempotencyKey, KeptAnswer, NewDelivery, Settled, StoredEntry, ThreadKey,
};
use tract_domain::{State, Thread, Timestamp, UserId};
use uuid::Uuid;

/// Bits of a key in the log that are the sequence; the thread is above them.
const SEQUENCE_BITS: u32 = 32;

/// The sequence that a thread's head stands under, behind all entries.
const HEAD: u64 = (1 << SEQUENCE_BITS) - 1;

/// The last sequence that a thread can reach.
pub(super) const LAST_SEQUENCE: u64 = HEAD - 1;

/// The key of an entry in the log.
pub(super) fn entry_key(thread: i64, sequence: u64) -> i64 {
    (thread << SEQUENCE_BITS) | int(sequence.min(LAST_SEQUENCE))
}

/// The key of a thread's head in the log.
pub(super) fn head_key(thread: i64) -> i64 {
    (thread << SEQUENCE_BITS) | int(HEAD)
}

/// A commit with its stored forms, made by the caller: the writer's time is everybody's.
pub(super) struct CommitThread {
    commit: Commit,
    partition: u16,
    /// The thread as its actor has read it for this commit.
    read: Cell<Option<Known>>,
    snapshot: String,
    entries: Vec<String>,
}

impl CommitThread {
    pub(super) fn new(commit: Commit, partition: u16, read: Option<Known>) -> Result<Self, RecordError> {
        let snapshot = record::write_thread(&commit.thread)?;
        let entries = commit.entries.iter().map(record::write_entry).collect::<Result<_, _>>()?;
        Ok(Self { commit, partition, read: Cell::new(read), snapshot, entries })
    }

    /// The thread before the commit: as the writer remembers it, else as it was read for this commit, else as it is stored.
    fn known(&self, batch: &mut Batch<'_>) -> Result<Option<Known>, Fault> {
        if let Some(known) = batch.recall(&self.commit.user_id) {
            return Ok(Some(known));
        }
        if let Some(known) = self.read.take()
            && is_so_still(batch, &known)?
        {
            return Ok(Some(known));
        }
        Ok(batch.sql(THREAD)?.query_row([self.commit.user_id.as_str()], Known::read).optional()?)
    }

    /// What is told when the version is not the expected one: this very commit may have been applied before.
    fn again(&self, batch: &Batch<'_>, known: &Known) -> Result<Committed, Fault> {
        const FIRST: &str = "SELECT commit_id FROM log WHERE id = ?1";
        const IDS: &str = "SELECT number FROM log WHERE id >= ?1 AND id < ?2 ORDER BY id";
        let commit = &self.commit;
        let version = commit.expected_version + 1;
        let Some(first) = commit.entries.first() else {
            let last = known.version == version && known.commit_id == Some(commit.commit_id);
            let applied = Committed::Applied { version, message_ids: Vec::new() };
            return Ok(if last { applied } else { Committed::Conflict });
        };
        let first = entry_key(known.id, first.sequence);
        let by = batch.sql(FIRST)?.query_row([first], |row| uuid(row, 0)).optional()?.flatten();
        if by != Some(commit.commit_id) {
            return Ok(Committed::Conflict);
        }
        let end = first.saturating_add(i64::try_from(commit.entries.len()).unwrap_or(i64::MAX)).min(head_key(known.id));
        let mut select = batch.sql(IDS)?;
        let ids = select.query_map([first, end], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))?;
        Ok(Committed::Applied { version, message_ids: ids.collect::<Result<_, _>>()? })
    }

    fn write_thread(&self, batch: &Batch<'_>, known: &mut Known) -> Result<(), Fault> {
        const HEAD: &str = "UPDATE log SET number = ?2, at = ?3, commit_id = ?4, snapshot = ?5 WHERE id = ?1";
        // Most commits leave all of these alone, and with them the thread's row and its indexes.
        const STATE: &str = "UPDATE threads SET state = ?2 WHERE id = ?1";
        const ACTIVE: &str = "UPDATE threads SET active = ?2 WHERE id = ?1";
        const DEADLINE: &str = "UPDATE threads SET deadline = ?2 WHERE id = ?1";
        let commit = &self.commit;
        let state = commit.thread.state().as_str();
        let active = commit.thread.control().active.as_str();
        known.version = commit.expected_version + 1;
        known.sequence = commit.entries.last().map_or(known.sequence, |e| e.sequence);
        known.commit_id = Some(commit.commit_id);
        batch.sql(HEAD)?.execute((
            head_key(known.id),
            int(known.version),
            int(known.sequence),
            commit.commit_id.as_bytes().as_slice(),
            &self.snapshot,
        ))?;
        if let DeadlineChange::Set(at) = commit.deadline {
            batch.sql(DEADLINE)?.execute((known.id, at.map(|at| at.0)))?;
        }
        if known.state == state && known.active == active {
            return Ok(());
        }
        count(batch, &known.client, known.business, &known.state, &known.active, -1)?;
        count(batch, &known.client, known.business, state, active, 1)?;
        if known.state != state {
            batch.sql(STATE)?.execute((known.id, state))?;
            state.clone_into(&mut known.state);
        }
        if known.active != active {
            batch.sql(ACTIVE)?.execute((known.id, active))?;
            active.clone_into(&mut known.active);
        }
        Ok(())
    }

    /// Carries it out on the thread as it was before, and leaves that as it is now.
    fn apply_to(&self, batch: &mut Batch<'_>, known: &mut Known) -> Result<Committed, Fault> {
        const BODY: &str = "INSERT INTO bodies (entry) VALUES (?1)";
        const ENTRY: &str = "INSERT INTO log (id, number, at, commit_id) VALUES (?1, ?2, ?3, ?4)";
        const DETAILS: &str = "UPDATE users SET user_details = ?2 \
            WHERE (client, auth_id) = (SELECT client, auth_id FROM threads WHERE id = ?1)";
        let commit = &self.commit;
        if known.version != commit.expected_version {
            return self.again(batch, known);
        }
        if commit.expected_commit.is_some() && commit.expected_commit != known.commit_id {
            return Ok(Committed::Conflict);
        }
        let gapless = commit.entries.iter().zip(known.sequence + 1..).all(|(entry, next)| entry.sequence == next);
        if !gapless || commit.entries.last().is_some_and(|e| e.sequence > LAST_SEQUENCE) {
            return Err(Fault::Refused("the entries do not continue the thread's sequence"));
        }
        if let Some(Settled { endpoint, id, .. }) = &commit.settles
            && !batch.waits(endpoint, *id, known.id)?
        {
            return Ok(Committed::Conflict);
        }
        if let Some((key, _)) = &commit.idempotency
            && is_kept(batch, key, commit.now)?
        {
            return Ok(Committed::Conflict);
        }

        let message_ids = batch.message_ids(self.partition, commit.now, commit.entries.len())?;
        let mut stored = Vec::with_capacity(commit.entries.len());
        for ((entry, form), message_id) in commit.entries.iter().zip(&self.entries).zip(&message_ids) {
            let commit_id = stored.is_empty().then_some(commit.commit_id.as_bytes().as_slice());
            let body = batch.sql(BODY)?.insert([form])?;
            batch.sql(ENTRY)?.execute((entry_key(known.id, entry.sequence), int(*message_id), body, commit_id))?;
            stored.push(Arc::new(StoredEntry { message_id: *message_id, entry: entry.clone() }));
        }
        self.write_thread(batch, known)?;
        if let Some(Settled { endpoint, id, .. }) = &commit.settles
            && let Some(endpoint) = batch.known(endpoint)
        {
            batch.remove(endpoint, *id)?;
        }
        let about = About { thread: known.id, user_id: &commit.user_id, entries: &stored, now: commit.now };
        batch.enqueue(&about, &commit.outbox)?;
        if let Some(details) = &commit.user_details {
            batch.sql(DETAILS)?.execute((known.id, &*details.0))?;
        }
        if let Some((key, reply)) = &commit.idempotency {
            let (reply, message_ids) = (reply.clone(), message_ids.clone());
            keep(batch, key, &KeptAnswer::Thread { reply, message_ids, at: commit.now })?;
        }
        Ok(Committed::Applied { version: known.version, message_ids })
    }
}

impl Step for CommitThread {
    type Outcome = Committed;

    fn apply(&self, batch: &mut Batch<'_>) -> Result<Committed, Fault> {
        let Some(mut known) = self.known(batch)? else { return Ok(Committed::Conflict) };
        let committed = self.apply_to(batch, &mut known)?;
        batch.remember(self.commit.user_id.clone(), known);
        Ok(committed)
    }
}

/// Whether a thread is as it was read: the version, under a number that is never another thread's, says so.
fn is_so_still(batch: &Batch<'_>, known: &Known) -> Result<bool, Fault> {
    const VERSION: &str = "SELECT number FROM log WHERE id = ?1";
    let version = batch.sql(VERSION)?.query_row([head_key(known.id)], |row| row.get::<_, i64>(0)).optional()?;
    Ok(version == Some(int(known.version)))
}

/// A commit id as it is stored; what is no UUID is nobody's.
pub(super) fn uuid(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Uuid>> {
    Ok(row.get_ref(column)?.as_blob_or_null()?.and_then(|bytes| Uuid::from_slice(bytes).ok()))
}

pub(super) fn count(
    batch: &Batch<'_>,
    client: &str,
    business: i64,
    state: &str,
    active: &str,
    change: i64,
) -> Result<(), Fault> {
    const COUNT: &str = "INSERT INTO thread_counts (client, business, state, active, threads) VALUES (?1, ?2, ?3, ?4, ?5) \
        ON CONFLICT DO UPDATE SET threads = threads + excluded.threads";
    batch.sql(COUNT)?.execute((client, business, state, active, change))?;
    Ok(())
}

/// Whether a thread is open.
pub(super) fn exists(batch: &Batch<'_>, user_id: &UserId) -> Result<bool, Fault> {
    Ok(batch.sql("SELECT 1 FROM threads WHERE user_id = ?1")?.exists([user_id.as_str()])?)
}

/// Opens a thread that is not there, at this version, with those who are told that the user was created.
pub(super) fn open(
    batch: &mut Batch<'_>,
    key: &ThreadKey,
    thread: &Thread,
    (snapshot, version): (&str, u64),
    outbox: &[NewDelivery],
    now: Timestamp,
) -> Result<(), Fault> {
    static INSERT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "INSERT INTO threads (id, user_id, client, business, auth_id, state, active) \
             VALUES ({NEXT_NUMBER}, ?1, ?2, ?3, ?4, ?5, ?6)"
        )
    });
    const HEAD: &str = "INSERT INTO log (id, number, at, snapshot) VALUES (?1, ?2, ?3, ?4)";
    let (client, business) = (key.client.as_str(), key.business.cast_signed());
    let state: State = thread.state();
    let active = thread.control().active.as_str();
    batch.sql(&INSERT)?.execute((key.user_id.as_str(), client, business, &*key.auth_id, state.as_str(), active))?;
    let id = batch.connection().last_insert_rowid();
    batch.sql(HEAD)?.execute((head_key(id), int(version), int(thread.sequence()), snapshot))?;
    count(batch, client, business, state.as_str(), active, 1)?;
    batch.enqueue(&About { thread: id, user_id: &key.user_id, entries: &[], now }, outbox)
}

/// Whether an answer is kept for this key, and has not expired.
pub(super) fn is_kept(batch: &Batch<'_>, key: &IdempotencyKey, now: Timestamp) -> Result<bool, Fault> {
    let mut select = batch.sql("SELECT 1 FROM kept WHERE key = ?1 AND expires_at > ?2")?;
    Ok(select.exists((key.key.as_slice(), now.0))?)
}

/// Keeps the answer for this key.
pub(super) fn keep(batch: &Batch<'_>, key: &IdempotencyKey, answer: &KeptAnswer) -> Result<(), Fault> {
    const KEEP: &str = "INSERT OR REPLACE INTO kept (key, request, expires_at, answer) VALUES (?1, ?2, ?3, ?4)";
    let form = record::write_kept(answer)?;
    batch.sql(KEEP)?.execute((key.key.as_slice(), key.request.as_slice(), key.expires_at.0, form))?;
    Ok(())
}
