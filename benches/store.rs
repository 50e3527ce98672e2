//! What a durable commit costs in each store when so many are under way at once, and what opening a store costs.
//!
//! `cargo bench --bench store` (a filter may follow: `-- embedded`). Redis servers are started by the bench.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on ends")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod harness;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use harness::{
    redis::Redis,
    threads::{NOW, answers, commit, conversation, policy},
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;
use tract::store::{SqliteOptions, SqliteStore, redis::RedisStore};
use tract_actors::ports::{Committed, OpenThread, Store, UserWrite, Written};
use tract_domain::{ClientId, Context, Policy, Thread, UserId};
use uuid::Uuid;

/// Commits under way at once, each on a thread of its own.
const BATCHES: [usize; 5] = [1, 4, 16, 64, 256];

/// Threads of a store that is opened.
const THREADS: usize = 10_000;

fn benches(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    {
        let dir = tempfile::tempdir().unwrap();
        commits(criterion, &runtime, "embedded", embedded(dir.path()));
    }
    for appendfsync in ["always", "everysec"] {
        let redis = Redis::start(appendfsync);
        let store = runtime.block_on(RedisStore::open(&redis.url(), 256, "bench")).unwrap();
        commits(criterion, &runtime, &format!("redis, {appendfsync}"), store);
    }
    reopening(criterion, &runtime);
}

fn embedded(path: &Path) -> Arc<dyn Store> {
    SqliteStore::open(path, SqliteOptions::default()).unwrap()
}

fn commits(criterion: &mut Criterion, runtime: &Runtime, name: &str, store: Arc<dyn Store>) {
    let policy = policy("bench");
    let most = BATCHES[BATCHES.len() - 1];
    let mut threads = runtime.block_on(open(&store, &policy, most));
    let mut group = criterion.benchmark_group(format!("commit of one message, {name}"));
    group.sample_size(20).warm_up_time(Duration::from_secs(1));
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter_custom(|rounds| runtime.block_on(rounds_of(&store, &policy, &mut threads[..batch], rounds)));
        });
    }
    group.finish();
    runtime.block_on(store.close());
}

/// A thread as it was committed last.
struct Held {
    user_id: UserId,
    version: u64,
    thread: Thread,
}

async fn open(store: &Arc<dyn Store>, policy: &Policy, count: usize) -> Vec<Held> {
    let client = ClientId::new("acme").unwrap();
    let mut opened = Vec::new();
    for first in (0..count).step_by(500) {
        let some = (first..(first + 500).min(count)).map(|n| {
            let (client, thread) = (client.clone(), Thread::open(policy));
            async move {
                let auth_id: Arc<str> = format!("user-{n}").into();
                let user_id = store.user_id(&client, 1, &auth_id);
                let open = Some(OpenThread { business: 1, thread: thread.clone(), outbox: Vec::new() });
                let commit_id = Uuid::new_v4();
                let write = UserWrite {
                    commit_id,
                    client,
                    auth_id,
                    expected_version: 0,
                    profile: None,
                    open,
                    idempotency: None,
                    now: NOW,
                };
                assert_eq!(store.write_user(write).await, Ok(Written::Applied));
                let (thread, entries) = conversation(thread, policy, 10);
                let done = store.commit(commit(&user_id, 0, thread.clone(), entries)).await;
                let Ok(Committed::Applied { version, .. }) = done else { panic!("{done:?}") };
                Held { user_id, version, thread }
            }
        });
        opened.extend(futures_util::future::join_all(some).await);
    }
    opened
}

/// So many times: one commit on each thread, all at once. The time until all were durable, without what the domain takes.
async fn rounds_of(store: &Arc<dyn Store>, policy: &Policy, threads: &mut [Held], rounds: u64) -> Duration {
    let command = answers("bench");
    let mut took = Duration::ZERO;
    for _ in 0..rounds {
        let mut commits = Vec::with_capacity(threads.len());
        for held in threads.iter_mut() {
            let done = held.thread.decide(&command, Context { now: NOW, policy }).unwrap();
            held.thread = done.thread;
            commits.push(store.commit(commit(&held.user_id, held.version, held.thread.clone(), done.entries)));
            held.version += 1;
        }
        let begun = Instant::now();
        let answers = futures_util::future::join_all(commits).await;
        took += begun.elapsed();
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Committed::Applied { .. }))), "{answers:?}");
    }
    took
}

/// Opening a store with 10 000 threads and 100 000 messages: one that was closed, and one that was not.
fn reopening(criterion: &mut Criterion, runtime: &Runtime) {
    let policy = policy("bench");
    let dir = tempfile::tempdir().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let store = embedded(dir.path());
        open(&store, &policy, THREADS).await;
        // What `kill -9` leaves: the files as they are at some moment.
        copy(dir.path(), crashed.path());
        store.close().await;
    });
    let mut group = criterion.benchmark_group("open, embedded, 10 000 threads and 100 000 messages");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    group.bench_function("after it was closed", |b| {
        // It must be closed again before the next can open it; that is not counted.
        b.iter_custom(|rounds| {
            let open = || {
                let begun = Instant::now();
                let _store = embedded(dir.path());
                begun.elapsed()
            };
            (0..rounds).map(|_| open()).sum()
        });
    });
    group.bench_function("after a crash", |b| {
        let fresh = || {
            let again = tempfile::tempdir().unwrap();
            copy(crashed.path(), again.path());
            again
        };
        b.iter_batched(fresh, |dir| (embedded(dir.path()), dir), BatchSize::PerIteration);
    });
    group.finish();

    let redis = Redis::start("everysec");
    runtime.block_on(async {
        let store: Arc<dyn Store> = RedisStore::open(&redis.url(), 256, "bench").await.unwrap();
        open(&store, &policy, THREADS).await;
        store.close().await;
    });
    let mut group = criterion.benchmark_group("open and close, redis, 10 000 threads and 100 000 messages");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    group.bench_function("after it was closed", |b| {
        b.iter(|| {
            runtime.block_on(async { RedisStore::open(&redis.url(), 256, "bench").await.unwrap().close().await })
        });
    });
    group.finish();
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

criterion_group! {
    name = store;
    config = Criterion::default().measurement_time(Duration::from_secs(4));
    targets = benches
}
criterion_main!(store);
