//! The step that everything else is for: one commit on one thread.

use super::{
    batch::{About, Batch, int},
    fault::Fault,
    retention::NEXT_NUMBER,
    writer::Step,
};
use crate::store::record::{self, RecordError};
use rusqlite::OptionalExtension;
use std::sync::{Arc, LazyLock};
use tract_actors::ports::{
    Commit, Committed, DeadlineChange, IdempotencyKey, KeptAnswer, NewDelivery, Settled, StoredEntry, ThreadKey,
};
use tract_domain::{State, Thread, Timestamp, UserId};
use uuid::Uuid;

/// Bits of an entry's key that are its sequence; the thread is above them.
const SEQUENCE_BITS: u32 = 32;

/// The last sequence that a thread can reach.
pub(super) const LAST_SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;

/// The key of an entry.
pub(super) fn entry_key(thread: i64, sequence: u64) -> i64 {
    (thread << SEQUENCE_BITS) | int(sequence.min(LAST_SEQUENCE))
}

/// A commit with its stored forms, made by the caller: the writer's time is everybody's.
pub(super) struct CommitThread {
    commit: Commit,
    partition: u16,
    snapshot: String,
    entries: Vec<String>,
}

/// What the thread's row says before the commit.
struct Row {
    id: i64,
    version: u64,
    sequence: u64,
    commit_id: Option<Uuid>,
    state: String,
    active: String,
    client: String,
    business: i64,
}

impl CommitThread {
    pub(super) fn new(commit: Commit, partition: u16) -> Result<Self, RecordError> {
        let snapshot = record::write_thread(&commit.thread)?;
        let entries = commit.entries.iter().map(record::write_entry).collect::<Result<_, _>>()?;
        Ok(Self { commit, partition, snapshot, entries })
    }

    fn row(&self, batch: &Batch<'_>) -> Result<Option<Row>, Fault> {
        const SELECT: &str = "SELECT id, version, sequence, commit_id, state, active, client, business \
            FROM threads WHERE user_id = ?1";
        let row = batch.sql(SELECT)?.query_row([self.commit.user_id.as_str()], |row| {
            Ok(Row {
                id: row.get(0)?,
                version: row.get::<_, i64>(1)?.unsigned_abs(),
                sequence: row.get::<_, i64>(2)?.unsigned_abs(),
                commit_id: uuid(row, 3)?,
                state: row.get(4)?,
                active: row.get(5)?,
                client: row.get(6)?,
                business: row.get(7)?,
            })
        });
        Ok(row.optional()?)
    }

    /// What is told when the version is not the expected one: this very commit may have been applied before.
    fn again(&self, batch: &Batch<'_>, row: &Row) -> Result<Committed, Fault> {
        const FIRST: &str = "SELECT commit_id FROM entries WHERE id = ?1";
        const IDS: &str = "SELECT message_id FROM entries WHERE id >= ?1 AND id < ?2 ORDER BY id";
        let commit = &self.commit;
        let version = commit.expected_version + 1;
        let Some(first) = commit.entries.first() else {
            let last = row.version == version && row.commit_id == Some(commit.commit_id);
            let applied = Committed::Applied { version, message_ids: Vec::new() };
            return Ok(if last { applied } else { Committed::Conflict });
        };
        let first = entry_key(row.id, first.sequence);
        let by = batch.sql(FIRST)?.query_row([first], |row| uuid(row, 0)).optional()?.flatten();
        if by != Some(commit.commit_id) {
            return Ok(Committed::Conflict);
        }
        let end = first.saturating_add(i64::try_from(commit.entries.len()).unwrap_or(i64::MAX));
        let mut select = batch.sql(IDS)?;
        let ids = select.query_map([first, end], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))?;
        Ok(Committed::Applied { version, message_ids: ids.collect::<Result<_, _>>()? })
    }

    fn write_thread(&self, batch: &Batch<'_>, row: &Row) -> Result<(), Fault> {
        // An index is only touched when its column is named: most commits leave both alone.
        const PLAIN: &str = "UPDATE threads SET version = ?2, sequence = ?3, active = ?4, commit_id = ?5, snapshot = ?6 \
            WHERE id = ?1";
        const STATE: &str = "UPDATE threads SET version = ?2, sequence = ?3, active = ?4, commit_id = ?5, snapshot = ?6, \
            state = ?7 WHERE id = ?1";
        const DEADLINE: &str = "UPDATE threads SET version = ?2, sequence = ?3, active = ?4, commit_id = ?5, \
            snapshot = ?6, deadline = ?7 WHERE id = ?1";
        const BOTH: &str = "UPDATE threads SET version = ?2, sequence = ?3, active = ?4, commit_id = ?5, snapshot = ?6, \
            state = ?7, deadline = ?8 WHERE id = ?1";
        let commit = &self.commit;
        let state = commit.thread.state().as_str();
        let active = commit.thread.control().active.as_str();
        let version = int(commit.expected_version + 1);
        let sequence = int(commit.entries.last().map_or(row.sequence, |e| e.sequence));
        let commit_id = commit.commit_id.as_bytes().as_slice();
        let snapshot = &self.snapshot;
        let deadline = match commit.deadline {
            DeadlineChange::Keep => None,
            DeadlineChange::Set(at) => Some(at.map(|at| at.0)),
        };
        let same = (row.id, version, sequence, active, commit_id, snapshot);
        match (row.state != state, deadline) {
            (false, None) => batch.sql(PLAIN)?.execute(same)?,
            (true, None) => batch.sql(STATE)?.execute((same.0, same.1, same.2, same.3, same.4, same.5, state))?,
            (false, Some(at)) => batch.sql(DEADLINE)?.execute((same.0, same.1, same.2, same.3, same.4, same.5, at))?,
            (true, Some(at)) => {
                batch.sql(BOTH)?.execute((same.0, same.1, same.2, same.3, same.4, same.5, state, at))?
            }
        };
        if row.state != state || row.active != active {
            count(batch, &row.client, row.business, &row.state, &row.active, -1)?;
            count(batch, &row.client, row.business, state, active, 1)?;
        }
        Ok(())
    }
}

impl Step for CommitThread {
    type Outcome = Committed;

    fn apply(&self, batch: &mut Batch<'_>) -> Result<Committed, Fault> {
        const ENTRY: &str = "INSERT INTO entries (id, message_id, commit_id, entry) VALUES (?1, ?2, ?3, ?4)";
        const DETAILS: &str = "UPDATE users SET user_details = ?2 \
            WHERE (client, auth_id) = (SELECT client, auth_id FROM threads WHERE id = ?1)";
        let commit = &self.commit;
        let Some(row) = self.row(batch)? else { return Ok(Committed::Conflict) };
        if row.version != commit.expected_version {
            return self.again(batch, &row);
        }
        let gapless = commit.entries.iter().zip(row.sequence + 1..).all(|(entry, next)| entry.sequence == next);
        if !gapless || commit.entries.last().is_some_and(|e| e.sequence > LAST_SEQUENCE) {
            return Err(Fault::Refused("the entries do not continue the thread's sequence"));
        }
        if let Some(Settled { endpoint, id, .. }) = &commit.settles
            && !batch.waits(endpoint, *id, row.id)?
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
            batch.sql(ENTRY)?.execute((entry_key(row.id, entry.sequence), int(*message_id), commit_id, form))?;
            stored.push(Arc::new(StoredEntry { message_id: *message_id, entry: entry.clone() }));
        }
        self.write_thread(batch, &row)?;
        if let Some(Settled { endpoint, id, .. }) = &commit.settles
            && let Some(endpoint) = batch.known(endpoint)
        {
            batch.remove(endpoint, *id)?;
        }
        let about = About { thread: row.id, user_id: &commit.user_id, entries: &stored, now: commit.now };
        batch.enqueue(&about, &commit.outbox)?;
        if let Some(details) = &commit.user_details {
            batch.sql(DETAILS)?.execute((row.id, &*details.0))?;
        }
        if let Some((key, reply)) = &commit.idempotency {
            let (reply, message_ids) = (reply.clone(), message_ids.clone());
            keep(batch, key, &KeptAnswer::Thread { reply, message_ids, at: commit.now })?;
        }
        Ok(Committed::Applied { version: commit.expected_version + 1, message_ids })
    }
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
            "INSERT INTO threads (id, user_id, client, business, auth_id, version, sequence, state, active, snapshot) \
             VALUES ({NEXT_NUMBER}, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        )
    });
    let (client, business) = (key.client.as_str(), key.business.cast_signed());
    let state: State = thread.state();
    let active = thread.control().active.as_str();
    batch.sql(&INSERT)?.execute((
        key.user_id.as_str(),
        client,
        business,
        &*key.auth_id,
        int(version),
        int(thread.sequence()),
        state.as_str(),
        active,
        snapshot,
    ))?;
    let id = batch.connection().last_insert_rowid();
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
