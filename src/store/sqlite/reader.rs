//! Threads that read, each with a connection of its own: no reader waits for the writer, and no actor for a disk.

use super::{fault::Fault, writer::ANSWER_WITHIN};
use rusqlite::Connection;
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;
use tract_actors::ports::StoreError;

/// Queries that may wait; past it there is trouble with the disk.
const QUEUE: usize = 8192;

type Query = Box<dyn FnOnce(&Connection) + Send>;

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

#[derive(Default)]
struct Waiting {
    queries: VecDeque<Query>,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, conn: &Connection) {
        let mut waiting = self.lock();
        loop {
            if let Some(query) = waiting.queries.pop_front() {
                drop(waiting);
                query(conn);
                waiting = self.lock();
            } else if waiting.closed {
                return;
            } else {
                waiting = self.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// The handle to a group of them.
pub(super) struct Readers(Arc<Queue>);

impl Readers {
    /// Starts one thread for each connection.
    pub(super) fn start(name: &str, connections: Vec<Connection>) -> std::io::Result<Self> {
        let readers = Self(Arc::default());
        for conn in connections {
            let queue = Arc::clone(&readers.0);
            std::thread::Builder::new().name(name.into()).spawn(move || queue.serve(&conn))?;
        }
        Ok(readers)
    }

    /// Asks the database.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (caller, answer) = oneshot::channel();
        let query: Query = Box::new(move |conn| {
            if !caller.is_closed() {
                let _ = caller.send(query(conn).map_err(|fault| fault.told()));
            }
        });
        {
            let mut waiting = self.0.lock();
            if waiting.closed {
                return Err(StoreError::Unavailable("the store is closed".into()));
            }
            if waiting.queries.len() >= QUEUE {
                return Err(StoreError::Unavailable("too many reads are waiting".into()));
            }
            waiting.queries.push_back(query);
        }
        self.0.ready.notify_one();
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Unavailable("the store is closed".into())),
            Err(_) => Err(StoreError::Unavailable("the store did not answer in time".into())),
        }
    }

    /// The threads answer what waits, and end.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.0.ready.notify_all();
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.close();
    }
}
