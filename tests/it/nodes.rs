//! Several nodes on one Redis: who acts for what, that each sees what the others did, and that none of it is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use crate::store_contract::{outbox::Told, *};
use crate::support::{BUSINESS, CLIENT, Process, RedisServer, Tenant};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tract::clock::SystemClock;
use tract::security::{egress::EgressClient, url::EgressRules};
use tract::store::redis::RedisStore;
use tract::tenancy::{Hook, Tenancy};
use tract::webhook::WebhookDeliverer;
use tract_actors::ports::{
    Attempt, Commit, Committed, Deliverer, End, Held, Leases, Outbox, OutboxSink, Settled, Store, StoreError,
};
use tract_domain::{Timestamp, Topic};

/// How long a condition is waited for. Real time: only a failing test ever takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

const RULES: EgressRules = EgressRules { allow_private: true, allow_http: true };

/// The configuration as a node has it that sees the store like this.
async fn tenancy(store: &Arc<RedisStore>) -> Arc<Tenancy> {
    Tenancy::load(Arc::clone(store) as Arc<dyn Store>, RULES).await.unwrap()
}

async fn open(server: &RedisServer, node_id: &str) -> Arc<RedisStore> {
    RedisStore::open(&server.url(), 64, node_id).await.unwrap()
}

/// Waits until this node holds so many partitions, and none of them is ending.
async fn holds(store: &RedisStore, count: usize) -> Held {
    let mut held = store.held();
    let settled = held.wait_for(|held| held.len() == count && held.all_active().count() == count);
    tokio::time::timeout(PATIENCE, settled).await.expect("the leases in time").unwrap().clone()
}

/// Does what a router with nothing under way does: lets go at once of what is ending.
fn let_go_at_once(store: &Arc<RedisStore>) {
    let store = Arc::clone(store);
    let mut held = store.held();
    tokio::spawn(async move {
        while held.changed().await.is_ok() {
            let now = held.borrow_and_update().clone();
            now.iter().filter(|(_, lease)| lease.ending).for_each(|(strand, lease)| store.let_go(strand, lease.epoch));
        }
    });
}

fn strands(held: &Held) -> BTreeSet<u16> {
    held.iter().map(|(strand, _)| strand).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_spread_evenly_and_handed_over() {
    let server = RedisServer::start();
    let one = open(&server, "one").await;
    let_go_at_once(&one);
    assert_eq!(holds(&one, 64).await.all_active().map(|(_, epoch)| epoch).max(), Some(1));
    let two = open(&server, "two").await;
    let_go_at_once(&two);
    let (of_one, of_two) = (holds(&one, 32).await, holds(&two, 32).await);
    assert!(strands(&of_one).is_disjoint(&strands(&of_two)));
    assert!(of_two.all_active().all(|(_, epoch)| epoch == 2), "they have changed hands once");
    let three = open(&server, "three").await;
    let_go_at_once(&three);
    let (of_one, of_two) = (holds(&one, 22).await, holds(&two, 22).await);
    let all: BTreeSet<u16> = [&of_one, &of_two, &holds(&three, 20).await].into_iter().flat_map(strands).collect();
    assert_eq!(all.len(), 64);
    let seen = |store: &RedisStore| store.nodes().into_iter().map(|node| node.node_id).collect::<Vec<_>>();
    assert_eq!(seen(&three), ["one", "three", "two"]);

    // One that resigns has nothing in the end, and the others everything.
    one.resign();
    tokio::time::timeout(PATIENCE, one.held().wait_for(Held::is_empty)).await.expect("in time").unwrap();
    holds(&two, 32).await;
    holds(&three, 32).await;
    one.close().await;
    two.close().await;
    holds(&three, 64).await;
}

/// What a router that is held up with attempts under way does not let go is taken from it after a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_under_way_hold_up_a_handover_for_a_moment_only() {
    let server = RedisServer::start();
    let one = open(&server, "one").await;
    holds(&one, 64).await;
    let two = open(&server, "two").await;
    holds(&two, 32).await;
    holds(&one, 32).await;
}

/// The owner's sink has what it committed itself, and is told where another node committed something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_of_a_partition_is_told_of_what_others_commit() {
    let server = RedisServer::start();
    let (owner, other) = (open(&server, "one").await, open(&server, "two").await);
    let_go_at_once(&owner);
    let held = holds(&owner, 32).await;
    holds(&other, 32).await;
    let (told, told_other, hook) = (Arc::new(Told::default()), Arc::new(Told::default()), hook("one"));
    owner.subscribe(Arc::clone(&told) as Arc<dyn OutboxSink>);
    other.subscribe(Arc::clone(&told_other) as Arc<dyn OutboxSink>);
    let (mut ours, mut theirs) = (0, 0);
    for n in 0..40 {
        let user_id = open_thread(&*other, 1, &format!("user {n}")).await;
        for store in [&owner, &other, &owner] {
            let commit = next_step(&**store, &user_id, 1).await;
            let sequence = commit.thread.sequence();
            applied(&**store, Commit { outbox: vec![delivery(&hook, sequence)], ..commit }).await;
        }
        let strand = pending(&*owner, &hook, 0, 1000).await.iter().find(|d| d.user_id == user_id).unwrap().strand;
        if held.active(strand).is_some() {
            ours += 1;
            let handed: Vec<_> = told.deliveries().into_iter().filter(|d| d.user_id == user_id).collect();
            assert_eq!(handed.iter().map(|d| d.sequence).collect::<Vec<_>>(), [1, 3]);
            assert!(handed[1].behind > handed[0].id, "that there is one between them can be seen");
            told.until(|_, missed| missed.iter().any(|(missed, to)| *missed == strand && *to == hook)).await;
        } else {
            theirs += 1;
            assert!(told.deliveries().iter().all(|d| d.user_id != user_id), "another node has it");
        }
    }
    assert!(ours > 4 && theirs > 4, "{ours} and {theirs}");
    assert!(told_other.deliveries().iter().all(|d| held.active(d.strand).is_none()));
}

/// What was done under a lease that has passed on does not count: outcomes, dead letters, turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_under_a_lease_that_has_passed_on_does_not_count() {
    let server = RedisServer::start();
    let old = open(&server, "old").await;
    let_go_at_once(&old);
    let before = holds(&old, 64).await;
    let (hook, user_id) = (hook("one"), open_thread(&*old, 1, "walter").await);
    let commit = next_step(&*old, &user_id, 2).await;
    applied(&*old, Commit { outbox: vec![delivery(&hook, 1), delivery(&hook, 2)], ..commit }).await;
    let waiting = pending(&*old, &hook, 0, 10).await;
    let strand = waiting[0].strand;
    let epoch = before.active(strand).unwrap();
    old.resign();
    let new = open(&server, "new").await;
    let now = holds(&new, 64).await;
    assert_eq!(now.active(strand), Some(epoch + 1));

    let mut late = outbox::over(&hook, waiting[0].id, End::Dead, NOW);
    late.epoch = epoch;
    old.update_outbox(vec![late]).await.unwrap();
    assert_eq!(old.bury(&hook, &[(strand, epoch)], NOW.plus(9), 10, NOW).await.unwrap().count, 0);
    let settles = Some(Settled { endpoint: hook.clone(), id: waiting[0].id, epoch });
    let turn = Commit { settles, ..next_step(&*old, &user_id, 1).await };
    assert_eq!(old.commit(turn).await, Err(StoreError::Superseded));
    assert_eq!(pending(&*new, &hook, 0, 10).await.len(), 2, "nothing has happened");
    assert_eq!(new.endpoint_status(&hook).await.unwrap().dead, 0);

    // A commit that a caller asked for is another matter: any node may do that.
    applied(&*old, next_step(&*old, &user_id, 1).await).await;
    let settles = Some(Settled { endpoint: hook.clone(), id: waiting[0].id, epoch: epoch + 1 });
    let turn = Commit { settles, ..next_step(&*new, &user_id, 1).await };
    assert!(matches!(new.commit(turn).await, Ok(Committed::Applied { .. })));
    assert_eq!(pending(&*new, &hook, 0, 10).await.len(), 1);
}

/// A node on this Redis, called this.
pub(crate) async fn node(server: &RedisServer, node_id: &str, data: &tempfile::TempDir) -> Process {
    let url = server.url();
    Process::start_with(data.path(), |command| {
        command.env("TRACT_STORE__KIND", "redis").env("TRACT_STORE__URL", url).env("TRACT_NODE_ID", node_id);
    })
    .await
}

/// What `GET /admin/v1/nodes` says, once it says so.
async fn nodes_until(process: &Process, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let (deadline, api) = (Instant::now() + PATIENCE, process.api());
    loop {
        let asked = api.request(Method::GET, "/admin/v1/nodes").bearer_auth(process.admin_token);
        let answer = api.send(asked).await.ok();
        let nodes = answer["nodes"].as_array().unwrap().clone();
        if is_so(&nodes) {
            return nodes;
        }
        assert!(Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_serves_any_request() {
    let (server, data) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let one = node(&server, "one", &data).await;
    let two = node(&server, "two", &data).await;
    let Tenant { desk, sprinkle, channel } = one.tenant().await;
    let nodes = nodes_until(&two, |nodes| nodes.iter().all(|node| node["partitions"] == 128)).await;
    assert_eq!(nodes.iter().map(|node| node["node_id"].as_str().unwrap()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(nodes.iter().map(|node| node["this"].as_bool().unwrap()).collect::<Vec<_>>(), [false, true]);

    // What was declared at one is known to the other within a second, and so is a hook.
    let (at_two, sprinkle_at_two) = (channel.at(&two.api()), sprinkle.at(&two.api()));
    let user_id = channel.user(&json!({"auth_id": "walter"})).await;
    let begun = Instant::now();
    while sprinkle_at_two.get(&format!("/tract/thread/?user_id={user_id}")).await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // By turns, so that either node's memory of the thread is out of date each time.
    for n in 1..=20_u64 {
        let (channel, sprinkle) = if n % 2 == 0 { (&channel, &sprinkle_at_two) } else { (&at_two, &sprinkle) };
        channel.say("walter", &format!("question {n}")).await;
        let body = json!({"user_id": user_id, "message_body": format!("answer {n}"), "sender": "aeu"});
        sprinkle.post("/tract/message/send/", &body).await.ok();
    }
    let asked = |n: u64| format!("question {n}");
    desk.find("all questions", |seen| {
        let texts: Vec<String> = seen.iter().filter(|r| r.topic == "message.receive").map(|r| r.text()).collect();
        (texts.len() >= 20).then(|| assert_eq!(texts, (1..=20).map(asked).collect::<Vec<_>>(), "in order"))
    })
    .await;

    // A refusal says what is committed, not what this node remembers.
    let mut conflicts = 0;
    for process in [&one, &two] {
        let text = process.api().request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("tract_commit_conflicts_total "));
        conflicts += count.map_or(0, |count| count.parse::<u64>().unwrap());
    }
    assert!(conflicts > 0, "what was out of date was found to be");
    let stale = json!({"user_id": user_id, "message_body": "late", "sender": "aeu", "control_epoch": 77});
    let refused = sprinkle.post("/tract/message/send/", &stale).await;
    assert_eq!((refused.status, refused.body["code"].as_str()), (409, Some("stale_epoch")));

    // One is told to stop: the other has everything at once, and what comes is delivered.
    one.terminate();
    assert!(one.wait().success());
    nodes_until(&two, |nodes| nodes.len() == 1 && nodes[0]["partitions"] == 256).await;
    at_two.say("walter", "still there?").await;
    desk.find("the last question", |seen| seen.iter().any(|r| r.text() == "still there?").then_some(())).await;
    desk.assert_sound();
}

/// What a node remembers of a thread is no ground for a refusal once another node has changed it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_not_out_of_date() {
    let (server, data) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let one = node(&server, "one", &data).await;
    let Tenant { desk, channel, .. } = one.tenant().await;
    let declaration = json!({
        "ect": [
            {"ect_id": "sprinkle", "fqdn": "sprinkle.example", "may_pass_to": "any"},
            {"ect_id": "helper", "fqdn": "helper.example", "may_pass_to": "any"},
        ],
        "client": [{"client_id": CLIENT, "ects": ["sprinkle", "helper"], "default_receiver": "sprinkle",
            "business": [{"business_id": BUSINESS}]}],
    });
    one.api().apply(one.admin_token, &declaration).await;
    let sprinkle = one.api().token(one.admin_token, CLIENT, "sprinkle").await;
    let helper = one.api().token(one.admin_token, CLIENT, "helper").await;
    helper.register("message.receive", &desk.url()).await;
    let two = node(&server, "two", &data).await;
    let user_id = channel.user(&json!({"auth_id": "walter"})).await;
    channel.say("walter", "hello?").await;
    let (mut holder, mut next) = (&sprinkle, &helper);
    for _ in 0..6 {
        // The first node has seen this, and the second one moves it on.
        holder.send(&user_id, "aeu", "one moment").await.ok();
        assert_eq!(next.send(&user_id, "aeu", "may I?").await.refused(409, "not_active")["active"], holder.receiver);
        holder.at(&two.api()).control(&user_id, "pass", Some(&next.receiver)).await.ok();
        next.send(&user_id, "aeu", "here I am").await.ok();
        std::mem::swap(&mut holder, &mut next);
    }
}

/// A failover takes a commit back that a node remembers, and another node makes one of the same version in its place: the
/// first does not go on with what is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failover_took_back_is_not_remembered() {
    let (server, data) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let one = node(&server, "one", &data).await;
    let Tenant { sprinkle, channel, .. } = one.tenant().await;
    let two = node(&server, "two", &data).await;
    let user_id = channel.user(&json!({"auth_id": "walter"})).await;
    channel.say("walter", "hello?").await;
    sprinkle.send(&user_id, "aeu", "hello!").await.ok();
    let keys: Vec<String> = ["thread", "entries"]
        .into_iter()
        .flat_map(|kind| server.ask::<Vec<String>>(&["KEYS", &format!("*:{kind}:{user_id}")]))
        .collect();
    assert_eq!(keys.len(), 2);
    for key in &keys {
        assert!(server.ask::<bool>(&["COPY", key, &format!("{key}:before")]));
    }
    channel.say("walter", "this is lost").await;
    for key in &keys {
        assert!(server.ask::<bool>(&["COPY", &format!("{key}:before"), key, "REPLACE"]));
    }
    sprinkle.at(&two.api()).event(&user_id, "conversation_state.complete", &json!({})).await.ok();

    assert_eq!(sprinkle.thread(&user_id).await["state"], "complete");
    channel.say("walter", "me again").await;
    let feed = sprinkle.feed(&user_id).await;
    let last = feed.iter().rfind(|entry| entry["kind"] == "message").unwrap();
    assert_eq!(last["conversation_number"], "2");
    assert!(feed.iter().all(|entry| !entry.to_string().contains("this is lost")));
}

/// The same of the configuration: what other nodes made in its place is taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_a_failover_took_back_is_not_remembered() {
    let server = RedisServer::start();
    let (one, two) = (open(&server, "one").await, open(&server, "two").await);
    let (remembers, other) = (tenancy(&one).await, tenancy(&two).await);
    let declared = |name: &str| {
        let declared = json!({"ect": [{"ect_id": "sprinkle", "name": name, "fqdn": "sprinkle.example"}]});
        serde_json::from_value(declared).unwrap()
    };
    remembers.apply(declared("First"), NOW, None).await.unwrap();
    let keys: Vec<String> = server.ask(&["KEYS", "{tract:config}:*"]);
    for key in &keys {
        assert!(server.ask::<bool>(&["COPY", key, &format!("{key}:before")]));
    }
    remembers.apply(declared("Lost"), NOW, None).await.unwrap();
    let (lost, _) = one.revision().await.unwrap();
    for key in &keys {
        assert!(server.ask::<bool>(&["COPY", &format!("{key}:before"), key, "REPLACE"]));
    }
    other.refresh().await.unwrap();
    other.apply(declared("Second"), NOW, None).await.unwrap();

    let name = |tenancy: &Tenancy| tenancy.directory().ect(&receiver("sprinkle")).unwrap().name.clone();
    assert_eq!(one.revision().await.unwrap().0, lost, "they have counted as far");
    assert!(remembers.refresh().await.unwrap());
    assert_eq!(name(&remembers), name(&other));
}

/// A node that dies is replaced within 10 s: what it had still to deliver, and the timers that it was to fire.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_replaced() {
    let (server, data) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let one = node(&server, "one", &data).await;
    let Tenant { desk, channel, .. } = one.tenant().await;
    let users: Vec<String> = (0..8).map(|n| format!("user {n}")).collect();
    for auth_id in &users {
        channel.user(&json!({"auth_id": auth_id})).await;
    }
    let two = node(&server, "two", &data).await;
    nodes_until(&one, |nodes| nodes.len() == 2 && nodes.iter().all(|node| node["partitions"] == 128)).await;
    one.kill();
    let begun = Instant::now();
    let at_two = channel.at(&two.api());
    for auth_id in &users {
        at_two.say(auth_id, &format!("{auth_id} is here")).await;
    }
    let heard = |seen: &[crate::support::Received]| {
        let texts: BTreeSet<String> = seen.iter().filter(|r| r.topic == "message.receive").map(|r| r.text()).collect();
        users.iter().all(|auth_id| texts.contains(&format!("{auth_id} is here"))).then_some(())
    };
    desk.find("every message", heard).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    nodes_until(&two, |nodes| nodes.len() == 1 && nodes[0]["partitions"] == 256).await;
}

/// A node is told of a delivery sooner than of the hook that it goes to. It looks before it throws the delivery away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_for_a_hook_that_another_node_has_just_made_is_not_thrown_away() {
    let server = RedisServer::start();
    let (one, two) = (open(&server, "one").await, open(&server, "two").await);
    let behind = tenancy(&one).await;
    let (clock, http) = (Arc::new(SystemClock), EgressClient::routed(RULES, &[], &[]).unwrap());
    let deliverer = WebhookDeliverer::new(Arc::clone(&one) as Arc<dyn Store>, behind, clock, http);

    let ahead = tenancy(&two).await;
    let declared = json!({"ect": [{"ect_id": "sprinkle", "fqdn": "sprinkle.example"}],
        "client": [{"client_id": "acme", "ects": ["sprinkle"], "default_receiver": "sprinkle",
            "business": [{"business_id": 1}]}]});
    ahead.apply(serde_json::from_value(declared).unwrap(), NOW, None).await.unwrap();
    let made = Hook {
        client: client("acme"),
        receiver: receiver("sprinkle"),
        topic: Topic::MessageReceive,
        category: "message".to_owned(),
        // Nobody listens on port 1.
        url: "http://127.0.0.1:1/".to_owned(),
        registered_at: Timestamp(0),
    };
    let endpoint = hook("sprinkle");
    let user_id = open_thread(&*two, 1, "walter").await;
    let commit = next_step(&*two, &user_id, 1).await;
    let sequence = commit.thread.sequence();
    applied(&*two, Commit { outbox: vec![delivery(&endpoint, sequence)], ..commit }).await;
    let waiting = pending(&*one, &endpoint, 0, 9).await;

    let attempted = async || deliverer.attempt(&waiting[0]).await.outcome;
    assert!(matches!(attempted().await, Attempt::Void(_)), "nobody has made the hook");
    ahead.register_hook(made, None).await.unwrap();
    assert!(matches!(attempted().await, Attempt::Failed { .. }), "it was tried");
}
