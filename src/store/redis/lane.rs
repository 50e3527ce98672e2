//! A lane: a task that sends what waits in one pipeline, and does not send the next before that is answered.
//!
//! Redis carries out what one connection sends in the order in which it was sent. So sinks are told of deliveries in the
//! order in which they are committed; and many steps share a round trip, and with `appendfsync always` an fsync.
//!
//! A call is sent to whoever has its key. When a server says that it is not the one, or not yet, the call is sent again a
//! little later; others go on meanwhile. When an answer is lost the call may have been carried out: it is sent again until
//! it is answered, and nothing overtakes it, so that sinks miss nothing. Every step can be asked for twice and counts once.

use super::{
    fault::{Fault, Redirect, redirect},
    script::{Call, load_all},
    sinks::{Sinks, Standing, Told},
    target::Address,
    topology::Topology,
    writer::{Finished, Share},
};
use ::redis::{
    RedisError, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, time::sleep};

/// Steps that are added to one pipeline: enough to share the round trip and the fsync, few enough to keep the first one's
/// wait short.
const BATCH: usize = 256;

/// How long to wait before what could not be done is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// How long to wait between attempts to connect.
const CONNECT_AGAIN: Duration = Duration::from_millis(100);

/// A share on its way.
struct Going {
    share: Share,
    replies: Vec<Option<Value>>,
    /// It was sent and the answer was lost.
    perhaps_done: bool,
}

/// See the module.
pub(super) struct Lane {
    topology: Arc<Topology>,
    sinks: Arc<Sinks>,
    standing: Arc<Standing>,
    /// It waits for a server that is not there.
    down: Arc<AtomicBool>,
    connections: HashMap<Address, MultiplexedConnection>,
}

impl Lane {
    pub(super) fn new(
        topology: Arc<Topology>,
        sinks: Arc<Sinks>,
        standing: Arc<Standing>,
        down: Arc<AtomicBool>,
    ) -> Self {
        Self { topology, sinks, standing, down, connections: HashMap::new() }
    }

    /// Until nobody can ask any more.
    pub(super) async fn run(mut self, mut shares: mpsc::UnboundedReceiver<Share>) {
        let mut waiting: VecDeque<Going> = VecDeque::new();
        loop {
            if waiting.is_empty() {
                // Whoever asks next finds out.
                self.down.store(false, Ordering::Relaxed);
                let Some(share) = shares.recv().await else { return };
                waiting.push_back(Going::new(share));
            }
            if !waiting.iter().any(|going| going.perhaps_done) {
                let more = std::iter::from_fn(|| shares.try_recv().ok());
                waiting.extend(more.take(BATCH).map(Going::new));
            }
            let pause = self.round(&mut waiting).await;
            if !waiting.is_empty() {
                sleep(pause).await;
            }
        }
    }

    /// Sends what waits, answers what is done, and says how long to wait with the rest.
    async fn round(&mut self, waiting: &mut VecDeque<Going>) -> Duration {
        if self.standing.is_emptied() {
            give_up(waiting, "the store was emptied under way; this router must be started again");
            return PAUSE;
        }
        waiting.retain(|going| going.perhaps_done || going.share.is_wanted());
        metrics::histogram!("tract_store_batch_steps").record(waiting.len() as f64);
        let map = self.topology.map();
        let mut groups: BTreeMap<Address, Vec<(usize, usize)>> = BTreeMap::new();
        let (mut lost, mut is_absent): (Option<Fault>, bool) = (None, false);
        for (n, going) in waiting.iter().enumerate() {
            for (m, (_, call)) in going.share.calls.iter().enumerate() {
                if going.replies[m].is_some() {
                    continue;
                }
                match call.first_key().and_then(|key| map.primary_of(key.as_bytes())) {
                    Some(address) => groups.entry(address.clone()).or_default().push((n, m)),
                    None => {
                        lost = Some(Fault::Nobody("no server has some of the keys".into()));
                        is_absent = true;
                    }
                }
            }
        }
        self.connections.retain(|address, _| map.primaries().contains(address));
        for address in groups.keys() {
            if let Err(fault) = self.connect(address).await {
                (lost, is_absent) = (Some(fault), true);
            }
        }
        groups.retain(|address, _| self.connections.contains_key(address));
        let outcomes = self.send(&groups, waiting).await;
        let (mut elsewhere, mut unsent) = (lost.is_some(), lost.is_some());
        for (address, outcome) in outcomes {
            let group = &groups[&address];
            match outcome {
                Err(error) => {
                    self.connections.remove(&address);
                    group.iter().for_each(|(n, _)| waiting[*n].perhaps_done = true);
                    (elsewhere, unsent, lost) = (true, true, Some(error.into()));
                }
                Ok(replies) => {
                    for ((n, m), reply) in group.iter().zip(replies) {
                        let to = match &reply {
                            Value::ServerError(error) => redirect(error, &address),
                            _ => None,
                        };
                        match to {
                            None => waiting[*n].replies[*m] = Some(reply),
                            Some(Redirect::Elsewhere) => elsewhere = true,
                            Some(Redirect::Unknown) => drop(self.connections.remove(&address)),
                            Some(Redirect::Moving(_) | Redirect::Later) => {}
                        }
                    }
                }
            }
        }
        self.note(lost.as_ref());
        self.finish(waiting);
        if unsent && self.standing.is_closing() {
            give_up(waiting, "the store is closed");
        }
        if elsewhere {
            self.topology.look_again(&map).await;
        }
        match (is_absent, unsent) {
            (true, _) => CONNECT_AGAIN,
            (false, true) => Duration::ZERO,
            (false, false) => PAUSE,
        }
    }

    /// Tells of what is done, in order, and answers its callers.
    fn finish(&self, waiting: &mut VecDeque<Going>) {
        let (mut told, mut late, mut answers) = (Told::default(), Told::default(), Vec::new());
        let mut rest = VecDeque::new();
        for going in waiting.drain(..) {
            if going.replies.iter().any(Option::is_none) {
                rest.push_back(going);
                continue;
            }
            let replies = going.replies.into_iter().flatten().collect();
            match going.share.answered(replies, going.perhaps_done) {
                Finished::Not => {}
                Finished::Done(of_step, answer) => {
                    told.extend(of_step);
                    answers.push(answer);
                }
                Finished::Late(of_step, answer) => {
                    late.extend(of_step);
                    answers.push(answer);
                }
            }
        }
        *waiting = rest;
        // Who has been answered finds its deliveries told.
        self.sinks.tell(told);
        self.sinks.tell_late(late);
        for answer in answers {
            answer.give();
        }
    }

    /// Sends each server its group of calls, all at the same time.
    async fn send(
        &mut self,
        groups: &BTreeMap<Address, Vec<(usize, usize)>>,
        waiting: &VecDeque<Going>,
    ) -> Vec<(Address, Result<Vec<Value>, RedisError>)> {
        let sending = self.connections.iter_mut().filter_map(|(address, connection)| {
            let group = groups.get(address)?;
            let mut pipeline = ::redis::pipe();
            let calls = group.iter().map(|(n, m)| &waiting[*n].share.calls[*m].1);
            calls.for_each(|call: &Call| call.add_to(&mut pipeline));
            let count = group.len();
            Some(async move { (address.clone(), connection.req_packed_commands(&pipeline, 0, count).await) })
        });
        join_all(sending).await
    }

    /// Makes a connection, unless there is one, to a server that knows the scripts then.
    async fn connect(&mut self, address: &Address) -> Result<(), Fault> {
        if !self.connections.contains_key(address) {
            let mut connection = self.topology.connect(address).await?;
            load_all().query_async::<()>(&mut connection).await?;
            self.connections.insert(address.clone(), connection);
        }
        Ok(())
    }

    /// One line when a connection is lost, and one when it is there again.
    fn note(&self, lost: Option<&Fault>) {
        let was_down = self.down.swap(lost.is_some(), Ordering::Relaxed);
        match lost {
            Some(why) if !was_down => tracing::error!(%why, "the connection to Redis is lost"),
            None if was_down => tracing::info!("the connection to Redis is there again"),
            _ => {}
        }
    }
}

impl Going {
    fn new(share: Share) -> Self {
        let replies = share.calls.iter().map(|_| None).collect();
        Self { share, replies, perhaps_done: false }
    }
}

fn give_up(waiting: &mut VecDeque<Going>, why: &'static str) {
    for going in waiting.drain(..) {
        going.share.give_up(why, going.perhaps_done);
    }
}
