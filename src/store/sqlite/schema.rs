//! Connections and their settings; the schema and its migrations.

use super::OpenError;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};
use std::{path::Path, time::Duration};

/// Each step takes the schema from one version to the next; `user_version` counts those that were taken. Released steps
/// are never edited.
const STEPS: &[&str] = &[
    include_str!("schema/0001_first.sql"),
    include_str!("schema/0002_seen_requests.sql"),
    include_str!("schema/0003_dead_letters.sql"),
    include_str!("schema/0004_retention.sql"),
    include_str!("schema/0005_log.sql"),
    include_str!("schema/0006_files.sql"),
];

/// `application_id` of our files, "TRCT": so that we never write into somebody else's.
const APPLICATION: i64 = 0x5452_4354;

/// How long to wait for a lock that another connection or an operator's tool holds.
const BUSY: Duration = Duration::from_secs(5);

/// Statements that a connection keeps prepared; more than there are.
const STATEMENTS: usize = 128;

/// KiB of page cache for each connection. What is not in it is in the system's cache. More is not better for the writer:
/// whenever SQLite has divided a page, it walks through the whole table of cached pages at the end of the transaction.
const CACHE: i64 = 8 * 1024;

/// The WAL file is cut back to this many bytes when it starts over: overwriting is cheaper than growing, so it may stay as
/// large as it gets in ordinary operation.
const WAL_KEPT: i64 = 48 * 1024 * 1024;

/// A connection that may write, as yet without settings that change the file.
pub(super) fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(file, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(conn)
}

/// Settings of a connection that writes, once the file is known to be ours. Checkpoints are arranged by the writer, not
/// by SQLite.
pub(super) fn settle(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "cache_size", -CACHE)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_KEPT, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    Ok(())
}

/// A connection that only reads.
pub(super) fn reading(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(file, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.pragma_update(None, "cache_size", -CACHE)?;
    Ok(conn)
}

/// Brings the file to the newest schema; a new one gets its partitions and its key. Returns the key.
pub(super) fn prepare(conn: &mut Connection, file: &Path, partitions: u16) -> Result<[u8; 32], OpenError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|e| OpenError::Random(e.to_string()))?;
    let key = prepare_with(conn, file, partitions, key, false)?;
    if parts_done(conn).map_err(|source| OpenError::Database { path: file.to_owned(), source })?.is_some() {
        return Err(OpenError::Unfinished { path: file.to_owned() });
    }
    Ok(key)
}

/// Of a store that a migration has begun and not finished: how many parts are done.
pub(super) fn parts_done(conn: &Connection) -> rusqlite::Result<Option<usize>> {
    let select = "SELECT value FROM meta WHERE name = 'parts_done'";
    let done: Option<i64> = conn.query_row(select, [], |row| row.get(0)).optional()?;
    Ok(done.map(|done| usize::try_from(done).unwrap_or(0)))
}

/// How many partitions the store in this file has, if it is one.
pub(super) fn partitions(conn: &Connection) -> rusqlite::Result<Option<u16>> {
    let exists: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'", [], |row| row.get(0))?;
    if exists == 0 {
        return Ok(None);
    }
    conn.query_row("SELECT value FROM meta WHERE name = 'partitions'", [], |row| row.get(0)).optional()
}

/// The same with the key that a new store gets, and whether it says that a migration into it is unfinished.
pub(super) fn prepare_with(
    conn: &mut Connection,
    file: &Path,
    partitions: u16,
    made: [u8; 32],
    unfinished: bool,
) -> Result<[u8; 32], OpenError> {
    let fault = |source| OpenError::Database { path: file.to_owned(), source };
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
    let number = |name: &str| tx.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(fault);
    let (application, found) = (number("application_id")?, number("user_version")?);
    let objects: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fault)?;
    if application != APPLICATION && (objects > 0 || application != 0) {
        return Err(OpenError::Foreign { path: file.to_owned() });
    }
    let known = STEPS.len();
    let taken = usize::try_from(found).unwrap_or(usize::MAX);
    if taken > known {
        return Err(OpenError::Newer { path: file.to_owned(), found, known });
    }
    for step in STEPS.iter().skip(taken) {
        tx.execute_batch(step).map_err(fault)?;
    }
    if taken == 0 {
        tx.pragma_update(None, "application_id", APPLICATION).map_err(fault)?;
        let insert = "INSERT INTO meta (name, value) VALUES ('partitions', ?1), ('handle_key', ?2), ('revision', 0), ('ping', 0)";
        tx.execute(insert, (partitions, made.as_slice())).map_err(fault)?;
        if unfinished {
            tx.execute("INSERT INTO meta (name, value) VALUES ('parts_done', 0)", []).map_err(fault)?;
        }
    }
    if taken < known {
        tx.pragma_update(None, "user_version", i64::try_from(known).unwrap_or(i64::MAX)).map_err(fault)?;
    }
    let stored: u16 =
        tx.query_row("SELECT value FROM meta WHERE name = 'partitions'", [], |row| row.get(0)).map_err(fault)?;
    if stored != partitions {
        return Err(OpenError::Partitions { path: file.to_owned(), stored, asked: partitions });
    }
    let key = "SELECT value FROM meta WHERE name = 'handle_key'";
    let key: Option<[u8; 32]> = tx.query_row(key, [], |row| row.get(0)).optional().map_err(fault)?;
    let key = key.ok_or_else(|| OpenError::Foreign { path: file.to_owned() })?;
    tx.commit().map_err(fault)?;
    Ok(key)
}
