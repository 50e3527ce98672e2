//! Retention: what is old leaves.

use super::{
    SqliteStore,
    batch::{Batch, int},
    fault::Fault,
    thread_step::{LAST_SEQUENCE, count, entry_key, head_key},
    writer::Step,
};
use crate::store::record;
use async_trait::async_trait;
use rusqlite::{CachedStatement, Connection, OptionalExtension};
use std::collections::{BTreeMap, HashMap};
use tract_actors::ports::{CLOCK_SLACK_MS, Leave, Owed, Retention, StoreError, ThreadKey, Written};
use tract_domain::{ClientId, Origin, Thread, Timestamp, UserId};

/// The name of the counter of threads that left: their numbers are not given out again, because what was received of them
/// is listed by number.
const LEFT: i64 = -2;

/// The number that a new thread gets.
pub(super) const NEXT_NUMBER: &str = "(SELECT max(coalesce((SELECT max(id) FROM threads), 0), \
    coalesce((SELECT last FROM counters WHERE name = -2), 0)) + 1)";

#[async_trait]
impl Retention for SqliteStore {
    async fn origin(&self, user_id: &UserId) -> Result<Origin, StoreError> {
        let Some(partition) = self.handles.partition(user_id) else { return Ok(Origin::default()) };
        self.points.ask(move |conn| Ok(origin(conn, partition)?.1)).await
    }

    async fn owed(&self, threads: &[ThreadKey], before: Timestamp) -> Result<Vec<Owed>, StoreError> {
        let threads = threads.to_vec();
        self.scans.ask(move |conn| owed(conn, &threads, before)).await
    }

    async fn trim_feed(&self, user_id: &UserId, through: u64, most: usize) -> Result<u64, StoreError> {
        self.writer.ask(TrimFeed { user_id: user_id.clone(), through, most }).await
    }

    async fn leave(&self, leave: Leave) -> Result<Written, StoreError> {
        let Some(partition) = self.handles.partition(&leave.user_id) else { return Ok(Written::Applied) };
        self.writer.ask(LeaveStore { leave, partition }).await
    }
}

/// The version that a new thread in this partition begins with, and above what it counts.
pub(super) fn origin(conn: &Connection, partition: u16) -> Result<(u64, Origin), Fault> {
    const SELECT: &str = "SELECT version, sequence, control_epoch, conversation FROM origins WHERE partition = ?1";
    let found = conn.prepare_cached(SELECT)?.query_row([partition], |row| {
        let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        let origin = Origin { sequence: number(1)?, control_epoch: number(2)?, conversation: number(3)? };
        Ok((number(0)?, origin))
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// Whether a new thread counts on from there.
pub(super) fn is_above(thread: &Thread, origin: Origin) -> bool {
    thread.sequence() >= origin.sequence
        && thread.control().epoch > origin.control_epoch
        && thread.conversation() >= origin.conversation
}

/// What is owed of each of these threads, at one moment.
fn owed(conn: &Connection, threads: &[ThreadKey], before: Timestamp) -> Result<Vec<Owed>, Fault> {
    const REPLAYED: &str =
        "SELECT what, sequence FROM outbox INDEXED BY outbox_replayed WHERE replayed = 1 AND thread = ?1";
    const LETTERS: &str = "SELECT what, sequence FROM dead_letters INDEXED BY dead_letters_thread \
        WHERE endpoint = ?1 AND thread = ?2";
    let tx = conn.unchecked_transaction()?;
    let mut by_client: BTreeMap<&ClientId, HashMap<i64, Owed>> = BTreeMap::new();
    let mut numbers = Vec::with_capacity(threads.len());
    for key in threads {
        let mut find = tx.prepare_cached("SELECT id FROM threads WHERE user_id = ?1")?;
        let number: Option<i64> = find.query_row([key.user_id.as_str()], |row| row.get(0)).optional()?;
        numbers.push(number);
        if let Some(number) = number {
            by_client.entry(&key.client).or_default().insert(number, Owed::default());
        }
    }
    for (client, threads) in &mut by_client {
        let endpoints = endpoints(&tx, client)?;
        for endpoint in &endpoints {
            waiting(&tx, *endpoint, before, threads)?;
        }
        for (thread, owed) in threads {
            add(&mut tx.prepare_cached(REPLAYED)?, [*thread], owed)?;
            for endpoint in &endpoints {
                add(&mut tx.prepare_cached(LETTERS)?, [*endpoint, *thread], owed)?;
            }
        }
    }
    let found = threads.iter().zip(numbers).map(|(key, number)| {
        let of_client = by_client.get(&key.client);
        number.and_then(|number| of_client?.get(&number).copied()).unwrap_or_default()
    });
    Ok(found.collect())
}

/// The numbers of a client's endpoints.
fn endpoints(conn: &Connection, client: &ClientId) -> Result<Vec<i64>, Fault> {
    // `;` is the character after `:`.
    const SELECT: &str = "SELECT id FROM endpoints WHERE (name > 'hook:' || ?1 || ':' AND name < 'hook:' || ?1 || ';') \
        OR (name > 'channel:' || ?1 || ':' AND name < 'channel:' || ?1 || ';') OR name = 'iva:' || ?1";
    let mut select = conn.prepare_cached(SELECT)?;
    let found = select.query_map([client.as_str()], |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Adds what waits for an endpoint since before that time. Ids are given out in the order of creation.
fn waiting(conn: &Connection, endpoint: i64, before: Timestamp, threads: &mut HashMap<i64, Owed>) -> Result<(), Fault> {
    const SELECT: &str = "SELECT created_at, thread, what, sequence FROM outbox WHERE endpoint = ?1 ORDER BY id";
    let mut select = conn.prepare_cached(SELECT)?;
    let mut rows = select.query([endpoint])?;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(0)? > before.plus(CLOCK_SLACK_MS).0 {
            break;
        }
        if let Some(owed) = threads.get_mut(&row.get(1)?) {
            owed.add(record::read_what(&row.get::<_, String>(2)?)?, row.get::<_, i64>(3)?.unsigned_abs());
        }
    }
    Ok(())
}

fn add(select: &mut CachedStatement<'_>, by: impl rusqlite::Params, owed: &mut Owed) -> Result<(), Fault> {
    let mut rows = select.query(by)?;
    while let Some(row) = rows.next()? {
        owed.add(record::read_what(&row.get::<_, String>(0)?)?, row.get::<_, i64>(1)?.unsigned_abs());
    }
    Ok(())
}

/// Forgets some of a thread's first entries.
struct TrimFeed {
    user_id: UserId,
    through: u64,
    most: usize,
}

impl Step for TrimFeed {
    type Outcome = u64;

    fn apply(&self, batch: &mut Batch<'_>) -> Result<u64, Fault> {
        const LAST: &str = "SELECT max(id) FROM (SELECT id FROM log WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3)";
        let mut find = batch.sql("SELECT id FROM threads WHERE user_id = ?1")?;
        let thread = find.query_row([self.user_id.as_str()], |row| row.get::<_, i64>(0)).optional()?;
        let Some(thread) = thread else { return Ok(0) };
        let bounds = (entry_key(thread, 0), entry_key(thread, self.through), int(self.most as u64));
        let last: Option<i64> = batch.sql(LAST)?.query_row(bounds, |row| row.get(0))?;
        last.map_or(Ok(0), |last| forget_entries(batch, thread, last))
    }
}

/// Forgets a thread's entries up to this key; says how many.
fn forget_entries(batch: &Batch<'_>, thread: i64, through: i64) -> Result<u64, Fault> {
    const BODIES: &str = "DELETE FROM bodies WHERE id IN (SELECT at FROM log WHERE id > ?1 AND id <= ?2)";
    const ENTRIES: &str = "DELETE FROM log WHERE id > ?1 AND id <= ?2";
    let range = (entry_key(thread, 0), through);
    batch.sql(BODIES)?.execute(range)?;
    Ok(batch.sql(ENTRIES)?.execute(range)? as u64)
}

/// A thread leaves.
struct LeaveStore {
    leave: Leave,
    partition: u16,
}

impl Step for LeaveStore {
    type Outcome = Written;

    fn apply(&self, batch: &mut Batch<'_>) -> Result<Written, Fault> {
        const SELECT: &str =
            "SELECT id, version, state, active, client, business, auth_id FROM thread_heads WHERE user_id = ?1";
        const USER: &str = "DELETE FROM users WHERE client = ?1 AND auth_id = ?2 \
            AND NOT EXISTS (SELECT 1 FROM threads WHERE auth_id = ?2 AND client = ?1)";
        const ORIGIN: &str = "INSERT INTO origins (partition, version, sequence, control_epoch, conversation) \
            VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (partition) DO UPDATE SET version = max(version, excluded.version), \
            sequence = max(sequence, excluded.sequence), control_epoch = max(control_epoch, excluded.control_epoch), \
            conversation = max(conversation, excluded.conversation)";
        const NUMBER: &str = "INSERT INTO counters (name, last) VALUES (?1, ?2) \
            ON CONFLICT (name) DO UPDATE SET last = max(last, excluded.last)";
        let Leave { user_id, expected_version, thread } = &self.leave;
        let found = batch.sql(SELECT)?.query_row([user_id.as_str()], |row| {
            let kind: (String, String, String, i64) = (row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?);
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.unsigned_abs(), kind, row.get::<_, String>(6)?))
        });
        let Some((id, version, (state, active, client, business), auth_id)) = found.optional()? else {
            return Ok(Written::Applied);
        };
        if version != *expected_version {
            return Ok(Written::Conflict);
        }
        batch.recall(user_id);
        forget_entries(batch, id, entry_key(id, LAST_SEQUENCE))?;
        batch.sql("DELETE FROM log WHERE id = ?1")?.execute([head_key(id)])?;
        batch.sql("DELETE FROM threads WHERE id = ?1")?.execute([id])?;
        count(batch, &client, business, &state, &active, -1)?;
        batch.sql(USER)?.execute((&client, &auth_id))?;
        batch.sql(ORIGIN)?.execute((
            self.partition,
            int(version + 1),
            int(thread.sequence()),
            int(thread.control().epoch),
            int(thread.conversation()),
        ))?;
        batch.sql(NUMBER)?.execute((LEFT, id))?;
        Ok(Written::Applied)
    }
}
