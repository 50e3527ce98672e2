//! Each of three nodes in turn is told to end, and is started again, while callers go on at the others.

use super::scene::Scene;
use crate::mutation::Random;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

const CUSTOMERS: usize = 8;
const CALLERS: usize = 4;

/// How long callers go on before the first node ends: what this machine can do.
const STEADY: Duration = Duration::from_secs(4);

/// How late a webhook may be in any case: a machine may be busy with other things.
const ALWAYS_ALLOWED: Duration = Duration::from_secs(3);

/// How much later than in the steady time a webhook may be.
const LATER: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Load {
    /// The nodes that are called.
    up: Mutex<BTreeSet<usize>>,
    /// What was said, and when it was acknowledged.
    said: Mutex<Vec<(String, Instant)>>,
    /// Whatever was not acknowledged.
    failed: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// Says something again and again, each time at any node that is up, and only once.
async fn call(scene: Arc<Scene>, load: Arc<Load>, number: usize) {
    let mut random = Random::new(number as u64 + 77);
    for n in 0.. {
        if load.over.load(Ordering::SeqCst) {
            return;
        }
        let up: Vec<usize> = load.up.lock().unwrap().iter().copied().collect();
        let (node, thread) = (*random.pick(&up), random.pick(&scene.threads));
        let words = format!("{number}-{n}");
        let api = scene.api(node);
        match api.try_send(scene.channel.at(&api).saying(&thread.auth_id, &words)).await {
            Some(answer) if answer.status == 200 => load.said.lock().unwrap().push((words, Instant::now())),
            other => load.failed.lock().unwrap().push(format!("{words} at node {node}: {other:?}")),
        }
        sleep(Duration::from_millis(random.below(30) as u64)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_nothing_and_delays_no_webhook() {
    let scene = Arc::new(Scene::start(3, CUSTOMERS, &Value::Null).await);
    let load = Arc::<Load>::default();
    load.up.lock().unwrap().extend(0..3);
    let mut calling = JoinSet::new();
    for number in 0..CALLERS {
        calling.spawn(call(Arc::clone(&scene), Arc::clone(&load), number));
    }
    sleep(STEADY).await;
    let rolling = Instant::now();
    for node in 0..3 {
        // As whoever spreads the load does before a node is ended.
        load.up.lock().unwrap().remove(&node);
        let told = Instant::now();
        let status = scene.end(node).await;
        eprintln!("node {node} ended after {:?}: {status}", told.elapsed());
        assert!(status.success(), "{status}");
        scene.launch(node).await;
        let spread = scene.until_spread().await;
        eprintln!("node {node} is back after {:?}; partitions: {spread:?}", told.elapsed());
        load.up.lock().unwrap().insert(node);
    }
    load.over.store(true, Ordering::SeqCst);
    calling.join_all().await;
    let shown = scene.operator_sees(1, |shown| shown["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3)).await;
    let names = shown["nodes"].as_array().unwrap().iter().map(|node| node["node_id"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["n0", "n1", "n2"], "who has left is not shown: {shown}");

    let failed = std::mem::take(&mut *load.failed.lock().unwrap());
    assert!(failed.is_empty(), "{failed:#?}");
    let said = std::mem::take(&mut *load.said.lock().unwrap());
    let (mut before, mut during) = (Duration::ZERO, Duration::ZERO);
    for desk in &scene.desks {
        let all = |noted: &super::desk::Noted| said.iter().all(|(words, _)| noted.heard.contains_key(words));
        assert!(desk.until(super::scene::PATIENCE, all).await, "{} does not hear everything", desk.name);
        let noted = desk.noted();
        for (words, acknowledged) in &said {
            let longest = if *acknowledged < rolling { &mut before } else { &mut during };
            *longest = (*longest).max(noted.heard[words].saturating_duration_since(*acknowledged));
        }
    }
    eprintln!("{} messages; the latest webhook {before:?} in steady times, {during:?} in the restart", said.len());
    assert!(during < ALWAYS_ALLOWED.max(before + LATER), "{during:?} after its acknowledgement, before: {before:?}");
}
