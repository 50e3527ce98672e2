//! A node that stands still for longer than its leases last, and wakes up: whatever it does then under a lease that has
//! passed on does not count.

use super::{
    history::words,
    scene::{PATIENCE, Scene},
};
use crate::support::{Answer, Peer};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

const RECEIVE: &str = "message.receive";

/// The node that will stand still, and the one that takes over.
const SLEEPER: usize = 0;
const OTHER: usize = 1;

/// How long a node stands still where nothing else tells when it has been long enough.
const STOOD_STILL: Duration = Duration::from_millis(6_500);

/// How soon after waking up a node has delivered everything: an attempt that was lost is repeated after five seconds.
const SOON: Duration = Duration::from_secs(15);

/// What the receiver `blue` reads at the other node, once it is as is asked for.
async fn until_read(scene: &Scene, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let token = scene.desks[1].token.at(&scene.api(OTHER));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let read = token.get(path).await.ok();
        if holds(&read) {
            return read;
        }
        assert!(Instant::now() < deadline, "{path} stays as it is: {read:#}");
    }
}

/// The status of each attempt at the newest delivery of a listing.
fn statuses(listing: &Value) -> Vec<Value> {
    let attempts = listing["deliveries"][0]["attempts"].as_array().cloned().unwrap_or_default();
    attempts.into_iter().map(|attempt| attempt["status"].clone()).collect()
}

/// The epoch check in `update_outbox.lua`: without it, the sleeper's outcome would show among the attempts. What it learned
/// of the attempt is on its way to Redis when everything stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_learns_of_an_attempt_after_its_lease_passed_on_does_not_count() {
    let scene = Scene::set(2, 1, &Value::Null).await;
    let (thread, desk) = (&scene.threads[0], &scene.desks[1]);
    let (asked, told) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let answer = Arc::clone(&told);
    desk.peer.script(move |received| match (&*received.topic, asked.load(Ordering::SeqCst)) {
        (RECEIVE, n @ 0..2) => {
            asked.store(n + 1, Ordering::SeqCst);
            // The sleeper's attempt succeeds, as it will see; the other node's fails before that.
            Some(if n == 0 { Answer::status(202).after(&answer) } else { Answer::status(500) })
        }
        _ => None,
    });
    scene.channel.at(&scene.api(SLEEPER)).say(&thread.auth_id, "hello").await;
    desk.peer.hear(RECEIVE, "hello").await;
    // The other desks' deliveries are over, and that is written.
    scene.until_metric(SLEEPER, "tract_outbox_pending", |pending| pending == 1.0).await;
    scene.gate(SLEEPER).keep();
    told.notify_one();
    scene.gate(SLEEPER).until_kept("\r\nover\r\n").await;
    scene.pause(SLEEPER);
    scene.launch(OTHER).await;

    let path = format!("/tract/hooks/deliveries/?user_id={}&category=message&subcategory=receive", thread.user_id);
    let failed = until_read(&scene, &path, |listing| !statuses(listing).is_empty()).await;
    assert_eq!(statuses(&failed), [500], "{failed}");
    scene.gate(SLEEPER).let_go();
    scene.resume(SLEEPER);

    let delivered = until_read(&scene, &path, |listing| listing["deliveries"][0]["state"] == "delivered").await;
    assert_eq!(statuses(&delivered), [500, 200], "only the other node's attempts count: {delivered}");
    let superseded = scene.until_metric(SLEEPER, "tract_superseded_outcomes_total", |count| count > 0.0).await;
    assert_eq!(superseded, 1.0);
    assert_eq!(until_read(&scene, &path, |_| true).await, delivered);
    let all = desk.peer.seen_on(RECEIVE);
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|received| received.header("webhook-id") == all[0].header("webhook-id")));
    desk.peer.assert_sound();
}

/// The bot is asked by both nodes, and answers both; the customer reads one answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_two_nodes_asked_is_answered_once() {
    let bot = Peer::start("bot").await;
    let scene = Scene::set(2, 1, &json!({"iva": {"url": bot.url()}, "default_receiver": "iva"})).await;
    let thread = &scene.threads[0];
    let (asked, awake) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let answer = Arc::clone(&awake);
    bot.script(move |_| {
        let said = Answer::say(&[&format!("answer {}", asked.fetch_add(1, Ordering::SeqCst))]);
        Some(if asked.load(Ordering::SeqCst) == 1 { said.after(&answer) } else { said })
    });
    let answers = |feed: &Value| -> Vec<String> {
        feed["entries"].as_array().unwrap().iter().filter(|entry| entry["sender"] == "iva").map(words).collect()
    };
    scene.channel.at(&scene.api(SLEEPER)).say(&thread.auth_id, "hello").await;
    bot.hear("turn", "hello").await;
    scene.pause(SLEEPER);
    scene.launch(OTHER).await;

    let path = format!("/tract/thread/feed/?user_id={}&limit=500", thread.user_id);
    let feed = until_read(&scene, &path, |feed| !answers(feed).is_empty()).await;
    assert_eq!(answers(&feed), ["answer 1"]);
    awake.notify_one();
    scene.resume(SLEEPER);
    // Once it has the bot's answer, it tries to have it committed, before whatever it is told later.
    scene.until_metric(SLEEPER, "tract_deliveries_total", |count| count > 0.0).await;
    scene.until_spread().await;
    for n in 2..6 {
        scene.channel.at(&scene.api(SLEEPER)).say(&thread.auth_id, &format!("more {n}")).await;
        until_read(&scene, &path, |feed| answers(feed).len() >= n).await;
    }
    let feed = until_read(&scene, &path, |_| true).await;
    assert_eq!(answers(&feed), ["answer 1", "answer 2", "answer 3", "answer 4", "answer 5"]);
}

/// So many that their attempts fail in a row when a node wakes up, and would open a breaker.
const MANY: usize = 12;

/// That a node stood still says nothing of the endpoints which it was asking then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_wakes_up_delivers_at_once() {
    let scene = Scene::set(1, MANY, &Value::Null).await;
    let (desk, asked, awake) = (&scene.desks[1], AtomicUsize::new(0), Arc::new(Notify::new()));
    let answer = Arc::clone(&awake);
    desk.peer.script(move |received| {
        let held = received.topic == RECEIVE && asked.fetch_add(1, Ordering::SeqCst) < MANY;
        held.then(|| Answer::ok(json!({})).after(&answer))
    });
    for thread in &scene.threads {
        scene.channel.say(&thread.auth_id, "hello").await;
    }
    desk.peer.find("all are asked", |seen| (seen.len() >= MANY).then_some(())).await;
    scene.pause(0);
    // Longer than an attempt may take.
    tokio::time::sleep(STOOD_STILL).await;
    awake.notify_waiters();
    scene.resume(0);
    let awake = Instant::now();
    scene.until_metric(0, "tract_deliveries_total", |attempts| attempts >= 3.0 * MANY as f64).await;
    for thread in &scene.threads {
        scene.channel.say(&thread.auth_id, "again").await;
    }
    let again = |noted: &super::desk::Noted| noted.firsts.values().filter(|of| of.len() == 2).count() == MANY;
    assert!(desk.until(PATIENCE, again).await, "not everything is heard again");
    eprintln!("everything is heard {:?} after waking up", awake.elapsed());
    assert!(awake.elapsed() < SOON, "{:?}", awake.elapsed());
}
