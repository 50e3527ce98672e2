//! The composition root: the one place that knows a concrete store and the actors. The binary and the tests build the
//! application through [`start`].

use crate::{
    clock::SystemClock,
    config::{Settings, StoreSettings},
    demo::{self, DemoError},
    http::{
        self, Edge, Readiness,
        files::{FileDesk, Links},
    },
    security::{
        chain::Roots,
        egress::{EgressClient, EgressFault, EgressRules},
        rates::Rates,
        signed_request::SignedRequests,
        tokens::{KeyFault, Tokens},
    },
    server::{
        self,
        tls::{Certificate, TlsFault},
    },
    store::{
        redis::{RedisOpenError, RedisStore},
        sqlite::{OpenError, SqliteOptions, SqliteStore},
    },
    telemetry::{self, TelemetryFault},
    tenancy::{Secret, Tenancy, TenancyError, expiry, follow::follow, secrets::make_token},
    webhook::WebhookDeliverer,
};
use metrics_exporter_prometheus::PrometheusHandle;
use std::{fs, io, io::Write, net::SocketAddr, path::PathBuf, sync::Arc, thread, time::Duration};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tract_actors::{
    Router, Shell, ShellSettings, World,
    ports::{Clock, Held, Store, StoreError},
};

/// How long requests in flight may take to end once the router stops.
const DRAIN: Duration = Duration::from_secs(4);

/// How long the actors may take to end after that.
const WIND_UP: Duration = Duration::from_secs(2);

/// How long the leases may take to be handed over.
const HAND_OVER: Duration = Duration::from_secs(2);

/// How long stopping may take in all: the process is to be gone 10 s after it was told to.
const STOP: Duration = Duration::from_secs(9);

/// Why the router did not start or did not run on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store in Redis could not be opened.
    #[error(transparent)]
    OpenRedis(#[from] RedisOpenError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tenants' configuration in the store cannot be used.
    #[error(transparent)]
    Tenancy(#[from] TenancyError),
    /// The HTTP client could not be made.
    #[error(transparent)]
    Egress(#[from] EgressFault),
    /// The tokens' keys cannot be used.
    #[error("security.jwt_keys: {0}")]
    Keys(#[from] KeyFault),
    /// Logs or metrics could not be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryFault),
    /// A file that the settings name cannot be read.
    #[error("egress.extra_roots: cannot read {0}: {1}")]
    Root(PathBuf, io::Error),
    /// The certificate cannot be used.
    #[error("{key}: {0}", key = .0.key())]
    Tls(#[from] TlsFault),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The runtime could not be made, or serving failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The demo did not come to its end.
    #[error("demo: {0}")]
    Demo(#[from] DemoError),
    /// It ended by itself; the log says why.
    #[error("the router ended unexpectedly")]
    Died,
}

/// A running router. It goes on until it is stopped; dropping this stops it without waiting.
pub struct Running {
    addr: SocketAddr,
    admin_token: Secret,
    router: Router,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), AppError>>,
}

impl Running {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
    /// What opens its admin API.
    pub fn admin_token(&self) -> &Secret {
        &self.admin_token
    }
    /// The handle to its conversations, for tests.
    pub fn router(&self) -> &Router {
        &self.router
    }
    /// Stops taking requests, finishes those in flight, and closes the store: within 10 s.
    pub async fn stop(self) -> Result<(), AppError> {
        drop(self.stop);
        self.ended.await.unwrap_or(Err(AppError::Died))
    }
    /// Waits for an end that nobody asked for.
    async fn died(&mut self) -> AppError {
        match (&mut self.ended).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => AppError::Died,
        }
    }
}

/// Starts the router on threads of its own: an actix system whose runtime serves the network, with one arbiter for each
/// core beside it. Answers once it listens.
pub async fn start(settings: Settings, clock: Arc<dyn Clock>, metrics: PrometheusHandle) -> Result<Running, AppError> {
    let (stop, stopped) = oneshot::channel();
    let (ready, begun) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    thread::Builder::new().name("tract".to_owned()).spawn(move || {
        // Whoever started it may have stopped listening; then nobody needs the result.
        let _ = end.send(run_system(settings, clock, metrics, ready, stopped));
    })?;
    match begun.await {
        Ok(Begun { addr, admin_token, router }) => Ok(Running { addr, admin_token, router, stop, ended }),
        Err(_) => match ended.await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Err(AppError::Died),
        },
    }
}

struct Begun {
    addr: SocketAddr,
    admin_token: Secret,
    router: Router,
}

fn run_system(
    settings: Settings,
    clock: Arc<dyn Clock>,
    metrics: PrometheusHandle,
    ready: oneshot::Sender<Begun>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), AppError> {
    let runtime = Builder::new_multi_thread().thread_name("tract-net").enable_all().build()?;
    actix::System::with_tokio_rt(move || runtime).block_on(run_router(settings, clock, metrics, ready, stopped))
}

async fn run_router(
    settings: Settings,
    clock: Arc<dyn Clock>,
    metrics: PrometheusHandle,
    ready: oneshot::Sender<Begun>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), AppError> {
    let network = Handle::current();
    let store = open_store(&settings).await?;
    say_durability(&*store);
    let rules = settings.egress.rules;
    let tenancy = Tenancy::load(Arc::clone(&store), rules).await?;
    let tokens = Arc::new(Tokens::new(jwt_keys(&settings, &tenancy).await?)?);
    let extra_roots = extra_roots(&settings)?;
    let http_client = EgressClient::routed(rules, &extra_roots, &settings.egress.routes)?;
    let signed = SignedRequests::new(
        Arc::clone(&store),
        Arc::clone(&tenancy),
        Arc::clone(&clock),
        http_client.clone(),
        Roots::load(&extra_roots),
    );
    let deliverer = WebhookDeliverer::new(Arc::clone(&store), Arc::clone(&tenancy), Arc::clone(&clock), http_client);
    let deliverer = Arc::new(deliverer);
    let world = World {
        store: Arc::clone(&store),
        clock: Arc::clone(&clock),
        tenants: Arc::clone(&tenancy) as _,
        deliverer: Arc::clone(&deliverer) as _,
        network: network.clone(),
    };
    let shell = Shell::start(world, shell_settings(&settings)).await?;

    let certificate = settings.tls.clone().map(Certificate::load).transpose()?.map(Arc::new);
    let listener = TcpListener::bind(settings.listen).await.map_err(|e| AppError::Listen(settings.listen, e))?;
    let addr = listener.local_addr()?;
    let admin_token = settings.security.admin_token.clone().unwrap_or_else(|| {
        let made = make_token("tract_admin_");
        // Only now that nothing stands in the way of starting; and before anybody can find the router up without it.
        // Not to stderr: that is the log, and logs hold no secrets. Without a stdout there is nobody to tell.
        let _ = writeln!(std::io::stdout(), "tract: admin token for this run: {}", made.expose());
        made
    });
    let readiness = Readiness::default();
    let expiring = network.spawn(expiry::watch(Arc::clone(&tenancy), Arc::clone(&clock)));
    let following = store.is_shared().then(|| network.spawn(follow(Arc::clone(&tenancy))));
    let links = Links::new(settings.public_url.clone(), certificate.is_some(), addr);
    let edge = Edge {
        files: FileDesk::new(links),
        threads: Arc::new(shell.router()),
        store: Arc::clone(&store),
        tenancy,
        tokens,
        signed: Arc::new(signed),
        deliverer,
        breakers: Arc::new(shell.couriers()),
        rates: Rates::new(settings.limits.requests_per_second_per_token),
        clock: Arc::clone(&clock),
        admin_token: admin_token.clone(),
        egress: rules,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        node_id: settings.node_id.clone(),
        waiting: tokio::sync::Semaphore::new(http::sync::WAITING),
        started_at: clock.now(),
    };
    let (drain, draining) = oneshot::channel::<()>();
    let service = http::service(Arc::new(edge));
    let bounds = server::Bounds::of(settings.limits.connections);
    let renewal = certificate.clone().map(|certificate| network.spawn(certificate.renew(clock)));
    let tls = certificate.is_some();
    let mut serving = network.spawn(async move {
        let drained = async {
            let _ = draining.await;
        };
        server::serve(listener, service, bounds, certificate, drained).await
    });
    let upkeep = network.spawn(telemetry::upkeep(metrics));
    tracing::info!(%addr, tls, node_id = %settings.node_id, "listening");
    // Nobody may be waiting for this any more; then the stop signal is there already.
    let _ = ready.send(Begun { addr, admin_token, router: shell.router() });

    let failed = tokio::select! {
        _ = stopped => None,
        ended = &mut serving => Some(ended),
    };
    readiness.drain();
    // Others deliver and fire timers from here on, while requests in flight end here.
    store.resign();
    drop(drain);
    let served = match failed {
        Some(ended) => ended.map_err(io::Error::other).and_then(|served| served),
        None => match timeout(DRAIN, &mut serving).await {
            Ok(ended) => ended.map_err(io::Error::other).and_then(|served| served),
            // Connections that are held open without a request do not keep the router up.
            Err(_) => {
                serving.abort();
                Ok(())
            }
        },
    };
    if store.is_shared() {
        let mut held = store.held();
        if timeout(HAND_OVER, held.wait_for(Held::is_empty)).await.is_err() {
            tracing::warn!("the leases could not be handed over; they expire");
        }
    }
    shell.stop(WIND_UP).await;
    following.inspect(JoinHandle::abort);
    upkeep.abort();
    expiring.abort();
    if let Some(renewal) = renewal {
        renewal.abort();
    }
    store.close().await;
    tracing::info!("stopped");
    Ok(served?)
}

/// Tells operators what the store promises.
fn say_durability(store: &dyn Store) {
    let durability = store.durability();
    metrics::gauge!("tract_store_survives_power_cut").set(f64::from(u8::from(durability.survives_power_cut)));
    if durability.survives_power_cut {
        tracing::info!("{}", durability.says);
    } else {
        tracing::warn!("{}", durability.says);
    }
}

async fn open_store(settings: &Settings) -> Result<Arc<dyn Store>, AppError> {
    match &settings.store {
        StoreSettings::Embedded { path, partitions } => {
            let options = SqliteOptions { partitions: *partitions, ..SqliteOptions::default() };
            Ok(SqliteStore::open(path, options)?)
        }
        StoreSettings::Redis { url, ca, partitions } => {
            Ok(RedisStore::open_trusting(ca.as_deref(), url.expose(), *partitions, &settings.node_id).await?)
        }
    }
}

fn shell_settings(settings: &Settings) -> ShellSettings {
    let passivate_after_ms = settings.limits.passivate_after.as_millis().try_into().unwrap_or(u64::MAX);
    let defaults = ShellSettings::default();
    ShellSettings {
        arbiters: settings.limits.actor_threads.unwrap_or(defaults.arbiters),
        in_flight: settings.limits.in_flight,
        live_actors: settings.limits.live_actors,
        passivate_after_ms,
        completed_kept_ms: settings.retention.completed.map(|kept| kept.as_millis().try_into().unwrap_or(u64::MAX)),
        ..defaults
    }
}

/// The keys of the settings, else one that is made once and kept in the store.
async fn jwt_keys(settings: &Settings, tenancy: &Tenancy) -> Result<Vec<(String, Secret)>, AppError> {
    if !settings.security.jwt_keys.is_empty() {
        return Ok(settings.security.jwt_keys.iter().map(|key| (key.kid.clone(), key.secret.clone())).collect());
    }
    let made = tenancy.deployment_secret("jwt", || make_token("").expose().to_owned()).await?;
    Ok(vec![("store".to_owned(), made)])
}

fn extra_roots(settings: &Settings) -> Result<Vec<Vec<u8>>, AppError> {
    let roots = settings.egress.extra_roots.iter();
    roots.map(|path| fs::read(path).map_err(|e| AppError::Root(path.clone(), e))).collect()
}

/// Runs a future on a small runtime of the caller's thread; the router itself brings its own.
pub fn run<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// Runs the router until SIGTERM or SIGINT.
pub async fn serve(settings: Settings) -> Result<(), AppError> {
    let _logging = telemetry::log("info")?;
    let mut running = start(settings, Arc::new(SystemClock), telemetry::collect()?).await?;
    tokio::select! {
        signal = told_to_stop() => signal?,
        error = running.died() => return Err(error),
    }
    tracing::info!("stopping");
    match timeout(STOP, running.stop()).await {
        Ok(stopped) => stopped,
        // What is not committed by now was not acknowledged either.
        Err(_) => {
            tracing::warn!("exiting although the store is still busy");
            Ok(())
        }
    }
}

/// The whole system on this machine: the router on a fresh store that goes with the process, and beside it everyone who
/// talks to it. Ends at the first SIGTERM or SIGINT.
pub async fn demo(listen: SocketAddr) -> Result<(), AppError> {
    // What the demo shows is on stdout; the router's log would only stand in between.
    let _logging = telemetry::log("warn")?;
    let directory = tempfile::Builder::new().prefix("tract-demo-").tempdir()?;
    let mut settings = Settings { listen, ..Settings::default() };
    settings.store = StoreSettings::Embedded { path: directory.path().to_owned(), partitions: 256 };
    settings.egress.rules = EgressRules { allow_private: true, allow_http: true };
    // The demo shows it where it belongs in the story.
    settings.security.admin_token = Some(make_token("tract_admin_"));
    let running = start(settings, Arc::new(SystemClock), telemetry::collect()?).await?;
    let url = format!("http://{}", running.addr());
    let stop = async {
        if let Err(error) = told_to_stop().await {
            tracing::error!(%error, "signals cannot be caught");
        }
    };
    let played = demo::run(&url, running.admin_token().expose(), demo::Options::default(), stop).await;
    running.stop().await?;
    Ok(played?)
}

/// Returns at the first SIGTERM or SIGINT.
pub async fn told_to_stop() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
