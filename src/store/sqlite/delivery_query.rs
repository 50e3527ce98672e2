//! What is read of deliveries.

use super::{batch::int, fault::Fault, query::UNREADABLE};
use crate::store::record;
use rusqlite::{Connection, OptionalExtension, Row, types::Value};
use tract_actors::ports::{
    Delivery, DeliveryPage, DeliveryQuery, DeliveryRecord, DeliveryState, Endpoint, EndpointStatus,
};
use tract_domain::{Timestamp, UserId};

/// What waits for an endpoint with an id above `after`, in order.
pub(super) fn outbox(conn: &Connection, endpoint: &Endpoint, after: u64, limit: usize) -> Result<Vec<Delivery>, Fault> {
    const SELECT: &str = "SELECT o.id, t.user_id, o.webhook_id, o.what, o.sequence, o.answers_handoff, o.created_at, \
        o.attempts, o.first_attempt_at, o.due_at, o.replayed FROM outbox o JOIN threads t ON t.id = o.thread \
        WHERE o.endpoint = (SELECT id FROM endpoints WHERE name = ?1) AND o.id > ?2 ORDER BY o.id LIMIT ?3";
    let mut select = conn.prepare_cached(SELECT)?;
    let mut rows = select.query((endpoint.name(), int(after), int(limit as u64)))?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next()? {
        deliveries.push(delivery(endpoint, row)?);
    }
    Ok(deliveries)
}

/// Those of these ids that wait for an endpoint, in their order.
pub(super) fn outbox_by_id(conn: &Connection, endpoint: &Endpoint, ids: &[u64]) -> Result<Vec<Delivery>, Fault> {
    const SELECT: &str = "SELECT o.id, t.user_id, o.webhook_id, o.what, o.sequence, o.answers_handoff, o.created_at, \
        o.attempts, o.first_attempt_at, o.due_at, o.replayed FROM outbox o JOIN threads t ON t.id = o.thread \
        WHERE o.endpoint = (SELECT id FROM endpoints WHERE name = ?1) AND o.id = ?2";
    let mut select = conn.prepare_cached(SELECT)?;
    let mut deliveries = Vec::with_capacity(ids.len());
    for id in ids {
        let mut rows = select.query((endpoint.name(), int(*id)))?;
        if let Some(row) = rows.next()? {
            deliveries.push(delivery(endpoint, row)?);
        }
    }
    Ok(deliveries)
}

fn delivery(endpoint: &Endpoint, row: &Row<'_>) -> Result<Delivery, Fault> {
    let text = |column| Ok::<_, Fault>(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?);
    Ok(Delivery {
        id: row.get::<_, i64>(0)?.unsigned_abs(),
        strand: 0,
        behind: 0,
        endpoint: endpoint.clone(),
        user_id: UserId::new(text(1)?).map_err(|_| UNREADABLE)?,
        webhook_id: row.get(2)?,
        what: record::read_what(text(3)?)?,
        sequence: row.get::<_, i64>(4)?.unsigned_abs(),
        answers_handoff: row.get::<_, Option<i64>>(5)?.map(i64::unsigned_abs),
        created_at: Timestamp(row.get(6)?),
        attempts: row.get(7)?,
        first_attempt_at: row.get::<_, Option<i64>>(8)?.map(Timestamp),
        due_at: Timestamp(row.get(9)?),
        replayed: row.get(10)?,
        entry: None,
    })
}

fn status(row: &Row<'_>) -> rusqlite::Result<EndpointStatus> {
    Ok(EndpointStatus {
        pending: row.get::<_, i64>(0)?.unsigned_abs(),
        last_success_at: row.get::<_, Option<i64>>(1)?.map(Timestamp),
        last_error: row.get(2)?,
        oldest: row.get::<_, Option<i64>>(3)?.map(Timestamp),
        dead: row.get::<_, i64>(4)?.unsigned_abs(),
    })
}

pub(super) fn endpoint_status(conn: &Connection, endpoint: &Endpoint) -> Result<EndpointStatus, Fault> {
    const SELECT: &str = "SELECT pending, last_success_at, last_error, \
        (SELECT created_at FROM outbox WHERE endpoint = e.id ORDER BY outbox.id LIMIT 1), dead \
        FROM endpoints e WHERE name = ?1";
    let status = conn.prepare_cached(SELECT)?.query_row([endpoint.name()], status);
    Ok(status.optional()?.unwrap_or_default())
}

pub(super) fn endpoints(conn: &Connection) -> Result<Vec<(Endpoint, EndpointStatus)>, Fault> {
    const SELECT: &str = "SELECT pending, last_success_at, last_error, \
        (SELECT created_at FROM outbox WHERE endpoint = e.id ORDER BY outbox.id LIMIT 1), dead, name \
        FROM endpoints e ORDER BY name";
    let mut select = conn.prepare_cached(SELECT)?;
    let rows = select.query_map([], |row| {
        let name = row.get_ref(5)?.as_str()?;
        Ok((Endpoint::from_name(name), status(row)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Where a page ended: the delivery's id, and the message of a range that it is.
type Place = (i64, i64);

/// A page of deliveries, the newest first. The cursor is the last one's place.
pub(super) fn deliveries(conn: &Connection, query: &DeliveryQuery) -> Result<DeliveryPage, Fault> {
    let before: Place = match &query.cursor {
        None => (i64::MAX, i64::MAX),
        Some(cursor) => {
            let place = cursor.split_once('.').and_then(|(id, of)| Some((id.parse().ok()?, of.parse().ok()?)));
            // No cursor of ours: nothing comes after it.
            let Some(place) = place else { return Ok(DeliveryPage::default()) };
            place
        }
    };
    let thread = match &query.user_id {
        None => None,
        Some(user_id) => {
            let mut select = conn.prepare_cached("SELECT id FROM threads WHERE user_id = ?1")?;
            let found = select.query_row([user_id.as_str()], |row| row.get::<_, i64>(0)).optional()?;
            let Some(thread) = found else { return Ok(DeliveryPage::default()) };
            Some(thread)
        }
    };
    let mut found: Vec<(Place, DeliveryRecord)> = Vec::new();
    for endpoint in &query.endpoints {
        let mut select = conn.prepare_cached("SELECT id FROM endpoints WHERE name = ?1")?;
        let Some(number) = select.query_row([endpoint.name()], |row| row.get::<_, i64>(0)).optional()? else {
            continue;
        };
        for source in SOURCES.iter().filter(|source| source.may_hold(query.state)) {
            source.read(conn, query, (endpoint, number), thread, before, &mut found)?;
        }
    }
    found.sort_unstable_by_key(|(place, _)| std::cmp::Reverse(*place));
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let next = found.last().filter(|_| more).map(|((id, of), _)| format!("{id}.{of}"));
    Ok(DeliveryPage { deliveries: found.into_iter().map(|(_, record)| record).collect(), next })
}

/// A table that deliveries are in.
struct Source {
    table: &'static str,
    /// What stands for the columns `of`, `ended_at`, `rejected`, `replayed`.
    columns: &'static str,
    states: &'static [DeliveryState],
}

const SOURCES: [Source; 3] = [
    Source { table: "outbox", columns: "0, NULL, 0, d.replayed", states: &[DeliveryState::Pending] },
    Source {
        table: "received",
        columns: "d.of, d.ended_at, d.rejected, d.replayed",
        states: &[DeliveryState::Delivered, DeliveryState::Rejected],
    },
    Source { table: "dead_letters", columns: "d.of, d.died_at, 0, 0", states: &[DeliveryState::Dead] },
];

impl Source {
    fn may_hold(&self, state: Option<DeliveryState>) -> bool {
        state.is_none_or(|state| self.states.contains(&state))
    }

    /// The query for a page, of one thread or of all. One thread's dead letters are found by index; what waits has none, which
    /// would make commits dearer.
    fn sql(&self, of_thread: bool, within_id: bool, by_rejected: bool) -> String {
        let Self { table, columns, .. } = self;
        let index = match (*table, of_thread) {
            ("dead_letters", true) => "INDEXED BY dead_letters_thread",
            _ => "",
        };
        let mut sql = format!(
            "SELECT d.id, {columns}, t.user_id, d.webhook_id, d.what, d.sequence, d.created_at, d.log \
             FROM {table} d {index} JOIN threads t ON t.id = d.thread WHERE d.endpoint = ?"
        );
        sql.push_str(match (*table, within_id) {
            // It has one row for each id.
            ("outbox", true) => " AND d.id <= ?",
            ("outbox", false) => " AND d.id < ?",
            _ => " AND (d.id, d.of) < (?, ?)",
        });
        if of_thread {
            sql.push_str(" AND d.thread = ?");
        }
        if by_rejected {
            sql.push_str(" AND d.rejected = ?");
        }
        let order = if *table == "outbox" { "d.id DESC" } else { "d.id DESC, d.of DESC" };
        sql.push_str(&format!(" ORDER BY {order} LIMIT ?"));
        sql
    }

    fn read(
        &self,
        conn: &Connection,
        query: &DeliveryQuery,
        (endpoint, number): (&Endpoint, i64),
        thread: Option<i64>,
        before: Place,
        found: &mut Vec<(Place, DeliveryRecord)>,
    ) -> Result<(), Fault> {
        let rejected = query.state.filter(|_| self.table == "received").map(|state| state == DeliveryState::Rejected);
        let sql = self.sql(thread.is_some(), before.1 > 0, rejected.is_some());
        let mut values: Vec<Value> = vec![number.into(), before.0.into()];
        if self.table != "outbox" {
            values.push(before.1.into());
        }
        values.extend(thread.map(Value::from));
        values.extend(rejected.map(|rejected| Value::from(i64::from(rejected))));
        values.push(int(query.limit as u64).saturating_add(1).into());
        let mut select = conn.prepare_cached(&sql)?;
        let mut rows = select.query(rusqlite::params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            found.push(self.record(endpoint, row)?);
        }
        Ok(())
    }

    fn record(&self, endpoint: &Endpoint, row: &Row<'_>) -> Result<(Place, DeliveryRecord), Fault> {
        let text = |column| Ok::<_, Fault>(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?);
        let rejected: bool = row.get(3)?;
        let state = if rejected { DeliveryState::Rejected } else { self.states[0] };
        let log: Option<String> = row.get(10)?;
        let record = DeliveryRecord {
            endpoint: endpoint.clone(),
            user_id: UserId::new(text(5)?).map_err(|_| UNREADABLE)?,
            webhook_id: row.get(6)?,
            what: record::read_what(text(7)?)?,
            sequence: row.get::<_, i64>(8)?.unsigned_abs(),
            state,
            created_at: Timestamp(row.get(9)?),
            ended_at: row.get::<_, Option<i64>>(2)?.map(Timestamp),
            replayed: row.get(4)?,
            attempts: record::read_attempts(log.as_deref())?,
        };
        Ok(((row.get(0)?, row.get(1)?), record))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{delivery_step, schema};
    use super::*;

    /// How SQLite finds the deliveries that this asks for.
    fn plan(sql: &str) -> String {
        let mut conn = Connection::open_in_memory().unwrap();
        schema::prepare(&mut conn, std::path::Path::new(""), 1).unwrap();
        let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = explain.raw_query().mapped(|row| row.get::<_, String>(3)).map(Result::unwrap).collect::<Vec<_>>();
        rows.join("\n")
    }

    #[test]
    fn a_threads_letters_and_one_letter_are_found_without_a_walk_through_everything_else() {
        let by_thread = |source: &Source| plan(&source.sql(true, true, false));
        for (plan, uses) in [
            (by_thread(&SOURCES[2]), "dead_letters_thread (endpoint=? AND thread=? AND"),
            (plan(delivery_step::ONE), "dead_letters_webhook_id (endpoint=? AND webhook_id=?)"),
        ] {
            assert!(plan.contains(uses), "{uses}\n{plan}");
        }
    }
}
