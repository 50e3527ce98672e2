//! Starting and stopping everything in here.

use crate::{
    dispatch::{Couriers, Dispatch},
    ports::{Clock, Deliverer, OutboxSink, Store, StoreError, Tenants},
    registry::Registry,
    retention,
    router::Router,
    timekeeper::Timers,
};
use actix::{Arbiter, ArbiterHandle};
use std::{sync::Arc, time::Duration};
use tokio::runtime::Handle;

/// What the shell needs of the world.
#[derive(Clone)]
pub struct World {
    /// What is durable.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The tenants' configuration.
    pub tenants: Arc<dyn Tenants>,
    /// What makes attempts at deliveries.
    pub deliverer: Arc<dyn Deliverer>,
    /// Where network I/O runs: a connection made on an arbiter would be bound to its thread.
    pub network: Handle,
}

/// The bounds of the shell, each with its reason.
#[derive(Debug, Clone)]
pub struct ShellSettings {
    /// Threads for actors; one for every two cores. Actors never block, and take about a fifth of the work; each more thread
    /// has to be woken more often for less.
    pub arbiters: usize,
    /// Commands in flight; past it callers are refused, so that a flood costs them, not memory.
    pub in_flight: usize,
    /// Conversation actors in memory; past it the least recently used leave.
    pub live_actors: usize,
    /// A conversation actor that nobody asked anything for so long leaves memory, in milliseconds.
    pub passivate_after_ms: u64,
    /// Attempts in flight for each endpoint: enough to be fast, too few to hurt an endpoint.
    pub attempts_per_endpoint: usize,
    /// Deliveries that a courier holds in memory; the rest of its backlog stays in the store.
    pub courier_window: usize,
    /// For how long conversations that are over are kept, in milliseconds; none is for ever.
    pub completed_kept_ms: Option<u64>,
}

impl Default for ShellSettings {
    fn default() -> Self {
        Self {
            arbiters: std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
            in_flight: 4096,
            live_actors: 100_000,
            passivate_after_ms: 5 * 60 * 1000,
            attempts_per_endpoint: 32,
            courier_window: 1024,
            completed_kept_ms: None,
        }
    }
}

/// Everything in here, running.
pub struct Shell {
    router: Router,
    dispatch: Arc<Dispatch>,
    timers: Timers,
    arbiters: Vec<Arbiter>,
    watches: Vec<tokio::task::JoinHandle<()>>,
}

/// How often dead couriers and a dead timekeeper are looked for. They die only by a bug; what they had to do is in the
/// store.
const WATCH: Duration = Duration::from_secs(5);

impl Shell {
    /// Starts the arbiters and their actors. Must be called inside an actix `System`.
    pub async fn start(world: World, settings: ShellSettings) -> Result<Self, StoreError> {
        let arbiters: Vec<Arbiter> = (0..settings.arbiters.max(1)).map(|_| Arbiter::new()).collect();
        let handles: Vec<ArbiterHandle> = arbiters.iter().map(Arbiter::handle).collect();
        let timers = Timers::begin(&handles[0], &world);
        let registries = handles
            .iter()
            .map(|handle| Registry::begin(handle, world.clone(), &settings, handles.len(), timers.clone()))
            .collect();
        let router = Router::new(registries, settings.in_flight);
        // Until it runs, a registry's mailbox has actix' 16 places, and a burst of first requests would be refused.
        router.live_actors().await;
        timers.go(router.clone());

        let first = handles[0].clone();
        let dispatch = Dispatch::new(world.clone(), router.clone(), handles, timers.clone(), &settings);
        world.store.subscribe(Arc::clone(&dispatch) as Arc<dyn OutboxSink>);
        // After subscribing, so that nothing falls between what is stored and what is told.
        for (endpoint, status) in world.store.endpoints().await? {
            if status.pending > 0 {
                dispatch.wake(&endpoint);
            }
        }
        let mut changes = world.tenants.changes();
        let couriers = Arc::clone(&dispatch);
        let standings = world.network.spawn(async move {
            while changes.changed().await.is_ok() {
                couriers.wake_all();
            }
        });
        let holdings = world.network.spawn(Arc::clone(&dispatch).follow());
        let watched = (Arc::clone(&dispatch), timers.clone(), router.clone(), world.clone());
        let watch = world.network.spawn(async move {
            let (dispatch, timers, router, world) = watched;
            loop {
                tokio::time::sleep(WATCH).await;
                dispatch.revive();
                timers.revive(&first, &world, &router);
            }
        });
        let (store, clock) = (Arc::clone(&world.store), Arc::clone(&world.clock));
        let retention = retention::forget(store, clock, router.clone(), settings.completed_kept_ms);
        let watches = vec![watch, standings, holdings, world.network.spawn(retention)];
        Ok(Self { router, dispatch, timers, arbiters, watches })
    }

    /// The handle to all conversations.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// A view on the couriers, for operators.
    pub fn couriers(&self) -> Couriers {
        Couriers(Arc::clone(&self.dispatch))
    }

    /// Stops taking commands, waits for those in flight, and ends the actors. What is not delivered stays in the store.
    pub async fn stop(self, within: Duration) {
        self.router.close(within).await;
        self.watches.iter().for_each(tokio::task::JoinHandle::abort);
        self.timers.end();
        self.dispatch.close(within).await;
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
        for arbiter in self.arbiters {
            // An arbiter that does not end is left behind; the process is about to exit.
            let joined = tokio::task::spawn_blocking(move || arbiter.join());
            let _ = tokio::time::timeout(within, joined).await;
        }
    }
}
