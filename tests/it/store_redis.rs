//! The store on Redis: the contract, and what only a server beside the router can do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use crate::store_contract::{Place, outbox::Told, *};
use crate::support::RedisServer;
use async_trait::async_trait;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tract::store::redis::{Durability, RedisOpenError, RedisStore};
use tract_actors::ports::{
    Commit, Committed, Document, DocumentWrite, End, Outbox, OutboxSink, Replay, Replayed, Store, StoreError, Written,
};

#[async_trait]
impl Place for RedisServer {
    async fn open(&self) -> Arc<dyn Store> {
        open(self).await
    }
}

async fn open(server: &RedisServer) -> Arc<RedisStore> {
    RedisStore::open(&server.url(), 256).await.unwrap()
}

store_contract!(contract, RedisServer::start());

/// A client of the test's own.
async fn client_of(server: &RedisServer) -> redis::aio::MultiplexedConnection {
    redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Asks until the store is reached again: callers do, with the same commit id.
async fn in_the_end(store: &dyn Store, commit: &Commit) -> Vec<u64> {
    loop {
        match store.commit(commit.clone()).await {
            Ok(Committed::Applied { message_ids, .. }) => return message_ids,
            Ok(Committed::Conflict) => panic!("a conflict with nobody"),
            Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_second_router_is_refused() {
    let server = RedisServer::start();
    let store = open(&server).await;
    let refused = RedisStore::open(&server.url(), 256).await.unwrap_err();
    assert!(matches!(refused, RedisOpenError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("is in use by another router"), "{refused}");
    store.ping().await.unwrap();
    store.close().await;
    open(&server).await.ping().await.unwrap();
}

#[tokio::test]
async fn the_number_of_partitions_is_fixed() {
    let server = RedisServer::start();
    let url = server.url();
    let open = |partitions| RedisStore::open(&url, partitions);
    assert!(matches!(open(0).await, Err(RedisOpenError::PartitionCount(0))));
    assert!(matches!(open(1025).await, Err(RedisOpenError::PartitionCount(1025))));
    open(8).await.unwrap().close().await;
    let refused = open(16).await.unwrap_err();
    assert!(matches!(refused, RedisOpenError::Partitions { stored: 8, asked: 16, .. }), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_used_is_said() {
    let server = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let refused = RedisStore::open(&server.url(), 8).await.unwrap_err().to_string();
    assert!(refused.contains("maxmemory-policy allkeys-lru") && refused.contains("noeviction"), "{refused}");
    server.kill();
    let refused = RedisStore::open(&server.url(), 8).await.unwrap_err();
    assert!(matches!(refused, RedisOpenError::Unreachable { .. }), "{refused}");
    for (url, expected) in [
        ("redis+cluster://127.0.0.1:1", "not built yet"),
        ("http://127.0.0.1:1", "must begin with redis://"),
        ("nonsense", "must be like redis://"),
    ] {
        let refused = RedisStore::open(url, 8).await.unwrap_err().to_string();
        assert!(refused.starts_with("store.url: ") && refused.contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn it_says_what_a_power_cut_could_cost() {
    for (settings, expected) in [
        (&["--appendonly", "yes", "--appendfsync", "always"][..], Durability::EveryAnswer),
        (&["--appendonly", "yes", "--appendfsync", "everysec"], Durability::EverySecond),
        (&["--appendonly", "yes", "--appendfsync", "no"], Durability::Whenever),
        (&["--appendonly", "no"], Durability::SnapshotsOnly),
    ] {
        let server = RedisServer::start_with(settings);
        assert_eq!(*RedisStore::open(&server.url(), 8).await.unwrap().durability(), expected);
    }
}

/// What was answered is there after a `kill -9` of the server; the same store goes on when the server is back, and its
/// sinks have been told of everything, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_outlives_its_server() {
    let server = RedisServer::start();
    let store = open(&server).await;
    let (told, one) = (Arc::new(Told::default()), hook("one"));
    store.subscribe(Arc::clone(&told) as Arc<dyn OutboxSink>);
    let user_id = open_thread(&*store, 1, "walter").await;
    let mut ids = Vec::new();
    for round in 0..3 {
        for _ in 0..10 {
            let commit = next_step(&*store, &user_id, 1).await;
            let sequence = commit.thread.sequence();
            ids.extend(applied(&*store, Commit { outbox: vec![delivery(&one, sequence)], ..commit }).await);
        }
        let commit = next_step(&*store, &user_id, 1).await;
        let sequence = commit.thread.sequence();
        let commit = Commit { outbox: vec![delivery(&one, sequence)], ..commit };
        server.kill();
        let asked = tokio::spawn({
            let (store, commit) = (Arc::clone(&store), commit.clone());
            async move { in_the_end(&*store, &commit).await }
        });
        server.revive();
        ids.extend(asked.await.unwrap());
        assert_eq!(applied(&*store, commit).await, ids[ids.len() - 1..], "found applied: round {round}");
    }
    let feed = store.feed(&user_id, 0, 100).await.unwrap();
    assert_eq!(feed.iter().map(|e| e.message_id).collect::<Vec<_>>(), ids);
    let waiting = store.outbox(&one, 0, 100).await.unwrap();
    assert_eq!(waiting.len(), 33);
    let told = std::mem::take(&mut *told.0.lock().unwrap());
    assert_eq!(outbox::ids(&told), outbox::ids(&waiting), "each once, in order");
}

/// Between the store and Redis; swallows one answer whenever it is told to, and breaks the connection.
struct Thief {
    url: String,
    armed: Arc<AtomicBool>,
}

impl Thief {
    async fn before(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/0", listener.local_addr().unwrap());
        let (armed, address) = (Arc::new(AtomicBool::new(false)), server.address());
        let shared = Arc::clone(&armed);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let armed = Arc::clone(&shared);
                tokio::spawn(async move {
                    let server = TcpStream::connect(address).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let asking = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                    let mut answer = vec![0; 65_536];
                    while let Ok(length @ 1..) = from_server.read(&mut answer).await {
                        // What Redis has answered it has done.
                        if armed.swap(false, Ordering::SeqCst) || to_client.write_all(&answer[..length]).await.is_err()
                        {
                            break;
                        }
                    }
                    asking.abort();
                });
            }
        });
        Self { url, armed }
    }
}

/// The answer is lost after Redis has done what was asked: it is found done, once, and told once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lost_its_answer_is_found_done() {
    let server = RedisServer::start();
    let thief = Thief::before(&server).await;
    let store = RedisStore::open(&thief.url, 16).await.unwrap();
    let (told, one) = (Arc::new(Told::default()), hook("one"));
    store.subscribe(Arc::clone(&told) as Arc<dyn OutboxSink>);
    let user_id = open_thread(&*store, 1, "walter").await;
    let mut ids = Vec::new();
    for n in 0..20_u8 {
        let commit = next_step(&*store, &user_id, 2).await;
        let outbox = vec![delivery(&one, commit.thread.sequence() - 1), delivery(&one, commit.thread.sequence())];
        let commit = Commit { outbox, ..commit };
        thief.armed.store(true, Ordering::SeqCst);
        ids.extend(applied(&*store, commit.clone()).await);
        assert_eq!(applied(&*store, commit).await, ids[ids.len() - 2..], "and again");
        thief.armed.store(true, Ordering::SeqCst);
        assert_eq!(
            store.remember_request([n; 32], NOW.plus(9), NOW).await,
            Ok(true),
            "new, although it was asked twice"
        );
        assert_eq!(store.remember_request([n; 32], NOW.plus(9), NOW).await, Ok(false));
        thief.armed.store(true, Ordering::SeqCst);
        let revision = u64::from(n);
        let write = DocumentWrite { expected_revision: revision, ..DocumentWrite::default() };
        assert_eq!(store.write_documents(write).await, Ok(Written::Applied));
    }
    let last = store.outbox(&one, 0, 100).await.unwrap().pop().unwrap();
    store.update_outbox(vec![outbox::over(&one, last.id, End::Dead, NOW)]).await.unwrap();
    thief.armed.store(true, Ordering::SeqCst);
    let letters =
        store.replay(Replay { endpoints: vec![one.clone()], which: Replayed::Since(NOW), limit: 9, now: NOW });
    // The read before it may be what is stolen from.
    let replayed = match letters.await {
        Ok(count) => count,
        Err(_) => {
            let which = Replayed::Since(NOW);
            store.replay(Replay { endpoints: vec![one.clone()], which, limit: 9, now: NOW }).await.unwrap()
        }
    };
    assert_eq!(replayed, 1);
    let feed = store.feed(&user_id, 0, 100).await.unwrap();
    assert_eq!(feed.iter().map(|e| e.message_id).collect::<Vec<_>>(), ids);
    let waiting = outbox::ids(&store.outbox(&one, 0, 100).await.unwrap());
    let mut told = outbox::ids(&told.0.lock().unwrap());
    told.retain(|id| *id != last.id);
    assert_eq!(told, waiting, "each once, in order");
}

/// Operators flush scripts, and a server that was started again knows none.
#[tokio::test]
async fn scripts_that_are_gone_are_loaded_again() {
    let server = RedisServer::start();
    let store = open(&server).await;
    let user_id = open_thread(&*store, 1, "walter").await;
    redis::cmd("SCRIPT").arg("FLUSH").query_async::<()>(&mut client_of(&server).await).await.unwrap();
    let commit = next_step(&*store, &user_id, 2).await;
    assert_eq!(in_the_end(&*store, &commit).await.len(), 2);
    assert_eq!(store.feed(&user_id, 0, 10).await.unwrap().len(), 2);
}

/// A router that was held up for longer than its lease writes nothing once another one has the store.
#[tokio::test]
async fn a_router_that_lost_the_store_writes_nothing() {
    let server = RedisServer::start();
    let old = open(&server).await;
    let user_id = open_thread(&*old, 1, "walter").await;
    let late = next_step(&*old, &user_id, 1).await;
    // As if it had expired while the old router was held up.
    redis::cmd("DEL").arg("tract:lease").query_async::<()>(&mut client_of(&server).await).await.unwrap();
    let new = open(&server).await;
    let refused = old.commit(late.clone()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let write = DocumentWrite {
        put: vec![Document { kind: "ect".into(), id: "x".into(), body: "{}".into() }],
        ..DocumentWrite::default()
    };
    assert!(old.write_documents(write.clone()).await.is_err());
    assert!(old.ping().await.is_err());
    assert!(new.feed(&user_id, 0, 10).await.unwrap().is_empty());
    assert_eq!(new.write_documents(write).await, Ok(Written::Applied));
    applied(&*new, late).await;
    old.close().await;
    assert_eq!(new.ping().await, Ok(()), "the lease was not the old one's to give back");
}

/// Deliveries of many partitions are one backlog: in the order of their ids, page by page.
#[tokio::test]
async fn a_backlog_is_merged_from_all_partitions() {
    let server = RedisServer::start();
    let (store, one) = (RedisStore::open(&server.url(), 16).await.unwrap(), hook("one"));
    let mut users = Vec::new();
    for n in 0..40 {
        users.push(open_thread(&*store, 1, &format!("user {n}")).await);
    }
    for n in 0..400_usize {
        // One thread has far more than its share.
        let user_id = &users[if n % 3 == 0 { 0 } else { n * 7 % 40 }];
        let commit = next_step(&*store, user_id, 1).await;
        applied(&*store, Commit { outbox: vec![delivery(&one, commit.thread.sequence())], ..commit }).await;
    }
    let whole = outbox::ids(&store.outbox(&one, 0, 1_000).await.unwrap());
    assert_eq!(whole.len(), 400);
    assert!(whole.is_sorted_by(|a, b| a < b));
    for limit in [1, 7, 64, 399] {
        let (mut pages, mut after) = (Vec::<u64>::new(), 0);
        loop {
            let page = outbox::ids(&store.outbox(&one, after, limit).await.unwrap());
            pages.extend(&page);
            let Some(last) = page.last().filter(|_| page.len() == limit) else { break };
            after = *last;
        }
        assert_eq!(pages, whole, "pages of {limit}");
    }
    let buried = store.bury(&one, NOW, 150, NOW.plus(5)).await.unwrap();
    assert_eq!((buried.count, buried.oldest), (150, Some(NOW)));
    assert_eq!(outbox::ids(&store.outbox(&one, 0, 1_000).await.unwrap()), whole[150..]);
}

/// The rights that docs/operations.md tells operators to give are enough, and a wrong password is not.
#[tokio::test]
async fn an_acl_user_needs_no_more_than_documented() {
    let guide = include_str!("../../docs/operations.md");
    let line = guide.lines().find(|line| line.starts_with("An ACL user for the router")).unwrap();
    let rights: Vec<_> = line.split('`').skip(1).step_by(2).flat_map(|rights| rights.split(' ')).collect();
    assert!(rights.contains(&"~tract:*") && rights.contains(&"+@write"), "{rights:?}");
    let server = RedisServer::start();
    let mut acl = redis::cmd("ACL");
    acl.arg("SETUSER").arg("router").arg("on").arg(">a secret").arg(&rights);
    acl.query_async::<()>(&mut client_of(&server).await).await.unwrap();
    let wrong = server.url().replace("redis://", "redis://router:wrong@");
    let refused = RedisStore::open(&wrong, 16).await.unwrap_err();
    assert!(matches!(refused, RedisOpenError::Unreachable { .. }), "{refused}");
    assert!(!refused.to_string().contains("wrong@"), "{refused}");

    let url = server.url().replace("redis://", "redis://router:a%20secret@");
    let (store, one) = (RedisStore::open(&url, 16).await.unwrap(), hook("one"));
    assert_eq!(*store.durability(), Durability::EveryAnswer, "it may ask");
    let user_id = open_thread(&*store, 1, "walter").await;
    for _ in 0..3 {
        let commit = next_step(&*store, &user_id, 1).await;
        let outbox = vec![delivery(&one, commit.thread.sequence())];
        applied(&*store, Commit { outbox, idempotency: None, ..commit }).await;
    }
    let ids = outbox::ids(&store.outbox(&one, 0, 9).await.unwrap());
    store.update_outbox(vec![outbox::over(&one, ids[0], End::Dead, NOW)]).await.unwrap();
    store.bury(&one, NOW, 1, NOW).await.unwrap();
    let replay = Replay { endpoints: vec![one.clone()], which: Replayed::Since(NOW), limit: 9, now: NOW };
    assert_eq!(store.replay(replay).await, Ok(2));
    let write = DocumentWrite { forget: vec![one], ..DocumentWrite::default() };
    assert_eq!(store.write_documents(write).await, Ok(Written::Applied));
    store.forget_expired(NOW).await.unwrap();
    assert_eq!(store.feed(&user_id, 0, 9).await.unwrap().len(), 3);
    store.close().await;
}
