//! One transaction on its way, and what the writer remembers between transactions.

use super::{
    fault::Fault,
    known::{Known, KnownThreads},
};
use crate::store::{
    handle::{message_id, next_counter},
    record,
};
use rusqlite::{CachedStatement, Connection, OptionalExtension};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tract_actors::ports::{Delivery, Endpoint, NewDelivery, StoredEntry};
use tract_domain::{Timestamp, UserId};

/// The name of the outbox's counter; the others are partitions.
const OUTBOX: i64 = -1;

/// How far ahead of what is given out a partition's counter is stored, so that not every commit stores it. It counts
/// milliseconds: whoever starts anew goes on up to so many ahead of the clock.
const COUNTED_AHEAD: u64 = 10_000;

/// How many of an endpoint's received deliveries are kept at least; at twice as many the older half goes.
const RECEIVED_KEPT: i64 = 1_000;

/// Of how many threads the writer remembers what it committed last.
const THREADS_KNOWN: usize = 16_384;

/// An unsigned number as SQLite keeps it. None of ours comes near the bound, except from a broken caller.
pub(super) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What the writer would otherwise read in every transaction. Read again after one was rolled back.
pub(super) struct Memory {
    /// The counter of each partition.
    counters: Vec<Counter>,
    /// The last id of the outbox.
    outbox: u64,
    endpoints: HashMap<Endpoint, i64>,
    threads: KnownThreads,
}

/// The ids of a partition's messages.
#[derive(Clone, Copy, Default)]
struct Counter {
    /// The last one given out.
    last: u64,
    /// What is stored: nothing above it was given out.
    stored: u64,
}

impl Memory {
    pub(super) fn load(conn: &Connection) -> Result<Self, Fault> {
        let partitions: u16 =
            conn.query_row("SELECT value FROM meta WHERE name = 'partitions'", [], |row| row.get(0))?;
        let counters = vec![Counter::default(); usize::from(partitions)];
        let threads = KnownThreads::at_most(THREADS_KNOWN);
        let mut memory = Self { counters, outbox: 0, endpoints: HashMap::new(), threads };
        let mut select = conn.prepare_cached("SELECT name, last FROM counters")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (name, last): (i64, i64) = (row.get(0)?, row.get(1)?);
            if name == OUTBOX {
                memory.outbox = last.unsigned_abs();
            } else if let Some(counter) = usize::try_from(name).ok().and_then(|p| memory.counters.get_mut(p)) {
                *counter = Counter { last: last.unsigned_abs(), stored: last.unsigned_abs() };
            }
        }
        let mut select = conn.prepare_cached("SELECT name, id FROM endpoints")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            memory
                .endpoints
                .insert(Endpoint::from_name(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?), row.get(1)?);
        }
        Ok(memory)
    }
}

/// How an endpoint fared within the transaction; written once for all.
#[derive(Default)]
pub(super) struct Fare {
    pub(super) pending: i64,
    pub(super) dead: i64,
    pub(super) received: i64,
    pub(super) last_success_at: Option<Timestamp>,
    pub(super) last_error: Option<String>,
}

/// A transaction that steps are carried out in.
pub(super) struct Batch<'a> {
    conn: &'a Connection,
    memory: &'a mut Memory,
    fares: HashMap<i64, Fare>,
    counted: BTreeSet<u16>,
    /// The outbox's counter before the transaction.
    outbox: u64,
    deliveries: Vec<Delivery>,
}

/// The thread that deliveries are about.
pub(super) struct About<'a> {
    pub(super) thread: i64,
    pub(super) user_id: &'a UserId,
    /// The entries that the step adds, in sequence.
    pub(super) entries: &'a [Arc<StoredEntry>],
    pub(super) now: Timestamp,
}

impl<'a> Batch<'a> {
    pub(super) fn new(conn: &'a Connection, memory: &'a mut Memory) -> Self {
        let outbox = memory.outbox;
        Self { conn, memory, fares: HashMap::new(), counted: BTreeSet::new(), outbox, deliveries: Vec::new() }
    }

    /// A statement, prepared once.
    pub(super) fn sql(&self, sql: &str) -> Result<CachedStatement<'a>, Fault> {
        Ok(self.conn.prepare_cached(sql)?)
    }

    /// The database itself, for what is not a plain statement.
    pub(super) fn connection(&self) -> &'a Connection {
        self.conn
    }

    /// Takes out what is remembered of a thread: who changes it gives it back as it is then, or leaves it forgotten.
    pub(super) fn recall(&mut self, user_id: &UserId) -> Option<Known> {
        self.memory.threads.take(user_id)
    }

    /// Remembers a thread.
    pub(super) fn remember(&mut self, user_id: UserId, known: Known) {
        self.memory.threads.put(user_id, known);
    }

    /// Ids for so many entries of this partition.
    pub(super) fn message_ids(&mut self, partition: u16, now: Timestamp, count: usize) -> Result<Vec<u64>, Fault> {
        let partitions = u16::try_from(self.memory.counters.len()).unwrap_or(u16::MAX);
        let counter = self.memory.counters.get_mut(usize::from(partition));
        let counter = counter.ok_or(Fault::Refused("there is no such partition"))?;
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            let used_up = || Fault::Refused("the message ids are used up");
            counter.last = next_counter(counter.last, now, partitions).ok_or_else(used_up)?;
            ids.push(message_id(counter.last, partition, partitions));
        }
        if counter.last > counter.stored {
            counter.stored = counter.last.saturating_add(COUNTED_AHEAD);
            self.counted.insert(partition);
        }
        Ok(ids)
    }

    /// The endpoint's number, if anything was ever to be delivered to it.
    pub(super) fn known(&self, endpoint: &Endpoint) -> Option<i64> {
        self.memory.endpoints.get(endpoint).copied()
    }

    fn number(&mut self, endpoint: &Endpoint) -> Result<i64, Fault> {
        if let Some(number) = self.known(endpoint) {
            return Ok(number);
        }
        self.sql("INSERT INTO endpoints (name) VALUES (?1)")?.execute([endpoint.name()])?;
        let number = self.conn.last_insert_rowid();
        self.memory.endpoints.insert(endpoint.clone(), number);
        Ok(number)
    }

    /// Removes an endpoint and all that waits for it.
    pub(super) fn forget(&mut self, endpoint: &Endpoint) -> Result<(), Fault> {
        let Some(number) = self.memory.endpoints.remove(endpoint) else { return Ok(()) };
        for sql in [
            "DELETE FROM outbox WHERE endpoint = ?1",
            "DELETE FROM received WHERE endpoint = ?1",
            "DELETE FROM dead_letters WHERE endpoint = ?1",
        ] {
            self.sql(sql)?.execute([number])?;
        }
        self.sql("DELETE FROM endpoints WHERE id = ?1")?.execute([number])?;
        self.fares.remove(&number);
        self.deliveries.retain(|delivery| delivery.endpoint != *endpoint);
        Ok(())
    }

    /// Notes how an endpoint fares.
    pub(super) fn fare(&mut self, endpoint: i64) -> &mut Fare {
        self.fares.entry(endpoint).or_default()
    }

    /// Adds deliveries to the outbox, in order.
    pub(super) fn enqueue(&mut self, about: &About<'_>, new: &[NewDelivery]) -> Result<(), Fault> {
        for delivery in new {
            let endpoint = self.number(&delivery.endpoint)?;
            self.memory.outbox += 1;
            let delivery = Delivery {
                id: self.memory.outbox,
                strand: 0,
                behind: 0,
                endpoint: delivery.endpoint.clone(),
                user_id: about.user_id.clone(),
                webhook_id: delivery.webhook_id.clone(),
                what: delivery.what,
                sequence: delivery.sequence,
                answers_handoff: delivery.answers_handoff,
                created_at: about.now,
                attempts: 0,
                first_attempt_at: None,
                due_at: about.now,
                replayed: false,
                entry: about.entries.iter().find(|e| e.entry.sequence == delivery.sequence).cloned(),
            };
            self.insert(endpoint, about.thread, delivery, None)?;
        }
        Ok(())
    }

    /// Puts a dead letter behind everything that waits, under the next id.
    pub(super) fn enqueue_again(
        &mut self,
        endpoint: i64,
        thread: i64,
        mut delivery: Delivery,
        log: Option<String>,
    ) -> Result<(), Fault> {
        self.memory.outbox += 1;
        delivery.id = self.memory.outbox;
        self.insert(endpoint, thread, delivery, log)
    }

    fn insert(&mut self, endpoint: i64, thread: i64, delivery: Delivery, log: Option<String>) -> Result<(), Fault> {
        const INSERT: &str = "INSERT INTO outbox (endpoint, id, thread, webhook_id, what, sequence, answers_handoff, \
            created_at, due_at, log, replayed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, ?10)";
        self.sql(INSERT)?.execute((
            endpoint,
            int(delivery.id),
            thread,
            &delivery.webhook_id,
            record::write_what(&delivery.what)?,
            int(delivery.sequence),
            delivery.answers_handoff.map(int),
            delivery.created_at.0,
            log,
            delivery.replayed,
        ))?;
        self.fare(endpoint).pending += 1;
        self.deliveries.push(delivery);
        Ok(())
    }

    /// Whether this delivery waits, and is about this thread.
    pub(super) fn waits(&self, endpoint: &Endpoint, id: u64, thread: i64) -> Result<bool, Fault> {
        let Some(endpoint) = self.known(endpoint) else { return Ok(false) };
        let mut select = self.sql("SELECT thread FROM outbox WHERE endpoint = ?1 AND id = ?2")?;
        let found = select.query_row((endpoint, int(id)), |row| row.get::<_, i64>(0)).optional()?;
        Ok(found == Some(thread))
    }

    /// Takes a delivery out of the outbox, if it is still there.
    pub(super) fn remove(&mut self, endpoint: i64, id: u64) -> Result<(), Fault> {
        let gone = self.sql("DELETE FROM outbox WHERE endpoint = ?1 AND id = ?2")?.execute((endpoint, int(id)))?;
        self.fare(endpoint).pending -= i64::try_from(gone).unwrap_or(0);
        Ok(())
    }

    /// Forgets all but the last ones that an endpoint received.
    fn trim(&self, endpoint: i64) -> Result<(), Fault> {
        const FIRST_KEPT: &str =
            "SELECT id, of FROM received WHERE endpoint = ?1 ORDER BY id DESC, of DESC LIMIT 1 OFFSET ?2";
        const TRIM: &str = "DELETE FROM received WHERE endpoint = ?1 AND (id, of) < (?2, ?3)";
        let first: (i64, i64) = {
            let mut select = self.sql(FIRST_KEPT)?;
            let first = select.query_row((endpoint, RECEIVED_KEPT - 1), |row| Ok((row.get(0)?, row.get(1)?)));
            let Some(first) = first.optional()? else { return Ok(()) };
            first
        };
        let gone = self.sql(TRIM)?.execute((endpoint, first.0, first.1))?;
        self.sql("UPDATE endpoints SET received = received - ?2 WHERE id = ?1")?
            .execute((endpoint, i64::try_from(gone).unwrap_or(i64::MAX)))?;
        Ok(())
    }

    /// Writes what was gathered; what remains is to commit. Returns the new deliveries in commit order.
    pub(super) fn finish(self) -> Result<Vec<Delivery>, Fault> {
        const COUNT: &str =
            "INSERT INTO counters (name, last) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET last = excluded.last";
        const FARE: &str = "UPDATE endpoints SET pending = pending + ?2, last_success_at = \
            CASE WHEN ?3 IS NULL THEN last_success_at ELSE max(?3, coalesce(last_success_at, ?3)) END, \
            last_error = coalesce(?4, last_error), dead = dead + ?5, received = received + ?6 WHERE id = ?1 \
            RETURNING received";
        for partition in &self.counted {
            if let Some(counter) = self.memory.counters.get(usize::from(*partition)) {
                self.sql(COUNT)?.execute((i64::from(*partition), int(counter.stored)))?;
            }
        }
        if self.outbox != self.memory.outbox {
            self.sql(COUNT)?.execute((OUTBOX, int(self.memory.outbox)))?;
        }
        for (endpoint, fare) in &self.fares {
            let success = fare.last_success_at.map(|at| at.0);
            let row = (endpoint, fare.pending, success, &fare.last_error, fare.dead, fare.received);
            let received: Option<i64> = self.sql(FARE)?.query_row(row, |row| row.get(0)).optional()?;
            if fare.received > 0 && received.is_some_and(|received| received >= 2 * RECEIVED_KEPT) {
                self.trim(*endpoint)?;
            }
        }
        Ok(self.deliveries)
    }
}
