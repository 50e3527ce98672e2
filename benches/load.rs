//! What one accepted, durable `message/send` costs the server, beside bare axum with the same body in the same run.
//!
//! `cargo bench --bench load -- [--threads N] [--connections C] [--seconds S] [--rounds R] [--live N]`
//!
//! Starts the real binary as its own process on a fresh embedded store, seeds threads over HTTP, then drives it in a
//! closed loop. The server's CPU time and resident memory are read from `/proc`, so the generator's own cost stays out.
//! Rounds alternate between the bare server and the router; the figures are medians, and ratios within the run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on ends")]

mod harness;

use harness::{ADMIN, Server, median, number, post, token};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

const API: &str = "bench-channel-token-of-this-run-only";

struct Options {
    threads: usize,
    connections: usize,
    seconds: u64,
    rounds: usize,
    live: usize,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if args.first().is_some_and(|a| a == "--bare-server") {
        return runtime.block_on(bare_server(&args[1]));
    }
    let number = |name: &str, default: usize| number(&args, name, default);
    let options = Options {
        threads: number("--threads", 2_000),
        connections: number("--connections", 64),
        seconds: number("--seconds", 5) as u64,
        rounds: number("--rounds", 5),
        live: number("--live", 0),
    };
    runtime.block_on(measure(&options));
}

/// A server that does what any must: read a JSON body, answer JSON of the same size as the router's answer.
async fn bare_server(addr: &str) {
    use axum::{Json, Router, routing::post};
    let app = Router::new().route(
        "/tract/message/send",
        post(|Json(body): Json<Value>| async move {
            let known = body.get("user_id").is_some_and(Value::is_string);
            Json(json!({"message_id": 1_234_567_890_123u64, "conversation_number": "1", "sequence": 17,
                        "control_epoch": 1, "known": known}))
        }),
    );
    let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
    axum::serve(listener, app).await.unwrap();
}

async fn measure(options: &Options) {
    let dir = tempfile::tempdir().unwrap();
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(256).build().unwrap();
    let router = Server::router(dir.path(), &http).await;
    let before = router.resident_kib();
    eprintln!("seeding {} threads …", options.threads.max(options.live));
    let users = seed(&router, &http, options.threads.max(options.live)).await;
    if options.live > 0 {
        let after = router.resident_kib();
        let each = (after - before) as f64 / users.len() as f64;
        println!("memory: {before} KiB with none, {after} KiB with {} live threads: {each:.2} KiB each", users.len());
    }
    let token = token(&router, &http, "acme", "bench").await;
    let bare = Server::bare(&http).await;

    let (mut bare_cpu, mut cpu, mut p50, mut p99, mut rate) = (vec![], vec![], vec![], vec![], vec![]);
    let mut bare_p99 = vec![];
    for round in 0..options.rounds {
        let reference = drive(&bare, &http, &users, &token, options).await;
        let run = drive(&router, &http, &users, &token, options).await;
        println!(
            "round {round}: bare {:.1} µs CPU, p99 {:.2} ms, {:.0}/s | tract {:.1} µs CPU, p50 {:.2} ms, p99 {:.2} ms, {:.0}/s",
            reference.cpu_us, reference.p99_ms, reference.rate, run.cpu_us, run.p50_ms, run.p99_ms, run.rate
        );
        bare_cpu.push(reference.cpu_us);
        bare_p99.push(reference.p99_ms);
        cpu.push(run.cpu_us);
        p50.push(run.p50_ms);
        p99.push(run.p99_ms);
        rate.push(run.rate);
    }
    let (bare_cpu, cpu) = (median(bare_cpu), median(cpu));
    println!(
        "median of {} rounds, {} connections, {} threads: bare axum {bare_cpu:.1} µs CPU for each request; tract \
         {cpu:.1} µs, ratio {:.2}; p50 {:.2} ms, p99 {:.2} ms (bare p99 {:.2} ms), {:.0}/s",
        options.rounds,
        options.connections,
        users.len(),
        cpu / bare_cpu,
        median(p50),
        median(p99),
        median(bare_p99),
        median(rate),
    );
}

struct Run {
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
    rate: f64,
}

async fn drive(server: &Server, http: &reqwest::Client, users: &[String], token: &str, options: &Options) -> Run {
    let url = format!("{}/tract/message/send", server.url);
    let users: Arc<[String]> = users.iter().take(options.threads).cloned().collect();
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let cpu_before = server.cpu();
    let until = begun + Duration::from_secs(options.seconds);
    let mut tasks = Vec::new();
    for _ in 0..options.connections {
        let (http, url, users, next, token) =
            (http.clone(), url.clone(), Arc::clone(&users), Arc::clone(&next), token.to_owned());
        tasks.push(tokio::spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < until {
                // A stride that visits all threads in no particular order.
                let at = next.fetch_add(7919, Ordering::Relaxed) as usize % users.len();
                let body = json!({"user_id": users[at], "sender": "ect",
                                  "message_body": "Your parcel left the depot this morning and arrives tomorrow."});
                let sent = Instant::now();
                let answer = http.post(&url).bearer_auth(&token).json(&body).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
                answer.bytes().await.unwrap();
                took.push(sent.elapsed());
            }
            took
        }));
    }
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    let elapsed = begun.elapsed();
    let cpu = server.cpu() - cpu_before;
    took.sort_unstable();
    let at = |q: f64| took[((took.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
    Run {
        cpu_us: cpu.as_secs_f64() * 1e6 / took.len() as f64,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        rate: took.len() as f64 / elapsed.as_secs_f64(),
    }
}

/// One tenant whose only receiver is an ECT, which therefore holds every thread and may send.
async fn seed(router: &Server, http: &reqwest::Client, threads: usize) -> Vec<String> {
    let tenants = json!({
        "ect": [{"ect_id": "bench", "fqdn": "bench.example"}],
        "client": [{"client_id": "acme", "api_token": API, "ects": ["bench"], "handoff_timeout": "0s",
                    "idle_timeout": "8m", "business": [{"business_id": 1}]}],
    });
    post(http, format!("{}/admin/v1/apply", router.url), ADMIN, "acme", tenants).await;
    let mut tasks = tokio::task::JoinSet::new();
    let per_task = threads.div_ceil(64);
    for task in 0..64 {
        let (http, url) = (http.clone(), router.url.clone());
        tasks.spawn(async move {
            let mut users = Vec::new();
            for user in (task * per_task)..((task + 1) * per_task).min(threads) {
                let auth_id = format!("user-{user}");
                let made = post(&http, format!("{url}/v1.0/user"), API, "acme", json!({"auth_id": auth_id})).await;
                users.push(made["user_id"].as_str().unwrap().to_owned());
                let message = json!({"user": {"auth_id": auth_id}, "message_body": "Hello?", "message_type": 0,
                                     "business_id": 1});
                post(&http, format!("{url}/v1.0/log_message_from_user"), API, "acme", message).await;
            }
            users
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}
