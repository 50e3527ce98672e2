//! Deliveries: what waits for an endpoint, what became of it, and what makes the attempts (section 8).

use super::leases::Leases;
use super::{StoreError, StoredEntry};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use tract_domain::{BusinessId, ChannelEvent, ClientId, IvaAnswer, Json, ReceiverId, Timestamp, Topic, UserId};

/// Something that deliveries go to, by a stable name: `hook:<client>:<receiver>:<category>:<subcategory>`,
/// `channel:<client>:<business>` or `iva:<client>`. (Ids never contain a colon.)
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Endpoint(Arc<str>);

impl Endpoint {
    /// A receiver's hook.
    pub fn hook(client: &ClientId, receiver: &ReceiverId, topic: Topic) -> Self {
        let (category, subcategory) = topic.names();
        Self(format!("hook:{client}:{receiver}:{category}:{subcategory}").into())
    }
    /// A business's channel webhook.
    pub fn channel(client: &ClientId, business: BusinessId) -> Self {
        Self(format!("channel:{client}:{business}").into())
    }
    /// A client's IVA.
    pub fn iva(client: &ClientId) -> Self {
        Self(format!("iva:{client}").into())
    }
    /// A name read back from a store.
    pub fn from_name(name: &str) -> Self {
        Self(name.into())
    }
    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
    /// What it is.
    pub fn kind(&self) -> EndpointKind {
        let mut parts = self.0.split(':');
        let kind = parts.next();
        let client = parts.next().and_then(|c| ClientId::new(c).ok());
        match (kind, client, parts.next(), parts.next(), parts.next()) {
            (Some("hook"), Some(client), Some(receiver), Some(category), Some(subcategory)) => {
                match (ReceiverId::new(receiver), Topic::parse(category, subcategory)) {
                    (Ok(receiver), Some(topic)) => EndpointKind::Hook { client, receiver, topic },
                    _ => EndpointKind::Unknown,
                }
            }
            (Some("channel"), Some(client), Some(business), ..) => match business.parse() {
                Ok(business) => EndpointKind::Channel { client, business },
                Err(_) => EndpointKind::Unknown,
            },
            (Some("iva"), Some(client), ..) => EndpointKind::Iva { client },
            _ => EndpointKind::Unknown,
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointKind {
    /// A receiver's hook.
    Hook {
        /// Whose client.
        client: ClientId,
        /// Whose hook.
        receiver: ReceiverId,
        /// For what.
        topic: Topic,
    },
    /// A business's channel webhook.
    Channel {
        /// Whose client.
        client: ClientId,
        /// Which business.
        business: BusinessId,
    },
    /// A client's IVA.
    Iva {
        /// Whose client.
        client: ClientId,
    },
    /// A name from a version that this one does not know.
    Unknown,
}

/// Whether an endpoint is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is. What failed before `since`, when it was enabled last, has its schedule begin afresh. Also what is said of
    /// an endpoint that is gone: what waits for it has nowhere to go, and is found to.
    Enabled {
        /// When it was enabled last; 0 if it was never disabled.
        since: Timestamp,
    },
    /// It is not; what waits for it is kept for [`KEPT_WHILE_DISABLED_MS`].
    Disabled {
        /// When it was disabled.
        at: Timestamp,
    },
}

/// How long what is undelivered is kept while its endpoint is disabled, in milliseconds: from the disabling, or from its
/// own creation if later.
pub const KEPT_WHILE_DISABLED_MS: u64 = 60 * 60 * 1000;

/// How long a dead letter is kept, in milliseconds.
pub const DEAD_LETTERS_KEPT_MS: u64 = 7 * 24 * 3600 * 1000;

/// Something to deliver, about to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Where to.
    pub endpoint: Endpoint,
    /// The same for every attempt, for ever.
    pub webhook_id: String,
    /// What.
    pub what: What,
    /// Of which entry; 0 for what has none.
    pub sequence: u64,
    /// The epoch of the hand-off that a 2xx answers, if it answers one.
    pub answers_handoff: Option<u64>,
}

/// What a delivery carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// One entry, to a hook.
    Entry,
    /// The messages with `after < sequence <= through`, replayed, to a `message.receive` hook; one attempt carries one.
    History {
        /// Exclusive lower bound; moves up as messages are delivered.
        after: u64,
        /// Inclusive upper bound.
        through: u64,
    },
    /// The user was created, to a hook.
    CreateUser,
    /// One event, to a channel webhook.
    Channel {
        /// Which.
        event: ChannelEvent,
    },
    /// A customer's message, to the IVA.
    Turn,
}

/// Something to deliver, as it is stored.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Increases in commit order within a strand of an endpoint.
    pub id: u64,
    /// The strand that it belongs to: its thread's.
    pub strand: u16,
    /// Where whoever made this told it when it was committed: the highest id that waited for its endpoint in its strand
    /// before; 0 for none.
    pub behind: u64,
    /// Where to.
    pub endpoint: Endpoint,
    /// Of which thread.
    pub user_id: UserId,
    /// The same for every attempt, for ever.
    pub webhook_id: String,
    /// What.
    pub what: What,
    /// Of which entry; 0 for what has none.
    pub sequence: u64,
    /// The epoch of the hand-off that a 2xx answers, if it answers one.
    pub answers_handoff: Option<u64>,
    /// When it was committed; of a dead letter that is sent again, when that was asked for.
    pub created_at: Timestamp,
    /// How many attempts failed.
    pub attempts: u32,
    /// When the first attempt was made.
    pub first_attempt_at: Option<Timestamp>,
    /// Not before this.
    pub due_at: Timestamp,
    /// It was a dead letter, and is sent again.
    pub replayed: bool,
    /// The entry, where whoever made this had it at hand; else it is in the store.
    pub entry: Option<Arc<StoredEntry>>,
}

/// One attempt that was made, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// When it began.
    pub at: Timestamp,
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub latency_ms: u64,
    /// What went wrong, or what the endpoint said against it, for a person; never a body.
    pub error: Option<String>,
}

impl AttemptRecord {
    /// When it ended.
    pub fn ended_at(&self) -> Timestamp {
        self.at.plus(self.latency_ms)
    }
}

/// What became of a delivery, for the store to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxUpdate {
    /// Where to.
    pub endpoint: Endpoint,
    /// Which.
    pub id: u64,
    /// The epoch of the lease on its strand that the attempt was made under. Of no account once that was passed on.
    pub epoch: u64,
    /// What became of it.
    pub change: OutboxChange,
}

/// What became of a delivery. Each change can be written twice and counts once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxChange {
    /// It has nowhere to go any more, and is forgotten.
    Void,
    /// It is over, or one message of its range is.
    Over {
        /// How it ended.
        end: End,
        /// The last attempt.
        attempt: AttemptRecord,
        /// Of a range: the message that is over. The range goes on after it, with no attempts yet.
        of: Option<u64>,
    },
    /// An attempt failed, and it is to be tried again.
    Retry {
        /// Failed attempts of this schedule so far.
        attempts: u32,
        /// When the first of them was made.
        first_attempt_at: Timestamp,
        /// Not before this.
        due_at: Timestamp,
        /// The attempt.
        attempt: AttemptRecord,
        /// Of a range: the message that was sent. Once that is over, this is of no account.
        of: Option<u64>,
    },
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was received.
    Delivered,
    /// It was received, and the endpoint said an error about it.
    Rejected,
    /// It was given up: it is a dead letter now.
    Dead,
}

/// How an endpoint fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointStatus {
    /// Deliveries that wait.
    pub pending: u64,
    /// When the oldest of them was committed.
    pub oldest: Option<Timestamp>,
    /// Dead letters that are kept.
    pub dead: u64,
    /// The last success.
    pub last_success_at: Option<Timestamp>,
    /// The last failure or rejection, for a person.
    pub last_error: Option<String>,
}

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryState {
    /// It waits for its first or next attempt.
    Pending,
    /// It was received.
    Delivered,
    /// It was received, and the endpoint said an error about it.
    Rejected,
    /// It is a dead letter.
    Dead,
}

impl DeliveryState {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Rejected, Self::Dead];
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::Dead => "dead",
        }
    }
}

/// A delivery with its attempts, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Where to.
    pub endpoint: Endpoint,
    /// Of which thread.
    pub user_id: UserId,
    /// The same for every attempt, for ever.
    pub webhook_id: String,
    /// What.
    pub what: What,
    /// Of which entry; 0 for what has none.
    pub sequence: u64,
    /// How far it has come.
    pub state: DeliveryState,
    /// When it was committed.
    pub created_at: Timestamp,
    /// When it ended; none while it waits.
    pub ended_at: Option<Timestamp>,
    /// It was a dead letter once.
    pub replayed: bool,
    /// The last 16 attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
}

/// Which deliveries somebody wants to see: of those that wait and of dead letters all there are, of those that were
/// received the last thousand or so for each endpoint.
#[derive(Debug, Clone, Default)]
pub struct DeliveryQuery {
    /// To these endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Which have come so far.
    pub state: Option<DeliveryState>,
    /// Of this thread.
    pub user_id: Option<UserId>,
    /// At most so many.
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<String>,
}

/// A page of deliveries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryPage {
    /// The newest first.
    pub deliveries: Vec<DeliveryRecord>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Dead letters that are to be sent again.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Those of these endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Which of them.
    pub which: Replayed,
    /// At most so many in one step.
    pub limit: usize,
    /// The present time.
    pub now: Timestamp,
}

/// Which dead letters are sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// The one with this `webhook_id`.
    One(String),
    /// Those that were given up at or after this, in that order; of those given up at once, in commit order.
    Since(Timestamp),
}

/// What [`Outbox::bury`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Buried {
    /// How many are dead letters now.
    pub count: u64,
    /// When the oldest of those that still wait was committed.
    pub oldest: Option<Timestamp>,
}

/// Told of deliveries once they are committed, and of what other nodes did that concerns this one. Every method must
/// return at once and never fail: what it cannot hold is in the store.
pub trait OutboxSink: Send + Sync {
    /// These were committed; those of a strand in this order.
    fn enqueued(&self, deliveries: Vec<Delivery>);
    /// Something was committed for these endpoints in this strand that is not handed over here.
    fn missed(&self, strand: u16, endpoints: Vec<Endpoint>);
    /// Anything may have been committed in these strands, for any endpoint, with any deadline.
    fn missed_all(&self, strands: Vec<u16>);
    /// A deadline was stored elsewhere for a thread of a strand that is held here.
    fn deadline(&self, at: Timestamp);
}

/// A part of an endpoint's backlog to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Of this strand.
    pub strand: u16,
    /// From above this id.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
}

/// The part of a store that couriers live on.
#[async_trait]
pub trait Outbox: Leases {
    /// Tells this sink of every delivery that is committed from now on.
    fn subscribe(&self, sink: Arc<dyn OutboxSink>);
    /// All endpoints that anything was ever addressed to and that are not forgotten, by name, and how each fares.
    async fn endpoints(&self) -> Result<Vec<(Endpoint, EndpointStatus)>, StoreError>;
    /// The endpoints that something waits for in each of these strands. Where a part of the store is away, what waits there is
    /// left out, and the sinks are told later that they may have missed it.
    async fn waiting(&self, strands: &[u16]) -> Result<Vec<(u16, Vec<Endpoint>)>, StoreError> {
        let endpoints = self.endpoints().await?.into_iter().filter(|(_, status)| status.pending > 0);
        let endpoints: Vec<Endpoint> = endpoints.map(|(endpoint, _)| endpoint).collect();
        Ok(strands.iter().map(|strand| (*strand, endpoints.clone())).collect())
    }
    /// How one endpoint fares.
    async fn endpoint_status(&self, endpoint: &Endpoint) -> Result<EndpointStatus, StoreError>;
    /// Parts of what waits for an endpoint, each in order.
    async fn outbox(&self, endpoint: &Endpoint, parts: &[Part]) -> Result<Vec<Vec<Delivery>>, StoreError>;
    /// Those of these ids that wait for an endpoint, in order.
    async fn outbox_by_id(&self, endpoint: &Endpoint, ids: &[u64]) -> Result<Vec<Delivery>, StoreError>;
    /// What became of deliveries. Those that are gone meanwhile, or whose strand has passed on, are left alone.
    async fn update_outbox(&self, updates: Vec<OutboxUpdate>) -> Result<(), StoreError>;
    /// Makes dead letters of what waits for an endpoint in these strands, with their epochs, and was committed at or before
    /// `before`, oldest first, at most `limit` in one step.
    async fn bury(
        &self,
        endpoint: &Endpoint,
        held: &[(u16, u64)],
        before: Timestamp,
        limit: usize,
        now: Timestamp,
    ) -> Result<Buried, StoreError>;
    /// A page of deliveries.
    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, StoreError>;
    /// Puts dead letters back among what waits, behind everything that waits already, under their old `webhook_id`, marked
    /// `replayed` and told to the sinks; returns how many. Call again until it is fewer than the limit.
    async fn replay(&self, replay: Replay) -> Result<u64, StoreError>;
}

/// Makes one attempt at a delivery.
#[async_trait]
pub trait Deliverer: Send + Sync + 'static {
    /// Renders, signs, sends, and reads the answer.
    async fn attempt(&self, delivery: &Delivery) -> Attempted;
}

/// An attempt, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// What came of it.
    pub outcome: Attempt,
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
    /// Of a range: the message that was sent.
    pub of: Option<u64>,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It was received.
    Accepted,
    /// It was received, and the endpoint said an error about it.
    Rejected(String),
    /// No attempt could be made, or what came of it could not be learnt, through no fault of the endpoint: it does not count
    /// as one.
    Postponed(String),
    /// It was not received.
    Failed {
        /// Why, for a person; never a body.
        reason: String,
        /// What `Retry-After` asks for, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The endpoint is gone for good (410).
    Gone,
    /// There is nothing (any more) to deliver, or nowhere to deliver it to.
    Void(String),
    /// The IVA's turn ended.
    Turn(TurnEnd),
}

/// How a turn of the IVA ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnEnd {
    /// With an answer.
    Answered {
        /// What it says.
        answer: IvaAnswer,
        /// The user's new details, an object.
        user_details: Option<Json>,
    },
    /// It will answer later, through its token (202).
    Deferred,
    /// With nothing usable: a bot break.
    Broke(String),
}
