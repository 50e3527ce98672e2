//! What only the real process can show: `kill -9` loses nothing that was acknowledged.

use crate::support::{Channel, Peer, Process, Received, RedisServer, Tenant, Token};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const ROUNDS: usize = 20;
const CUSTOMERS: usize = 8;

/// Everybody around a router that dies and comes back; they do not.
struct World {
    data: tempfile::TempDir,
    desk: Peer,
    sprinkle: Token,
    channel: Channel,
    user_ids: Vec<String>,
}

async fn begin(process: &Process, data: tempfile::TempDir) -> World {
    let Tenant { desk, sprinkle, channel } = process.tenant().await;
    let mut user_ids = Vec::new();
    for customer in 0..CUSTOMERS {
        user_ids.push(channel.user(&json!({"auth_id": auth_id(customer)})).await);
    }
    World { data, desk, sprinkle, channel, user_ids }
}

fn auth_id(customer: usize) -> String {
    format!("customer {customer}")
}

/// All customers write without a pause until the router is gone; it is killed after this many acknowledgements. What was
/// acknowledged, of each customer, in order.
async fn write_until_killed(process: Process, channel: &Channel, round: usize, enough: usize) -> Vec<Vec<String>> {
    let channel = channel.at(&process.api());
    let (count, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut writers = JoinSet::new();
    for customer in 0..CUSTOMERS {
        let (channel, count, now) = (channel.clone(), Arc::clone(&count), Arc::clone(&now));
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                let words = format!("round {round}, customer {customer}, message {number}");
                if channel.try_say(&auth_id(customer), &words).await.is_none() {
                    break;
                }
                acknowledged.push(words);
                if count.fetch_add(1, Ordering::SeqCst) + 1 == enough {
                    now.notify_one();
                }
            }
            (customer, acknowledged)
        });
    }
    now.notified().await;
    process.kill();
    let mut acknowledged = vec![Vec::new(); CUSTOMERS];
    for (customer, words) in writers.join_all().await {
        acknowledged[customer] = words;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    die_again_and_again(ROUNDS, |_| (), || ()).await;
}

/// The router and its Redis die, at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9_in_redis() {
    let redis = RedisServer::start();
    let url = redis.url();
    let set = |command: &mut Command| {
        command.env("TRACT_STORE__KIND", "redis").env("TRACT_STORE__URL", &url);
    };
    die_again_and_again(3, set, || {
        redis.kill();
        redis.revive();
    })
    .await;
}

async fn die_again_and_again(rounds: usize, set: impl Fn(&mut Command), meanwhile: impl Fn()) {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start_with(data.path(), &set).await;
    let world = begin(&process, data).await;

    let mut acknowledged = vec![Vec::new(); CUSTOMERS];
    let mut process = Some(process);
    for round in 0..rounds {
        let running = match process.take() {
            Some(process) => process,
            None => Process::start_with(world.data.path(), &set).await,
        };
        // A different moment each time.
        let enough = 20 + 13 * round;
        let more = write_until_killed(running, &world.channel, round, enough).await;
        for (all, more) in acknowledged.iter_mut().zip(more) {
            all.extend(more);
        }
        meanwhile();
    }

    let last = Process::start_with(world.data.path(), &set).await;
    let sprinkle = world.sprinkle.at(&last.api());
    for (user_id, acknowledged) in world.user_ids.iter().zip(&acknowledged) {
        let feed = said(&sprinkle.feed(user_id).await);
        let once: BTreeSet<_> = feed.iter().collect();
        assert_eq!(once.len(), feed.len(), "nothing is doubled in the feed");
        // What was not acknowledged may be there or not; what was, is, in its order.
        let kept: BTreeSet<_> = acknowledged.iter().collect();
        let found: Vec<_> = feed.iter().filter(|words| kept.contains(words)).cloned().collect();
        assert_eq!(found, *acknowledged, "what was acknowledged is in the feed");

        // Delivered at least once, first deliveries in the order of the feed.
        let delivered = |seen: &[Received]| {
            let first = first_deliveries(seen, user_id);
            (first.len() >= feed.len()).then_some(first)
        };
        assert_eq!(world.desk.find("every message of the feed", delivered).await, feed);
    }
    world.desk.assert_sound();
}

/// What customers said, by the feed.
fn said(feed: &[Value]) -> Vec<String> {
    let messages = feed.iter().filter(|entry| entry["kind"] == "message" && entry["sender"] == "ceu");
    let texts = messages.map(|entry| serde_json::from_str::<Value>(entry["message_body"].as_str().unwrap()).unwrap());
    texts.map(|element| element["text"].as_str().unwrap().to_owned()).collect()
}

/// What a thread's hook got, without what came again.
fn first_deliveries(seen: &[Received], user_id: &str) -> Vec<String> {
    let mut ids = BTreeSet::new();
    let of_thread = seen.iter().filter(|r| r.topic == "message.receive" && r.body["user_id"] == user_id);
    of_thread.filter(|r| ids.insert(r.header("webhook-id").to_owned())).map(Received::text).collect()
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let first = Process::start(data.path()).await;
    let second = Process::spawn(data.path()).wait();
    assert!(!second.success(), "{second}");
    let answer = first.api().request(reqwest::Method::GET, "/healthz").send().await.unwrap();
    assert_eq!(answer.status(), 200, "the first goes on");
}

#[tokio::test]
async fn metrics_say_what_operators_watch() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path()).await;
    let metrics = || async {
        process.api().request(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap()
    };
    // What is counted while a request is answered shows from the second on.
    metrics().await;
    let text = metrics().await;
    for line in [
        "tract_http_requests_total{method=\"GET\",route=\"/metrics\",status=\"200\"} 1",
        "tract_conversations{state=\"bot\"} 0",
        "tract_outbox_pending{kind=\"hook\"} 0",
        "tract_outbox_oldest_age_seconds{kind=\"channel\"} 0",
        "tract_breakers_open{kind=\"hook\"} 0",
        "tract_live_actors 0",
        "tract_mailbox_jobs 0",
        "tract_jobs_in_flight 0",
        "tract_http_requests_in_flight 1",
        "tract_deliveries_total{result=\"dead\"} 0",
        "tract_delivery_retries_total 0",
        "tract_control_changes_total{action=\"take\"} 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
