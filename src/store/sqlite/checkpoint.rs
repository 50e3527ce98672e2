//! Keeps the write-ahead log short without making callers wait for it.
//!
//! A checkpoint in the writer's way costs every waiting caller tens of milliseconds, so a thread of its own copies pages
//! into the database while the writer goes on. But the log can only start over at a moment when all of it has been
//! copied, and under load that moment never comes by itself: once the log has grown far enough, the thread copies until
//! little is left, and the writer copies that little between two transactions.
//!
//! SQLite syncs the database only when a checkpoint has reached the log's end, and that is the writer's: it would have to wait
//! until all that the thread has copied is on the disk. So the thread syncs what it copies.

use rusqlite::Connection;
use std::{
    cell::Cell,
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Pages by which the log grows until the copying thread is woken: 8 MiB. The longer, the more often a page was written again
/// meanwhile, and is copied once; but the longer, too, the disk is busy with it at a time.
const COPY_EVERY: u32 = 2048;

/// Fewer pages are copied too once so much time has passed: where threads are all over a large database, each page is a
/// place of its own on the disk, and what is synced at once keeps the writer's own syncs waiting.
const COPY_AFTER: Duration = Duration::from_millis(50);

/// Pages for which that is worth it.
const COPY_AT_LEAST: u32 = 16;

/// Pages in the log from which on it is to start over: 32 MiB. The longer, the fewer callers meet the writer's share of it;
/// the longer, too, the log to be read after a crash.
const RESTART_AT: u32 = 8192;

/// Pages in the log at which the writer copies whatever is left, however long it takes: 128 MiB.
const RESTART_BY_FORCE_AT: u32 = 32_768;

/// So many pages are little.
const LITTLE: i64 = 128;

/// Passes in a row by which the thread tries to get that far.
const PASSES: u32 = 4;

thread_local! {
    /// Pages in the log after the last commit of this thread; SQLite tells it by a plain function.
    static PAGES: Cell<u32> = const { Cell::new(0) };
}

/// The writer's side of it.
pub(super) struct Checkpoints {
    wake: SyncSender<()>,
    /// The thread has just copied all but little of a long log.
    ready: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    /// Pages in the log when the thread was woken last, and when that was.
    copied: (u32, Instant),
    next_force: u32,
}

impl Checkpoints {
    /// Starts the copying thread, with a connection of its own.
    ///
    /// `database` must stay open until all connections are closed: with it, the system lets go of the process's locks on the file.
    pub(super) fn start(conn: Connection, database: Arc<File>) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let ready = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&ready);
        let thread = std::thread::Builder::new().name("store-checkpoint".into()).spawn(move || {
            while woken.recv().is_ok() {
                match copy(&conn, &database) {
                    Ok(long) => tell.store(long, Ordering::Release),
                    Err(error) => tracing::warn!(%error, "a checkpoint failed"),
                }
            }
        })?;
        Ok(Self { wake, ready, thread, copied: (0, Instant::now()), next_force: RESTART_BY_FORCE_AT })
    }

    /// Called before the connection's first transaction.
    pub(super) fn watch(conn: &Connection) {
        conn.wal_hook(Some(|_, pages| {
            PAGES.set(pages.unsigned_abs());
            Ok(())
        }));
    }

    /// Called on the writer's thread between transactions.
    pub(super) fn after_commit(&mut self, conn: &Connection) {
        let pages = PAGES.get();
        let (before, since) = self.copied;
        let Some(grown) = pages.checked_sub(before) else {
            // It has started over.
            self.copied = (0, since);
            self.next_force = RESTART_BY_FORCE_AT;
            return;
        };
        let force = pages >= self.next_force;
        if force {
            self.next_force = pages.saturating_add(RESTART_AT);
        }
        if self.ready.swap(false, Ordering::Acquire) || force {
            // If all is copied, the next transaction starts the log over, unless a reader is still in it: then the next
            // round will. Should it fail, the thread meets the same fault and logs it.
            let _ = passive(conn);
        }
        if grown >= COPY_EVERY || (grown >= COPY_AT_LEAST && since.elapsed() >= COPY_AFTER) {
            self.copied = (pages, Instant::now());
            // Full: it is about to copy anyway. Gone: the log is started over by force.
            let _ = self.wake.try_send(());
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

/// Copies and syncs, if the log is long until little is left; says whether it is long.
fn copy(conn: &Connection, database: &File) -> rusqlite::Result<bool> {
    for _ in 0..PASSES {
        let (pages, left) = passive(conn)?;
        // Only so that little is left to sync: whether it is on the disk is for SQLite to see to.
        let _ = database.sync_data();
        if pages < i64::from(RESTART_AT) {
            return Ok(false);
        }
        if left <= LITTLE {
            break;
        }
    }
    Ok(true)
}

/// Copies what can be copied without waiting for anybody; says how many pages the log has, and how many are left.
fn passive(conn: &Connection) -> rusqlite::Result<(i64, i64)> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (pages, copied): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok((pages, pages - copied))
    })
}
