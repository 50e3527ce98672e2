//! What Redis costs, and what several nodes on it cost: routers on one Redis beside `redis-benchmark` running the same script
//! on the same server in the same run.
//!
//! `cargo bench --bench nodes -- [--nodes 1,2,3] [--threads N] [--hot N] [--seconds S] [--rounds R] [--appendfsync always|everysec]`
//!
//! Rounds alternate between everything that is compared: `redis-benchmark`, and each number of nodes, with messages spread
//! over many threads, and over a few hot ones that all nodes want at once. Each message goes to the next node. Then, how much
//! of Redis' memory a thread and a message take.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on ends")]

mod harness;

use clap::Parser;
use harness::{
    Server,
    drive::{Load, Pace, Run},
    figures::{Figures, Table},
    machine, median,
    redis::Redis,
    scene::{self, Channel},
    wire::{Call, Place},
};
use serde_json::json;
use std::{path::PathBuf, process::Command, time::Duration};

/// Connections in all, whatever the number of nodes.
const CONNECTIONS: usize = 60;

/// Threads that `redis-benchmark` spreads its calls over.
const KEYS: usize = 2_000;

const SHARED: &str = include_str!("../src/store/redis/scripts/shared.lua");
const COMMIT: &str = include_str!("../src/store/redis/scripts/commit.lua");

/// Measures routers on one Redis.
#[derive(Parser)]
#[command(name = "nodes")]
struct Options {
    /// How many nodes, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    nodes: Vec<usize>,
    /// Threads that messages are spread over.
    #[arg(long, default_value_t = 2_000)]
    threads: usize,
    /// Threads of the second kind of round, which all nodes want at once.
    #[arg(long, default_value_t = 16)]
    hot: usize,
    /// How long each round lasts.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How often each is repeated.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// When Redis syncs its append-only file.
    #[arg(long, default_value = "always")]
    appendfsync: String,
    /// Threads and messages to each of them, to see what they take of Redis' memory; 0 leaves that out.
    #[arg(long, default_value_t = 20_000)]
    sizing: usize,
    /// Writes all figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure(Options::parse()));
}

async fn measure(options: Options) {
    let machine = machine::describe();
    machine::show(&machine);
    let redis = Redis::start(&options.appendfsync);
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(256).build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = [("TRACT_STORE__KIND", "redis".to_owned()), ("TRACT_STORE__URL", redis.url())];
    let most = options.nodes.iter().copied().max().unwrap_or(1);
    let mut nodes = Vec::new();
    for _ in 0..most {
        nodes.push(Server::router_with(dir.path(), &http, &settings).await);
    }
    let token = scene::tenant(&nodes[0], &http, None).await;
    let channel =
        Channel { http: &http, url: &nodes[0].url, client: scene::CLIENT, api_token: harness::API, business: 1 };
    eprintln!("making {} threads …", options.threads);
    let users = channel.threads(options.threads.max(options.hot)).await;
    let floor = Floor::prepare(&redis).await;

    let place = |node: &Server| Place::new(&node.url, &token);
    let over = |users: &[String]| Load::new(place(&nodes[0]), scene::messages(users), CONNECTIONS);
    let kinds = [("spread", over(&users[..options.threads])), ("hot", over(&users[..options.hot]))];
    let lasting = Duration::from_secs(options.seconds);
    let mut rows: Vec<(String, Vec<Figures>)> = Vec::new();
    let mut note = |name: String, figures: Figures| match rows.iter_mut().find(|(known, _)| *known == name) {
        Some((_, all)) => all.push(figures),
        None => rows.push((name, vec![figures])),
    };
    let mut floors = Vec::new();
    for round in 1..=options.rounds {
        floors.push(floor.run(&redis, options.seconds));
        for (kind, load) in &kinds {
            for count in &options.nodes {
                let what = format!("{count} node(s), {kind}");
                // As many connections in all, whatever the number of nodes.
                let each =
                    nodes[..*count].iter().map(|node| load.shared_with(place(node), CONNECTIONS / count)).collect();
                let figures = drive(&nodes[..*count], each, &redis, &http, lasting, &format!("{what}, {round}")).await;
                note(what, figures);
            }
        }
    }

    println!("\nappendfsync {}, medians of {} rounds of {} s\n", options.appendfsync, options.rounds, options.seconds);
    let (rate, cpu) = (median(floors.iter().map(|f| f.0).collect()), median(floors.iter().map(|f| f.1).collect()));
    println!(
        "redis-benchmark, the same script, {CONNECTIONS} connections: {rate:.0}/s, {cpu:.1} µs of Redis' CPU each\n"
    );
    let mut table = Table::of_runs(["what"]);
    for (name, rounds) in &rows {
        table.run([name.as_str()], &Figures::medians(rounds), None);
    }
    println!("{table}");
    let mut all = Vec::new();
    for (name, rounds) in &rows {
        let medians = Figures::medians(rounds);
        println!(
            "{name}: {:.1} conflicts for 1000 messages; {:.2} of redis-benchmark's rate, {:.2} of its Redis CPU",
            medians.get("conflicts_per_1000"),
            medians.get("rate_per_s") / rate,
            medians.get("redis_cpu_us") / cpu
        );
        all.push(json!({"what": name, "medians": medians.json()}));
    }
    let size =
        if options.sizing > 0 { Some(sizing(&redis, &channel, &nodes[0], &token, options.sizing).await) } else { None };
    if let Some(path) = &options.json {
        let floor = json!({"rate_per_s": rate, "redis_cpu_us": cpu});
        let size = size.map(|(thread, message)| json!({"bytes_per_thread": thread, "bytes_per_message": message}));
        let all = json!({"bench": "nodes", "machine": machine, "redis_benchmark": floor, "runs": all, "sizing": size});
        harness::write(path, &format!("{all:#}\n"));
    }
}

/// Drives these nodes together.
async fn drive(
    nodes: &[Server],
    loads: Vec<Load>,
    redis: &Redis,
    http: &reqwest::Client,
    lasting: Duration,
    what: &str,
) -> Figures {
    let conflicts_before = conflicts(nodes, http).await;
    let cpu = || nodes.iter().map(Server::cpu).sum::<Duration>();
    let (before, redis_before) = (cpu(), redis.cpu());
    let runs = loads.iter().map(|load| load.drive(Pace::Closed(lasting), what));
    let run = Run::of_all(futures_util::future::join_all(runs).await);
    if let Some(fault) = &run.fault {
        eprintln!("{} failed, the first with: {fault}", run.failed);
    }
    let conflicts = conflicts(nodes, http).await - conflicts_before;
    let figures =
        Figures::of(&run).with_cpu("cpu_us", cpu() - before).with_cpu("redis_cpu_us", redis.cpu() - redis_before);
    let answered = figures.get("answered");
    figures.with("conflicts_per_1000", conflicts * 1e3 / answered.max(1.0))
}

async fn conflicts(nodes: &[Server], http: &reqwest::Client) -> f64 {
    let mut all = 0.0;
    for node in nodes {
        let text = http.get(format!("{}/metrics", node.url)).send().await.unwrap().text().await.unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("tract_commit_conflicts_total "));
        all += count.map_or(0.0, |count| count.parse::<f64>().unwrap());
    }
    all
}

/// The script of a commit as `redis-benchmark` can call it again and again: it takes the version and the sequence that it
/// finds for those that it expected. Everything else is as the router has it.
struct Floor {
    hash: String,
}

impl Floor {
    async fn prepare(redis: &Redis) -> Self {
        const FOUND: &str = "local version, sequence = tonumber(stored[1]), tonumber(stored[2])\n";
        assert!(COMMIT.contains(FOUND), "commit.lua has changed: so must this");
        let commit =
            COMMIT.replace(FOUND, &format!("{FOUND}expected_version, first_sequence = version, sequence + 1\n"));
        // Every key gets a random number of its own: the stream is another thread's.
        let commit = commit.replace("'XADD', entries, at", "'XADD', entries, '*'");
        let client = ::redis::Client::open(redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let script = format!("#!lua\n{SHARED}\n{commit}");
        let hash = ::redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async(&mut connection).await.unwrap();
        let mut threads = ::redis::pipe();
        for n in 0..KEYS {
            let fields = [("client", "acme"), ("business", "1"), ("auth_id", "x"), ("version", "0"), ("sequence", "0")];
            threads.hset_multiple(Self::thread(&format!("{n:012}")), &fields).ignore();
            let fields = [("state", "incomplete"), ("active", "bench"), ("snapshot", "")];
            threads.hset_multiple(Self::thread(&format!("{n:012}")), &fields).ignore();
        }
        threads.query_async::<()>(&mut connection).await.unwrap();
        Self { hash }
    }

    fn thread(n: &str) -> String {
        format!("{{tract:bench}}:thread:{n}")
    }

    /// Calls a second, and Redis' CPU for each, in µs.
    fn run(&self, redis: &Redis, seconds: u64) -> (f64, f64) {
        let snapshot = r#"{"format":1,"sequence":17,"conversation":1,"control":{"active":"bench","epoch":1},"phase":{"state":"incomplete"},"last_entry_at":1763800000000,"last_message_at":1763800000000,"last_changes":[]}"#;
        let entry = r#"{"format":1,"sequence":17,"conversation":1,"at":1763800000000,"control_epoch":1,"active":"bench","fact":{"message":{"sender":"ect","by":"bench","body":"{\"text\":\"Your parcel left the depot this morning and arrives tomorrow.\",\"type\":\"TEXT\",\"data\":{}}"}}}"#;
        let random = "__rand_int__";
        let (_, port) =
            redis.url().trim_end_matches("/0").rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        // About as many as fit into the time.
        let count = seconds * 15_000;
        let before = redis.cpu();
        let mut command = Command::new("redis-benchmark");
        command.args(["-p", &port, "-c", &CONNECTIONS.to_string(), "-n", &count.to_string(), "-r", &KEYS.to_string()]);
        command.args(["--csv", "EVALSHA", &self.hash, "6", "{tract:bench}:head", &Self::thread(random)]);
        command.arg(format!("{{tract:bench}}:entries:{random}"));
        command.args(["{tract:bench}:deadlines", "{tract:bench}:counts", "{tract:bench}:endpoints"]);
        command.args(["node", "0", "256", "1", "1000000000000000", "0123456789abcdef0123456789abcdef", random, "0"]);
        command.args(["1763800000000", snapshot, "incomplete", "bench", "keep", "1", "1", entry]);
        // No details, no kept answer, no endpoints, no turn, no deliveries.
        command.args(["", "", "0", "0", "", "", "0"]);
        let out = command.output().expect("redis-benchmark is installed, with redis-server");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let last = text.lines().last().unwrap_or_default();
        let rate = last.rsplit("\",\"").nth(6).and_then(|rate| rate.parse::<f64>().ok());
        let rate =
            rate.unwrap_or_else(|| panic!("redis-benchmark said {text:?} {}", String::from_utf8_lossy(&out.stderr)));
        (rate, (redis.cpu() - before).as_secs_f64() * 1e6 / count as f64)
    }
}

/// What a thread with its first message, and each further message, take of Redis' memory, in bytes.
async fn sizing(redis: &Redis, channel: &Channel<'_>, node: &Server, token: &str, count: usize) -> (f64, f64) {
    let client = ::redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    // What the keys take, each with all that is in it; not the server's buffers, which come and go.
    let mut used = async || {
        let (mut cursor, mut bytes) = (0_u64, 0);
        loop {
            let scan = ::redis::cmd("SCAN").arg(cursor).arg("MATCH").arg("{tract:*").arg("COUNT").arg(2_000).to_owned();
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await.unwrap();
            let mut sizes = ::redis::pipe();
            keys.iter().for_each(|key| {
                sizes.cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0);
            });
            if !keys.is_empty() {
                let sizes: Vec<u64> = sizes.query_async(&mut connection).await.unwrap();
                bytes += sizes.into_iter().sum::<u64>();
            }
            if next == 0 {
                return bytes as f64;
            }
            cursor = next;
        }
    };
    let before = used().await;
    let users = channel.more_threads("sized", count).await;
    let with_threads = used().await;
    let calls: Vec<Call> = (0..10).flat_map(|_| scene::messages(&users)).collect();
    let load = Load::new(Place::new(&node.url, token), calls, CONNECTIONS);
    let run = load.drive(Pace::EachOnce, "messages for sizing").await;
    let with_messages = used().await;
    let (thread, message) =
        ((with_threads - before) / count as f64, (with_messages - with_threads) / run.latency.len() as f64);
    println!(
        "memory of Redis: {thread:.0} bytes for a thread with its user and first message, {message:.0} for each further \
         message (of 62 bytes); {count} threads, 11 messages each"
    );
    (thread, message)
}
