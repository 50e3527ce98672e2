//! The embedded store as one side of a migration.

use super::{
    FILE, OpenError,
    batch::int,
    bytes::{Bytes, sync_directory_of},
    fault::Fault,
    files, migrate_read, occupy, schema,
    thread_step::{entry_key, head_key},
};
use crate::store::{
    handle::MAX_PARTITIONS,
    migrate::{DeliveryRecord, Identity, Location, MigrateError, Pages, Part, Record, Side, ThreadRecord, pages},
    record,
};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use tract_actors::ports::StoreError;

/// Records in one transaction: enough to make the sync's share of each small.
const TOGETHER: usize = 10_000;

/// The store in a directory, locked.
pub(in crate::store) struct SqliteSide {
    file: PathBuf,
    /// The bytes of files.
    bytes: Bytes,
    /// Those that were written since the last part was finished: to be synced before they are noted as done.
    written: BTreeSet<PathBuf>,
    identity: Identity,
    // A connection is only for one thread at a time.
    conn: Mutex<Option<Connection>>,
    /// Records that are written and not committed yet.
    uncommitted: usize,
    lock: File,
}

impl SqliteSide {
    /// A store to read.
    pub(in crate::store) fn source(directory: &Path, at: &Location) -> Result<Self, MigrateError> {
        let file = directory.join(FILE);
        if !file.is_file() {
            return Err(MigrateError::NoStore(at.clone()));
        }
        let lock = occupy(directory)?;
        let fault = |source| OpenError::Database { path: file.clone(), source };
        let mut conn = schema::connect(&file).map_err(fault)?;
        let partitions = schema::partitions(&conn).map_err(fault)?;
        let partitions = partitions.ok_or_else(|| OpenError::Foreign { path: file.clone() })?;
        let handle_key = schema::prepare(&mut conn, &file, partitions)?;
        Self::settled(file, Identity { partitions, handle_key }, conn, lock)
    }

    /// A store to write: one that is made now, or one that was begun before.
    pub(in crate::store) fn destination(
        directory: &Path,
        at: &Location,
        identity: Identity,
    ) -> Result<Self, MigrateError> {
        let Identity { partitions, handle_key } = identity;
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(OpenError::PartitionCount(partitions).into());
        }
        let lock = occupy(directory)?;
        let file = directory.join(FILE);
        let fault = |source| OpenError::Database { path: file.clone(), source };
        let mut conn = schema::connect(&file).map_err(fault)?;
        let found = schema::prepare_with(&mut conn, &file, partitions, handle_key, true)?;
        if schema::parts_done(&conn).map_err(fault)?.is_none() {
            return Err(MigrateError::Occupied(at.clone()));
        }
        if found != handle_key {
            return Err(MigrateError::Another(at.clone()));
        }
        Self::settled(file, identity, conn, lock)
    }

    fn settled(file: PathBuf, identity: Identity, conn: Connection, lock: File) -> Result<Self, MigrateError> {
        let settled = schema::settle(&conn)
            // No thread copies the log while a migration writes.
            .and_then(|()| conn.pragma_update_and_check(None, "wal_autocheckpoint", 1_000, |_| Ok(())));
        settled.map_err(|source| OpenError::Database { path: file.clone(), source })?;
        let bytes = Bytes::beside(file.parent().unwrap_or(Path::new("")));
        let conn = Mutex::new(Some(conn));
        Ok(Self { file, bytes, written: BTreeSet::new(), identity, conn, uncommitted: 0, lock })
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        let conn = self.conn.lock().unwrap_or_else(PoisonError::into_inner);
        let conn = conn.as_ref().ok_or_else(|| StoreError::Unavailable("the store is closed".into()))?;
        work(conn).map_err(|fault| fault.told())
    }
}

#[async_trait]
impl Side for SqliteSide {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn read(&self, part: Part) -> Pages {
        let (sender, pages) = pages();
        let (file, bytes) = (self.file.clone(), self.bytes.clone());
        tokio::task::spawn_blocking(move || match schema::reading(&file) {
            Ok(conn) => migrate_read::read(&conn, &bytes, part, sender),
            Err(error) => {
                // Whoever has gone away needs no answer.
                let _ = sender.blocking_send(Err(Fault::Sql(error).told()));
            }
        });
        pages
    }

    async fn done(&mut self) -> Result<usize, StoreError> {
        self.with(|conn| Ok(schema::parts_done(conn)?.unwrap_or(0)))
    }

    async fn write(&mut self, part: Part, page: Vec<Record>) -> Result<(), StoreError> {
        let begun = self.uncommitted > 0;
        let full = self.uncommitted + page.len() >= TOGETHER;
        for record in &page {
            if let Record::Piece { token, number, bytes } = record {
                let token = files::token(token).map_err(|fault| fault.told())?;
                let path = self.bytes.write_piece_now(&token, *number, bytes).map_err(unwritten)?;
                self.written.insert(path);
            }
        }
        self.with(|conn| {
            if !begun {
                conn.execute_batch("BEGIN IMMEDIATE")?;
            }
            for record in &page {
                put(conn, part, record)?;
            }
            if full {
                conn.execute_batch("COMMIT")?;
            }
            Ok(())
        })?;
        self.uncommitted = if full { 0 } else { self.uncommitted + page.len().max(1) };
        Ok(())
    }

    async fn finish(&mut self, part: Part, done: usize) -> Result<(), StoreError> {
        for path in std::mem::take(&mut self.written) {
            let synced = File::open(&path).and_then(|file| file.sync_all()).and_then(|()| sync_directory_of(&path));
            synced.map_err(unwritten)?;
        }
        let partitions = self.identity.partitions;
        let begun = self.uncommitted > 0;
        self.with(|conn| {
            if !begun {
                conn.execute_batch("BEGIN IMMEDIATE")?;
            }
            match part {
                Part::Partition(n) if n + 1 == partitions => count_threads(conn)?,
                Part::Waiting | Part::Letters | Part::Received => count_deliveries(conn, part)?,
                _ => {}
            }
            conn.execute("UPDATE meta SET value = ?1 WHERE name = 'parts_done'", [int(done as u64)])?;
            Ok(conn.execute_batch("COMMIT")?)
        })?;
        self.uncommitted = 0;
        Ok(())
    }

    async fn complete(&mut self) -> Result<(), StoreError> {
        self.with(|conn| Ok(conn.execute("DELETE FROM meta WHERE name = 'parts_done'", []).map(|_| ())?))
    }

    async fn close(&mut self) {
        // The last connection copies the log into the file.
        drop(self.conn.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = self.lock.unlock();
    }
}

/// Without the path, which tells a file's token.
fn unwritten(error: io::Error) -> StoreError {
    StoreError::Unavailable(format!("a file cannot be written: {}", error.kind()))
}

fn count_threads(conn: &Connection) -> Result<(), Fault> {
    const COUNT: &str = "INSERT INTO thread_counts (client, business, state, active, threads) \
        SELECT client, business, state, active, count(*) FROM threads GROUP BY client, business, state, active";
    conn.execute("DELETE FROM thread_counts", [])?;
    conn.execute(COUNT, [])?;
    Ok(())
}

fn count_deliveries(conn: &Connection, part: Part) -> Result<(), Fault> {
    let (column, table) = match part {
        Part::Letters => ("dead", "dead_letters"),
        Part::Received => ("received", "received"),
        _ => ("pending", "outbox"),
    };
    let count =
        format!("UPDATE endpoints SET {column} = (SELECT count(*) FROM {table} d WHERE d.endpoint = endpoints.id)");
    conn.execute(&count, [])?;
    Ok(())
}

/// Writes a record in the place of what is there.
fn put(conn: &Connection, part: Part, record: &Record) -> Result<(), Fault> {
    const COUNTER: &str = "INSERT OR REPLACE INTO counters (name, last) VALUES (?1, ?2)";
    match record {
        Record::Document { of, id, body } => {
            const PUT: &str = "INSERT OR REPLACE INTO documents (kind, id, body) VALUES (?1, ?2, ?3)";
            conn.prepare_cached(PUT)?.execute((of, id, body))?;
        }
        Record::Revision { revision } => {
            conn.execute("UPDATE meta SET value = ?1 WHERE name = 'revision'", [int(*revision)])?;
        }
        Record::Deliveries { last } => {
            conn.prepare_cached(COUNTER)?.execute((-1, int(*last)))?;
        }
        Record::Endpoint { name, last_success_at, last_error } => {
            const PUT: &str = "INSERT INTO endpoints (name, last_success_at, last_error) VALUES (?1, ?2, ?3) \
                ON CONFLICT (name) DO UPDATE SET last_success_at = ?2, last_error = ?3";
            conn.prepare_cached(PUT)?.execute((name, last_success_at, last_error))?;
        }
        Record::Thread(thread) => put_thread(conn, thread)?,
        Record::Entry { user_id, sequence, message_id, commit_id, entry } => {
            const BODY: &str =
                "INSERT OR REPLACE INTO bodies (id, entry) VALUES ((SELECT at FROM log WHERE id = ?1), ?2)";
            const PUT: &str = "INSERT OR REPLACE INTO log (id, number, at, commit_id) VALUES (?1, ?2, ?3, ?4)";
            let id = entry_key(thread_number(conn, user_id)?, *sequence);
            let body = conn.prepare_cached(BODY)?.insert((id, entry))?;
            let commit_id = commit_id.as_ref().map(|id| id.as_bytes().as_slice());
            conn.prepare_cached(PUT)?.execute((id, int(*message_id), body, commit_id))?;
        }
        Record::User { client, auth_id, version, commit_id, profile, user_details, ect_user_ids } => {
            const PUT: &str = "INSERT INTO users (client, auth_id, version, commit_id, profile, user_details, ect_user_ids) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (client, auth_id) DO UPDATE SET \
                version = ?3, commit_id = ?4, profile = ?5, user_details = ?6, ect_user_ids = ?7";
            let commit_id = commit_id.unwrap_or_default();
            let names = serde_json::to_string(ect_user_ids).map_err(|_| Fault::Refused("names cannot be written"))?;
            let commit_id = commit_id.as_bytes().as_slice();
            let row = (client, auth_id, int(*version), commit_id, profile, user_details, names);
            conn.prepare_cached(PUT)?.execute(row)?;
        }
        Record::Counter { partition, last } => {
            conn.prepare_cached(COUNTER)?.execute((partition, int(*last)))?;
        }
        Record::Origin { partition, version, sequence, control_epoch, conversation } => {
            const PUT: &str = "INSERT OR REPLACE INTO origins (partition, version, sequence, control_epoch, conversation) \
                VALUES (?1, ?2, ?3, ?4, ?5)";
            let row = (partition, int(*version), int(*sequence), int(*control_epoch), int(*conversation));
            conn.prepare_cached(PUT)?.execute(row)?;
        }
        Record::File { token, user_id, sequence, content_type, name, size, at } => {
            const PUT: &str = "INSERT OR REPLACE INTO files (token, user_id, sequence, content_type, name, size, at) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let row = (token, user_id, sequence.map(int), content_type, name, int(*size), at);
            conn.prepare_cached(PUT)?.execute(row)?;
        }
        // Beside the database.
        Record::Piece { .. } => {}
        Record::Delivery(delivery) => put_delivery(conn, part, delivery)?,
        Record::Answer { key, request, expires_at, answer } => {
            const PUT: &str = "INSERT OR REPLACE INTO kept (key, request, expires_at, answer) VALUES (?1, ?2, ?3, ?4)";
            let form = record::write_kept(answer)?;
            conn.prepare_cached(PUT)?.execute((key.as_slice(), request.as_slice(), expires_at, form))?;
        }
        Record::Request { key, until } => {
            const PUT: &str = "INSERT OR REPLACE INTO seen_requests (key, until) VALUES (?1, ?2)";
            conn.prepare_cached(PUT)?.execute((key.as_slice(), until))?;
        }
    }
    Ok(())
}

fn put_thread(conn: &Connection, thread: &ThreadRecord) -> Result<(), Fault> {
    const PUT: &str = "INSERT INTO threads (user_id, client, business, auth_id, state, active, deadline) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
        ON CONFLICT (user_id) DO UPDATE SET state = ?5, active = ?6, deadline = ?7 RETURNING id";
    const HEAD: &str = "INSERT OR REPLACE INTO log (id, number, at, commit_id, snapshot) VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = (
        &thread.user_id,
        &thread.client,
        thread.business.cast_signed(),
        &thread.auth_id,
        &thread.state,
        &thread.active,
        thread.deadline,
    );
    let id: i64 = conn.prepare_cached(PUT)?.query_row(row, |row| row.get(0))?;
    conn.prepare_cached(HEAD)?.execute((
        head_key(id),
        int(thread.version),
        int(thread.sequence),
        thread.commit_id.as_ref().map(|id| id.as_bytes().as_slice()),
        &thread.snapshot,
    ))?;
    Ok(())
}

fn thread_number(conn: &Connection, user_id: &str) -> Result<i64, Fault> {
    let mut select = conn.prepare_cached("SELECT id FROM threads WHERE user_id = ?1")?;
    let number = select.query_row([user_id], |row| row.get(0)).optional()?;
    number.ok_or(Fault::Refused("something refers to a thread that is not there"))
}

fn put_delivery(conn: &Connection, part: Part, delivery: &DeliveryRecord) -> Result<(), Fault> {
    let mut select = conn.prepare_cached("SELECT id FROM endpoints WHERE name = ?1")?;
    let endpoint: Option<i64> = select.query_row([&delivery.endpoint], |row| row.get(0)).optional()?;
    let endpoint = endpoint.ok_or(Fault::Refused("a delivery goes to an endpoint that is not there"))?;
    let thread = thread_number(conn, &delivery.user_id)?;
    let what = record::write_what(&delivery.what)?;
    let mut log = None;
    for attempt in &delivery.log {
        log = Some(record::add_attempt(log.as_deref(), attempt)?);
    }
    let (id, of, sequence) = (int(delivery.rank), int(delivery.of), int(delivery.sequence));
    let webhook_id = &delivery.webhook_id;
    match part {
        Part::Letters => {
            const PUT: &str = "INSERT OR REPLACE INTO dead_letters (endpoint, id, of, thread, webhook_id, what, sequence, \
                created_at, died_at, log) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
            let (created_at, died_at) = (delivery.created_at, delivery.ended_at.unwrap_or(delivery.created_at));
            let row = (endpoint, id, of, thread, webhook_id, what, sequence, created_at, died_at, log);
            conn.prepare_cached(PUT)?.execute(row)?;
        }
        Part::Received => {
            const PUT: &str = "INSERT OR REPLACE INTO received (endpoint, id, of, thread, webhook_id, what, sequence, \
                created_at, ended_at, rejected, replayed, log) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
            let (created_at, ended_at) = (delivery.created_at, delivery.ended_at.unwrap_or(delivery.created_at));
            let (rejected, replayed) = (delivery.rejected, delivery.replayed);
            let log = log.unwrap_or_else(|| "[]".to_owned());
            let row =
                (endpoint, id, of, thread, webhook_id, what, sequence, created_at, ended_at, rejected, replayed, log);
            conn.prepare_cached(PUT)?.execute(row)?;
        }
        _ => {
            const PUT: &str = "INSERT OR REPLACE INTO outbox (endpoint, id, thread, webhook_id, what, sequence, \
                answers_handoff, created_at, attempts, first_attempt_at, due_at, replayed, log) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
            let row = (
                endpoint,
                id,
                thread,
                webhook_id,
                what,
                sequence,
                delivery.answers_handoff.map(int),
                delivery.created_at,
                delivery.attempts,
                delivery.first_attempt_at,
                delivery.due_at,
                delivery.replayed,
                log,
            );
            conn.prepare_cached(PUT)?.execute(row)?;
        }
    }
    Ok(())
}
