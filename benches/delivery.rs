//! How webhooks are delivered under load, to sinks in this process, by the real binary.
//!
//! `cargo bench --bench delivery -- latency [--seconds S] [--rates 200,1000,2000] [--targets]`: from a customer's message to
//! its webhook; says on request whether that is as fast as it is to be.
//! `cargo bench --bench delivery -- fairness [--endpoints E] [--rate R] [--seconds S] [--rounds N]`: what one dead, one slow
//! (4.9 s) and one half-broken endpoint cost the others: rounds with and without these faults take turns.
//! `cargo bench --bench delivery -- backlog [--deliveries N]`: N deliveries queued for a dead endpoint, a restart, and
//! then all of them delivered.
//!
//! Arrivals are open-loop: a message is due at its time whatever became of those before, and latency counts from then.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on ends")]

mod harness;

use axum::{Router, body::Bytes, extract::State, http::StatusCode};
use harness::{ADMIN, API, Server, median, number, post, targets::Targets, token};
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Threads of each endpoint.
const THREADS: usize = 20;

fn main() -> ExitCode {
    let mut targets = Targets::default();
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let rates = args.iter().position(|a| a == "--rates").and_then(|at| args.get(at + 1));
    let rates = rates.map_or("200,1000,2000", String::as_str).split(',').map(|r| r.parse().expect("a rate")).collect();
    let seconds = number(&args, "--seconds", 15);
    match args.first().map(String::as_str) {
        Some("fairness") => runtime.block_on(fairness(
            number(&args, "--endpoints", 50),
            number(&args, "--rate", 400),
            seconds,
            number(&args, "--rounds", 3),
        )),
        Some("backlog") => runtime.block_on(backlog(number(&args, "--deliveries", 1_000_000))),
        Some("latency") | None => {
            let judged = args.iter().any(|a| a == "--targets").then_some(&mut targets);
            runtime.block_on(latency(rates, seconds, judged));
        }
        Some(other) => panic!("{other}? latency, fairness or backlog"),
    }
    targets.exit_code()
}

/// How an endpoint of the sink behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Fine,
    /// Answers after 4.9 s.
    Slow,
    /// Answers 500 in half of the cases.
    Flaky,
    /// Answers 503 always.
    Dead,
}

/// What the sink got.
#[derive(Default)]
struct Got {
    /// When each message arrived first, by its number.
    first: HashMap<u64, Instant>,
    /// The last number of each thread that was taken.
    last: HashMap<String, u64>,
    reordered: usize,
    /// Those that came again, which a receiver must expect.
    again: usize,
}

struct Sink {
    manners: Vec<Mutex<Manner>>,
    got: Vec<Mutex<Got>>,
    calls: AtomicU64,
}

#[derive(Deserialize)]
struct Webhook {
    user_id: String,
    message_body: String,
}

#[derive(Deserialize)]
struct Element {
    text: String,
}

impl Sink {
    async fn start(endpoints: usize) -> (Arc<Self>, String) {
        let sink = Arc::new(Self {
            manners: (0..endpoints).map(|_| Mutex::new(Manner::Fine)).collect(),
            got: (0..endpoints).map(|_| Mutex::default()).collect(),
            calls: AtomicU64::new(0),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/{endpoint}", axum::routing::post(Self::receive)).with_state(Arc::clone(&sink));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (sink, url)
    }

    async fn receive(
        State(sink): State<Arc<Self>>,
        axum::extract::Path(endpoint): axum::extract::Path<usize>,
        body: Bytes,
    ) -> StatusCode {
        let now = Instant::now();
        let call = sink.calls.fetch_add(1, Ordering::Relaxed);
        let manner = *sink.manners[endpoint].lock().unwrap();
        match manner {
            Manner::Dead => return StatusCode::SERVICE_UNAVAILABLE,
            Manner::Flaky if call.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 0 => {
                return StatusCode::INTERNAL_SERVER_ERROR;
            }
            Manner::Slow => tokio::time::sleep(Duration::from_millis(4_900)).await,
            Manner::Fine | Manner::Flaky => {}
        }
        let webhook: Webhook = serde_json::from_slice(&body).unwrap();
        let element: Element = serde_json::from_str(&webhook.message_body).unwrap();
        let number: u64 = element.text.split(' ').next().unwrap().parse().unwrap();
        let mut got = sink.got[endpoint].lock().unwrap();
        let last = got.last.get(&webhook.user_id).copied().unwrap_or(0);
        if got.first.contains_key(&number) {
            got.again += 1;
        } else if number < last {
            got.reordered += 1;
        } else {
            got.last.insert(webhook.user_id, number);
        }
        got.first.entry(number).or_insert(now);
        StatusCode::OK
    }

    fn count(&self, endpoint: usize) -> usize {
        self.got[endpoint].lock().unwrap().first.len()
    }

    fn forget(&self) {
        self.got.iter().for_each(|got| *got.lock().unwrap() = Got::default());
    }
}

/// A router with so many tenants, each with an agent tool that holds all its threads and one hook.
struct Scene {
    router: Server,
    http: reqwest::Client,
    sink: Arc<Sink>,
    endpoints: usize,
    /// Where the store is; removed at the end.
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new(endpoints: usize, threads: usize) -> Self {
        Self::with(endpoints, endpoints, threads).await
    }

    /// Only the first so many of the endpoints have a hook.
    async fn with(endpoints: usize, hooks: usize, threads: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(512).build().unwrap();
        let router = Server::router(dir.path(), &http).await;
        let (sink, url) = Sink::start(endpoints).await;
        let clients: Vec<_> = (0..endpoints)
            .map(|n| {
                json!({"client_id": format!("c{n}"), "api_token": API, "ects": ["bench"], "handoff_timeout": "0s",
                       "business": [{"business_id": 1}]})
            })
            .collect();
        let tenants = json!({"ect": [{"ect_id": "bench", "fqdn": "bench.example"}], "client": clients});
        post(&http, format!("{}/admin/v1/apply", router.url), ADMIN, "c0", tenants).await;
        for n in 0..endpoints {
            let client = format!("c{n}");
            let bearer = token(&router, &http, &client, "bench").await;
            let hook = json!({"category": "message", "subcategory": "receive", "url": format!("{url}/{n}")});
            if n < hooks {
                post(&http, format!("{}/tract/hooks/register", router.url), &bearer, &client, hook).await;
            }
            for thread in 0..threads {
                let user = json!({"auth_id": format!("user-{thread}")});
                post(&http, format!("{}/v1.0/user", router.url), API, &client, user).await;
            }
        }
        Self { router, http, sink, endpoints, dir }
    }

    fn say(&self, endpoint: usize, thread: usize, number: u64) -> impl Future<Output = Duration> + Send + use<> {
        let (http, url) = (self.http.clone(), format!("{}/v1.0/log_message_from_user", self.router.url));
        async move {
            let text = format!("{number} your parcel left the depot this morning and arrives tomorrow");
            let message = json!({"user": {"auth_id": format!("user-{thread}")}, "message_body": text, "message_type": 0,
                                 "business_id": 1});
            let begun = Instant::now();
            post(&http, url, API, &format!("c{endpoint}"), message).await;
            begun.elapsed()
        }
    }

    /// So many messages a second for so long, spread evenly over endpoints and threads, each due at its own time. One
    /// thread's messages are numbered in the order in which they are acknowledged. When each was due, and when it was
    /// acknowledged, by endpoint and number.
    async fn arrivals(&self, rate: usize, seconds: usize) -> HashMap<(usize, u64), (Instant, Instant)> {
        let lanes = self.endpoints * THREADS;
        let each = Duration::from_secs_f64(lanes as f64 / rate as f64);
        let begun = Instant::now() + Duration::from_millis(100);
        let until = begun + Duration::from_secs(seconds as u64);
        let mut tasks = Vec::new();
        for lane in 0..lanes {
            // Lanes of one endpoint are far apart in time.
            let first = begun + each.mul_f64((lane * 7919 % lanes) as f64 / lanes as f64);
            let (endpoint, thread) = (lane % self.endpoints, lane / self.endpoints);
            let says: Vec<_> = (0..)
                .map(|n| first + each * n)
                .take_while(|due| *due < until)
                .enumerate()
                .map(|(n, due)| {
                    let number = (n * THREADS + thread + 1) as u64;
                    (due, number, self.say(endpoint, thread, number))
                })
                .collect();
            tasks.push(tokio::spawn(async move {
                let mut told = Vec::with_capacity(says.len());
                for (due, number, say) in says {
                    tokio::time::sleep_until(due.into()).await;
                    say.await;
                    told.push(((endpoint, number), (due, Instant::now())));
                }
                told
            }));
        }
        let mut told = HashMap::new();
        for task in tasks {
            told.extend(task.await.unwrap());
        }
        told
    }

    /// Waits until these endpoints have got so many messages each.
    async fn until_delivered(&self, endpoints: impl Iterator<Item = usize>, count: impl Fn(usize) -> usize) {
        let begun = Instant::now();
        for endpoint in endpoints {
            while self.sink.count(endpoint) < count(endpoint) {
                let got = self.sink.count(endpoint);
                assert!(begun.elapsed() < Duration::from_secs(90), "endpoint {endpoint} has {got}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// Milliseconds at these shares.
fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn ms(of: Duration) -> f64 {
    of.as_secs_f64() * 1e3
}

/// The rate that there are targets for.
const JUDGED: usize = 1_000;

async fn latency(rates: Vec<usize>, seconds: usize, targets: Option<&mut Targets>) {
    let scene = Scene::new(10, THREADS).await;
    println!(
        "rate/s | messages | due to received p50 p99 p99.9 ms | acknowledged to received p50 p99 p99.9 ms | CPU µs each"
    );
    let mut judged = None;
    for rate in std::iter::once(rates[0]).chain(rates.iter().copied()) {
        scene.sink.forget();
        let cpu = scene.router.cpu();
        let told = scene.arrivals(rate, seconds).await;
        let each = |endpoint| told.keys().filter(|(e, _)| *e == endpoint).count();
        scene.until_delivered(0..scene.endpoints, each).await;
        let cpu = ms(scene.router.cpu() - cpu) * 1e3 / told.len() as f64;
        let (mut whole, mut after) = (Vec::new(), Vec::new());
        for ((endpoint, number), (due, acknowledged)) in &told {
            let received = scene.sink.got[*endpoint].lock().unwrap().first[number];
            whole.push(ms(received - *due));
            after.push(ms(received.saturating_duration_since(*acknowledged)));
        }
        whole.sort_by(f64::total_cmp);
        after.sort_by(f64::total_cmp);
        let show = |of: &[f64]| [0.5, 0.99, 0.999].map(|share| format!("{:8.2}", at(of, share))).join(" ");
        println!("{rate:6} | {:8} | {} | {} | {cpu:6.1}", told.len(), show(&whole), show(&after));
        if rate == JUDGED {
            judged = Some((at(&after, 0.5), at(&after, 0.99)));
        }
    }
    println!("(the first line warms up)");
    if let Some(targets) = targets {
        let (half, most) = judged.unwrap_or((f64::NAN, f64::NAN));
        targets.at_most("accepted to webhook received at 1000/s, p50", half, 4.0, "ms");
        targets.at_most("accepted to webhook received at 1000/s, p99", most, 30.0, "ms");
    }
}

async fn fairness(endpoints: usize, rate: usize, seconds: usize, rounds: usize) {
    let scene = Scene::new(endpoints, THREADS).await;
    let healthy = 3..endpoints;
    let mut runs: [Vec<(f64, f64, f64)>; 2] = Default::default();
    let mut sent = 0;
    for round in 0..rounds * 2 + 2 {
        let faulty = round % 2 == 1;
        let manners = [Manner::Dead, Manner::Slow, Manner::Flaky];
        for (manner, faulty_manner) in scene.sink.manners.iter().zip(manners) {
            *manner.lock().unwrap() = if faulty { faulty_manner } else { Manner::Fine };
        }
        scene.sink.forget();
        let told = scene.arrivals(rate, seconds).await;
        let each = |endpoint| told.keys().filter(|(e, _)| *e == endpoint).count();
        scene.until_delivered(healthy.clone(), each).await;
        let (mut took, mut first, mut last) = (Vec::new(), None::<Instant>, None::<Instant>);
        for ((endpoint, number), (due, _)) in told.iter().filter(|((endpoint, _), _)| healthy.contains(endpoint)) {
            let received = scene.sink.got[*endpoint].lock().unwrap().first[number];
            first = Some(first.map_or(*due, |first| first.min(*due)));
            last = Some(last.map_or(received, |last| last.max(received)));
            took.push(ms(received - *due));
        }
        took.sort_by(f64::total_cmp);
        let rate = took.len() as f64 / (last.unwrap() - first.unwrap()).as_secs_f64();
        let run = (rate, at(&took, 0.5), at(&took, 0.99));
        sent += told.len();
        let kind = if faulty { "three faulty" } else { "all fine    " };
        println!("round {round} {kind}: healthy get {:.1}/s, p50 {:.2} ms, p99 {:.2} ms", run.0, run.1, run.2);
        // The first of each kind warms up.
        if round >= 2 {
            runs[usize::from(faulty)].push(run);
        }
    }
    let of = |kind: usize, pick: fn(&(f64, f64, f64)) -> f64| median(runs[kind].iter().map(pick).collect());
    println!(
        "medians of {rounds}: throughput {:.1}/s with faults, {:.1}/s without (ratio {:.3}); p99 {:.2} ms and {:.2} ms (ratio {:.3})",
        of(1, |r| r.0),
        of(0, |r| r.0),
        of(1, |r| r.0) / of(0, |r| r.0),
        of(1, |r| r.2),
        of(0, |r| r.2),
        of(1, |r| r.2) / of(0, |r| r.2),
    );
    for manner in &scene.sink.manners {
        *manner.lock().unwrap() = Manner::Fine;
    }
    let reordered: usize = scene.sink.got.iter().map(|got| got.lock().unwrap().reordered).sum();
    let again: usize = scene.sink.got.iter().map(|got| got.lock().unwrap().again).sum();
    println!(
        "{sent} messages sent; reordered within a thread: {reordered}, sent again: {again}; missing at healthy endpoints: 0 (waited for)"
    );
}

/// Fills a router with so many messages to one endpoint. What a commit costs after it, over what it cost before.
async fn grow(scene: &Scene, messages: usize, threads: usize) -> (f64, usize) {
    let round = 20_000;
    let before = closed_loop(scene, 0, round, threads, 0).await;
    let resident = scene.router.resident_kib();
    println!("  first {round}: {before}; resident {resident} KiB");
    let filled = Instant::now();
    let mut sent = round;
    while sent < messages {
        let more = (messages - sent).min(100_000);
        closed_loop(scene, 0, more, threads, sent).await;
        sent += more;
        eprintln!("{sent} sent, {:.0} s, resident {} KiB", filled.elapsed().as_secs_f64(), scene.router.resident_kib());
    }
    let grown = scene.router.resident_kib();
    let after = closed_loop(scene, 0, round, threads, sent).await;
    sent += round;
    println!("  after {sent}: {after}; resident {grown} KiB, {} KiB more", grown.saturating_sub(resident));
    (after.cpu_us / before.cpu_us, sent)
}

async fn backlog(deliveries: usize) {
    let threads = 2_000;
    println!("the same messages without a hook, for what longer threads cost by themselves:");
    let scene = Scene::with(1, 0, threads).await;
    let (control, _) = grow(&scene, deliveries, threads).await;
    drop(scene);

    println!("with a hook whose endpoint is dead:");
    let mut scene = Scene::new(2, threads).await;
    *scene.sink.manners[0].lock().unwrap() = Manner::Dead;
    let other = closed_loop(&scene, 1, 20_000, threads, 0).await;
    let (grown, sent) = grow(&scene, deliveries, threads).await;
    let later = closed_loop(&scene, 1, 20_000, threads, 20_000).await;
    println!(
        "a commit costs {grown:.3} of what it did; without a hook {control:.3}; so the backlog itself {:.3}",
        grown / control
    );
    println!(
        "another tenant, whose endpoint is fine: {other} before, {later} after: {:.3}",
        later.cpu_us / other.cpu_us
    );

    scene.router = scene.router.restarted(scene.dir.path(), &scene.http).await;
    println!("start-up with the backlog: {:.2} s to ready", scene.router.started_in.as_secs_f64());
    *scene.sink.manners[0].lock().unwrap() = Manner::Fine;
    let begun = Instant::now();
    let mut shown = Instant::now();
    while scene.sink.count(0) < sent {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if shown.elapsed() > Duration::from_secs(10) {
            shown = Instant::now();
            let text =
                scene.http.get(format!("{}/metrics", scene.router.url)).send().await.unwrap().text().await.unwrap();
            let pending = text.lines().find(|line| line.starts_with("tract_outbox_pending{kind=\"hook\"}")).unwrap();
            eprintln!("{} received; {pending}; resident {} KiB", scene.sink.count(0), scene.router.resident_kib());
        }
        assert!(begun.elapsed() < Duration::from_secs(1800), "{} of {sent} received", scene.sink.count(0));
    }
    let (reordered, again) = {
        let got = scene.sink.got[0].lock().unwrap();
        (got.reordered, got.again)
    };
    let took = begun.elapsed().as_secs_f64();
    println!(
        "all {sent} received in {took:.0} s ({:.0}/s); reordered within a thread: {reordered}, sent again: {again}",
        sent as f64 / took
    );
}

struct Cost {
    rate: f64,
    cpu_us: f64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} commits/s, {:.1} µs CPU each", self.rate, self.cpu_us)
    }
}

/// Messages to one endpoint's threads, 64 at a time, numbered from `from` on.
async fn closed_loop(scene: &Scene, endpoint: usize, messages: usize, threads: usize, from: usize) -> Cost {
    let (begun, cpu) = (Instant::now(), scene.router.cpu());
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    // Each task has threads of its own, so that a thread's numbers are acknowledged in order.
    for task in 0..64 {
        let next = Arc::clone(&next);
        let own: Vec<usize> = (0..threads).filter(|thread| thread % 64 == task).collect();
        let (http, url) = (scene.http.clone(), format!("{}/v1.0/log_message_from_user", scene.router.url));
        tasks.push(tokio::spawn(async move {
            for turn in 0.. {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= messages {
                    break;
                }
                let text = format!("{} your parcel left the depot this morning and arrives tomorrow", from + number + 1);
                let message = json!({"user": {"auth_id": format!("user-{}", own[turn % own.len()])}, "message_body": text,
                                     "message_type": 0, "business_id": 1});
                post(&http, url.clone(), API, &format!("c{endpoint}"), message).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let cpu_us = ms(scene.router.cpu() - cpu) * 1e3 / messages as f64;
    Cost { rate: messages as f64 / begun.elapsed().as_secs_f64(), cpu_us }
}
