//! The steps of deliveries: what became of them, dead letters, and sending those again.

use super::{
    batch::{Batch, int},
    fault::Fault,
    writer::Step,
};
use crate::store::record;
use rusqlite::{OptionalExtension, Row};
use tract_actors::ports::{
    AttemptRecord, Buried, Delivery, End, Endpoint, OutboxChange, OutboxUpdate, Replay, Replayed, What,
};
use tract_domain::{Timestamp, UserId};

/// What became of deliveries. Those that are gone meanwhile are left alone, so that each change counts once.
pub(super) struct UpdateOutbox(pub(super) Vec<OutboxUpdate>);

impl Step for UpdateOutbox {
    type Outcome = ();

    fn apply(&self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        for OutboxUpdate { endpoint, id, change, .. } in &self.0 {
            let Some(endpoint) = batch.known(endpoint) else { continue };
            match change {
                OutboxChange::Void => batch.remove(endpoint, *id)?,
                OutboxChange::Over { end, attempt, of } => over(batch, endpoint, *id, *end, attempt, *of)?,
                OutboxChange::Retry { attempts, first_attempt_at, due_at, attempt, of } => {
                    retry(batch, endpoint, *id, (*attempts, *first_attempt_at, *due_at), attempt, *of)?;
                }
            }
        }
        Ok(())
    }
}

/// A delivery is over, or one message of its range is.
fn over(
    batch: &mut Batch<'_>,
    endpoint: i64,
    id: u64,
    end: End,
    attempt: &AttemptRecord,
    of: Option<u64>,
) -> Result<(), Fault> {
    const SELECT: &str = "SELECT what, log FROM outbox WHERE endpoint = ?1 AND id = ?2";
    let found = batch
        .sql(SELECT)?
        .query_row((endpoint, int(id)), |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)));
    let Some((what, log)) = found.optional()? else { return Ok(()) };
    let log = record::add_attempt(log.as_deref(), attempt)?;
    let row = (endpoint, id);
    match (of, record::read_what(&what)?) {
        (Some(of), What::History { after, .. }) if of <= after => return Ok(()),
        (Some(of), What::History { through, .. }) => {
            let entry = record::write_what(&What::Entry)?;
            note_end(batch, row, end, attempt, &log, Some((of, &entry)))?;
            let rest = record::write_what(&What::History { after: of, through })?;
            // Each message of a range is tried on its own: the next starts afresh.
            const ADVANCE: &str = "UPDATE outbox SET what = ?3, attempts = 0, first_attempt_at = NULL, log = NULL \
                WHERE endpoint = ?1 AND id = ?2";
            batch.sql(ADVANCE)?.execute((endpoint, int(id), rest))?;
        }
        _ => {
            note_end(batch, row, end, attempt, &log, None)?;
            batch.remove(endpoint, id)?;
        }
    }
    Ok(())
}

/// Keeps how a delivery ended, or one message of its range.
fn note_end(
    batch: &mut Batch<'_>,
    (endpoint, id): (i64, u64),
    end: End,
    attempt: &AttemptRecord,
    log: &str,
    of: Option<(u64, &str)>,
) -> Result<(), Fault> {
    const RECEIVED: &str = "INSERT INTO received (endpoint, id, of, thread, webhook_id, what, sequence, created_at, \
        ended_at, rejected, replayed, log) SELECT endpoint, id, coalesce(?3, 0), thread, \
        CASE WHEN ?3 IS NULL THEN webhook_id ELSE webhook_id || '-' || ?3 END, coalesce(?4, what), \
        coalesce(?3, sequence), created_at, ?5, ?6, replayed, ?7 FROM outbox WHERE endpoint = ?1 AND id = ?2";
    const DEAD: &str = "INSERT INTO dead_letters (endpoint, id, of, thread, webhook_id, what, sequence, created_at, \
        died_at, log) SELECT endpoint, id, coalesce(?3, 0), thread, \
        CASE WHEN ?3 IS NULL THEN webhook_id ELSE webhook_id || '-' || ?3 END, coalesce(?4, what), \
        coalesce(?3, sequence), created_at, ?5, ?6 FROM outbox WHERE endpoint = ?1 AND id = ?2";
    let ended_at = attempt.ended_at();
    let (of, what) = (of.map(|(of, _)| int(of)), of.map(|(_, what)| what));
    if end == End::Dead {
        batch.sql(DEAD)?.execute((endpoint, int(id), of, what, ended_at.0, log))?;
    } else {
        batch.sql(RECEIVED)?.execute((endpoint, int(id), of, what, ended_at.0, end == End::Rejected, log))?;
    }
    let fare = batch.fare(endpoint);
    if end == End::Dead {
        fare.dead += 1;
    } else {
        fare.received += 1;
        fare.last_success_at = fare.last_success_at.max(Some(ended_at));
    }
    if end != End::Delivered {
        fare.last_error = attempt.error.clone().or(fare.last_error.take());
    }
    Ok(())
}

fn retry(
    batch: &mut Batch<'_>,
    endpoint: i64,
    id: u64,
    (attempts, first_attempt_at, due_at): (u32, Timestamp, Timestamp),
    attempt: &AttemptRecord,
    of: Option<u64>,
) -> Result<(), Fault> {
    // A schedule that began afresh counts from one again, but from another first attempt.
    const SELECT: &str = "SELECT log, first_attempt_at IS ?3 AND attempts >= ?4, what FROM outbox \
        WHERE endpoint = ?1 AND id = ?2";
    const RETRY: &str = "UPDATE outbox SET attempts = ?3, first_attempt_at = ?4, due_at = ?5, log = ?6 \
        WHERE endpoint = ?1 AND id = ?2";
    let found = batch.sql(SELECT)?.query_row((endpoint, int(id), first_attempt_at.0, attempts), |row| {
        Ok((row.get::<_, Option<String>>(0)?, row.get::<_, bool>(1)?, row.get::<_, String>(2)?))
    });
    let Some((log, false, what)) = found.optional()? else { return Ok(()) };
    if let (Some(of), What::History { after, .. }) = (of, record::read_what(&what)?)
        && of <= after
    {
        return Ok(());
    }
    let log = record::add_attempt(log.as_deref(), attempt)?;
    batch.sql(RETRY)?.execute((endpoint, int(id), attempts, first_attempt_at.0, due_at.0, log))?;
    batch.fare(endpoint).last_error.clone_from(&attempt.error);
    Ok(())
}

/// Makes dead letters of the oldest of what waits for an endpoint.
pub(super) struct Bury {
    pub(super) endpoint: Endpoint,
    pub(super) before: Timestamp,
    pub(super) limit: usize,
    pub(super) now: Timestamp,
}

impl Step for Bury {
    type Outcome = Buried;

    fn apply(&self, batch: &mut Batch<'_>) -> Result<Buried, Fault> {
        // Ids are given out in the order of creation, so the first that is too young ends it.
        const OLDEST: &str = "SELECT id, created_at FROM outbox WHERE endpoint = ?1 ORDER BY id LIMIT ?2";
        const BURY: &str = "INSERT INTO dead_letters (endpoint, id, of, thread, webhook_id, what, sequence, created_at, \
            died_at, log) SELECT endpoint, id, 0, thread, webhook_id, what, sequence, created_at, ?3, log \
            FROM outbox WHERE endpoint = ?1 AND id <= ?2";
        const REMOVE: &str = "DELETE FROM outbox WHERE endpoint = ?1 AND id <= ?2";
        let Some(endpoint) = batch.known(&self.endpoint) else { return Ok(Buried::default()) };
        let (mut last, mut count, mut oldest) = (None, 0_i64, None);
        {
            let mut select = batch.sql(OLDEST)?;
            let mut rows = select.query((endpoint, int(self.limit as u64).saturating_add(1)))?;
            while let Some(row) = rows.next()? {
                let created_at = Timestamp(row.get(1)?);
                if created_at > self.before || count == int(self.limit as u64) {
                    oldest = Some(created_at);
                    break;
                }
                last = Some(row.get::<_, i64>(0)?);
                count += 1;
            }
        }
        if let Some(last) = last {
            batch.sql(BURY)?.execute((endpoint, last, self.now.0))?;
            batch.sql(REMOVE)?.execute((endpoint, last))?;
            let fare = batch.fare(endpoint);
            fare.pending -= count;
            fare.dead += count;
        }
        Ok(Buried { count: count.unsigned_abs(), oldest })
    }
}

/// Sends dead letters again.
pub(super) struct SendAgain(pub(super) Replay);

/// A dead letter with where it is.
struct Letter {
    id: i64,
    of: i64,
    thread: i64,
    delivery: Delivery,
    log: Option<String>,
}

impl Step for SendAgain {
    type Outcome = u64;

    fn apply(&self, batch: &mut Batch<'_>) -> Result<u64, Fault> {
        const REMOVE: &str = "DELETE FROM dead_letters WHERE endpoint = ?1 AND id = ?2 AND of = ?3";
        let mut count = 0;
        for endpoint in &self.0.endpoints {
            let Some(number) = batch.known(endpoint) else { continue };
            let letters = self.letters(batch, endpoint, number, self.0.limit.saturating_sub(count))?;
            count += letters.len();
            let fare = batch.fare(number);
            fare.dead -= i64::try_from(letters.len()).unwrap_or(i64::MAX);
            for Letter { id, of, thread, delivery, log } in letters {
                batch.sql(REMOVE)?.execute((number, id, of))?;
                batch.enqueue_again(number, thread, delivery, log)?;
            }
            if count >= self.0.limit {
                break;
            }
        }
        Ok(count as u64)
    }
}

/// Without being told, SQLite would walk through all dead letters of the endpoint for one.
pub(super) const ONE: &str = "SELECT d.id, d.of, d.thread, t.user_id, d.webhook_id, d.what, d.sequence, d.log \
    FROM dead_letters d INDEXED BY dead_letters_webhook_id JOIN threads t ON t.id = d.thread \
    WHERE d.endpoint = ?1 AND d.webhook_id = ?2 ORDER BY d.id, d.of LIMIT ?3";

impl SendAgain {
    fn letters(&self, batch: &Batch<'_>, endpoint: &Endpoint, number: i64, limit: usize) -> Result<Vec<Letter>, Fault> {
        const SINCE: &str = "SELECT d.id, d.of, d.thread, t.user_id, d.webhook_id, d.what, d.sequence, d.log \
            FROM dead_letters d INDEXED BY dead_letters_since JOIN threads t ON t.id = d.thread \
            WHERE d.endpoint = ?1 AND d.died_at >= ?2 ORDER BY d.died_at, d.id, d.of LIMIT ?3";
        let limit = int(limit as u64);
        let mut select = batch.sql(if matches!(self.0.which, Replayed::One(_)) { ONE } else { SINCE })?;
        let mut rows = match &self.0.which {
            Replayed::One(webhook_id) => select.query((number, webhook_id, limit))?,
            Replayed::Since(at) => select.query((number, at.0, limit))?,
        };
        let mut letters = Vec::new();
        while let Some(row) = rows.next()? {
            letters.push(self.letter(endpoint, row)?);
        }
        Ok(letters)
    }

    fn letter(&self, endpoint: &Endpoint, row: &Row<'_>) -> Result<Letter, Fault> {
        let user_id: String = row.get(3)?;
        let delivery = Delivery {
            id: 0,
            strand: 0,
            behind: 0,
            endpoint: endpoint.clone(),
            user_id: UserId::new(&user_id).map_err(|_| Fault::Refused("an identifier is not one"))?,
            webhook_id: row.get(4)?,
            what: record::read_what(&row.get::<_, String>(5)?)?,
            sequence: row.get::<_, i64>(6)?.unsigned_abs(),
            // A hand-off that nobody answered has moved on long ago.
            answers_handoff: None,
            created_at: self.0.now,
            attempts: 0,
            first_attempt_at: None,
            due_at: self.0.now,
            replayed: true,
            entry: None,
        };
        Ok(Letter { id: row.get(0)?, of: row.get(1)?, thread: row.get(2)?, delivery, log: row.get(7)? })
    }
}

/// Forgets some of the dead letters from before this; returns how many.
pub(super) fn forget_dead_letters(batch: &mut Batch<'_>, until: Timestamp, most: i64) -> Result<usize, Fault> {
    const OLD: &str = "SELECT endpoint, id, of FROM dead_letters WHERE died_at < ?1 ORDER BY died_at LIMIT ?2";
    const FORGET: &str = "DELETE FROM dead_letters WHERE endpoint = ?1 AND id = ?2 AND of = ?3";
    let old: Vec<(i64, i64, i64)> = {
        let mut select = batch.sql(OLD)?;
        let rows = select.query_map((until.0, most), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect::<Result<_, _>>()?
    };
    for (endpoint, id, of) in &old {
        batch.sql(FORGET)?.execute((endpoint, id, of))?;
        batch.fare(*endpoint).dead -= 1;
    }
    Ok(old.len())
}
