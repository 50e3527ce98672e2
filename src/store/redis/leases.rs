//! The keeper of this node's leases: says that the node lives, renews what it has, takes its fair share of what is free,
//! and gives back what is more than that, or everything when the node is to stop.
//!
//! Redis' own clock says when a lease expires. This node's clock only says when it must have: what could not be renewed
//! for so long is not acted for any more. What is written under a lease carries its epoch, which the scripts compare, so
//! that a node which was held up writes nothing that counts.

use super::{
    fault::{Fault, read},
    keys::{self, Partition},
    reader::{Reader, command},
    script::{Call, Script},
    thread_step::Place,
    writer::{Sinks, Standing, lock},
};
use ::redis::Value;
use deadpool_redis::Pool;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};
use tract_actors::ports::{Held, Lease, Node};

/// How long a lease lasts when it is not renewed. A node's death is noticed after so long.
pub(super) const LASTS: Duration = Duration::from_secs(5);

/// How often leases are renewed.
const EVERY: Duration = Duration::from_secs(1);

/// How long attempts under way may hold up that a lease is given back.
const PATIENCE: Duration = Duration::from_millis(700);

/// Things that may wait to be told to the keeper; more than there are partitions.
const COMMANDS: usize = 4096;

/// What a node says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Says {
    node_id: String,
    started_at: u64,
    strands: usize,
    draining: bool,
}

enum Tell {
    LetGo(u16, u64),
    Look,
    Resign,
    Close(oneshot::Sender<()>),
}

/// The handle to the keeper. When it is dropped, the leases are given back.
pub(super) struct Leases {
    held: watch::Receiver<Held>,
    nodes: Arc<Mutex<Vec<Node>>>,
    keeper: mpsc::Sender<Tell>,
}

/// How the keeper is told that something has become free.
#[derive(Clone)]
pub(super) struct Poke(mpsc::WeakSender<Tell>);

impl Poke {
    pub(super) fn look(&self) {
        if let Some(keeper) = self.0.upgrade() {
            // One that is full is about to look anyway.
            let _ = keeper.try_send(Tell::Look);
        }
    }
}

/// What the keeper works with.
pub(super) struct Office {
    pub(super) place: Place,
    pub(super) node_id: String,
    /// Connections of its own, so that no other traffic costs a lease.
    pub(super) pool: Pool,
    /// The key of the handles, by which the store is known.
    pub(super) handle_key: [u8; 32],
    pub(super) sinks: Arc<Sinks>,
    pub(super) standing: Arc<Standing>,
    /// Has the notices subscribed to anew.
    pub(super) resubscribe: Arc<Notify>,
}

impl Leases {
    /// Starts the keeper, after it has looked around once.
    pub(super) async fn start(office: Office, started_at: u64) -> Result<Self, Fault> {
        let (keeper, told) = mpsc::channel(COMMANDS);
        let (shown, held) = watch::channel(Held::default());
        let nodes = Arc::<Mutex<Vec<Node>>>::default();
        let mut task = Keeper {
            office,
            started_at,
            leases: BTreeMap::new(),
            counted: HashMap::new(),
            valid_until: Instant::now() + LASTS,
            draining: false,
            shown,
            nodes: Arc::clone(&nodes),
        };
        task.pass().await?;
        tokio::spawn(task.run(told));
        Ok(Self { held, nodes, keeper })
    }

    pub(super) fn held(&self) -> watch::Receiver<Held> {
        self.held.clone()
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        lock(&self.nodes).clone()
    }

    pub(super) fn poke(&self) -> Poke {
        Poke(self.keeper.downgrade())
    }

    pub(super) fn let_go(&self, strand: u16, epoch: u64) {
        // When this is lost, patience ends it.
        let _ = self.keeper.try_send(Tell::LetGo(strand, epoch));
    }

    pub(super) fn resign(&self) {
        let keeper = self.keeper.clone();
        if keeper.try_send(Tell::Resign).is_err() {
            tracing::warn!("the leases could not be given back early");
        }
    }

    /// Gives back what is left, and ends.
    pub(super) async fn close(&self) {
        let (done, ended) = oneshot::channel();
        if self.keeper.send(Tell::Close(done)).await.is_ok() {
            let _ = ended.await;
        }
    }
}

/// A lease of this node.
struct Mine {
    epoch: u64,
    /// It is to be given back, and since when.
    ending: Option<Instant>,
}

struct Keeper {
    office: Office,
    started_at: u64,
    leases: BTreeMap<u16, Mine>,
    /// How many deliveries the server had counted in each partition when it was looked at last.
    counted: HashMap<u16, u64>,
    /// Until then what is held is held for sure.
    valid_until: Instant,
    draining: bool,
    shown: watch::Sender<Held>,
    nodes: Arc<Mutex<Vec<Node>>>,
}

impl Keeper {
    async fn run(mut self, mut told: mpsc::Receiver<Tell>) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let valid_until = self.valid_until;
            let impatient = self.leases.values().filter_map(|mine| mine.ending).min().map(|since| since + PATIENCE);
            let what = tokio::select! {
                what = told.recv() => what,
                _ = tick.tick() => Some(Tell::Look),
                () = sleep_until(valid_until), if !self.leases.is_empty() => {
                    self.lose_all("they could not be renewed in time");
                    continue;
                }
                () = sleep_until(impatient.unwrap_or(valid_until)), if impatient.is_some() => {
                    self.let_go_late().await;
                    continue;
                }
            };
            let (mut next, mut free, mut look) = (Some(what), Vec::new(), false);
            // What is told in one breath is done at once: when a node stops, each of its leases is told of, to everyone.
            while let Some(what) = next {
                match what {
                    Some(Tell::LetGo(strand, epoch)) => {
                        let mine = self.leases.get(&strand);
                        if mine.is_some_and(|mine| mine.epoch == epoch && mine.ending.is_some()) {
                            free.push(strand);
                        }
                    }
                    Some(Tell::Look) => look = true,
                    Some(Tell::Resign) => (self.draining, look) = (true, true),
                    Some(Tell::Close(done)) => {
                        self.leave().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return self.leave().await,
                }
                next = told.try_recv().ok().map(Some);
            }
            if !free.is_empty() {
                self.give_back(free).await;
            }
            if look {
                self.look().await;
            }
        }
    }

    /// Looks after the leases; what goes wrong is tried again with the next tick.
    async fn look(&mut self) {
        let bound = self.valid_until.max(Instant::now() + EVERY);
        match timeout_at(bound, self.pass()).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!(%fault, "the leases could not be looked after"),
            Err(_) => tracing::warn!("Redis did not answer in time about the leases"),
        }
        self.show();
    }

    async fn pass(&mut self) -> Result<(), Fault> {
        if self.office.standing.is_emptied() {
            return Ok(());
        }
        let started = Instant::now();
        let mut reader = Reader::take(&self.office.pool).await?;
        let key: Option<Vec<u8>> = reader.one(command!("HGET", keys::STORE, "handle_key")).await?;
        if key.is_none_or(|key| key != self.office.handle_key) {
            self.office.standing.be_emptied();
            self.lose_all("the store was emptied");
            return Ok(());
        }
        let strands: Vec<u16> = self.leases.keys().copied().collect();
        let mut calls = vec![self.beat()?];
        calls.extend(self.leases.iter().map(|(strand, mine)| self.lease(*strand, Some(mine.epoch))));
        let mut replies = reader.carry_out(&calls).await?.into_iter();
        let (now, nodes) = self.read_nodes(replies.next().unwrap_or(Value::Nil))?;
        for (strand, reply) in strands.into_iter().zip(replies) {
            match read::<Option<(u64, u64)>>(reply)? {
                Some((_, counted)) => self.renewed(strand, counted),
                None => self.lose(strand),
            }
        }
        self.valid_until = started + LASTS;
        let share = self.share(&nodes);
        self.give_up_more_than(share);
        let wanted = share.saturating_sub(self.leases.len());
        if wanted > 0 && !self.draining {
            self.take_free(&mut reader, now, &nodes, wanted).await?;
        }
        metrics::gauge!("tract_nodes").set(nodes.len() as f64);
        *lock(&self.nodes) = nodes;
        self.show();
        Ok(())
    }

    fn beat(&self) -> Result<Call, Fault> {
        let says = Says {
            node_id: self.office.node_id.clone(),
            started_at: self.started_at,
            strands: self.leases.len(),
            draining: self.draining,
        };
        let says = serde_json::to_string(&says).map_err(|_| Fault::Unreadable("a node cannot say what it is"))?;
        Ok(self.beat_with(says))
    }

    fn beat_with(&self, says: String) -> Call {
        let mut call = Call::new(Script::Beat);
        call.key(keys::NODES).text(self.office.place.name()).text(says);
        call
    }

    fn lease(&self, strand: u16, epoch: Option<u64>) -> Call {
        let mut call = Call::new(Script::Lease);
        call.key(Partition(strand).head()).text(self.office.place.name()).number(LASTS.as_millis());
        call.text(epoch.map_or_else(String::new, |epoch| epoch.to_string()));
        call
    }

    /// Redis' time in milliseconds, and those that live, as far as Redis has heard.
    fn read_nodes(&self, reply: Value) -> Result<(u64, Vec<Node>), Fault> {
        let words: Vec<String> = read(reply)?;
        let now =
            words.first().and_then(|now| now.parse().ok()).ok_or(Fault::Unreadable("Redis does not tell its time"))?;
        let me = self.office.place.name();
        let nodes = words[1..].chunks_exact(3).filter_map(|words| {
            let says: Says = serde_json::from_str(&words[2]).ok()?;
            Some(Node {
                node_id: says.node_id,
                is_this: words[0] == me,
                instance: words[0].clone(),
                started_at_ms: says.started_at,
                seen_ms_ago: words[1].parse().ok()?,
                strands: says.strands,
                draining: says.draining,
            })
        });
        let mut nodes: Vec<Node> = nodes.filter(|node| u128::from(node.seen_ms_ago) <= LASTS.as_millis()).collect();
        nodes.sort_by(|a, b| (&a.node_id, &a.instance).cmp(&(&b.node_id, &b.instance)));
        Ok((now, nodes))
    }

    /// How many partitions are this node's fair share.
    fn share(&self, nodes: &[Node]) -> usize {
        if self.draining {
            return 0;
        }
        let staying = nodes.iter().filter(|node| !node.draining).count().max(1);
        usize::from(self.office.place.partitions).div_ceil(staying)
    }

    fn renewed(&mut self, strand: u16, counted: u64) {
        let before = self.counted.insert(strand, counted).unwrap_or(0);
        let told = self.office.sinks.counts.of(strand);
        if told < before {
            // What was counted a whole round ago ought to have been told by now.
            metrics::counter!("tract_missed_notices_total").increment(before - told);
            self.office.sinks.counts.set(strand, before);
            self.office.sinks.each(|sink| sink.missed_all(vec![strand]));
            self.office.resubscribe.notify_one();
        }
    }

    fn lose(&mut self, strand: u16) {
        if self.leases.remove(&strand).is_some() {
            self.forget(strand);
            metrics::counter!("tract_lease_changes_total", "change" => "lost").increment(1);
            tracing::warn!(strand, "another node has taken over a partition");
        }
    }

    fn lose_all(&mut self, why: &'static str) {
        if !self.leases.is_empty() {
            tracing::error!(why, strands = self.leases.len(), "the leases on partitions are lost");
        }
        for strand in std::mem::take(&mut self.leases).into_keys() {
            self.forget(strand);
            metrics::counter!("tract_lease_changes_total", "change" => "lost").increment(1);
        }
        self.show();
    }

    fn forget(&mut self, strand: u16) {
        self.counted.remove(&strand);
        self.office.sinks.counts.forget(strand);
    }

    /// Has what is more than this node's share end, once nothing is under way there.
    fn give_up_more_than(&mut self, share: usize) {
        let now = Instant::now();
        let ending = self.leases.values().filter(|mine| mine.ending.is_some()).count();
        let more = (self.leases.len() - ending).saturating_sub(share);
        for mine in self.leases.values_mut().rev().filter(|mine| mine.ending.is_none()).take(more) {
            mine.ending = Some(now);
        }
    }

    /// Takes so many partitions that nobody acts for: of those that a living node is said to have, the ones whose lease has
    /// expired, and this node's own. Such are left when the answer to who took them was lost, or who had them could not
    /// renew them in time: it does not know of them any more.
    async fn take_free(&mut self, reader: &mut Reader, now: u64, nodes: &[Node], wanted: usize) -> Result<(), Fault> {
        let others: HashSet<&str> =
            nodes.iter().filter(|node| !node.is_this).map(|node| node.instance.as_str()).collect();
        let rest = (0..self.office.place.partitions).filter(|strand| !self.leases.contains_key(strand));
        let rest: Vec<u16> = rest.collect();
        let lease = |strand: &u16| command!("HMGET", Partition(*strand).head(), "owner", "until");
        let leases: Vec<(Option<String>, Option<u64>)> = reader.all(rest.iter().map(lease).collect()).await?;
        // One that lasts longer than any was given under another server's clock, before a failover.
        let not_yet = now + 1..=now + u64::try_from(LASTS.as_millis()).unwrap_or(u64::MAX);
        let is_held = |(owner, until): &(Option<String>, Option<u64>)| {
            owner.as_deref().is_some_and(|owner| others.contains(owner)) && until.is_some_and(|u| not_yet.contains(&u))
        };
        let free = rest.into_iter().zip(leases).filter(|(_, lease)| !is_held(lease));
        let mut free: Vec<u16> = free.map(|(strand, _)| strand).collect();
        // Not from the same end as everyone.
        let turn = self.office.place.instance.as_u128() % (free.len().max(1) as u128);
        free.rotate_left(usize::try_from(turn).unwrap_or(0));
        free.truncate(wanted);
        let calls: Vec<Call> = free.iter().map(|strand| self.lease(*strand, None)).collect();
        let replies = reader.carry_out(&calls).await?;
        for (strand, reply) in free.into_iter().zip(replies) {
            if let Some((epoch, counted)) = read::<Option<(u64, u64)>>(reply)? {
                self.office.sinks.counts.set(strand, counted);
                self.counted.insert(strand, counted);
                self.leases.insert(strand, Mine { epoch, ending: None });
                metrics::counter!("tract_lease_changes_total", "change" => "taken").increment(1);
            }
        }
        Ok(())
    }

    async fn let_go_late(&mut self) {
        let now = Instant::now();
        let late = |mine: &Mine| mine.ending.is_some_and(|since| since + PATIENCE <= now);
        let late: Vec<u16> = self.leases.iter().filter(|(_, mine)| late(mine)).map(|(strand, _)| *strand).collect();
        self.give_back(late).await;
    }

    async fn give_back(&mut self, strands: Vec<u16>) {
        let mut calls = Vec::new();
        for strand in strands {
            let Some(mine) = self.leases.remove(&strand) else { continue };
            self.forget(strand);
            let mut call = Call::new(Script::Release);
            call.key(Partition(strand).head()).text(self.office.place.name()).number(mine.epoch);
            calls.push(call);
        }
        self.show();
        metrics::counter!("tract_lease_changes_total", "change" => "given_back").increment(calls.len() as u64);
        let give = async { Reader::take(&self.office.pool).await?.carry_out(&calls).await };
        if !matches!(timeout_at(Instant::now() + EVERY, give).await, Ok(Ok(_))) {
            tracing::warn!("leases could not be given back; they expire");
        }
    }

    async fn leave(&mut self) {
        let all = self.leases.keys().copied().collect();
        self.give_back(all).await;
        let gone = self.beat_with(String::new());
        let leave = async { Reader::take(&self.office.pool).await?.carry_out(&[gone]).await };
        // Else the others notice it.
        let _ = timeout_at(Instant::now() + EVERY, leave).await;
    }

    /// Shows what is held.
    fn show(&self) {
        let lease = |mine: &Mine| Lease { epoch: mine.epoch, ending: mine.ending.is_some() };
        let held = Held::new(self.leases.iter().map(|(strand, mine)| (*strand, lease(mine))).collect());
        metrics::gauge!("tract_leases_held").set(held.len() as f64);
        self.shown.send_if_modified(|shown| {
            let changed = *shown != held;
            *shown = held;
            changed
        });
    }
}
