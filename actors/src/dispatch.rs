//! Between the store and the couriers: every delivery that is committed finds its endpoint's courier.

use crate::{
    courier::{Courier, CourierSettings, ENTRIES, Outcomes, Wake},
    ports::{Delivery, Endpoint, Held, OutboxSink, OutboxUpdate, StoreError},
    router::Router,
    shell::{ShellSettings, World},
    timekeeper::Timers,
    under_way::{Attempting, UnderWay},
};
use actix::{Addr, ArbiterHandle};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tract_domain::Timestamp;

/// Deliveries that wait for their courier to look. Past it the courier reads the store instead.
const INBOX: usize = 1024;

/// Deliveries that all couriers' windows hold together, about: with many endpoints each gets a smaller one.
const WINDOWS: usize = 64 * 1024;

/// The smallest window: enough to have [`ShellSettings::attempts_per_endpoint`] under way.
const SMALLEST_WINDOW: usize = 64;

/// Outcomes that wait to be written, and as many that are being written or wait for others of their strand; past both,
/// attempts wait.
const UPDATES: usize = 4096;

/// Outcomes of a strand that go to the store in one step.
const UPDATE_BATCH: usize = 512;

/// How long to wait when the store does not take outcomes.
const PAUSE: Duration = Duration::from_millis(500);

/// What has been committed for one endpoint since its courier last looked.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    letters: Mutex<Letters>,
    /// For operators: whether the courier lets probes through only.
    breaker_open: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct Letters {
    pub(crate) deliveries: VecDeque<Delivery>,
    /// The strands of which some are in the store only: they did not fit, or another node committed them.
    pub(crate) missed: BTreeSet<u16>,
    /// The courier knows that there is something.
    woken: bool,
}

impl Inbox {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// True if the courier has to be woken.
    fn put(&self, mut delivery: Delivery) -> bool {
        let mut letters = self.letters();
        if letters.missed.contains(&delivery.strand) {
            // It is read with those before it.
        } else if letters.deliveries.len() < INBOX {
            if letters.deliveries.len() >= ENTRIES {
                delivery.entry = None;
            }
            letters.deliveries.push_back(delivery);
        } else {
            letters.missed.insert(delivery.strand);
        }
        !std::mem::replace(&mut letters.woken, true)
    }
    /// True if the courier has to be woken.
    fn miss(&self, strand: u16) -> bool {
        let mut letters = self.letters();
        letters.missed.insert(strand);
        !std::mem::replace(&mut letters.woken, true)
    }
    /// Shows whether the courier's breaker is open.
    pub(crate) fn show_breaker(&self, open: bool) {
        self.breaker_open.store(open, Ordering::Relaxed);
    }
    /// Everything that is there, and the strands of which some was missed.
    pub(crate) fn take(&self) -> (VecDeque<Delivery>, BTreeSet<u16>) {
        let mut letters = self.letters();
        letters.woken = false;
        let missed = std::mem::take(&mut letters.missed);
        (std::mem::take(&mut letters.deliveries), missed)
    }
}

/// What became of an attempt, on its way to the store.
pub(crate) struct Outcome {
    pub(crate) update: OutboxUpdate,
    /// It is under way until it is written.
    pub(crate) attempting: Attempting,
}

struct Post {
    inbox: Arc<Inbox>,
    courier: Addr<Courier>,
}

/// See the module.
pub(crate) struct Dispatch {
    world: World,
    router: Router,
    arbiters: Vec<ArbiterHandle>,
    next: AtomicUsize,
    settings: CourierSettings,
    posts: Mutex<HashMap<Endpoint, Post>>,
    /// None once the router stops.
    updates: Mutex<Option<mpsc::Sender<Outcome>>>,
    under_way: Arc<UnderWay>,
    timers: Timers,
    /// The strands that this node acts for.
    held: watch::Receiver<Held>,
    /// Strands of which anything may have been missed.
    unseen: watch::Sender<BTreeSet<u16>>,
    writer: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Dispatch {
    pub(crate) fn new(
        world: World,
        router: Router,
        arbiters: Vec<ArbiterHandle>,
        timers: Timers,
        settings: &ShellSettings,
    ) -> Arc<Self> {
        let (under_way, held) = (UnderWay::new(Arc::clone(&world.store)), world.store.held());
        let (updates, outcomes) = mpsc::channel(UPDATES);
        let writer = world.network.spawn(write_outcomes(world.clone(), outcomes));
        let settings = CourierSettings { attempts: settings.attempts_per_endpoint, window: settings.courier_window };
        let (posts, next) = (Mutex::default(), AtomicUsize::new(0));
        let (updates, writer) = (Mutex::new(Some(updates)), Mutex::new(Some(writer)));
        let unseen = watch::Sender::default();
        Arc::new(Self {
            world,
            router,
            arbiters,
            next,
            settings,
            posts,
            updates,
            under_way,
            timers,
            held,
            unseen,
            writer,
        })
    }

    fn posts(&self) -> MutexGuard<'_, HashMap<Endpoint, Post>> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, endpoint: &Endpoint, inbox: &Arc<Inbox>, others: usize) -> Option<Addr<Courier>> {
        let updates = self.updates.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.arbiters.len();
        let window = (WINDOWS / (others + 1)).clamp(SMALLEST_WINDOW.min(self.settings.window), self.settings.window);
        Some(Courier::begin(
            &self.arbiters[turn],
            endpoint.clone(),
            Arc::clone(inbox),
            self.world.clone(),
            self.router.clone(),
            Outcomes { updates, under_way: Arc::clone(&self.under_way) },
            CourierSettings { window, ..self.settings },
        ))
    }

    /// Finds or starts an endpoint's courier; not any more once the router stops.
    fn post(&self, endpoint: &Endpoint, with: impl FnOnce(&Post)) {
        let mut posts = self.posts();
        if let Some(post) = posts.get(endpoint).filter(|post| post.courier.connected()) {
            return with(post);
        }
        let inbox = posts.get(endpoint).map_or_else(Arc::default, |post| Arc::clone(&post.inbox));
        if let Some(courier) = self.start(endpoint, &inbox, posts.len()) {
            with(posts.entry(endpoint.clone()).insert_entry(Post { inbox, courier }).get());
        }
    }

    /// Has an endpoint's courier look at its backlog.
    pub(crate) fn wake(&self, endpoint: &Endpoint) {
        self.post(endpoint, |post| post.courier.do_send(Wake));
    }

    /// Has every courier look at its endpoint's standing.
    pub(crate) fn wake_all(&self) {
        for post in self.posts().values() {
            post.courier.do_send(Wake);
        }
    }

    /// Follows what this node holds, and what it may have missed. Ends with the store.
    pub(crate) async fn follow(self: Arc<Self>) {
        let (mut held, mut unseen) = (self.held.clone(), self.unseen.subscribe());
        // What was gained while the router started is looked at too.
        held.mark_changed();
        let mut before = Held::default();
        loop {
            tokio::select! {
                changed = held.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = held.borrow_and_update().clone();
                    self.hold(&now, &before).await;
                    before = now;
                }
                _ = unseen.changed() => {
                    // Taking them changes it too.
                    if self.unseen.borrow().is_empty() {
                        continue;
                    }
                    let strands = self.unseen.send_replace(BTreeSet::new());
                    self.look_for_waiting(&strands).await;
                    self.timers.nudge(self.world.clock.now());
                }
            }
        }
    }

    /// Has couriers act for the strands that are held now and no others.
    async fn hold(&self, held: &Held, before: &Held) {
        self.under_way.look(held);
        let gained = held.all_active().filter(|(strand, epoch)| before.active(*strand) != Some(*epoch));
        let gained: BTreeSet<u16> = gained.map(|(strand, _)| strand).collect();
        self.wake_all();
        if !gained.is_empty() {
            self.look_for_waiting(&gained).await;
            self.timers.nudge(self.world.clock.now());
        }
    }

    /// Has couriers read these strands of all endpoints that something waits for.
    async fn look_for_waiting(&self, strands: &BTreeSet<u16>) {
        let strands: Vec<u16> = strands.iter().copied().collect();
        let waiting = loop {
            match self.world.store.waiting(&strands).await {
                Ok(waiting) => break waiting,
                Err(error) => {
                    tracing::warn!(%error, "what waits for endpoints could not be read");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        for (strand, endpoints) in waiting {
            self.missed(strand, endpoints);
        }
    }

    /// Whether an endpoint's breaker is open here.
    pub(crate) fn breaker_is_open(&self, endpoint: &Endpoint) -> bool {
        self.posts().get(endpoint).is_some_and(|post| post.inbox.breaker_open.load(Ordering::Relaxed))
    }

    /// Starts couriers afresh that have died.
    pub(crate) fn revive(&self) {
        let dead: Vec<Endpoint> = {
            let posts = self.posts();
            posts.iter().filter(|(_, post)| !post.courier.connected()).map(|(endpoint, _)| endpoint.clone()).collect()
        };
        for endpoint in dead {
            tracing::error!(?endpoint, "a courier failed and is started afresh");
            self.wake(&endpoint);
        }
    }

    /// Ends the couriers, lets attempts under way end, and writes what came of them.
    pub(crate) async fn close(&self, within: Duration) {
        // The writer ends with the last sender: this one, the couriers' and those of attempts under way.
        drop(self.updates.lock().unwrap_or_else(PoisonError::into_inner).take());
        for (_, post) in self.posts().drain() {
            post.courier.do_send(crate::courier::End);
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && tokio::time::timeout(within, writer).await.is_err()
        {
            tracing::warn!("stopping although attempts at deliveries are under way; they are made again");
        }
    }
}

impl OutboxSink for Dispatch {
    fn enqueued(&self, deliveries: Vec<Delivery>) {
        let held = self.held.borrow().clone();
        // The others are another node's, which is told, or reads them once it has the lease.
        for delivery in deliveries.into_iter().filter(|delivery| held.active(delivery.strand).is_some()) {
            let endpoint = delivery.endpoint.clone();
            self.post(&endpoint, |post| {
                if post.inbox.put(delivery) {
                    post.courier.do_send(Wake);
                }
            });
        }
    }

    fn missed(&self, strand: u16, endpoints: Vec<Endpoint>) {
        if self.held.borrow().active(strand).is_none() {
            return;
        }
        for endpoint in endpoints {
            self.post(&endpoint, |post| {
                if post.inbox.miss(strand) {
                    post.courier.do_send(Wake);
                }
            });
        }
    }

    fn missed_all(&self, strands: Vec<u16>) {
        self.unseen.send_modify(|unseen| unseen.extend(strands));
    }

    fn deadline(&self, at: Timestamp) {
        self.timers.nudge(at);
    }
}

/// A view on the couriers, for operators. Cheap to clone.
#[derive(Clone)]
pub struct Couriers(pub(crate) Arc<Dispatch>);

impl Couriers {
    /// Whether an endpoint's breaker is open on this node: it has failed so often in a row that only probes are sent.
    pub fn breaker_is_open(&self, endpoint: &Endpoint) -> bool {
        self.0.breaker_is_open(endpoint)
    }
}

/// Writes what became of deliveries, many at a time: those of each strand in order, and each strand by itself, for a part of
/// the store may be away, and the rest not. An outcome that is lost with the process costs a duplicate.
async fn write_outcomes(world: World, mut outcomes: mpsc::Receiver<Outcome>) {
    // Of the strands that are being written: what waits behind that.
    let mut strands: HashMap<u16, VecDeque<Outcome>> = HashMap::new();
    let mut writing = FuturesUnordered::new();
    let (mut batch, mut unwritten, mut is_open) = (Vec::with_capacity(UPDATE_BATCH), 0, true);
    while is_open || !writing.is_empty() {
        tokio::select! {
            count = outcomes.recv_many(&mut batch, UPDATE_BATCH), if is_open && unwritten < UPDATES => {
                is_open = count > 0;
                unwritten += count;
                let mut begun: BTreeMap<u16, Vec<Outcome>> = BTreeMap::new();
                for outcome in batch.drain(..) {
                    let strand = outcome.attempting.strand();
                    match strands.get_mut(&strand) {
                        Some(behind) => behind.push_back(outcome),
                        None => begun.entry(strand).or_default().push(outcome),
                    }
                }
                for (strand, outcomes) in begun {
                    strands.insert(strand, VecDeque::new());
                    writing.push(write_strand(&world, strand, outcomes));
                }
            }
            Some((strand, count)) = writing.next() => {
                unwritten -= count;
                let behind = strands.entry(strand).or_default();
                let next: Vec<Outcome> = behind.drain(..behind.len().min(UPDATE_BATCH)).collect();
                if next.is_empty() {
                    strands.remove(&strand);
                } else {
                    writing.push(write_strand(&world, strand, next));
                }
            }
        }
    }
}

/// Writes outcomes of one strand; answers which, and how many.
async fn write_strand(world: &World, strand: u16, outcomes: Vec<Outcome>) -> (u16, usize) {
    let (updates, _attempting): (Vec<_>, Vec<_>) = outcomes.into_iter().map(|o| (o.update, o.attempting)).unzip();
    if !write(world, strand, &updates).await {
        // One of them meets something unreadable: the others must not suffer for it.
        for update in &updates {
            write(world, strand, std::slice::from_ref(update)).await;
        }
    }
    (strand, updates.len())
}

/// Whether outcomes of a strand do not count any more: its lease has passed on. While there is no lease at all the store may
/// be away, and come back before anybody else has it.
fn are_past(world: &World, strand: u16, batch: &[OutboxUpdate]) -> bool {
    let held = world.store.held().borrow().clone();
    let epoch = held.get(strand).map(|lease| lease.epoch);
    !held.is_empty() && batch.iter().all(|update| epoch != Some(update.epoch))
}

/// Writes outcomes, for as long as it takes and they count. False if the store holds something unreadable in their place.
async fn write(world: &World, strand: u16, batch: &[OutboxUpdate]) -> bool {
    let mut told = false;
    loop {
        match world.store.update_outbox(batch.to_vec()).await {
            Ok(()) => return true,
            Err(error @ StoreError::Corrupt(_)) => {
                tracing::error!(%error, outcomes = batch.len(), "outcomes of deliveries could not be written");
                return false;
            }
            // The store leaves such alone one by one; this is for completeness.
            Err(StoreError::Superseded) => return true,
            Err(error @ (StoreError::Unavailable(_) | StoreError::OutcomeUnknown)) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, "outcomes of deliveries could not be written; trying again");
                }
                if are_past(world, strand, batch) {
                    return true;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
