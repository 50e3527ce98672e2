//! Reads all that the embedded store holds, for a migration.

use super::{
    bytes::Bytes,
    fault::Fault,
    files,
    thread_step::{entry_key, head_key, uuid},
};
use crate::store::{
    handle::Handles,
    migrate::{DeliveryRecord, Part, Record, ThreadRecord, is_full},
    record,
};
use rusqlite::{Connection, OptionalExtension, Row};
use std::collections::{BTreeMap, HashSet};
use tokio::sync::mpsc;
use tract_actors::ports::StoreError;
use xxhash_rust::xxh3::xxh3_128;

/// Records on a page.
const PAGE: usize = 256;

/// A part on its way to whoever reads it.
pub(super) struct Reading<'a> {
    conn: &'a Connection,
    bytes: &'a Bytes,
    pages: mpsc::Sender<Result<Vec<Record>, StoreError>>,
    page: Vec<Record>,
}

/// Nobody reads on.
struct Unwanted;

/// What ends a reading early.
enum End {
    Unwanted,
    Fault(Fault),
}

impl From<Unwanted> for End {
    fn from(_: Unwanted) -> Self {
        Self::Unwanted
    }
}
impl<T: Into<Fault>> From<T> for End {
    fn from(fault: T) -> Self {
        Self::Fault(fault.into())
    }
}

/// Reads a part and sends it on.
pub(super) fn read(conn: &Connection, bytes: &Bytes, part: Part, pages: mpsc::Sender<Result<Vec<Record>, StoreError>>) {
    let mut reading = Reading { conn, bytes, pages, page: Vec::new() };
    if let Err(End::Fault(fault)) = reading.part(part) {
        // Whoever has gone away needs no answer.
        let _ = reading.pages.blocking_send(Err(fault.told()));
    }
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

impl Reading<'_> {
    fn add(&mut self, record: Record) -> Result<(), Unwanted> {
        self.page.push(record);
        if is_full(&self.page, PAGE) { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Unwanted> {
        if self.page.is_empty() {
            return Ok(());
        }
        self.pages.blocking_send(Ok(std::mem::take(&mut self.page))).map_err(|_| Unwanted)
    }

    fn part(&mut self, part: Part) -> Result<(), End> {
        match part {
            Part::Config => self.config()?,
            Part::Partition(partition) => self.partition(partition)?,
            Part::Waiting => self.deliveries(
                "SELECT e.name, d.id, 0, t.user_id, d.webhook_id, d.what, d.sequence, d.answers_handoff, d.created_at, \
                 d.attempts, d.first_attempt_at, d.due_at, NULL, 0, d.replayed, d.log FROM outbox d \
                 JOIN threads t ON t.id = d.thread JOIN endpoints e ON e.id = d.endpoint ORDER BY d.endpoint, d.id",
            )?,
            Part::Letters => self.deliveries(
                "SELECT e.name, d.id, d.of, t.user_id, d.webhook_id, d.what, d.sequence, NULL, d.created_at, \
                 0, NULL, d.created_at, d.died_at, 0, 0, d.log FROM dead_letters d \
                 JOIN threads t ON t.id = d.thread JOIN endpoints e ON e.id = d.endpoint ORDER BY d.endpoint, d.id, d.of",
            )?,
            Part::Received => self.deliveries(
                "SELECT e.name, d.id, d.of, t.user_id, d.webhook_id, d.what, d.sequence, NULL, d.created_at, \
                 0, NULL, d.created_at, d.ended_at, d.rejected, d.replayed, d.log FROM received d \
                 JOIN threads t ON t.id = d.thread JOIN endpoints e ON e.id = d.endpoint ORDER BY d.endpoint, d.id, d.of",
            )?,
            Part::Answers => self.answers()?,
            Part::Requests => self.requests()?,
        }
        Ok(self.flush()?)
    }

    fn config(&mut self) -> Result<(), End> {
        let conn = self.conn;
        let revision = conn.query_row("SELECT value FROM meta WHERE name = 'revision'", [], |row| unsigned(row, 0))?;
        self.add(Record::Revision { revision })?;
        let last = conn.query_row("SELECT last FROM counters WHERE name = -1", [], |row| unsigned(row, 0));
        self.add(Record::Deliveries { last: last.optional()?.unwrap_or(0) })?;
        let mut select = conn.prepare_cached("SELECT kind, id, body FROM documents ORDER BY kind, id")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            self.add(Record::Document { of: row.get(0)?, id: row.get(1)?, body: row.get(2)? })?;
        }
        let mut select =
            conn.prepare_cached("SELECT name, last_success_at, last_error FROM endpoints ORDER BY name")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (name, last_success_at, last_error) = (row.get(0)?, row.get(1)?, row.get(2)?);
            self.add(Record::Endpoint { name, last_success_at, last_error })?;
        }
        Ok(())
    }

    fn partition(&mut self, partition: u16) -> Result<(), End> {
        const COUNTER: &str = "SELECT last FROM counters WHERE name = ?1";
        let last = self.conn.query_row(COUNTER, [partition], |row| unsigned(row, 0)).optional()?;
        self.add(Record::Counter { partition, last: last.unwrap_or(0) })?;
        let (version, origin) = super::retention::origin(self.conn, partition)?;
        let (sequence, control_epoch, conversation) = (origin.sequence, origin.control_epoch, origin.conversation);
        self.add(Record::Origin { partition, version, sequence, control_epoch, conversation })?;

        // In the order of creation; 8 bytes for each of one partition's threads.
        let mut threads: Vec<i64> = Vec::new();
        for beginning in Handles::beginnings(partition) {
            const SELECT: &str = "SELECT id FROM threads WHERE user_id >= ?1 AND user_id < ?2";
            let mut select = self.conn.prepare_cached(SELECT)?;
            // All characters of a handle sort before DEL.
            let found = select.query_map((&beginning, format!("{beginning}\u{7f}")), |row| row.get(0))?;
            for id in found {
                threads.push(id?);
            }
        }
        threads.sort_unstable();
        let mut users = HashSet::new();
        for id in threads {
            let thread = self.thread(id)?;
            let user = (thread.client.clone(), thread.auth_id.clone());
            let user_id = thread.user_id.clone();
            self.add(Record::Thread(thread))?;
            if users.insert(xxh3_128(format!("{}:{}", user.0, user.1).as_bytes())) {
                self.user(user)?;
            }
            self.entries(id, &user_id)?;
        }
        for beginning in Handles::beginnings(partition) {
            self.files(&beginning)?;
        }
        Ok(())
    }

    /// The files of threads whose handles begin so.
    fn files(&mut self, beginning: &str) -> Result<(), End> {
        const SELECT: &str = "SELECT token, user_id, sequence, content_type, name, size, at FROM files \
            WHERE user_id >= ?1 AND user_id < ?2 ORDER BY user_id, token";
        let mut select = self.conn.prepare_cached(SELECT)?;
        let mut rows = select.query((beginning, format!("{beginning}\u{7f}")))?;
        while let Some(row) = rows.next()? {
            let token: String = row.get(0)?;
            let sequence = row.get::<_, Option<i64>>(2)?.map(i64::unsigned_abs);
            let (user_id, content_type, name) = (row.get(1)?, row.get(3)?, row.get(4)?);
            let (size, at) = (unsigned(row, 5)?, row.get(6)?);
            self.add(Record::File { token: token.clone(), user_id, sequence, content_type, name, size, at })?;
            self.pieces(&token)?;
        }
        Ok(())
    }

    /// A file's pieces; none of one whose upload did not end.
    fn pieces(&mut self, token: &str) -> Result<(), End> {
        let file = files::token(token)?;
        for number in 0.. {
            let piece = self.bytes.piece_now(&file, number).map_err(|_| Fault::Refused("a file cannot be read"))?;
            let Some(bytes) = piece.filter(|bytes| !bytes.is_empty()) else { break };
            self.add(Record::Piece { token: token.to_owned(), number, bytes })?;
        }
        Ok(())
    }

    fn thread(&self, id: i64) -> Result<ThreadRecord, End> {
        const SELECT: &str = "SELECT user_id, client, business, auth_id, version, sequence, state, active, deadline, \
            commit_id, snapshot FROM thread_heads WHERE id = ?1";
        let thread = self.conn.prepare_cached(SELECT)?.query_row([id], |row| {
            Ok(ThreadRecord {
                number: id.unsigned_abs(),
                user_id: row.get(0)?,
                client: row.get(1)?,
                business: row.get::<_, i64>(2)?.cast_unsigned(),
                auth_id: row.get(3)?,
                version: unsigned(row, 4)?,
                sequence: unsigned(row, 5)?,
                state: row.get(6)?,
                active: row.get(7)?,
                deadline: row.get(8)?,
                commit_id: uuid(row, 9)?,
                snapshot: row.get(10)?,
            })
        });
        Ok(thread?)
    }

    fn user(&mut self, (client, auth_id): (String, String)) -> Result<(), End> {
        const SELECT: &str = "SELECT version, commit_id, profile, user_details, ect_user_ids FROM users \
            WHERE client = ?1 AND auth_id = ?2";
        let mut select = self.conn.prepare_cached(SELECT)?;
        let mut rows = select.query((&client, &auth_id))?;
        let Some(row) = rows.next()? else { return Ok(()) };
        let names = record::read_ect_user_ids(&row.get::<_, String>(4)?)?;
        let ect_user_ids: BTreeMap<_, _> = names.into_iter().map(|(ect, name)| (ect.to_string(), name)).collect();
        let (version, commit_id) = (unsigned(row, 0)?, uuid(row, 1)?);
        let (profile, user_details) = (row.get(2)?, row.get(3)?);
        Ok(self.add(Record::User { client, auth_id, version, commit_id, profile, user_details, ect_user_ids })?)
    }

    fn entries(&mut self, thread: i64, user_id: &str) -> Result<(), End> {
        const SELECT: &str = "SELECT sequence, message_id, commit_id, entry FROM entries \
            WHERE id >= ?1 AND id < ?2 ORDER BY id";
        let mut select = self.conn.prepare_cached(SELECT)?;
        let mut rows = select.query((entry_key(thread, 0), head_key(thread)))?;
        while let Some(row) = rows.next()? {
            let (sequence, message_id, commit_id) = (unsigned(row, 0)?, unsigned(row, 1)?, uuid(row, 2)?);
            let (user_id, entry) = (user_id.to_owned(), row.get(3)?);
            self.add(Record::Entry { user_id, sequence, message_id, commit_id, entry })?;
        }
        Ok(())
    }

    fn deliveries(&mut self, select: &str) -> Result<(), End> {
        let mut select = self.conn.prepare_cached(select)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let delivery = DeliveryRecord {
                endpoint: row.get(0)?,
                rank: unsigned(row, 1)?,
                of: unsigned(row, 2)?,
                user_id: row.get(3)?,
                webhook_id: row.get(4)?,
                what: record::read_what(&row.get::<_, String>(5)?)?,
                sequence: unsigned(row, 6)?,
                answers_handoff: row.get::<_, Option<i64>>(7)?.map(i64::unsigned_abs),
                created_at: row.get(8)?,
                attempts: row.get(9)?,
                first_attempt_at: row.get(10)?,
                due_at: row.get(11)?,
                ended_at: row.get(12)?,
                rejected: row.get(13)?,
                replayed: row.get(14)?,
                log: record::read_attempts(row.get::<_, Option<String>>(15)?.as_deref())?,
            };
            self.add(Record::Delivery(delivery))?;
        }
        Ok(())
    }

    fn answers(&mut self) -> Result<(), End> {
        let mut select = self.conn.prepare_cached("SELECT key, request, expires_at, answer FROM kept")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let answer = record::read_kept(&row.get::<_, String>(3)?)?;
            let (key, request, expires_at) = (row.get(0)?, row.get(1)?, row.get(2)?);
            self.add(Record::Answer { key, request, expires_at, answer })?;
        }
        Ok(())
    }

    fn requests(&mut self) -> Result<(), End> {
        let mut select = self.conn.prepare_cached("SELECT key, until FROM seen_requests")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            self.add(Record::Request { key: row.get(0)?, until: row.get(1)? })?;
        }
        Ok(())
    }
}
