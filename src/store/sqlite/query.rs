//! What is read.

use super::{
    fault::Fault,
    known::{Known, THREAD},
    thread_step::{entry_key, head_key, uuid},
};
use crate::store::record;
use rusqlite::{Connection, OptionalExtension, Row, types::Value};
use std::collections::BTreeMap;
use tract_actors::ports::{
    Document, Documents, Kept, StoredEntry, StoredThread, StoredUser, ThreadKey, ThreadPage, ThreadQuery,
};
use tract_domain::{BusinessId, ClientId, Json, ReceiverId, State, Timestamp, UserId};

pub(super) const UNREADABLE: Fault = Fault::Refused("an identifier is not one");

/// A limit of the caller's, as SQLite takes it.
fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Reads a row with the columns of [`THREAD`].
fn stored_thread(row: &Row<'_>) -> Result<StoredThread, Fault> {
    let text = |column| Ok::<_, Fault>(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?);
    Ok(StoredThread {
        key: ThreadKey {
            user_id: UserId::new(text(8)?).map_err(|_| UNREADABLE)?,
            client: ClientId::new(text(6)?).map_err(|_| UNREADABLE)?,
            business: row.get::<_, i64>(7)?.cast_unsigned(),
            auth_id: text(9)?.into(),
        },
        version: row.get::<_, i64>(1)?.unsigned_abs(),
        commit_id: uuid(row, 3)?,
        deadline: row.get::<_, Option<i64>>(10)?.map(Timestamp),
        thread: record::read_thread(text(11)?)?,
    })
}

/// A thread, and what a commit on it has to know.
pub(super) fn thread(conn: &Connection, user_id: &UserId) -> Result<Option<(StoredThread, Known)>, Fault> {
    let mut select = conn.prepare_cached(THREAD)?;
    let mut rows = select.query([user_id.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((stored_thread(row)?, Known::read(row)?)))
}

pub(super) fn feed(conn: &Connection, user_id: &UserId, after: u64, limit: usize) -> Result<Vec<StoredEntry>, Fault> {
    const SELECT: &str = "SELECT message_id, entry FROM entries WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3";
    let mut find = conn.prepare_cached("SELECT id FROM threads WHERE user_id = ?1")?;
    let Some(thread) = find.query_row([user_id.as_str()], |row| row.get::<_, i64>(0)).optional()? else {
        return Ok(Vec::new());
    };
    let mut select = conn.prepare_cached(SELECT)?;
    let mut rows = select.query((entry_key(thread, after), head_key(thread), at_most(limit)))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let entry = record::read_entry(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?;
        entries.push(StoredEntry { message_id: row.get::<_, i64>(0)?.unsigned_abs(), entry });
    }
    Ok(entries)
}

/// A page of threads. The cursor is the last one's number.
pub(super) fn threads(conn: &Connection, query: &ThreadQuery) -> Result<ThreadPage, Fault> {
    let after = match query.cursor.as_deref().map(str::parse::<i64>) {
        None => 0,
        Some(Ok(after)) => after,
        // No cursor of ours: nothing comes after it.
        Some(Err(_)) => return Ok(ThreadPage::default()),
    };
    // Few threads are in an open state, and few may be a client's: whichever is likely to leave less to look at.
    let by = match (query.state, &query.client, &query.q) {
        (_, _, Some(_)) => "",
        (Some(state), ..) if state.is_open() => "INDEXED BY threads_state",
        (_, Some(_), _) => "INDEXED BY threads_client",
        (Some(_), ..) => "INDEXED BY threads_state",
        (None, None, None) => "NOT INDEXED",
    };
    let mut sql = format!(
        "SELECT t.id, l.number, l.at, l.commit_id, state, active, client, business, user_id, auth_id, deadline, l.snapshot \
         FROM threads t {by} CROSS JOIN log l ON l.id = (t.id << 32) | 0xffffffff WHERE t.id > ?"
    );
    let mut values: Vec<Value> = vec![after.into()];
    if let Some(client) = &query.client {
        sql.push_str(" AND client = ?");
        values.push(client.as_str().to_owned().into());
    }
    if let Some(state) = query.state {
        sql.push_str(" AND state = ?");
        values.push(state.as_str().to_owned().into());
    }
    if let Some(active) = &query.active {
        sql.push_str(" AND active = ?");
        values.push(active.as_str().to_owned().into());
    }
    if let Some(q) = &query.q {
        // All characters of a handle sort before DEL.
        sql.push_str(" AND (auth_id = ? OR (user_id >= ? AND user_id < ?))");
        values.extend([q.clone().into(), q.clone().into(), format!("{q}\u{7f}").into()]);
    }
    sql.push_str(" ORDER BY t.id LIMIT ?");
    values.push(at_most(query.limit.saturating_add(1)).into());

    let mut select = conn.prepare_cached(&sql)?;
    let mut rows = select.query(rusqlite::params_from_iter(values))?;
    let mut page = ThreadPage::default();
    let mut last = after;
    while let Some(row) = rows.next()? {
        if page.threads.len() == query.limit {
            page.next = Some(last.to_string());
            break;
        }
        page.threads.push(stored_thread(row)?);
        last = row.get(0)?;
    }
    Ok(page)
}

pub(super) fn states(conn: &Connection) -> Result<BTreeMap<State, u64>, Fault> {
    let mut counts: BTreeMap<State, u64> = State::ALL.into_iter().map(|state| (state, 0)).collect();
    let mut select = conn.prepare_cached("SELECT state, sum(threads) FROM thread_counts GROUP BY state")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let name = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        if let Some(count) = counts.iter_mut().find_map(|(state, n)| (state.as_str() == name).then_some(n)) {
            *count = row.get::<_, i64>(1)?.unsigned_abs();
        }
    }
    Ok(counts)
}

pub(super) fn count_threads(
    conn: &Connection,
    client: Option<&ClientId>,
    business: Option<BusinessId>,
    active: Option<&ReceiverId>,
) -> Result<u64, Fault> {
    const SELECT: &str = "SELECT coalesce(sum(threads), 0) FROM thread_counts WHERE (?1 IS NULL OR client = ?1) \
        AND (?2 IS NULL OR business = ?2) AND (?3 IS NULL OR active = ?3)";
    let which = (client.map(ClientId::as_str), business.map(BusinessId::cast_signed), active.map(ReceiverId::as_str));
    let count: i64 = conn.prepare_cached(SELECT)?.query_row(which, |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

pub(super) fn due(conn: &Connection, now: Timestamp, limit: usize) -> Result<Vec<UserId>, Fault> {
    const SELECT: &str = "SELECT user_id FROM threads WHERE deadline <= ?1 ORDER BY deadline LIMIT ?2";
    let mut select = conn.prepare_cached(SELECT)?;
    let mut rows = select.query((now.0, at_most(limit)))?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        due.push(UserId::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?).map_err(|_| UNREADABLE)?);
    }
    Ok(due)
}

pub(super) fn next_due(conn: &Connection) -> Result<Option<Timestamp>, Fault> {
    const SELECT: &str = "SELECT min(deadline) FROM threads WHERE deadline IS NOT NULL";
    let next: Option<i64> = conn.prepare_cached(SELECT)?.query_row([], |row| row.get(0))?;
    Ok(next.map(Timestamp))
}

pub(super) fn kept(conn: &Connection, key: &[u8; 32], now: Timestamp) -> Result<Option<Kept>, Fault> {
    const SELECT: &str = "SELECT request, answer FROM kept WHERE key = ?1 AND expires_at > ?2";
    let mut select = conn.prepare_cached(SELECT)?;
    let mut rows = select.query((key.as_slice(), now.0))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let answer = record::read_kept(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?;
    Ok(Some(Kept { request: row.get(0)?, answer }))
}

pub(super) fn user(conn: &Connection, client: &ClientId, auth_id: &str) -> Result<Option<StoredUser>, Fault> {
    const SELECT: &str = "SELECT version, profile, user_details, ect_user_ids FROM users \
        WHERE client = ?1 AND auth_id = ?2";
    let mut select = conn.prepare_cached(SELECT)?;
    let mut rows = select.query((client.as_str(), auth_id))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(StoredUser {
        version: row.get::<_, i64>(0)?.unsigned_abs(),
        profile: Json(row.get::<_, String>(1)?.into()),
        user_details: row.get::<_, Option<String>>(2)?.map(|details| Json(details.into())),
        ect_user_ids: record::read_ect_user_ids(row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?)?,
    }))
}

const REVISION: &str = "SELECT value FROM meta WHERE name = 'revision'";

pub(super) fn revision(conn: &Connection) -> Result<u64, Fault> {
    let revision: i64 = conn.prepare_cached(REVISION)?.query_row([], |row| row.get(0))?;
    Ok(revision.unsigned_abs())
}

pub(super) fn documents(conn: &Connection) -> Result<Documents, Fault> {
    const SELECT: &str = "SELECT kind, id, body FROM documents ORDER BY kind, id";
    // One transaction: the revision is that of these documents.
    let tx = conn.unchecked_transaction()?;
    let revision: i64 = tx.query_row(REVISION, [], |row| row.get(0))?;
    let mut select = tx.prepare_cached(SELECT)?;
    let documents =
        select.query_map([], |row| Ok(Document { kind: row.get(0)?, id: row.get(1)?, body: row.get(2)? }))?;
    let documents = documents.collect::<Result<_, _>>()?;
    Ok(Documents { revision: revision.unsigned_abs(), write_id: None, documents })
}
