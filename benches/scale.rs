//! What the work costs as it grows: the same traffic on stores with 10^3 to 10^6 threads of ten messages each.
//!
//! `cargo bench --bench scale -- --help` says what can be set; `--up-to 100000` is enough for a first look.
//!
//! The stores are written through the `Store` trait in this process, each size on top of the one before, and then copied.
//! With all sizes ready, one router is started on each, and rounds go through all of them in turn, so that what else the
//! machine does meets all alike; ratios are within a round. Traffic is `message/send` of two kinds: *warm*, to 1000 threads
//! that are spread over the store and have an actor in memory; and *cold*, to threads all over the store, of a router that
//! may keep only few actors, so that nearly every message has its thread read first (from the disk as the system caches
//! it: nothing is done to have it forget).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on ends")]

mod harness;

use clap::Parser;
use harness::{
    Server, bare,
    drive::{Load, Pace},
    figures::{Figures, Table},
    machine, median, scene,
    seed::{Growing, MESSAGES},
    server::Meter,
    targets::Targets,
    wire::{Call, Place},
};
use serde_json::{Map, Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

/// Threads that have an actor in memory where traffic is warm.
const WARM: usize = 1_000;

/// Actors that a router may keep where traffic is cold.
const FEW: usize = 128;

/// Threads of a store that are asked for, at most; a little fewer than a router keeps in memory unless told otherwise.
const MOST: usize = 99_000;

/// Measures what the work costs as it grows.
#[derive(Parser)]
#[command(name = "scale")]
struct Options {
    /// Threads of the largest store; every power of ten from 1000 on is measured.
    #[arg(long, default_value_t = 1_000_000)]
    up_to: usize,
    /// How long each run lasts.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often each run is repeated.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages a second where the rate is fixed.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Where the stores are made, and removed in the end. Default: the system's directory for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Writes all figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Says which targets are met; ends with 1 if one is not.
    #[arg(long)]
    targets: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if bare::serve_if_asked(&runtime) {
        return ExitCode::SUCCESS;
    }
    runtime.block_on(measure(Options::parse()))
}

/// A store of one size, what is asked of it, and what was measured.
struct Size {
    threads: usize,
    dir: PathBuf,
    bytes: u64,
    /// Of threads that are spread evenly over the store.
    handles: Vec<String>,
    /// The handle of the long thread, and the sequence in its middle.
    long: (String, u64),
    started_s: Vec<f64>,
    killed_s: Vec<f64>,
    resident_mib: Vec<f64>,
    /// The rounds of each of `KINDS`.
    rounds: [Vec<Figures>; KINDS.len()],
}

/// What is measured, in this order; how, and whether threads are warm.
const KINDS: [(&str, How, bool); 5] = [
    ("warm, closed loop", How::Closed, true),
    ("warm, fixed rate", How::Rate, true),
    ("feed from the middle", How::Feed, true),
    ("cold, closed loop", How::Closed, false),
    ("cold, fixed rate", How::Rate, false),
];

#[derive(Clone, Copy, PartialEq)]
enum How {
    Closed,
    Rate,
    /// Pages of 100 entries from the middle of the long thread.
    Feed,
}

async fn measure(options: Options) -> ExitCode {
    let machine = machine::describe();
    machine::show(&machine);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let root = options.dir.as_ref().map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let (mut sizes, token) = make(&options, root.path(), &http).await;
    for size in &mut sizes {
        for _ in 0..options.rounds {
            let router = Server::router(&size.dir, &http).await;
            size.started_s.push(router.started_in.as_secs_f64());
            size.resident_mib.push(router.resident_kib() as f64 / 1024.0);
            router.stop();
        }
    }
    for warm in [true, false] {
        rounds(&options, &mut sizes, warm, &token, &http).await;
    }
    let memory = memory(&options, &sizes[sizes.len() - 1], &token, &http).await;
    report(&options, machine, &sizes, &memory)
}

/// Makes the stores, and the token for all of them.
async fn make(options: &Options, root: &Path, http: &reqwest::Client) -> (Vec<Size>, String) {
    let powers: Vec<usize> = (3..9).map(|power| 10usize.pow(power)).filter(|n| *n <= options.up_to).collect();
    let growing = root.join("largest");
    fs::create_dir(&growing).unwrap();
    let (mut store, token) = Growing::new(&growing, http).await;
    let mut made = Vec::new();
    for threads in &powers {
        let begun = Instant::now();
        store.grow(*threads).await;
        eprintln!("{threads} threads in {:.0} s more", begun.elapsed().as_secs_f64());
        let dir = if Some(threads) == powers.last() { growing.clone() } else { root.join(threads.to_string()) };
        if dir != growing {
            store.copy_to(&growing, &dir).await;
        }
        let count = (*threads).min(MOST);
        made.push(Size {
            threads: *threads,
            dir,
            bytes: 0,
            handles: (0..count).map(|n| store.handle(n * (threads / count)).as_str().to_owned()).collect(),
            long: (store.long_handle().as_str().to_owned(), store.long / 2),
            started_s: Vec::new(),
            killed_s: Vec::new(),
            resident_mib: Vec::new(),
            rounds: Default::default(),
        });
    }
    assert!(!made.is_empty(), "--up-to is at least 1000");
    store.close().await;
    for size in &mut made {
        let file = fs::File::open(size.dir.join("tract-data/tract.db")).unwrap();
        // What the system has yet to write would be in the way of what is measured.
        file.sync_all().unwrap();
        size.bytes = file.metadata().unwrap().len();
    }
    (made, token)
}

/// One router on each size, and rounds through all of them in turn.
async fn rounds(options: &Options, sizes: &mut [Size], warm: bool, token: &str, http: &reqwest::Client) {
    let lasting = Duration::from_secs(options.seconds);
    let mut routers = Vec::new();
    for size in sizes.iter() {
        let few = ("TRACT_LIMITS__LIVE_ACTORS", FEW.to_string());
        let router = Server::router_with(&size.dir, http, if warm { &[] } else { std::slice::from_ref(&few) }).await;
        let place = Place::new(&router.url, token);
        let step = if warm { size.handles.len() / WARM } else { 1 };
        let handles: Vec<String> = size.handles.iter().step_by(step).cloned().collect();
        let messages = Load::new(place.clone(), scene::messages(&handles), options.connections);
        messages.drive(if warm { Pace::EachOnce } else { Pace::Closed(lasting) }, "warming up").await;
        let page = format!("/tract/thread/feed?user_id={}&after={}&limit=100", size.long.0, size.long.1);
        routers.push((router, messages, Load::new(place, vec![Call::get(&page)], options.connections.min(8))));
    }
    for round in 1..=options.rounds {
        for (n, (kind, how, _)) in KINDS.iter().enumerate().filter(|(_, kind)| kind.2 == warm) {
            for (size, (router, messages, feed)) in sizes.iter_mut().zip(&routers) {
                let what = format!("{kind}, {} threads, round {round} of {}", size.threads, options.rounds);
                let meter = Meter::start(router);
                let run = match how {
                    How::Closed => messages.drive(Pace::Closed(lasting), &what).await,
                    How::Rate => messages.drive(Pace::Open(options.rate, lasting), &what).await,
                    How::Feed => feed.drive(Pace::Closed(lasting), &what).await,
                };
                if let Some(fault) = &run.fault {
                    eprintln!("{what}: {} failed, the first with: {fault}", run.failed);
                }
                size.rounds[n].push(meter.read(&run));
            }
        }
    }
    for (size, (router, ..)) in sizes.iter_mut().zip(routers) {
        // This is `kill -9`, and traffic has left something in the log.
        drop(router);
        let again = Server::router(&size.dir, http).await;
        size.killed_s.push(again.started_in.as_secs_f64());
        again.stop();
    }
}

/// Resident memory with so many live threads that nobody asks anything: of the largest store, threads and KiB.
async fn memory(options: &Options, size: &Size, token: &str, http: &reqwest::Client) -> Vec<(usize, u64)> {
    let router = Server::router(&size.dir, http).await;
    let (mut live, mut steps) = (0, Vec::new());
    for upto in [WARM, size.handles.len() / 2, size.handles.len()] {
        if upto <= live {
            continue;
        }
        let calls = scene::messages(&size.handles[live..upto]);
        let load = Load::new(Place::new(&router.url, token), calls, options.connections);
        let run = load.drive(Pace::EachOnce, "bringing threads to life").await;
        assert_eq!(run.failed, 0, "{:?}", run.fault);
        live = upto;
        // What requests have left behind is gone by then; the actors are not (5 minutes).
        tokio::time::sleep(Duration::from_secs(3)).await;
        steps.push((live, router.resident_kib()));
    }
    steps
}

fn report(options: &Options, machine: Value, sizes: &[Size], memory: &[(usize, u64)]) -> ExitCode {
    let (smallest, largest) = (&sizes[0], &sizes[sizes.len() - 1]);
    let mut stores = Table::new(["threads", "on disk MiB", "start-up s", "after kill -9 s", "resident at start MiB"]);
    let mut runs = Table::of_runs(["what", "threads"]);
    let mut all = Vec::new();
    for size in sizes {
        let [started, killed, resident] =
            [&size.started_s, &size.killed_s, &size.resident_mib].map(|of| median(of.clone()));
        let (threads, bytes) = (size.threads.to_string(), (size.bytes >> 20).to_string());
        stores.row([threads, bytes, format!("{started:.3}"), format!("{killed:.3}"), format!("{resident:.1}")]);
        let figures = KINDS.iter().enumerate().map(|(n, (kind, ..))| {
            let ratios = Figures::ratios(&size.rounds[n], &smallest.rounds[n]);
            let medians = Figures::medians(&size.rounds[n]);
            ((*kind).to_owned(), json!({"medians": medians.json(), "over_smallest": ratios.json()}))
        });
        all.push(json!({
            "threads": size.threads, "messages": size.threads * MESSAGES, "messages_of_long_thread": size.long.1 * 2,
            "bytes": size.bytes, "start_s": started, "start_after_kill_s": killed, "resident_at_start_mib": resident,
            "runs": figures.collect::<Map<_, _>>(),
        }));
    }
    for (n, (kind, ..)) in KINDS.iter().enumerate() {
        for size in sizes {
            let ratios = Figures::ratios(&size.rounds[n], &smallest.rounds[n]);
            runs.run([*kind, &size.threads.to_string()], &Figures::medians(&size.rounds[n]), Some(&ratios));
        }
    }
    println!(
        "\n{MESSAGES} messages in each thread; {} connections, fixed rate {}/s, medians of {} rounds of {} s; in brackets: \
         over {} threads\n\n{stores}\n{runs}",
        options.connections, options.rate, options.rounds, options.seconds, smallest.threads
    );
    let (beyond, half) = match memory {
        [first, .., middle, last] => (each(*first, *last), each(*middle, *last)),
        _ => (f64::NAN, f64::NAN),
    };
    println!(
        "resident memory, live threads and KiB: {memory:?}; {beyond:.2} KiB for each beyond the first {WARM}, {half:.2} KiB \
         for each of the second half, when the store's own caches are full"
    );

    let mut targets = Targets::default();
    if options.targets {
        targets.at_most("start-up on the largest store", median(largest.started_s.clone()), 2.0, "s");
        targets.at_most("resident memory for each idle live thread", beyond, 3.0, "KiB");
        for (n, (kind, how, _)) in KINDS.iter().enumerate() {
            let ratios = Figures::ratios(&largest.rounds[n], &smallest.rounds[n]);
            let mut judge = |name| {
                let what = format!("{kind}, {name}, {} threads over {}", largest.threads, smallest.threads);
                targets.at_most(&what, ratios.get(name), 1.3, "x");
            };
            match how {
                How::Closed => judge("cpu_us"),
                How::Rate => ["p50_ms", "p99_ms"].into_iter().for_each(judge),
                How::Feed => {}
            }
        }
    }
    if let Some(path) = &options.json {
        let all = json!({
            "bench": "scale", "machine": machine, "seconds": options.seconds, "rounds": options.rounds,
            "rate": options.rate, "connections": options.connections, "stores": all,
            "memory": {"live_threads_and_kib": memory, "kib_each_beyond_first": beyond, "kib_each_of_second_half": half},
            "targets": targets.json(),
        });
        harness::write(path, &format!("{all:#}\n"));
    }
    targets.exit_code()
}

/// KiB for each thread between two steps.
fn each((few, less): (usize, u64), (many, more): (usize, u64)) -> f64 {
    (more as f64 - less as f64) / (many as f64 - few as f64)
}
