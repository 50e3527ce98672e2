//! The store on Redis: the contract, and what only a server beside the router can do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use crate::store_contract::{Place, outbox::Told, *};
use crate::support::RedisServer;
use async_trait::async_trait;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tract::store::redis::{RedisOpenError, RedisStore};
use tract_actors::ports::{
    Commit, Committed, DocumentWrite, End, KeyHome, Outbox, OutboxSink, Part, Replay, Replayed, Store, StoreError,
    Written,
};
use tract_domain::Reply;

#[async_trait]
impl Place for RedisServer {
    async fn open(&self) -> Arc<dyn Store> {
        open(self).await
    }
}

async fn open(server: &RedisServer) -> Arc<RedisStore> {
    RedisStore::open(&server.url(), 256, "n1").await.unwrap()
}

store_contract!(contract, RedisServer::start());

/// A client of the test's own.
async fn client_of(server: &RedisServer) -> redis::aio::MultiplexedConnection {
    redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Asks until the store is reached again: callers do, with the same commit id.
pub(crate) async fn in_the_end(store: &dyn Store, commit: &Commit) -> Vec<u64> {
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
async fn the_number_of_partitions_is_fixed() {
    let server = RedisServer::start();
    let url = server.url();
    let open = |partitions| RedisStore::open(&url, partitions, "n1");
    assert!(matches!(open(0).await, Err(RedisOpenError::PartitionCount(0))));
    assert!(matches!(open(1025).await, Err(RedisOpenError::PartitionCount(1025))));
    open(8).await.unwrap().close().await;
    let refused = open(16).await.unwrap_err();
    assert!(matches!(refused, RedisOpenError::Partitions { stored: 8, asked: 16, .. }), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_used_is_said() {
    let server = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let refused = RedisStore::open(&server.url(), 8, "n1").await.unwrap_err().to_string();
    assert!(refused.contains("maxmemory-policy allkeys-lru") && refused.contains("noeviction"), "{refused}");
    server.kill();
    let refused = RedisStore::open(&server.url(), 8, "n1").await.unwrap_err();
    assert!(matches!(refused, RedisOpenError::Unreachable { .. }), "{refused}");
    for (url, expected) in [
        ("redis+cluster://127.0.0.1:1/7", "has one database"),
        ("redis+sentinel://127.0.0.1:1", "/mymaster"),
        ("http://127.0.0.1:1", "must begin with redis://"),
        ("nonsense", "must be like redis://"),
    ] {
        let refused = RedisStore::open(url, 8, "n1").await.unwrap_err().to_string();
        assert!(refused.starts_with("store.url: ") && refused.contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn it_says_what_a_power_cut_could_cost() {
    for (settings, expected) in [
        (&["--appendonly", "yes", "--appendfsync", "always"][..], "survives a power cut"),
        (&["--appendonly", "yes", "--appendfsync", "everysec"], "about a second"),
        (&["--appendonly", "yes", "--appendfsync", "no"], "half a minute"),
        (&["--appendonly", "no"], "since its last snapshot"),
    ] {
        let server = RedisServer::start_with(settings);
        let said = RedisStore::open(&server.url(), 8, "n1").await.unwrap().durability();
        assert!(said.says.contains(expected), "{said:?}");
        assert_eq!(said.survives_power_cut, expected == "survives a power cut");
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
    let waiting = pending(&*store, &one, 0, 100).await;
    assert_eq!(waiting.len(), 33);
    let mut seen = outbox::ids(&told.deliveries());
    assert!(seen.is_sorted_by(|a, b| a < b), "in order");
    // What was committed just before the server was killed is not handed over, but said to be missed.
    let missed = told.missed();
    assert!(seen.len() >= 30 && seen.len() + missed.len() >= 33, "{} and {}", seen.len(), missed.len());
    seen.retain(|id| waiting.iter().all(|delivery| delivery.id != *id));
    assert!(seen.is_empty());
}

/// Between the store and Redis; swallows the answer to one request that it is told to, and breaks the connection.
struct Thief {
    url: String,
    /// Something that is only in that request.
    wanted: Arc<Mutex<Option<String>>>,
    /// What Redis is told once it has done what was asked, before anybody can ask again.
    then: Arc<Mutex<Option<&'static str>>>,
}

impl Thief {
    async fn before(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/0", listener.local_addr().unwrap());
        let (wanted, address) = (Arc::<Mutex<Option<String>>>::default(), server.address());
        let then = Arc::<Mutex<Option<&'static str>>>::default();
        let (shared, after) = (Arc::clone(&wanted), Arc::clone(&then));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (wanted, then) = (Arc::clone(&shared), Arc::clone(&after));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(address).await else { return };
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let armed = Arc::new(AtomicBool::new(false));
                    let asking = tokio::spawn({
                        let armed = Arc::clone(&armed);
                        async move {
                            let mut asked = vec![0; 65_536];
                            while let Ok(length @ 1..) = from_client.read(&mut asked).await {
                                let text = String::from_utf8_lossy(&asked[..length]).into_owned();
                                if wanted.lock().unwrap().take_if(|wanted| text.contains(&**wanted)).is_some() {
                                    armed.store(true, Ordering::SeqCst);
                                }
                                if to_server.write_all(&asked[..length]).await.is_err() {
                                    break;
                                }
                            }
                        }
                    });
                    let mut answer = vec![0; 65_536];
                    while let Ok(length @ 1..) = from_server.read(&mut answer).await {
                        // What Redis has answered it has done.
                        let told = if armed.load(Ordering::SeqCst) { then.lock().unwrap().take() } else { None };
                        if let Some(told) = told {
                            let mut operator = TcpStream::connect(address).await.unwrap();
                            operator.write_all(format!("{told}\r\n").as_bytes()).await.unwrap();
                            let mut reply = [0; 5];
                            operator.read_exact(&mut reply).await.unwrap();
                            assert_eq!(&reply, b"+OK\r\n");
                        }
                        if armed.load(Ordering::SeqCst) || to_client.write_all(&answer[..length]).await.is_err() {
                            break;
                        }
                    }
                    asking.abort();
                });
            }
        });
        Self { url, wanted, then }
    }

    fn steal_the_answer_to(&self, wanted: impl Into<String>) {
        *self.wanted.lock().unwrap() = Some(wanted.into());
    }

    fn has_stolen(&self) -> bool {
        self.wanted.lock().unwrap().is_none()
    }
}

/// The answer is lost after Redis has done what was asked: it is found done, once, and its sinks know that they have missed
/// something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lost_its_answer_is_found_done() {
    let server = RedisServer::start();
    let thief = Thief::before(&server).await;
    let store = RedisStore::open(&thief.url, 16, "n1").await.unwrap();
    let (told, one) = (Arc::new(Told::default()), hook("one"));
    store.subscribe(Arc::clone(&told) as Arc<dyn OutboxSink>);
    let user_id = open_thread(&*store, 1, "walter").await;
    let mut ids = Vec::new();
    for n in 0..20_u8 {
        let commit = next_step(&*store, &user_id, 2).await;
        let outbox = vec![delivery(&one, commit.thread.sequence() - 1), delivery(&one, commit.thread.sequence())];
        let commit = Commit { outbox, ..commit };
        thief.steal_the_answer_to(commit.commit_id.simple().to_string());
        ids.extend(applied(&*store, commit.clone()).await);
        assert!(thief.has_stolen());
        assert_eq!(applied(&*store, commit).await, ids[ids.len() - 2..], "and again");
        thief.steal_the_answer_to(format!("{n:02x}").repeat(32));
        assert_eq!(
            store.remember_request([n; 32], NOW.plus(9), NOW).await,
            Ok(true),
            "new, although it was asked twice"
        );
        assert!(thief.has_stolen());
        assert_eq!(store.remember_request([n; 32], NOW.plus(9), NOW).await, Ok(false));
        thief.steal_the_answer_to("{tract:config}:documents");
        let revision = u64::from(n);
        let write = DocumentWrite { expected_revision: revision, ..DocumentWrite::default() };
        assert_eq!(store.write_documents(write).await, Ok(Written::Applied));
        assert!(thief.has_stolen());
    }
    let last = pending(&*store, &one, 0, 100).await.pop().unwrap();
    write_outcomes(&*store, vec![outbox::over(&one, last.id, End::Dead, NOW)]).await;
    // Of all requests only the one that sends it again has the name as an argument of its own.
    thief.steal_the_answer_to(format!("\r\n{}\r\n", one.name()));
    let replay = Replay { endpoints: vec![one.clone()], which: Replayed::Since(NOW), limit: 9, now: NOW };
    assert_eq!(store.replay(replay).await, Ok(1));
    assert!(thief.has_stolen());
    let feed = store.feed(&user_id, 0, 100).await.unwrap();
    assert_eq!(feed.iter().map(|e| e.message_id).collect::<Vec<_>>(), ids);
    let waiting = pending(&*store, &one, 0, 100).await;
    assert_eq!(waiting.len(), 40);
    assert!(told.deliveries().is_empty(), "no answer that told of them has come");
    assert!(told.missed().len() >= 21 && told.missed().iter().all(|of| *of == (last.strand, one.clone())));
}

/// A step that sends letters of several endpoints again has a call for each; all of them are asked for again. Whoever counts
/// too few believes that there are no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_that_were_sent_again_are_counted_although_the_answer_was_lost() {
    let server = RedisServer::start();
    let thief = Thief::before(&server).await;
    let store = RedisStore::open(&thief.url, 16, "n1").await.unwrap();
    let endpoints = [hook("one"), hook("two")];
    let user_id = open_thread(&*store, 1, "walter").await;
    for endpoint in &endpoints {
        for _ in 0..3 {
            let commit = next_step(&*store, &user_id, 1).await;
            applied(&*store, Commit { outbox: vec![delivery(endpoint, commit.thread.sequence())], ..commit }).await;
        }
        let waiting = pending(&*store, endpoint, 0, 9).await;
        let dead = waiting.iter().map(|delivery| outbox::over(endpoint, delivery.id, End::Dead, NOW));
        write_outcomes(&*store, dead.collect()).await;
    }
    thief.steal_the_answer_to(format!("\r\n{}\r\n", endpoints[0].name()));
    let replay = Replay { endpoints: endpoints.to_vec(), which: Replayed::Since(NOW), limit: 9, now: NOW };
    assert_eq!(store.replay(replay).await, Ok(6));
    assert!(thief.has_stolen());
    for endpoint in &endpoints {
        assert_eq!(pending(&*store, endpoint, 0, 9).await.len(), 3);
    }
}

/// The answer is lost, and then Redis refuses: what was done is not said to be undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_after_a_lost_answer_leaves_the_outcome_open() {
    let server = RedisServer::start();
    let thief = Thief::before(&server).await;
    let store = RedisStore::open(&thief.url, 16, "n1").await.unwrap();
    let user_id = open_thread(&*store, 1, "walter").await;
    let commit = next_step(&*store, &user_id, 2).await;
    *thief.then.lock().unwrap() = Some("ACL SETUSER default -evalsha");
    thief.steal_the_answer_to(commit.commit_id.simple().to_string());
    assert_eq!(store.commit(commit.clone()).await, Err(StoreError::OutcomeUnknown));
    let other = next_step(&*store, &user_id, 1).await;
    assert!(matches!(store.commit(other).await, Err(StoreError::Unavailable(_))), "that one was not even tried");
    let allow = redis::cmd("ACL").arg(&["SETUSER", "default", "+evalsha"]).to_owned();
    allow.exec_async(&mut client_of(&server).await).await.unwrap();
    let ids = applied(&*store, commit).await;
    assert_eq!(ids, store.feed(&user_id, 0, 9).await.unwrap().iter().map(|e| e.message_id).collect::<Vec<_>>());
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

/// Versions before this one kept the answer for a key where its bytes say; it is kept for 24 hours.
#[tokio::test]
async fn an_answer_that_an_older_version_kept_is_found() {
    let server = RedisServer::start();
    let store = open(&server).await;
    let user_id = open_thread(&*store, 1, "walter").await;
    let home = KeyHome::Thread(user_id.clone());
    let commit = next_step(&*store, &user_id, 1).await;
    let key = key(&home, 7, 5, NOW.plus(1000));
    applied(&*store, Commit { idempotency: Some((key, Reply::Done)), ..commit }).await;
    let first = kept(&*store, &home, 7, NOW).await;
    assert!(first.is_some());
    let home_now: Vec<String> = server.ask(&["KEYS", "*:answers"]);
    let before = format!("{{tract:{}}}:answers", 0x0707 % 256);
    assert_ne!(home_now[0], before);
    server.ask::<()>(&["RENAME", &home_now[0], &before]);
    assert_eq!(kept(&*store, &home, 7, NOW).await, first);
}

/// Outcomes are written while a backlog is read, as after a hook was replaced: a page that ends a backlog must not be short
/// because of what has gone since its ids were looked at.
#[tokio::test]
async fn a_page_is_not_short_for_what_has_gone_while_it_was_read() {
    let server = RedisServer::start();
    let (store, one) = (open(&server).await, hook("one"));
    let user_id = open_thread(&*store, 1, "walter").await;
    for _ in 0..7 {
        let commit = next_step(&*store, &user_id, 1).await;
        applied(&*store, Commit { outbox: vec![delivery(&one, commit.thread.sequence())], ..commit }).await;
    }
    let waiting = pending(&*store, &one, 0, 9).await;
    let (strand, ids) = (waiting[0].strand, outbox::ids(&waiting));
    // The ids are still there, as they were when they were looked at; their records are not any more.
    for id in [ids[0], ids[1], ids[4]] {
        server.ask::<u64>(&["HDEL", &format!("{{tract:{strand}}}:outbox:{}", one.name()), &id.to_string()]);
    }
    for (limit, expected) in [(2, &[2, 3][..]), (3, &[2, 3, 5]), (4, &[2, 3, 5, 6]), (9, &[2, 3, 5, 6])] {
        let page = store.outbox(&one, &[Part { strand, after: 0, limit }]).await.unwrap().remove(0);
        assert_eq!(outbox::ids(&page), expected.iter().map(|n| ids[*n]).collect::<Vec<_>>(), "of {limit}");
    }
}

/// Dead letters are made in every partition, a bounded number at once, the oldest of each first.
#[tokio::test]
async fn a_backlog_is_buried_in_all_partitions() {
    let server = RedisServer::start();
    let (store, one) = (RedisStore::open(&server.url(), 16, "n1").await.unwrap(), hook("one"));
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
    let held = held(&*store).await;
    let mut rounds = 0;
    loop {
        let before = store.endpoint_status(&one).await.unwrap();
        let buried = store.bury(&one, &held, NOW, 150, NOW.plus(5)).await.unwrap();
        let after = store.endpoint_status(&one).await.unwrap();
        assert!(buried.count <= 150 && after.dead == before.dead + buried.count);
        assert_eq!(after.pending + after.dead, 400);
        rounds += 1;
        if buried.oldest.is_none() {
            break;
        }
        assert_eq!(buried.oldest, Some(NOW));
        assert!(buried.count > 0 && rounds < 400);
    }
    assert_eq!(store.endpoint_status(&one).await.unwrap().pending, 0);
    assert!(rounds > 2);
    let others: Vec<_> = held.iter().map(|(strand, epoch)| (*strand, epoch + 1)).collect();
    let user_id = &users[0];
    let commit = next_step(&*store, user_id, 1).await;
    applied(&*store, Commit { outbox: vec![delivery(&one, commit.thread.sequence())], ..commit }).await;
    assert_eq!(store.bury(&one, &others, NOW, 150, NOW).await.unwrap().count, 0, "not under another epoch");
}

/// The rights that docs/operations.md tells operators to give are enough, and a wrong password is not.
#[tokio::test]
async fn an_acl_user_needs_no_more_than_documented() {
    let server = RedisServer::start();
    server.add_router("a secret");
    let wrong = server.url().replace("redis://", "redis://router:wrong@");
    let refused = RedisStore::open(&wrong, 16, "n1").await.unwrap_err();
    assert!(matches!(refused, RedisOpenError::Unreachable { .. }), "{refused}");
    assert!(!refused.to_string().contains("wrong@"), "{refused}");

    let url = server.url().replace("redis://", "redis://router:a%20secret@");
    let (store, one) = (RedisStore::open(&url, 16, "n1").await.unwrap(), hook("one"));
    assert!(store.durability().survives_power_cut, "it may ask");
    let user_id = open_thread(&*store, 1, "walter").await;
    for _ in 0..3 {
        let commit = next_step(&*store, &user_id, 1).await;
        let outbox = vec![delivery(&one, commit.thread.sequence())];
        applied(&*store, Commit { outbox, idempotency: None, ..commit }).await;
    }
    let ids = outbox::ids(&pending(&*store, &one, 0, 9).await);
    write_outcomes(&*store, vec![outbox::over(&one, ids[0], End::Dead, NOW)]).await;
    store.bury(&one, &held(&*store).await, NOW, 1, NOW).await.unwrap();
    let replay = Replay { endpoints: vec![one.clone()], which: Replayed::Since(NOW), limit: 9, now: NOW };
    assert_eq!(store.replay(replay).await, Ok(2));
    let write = DocumentWrite { forget: vec![one], ..DocumentWrite::default() };
    assert_eq!(store.write_documents(write).await, Ok(Written::Applied));
    store.forget_expired(NOW).await.unwrap();
    assert_eq!(store.feed(&user_id, 0, 9).await.unwrap().len(), 3);
    store.close().await;
}
