//! `tract migrate`: everything moves, and the router goes on with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use crate::store_contract::{
    files,
    outbox::{over, over_of, retry},
    *,
};
use crate::support::{Answer, Process, RedisServer};
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};
use tempfile::TempDir;
use tract::store::{OpenError, SqliteOptions, SqliteStore, redis::RedisStore};
use tract_actors::ports::{
    Commit, DeadlineChange, Document, DocumentWrite, End, Endpoint, FILE_PIECE, FileToken, IdempotencyKey, KeyHome,
    Leave, NewDelivery, Replay, Replayed, Store, What, Written,
};
use tract_domain::Reply;

const PARTITIONS: u16 = 16;

fn embedded(directory: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(directory, SqliteOptions { partitions: PARTITIONS, ..SqliteOptions::default() }).unwrap()
}

fn command(from: &str, to: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tract"));
    command.args(["migrate", "--from", from, "--to", to]).stdin(Stdio::null());
    command
}

fn migrate(from: &str, to: &str) -> Output {
    command(from, to).output().unwrap()
}

#[track_caller]
fn moved(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("records moved"), "{out}{err}");
    err.into_owned()
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    let err = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = err.lines().filter(|line| line.starts_with("tract: ")).collect();
    assert!(!output.status.success() && lines.len() == 1 && lines[0].contains(why), "{why}: {err}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A store with something of everything.
async fn fill(store: &dyn Store) {
    let (one, two, channel) = (hook("one"), hook("two"), Endpoint::from_name("channel:acme:1"));
    let document = |id: &str| Document { kind: "ect".into(), id: id.into(), body: r#"{"a":"ü"}"#.into() };
    let write = DocumentWrite { put: vec![document("sprinkle"), document("helper")], ..DocumentWrite::default() };
    assert_eq!(store.write_documents(write).await, Ok(Written::Applied));
    let mut users = Vec::new();
    for n in 0..60_u64 {
        let auth_id = format!("user:{} +ü", n / 2);
        let user_id = open_thread_of(store, if n % 5 == 0 { "other" } else { "acme" }, n % 2 + 1, &auth_id).await;
        for _ in 0..n % 4 {
            let commit = next_step(store, &user_id, 1 + n % 3).await;
            let sequence = commit.thread.sequence();
            let outbox = [&one, &two, &channel].map(|endpoint| delivery(endpoint, sequence)).to_vec();
            let key = IdempotencyKey {
                home: KeyHome::Thread(user_id.clone()),
                key: [u8::try_from(n).unwrap(); 32],
                request: [7; 32],
                expires_at: NOW.plus(86_400_000),
            };
            let idempotency = (sequence < 4).then_some((key, Reply::Done));
            let deadline = DeadlineChange::Set((n % 3 == 0).then_some(NOW.plus(n)));
            let _ = store.commit(Commit { outbox, deadline, idempotency, ..commit }).await.unwrap();
        }
        users.push(user_id);
    }
    let details = Commit { user_details: Some(json(r#"{"tier":"gold"}"#)), ..next_step(store, &users[1], 0).await };
    applied(store, details).await;
    store.keep_ect_user_id(&client("acme"), "user:0 +ü", &receiver("sprinkle"), "s-1").await.unwrap();
    let commit = next_step(store, &users[2], 9).await;
    let last = commit.thread.sequence();
    let range = NewDelivery { what: What::History { after: last - 9, through: last }, ..delivery(&one, last) };
    let word = NewDelivery { what: What::CreateUser, answers_handoff: Some(3), ..delivery(&two, 0) };
    applied(store, Commit { outbox: vec![range, word], ..commit }).await;

    let waiting = pending(store, &one, 0, 1_000).await;
    let ended: Vec<_> = waiting.iter().map(|d| d.id).collect();
    let range = waiting.iter().find(|d| matches!(d.what, What::History { .. })).unwrap().id;
    let updates = vec![
        over(&one, ended[0], End::Delivered, NOW.plus(100)),
        over(&one, ended[1], End::Rejected, NOW.plus(200)),
        retry(&one, ended[2], 1, NOW, NOW.plus(5_000)),
        retry(&one, ended[2], 2, NOW, NOW.plus(9_000)),
        retry(&one, ended[3], 1, NOW, NOW.plus(7_000)),
        over(&one, ended[3], End::Dead, NOW.plus(300)),
        over(&one, ended[4], End::Dead, NOW.plus(400)),
        over_of(&one, range, End::Delivered, last - 8),
        over_of(&one, range, End::Dead, last - 7),
    ];
    write_outcomes(store, updates).await;
    store.bury(&two, &held(store).await, NOW, 5, NOW.plus(500)).await.unwrap();
    let which = Replayed::Since(NOW.plus(400));
    assert_eq!(store.replay(Replay { endpoints: vec![one], which, limit: 1, now: NOW.plus(600) }).await, Ok(1));
    store
        .keep(key(&KeyHome::Configuration, 200, 1, NOW.plus(86_400_000)), json(r#"{"made":true}"#), NOW)
        .await
        .unwrap();
    assert_eq!(store.remember_request([9; 32], NOW.plus(150_000), NOW).await, Ok(true));

    // One thread leaves, and one feed begins later.
    let gone = &users[59];
    let stored = store.thread(gone).await.unwrap().unwrap();
    for endpoint in [&hook("one"), &two, &channel] {
        let of_gone = pending(store, endpoint, 0, 1_000).await.into_iter().filter(|d| d.user_id == *gone);
        write_outcomes(store, of_gone.map(|d| over(endpoint, d.id, End::Delivered, NOW)).collect()).await;
    }
    let leave = Leave { user_id: gone.clone(), expected_version: stored.version, thread: Arc::new(stored.thread) };
    assert_eq!(store.leave(leave).await, Ok(Written::Applied));
    assert_eq!(store.trim_feed(&users[7], 2, 9).await, Ok(2));

    // Files of all sizes, most of them named by an entry.
    for (n, size) in FILES.into_iter().enumerate() {
        let user_id = &users[n * 8];
        let token = files::put(store, user_id, NOW.plus(n as u64), &files::bytes(size)).await;
        if n > 0 {
            store.name_file(user_id, &token, n as u64).await.unwrap();
        }
    }
}

/// Sizes of files that a store is filled with: up to several pages of pieces.
const FILES: [usize; 5] = [7, 1, FILE_PIECE, FILE_PIECE + 1, 9 * FILE_PIECE + 5];

/// The bytes of files beside a store, with the names of where they are.
fn bytes_beside(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for partition in std::fs::read_dir(store.join("files")).unwrap() {
        for file in std::fs::read_dir(partition.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(store).unwrap().to_str().unwrap().to_owned();
            all.insert(name, std::fs::read(path).unwrap());
        }
    }
    let mut sizes: Vec<_> = all.values().map(Vec::len).collect();
    sizes.sort_unstable();
    let mut expected = FILES.to_vec();
    expected.sort_unstable();
    assert_eq!(sizes, expected);
    all
}

/// All rows of a store that are not numbers of its own, in an order of theirs.
fn rows(directory: &Path) -> Vec<String> {
    const TABLES: [&str; 14] = [
        "SELECT name, hex(value) FROM meta WHERE name != 'ping'",
        "SELECT name, last FROM counters WHERE name >= -1 AND last > 0",
        "SELECT user_id, client, business, auth_id, version, sequence, state, active, deadline, hex(commit_id), snapshot \
         FROM thread_heads",
        "SELECT client, business, state, active, threads FROM thread_counts WHERE threads > 0",
        "SELECT t.user_id, e.sequence, e.message_id, hex(e.commit_id), e.entry FROM entries e JOIN threads t ON t.id = e.thread",
        "SELECT client, auth_id, version, hex(commit_id), profile, user_details, ect_user_ids FROM users",
        "SELECT name, pending, dead, last_success_at, last_error FROM endpoints",
        "SELECT e.name, d.id, t.user_id, webhook_id, what, d.sequence, answers_handoff, created_at, attempts, \
         first_attempt_at, due_at, replayed, log FROM outbox d JOIN threads t ON t.id = d.thread JOIN endpoints e ON e.id = d.endpoint",
        "SELECT e.name, d.id, of, t.user_id, webhook_id, what, d.sequence, created_at, ended_at, rejected, replayed, log \
         FROM received d JOIN threads t ON t.id = d.thread JOIN endpoints e ON e.id = d.endpoint",
        "SELECT e.name, d.id, of, t.user_id, webhook_id, what, d.sequence, created_at, died_at, log \
         FROM dead_letters d JOIN threads t ON t.id = d.thread JOIN endpoints e ON e.id = d.endpoint",
        "SELECT hex(key), hex(request), expires_at, answer FROM kept",
        "SELECT hex(key), until FROM seen_requests",
        "SELECT token, user_id, sequence, at, content_type, name, size FROM files",
        "SELECT kind, id, body FROM documents UNION ALL \
         SELECT 'origin', partition, version || ' ' || sequence || ' ' || control_epoch || ' ' || conversation FROM origins \
         WHERE version > 0",
    ];
    let conn = rusqlite::Connection::open(directory.join("tract.db")).unwrap();
    let mut all = Vec::new();
    for (table, select) in TABLES.iter().enumerate() {
        let mut select = conn.prepare(select).unwrap();
        let columns = select.column_count();
        let rows = select.query_map([], |row| {
            let column = |n| format!("{:?}", row.get_unwrap::<_, rusqlite::types::Value>(n));
            Ok((0..columns).map(column).collect::<Vec<_>>().join(" | "))
        });
        let mut rows: Vec<String> = rows.unwrap().map(|row| format!("{table}: {}", row.unwrap())).collect();
        assert!(!rows.is_empty(), "there is something of everything: {table}");
        rows.sort();
        all.extend(rows);
    }
    all
}

#[track_caller]
fn assert_same(found: &[String], expected: &[String]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

/// Embedded, Redis, embedded again: row by row the same, and each of them goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_back_as_it_was() {
    let (first, second, server) = (TempDir::new().unwrap(), TempDir::new().unwrap(), RedisServer::start());
    let store = embedded(first.path());
    fill(&*store).await;
    let user_id = store.user_id(&client("acme"), 2, "user:1 +ü");
    let last = store.feed(&user_id, 0, 99).await.unwrap().last().unwrap().message_id;
    store.close().await;
    drop(store);
    let before = rows(first.path());

    let told = moved(&migrate(text(first.path()), &server.url()));
    assert!(told.contains("moving configuration") && told.contains("100%"), "a line now and then: {told}");
    moved(&migrate(&server.url(), text(&second.path().join("new"))));
    assert_same(&rows(first.path()), &before);
    assert_same(&rows(&second.path().join("new")), &before);
    let bytes = bytes_beside(first.path());
    assert!(bytes_beside(&second.path().join("new")) == bytes, "byte for byte");

    let stores: [Arc<dyn Store>; 2] =
        [RedisStore::open(&server.url(), PARTITIONS, "n1").await.unwrap(), embedded(&second.path().join("new"))];
    for store in stores {
        assert_eq!(store.user_id(&client("acme"), 2, "user:1 +ü"), user_id);
        let commit = next_step(&*store, &user_id, 1).await;
        let (two, sequence) = (hook("two"), commit.thread.sequence());
        let waiting = pending(&*store, &two, 0, 1_000).await;
        let ids = applied(&*store, Commit { outbox: vec![delivery(&two, sequence)], ..commit }).await;
        assert!(ids[0] > last, "message ids go on");
        let with_new = pending(&*store, &two, 0, 1_000).await;
        assert_eq!(with_new.len(), waiting.len() + 1);
        assert_eq!(with_new.last().unwrap().sequence, sequence, "behind everything that waited");
        let status = store.endpoint_status(&two).await.unwrap();
        assert_eq!((status.pending, status.dead), (with_new.len() as u64, 5));
        let which = Replayed::Since(NOW);
        assert_eq!(store.replay(Replay { endpoints: vec![two], which, limit: 99, now: NOW }).await, Ok(5));
        assert_eq!(store.remember_request([9; 32], NOW.plus(150_000), NOW).await, Ok(false));
        assert!(kept(&*store, &KeyHome::Configuration, 200, NOW).await.is_some());
        let newcomer = open_thread(&*store, 1, "somebody new").await;
        assert!(store.thread(&newcomer).await.unwrap().is_some());
        assert_eq!(store.count_threads(None, None, None).await, Ok(60));
        for (path, bytes) in &bytes {
            let token = FileToken::new(path.rsplit('/').next().unwrap()).unwrap();
            assert!(files::read(&*store, &token).await.as_ref() == Some(bytes));
        }
        assert_eq!(store.unnamed_files(NOW, 9).await.unwrap().len(), 1);
        let named = store.user_id(&client("acme"), 1, "user:4 +ü");
        assert_eq!(store.forget_files(&named, 9, 9).await, Ok(1));
        store.close().await;
    }
}

/// Redis to Redis, too, and a copy of a copy is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_between_servers() {
    let (home, one, two) = (TempDir::new().unwrap(), RedisServer::start(), RedisServer::start());
    let store = RedisStore::open(&one.url(), PARTITIONS, "n1").await.unwrap();
    fill(&*store).await;
    store.close().await;
    moved(&migrate(&one.url(), &two.url()));
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    moved(&migrate(&one.url(), text(&first)));
    moved(&migrate(&two.url(), text(&second)));
    assert_same(&rows(&first), &rows(&second));
    assert!(bytes_beside(&first) == bytes_beside(&second));
}

/// Starts it, and kills it once it has said that it is so far.
fn killed_at(from: &str, to: &str, percent: &str) {
    let mut child: Child = command(from, to).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let reached = lines.map_while(Result::ok).any(|line| line.trim_start().starts_with(percent));
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it was killed on its way");
    assert!(reached);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_migration_goes_on() {
    let (home, server, other) = (TempDir::new().unwrap(), RedisServer::start(), RedisServer::start());
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    let store = embedded(&first);
    fill(&*store).await;
    store.close().await;
    drop(store);
    let before = rows(&first);

    killed_at(text(&first), &server.url(), "20%");
    let half = RedisStore::open(&server.url(), PARTITIONS, "n1").await.unwrap_err().to_string();
    assert!(half.contains("is half of a migration"), "no router opens it: {half}");
    let stranger = RedisStore::open(&other.url(), PARTITIONS, "n1").await.unwrap();
    stranger.close().await;
    refused(&migrate(&other.url(), &server.url()), "unfinished migration of another store");
    // As if it had been killed earlier: what is there already is written again.
    let client = redis::Client::open(server.url()).unwrap();
    let mut client = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("HSET").arg("tract:store").arg("parts_done").arg(2).query_async::<()>(&mut client).await.unwrap();
    let told = moved(&migrate(text(&first), &server.url()));
    assert!(!told.contains("moving configuration"), "what was done is not done again: {told}");

    killed_at(&server.url(), text(&second), "30%");
    let half = SqliteStore::open(&second, SqliteOptions { partitions: PARTITIONS, ..SqliteOptions::default() });
    assert!(matches!(half, Err(OpenError::Unfinished { .. })));
    let earlier = rusqlite::Connection::open(second.join("tract.db")).unwrap();
    earlier.execute("UPDATE meta SET value = 2 WHERE name = 'parts_done'", []).unwrap();
    drop(earlier);
    let told = moved(&migrate(&server.url(), text(&second)));
    assert!(!told.contains("moving configuration"), "what was done is not done again: {told}");
    assert_same(&rows(&second), &before);
    assert!(bytes_beside(&second) == bytes_beside(&first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_moved_is_refused() {
    let (home, server) = (TempDir::new().unwrap(), RedisServer::start());
    let (first, second, empty) = (home.path().join("first"), home.path().join("second"), home.path().join("empty"));
    let (url, nothing) = (server.url(), home.path().join("nothing"));
    refused(&migrate(text(&nothing), &url), "there is no store in");
    assert!(!nothing.exists(), "nothing is made of a slip");
    refused(&migrate(&url, text(&nothing)), "there is no store in redis://127.0.0.1");
    let store = embedded(&first);
    open_thread(&*store, 1, "walter").await;
    refused(&migrate(text(&first), &url), "in use by another process");
    let redis = RedisStore::open(&url, PARTITIONS, "n1").await.unwrap();
    refused(&migrate(&url, text(&empty)), "is in use by a router");
    store.close().await;
    drop(store);
    refused(&migrate(text(&first), &url), "is in use by a router");
    redis.close().await;
    refused(&migrate(text(&first), &url), "holds a store already");
    refused(&migrate(text(&first), text(&first)), "cannot be moved into itself");
    drop(SqliteStore::open(&second, SqliteOptions::default()).unwrap());
    refused(&migrate(text(&first), text(&second)), "was created with 256 partitions, not 16");
    let second = embedded(&home.path().join("third"));
    refused(&migrate(text(&first), text(&home.path().join("third"))), "in use by another process");
    second.close().await;
    drop(second);
    refused(&migrate(text(&first), text(&home.path().join("third"))), "holds a store already");
    let slip = migrate("redis+nonsense://h", &url);
    assert!(!slip.status.success() && String::from_utf8_lossy(&slip.stderr).contains("must begin with redis://"));
}

/// A difference is an error that names it, and the destination stays closed to routers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_is_found() {
    let (home, server) = (TempDir::new().unwrap(), RedisServer::start());
    let store = embedded(home.path());
    fill(&*store).await;
    let user_id = store.user_id(&client("acme"), 2, "user:1 +ü");
    store.close().await;
    drop(store);
    killed_at(text(home.path()), &server.url(), "40%");
    // Somebody used the source meanwhile.
    let store = embedded(home.path());
    let commit = next_step(&*store, &user_id, 1).await;
    applied(&*store, commit).await;
    store.close().await;
    drop(store);
    refused(&migrate(text(home.path()), &server.url()), "entries in the source and");
    assert!(RedisStore::open(&server.url(), PARTITIONS, "n1").await.is_err());
}

/// A file that is another one on the way is a difference, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_is_found() {
    let (home, server) = (TempDir::new().unwrap(), RedisServer::start());
    let store = embedded(home.path());
    fill(&*store).await;
    store.close().await;
    drop(store);
    killed_at(text(home.path()), &server.url(), "40%");
    let moved: Vec<String> = server.ask(&["KEYS", "{tract:*}:file:*"]);
    assert!(!moved.is_empty(), "some are there already");
    server.ask::<()>(&["HSET", &moved[0], "0", "something else"]);
    refused(&migrate(text(home.path()), &server.url()), "pieces of files that are not the same in both");
}

/// The router that is started on the moved store goes on with the conversation, and delivers what waited.
#[tokio::test]
async fn the_router_goes_on_after_the_move() {
    let (data, server) = (TempDir::new().unwrap(), RedisServer::start());
    let router = Process::start(data.path()).await;
    let tenant = router.tenant().await;
    let customer = json!({"auth_id": "walter", "name": "Walter"});
    let user_id = tenant.channel.user(&customer).await;
    let first = tenant.channel.say("walter", "one").await;
    tenant.desk.hear("message.receive", "one").await;
    tenant.desk.script(|r| (r.topic == "message.receive").then(|| Answer::status(503)));
    let second = tenant.channel.say("walter", "two").await;
    tenant.desk.hear("message.receive", "two").await;
    let before = tenant.sprinkle.feed(&user_id).await;
    router.terminate();
    assert!(router.wait().success());

    moved(&migrate(text(&data.path().join("store")), &server.url()));
    tenant.desk.script(|_| Some(Answer::ok(json!({}))));
    let seen = tenant.desk.seen_on("message.receive").len();
    let url = server.url();
    let router = Process::start_with(data.path(), |command| {
        command.env("TRACT_STORE__KIND", "redis").env("TRACT_STORE__URL", &url);
    })
    .await;
    let (channel, sprinkle) = (tenant.channel.at(&router.api()), tenant.sprinkle.at(&router.api()));
    assert_eq!(sprinkle.feed(&user_id).await, before, "also the token is still good");
    let third = channel.say("walter", "three").await;
    assert!(first < second && second < third);
    tenant.desk.hear("message.receive", "three").await;
    let told: Vec<_> = tenant.desk.seen_on("message.receive")[seen..].iter().map(|r| r.text()).collect();
    assert_eq!(told, ["two", "three"], "what waited came first");
    assert_eq!(channel.user(&customer).await, user_id);
    sprinkle.send(&user_id, "aeu", "hello Walter").await.ok();
    assert_eq!(sprinkle.feed(&user_id).await[..before.len()], before);
    tenant.desk.assert_sound();
}
