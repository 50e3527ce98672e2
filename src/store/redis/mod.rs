//! The store on Redis 7 or later (or Valkey): one Lua script for each atomic step, all keys of a partition under one hash
//! tag.
//!
//! What it promises is what the server promises: with `appendonly yes` and `appendfsync always` an answer is given after it
//! was synced to disk. At start the server is asked, and what its settings mean is said. An answer that does not come in
//! time is an unknown outcome; every step can be asked for twice and counts once.
//!
//! Any number of routers may have the store open: any node serves any request, and the version of a thread in each commit
//! arbitrates between them. Couriers and timers need one owner for each partition: the node that has its lease (`leases`).
//! Where another node commits something for a partition, its owner is told (`notices`).
//!
//! The order of deliveries: scripts give out their ids, so within a partition they increase in the order of commits.
//!
//! A script stays within one hash tag, so that it can be carried out on Redis Cluster: what a step writes elsewhere, such as
//! what was received of a delivery, is a call of its own. `topology` knows which server has which keys.

mod alone;
mod counts;
mod delivery_query;
mod delivery_step;
mod fault;
mod files;
mod form;
mod keys;
mod lane;
mod leases;
mod migrate;
mod migrate_read;
mod notices;
mod open;
mod other_step;
mod query;
mod reader;
mod retention;
mod script;
mod server;
mod sinks;
mod target;
mod thread_step;
mod topology;
mod writer;

pub(super) use migrate::RedisSide;
pub use open::{RedisOpenError, url_fault};
pub use server::{Keeping, Redundancy};

use self::{
    delivery_step::{Bury, SendAgain, UpdateOutbox},
    fault::Fault,
    keys::{Home, Partition},
    leases::Leases as Keeper,
    other_step::WriteDocuments,
    reader::{Pools, Reader},
    server::Promise,
    sinks::Sinks,
    thread_step::{CommitThread, Place, WriteUser},
    writer::Writer,
};
use crate::store::handle::Handles;
use async_trait::async_trait;
use futures_util::future::join_all;
use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};
use tract_actors::ports::{
    Buried, Commit, Committed, DEAD_LETTERS_KEPT_MS, Delivery, DeliveryPage, DeliveryQuery, DocumentWrite, Documents,
    Durability, Endpoint, EndpointStatus, Held, IdempotencyKey, Kept, Leases, Node, Outbox, OutboxSink, OutboxUpdate,
    Part, Replay, Store, StoreError, StoredEntry, StoredThread, StoredUser, ThreadPage, ThreadQuery, UserWrite,
    Written,
};
use tract_domain::{BusinessId, ClientId, Json, ReceiverId, State, Timestamp, UserId};
use uuid::Uuid;

/// What is forgotten at once in a partition, so that nobody waits long behind it.
const FORGOTTEN_AT_ONCE: u64 = 1_000;

/// How long the servers of a few partitions are waited for when the others have answered.
const AWAY_AFTER: Duration = Duration::from_millis(500);

/// The store on Redis. See the module's documentation.
pub struct RedisStore {
    handles: Handles,
    place: Place,
    sinks: Arc<Sinks>,
    writer: Writer,
    leases: Keeper,
    pools: Arc<Pools>,
    promise: Promise,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Opens the store at this URL; creates it if there is none. `node_id` is what this node is called to operators.
    pub async fn open(url: &str, partitions: u16, node_id: &str) -> Result<Arc<Self>, RedisOpenError> {
        Self::open_trusting(None, url, partitions, node_id).await
    }

    /// The same, with a file of certificates, in PEM, of who may vouch for the servers, instead of the system's authorities.
    pub async fn open_trusting(
        ca: Option<&Path>,
        url: &str,
        partitions: u16,
        node_id: &str,
    ) -> Result<Arc<Self>, RedisOpenError> {
        let opened = open::open(url, ca, partitions, node_id).await?;
        let open::Opened { handles, place, sinks, writer, leases, pools, promise } = opened;
        Ok(Arc::new(Self { handles, place, sinks, writer, leases, pools, promise }))
    }

    /// What stands by when a server is lost, as it was when the store was opened.
    pub fn redundancy(&self) -> &Redundancy {
        &self.promise.redundancy
    }

    fn reader(&self) -> Result<Reader, Fault> {
        if self.writer.is_closed() {
            return Err(Fault::Closed);
        }
        Ok(self.pools.reader())
    }

    /// For reads of which a part is better than nothing.
    fn hasty_reader(&self) -> Result<Reader, Fault> {
        self.reader()?;
        Ok(self.pools.reader_within(AWAY_AFTER))
    }

    /// Has what could not be read read later.
    fn remind(&self, tell: impl Fn(&dyn OutboxSink) + Send + 'static) {
        let sinks = Arc::clone(&self.sinks);
        tokio::spawn(async move {
            sleep(AWAY_AFTER).await;
            sinks.each(tell);
        });
    }

    async fn keep_at(&self, home: Home, key: &IdempotencyKey, body: Json, now: Timestamp) -> Result<(), StoreError> {
        self.writer.ask(other_step::keep(home, key, body, now)?).await
    }

    fn partition(&self, user_id: &UserId) -> Option<Partition> {
        self.handles.partition(user_id).map(Partition)
    }

    fn home(&self, client: &ClientId, auth_id: &str) -> Partition {
        Partition(self.handles.home(client, auth_id))
    }
}

#[async_trait]
impl Store for RedisStore {
    fn user_id(&self, client: &ClientId, business: BusinessId, auth_id: &str) -> UserId {
        self.handles.user_id(client, business, auth_id)
    }

    async fn thread(&self, user_id: &UserId) -> Result<Option<StoredThread>, StoreError> {
        let Some(partition) = self.partition(user_id) else { return Ok(None) };
        Ok(query::thread(&mut self.reader()?, partition, user_id).await?)
    }

    async fn version(&self, user_id: &UserId) -> Result<Option<(u64, Option<Uuid>)>, StoreError> {
        let Some(partition) = self.partition(user_id) else { return Ok(None) };
        Ok(query::version(&mut self.reader()?, partition, user_id).await?)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let Some(partition) = self.partition(&commit.user_id) else { return Ok(Committed::Conflict) };
        let user = match &commit.user_details {
            Some(_) => query::user_of(&mut self.reader()?, partition, &commit.user_id).await?,
            None => None,
        };
        self.writer.ask(CommitThread::new(commit, self.place, partition, user)?).await?
    }

    async fn feed(&self, user_id: &UserId, after: u64, limit: usize) -> Result<Vec<StoredEntry>, StoreError> {
        let Some(partition) = self.partition(user_id) else { return Ok(Vec::new()) };
        Ok(query::feed(&mut self.reader()?, partition, user_id, after, limit).await?)
    }

    async fn threads(&self, query: ThreadQuery) -> Result<ThreadPage, StoreError> {
        Ok(query::threads(&mut self.reader()?, self.place, &query).await?)
    }

    async fn states(&self) -> Result<BTreeMap<State, u64>, StoreError> {
        Ok(query::states(&mut self.reader()?, self.place).await?)
    }

    async fn count_threads(
        &self,
        client: Option<&ClientId>,
        business: Option<BusinessId>,
        active: Option<&ReceiverId>,
    ) -> Result<u64, StoreError> {
        Ok(query::count_threads(&mut self.reader()?, self.place, client, business, active).await?)
    }

    async fn due(&self, strands: &[u16], now: Timestamp, limit: usize) -> Result<Vec<UserId>, StoreError> {
        Ok(query::due(&mut self.hasty_reader()?, strands, now, limit).await?)
    }

    async fn next_due(&self, strands: &[u16]) -> Result<Option<Timestamp>, StoreError> {
        Ok(query::next_due(&mut self.hasty_reader()?, strands).await?)
    }

    async fn kept(&self, key: &IdempotencyKey, now: Timestamp) -> Result<Option<Kept>, StoreError> {
        Ok(query::kept(&mut self.reader()?, self.place, key, now).await?)
    }

    async fn remember_request(&self, key: [u8; 32], until: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        self.writer.ask(other_step::remember_request(self.place, &key, until, now)).await
    }

    async fn keep(&self, key: IdempotencyKey, body: Json, now: Timestamp) -> Result<(), StoreError> {
        self.keep_at(self.place.home_of_key(&key), &key, body, now).await
    }

    async fn forget_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        let held = self.leases.held().borrow().clone();
        // The others are other nodes' business.
        let mut homes: Vec<Home> = held.all_active().map(|(strand, _)| Home::Partition(Partition(strand))).collect();
        if held.active(0).is_some() {
            homes.push(Home::Configuration);
        }
        while !homes.is_empty() {
            let forget = |home: &Home| other_step::forget(*home, now, FORGOTTEN_AT_ONCE);
            let gone = self.writer.ask(other_step::counted(homes.iter().map(forget).collect())).await?;
            forgotten += gone.iter().sum::<u64>();
            let mut full = gone.iter().map(|gone| *gone >= FORGOTTEN_AT_ONCE);
            homes.retain(|_| full.next().unwrap_or(false));
        }
        let before = Timestamp(now.0.saturating_sub_unsigned(DEAD_LETTERS_KEPT_MS));
        for (endpoint, partition) in delivery_query::letter_places(&mut self.reader()?, self.place).await? {
            if held.active(partition.0).is_none() {
                continue;
            }
            loop {
                let call = other_step::forget_letters(partition, &endpoint, before, FORGOTTEN_AT_ONCE);
                let gone: u64 = self.writer.ask(other_step::counted(vec![call])).await?.iter().sum();
                forgotten += gone;
                if gone < FORGOTTEN_AT_ONCE {
                    break;
                }
            }
        }
        Ok(forgotten)
    }

    async fn user(&self, client: &ClientId, auth_id: &str) -> Result<Option<StoredUser>, StoreError> {
        Ok(query::user(&mut self.reader()?, self.home(client, auth_id), client, auth_id).await?)
    }

    async fn write_user(&self, write: UserWrite) -> Result<Written, StoreError> {
        let opened = write.open.as_ref().map(|open| self.user_id(&write.client, open.business, &write.auth_id));
        let home = self.home(&write.client, &write.auth_id);
        let (noted, now) = (write.idempotency.clone(), write.now);
        let written = self.writer.ask(WriteUser::new(write, opened, self.place, home)?).await?;
        if written == Written::Applied
            && let Some((key, body)) = noted
            && let Some(other) = self.place.other_home_of_key(&key)
        {
            // It is in; that the key is not known from another user's request is no reason to say otherwise.
            let _ = self.keep_at(other, &key, body, now).await;
        }
        Ok(written)
    }

    async fn keep_ect_user_id(
        &self,
        client: &ClientId,
        auth_id: &str,
        ect: &ReceiverId,
        ect_user_id: &str,
    ) -> Result<(), StoreError> {
        let (home, names) = (self.home(client, auth_id), (ect.as_str(), ect_user_id));
        let call = thread_step::keep_ect_user_id(home, (client, auth_id), names);
        self.writer.ask(other_step::done(call)).await
    }

    async fn revision(&self) -> Result<(u64, Option<Uuid>), StoreError> {
        Ok(query::revision(&mut self.reader()?).await?)
    }

    async fn documents(&self) -> Result<Documents, StoreError> {
        Ok(query::documents(&mut self.reader()?).await?)
    }

    async fn write_documents(&self, write: DocumentWrite) -> Result<Written, StoreError> {
        self.writer.ask(WriteDocuments::new(self.place, write)?).await
    }

    /// As the servers said when the store was opened.
    fn durability(&self) -> Durability {
        let Promise { keeping, redundancy } = self.promise;
        Durability { survives_power_cut: keeping == Keeping::EveryAnswer, says: format!("{keeping}; {redundancy}") }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.writer.ask(other_step::ping()).await
    }

    async fn close(&self) {
        self.writer.close().await;
        self.leases.close().await;
        self.pools.close();
    }
}

impl Leases for RedisStore {
    fn is_shared(&self) -> bool {
        true
    }

    fn strands(&self) -> u16 {
        self.place.partitions
    }

    fn held(&self) -> watch::Receiver<Held> {
        self.leases.held()
    }

    fn let_go(&self, strand: u16, epoch: u64) {
        self.leases.let_go(strand, epoch);
    }

    fn resign(&self) {
        self.leases.resign();
    }

    fn nodes(&self) -> Vec<Node> {
        self.leases.nodes()
    }
}

#[async_trait]
impl Outbox for RedisStore {
    fn subscribe(&self, sink: Arc<dyn OutboxSink>) {
        self.sinks.add(sink);
    }

    async fn endpoints(&self) -> Result<Vec<(Endpoint, EndpointStatus)>, StoreError> {
        Ok(delivery_query::endpoints(&mut self.reader()?, self.place).await?)
    }

    async fn waiting(&self, strands: &[u16]) -> Result<Vec<(u16, Vec<Endpoint>)>, StoreError> {
        let (waiting, away) = delivery_query::waiting(&mut self.hasty_reader()?, strands).await?;
        if !away.is_empty() {
            self.remind(move |sink| sink.missed_all(away.iter().copied().collect()));
        }
        Ok(waiting.into_iter().collect())
    }

    async fn endpoint_status(&self, endpoint: &Endpoint) -> Result<EndpointStatus, StoreError> {
        Ok(delivery_query::endpoint_status(&mut self.reader()?, self.place, endpoint).await?)
    }

    async fn outbox(&self, endpoint: &Endpoint, parts: &[Part]) -> Result<Vec<Vec<Delivery>>, StoreError> {
        let read = delivery_query::outbox(&mut self.hasty_reader()?, self.place, endpoint, parts).await?;
        let unread: Vec<u16> =
            parts.iter().zip(&read).filter(|(_, page)| page.is_none()).map(|(p, _)| p.strand).collect();
        if !unread.is_empty() {
            let endpoint = endpoint.clone();
            self.remind(move |sink| unread.iter().for_each(|strand| sink.missed(*strand, vec![endpoint.clone()])));
        }
        Ok(read.into_iter().map(Option::unwrap_or_default).collect())
    }

    async fn outbox_by_id(&self, endpoint: &Endpoint, ids: &[u64]) -> Result<Vec<Delivery>, StoreError> {
        Ok(delivery_query::records(&mut self.reader()?, self.place, endpoint, ids).await?)
    }

    async fn update_outbox(&self, updates: Vec<OutboxUpdate>) -> Result<(), StoreError> {
        if updates.is_empty() {
            return Ok(());
        }
        // Each lane by itself: what is away holds up nobody else's.
        let mut lanes: BTreeMap<usize, Vec<OutboxUpdate>> = BTreeMap::new();
        for update in updates {
            let head = self.place.home_of_delivery(update.id).head();
            lanes.entry(self.writer.lane_of(&head)?).or_default().push(update);
        }
        let ask = async |updates| self.writer.ask(UpdateOutbox::new(self.place, updates)?).await;
        join_all(lanes.into_values().map(ask)).await.into_iter().collect()
    }

    async fn bury(
        &self,
        endpoint: &Endpoint,
        held: &[(u16, u64)],
        before: Timestamp,
        limit: usize,
        now: Timestamp,
    ) -> Result<Buried, StoreError> {
        let mut reader = self.reader()?;
        let (ids, oldest) = delivery_query::overdue(&mut reader, self.place, endpoint, held, before, limit).await?;
        drop(reader);
        if ids.is_empty() {
            return Ok(Buried { count: 0, oldest });
        }
        let count = self.writer.ask(Bury { endpoint: endpoint.clone(), ids, now }).await?;
        Ok(Buried { count, oldest })
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        let home = query.user_id.as_ref().and_then(|user_id| self.partition(user_id));
        Ok(delivery_query::deliveries(&mut self.reader()?, self.place, &query, home).await?)
    }

    async fn replay(&self, replay: Replay) -> Result<u64, StoreError> {
        let letters = delivery_query::letters(&mut self.reader()?, self.place, &replay).await?;
        if letters.is_empty() {
            return Ok(0);
        }
        self.writer.ask(SendAgain::new(self.place, letters, replay.now)).await
    }
}
