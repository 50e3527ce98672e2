//! What the shell needs of the world: a store, a clock, the tenants' configuration, and a way to deliver.
//!
//! Implementations live at the edge; tests bring their own.

mod delivery;
mod files;
mod leases;
mod retention;

pub use delivery::*;
pub use files::*;
pub use leases::*;
pub use retention::*;

use async_trait::async_trait;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;
use tract_domain::{
    BusinessId, ClientId, Entry, Json, Policy, ReceiverId, Reply, State, Thread, Timestamp, Topic, UserId,
};
use uuid::Uuid;

/// Time, so that tests can hold it.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> Timestamp;
    /// Returns once `now()` is at or past that time.
    async fn sleep_until(&self, at: Timestamp);
}

/// The tenants' configuration, as decisions and couriers need it. Reads answer at once, from memory.
#[async_trait]
pub trait Tenants: Send + Sync + 'static {
    /// What decisions on this business's threads depend on; none when the client or business is gone.
    fn policy(&self, client: &ClientId, business: BusinessId) -> Option<Arc<Policy>>;
    /// The endpoint of this receiver's hook, if it registered one for the topic.
    fn hook(&self, client: &ClientId, receiver: &ReceiverId, topic: Topic) -> Option<Endpoint>;
    /// The endpoint of the business's channel webhook, if it has one.
    fn channel(&self, client: &ClientId, business: BusinessId) -> Option<Endpoint>;
    /// The endpoint of the client's IVA, if it has one.
    fn iva(&self, client: &ClientId) -> Option<Endpoint>;
    /// Whether an endpoint is sent to.
    fn standing(&self, endpoint: &Endpoint) -> Standing;
    /// Disables an endpoint, unless it was enabled anew since its standing was [`Standing::Enabled`] with `since`. The
    /// reason is for a person.
    async fn disable(
        &self,
        endpoint: &Endpoint,
        since: Timestamp,
        at: Timestamp,
        reason: &str,
    ) -> Result<(), StoreError>;
    /// Takes over what other nodes have changed until now, without waiting for it to be noticed.
    ///
    /// # Errors
    /// The store does not say; everything is as it was.
    async fn refresh(&self) -> Result<(), StoreError>;
    /// Changes with every change of the configuration, whoever made it.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// What a thread is about; never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadKey {
    /// The public handle.
    pub user_id: UserId,
    /// The client.
    pub client: ClientId,
    /// The business.
    pub business: BusinessId,
    /// The client's own id of the user. Personal: never logged.
    pub auth_id: Arc<str>,
}

/// A thread as it is stored.
#[derive(Debug, Clone)]
pub struct StoredThread {
    /// What it is about.
    pub key: ThreadKey,
    /// One more with each commit; a new thread has 0, or more than any thread had that left its partition.
    pub version: u64,
    /// The commit that made this version; none before the first.
    pub commit_id: Option<Uuid>,
    /// Its state.
    pub thread: Thread,
    /// When the store's timer for it fires.
    pub deadline: Option<Timestamp>,
}

/// An entry with the id that its commit gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Unique in the deployment, increasing within the thread, below 2^53. Every entry has one; only messages and the
    /// channel's own events show theirs.
    pub message_id: u64,
    /// The fact.
    pub entry: Entry,
}

/// One atomic step on one thread.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Names this step for ever: the same step asked for again is the same step.
    pub commit_id: Uuid,
    /// Which thread.
    pub user_id: UserId,
    /// The version that was decided on.
    pub expected_version: u64,
    /// The commit that made it, if one did: a store that lost its last moments in a failover counts up to the same versions
    /// again, with another history.
    pub expected_commit: Option<Uuid>,
    /// The new state.
    pub thread: Arc<Thread>,
    /// New entries, in sequence.
    pub entries: Vec<Entry>,
    /// What is to be delivered, in order.
    pub outbox: Vec<NewDelivery>,
    /// A turn of the IVA that this step settles: its delivery goes in the same step.
    pub settles: Option<Settled>,
    /// What becomes of the thread's timer.
    pub deadline: DeadlineChange,
    /// The user's details as the IVA has set them, an object.
    pub user_details: Option<Json>,
    /// The caller's idempotency key, with the answer to keep.
    pub idempotency: Option<(IdempotencyKey, Reply)>,
    /// The time of the decision.
    pub now: Timestamp,
}

/// A turn of the IVA that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The IVA.
    pub endpoint: Endpoint,
    /// Which delivery.
    pub id: u64,
    /// The epoch of the lease on its strand that it was sent under.
    pub epoch: u64,
}

/// What becomes of a thread's timer. Timers may fire early, so a later deadline need not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineChange {
    /// As it is.
    Keep,
    /// This, or none.
    Set(Option<Timestamp>),
}

/// What came of a commit that the store has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// It is in, durably; also when the same commit is asked for again.
    Applied {
        /// The thread's new version.
        version: u64,
        /// One id for each entry.
        message_ids: Vec<u64>,
    },
    /// Somebody else was here: load, decide again.
    Conflict,
}

/// Why the store did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is down, full, or refuses; nothing was done.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The lease that this was done under has passed on to another node; nothing was done.
    #[error("another node has this thread's lease now")]
    Superseded,
    /// It did not answer in time: it may have been done. Ask again with the same commit id.
    #[error("the store did not answer in time")]
    OutcomeUnknown,
    /// What it holds cannot be read.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
}

/// A caller's `Idempotency-Key` in its scope, and what it was used for (section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// What its request changes.
    pub home: KeyHome,
    /// SHA-256 over client, receiver, route, thread and key.
    pub key: [u8; 32],
    /// SHA-256 of the body.
    pub request: [u8; 32],
    /// When it may be forgotten.
    pub expires_at: Timestamp,
}

/// What the request of a key changes: a store may keep the answer there, so that both are one step. The same key has the
/// same home each time it is asked for; only one that belongs to a user's request is also known from another user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyHome {
    /// This thread.
    Thread(UserId),
    /// The user of this thread. The scope of the key is not the user: used for another user's request, it is found.
    User(UserId),
    /// The configuration, or nothing in particular.
    Configuration,
}

/// An answer that was kept for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// SHA-256 of the body that it answered.
    pub request: [u8; 32],
    /// The answer.
    pub answer: KeptAnswer,
}

/// An answer that was kept for a key, as what kept it knows to render it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptAnswer {
    /// A thread's reply.
    Thread {
        /// What the domain said.
        reply: Reply,
        /// One id for each entry of its commit.
        message_ids: Vec<u64>,
        /// When it was committed.
        at: Timestamp,
    },
    /// A body, without secrets, that the edge rendered.
    Body(Json),
}

/// A user's record; shared by the user's threads with all businesses of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredUser {
    /// One more with each write; 0 for none.
    pub version: u64,
    /// What the channel side told, an object; its form is the edge's business.
    pub profile: Json,
    /// What the IVA set, an object.
    pub user_details: Option<Json>,
    /// What ECTs call this user.
    pub ect_user_ids: BTreeMap<ReceiverId, String>,
}

/// One atomic step on a user.
#[derive(Debug, Clone)]
pub struct UserWrite {
    /// Names this step for ever.
    pub commit_id: Uuid,
    /// Whose user.
    pub client: ClientId,
    /// The client's own id.
    pub auth_id: Arc<str>,
    /// The version that was read; 0 if there was none.
    pub expected_version: u64,
    /// The new profile; none leaves it.
    pub profile: Option<Json>,
    /// A thread to open unless it exists. Its deliveries are enqueued only when it did not.
    pub open: Option<OpenThread>,
    /// The caller's idempotency key, with the body to keep.
    pub idempotency: Option<(IdempotencyKey, Json)>,
    /// The present time.
    pub now: Timestamp,
}

/// A thread to open.
#[derive(Debug, Clone)]
pub struct OpenThread {
    /// Its business; its handle is [`Store::user_id`] of it.
    pub business: BusinessId,
    /// Its first state, above [`Retention::origin`]: one that is not conflicts.
    pub thread: Thread,
    /// Who is told that the user was created.
    pub outbox: Vec<NewDelivery>,
}

/// What came of a write that the store has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is in, durably; also when the same write is asked for again.
    Applied,
    /// Somebody else was here: read, decide again.
    Conflict,
}

/// A piece of configuration: an ECT, a client, a hook, a key. Few and small; everyone holds all of them in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it is.
    pub kind: String,
    /// Which one, within its kind.
    pub id: String,
    /// JSON; its form is the edge's business.
    pub body: String,
}

/// All documents at one moment.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    /// One more with each write.
    pub revision: u64,
    /// The write that made this revision, where the store says: one that lost its last moments in a failover counts up to the
    /// same revisions again.
    pub write_id: Option<Uuid>,
    /// Ordered by kind and id.
    pub documents: Vec<Document>,
}

/// One atomic step on the configuration.
#[derive(Debug, Clone)]
pub struct DocumentWrite {
    /// Names this step for ever. Asked for again once it is in, it is applied or conflicts: the documents tell.
    pub write_id: Uuid,
    /// The revision that was read.
    pub expected_revision: u64,
    /// The write that made it, if that is known.
    pub expected_write: Option<Uuid>,
    /// New or replaced.
    pub put: Vec<Document>,
    /// Removed, by kind and id.
    pub delete: Vec<(String, String)>,
    /// Endpoints that are gone: what waits for them goes too.
    pub forget: Vec<Endpoint>,
    /// Endpoints that are new, or there again: nothing that an earlier write left to be forgotten of them is forgotten now.
    pub welcome: Vec<Endpoint>,
    /// The caller's idempotency key, with the body to keep.
    pub idempotency: Option<(IdempotencyKey, Json)>,
}

impl Default for DocumentWrite {
    /// Nothing, under a name of its own.
    fn default() -> Self {
        Self {
            write_id: Uuid::new_v4(),
            expected_revision: 0,
            expected_write: None,
            put: Vec::new(),
            delete: Vec::new(),
            forget: Vec::new(),
            welcome: Vec::new(),
            idempotency: None,
        }
    }
}

/// Which threads an operator wants to see (section 11).
#[derive(Debug, Clone, Default)]
pub struct ThreadQuery {
    /// Of this client.
    pub client: Option<ClientId>,
    /// In this state.
    pub state: Option<State>,
    /// Held by this receiver.
    pub active: Option<ReceiverId>,
    /// Whose `user_id` begins with this, or whose `auth_id` is this.
    pub q: Option<String>,
    /// At most so many.
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<String>,
}

/// A page of threads.
#[derive(Debug, Clone, Default)]
pub struct ThreadPage {
    /// In the order of their creation.
    pub threads: Vec<StoredThread>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// What a store does to keep what it acknowledged, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durability {
    /// Whether all of it survives a power cut.
    pub survives_power_cut: bool,
    /// What a power cut can cost, and what to do about it.
    pub says: String,
}

/// What is durable. Every method answers within a bound of its own, with an error if need be.
///
/// One contract suite runs on every implementation.
#[async_trait]
pub trait Store: Outbox + Retention + Files {
    /// The public handle of a thread: the same for ever, meaningless to others, carries its partition.
    fn user_id(&self, client: &ClientId, business: BusinessId, auth_id: &str) -> UserId;

    /// A thread, if it was opened.
    async fn thread(&self, user_id: &UserId) -> Result<Option<StoredThread>, StoreError>;
    /// The version of a thread and the commit that made it, if the thread was opened: whether what is in memory is up to date.
    async fn version(&self, user_id: &UserId) -> Result<Option<(u64, Option<Uuid>)>, StoreError>;
    /// One atomic step on a thread.
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;
    /// The entries after that sequence, gapless, oldest first.
    async fn feed(&self, user_id: &UserId, after: u64, limit: usize) -> Result<Vec<StoredEntry>, StoreError>;
    /// Threads, for operators.
    async fn threads(&self, query: ThreadQuery) -> Result<ThreadPage, StoreError>;
    /// How many threads are in each state.
    async fn states(&self) -> Result<BTreeMap<State, u64>, StoreError>;
    /// How many threads of this client (and business, and held by this receiver) there are.
    async fn count_threads(
        &self,
        client: Option<&ClientId>,
        business: Option<BusinessId>,
        active: Option<&ReceiverId>,
    ) -> Result<u64, StoreError>;
    /// Threads of these strands whose timer fires at or before `now`, earliest first.
    async fn due(&self, strands: &[u16], now: Timestamp, limit: usize) -> Result<Vec<UserId>, StoreError>;
    /// When the next timer of these strands fires.
    async fn next_due(&self, strands: &[u16]) -> Result<Option<Timestamp>, StoreError>;

    /// The answer kept for a key, unless it has expired.
    async fn kept(&self, key: &IdempotencyKey, now: Timestamp) -> Result<Option<Kept>, StoreError>;
    /// Remembers a signed request by its key through `until`. False if it is remembered already: of the same request twice
    /// at once, exactly one is new (section 3).
    async fn remember_request(&self, key: [u8; 32], until: Timestamp, now: Timestamp) -> Result<bool, StoreError>;
    /// Keeps an answer for a key by itself, where what it answers could not be one step; the first one stays.
    async fn keep(&self, key: IdempotencyKey, body: Json, now: Timestamp) -> Result<(), StoreError>;
    /// Forgets expired answers, signed requests and dead letters, a bounded number in one step; returns how many. Call again until it is
    /// none.
    async fn forget_expired(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// A user, if it exists.
    async fn user(&self, client: &ClientId, auth_id: &str) -> Result<Option<StoredUser>, StoreError>;
    /// One atomic step on a user.
    async fn write_user(&self, write: UserWrite) -> Result<Written, StoreError>;
    /// Keeps what an ECT calls a user.
    async fn keep_ect_user_id(
        &self,
        client: &ClientId,
        auth_id: &str,
        ect: &ReceiverId,
        ect_user_id: &str,
    ) -> Result<(), StoreError>;

    /// The configuration's revision, and the write that made it, where the store says.
    async fn revision(&self) -> Result<(u64, Option<Uuid>), StoreError>;
    /// All configuration.
    async fn documents(&self) -> Result<Documents, StoreError>;
    /// One atomic step on the configuration.
    async fn write_documents(&self, write: DocumentWrite) -> Result<Written, StoreError>;

    /// What it does to keep what it acknowledged.
    fn durability(&self) -> Durability;
    /// Whether it can be reached and written to.
    async fn ping(&self) -> Result<(), StoreError>;
    /// Finishes what is under way and closes.
    async fn close(&self);
}
