//! The embedded store: one SQLite file in a directory of its own, written by one thread, read by others.
//!
//! What it promises: an answer is given after the transaction was synced to disk (`synchronous=FULL`), so that it survives
//! `kill -9` and power loss. The file can be read with ordinary tools while it is in use.

mod batch;
mod bytes;
mod checkpoint;
mod delivery_query;
mod delivery_step;
mod fault;
mod files;
mod known;
mod migrate;
mod migrate_read;
mod other_steps;
mod query;
mod reader;
mod retention;
mod schema;
mod thread_step;
mod writer;

pub(super) use migrate::SqliteSide;

use self::{
    batch::Memory,
    bytes::Bytes,
    checkpoint::Checkpoints,
    delivery_step::{Bury, SendAgain, UpdateOutbox},
    fault::Fault,
    known::KnownThreads,
    other_steps::{ForgetExpired, Keep, KeepEctUserId, MaxPages, Ping, RememberRequest, WriteDocuments, WriteUser},
    reader::Readers,
    thread_step::CommitThread,
    writer::Writer,
};
use crate::store::handle::{Handles, MAX_PARTITIONS};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tract_actors::ports::{
    Buried, Commit, Committed, Delivery, DeliveryPage, DeliveryQuery, DocumentWrite, Documents, Durability, Endpoint,
    EndpointStatus, IdempotencyKey, Kept, Leases, Outbox, OutboxSink, OutboxUpdate, Part, Replay, Store, StoreError,
    StoredEntry, StoredThread, StoredUser, ThreadPage, ThreadQuery, UserWrite, Written,
};
use tract_domain::{BusinessId, ClientId, Json, ReceiverId, State, Timestamp, UserId};
use uuid::Uuid;

/// The database within the directory.
const FILE: &str = "tract.db";

/// The file whose lock says that the directory is in use.
const LOCK: &str = "lock";

/// Threads for short reads: as many as there are cores to serve on a small machine.
const POINT_READERS: usize = 2;

/// Of how many threads it is remembered what was read, until a commit takes it along.
const READ_LAST: usize = 1024;

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct SqliteOptions {
    /// Into how many partitions threads are divided: 1 to 1024, fixed when the store is created.
    pub partitions: u16,
    /// The largest size in pages, for tests of a full disk.
    #[doc(hidden)]
    pub max_pages: Option<u32>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { partitions: 256, max_pages: None }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be used.
    #[error("cannot use the store directory {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("the store directory {path} is in use by another process")]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// No store can have so many partitions.
    #[error("a store has 1 to {MAX_PARTITIONS} partitions, not {0}")]
    PartitionCount(u16),
    /// It was created with another number of partitions, and that is fixed.
    #[error("the store {path} was created with {stored} partitions, not {asked}")]
    Partitions {
        /// Which.
        path: PathBuf,
        /// How many it has.
        stored: u16,
        /// How many were asked for.
        asked: u16,
    },
    /// A newer version of this program wrote it.
    #[error("the store {path} has schema version {found}; this program knows versions up to {known}")]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// What this program knows.
        known: usize,
    },
    /// It is some other program's database.
    #[error("{path} is not a TRACT store")]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// A migration into it was begun and not finished.
    #[error("the store {path} is half of a migration; run `tract migrate` again to finish it")]
    Unfinished {
        /// Which.
        path: PathBuf,
    },
    /// The database cannot be opened or read.
    #[error("cannot open the store {path}: {source}")]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The system gives no randomness for the store's key.
    #[error("the system gives no randomness: {0}")]
    Random(String),
    /// Its threads cannot be started.
    #[error("cannot start the store's threads: {0}")]
    Threads(io::Error),
}

/// The embedded store. See the module's documentation.
pub struct SqliteStore {
    handles: Handles,
    bytes: Bytes,
    writer: Writer,
    points: Readers,
    scans: Readers,
    /// What was read of threads, until a commit takes it along: a thread that is read is mostly about to change, and the writer
    /// then need not look for it.
    read_last: Mutex<KnownThreads>,
    /// Closed last: see [`Checkpoints::start`].
    _database: Arc<File>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the store in this directory; makes both if they do not exist. Blocks for milliseconds.
    pub fn open(directory: &Path, options: SqliteOptions) -> Result<Arc<Self>, OpenError> {
        if !(1..=MAX_PARTITIONS).contains(&options.partitions) {
            return Err(OpenError::PartitionCount(options.partitions));
        }
        let lock = occupy(directory)?;
        let file = directory.join(FILE);
        let fault = |source| OpenError::Database { path: file.clone(), source };
        let mut conn = schema::connect(&file).map_err(fault)?;
        let key = schema::prepare(&mut conn, &file, options.partitions)?;
        schema::settle(&conn).map_err(fault)?;
        if let Some(pages) = options.max_pages {
            conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).map_err(fault)?;
        }
        let memory = Memory::load(&conn).map_err(|e| match e {
            Fault::Sql(source) => fault(source),
            Fault::Record(_) | Fault::Refused(_) => OpenError::Foreign { path: file.clone() },
        })?;
        Checkpoints::watch(&conn);
        let reading = || schema::reading(&file).map_err(fault);
        let points = (0..POINT_READERS).map(|_| reading()).collect::<Result<_, _>>()?;
        let points = Readers::start("store-reader", points).map_err(OpenError::Threads)?;
        let scans = Readers::start("store-scanner", vec![reading()?]).map_err(OpenError::Threads)?;
        let copying = schema::connect(&file).and_then(|conn| schema::settle(&conn).map(|()| conn)).map_err(fault)?;
        let database = File::open(&file).map_err(|source| OpenError::Directory { path: file.clone(), source })?;
        let database = Arc::new(database);
        let checkpoints = Checkpoints::start(copying, Arc::clone(&database)).map_err(OpenError::Threads)?;
        let writer = Writer::start(conn, memory, checkpoints, lock).map_err(OpenError::Threads)?;
        Ok(Arc::new(Self {
            handles: Handles::new(&key, options.partitions),
            bytes: Bytes::beside(directory),
            writer,
            points,
            scans,
            read_last: Mutex::new(KnownThreads::at_most(READ_LAST)),
            _database: database,
        }))
    }

    fn read_last(&self) -> MutexGuard<'_, KnownThreads> {
        self.read_last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bounds the size in pages from now on, for tests of a full disk.
    #[doc(hidden)]
    pub async fn set_max_pages(&self, pages: u32) -> Result<(), StoreError> {
        self.writer.ask(MaxPages(pages)).await
    }
}

/// Makes the directory if need be and locks it; the lock goes with the file.
fn occupy(directory: &Path) -> Result<File, OpenError> {
    let fault = |source| OpenError::Directory { path: directory.to_owned(), source };
    let new = !directory.exists();
    std::fs::create_dir_all(directory).map_err(fault)?;
    if new && let Some(parent) = directory.canonicalize().map_err(fault)?.parent() {
        // A store that is lost with its directory's name is lost. Not every system can sync a directory.
        let _ = File::open(parent).and_then(|parent| parent.sync_all());
    }
    let lock = File::options().create(true).truncate(false).write(true).open(directory.join(LOCK)).map_err(fault)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(fault(source)),
    }
}

fn unwritable(error: crate::store::record::RecordError) -> StoreError {
    Fault::Record(error).told()
}

#[async_trait]
impl Store for SqliteStore {
    fn user_id(&self, client: &ClientId, business: BusinessId, auth_id: &str) -> UserId {
        self.handles.user_id(client, business, auth_id)
    }

    async fn thread(&self, user_id: &UserId) -> Result<Option<StoredThread>, StoreError> {
        if self.handles.partition(user_id).is_none() {
            return Ok(None);
        }
        let asked = user_id.clone();
        let read = self.points.ask(move |conn| query::thread(conn, &asked)).await?;
        Ok(read.map(|(thread, known)| {
            self.read_last().put(user_id.clone(), known);
            thread
        }))
    }

    async fn version(&self, user_id: &UserId) -> Result<Option<(u64, Option<Uuid>)>, StoreError> {
        Ok(self.thread(user_id).await?.map(|thread| (thread.version, thread.commit_id)))
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let Some(partition) = self.handles.partition(&commit.user_id) else { return Ok(Committed::Conflict) };
        let read = self.read_last().take(&commit.user_id);
        self.writer.ask(CommitThread::new(commit, partition, read).map_err(unwritable)?).await
    }

    async fn feed(&self, user_id: &UserId, after: u64, limit: usize) -> Result<Vec<StoredEntry>, StoreError> {
        let user_id = user_id.clone();
        self.points.ask(move |conn| query::feed(conn, &user_id, after, limit)).await
    }

    async fn threads(&self, query: ThreadQuery) -> Result<ThreadPage, StoreError> {
        self.scans.ask(move |conn| query::threads(conn, &query)).await
    }

    async fn states(&self) -> Result<BTreeMap<State, u64>, StoreError> {
        self.scans.ask(query::states).await
    }

    async fn count_threads(
        &self,
        client: Option<&ClientId>,
        business: Option<BusinessId>,
        active: Option<&ReceiverId>,
    ) -> Result<u64, StoreError> {
        let (client, active) = (client.cloned(), active.cloned());
        self.scans.ask(move |conn| query::count_threads(conn, client.as_ref(), business, active.as_ref())).await
    }

    async fn due(&self, strands: &[u16], now: Timestamp, limit: usize) -> Result<Vec<UserId>, StoreError> {
        if strands.is_empty() {
            return Ok(Vec::new());
        }
        self.points.ask(move |conn| query::due(conn, now, limit)).await
    }

    async fn next_due(&self, strands: &[u16]) -> Result<Option<Timestamp>, StoreError> {
        if strands.is_empty() {
            return Ok(None);
        }
        self.points.ask(query::next_due).await
    }

    async fn kept(&self, key: &IdempotencyKey, now: Timestamp) -> Result<Option<Kept>, StoreError> {
        let key = key.key;
        self.points.ask(move |conn| query::kept(conn, &key, now)).await
    }

    async fn remember_request(&self, key: [u8; 32], until: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        self.writer.ask(RememberRequest { key, until, now }).await
    }

    async fn keep(&self, key: IdempotencyKey, body: Json, now: Timestamp) -> Result<(), StoreError> {
        self.writer.ask(Keep { key, body, now }).await
    }

    async fn forget_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        loop {
            let gone = self.writer.ask(ForgetExpired(now)).await?;
            forgotten += gone;
            if gone < ForgetExpired::MOST {
                return Ok(forgotten);
            }
        }
    }

    async fn user(&self, client: &ClientId, auth_id: &str) -> Result<Option<StoredUser>, StoreError> {
        let (client, auth_id) = (client.clone(), auth_id.to_owned());
        self.points.ask(move |conn| query::user(conn, &client, &auth_id)).await
    }

    async fn write_user(&self, write: UserWrite) -> Result<Written, StoreError> {
        let opened = write.open.as_ref().map(|open| self.user_id(&write.client, open.business, &write.auth_id));
        let home = self.handles.home(&write.client, &write.auth_id);
        self.writer.ask(WriteUser::new(write, opened, home).map_err(unwritable)?).await
    }

    async fn keep_ect_user_id(
        &self,
        client: &ClientId,
        auth_id: &str,
        ect: &ReceiverId,
        ect_user_id: &str,
    ) -> Result<(), StoreError> {
        let (client, auth_id) = (client.clone(), auth_id.into());
        let (ect, ect_user_id) = (ect.clone(), ect_user_id.to_owned());
        self.writer.ask(KeepEctUserId { client, auth_id, ect, ect_user_id }).await
    }

    async fn revision(&self) -> Result<(u64, Option<Uuid>), StoreError> {
        Ok((self.points.ask(query::revision).await?, None))
    }

    async fn documents(&self) -> Result<Documents, StoreError> {
        self.points.ask(query::documents).await
    }

    async fn write_documents(&self, write: DocumentWrite) -> Result<Written, StoreError> {
        self.writer.ask(WriteDocuments(write)).await
    }

    fn durability(&self) -> Durability {
        let says = "what is acknowledged survives a power cut (SQLite with synchronous=FULL)".to_owned();
        Durability { survives_power_cut: true, says }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.writer.ask(Ping).await
    }

    async fn close(&self) {
        self.points.close();
        self.scans.close();
        self.writer.close().await;
    }
}

// One process at a time has it open: all strands are this one's.
impl Leases for SqliteStore {}

#[async_trait]
impl Outbox for SqliteStore {
    fn subscribe(&self, sink: Arc<dyn OutboxSink>) {
        self.writer.subscribe(sink);
    }

    async fn endpoints(&self) -> Result<Vec<(Endpoint, EndpointStatus)>, StoreError> {
        self.scans.ask(delivery_query::endpoints).await
    }

    async fn endpoint_status(&self, endpoint: &Endpoint) -> Result<EndpointStatus, StoreError> {
        let endpoint = endpoint.clone();
        self.points.ask(move |conn| delivery_query::endpoint_status(conn, &endpoint)).await
    }

    async fn outbox(&self, endpoint: &Endpoint, parts: &[Part]) -> Result<Vec<Vec<Delivery>>, StoreError> {
        let (endpoint, parts) = (endpoint.clone(), parts.to_vec());
        let read = move |conn: &rusqlite::Connection| {
            // Everything is in strand 0.
            let page = |part: &Part| match part.strand {
                0 => delivery_query::outbox(conn, &endpoint, part.after, part.limit),
                _ => Ok(Vec::new()),
            };
            parts.iter().map(page).collect()
        };
        self.points.ask(read).await
    }

    async fn outbox_by_id(&self, endpoint: &Endpoint, ids: &[u64]) -> Result<Vec<Delivery>, StoreError> {
        let (endpoint, ids) = (endpoint.clone(), ids.to_vec());
        self.points.ask(move |conn| delivery_query::outbox_by_id(conn, &endpoint, &ids)).await
    }

    async fn update_outbox(&self, updates: Vec<OutboxUpdate>) -> Result<(), StoreError> {
        if updates.is_empty() {
            return Ok(());
        }
        self.writer.ask(UpdateOutbox(updates)).await
    }

    async fn bury(
        &self,
        endpoint: &Endpoint,
        held: &[(u16, u64)],
        before: Timestamp,
        limit: usize,
        now: Timestamp,
    ) -> Result<Buried, StoreError> {
        if held.is_empty() {
            return Ok(Buried::default());
        }
        self.writer.ask(Bury { endpoint: endpoint.clone(), before, limit, now }).await
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        self.scans.ask(move |conn| delivery_query::deliveries(conn, &query)).await
    }

    async fn replay(&self, replay: Replay) -> Result<u64, StoreError> {
        self.writer.ask(SendAgain(replay)).await
    }
}
