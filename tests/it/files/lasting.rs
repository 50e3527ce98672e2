//! Files last: through `kill -9`, through a full disk, for as long as the messages that name them, and no longer.

use super::*;
use crate::store_contract::{applied, client, message, open_thread, step};
use crate::support::{Api, ManualClock, Process, RedisServer, start_router_with};
use bytes::Bytes;
use serde_json::json;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tract::config::{Limits, StoreSettings};
use tract::store::{SqliteOptions, SqliteStore, redis::RedisStore};
use tract::tenancy::Secret;
use tract_actors::ports::{Clock, Commit, FileInfo, Store};
use tract_domain::{Fact, Json, Message};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_file_survives_kill_9() {
    let data = tempfile::tempdir().unwrap();
    survive(&data, |_| (), || ()).await;
    assert_eq!(kept_in(&data.path().join("store")), 2);
}

/// The router and its Redis die, at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_survives_kill_9_in_redis() {
    let (data, redis) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let url = redis.url();
    let set = |command: &mut Command| {
        command.env("TRACT_STORE__KIND", "redis").env("TRACT_STORE__URL", &url);
    };
    survive(&data, set, || {
        redis.kill();
        redis.revive();
    })
    .await;
    assert_eq!(kept_in_redis(&url), 2);
}

async fn survive(data: &tempfile::TempDir, set: impl Fn(&mut Command), meanwhile: impl Fn()) {
    let process = Process::start_with(data.path(), &set).await;
    let tenant = process.tenant().await;
    tenant.channel.user(&json!({"auth_id": "kim"})).await;
    let photo = image(1_000_000);
    let sending = |api: &Api, form: &Form| tenant.channel.at(api).sending(form).header("idempotency-key", "k");
    let logged = process.api().send(sending(&process.api(), &from("kim", &photo))).await.ok();
    process.kill();
    meanwhile();
    let process = Process::start_with(data.path(), &set).await;
    let api = process.api();
    assert!(read(&link_at(api.base(), &logged)).await.bytes == photo, "byte for byte");
    let (again, replayed) = first_or_again(api.send(sending(&api, &from("kim", &photo))).await);
    assert_eq!((again, replayed), (logged, true), "also the first answer is still known");
    tenant.channel.at(&api).send_file(&from("kim", PNG)).await.ok();
}

/// What an upload leaves behind when the router dies in the middle of it.
#[tokio::test]
async fn what_no_message_names_is_swept_up() {
    let data = tempfile::tempdir().unwrap();
    let options = SqliteOptions { partitions: 16, ..SqliteOptions::default() };
    let store = SqliteStore::open(data.path(), options).unwrap();
    let settings = StoreSettings::Embedded { path: data.path().to_owned(), partitions: 16 };
    let half_written = |token: &str| {
        let partitions = std::fs::read_dir(data.path().join("files")).unwrap();
        let paths = partitions.map(|partition| partition.unwrap().path().join(token));
        let path = paths.into_iter().find(|path| path.exists()).unwrap();
        std::fs::rename(&path, path.with_extension("new")).unwrap();
    };
    swept(&data, store, settings, half_written, || kept_in(data.path())).await;
}

#[tokio::test]
async fn what_no_message_names_is_swept_up_in_redis() {
    let (data, redis) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let store = RedisStore::open(&redis.url(), 16, "n1").await.unwrap();
    let settings = StoreSettings::Redis { url: Secret::new(redis.url()), ca: None, partitions: 16 };
    // Listed, and its bytes did not come so far.
    let half_written = |token: &str| {
        let keys: Vec<String> = redis.ask(&["KEYS", &format!("*:file:{token}")]);
        redis.ask::<()>(&["HDEL", &keys[0], "0", "size"]);
    };
    swept(&data, store, settings, half_written, || kept_in_redis(&redis.url())).await;
}

async fn swept(
    data: &tempfile::TempDir,
    store: Arc<dyn Store>,
    settings: StoreSettings,
    half_written: impl Fn(&str),
    kept: impl Fn() -> usize,
) {
    let clock = Arc::new(ManualClock::new());
    let user_id = open_thread(&*store, 1, "walter").await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let info = FileInfo {
            user_id: user_id.clone(),
            content_type: "image/png".to_owned(),
            name: "a.png".to_owned(),
            size: PNG.len() as u64,
            at: clock.now(),
        };
        tokens.push(store.put_file(info, Bytes::from_static(PNG)).await.unwrap());
    }
    // The first is named by a message, and the router died before it could say so; the second's message never came; the third
    // was not even written to its end.
    half_written(tokens[2].expose());
    let on = store.thread(&user_id).await.unwrap().unwrap();
    let commit = step(&on, 1);
    let mut entry = message(1, "see");
    let Fact::Message(said) = entry.fact else { panic!("a message") };
    let metadata = json!({"file_url": format!("https://t.example/files/{}", tokens[0].expose()), "message_type": 1});
    entry.fact = Fact::Message(Message { metadata: Some(Json(metadata.to_string().into())), ..said });
    applied(&*store, Commit { entries: vec![entry], ..commit }).await;
    assert!(store.user(&client("acme"), "walter").await.unwrap().is_some());
    store.close().await;
    drop(store);

    let running = start_router_with(data, Arc::clone(&clock) as Arc<dyn Clock>, |s| s.store = settings).await;
    let link = |n: usize| format!("http://{}/files/{}", running.addr(), tokens[n].expose());
    clock.advance(50 * MINUTE);
    assert_eq!((read(&link(0)).await.status, read(&link(1)).await.status), (200, 200), "it may be on its way still");
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The sweep comes by every ten minutes.
        clock.advance(10 * MINUTE);
        // One after the other goes, in the order of their random names.
        if !leads_somewhere(&link(1)).await && kept() == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "nobody sweeps");
    }
    assert_eq!(read(&link(0)).await.bytes, PNG, "a message names it");
    assert_eq!(kept(), 1);
    assert!(!leads_somewhere(&link(2)).await);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_file_leaves_with_its_conversation() {
    leave(None).await;
}

#[tokio::test]
async fn a_file_leaves_with_its_conversation_in_redis() {
    leave(Some(RedisServer::start())).await;
}

async fn leave(redis: Option<RedisServer>) {
    let on_redis = redis.is_some();
    let limits = Limits { passivate_after: Duration::from_secs(365 * 86_400), ..Limits::default() };
    let mut router = Fixture::keeping(Duration::from_millis(2 * DAY), limits, redis).await;
    let (walter, skyler) = (router.customer("walter").await, router.customer("skyler").await);
    let mut first = Vec::new();
    for (auth_id, user_id) in [("walter", &walter), ("skyler", &skyler)] {
        first.push(router.channel.send_file(&from(auth_id, &image(300_000))).await.ok());
        router.until(user_id, |thread| thread["state"] == "bot" && thread["last_sequence"].as_u64() > Some(2)).await;
    }
    router.clock.advance(9 * MINUTE);
    for user_id in [&walter, &skyler] {
        router.until(user_id, |thread| thread["state"] == "complete").await;
    }
    // A day later Skyler's second conversation begins.
    router.clock.advance(DAY);
    let second = router.channel.send_file(&from("skyler", PNG)).await.ok();
    router.clock.advance(20 * MINUTE);
    assert_eq!(kept(&router, on_redis), 3, "a day is not two");

    router.clock.advance(DAY);
    router.sprinkle = router.operator_token("sprinkle").await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        router.clock.advance(10 * MINUTE);
        let (one, other) = (leads_somewhere(link(&first[0])).await, leads_somewhere(link(&first[1])).await);
        let thread = router.sprinkle.get(&format!("/tract/thread/?user_id={walter}")).await.status;
        if (one, other, thread) == (false, false, 404) {
            break;
        }
        assert!(Instant::now() < deadline, "they stay: {one} {other} {thread}");
    }
    assert_eq!(read(link(&second)).await.bytes, PNG, "what is young stays");
    assert_eq!(kept(&router, on_redis), 1);
    router.stop().await;
}

/// Sets the size up to which a process may let files grow.
fn bound_files_of(process: &Process, bytes: &str) {
    let pid = process.id().to_string();
    let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
    assert!(set.is_ok_and(|status| status.success()), "prlimit (of util-linux) bounds a process");
}

/// What a full disk does, or a quota: what cannot be kept is refused, and nothing of it remains.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_fit_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start_by(&["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"], data.path()).await;
    let tenant = process.tenant().await;
    let user_id = tenant.channel.user(&json!({"auth_id": "kim"})).await;
    let store = data.path().join("store");
    let log = std::fs::metadata(store.join("tract.db-wal")).unwrap().len();
    bound_files_of(&process, &(log + (1 << 20)).to_string());
    let large = image(usize::try_from(log).unwrap() + (2 << 20));
    for _ in 0..3 {
        let reply = tenant.channel.send_file(&from("kim", &large)).await;
        assert!(reply.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1));
        reply.refused(503, "store_unavailable");
    }
    let small = tenant.channel.send_file(&from("kim", PNG)).await.ok();
    assert_eq!(kept_in(&store), 1, "nothing of what was refused remains");

    bound_files_of(&process, "unlimited");
    let logged = tenant.channel.send_file(&from("kim", &large)).await.ok();
    assert!(read(link(&logged)).await.bytes == large);
    assert_eq!(read(link(&small)).await.bytes, PNG);
    let feed = tenant.sprinkle.feed(&user_id).await;
    assert_eq!(feed.iter().filter(|entry| entry["kind"] == "message").count(), 2);
}

/// Redis with no memory left refuses, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_fit_is_refused_by_redis() {
    let (data, redis) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let url = redis.url();
    let process = Process::start_with(data.path(), |command| {
        command.env("TRACT_STORE__KIND", "redis").env("TRACT_STORE__URL", &url);
    })
    .await;
    let tenant = process.tenant().await;
    tenant.channel.user(&json!({"auth_id": "kim"})).await;
    let large = image(8 << 20);
    let used: String = redis.ask(&["INFO", "memory"]);
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse::<u64>().unwrap();
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", &(used + (3 << 20)).to_string()]);
    tenant.channel.send_file(&from("kim", &large)).await.refused(503, "store_unavailable");
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    let logged = tenant.channel.send_file(&from("kim", &large)).await.ok();
    assert!(read(&link_at(process.api().base(), &logged)).await.bytes == large);
}
