//! The store on Redis Cluster: the contract, and what happens when keys move or a shard's primary dies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use crate::store_contract::{Place, outbox::Told, *};
use crate::store_redis::in_the_end;
use crate::support::{Answer, Process, RedisCluster, RedisServer, SharedCluster, Tenant, TestCa, wait_until};
use async_trait::async_trait;
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tract::store::redis::{RedisOpenError, RedisStore};
use tract_actors::ports::{Commit, End, Leases, Outbox, OutboxSink, OutboxUpdate, Part, Store};
use tract_domain::UserId;

const PARTITIONS: u16 = 256;

#[async_trait]
impl Place for SharedCluster {
    async fn open(&self) -> Arc<dyn Store> {
        open(&self.url()).await
    }
}

store_contract!(contract, SharedCluster::take());

async fn open(url: &str) -> Arc<RedisStore> {
    RedisStore::open(url, PARTITIONS, "n1").await.unwrap()
}

/// How many partitions this node acts for.
fn held(store: &RedisStore) -> usize {
    Leases::held(store).borrow().len()
}

/// The hash tag of a thread's partition, as a key.
fn tag(user_id: &UserId) -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&user_id.as_str()[1..]).unwrap();
    format!("{{tract:{}}}", u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// A thread for each shard, by the number of its primary.
async fn one_thread_each(store: &dyn Store, cluster: &RedisCluster) -> Vec<UserId> {
    let mut found: Vec<Option<UserId>> = vec![None; 3];
    for n in 0.. {
        let user_id = store.user_id(&client("acme"), 1, &format!("user {n}"));
        let home = cluster.home(&tag(&user_id));
        if found[home].is_none() {
            found[home] = Some(open_thread(store, 1, &format!("user {n}")).await);
        }
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found.into_iter().flatten().collect()
}

/// One more message, told to one hook; its ids.
async fn say(store: &dyn Store, user_id: &UserId) -> Vec<u64> {
    let commit = next_step(store, user_id, 1).await;
    let outbox = vec![delivery(&hook("one"), commit.thread.sequence())];
    in_the_end(store, &Commit { outbox, ..commit }).await
}

async fn feed_ids(store: &dyn Store, user_id: &UserId) -> Vec<u64> {
    let feed = store.feed(user_id, 0, 1000).await.unwrap();
    assert!(feed.iter().zip(1..).all(|(entry, n)| entry.entry.sequence == n));
    feed.iter().map(|entry| entry.message_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_while_it_is_written_to() {
    let cluster = RedisCluster::start();
    let store = open(&cluster.url()).await;
    let told = Arc::new(Told::default());
    store.subscribe(Arc::clone(&told) as Arc<dyn OutboxSink>);
    let users = one_thread_each(&*store, &cluster).await;
    let (moved, mut said) = (users[0].clone(), vec![Vec::new(); 3]);
    for (n, user_id) in users.iter().enumerate() {
        said[n].extend(say(&*store, user_id).await);
    }

    let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
    let slot: u16 = from.ask(&["CLUSTER", "KEYSLOT", &tag(&moved)]);
    let (slot, port) = (slot.to_string(), to.address().port().to_string());
    let (from_id, to_id): (String, String) = (from.ask(&["CLUSTER", "MYID"]), to.ask(&["CLUSTER", "MYID"]));
    to.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    let keys: Vec<String> = from.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]);
    let (first, rest) = keys.split_at(keys.len() / 2);
    for key in first {
        from.ask::<String>(&["MIGRATE", "127.0.0.1", &port, key, "0", "1000"]);
    }
    // Half of the keys are here, half are there: what is read is found, what is written waits, and nobody else does.
    assert_eq!(feed_ids(&*store, &moved).await, said[0]);
    let commit = next_step(&*store, &moved, 1).await;
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        let outbox = vec![delivery(&hook("one"), commit.thread.sequence())];
        async move { in_the_end(&*store, &Commit { outbox, ..commit }).await }
    });
    for _ in 0..20 {
        for n in [1, 2] {
            said[n].extend(say(&*store, &users[n]).await);
        }
    }
    assert!(!waiting.is_finished(), "it waits");
    for key in rest {
        from.ask::<String>(&["MIGRATE", "127.0.0.1", &port, key, "0", "1000"]);
    }
    assert_eq!(feed_ids(&*store, &moved).await, said[0], "read where it is asked for");
    for node in [to, from, &cluster.nodes[2]] {
        node.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    said[0].extend(waiting.await.unwrap());
    for _ in 0..10 {
        said[0].extend(say(&*store, &moved).await);
    }
    for (said, user_id) in said.iter().zip(&users) {
        assert_eq!(feed_ids(&*store, user_id).await, *said);
    }
    let told = outbox::ids(&told.deliveries());
    assert_eq!(told.len(), said.iter().map(Vec::len).sum::<usize>(), "each once");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_a_primarys_place() {
    let cluster = RedisCluster::start_with_replicas();
    let store = open(&cluster.url()).await;
    assert_eq!(store.redundancy().replicas, 1);
    let users = one_thread_each(&*store, &cluster).await;
    let mut said = vec![Vec::new(); 3];
    for (n, user_id) in users.iter().enumerate() {
        said[n].extend(say(&*store, user_id).await);
    }
    let leases = held(&store);
    assert_eq!(leases, usize::from(PARTITIONS));
    wait_until("the replica has it all", || {
        let info: String = cluster.nodes[1].ask(&["INFO", "replication"]);
        let offset = |name: &str| info.split(name).nth(1).unwrap().split([',', '\r']).next().unwrap().to_owned();
        offset("offset=") == offset("master_repl_offset:")
    });
    let commit = next_step(&*store, &users[1], 1).await;
    cluster.nodes[1].kill();
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { in_the_end(&*store, &commit).await }
    });
    // The others go on, while nobody has these keys.
    for _ in 0..20 {
        for n in [0, 2] {
            said[n].extend(say(&*store, &users[n]).await);
        }
    }
    said[1].extend(waiting.await.unwrap());
    said[1].extend(say(&*store, &users[1]).await);
    assert_eq!(cluster.home(&tag(&users[1])), 4, "its replica is the primary");
    for (said, user_id) in said.iter().zip(&users) {
        assert_eq!(feed_ids(&*store, user_id).await, *said);
    }
    wait_until("the leases are held", || held(&store) == usize::from(PARTITIONS));
    store.close().await;
}

/// A server that does not answer costs what it has, not what the others have: neither what is written and read there, nor
/// the leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_hangs_holds_up_nobody_else() {
    let cluster = RedisCluster::start();
    let store = open(&cluster.url()).await;
    let told = Arc::new(Told::default());
    store.subscribe(Arc::clone(&told) as Arc<dyn OutboxSink>);
    let users = one_thread_each(&*store, &cluster).await;
    let strand = |user_id: &UserId| tag(user_id)[7..].trim_end_matches('}').parse::<u16>().unwrap();
    let strands: Vec<u16> = users.iter().map(strand).collect();
    for user_id in &users {
        say(&*store, user_id).await;
    }
    let of_shard: Vec<u16> = (0..PARTITIONS).filter(|n| cluster.home(&format!("{{tract:{n}}}")) == 1).collect();
    let (late, waits) = (next_step(&*store, &users[0], 1).await, next_step(&*store, &users[1], 1).await);
    let process = cluster.nodes[1].pause();
    let stuck = tokio::spawn({
        let store = Arc::clone(&store);
        async move { in_the_end(&*store, &waits).await }
    });
    let end = |id: u64, epoch: u64| OutboxUpdate { epoch, ..outbox::over(&hook("one"), id, End::Delivered, NOW) };
    wait_until("its leases are lost", || held(&store) == usize::from(PARTITIONS) - of_shard.len());
    assert!(Leases::held(&*store).borrow().iter().all(|(strand, _)| !of_shard.contains(&strand)), "only its leases");
    assert!(!stuck.is_finished());

    in_the_end(&*store, &late).await;
    let part = |strand: &u16| Part { strand: *strand, after: 0, limit: 10 };
    let parts: Vec<Part> = strands.iter().map(part).collect();
    let pages = store.outbox(&hook("one"), &parts).await.unwrap();
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 1]);
    wait_until("what was not read is missed", || told.missed().contains(&(strands[1], hook("one"))));
    let waiting = store.waiting(&strands).await.unwrap();
    let others = [strands[0], strands[2]].map(|strand| (strand, vec![hook("one")]));
    assert!(waiting.len() == 2 && others.iter().all(|other| waiting.contains(other)), "{waiting:?}");
    wait_until("what it has is looked for later", || told.missed_all().contains(&strands[1]));
    assert_eq!(store.due(&strands, NOW, 10).await, Ok(Vec::new()));
    let epoch = Leases::held(&*store).borrow().active(strands[0]).unwrap();
    let (here, there) = (pages[0][0].id, pages[0][0].id - u64::from(strands[0]) + u64::from(strands[1]));
    assert!(store.update_outbox(vec![end(there, 1), end(here, epoch)]).await.is_err(), "some of it waits");
    assert!(store.outbox(&hook("one"), &parts[..1]).await.unwrap()[0].is_empty(), "the rest is written");

    process.resume();
    stuck.await.unwrap();
    wait_until("its leases are taken again", || held(&store) == usize::from(PARTITIONS));
    store.close().await;
}

/// Nor does it hold up what others are to be delivered: what became of that is written, and an endpoint that was not sent to
/// before is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_hangs_holds_up_nobody_elses_deliveries() {
    let (cluster, data) = (RedisCluster::start(), tempfile::tempdir().unwrap());
    let url = cluster.url();
    let process = Process::start_with(data.path(), |command| {
        command.env("TRACT_STORE__KIND", "redis").env("TRACT_STORE__URL", url);
    })
    .await;
    let Tenant { desk, sprinkle, channel } = process.tenant().await;
    // Without the configuration nobody registers anything, and without the nodes nobody knows who is there.
    let needed = ["{tract:config}", "tract:nodes"].map(|key| cluster.home(key));
    let hangs = (0..3).find(|shard| !needed.contains(shard)).unwrap();
    let (mut here, mut there) = (None, None);
    for n in 0.. {
        let auth_id = format!("user {n}");
        let user_id = channel.user(&json!({"auth_id": auth_id})).await;
        let tag = tag(&UserId::new(&user_id).unwrap());
        let found = if cluster.home(&tag) == hangs { &mut there } else { &mut here };
        found.get_or_insert((auth_id, user_id, tag));
        if here.is_some() && there.is_some() {
            break;
        }
    }
    let ((here, user_id, tag), (there, held_up, _)) = (here.unwrap(), there.unwrap());
    let waiting = format!("{tag}:waiting:{}", hook("sprinkle").name());
    let home = &cluster.nodes[cluster.home(&tag)];
    let is_written = || home.ask::<u64>(&["ZCARD", &waiting]) == 0;
    for auth_id in [&here, &there] {
        channel.say(auth_id, "hello").await;
    }
    desk.find("both", |seen| (seen.len() == 2).then_some(())).await;
    wait_until("what became of it", is_written);

    // One is under way to it when its shard hangs, and comes back then.
    let answered = Arc::new(Notify::new());
    sprinkle.send(&held_up, "aeu", "hello").await.ok();
    desk.reply_to("wait a moment", Answer::ok(json!({})).after(&answered));
    channel.say(&there, "wait a moment").await;
    desk.hear("message.receive", "wait a moment").await;
    let paused = cluster.nodes[hangs].pause();
    answered.notify_one();
    channel.say(&here, "anybody there?").await;
    desk.hear("message.receive", "anybody there?").await;
    let heard = Instant::now();
    wait_until("what became of it", is_written);
    // Whoever waits for the one that hangs waits for 10 s.
    assert!(heard.elapsed() < Duration::from_secs(6), "{:?}", heard.elapsed());

    sprinkle.register("conversation_state.pinned", &desk.url()).await;
    sprinkle.send(&user_id, "aeu", "I am").await.ok();
    desk.wait_for("conversation_state.pinned", |_| true).await;
    paused.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_say_who_is_the_primary() {
    let primary = RedisServer::start();
    let port = primary.address().port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]);
    wait_until("replication", || primary.ask::<String>(&["INFO", "replication"]).contains("state=online"));
    let sentinel = RedisServer::start_sentinel(&primary);
    wait_until("the sentinel knows the replica", || {
        !sentinel.ask::<Vec<redis::Value>>(&["SENTINEL", "REPLICAS", "mymaster"]).is_empty()
    });
    // The first one that is named is not there.
    let at = |name: &str| format!("redis+sentinel://127.0.0.1:1,{}/{name}", sentinel.address());
    let refused = RedisStore::open(&at("nobody"), PARTITIONS, "n1").await.unwrap_err();
    assert!(refused.to_string().contains("knows no primary of the name nobody"), "{refused}");
    let store = open(&at("mymaster")).await;
    let user_id = open_thread(&*store, 1, "walter").await;
    let mut said = say(&*store, &user_id).await;
    wait_until("the replica has it all", || {
        let info: String = primary.ask(&["INFO", "replication"]);
        let offset = |name: &str| info.split(name).nth(1).unwrap().split([',', '\r']).next().unwrap().to_owned();
        offset("offset=") == offset("master_repl_offset:")
    });
    let commit = next_step(&*store, &user_id, 1).await;
    primary.kill();
    said.extend(in_the_end(&*store, &commit).await);
    assert!(replica.ask::<String>(&["INFO", "replication"]).contains("role:master"));
    said.extend(say(&*store, &user_id).await);
    assert_eq!(feed_ids(&*store, &user_id).await, said);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_with_whom_the_authority_vouches_for() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let (server, cluster) = (RedisServer::start_tls(&ca, &[]), RedisCluster::start_tls(&ca));
    let sentinel = RedisServer::start_sentinel(&server);
    let sentinel = format!("rediss+sentinel://{}/mymaster", sentinel.address());
    for url in [&server.url(), &cluster.url(), &sentinel] {
        let store = RedisStore::open_trusting(Some(&ca.file()), url, PARTITIONS, "n1").await.unwrap();
        let user_id = open_thread(&*store, 1, "walter").await;
        let said = say(&*store, &user_id).await;
        assert_eq!(feed_ids(&*store, &user_id).await.pop().as_ref(), said.last());
        store.close().await;
        server.ask::<()>(&["FLUSHALL"]);
        for ca in [None, Some(other.file())] {
            let refused = RedisStore::open_trusting(ca.as_deref(), url, PARTITIONS, "n1").await.unwrap_err();
            assert!(matches!(refused, RedisOpenError::Unreachable { .. }), "{refused}");
        }
    }
    let nowhere =
        RedisStore::open_trusting(Some("no-such.pem".as_ref()), &server.url(), PARTITIONS, "n1").await.unwrap_err();
    assert!(nowhere.to_string().starts_with("store.ca: no-such.pem: "), "{nowhere}");
}

#[tokio::test]
async fn the_wrong_kind_of_server_is_said() {
    let (cluster, server) = (SharedCluster::take(), RedisServer::start());
    let at = cluster.url().replace("redis+cluster://", "");
    let alone = format!("redis://{}", at.split(',').next().unwrap());
    let refused = RedisStore::open(&alone, PARTITIONS, "n1").await.unwrap_err().to_string();
    assert!(refused.contains("begin store.url with redis+cluster://"), "{refused}");
    let refused =
        RedisStore::open(&server.url().replace("redis://", "redis+cluster://"), PARTITIONS, "n1").await.unwrap_err();
    assert!(refused.to_string().contains("begin store.url with redis://"), "{refused}");
    let store = open(&cluster.url()).await;
    assert!(store.durability().says.contains("since its last snapshot"), "what the worst of them does");
    assert!(store.redundancy().to_string().contains("there is no replica"));
}
