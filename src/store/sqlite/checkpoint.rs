//! Keeps the write-ahead log short without making callers wait for it.
//!
//! A checkpoint in the writer's way costs every waiting caller tens of milliseconds, so a thread of its own copies pages
//! into the database while the writer goes on. But the log can only start over at a moment when all of it has been
//! copied, and under load that moment never comes by itself: when the log has grown far enough, the writer copies the
//! little that is left, between two transactions.

use rusqlite::Connection;
use std::{
    cell::Cell,
    sync::mpsc::{SyncSender, sync_channel},
    thread::JoinHandle,
};

/// Pages by which the log grows until the copying thread is woken: 4 MiB.
const COPY_EVERY: u32 = 1024;

/// Pages in the log at which the writer sees to it that the log starts over: 16 MiB.
const RESTART_AT: u32 = 4096;

/// Pages between two tries of that, should a slow reader or the copying thread be in the way.
const RETRY_EVERY: u32 = 512;

thread_local! {
    /// Pages in the log after the last commit of this thread; SQLite tells it by a plain function.
    static PAGES: Cell<u32> = const { Cell::new(0) };
}

/// The writer's side of it.
pub(super) struct Checkpoints {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    next_copy: u32,
    next_try: u32,
}

impl Checkpoints {
    /// Starts the copying thread, with a connection of its own.
    pub(super) fn start(conn: Connection) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new().name("store-checkpoint".into()).spawn(move || {
            while woken.recv().is_ok() {
                if let Err(error) = passive(&conn) {
                    tracing::warn!(%error, "a checkpoint failed");
                }
            }
        })?;
        Ok(Self { wake, thread, next_copy: COPY_EVERY, next_try: RESTART_AT })
    }

    /// Called on the writer's thread before its first transaction.
    pub(super) fn watch(conn: &Connection) {
        conn.wal_hook(Some(|_, pages| {
            PAGES.set(pages.unsigned_abs());
            Ok(())
        }));
    }

    /// Called on the writer's thread between transactions.
    pub(super) fn after_commit(&mut self, conn: &Connection) {
        let pages = PAGES.get();
        if pages < COPY_EVERY {
            (self.next_copy, self.next_try) = (COPY_EVERY, RESTART_AT);
            return;
        }
        if pages >= self.next_copy {
            self.next_copy = pages.saturating_add(COPY_EVERY);
            // Full: it is about to copy anyway. Gone: the writer does all of it below.
            let _ = self.wake.try_send(());
        }
        if pages >= self.next_try {
            self.next_try = match passive(conn) {
                Ok(true) => RESTART_AT,
                Ok(false) | Err(_) => pages.saturating_add(RETRY_EVERY),
            };
        }
    }

    /// The last one: leaves an empty log behind.
    pub(super) fn end(self, conn: &Connection) {
        drop(self.wake);
        let _ = self.thread.join();
        let truncated = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = truncated {
            tracing::warn!(%error, "the last checkpoint failed; the log stays, and is read at the next start");
        }
    }
}

/// Copies what can be copied without waiting for anybody; says whether that was all.
fn passive(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (busy, log, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && log == copied)
    })
}
