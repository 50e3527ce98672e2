//! What one accepted, durable `message/send` costs, at which rates, beside bare axum with the same body in the same run.
//!
//! `cargo bench --bench load -- --help` says what can be set. Without `--rate` it first finds the highest rate in a closed
//! loop, then measures latency in an open loop at shares of it.
//!
//! Starts the real binary as its own process on a fresh store, makes threads over HTTP, and drives it from this process.
//! The server's CPU time and resident memory are read from `/proc`, so the generator's own cost stays out of them, though
//! it shares the machine. Rounds alternate between the bare server and the router; figures are medians over the rounds,
//! ratios medians of those within each round. With `--url` a running deployment is driven instead, of which only what a
//! caller sees can be measured.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on ends")]

mod harness;

use clap::{Parser, ValueEnum};
use harness::{
    Server, bare, chart,
    drive::{Load, Pace},
    figures::{Figures, Table},
    floor::{self, Way},
    machine,
    redis::Redis,
    scene::{self, Channel, Sink},
    server::Meter,
    targets::Targets,
    wire::Place,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

/// The shares of the highest rate at which latency is measured.
const SHARES: [f64; 6] = [0.1, 0.25, 0.5, 0.7, 0.8, 0.9];

/// The conditions that the targets are given for.
const CONNECTIONS: usize = 64;
const THREADS: usize = 2_000;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    Embedded,
    Redis,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Fsync {
    Always,
    Everysec,
}

/// Measures what a router carries, at which latency and cost.
#[derive(Parser)]
#[command(name = "load")]
struct Options {
    /// Where the router keeps its threads; for redis, a redis-server is started on a random port.
    #[arg(long, value_enum, default_value = "embedded")]
    store: Kind,
    /// When that redis-server syncs its append-only file.
    #[arg(long, value_enum, default_value = "always")]
    appendfsync: Fsync,
    /// Threads that messages go to.
    #[arg(long, default_value_t = THREADS)]
    threads: usize,
    /// Webhooks for each message, to a sink in this process: 0 or 1.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    hooks: u8,
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = CONNECTIONS)]
    connections: usize,
    /// How long each run lasts.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often each run is repeated.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Open loop at so many messages a second, without looking for the highest rate; several with commas.
    #[arg(long, value_delimiter = ',')]
    rate: Vec<f64>,
    /// The highest rate only.
    #[arg(long, conflicts_with = "rate")]
    closed: bool,
    /// Writes all figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws latency against rate.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Says which targets are met; ends with 1 if one is not.
    #[arg(long)]
    targets: bool,
    /// Another build of tract, driven in the same rounds, to say what a change has changed.
    #[arg(long, conflicts_with = "url")]
    before: Option<PathBuf>,
    /// What the router logs, to a file: `info`, as it does unless told otherwise, is a line for each message; `warn` none.
    #[arg(long, default_value = "info", conflicts_with = "url")]
    log: String,
    /// Drives what a message takes at least in the same rounds too: axum, the store and an HTTP client for the webhook, without and
    /// with actors between them.
    #[arg(long, conflicts_with = "url")]
    floor: bool,
    /// Drives a running deployment; needs --token, and --users or --api-token.
    #[arg(long, requires = "token")]
    url: Option<String>,
    /// The token of the receiver that holds the threads and sends.
    #[arg(long)]
    token: Option<String>,
    /// A file with the user_id of one thread on each line.
    #[arg(long)]
    users: Option<PathBuf>,
    /// Makes the threads through the channel side of this client (with --api-token), as users bench-0, bench-1 and so on.
    #[arg(long, default_value = scene::CLIENT)]
    client_id: String,
    /// That client's API token.
    #[arg(long, conflicts_with = "users")]
    api_token: Option<String>,
    /// And which of its businesses.
    #[arg(long, default_value_t = 1)]
    business: u64,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// A Redis server of a contestant's own, if that is where it keeps threads.
    fn redis(&self) -> Option<Redis> {
        let appendfsync = if self.appendfsync == Fsync::Always { "always" } else { "everysec" };
        (self.store == Kind::Redis).then(|| Redis::start(appendfsync))
    }

    /// Where a contestant's webhooks go, if there are any.
    async fn sink(&self) -> Option<Arc<Sink>> {
        if self.hooks == 1 { Some(Sink::start().await) } else { None }
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if bare::serve_if_asked(&runtime) || floor::serve_if_asked(&runtime) {
        return ExitCode::SUCCESS;
    }
    runtime.block_on(measure(Options::parse()))
}

/// A server that is driven, with all that belongs to it.
struct Contestant {
    name: &'static str,
    /// None of a running deployment.
    server: Option<Server>,
    redis: Option<Redis>,
    sink: Option<Arc<Sink>>,
    load: Load,
    // Removed last.
    _dir: tempfile::TempDir,
}

/// The names of contestants.
const BARE: &str = "bare axum";
const FLOOR: &str = "the parts";
const FLOOR_WITH_ACTORS: &str = "the parts, with actors";
const BEFORE: &str = "before";
const TRACT: &str = "tract";

/// One rate, or the highest.
struct Point {
    /// As text, with a share of the highest rate if it is one.
    offered: String,
    /// In messages a second; none in a closed loop.
    rate: Option<f64>,
    share: Option<f64>,
    /// The rounds of each contestant.
    rounds: Vec<(&'static str, Vec<Figures>)>,
}

async fn measure(options: Options) -> ExitCode {
    let machine = machine::describe();
    machine::show(&machine);
    let contestants = contestants(&options).await;
    let lasting = Duration::from_secs(options.seconds);
    // What is done once for each thread and connection is not a message's cost.
    point(&contestants, "warming up".to_owned(), Pace::Closed(lasting.min(Duration::from_secs(2))), 1).await;

    let mut points = Vec::new();
    let mut rates: Vec<(f64, Option<f64>)> = options.rate.iter().map(|rate| (*rate, None)).collect();
    if rates.is_empty() {
        let highest = point(&contestants, "highest".to_owned(), Pace::Closed(lasting), options.rounds).await;
        let most = Figures::medians(highest.of(TRACT)).get("rate_per_s");
        points.push(highest);
        if !options.closed {
            rates = SHARES.iter().map(|share| ((most * share).round().max(1.0), Some(*share))).collect();
        }
    }
    for (rate, share) in rates {
        let offered = share.map_or(format!("{rate}/s"), |share| format!("{rate}/s, {:.0} %", share * 100.0));
        let point = point(&contestants, offered, Pace::Open(rate, lasting), options.rounds).await;
        points.push(Point { share, ..point });
    }
    report(&options, machine, &points)
}

/// The bare server, the build to compare with if there is one, and the router; or the running deployment alone.
async fn contestants(options: &Options) -> Vec<Contestant> {
    let dir = || tempfile::tempdir().unwrap();
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(256).build().unwrap();
    if let Some(url) = &options.url {
        let users = deployment_threads(options, &http, url).await;
        let place = Place::new(url, options.token.as_deref().unwrap());
        let load = Load::new(place, scene::messages(&users), options.connections);
        return vec![Contestant { name: TRACT, server: None, redis: None, sink: None, load, _dir: dir() }];
    }
    let router = router(options, TRACT, Path::new(env!("CARGO_BIN_EXE_tract")), &http).await;
    let bare = Server::bare(&http).await;
    let load = router.load.at(Place::new(&bare.url, ""));
    let mut all = vec![Contestant { name: BARE, server: Some(bare), redis: None, sink: None, load, _dir: dir() }];
    for (name, actors) in [(FLOOR, false), (FLOOR_WITH_ACTORS, true)].into_iter().filter(|_| options.floor) {
        all.push(floor(options, name, actors, &router.load, &http).await);
    }
    if let Some(binary) = &options.before {
        all.push(self::router(options, BEFORE, binary, &http).await);
    }
    all.push(router);
    all
}

/// A router on a fresh store, with threads.
async fn router(options: &Options, name: &'static str, binary: &Path, http: &reqwest::Client) -> Contestant {
    let dir = tempfile::tempdir().unwrap();
    let redis = options.redis();
    let mut settings = vec![("RUST_LOG", options.log.clone())];
    if let Some(redis) = &redis {
        settings.extend([("TRACT_STORE__KIND", "redis".to_owned()), ("TRACT_STORE__URL", redis.url())]);
    }
    let server = Server::router_of(binary, dir.path(), http, &settings).await;
    let sink = options.sink().await;
    let token = scene::tenant(&server, http, sink.as_ref().map(|sink| sink.url.as_str())).await;
    eprintln!("making {} threads …", options.threads);
    let (client, api_token) = (scene::CLIENT, harness::API);
    let channel = Channel { http, url: &server.url, client, api_token, business: 1 };
    let calls = scene::messages(&channel.threads(options.threads).await);
    if let Some(sink) = &sink {
        // What the customers said goes there too.
        sink.until(options.threads as u64).await;
    }
    let load = Load::new(Place::new(&server.url, &token), calls, options.connections);
    Contestant { name, server: Some(server), redis, sink, load, _dir: dir }
}

/// What a message takes at least: the same messages as this load, and nothing of a router.
async fn floor(options: &Options, name: &'static str, actors: bool, load: &Load, http: &reqwest::Client) -> Contestant {
    let dir = tempfile::tempdir().unwrap();
    let (redis, sink) = (options.redis(), options.sink().await);
    let store = redis.as_ref().map_or_else(|| dir.path().display().to_string(), Redis::url);
    let way = Way { actors, store, hook: sink.as_ref().map(|sink| sink.url.clone()) };
    let server = Server::floor(&way, http).await;
    let load = load.at(Place::new(&server.url, ""));
    Contestant { name, server: Some(server), redis, sink, load, _dir: dir }
}

/// So many rounds through all contestants in turn.
async fn point(contestants: &[Contestant], offered: String, pace: Pace, rounds: usize) -> Point {
    let mut all: Vec<_> = contestants.iter().map(|contestant| (contestant.name, Vec::new())).collect();
    for round in 1..=rounds {
        for (contestant, (_, figures)) in contestants.iter().zip(&mut all) {
            let what = format!("{}, {offered}, round {round} of {rounds}", contestant.name);
            figures.push(contestant.run(pace, &what).await);
        }
    }
    let rate = if let Pace::Open(rate, _) = pace { Some(rate) } else { None };
    Point { offered, rate, share: None, rounds: all }
}

impl Contestant {
    async fn run(&self, pace: Pace, what: &str) -> Figures {
        let meter = self.server.as_ref().map(Meter::start);
        let redis_before = self.redis.as_ref().map(Redis::cpu);
        let received = self.sink.as_ref().map_or(0, |sink| sink.count());
        let run = self.load.drive(pace, what).await;
        if let Some(fault) = &run.fault {
            eprintln!("{what}: {} failed, the first with: {fault}", run.failed);
        }
        if let Some(sink) = &self.sink {
            // What it costs to deliver them belongs to them.
            sink.until(received + run.latency.len()).await;
        }
        let mut figures = meter.map_or_else(|| Figures::of(&run), |meter| meter.read(&run));
        if let (Some(redis), Some(before)) = (&self.redis, redis_before) {
            figures = figures.with_cpu("redis_cpu_us", redis.cpu() - before);
        }
        figures
    }
}

impl Point {
    fn of(&self, name: &str) -> &[Figures] {
        self.rounds.iter().find(|(of, _)| *of == name).map_or(&[], |(_, rounds)| rounds)
    }
}

/// The threads of a running deployment that messages are sent to.
async fn deployment_threads(options: &Options, http: &reqwest::Client, url: &str) -> Vec<String> {
    let url = url.trim_end_matches('/');
    match (&options.users, &options.api_token) {
        (Some(file), _) => {
            let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            text.split_whitespace().map(str::to_owned).collect()
        }
        (None, Some(api_token)) => {
            let (client, business) = (&*options.client_id, options.business);
            Channel { http, url, client, api_token, business }.threads(options.threads).await
        }
        (None, None) => panic!("--url needs --users FILE, or --api-token to make threads with"),
    }
}

fn report(options: &Options, machine: Value, points: &[Point]) -> ExitCode {
    let store = match (&options.url, options.store, options.appendfsync) {
        (Some(_), ..) => "a running deployment",
        (None, Kind::Embedded, _) => "embedded store",
        (None, Kind::Redis, Fsync::Always) => "Redis, appendfsync always",
        (None, Kind::Redis, Fsync::Everysec) => "Redis, appendfsync everysec",
    };
    let hooks = if options.hooks == 1 { "one hook" } else { "no hook" };
    println!(
        "\n{store}, {hooks}, {} threads, {} connections, medians of {} rounds of {} s; in brackets: over bare axum\n",
        options.threads, options.connections, options.rounds, options.seconds
    );
    let mut table = Table::of_runs(["offered", "server"]);
    let (mut runs, mut verdicts) = (Vec::new(), Targets::default());
    let mut lines: [Vec<(f64, f64)>; 4] = Default::default();
    for point in points {
        let (bare, tract) = (Figures::medians(point.of(BARE)), Figures::medians(point.of(TRACT)));
        let mut run = json!({
            "loop": if point.rate.is_some() { "open" } else { "closed" }, "offered": point.offered, "share_of_highest": point.share,
            "rounds": point.of(TRACT).iter().map(Figures::json).collect::<Vec<_>>(),
        });
        for (name, rounds) in &point.rounds {
            let medians = Figures::medians(rounds);
            let ratios = (*name != BARE).then(|| Figures::ratios(rounds, point.of(BARE)));
            table.run([point.offered.as_str(), name], &medians, ratios.as_ref());
            run[name.replace(' ', "_")] = medians.json();
        }
        let ratios = Figures::ratios(point.of(TRACT), point.of(BARE));
        run["over_bare_axum"] = ratios.json();
        if !point.of(BEFORE).is_empty() {
            let ratios = Figures::ratios(point.of(TRACT), point.of(BEFORE));
            table.ratios([point.offered.as_str(), "tract over before"], &ratios);
            run["over_before"] = ratios.json();
        }
        // What fell behind was offered more than it took: its points stay in order by what was offered.
        if let Some(at) = point.rate {
            for (line, name) in lines.iter_mut().zip(["p50_ms", "p99_ms", "p999_ms"]) {
                line.push((at, tract.get(name)));
            }
            lines[3].extend((!point.of(BARE).is_empty()).then(|| (at, bare.get("p99_ms"))));
        }
        runs.push(run);
        if options.targets {
            judge(options, point, &tract, &ratios, &mut verdicts);
        }
    }
    println!("{table}");
    if let Some(path) = &options.svg {
        let names = ["tract, p50", "tract, p99", "tract, p99.9", "bare axum, p99"];
        let lines: Vec<_> = names
            .into_iter()
            .zip(lines)
            .filter(|(_, points)| !points.is_empty())
            .map(|(name, points)| chart::Line { name: name.to_owned(), points })
            .collect();
        let title = format!("Latency of message/send, {store}, {hooks}");
        harness::write(path, &chart::draw(&title, "messages offered a second", "ms, from when it was due", &lines));
    }
    if let Some(path) = &options.json {
        let all = json!({
            "bench": "load", "machine": machine, "store": store, "hooks": options.hooks, "threads": options.threads,
            "connections": options.connections, "seconds": options.seconds, "rounds": options.rounds,
            "runs": runs, "targets": verdicts.json(),
        });
        harness::write(path, &format!("{all:#}\n"));
    }
    verdicts.exit_code()
}

/// Judges what there is a target for, under the conditions that it is given for.
fn judge(options: &Options, point: &Point, tract: &Figures, ratios: &Figures, verdicts: &mut Targets) {
    if options.url.is_some() || options.threads != THREADS || options.connections != CONNECTIONS {
        return;
    }
    let (store, most) = match (options.store, options.hooks) {
        (Kind::Embedded, 0) => ("embedded store", 4.0),
        (Kind::Redis, 0) => ("Redis", 2.8),
        (Kind::Embedded, _) => ("embedded store, one hook", 6.5),
        (Kind::Redis, _) => return,
    };
    let how = match point.share {
        None if point.rate.is_none() => "each as fast as it goes",
        Some(0.5) => "both at half of the router's highest rate",
        _ => return,
    };
    let parts = point.of(FLOOR_WITH_ACTORS);
    let least = Figures::ratios(parts, point.of(BARE)).get("cpu_us");
    let least = if parts.is_empty() { String::new() } else { format!(" (the parts alone: {least:.2} x)") };
    verdicts.at_most(&format!("{store}, CPU over bare axum, {how}{least}"), ratios.get("cpu_us"), most, "x");
    let durable = options.store == Kind::Embedded || options.appendfsync == Fsync::Always;
    if point.share.is_some() && durable && options.hooks == 0 {
        verdicts.at_most(&format!("{store}, p99 at half of the highest rate"), tract.get("p99_ms"), 20.0, "ms");
    }
}
