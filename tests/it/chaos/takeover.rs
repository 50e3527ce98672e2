//! A node dies with the partitions that it acts for: another takes over their webhooks and their timers.

use super::{
    callers::{Callers, Order},
    history::{Told, Wish},
    scene::{PATIENCE, Scene},
};
use futures_util::future::join_all;
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Enough that both nodes have some, whatever the store's handles make of them.
const CUSTOMERS: usize = 16;

/// How soon after a node's death its partitions are acted for again.
const TAKEN_OVER: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_acted_for_another_does_within_ten_seconds() {
    let scene = Arc::new(Scene::start(2, CUSTOMERS, &Value::Null).await);
    assert_eq!(scene.until_spread().await, [128.0, 128.0]);
    let callers = &Callers::new(&scene);
    let told = join_all((0..CUSTOMERS).map(|thread| async move {
        callers.call(Order::say(format!("hello-{thread}"), thread), || 0).await;
        let wish = Wish::Control { op: "offer", to: Some("blue".to_owned()), offer_id: None };
        let order = Order { id: format!("offer-{thread}"), thread, by: Some(0), wish, epoch: None };
        callers.call(order, || 0).await.told
    }));
    assert!(told.await.iter().all(|told| matches!(told, Told::Holds { offer_id: Some(_), .. })));

    scene.kill(0);
    let dead = Instant::now();
    join_all((0..CUSTOMERS).map(|thread| callers.call(Order::say(format!("again-{thread}"), thread), || 1))).await;
    let accepted = dead.elapsed();
    for desk in &scene.desks {
        let all =
            |n: &super::desk::Noted| (0..CUSTOMERS).all(|thread| n.heard.contains_key(&format!("again-{thread}")));
        assert!(desk.until(PATIENCE, all).await, "{} does not hear everything", desk.name);
    }
    let heard = dead.elapsed();
    // The offers stand for two seconds, so all of them end after their timers' node has died.
    let expired = |noted: &super::desk::Noted| {
        let expired = noted.firsts.iter().filter(|((topic, _), _)| topic == "thread_control.expire");
        expired.map(|(_, of)| of.len()).sum::<usize>() == CUSTOMERS
    };
    assert!(scene.desks[1].until(PATIENCE, expired).await, "offers outlive their deadline");
    let timed = dead.elapsed();
    eprintln!("after the death: all accepted {accepted:?}, all heard {heard:?}, all timers fired {timed:?}");
    assert!(heard < TAKEN_OVER && timed < TAKEN_OVER, "{heard:?}, {timed:?}");
    scene.until_metric(1, "tract_leases_held", |held| held == 256.0).await;
}

/// It has lost its leases, and Redis still says that they are its own: nobody else is there to take them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_acts_again() {
    let scene = Scene::set(1, 1, &Value::Null).await;
    scene.until_metric(0, "tract_leases_held", |held| held == 256.0).await;
    scene.gate(0).cut(true);
    scene.until_metric(0, "tract_leases_held", |held| held == 0.0).await;
    scene.gate(0).open();
    scene.until_metric(0, "tract_leases_held", |held| held == 256.0).await;
    scene.channel.say(&scene.threads[0].auth_id, "hello").await;
    scene.desks[0].peer.hear("message.receive", "hello").await;
}
