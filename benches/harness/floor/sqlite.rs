//! Three rows for a message in SQLite, and one more while its webhook waits; committed in groups.

use super::{BATCH, SNAPSHOT, Said, Step, hook::Courier};
use rusqlite::Connection;
use std::{collections::HashMap, path::Path};
use tokio::sync::{mpsc, oneshot};

/// Takes all that waits, one transaction, one sync, answers all.
pub(super) fn keep(dir: &str, mut steps: mpsc::Receiver<Step>, courier: Option<Courier>) {
    let conn = Connection::open(Path::new(dir).join("floor.db")).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8192;
         CREATE TABLE threads (id INTEGER PRIMARY KEY, snapshot BLOB NOT NULL);
         CREATE TABLE log (id INTEGER PRIMARY KEY, body INTEGER NOT NULL);
         CREATE TABLE bodies (id INTEGER PRIMARY KEY, entry TEXT NOT NULL);
         CREATE TABLE outbox (id INTEGER PRIMARY KEY, thread INTEGER NOT NULL, sequence INTEGER NOT NULL);",
    )
    .unwrap();
    let mut kept = Kept { conn, threads: HashMap::new(), courier };
    let mut batch = Vec::new();
    while steps.blocking_recv_many(&mut batch, BATCH) > 0 {
        kept.commit(&mut batch);
    }
}

struct Kept {
    conn: Connection,
    /// The number of each user's thread, and its last sequence.
    threads: HashMap<String, (i64, u64)>,
    courier: Option<Courier>,
}

/// Who waits, with the sequence to answer; and the webhook's number and body.
type Due = (oneshot::Sender<u64>, u64, i64, String);

impl Kept {
    fn commit(&mut self, steps: &mut Vec<Step>) {
        self.sql("BEGIN IMMEDIATE").execute([]).unwrap();
        let mut due = Vec::with_capacity(steps.len());
        for step in steps.drain(..) {
            match step {
                Step::Said(said) => due.push(self.say(said)),
                Step::Received(number) => {
                    self.sql("DELETE FROM outbox WHERE id = ?1").execute([number]).unwrap();
                }
            }
        }
        self.sql("COMMIT").execute([]).unwrap();
        for (caller, sequence, number, body) in due {
            let _ = caller.send(sequence);
            if let Some(courier) = &self.courier {
                let _ = courier.send((number, body));
            }
        }
    }

    fn say(&mut self, said: Said) -> Due {
        let next = i64::try_from(self.threads.len()).unwrap() + 1;
        let (thread, sequence) = self.threads.entry(said.user).or_insert((next, 0));
        *sequence += 1;
        let (thread, sequence) = (*thread, *sequence);
        let place = i64::try_from(sequence).unwrap();
        let body = self.sql("INSERT INTO bodies (entry) VALUES (?1)").insert([&said.body]).unwrap();
        let key = (thread << 32) | place;
        self.sql("INSERT INTO log (id, body) VALUES (?1, ?2)").execute((key, body)).unwrap();
        self.sql("INSERT OR REPLACE INTO threads (id, snapshot) VALUES (?1, ?2)").execute((thread, SNAPSHOT)).unwrap();
        if self.courier.is_some() {
            let insert = "INSERT INTO outbox (id, thread, sequence) VALUES (?1, ?2, ?3)";
            self.sql(insert).execute((body, thread, place)).unwrap();
        }
        (said.caller, sequence, body, said.body)
    }

    fn sql(&self, sql: &str) -> rusqlite::CachedStatement<'_> {
        self.conn.prepare_cached(sql).unwrap()
    }
}
