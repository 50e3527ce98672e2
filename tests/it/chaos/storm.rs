//! Callers at three nodes, while everything that can befall these does.
//!
//! `TRACT_CHAOS_SEED` repeats what a failed test printed, as far as time lets it; `TRACT_CHAOS_SECONDS` makes the faults go
//! on for longer than it takes to have each once.

use super::{
    callers::{Callers, Order},
    check, deliveries, faults,
    history::{Entry, Told},
    scene::{PATIENCE, Scene},
};
use crate::mutation::Random;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinSet;

const CALLERS: usize = 8;
const CUSTOMERS: usize = 5;

/// How soon after the last fault everything is served again.
const SERVED_AGAIN: Duration = Duration::from_secs(15);

pub(super) fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_one_order_explains_it_and_every_webhook_comes() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let seed = setting("TRACT_CHAOS_SEED").unwrap_or_else(now);
    eprintln!("chaos: TRACT_CHAOS_SEED={seed}");
    let scene = Arc::new(Scene::start(3, CUSTOMERS, &Value::Null).await);
    let callers = Callers::new(&scene);
    for thread in 0..CUSTOMERS {
        let opened = callers.call(Order::say(format!("hello-{thread}"), thread), || 0).await;
        assert!(matches!(opened.told, Told::Said { .. }), "{opened:?}");
    }
    let mut calling = JoinSet::new();
    for number in 0..CALLERS {
        calling.spawn(Arc::clone(&callers).run(number, seed));
    }
    let within = Duration::from_secs(setting("TRACT_CHAOS_SECONDS").unwrap_or(0));
    faults::rage(&scene, &mut Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), within).await;

    let served = served_again(&scene, &callers).await;
    callers.finish();
    calling.join_all().await;
    scene.until_spread().await;
    settled(&scene).await;
    report(&scene, &callers, served).await;
}

/// After the faults: waits until each node has taken a message for each thread, and all desks have heard it.
pub(super) async fn served_again(scene: &Scene, callers: &Callers) -> Duration {
    let calm = Instant::now();
    let places = (0..scene.threads.len()).flat_map(|thread| (0..scene.nodes()).map(move |node| (thread, node)));
    let served = join_all(places.map(|(thread, node)| async move {
        let words = format!("again-{thread}-{node}");
        let said = callers.call(Order::say(&words, thread), || node).await;
        assert!(matches!(said.told, Told::Said { .. }), "node {node} does not serve: {said:?}");
        let taken = calm.elapsed();
        let hear = scene.desks.iter().map(|desk| desk.until(PATIENCE, |noted| noted.heard.contains_key(&words)));
        let heard = join_all(hear).await;
        if heard.contains(&false) {
            let desk = &scene.desks[heard.iter().position(|heard| !heard).unwrap_or_default()];
            let path = format!("/tract/hooks/deliveries/?user_id={}&state=pending", scene.threads[thread].user_id);
            let pending = desk.token.at(&scene.api(node)).get(&path).await.body;
            let (leases, hooks) =
                (scene.leases().await, desk.token.at(&scene.api(node)).get("/tract/hooks/list/").await.body);
            panic!(
                "{} has not heard {words:?}, taken after {taken:?}: {pending:#} {hooks:#}; partitions: {leases:?}",
                desk.name
            );
        }
        (taken, calm.elapsed())
    }))
    .await;
    let longest = |of: &dyn Fn(&(Duration, Duration)) -> Duration| served.iter().map(of).max().unwrap_or_default();
    let (taken, heard) = (longest(&|served| served.0), longest(&|served| served.1));
    eprintln!("chaos: after the faults, all nodes took messages after {taken:?}, all were heard after {heard:?}");
    assert!(heard < SERVED_AGAIN, "{heard:?}");
    heard
}

/// Waits until no offer is pending any more: each ends by its deadline, at whichever node keeps the time.
pub(super) async fn settled(scene: &Scene) {
    let deadline = Instant::now() + PATIENCE;
    for thread in &scene.threads {
        let desk = &scene.desks[0];
        let token = desk.token.at(&scene.api(0));
        loop {
            let view = token.thread(&thread.user_id).await;
            if view["offer"].is_null() {
                break;
            }
            assert!(Instant::now() < deadline, "an offer outlives its deadline: {view}");
        }
    }
}

async fn report(scene: &Scene, callers: &Callers, served: Duration) {
    let mut faults = callers.oddities.lock().unwrap().clone();
    let (mut feeds, mut all) = (Vec::new(), Vec::new());
    for (number, thread) in scene.threads.iter().enumerate() {
        let node = number % scene.nodes();
        let feed = scene.desks[0].token.at(&scene.api(node)).feed(&thread.user_id).await;
        let feed: Vec<Entry> = feed.iter().map(Entry::read).collect();
        let calls = callers.history(number);
        faults.extend(
            check::faults(scene.desks[0].name, &feed, &calls)
                .into_iter()
                .map(|fault| format!("{}: {fault}", thread.auth_id)),
        );
        all.extend(calls.clone());
        feeds.push((thread, feed, calls));
    }
    for desk in &scene.desks {
        let due: usize = feeds.iter().map(|(_, feed, calls)| deliveries::count(desk, feed, calls)).sum();
        desk.until(PATIENCE, |noted| noted.first >= due).await;
        let noted = desk.noted();
        eprintln!("chaos: {} got {} webhooks and {} of them again", desk.name, noted.first, noted.again);
        faults.extend(noted.faults.clone());
        desk.peer.assert_sound();
    }
    for (thread, feed, calls) in &feeds {
        faults.extend(deliveries::faults(scene, thread, feed, calls));
    }
    let entries: usize = feeds.iter().map(|(_, feed, _)| feed.len()).sum();
    eprintln!("chaos: {}; {entries} entries; served again after {served:?}", check::tally(&all));
    for name in ["tract_commit_conflicts_total", "tract_superseded_outcomes_total", "tract_missed_notices_total"] {
        let nodes = (0..scene.nodes()).map(|node| scene.metric(node, name));
        eprintln!("chaos: {name} of the nodes as they run now: {}", json!(join_all(nodes).await));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
