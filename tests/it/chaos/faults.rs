//! What befalls the nodes and their Redis: at random times, on random nodes, by a seed.
//!
//! What befalls a Redis Cluster is in `cluster`.

use super::scene::Scene;
use crate::mutation::Random;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// `kill -9` a node, and start it again.
    KillNode,
    /// SIGSTOP a node for longer than its leases last.
    PauseNode,
    /// `kill -9` Redis, and start it again.
    KillRedis,
    /// End the connections of a node to Redis, and let it have none for a while.
    CutOff,
    /// End all connections to Redis once.
    CutAll,
    /// Every answer of Redis comes 200 ms late.
    DelayRedis,
}

impl Fault {
    const ALL: [Self; 6] =
        [Self::KillNode, Self::PauseNode, Self::KillRedis, Self::CutOff, Self::CutAll, Self::DelayRedis];
}

/// Longer than the five seconds that a lease lasts.
pub(super) const PAUSED: Duration = Duration::from_millis(6_500);
pub(super) const DOWN: Duration = Duration::from_millis(700);
const CUT_OFF: Duration = Duration::from_millis(2_500);
const DELAYED: Duration = Duration::from_secs(3);
/// Each way.
const DELAY: Duration = Duration::from_millis(100);
/// At least between two faults.
pub(super) const BETWEEN: Duration = Duration::from_millis(1_000);

/// Lets each kind of fault happen once in random order, and goes on for so long. All is as it was when this returns.
pub(super) async fn rage(scene: &Arc<Scene>, random: &mut Random, within: Duration) {
    let began = Instant::now();
    let busy = Arc::<Mutex<BTreeSet<usize>>>::default();
    let (mut left, mut going) = (Fault::ALL.to_vec(), JoinSet::new());
    while !left.is_empty() || began.elapsed() < within {
        let fault = match left.len() {
            0 => *random.pick(&Fault::ALL),
            several => left.remove(random.below(several)),
        };
        let node = match fault {
            Fault::KillNode | Fault::PauseNode | Fault::CutOff => loop {
                let node = random.below(scene.nodes());
                if reserve(&busy, node, scene.nodes()) {
                    break Some(node);
                }
                sleep(DOWN).await;
            },
            Fault::KillRedis | Fault::CutAll | Fault::DelayRedis => None,
        };
        let at = began.elapsed().as_secs_f32();
        eprintln!("chaos: {at:5.1} s: {fault:?}{}", node.map(|node| format!(" {node}")).unwrap_or_default());
        let (scene, busy) = (Arc::clone(scene), Arc::clone(&busy));
        let going_on = async move {
            happen(fault, node.unwrap_or_default(), &scene).await;
            if let Some(node) = node {
                busy.lock().unwrap().remove(&node);
            }
        };
        if fault == Fault::KillRedis {
            going_on.await;
        } else {
            going.spawn(going_on);
        }
        sleep(BETWEEN + Duration::from_millis(random.below(1_500) as u64)).await;
    }
    going.join_all().await;
}

/// Whether this node may be disturbed now: one node at least is left alone.
pub(super) fn reserve(busy: &Mutex<BTreeSet<usize>>, node: usize, nodes: usize) -> bool {
    let mut busy = busy.lock().unwrap();
    busy.len() + 1 < nodes && busy.insert(node)
}

async fn happen(fault: Fault, node: usize, scene: &Arc<Scene>) {
    let nodes = 0..scene.nodes();
    match fault {
        Fault::KillNode => {
            scene.kill(node);
            sleep(DOWN).await;
            scene.launch(node).await;
        }
        Fault::PauseNode => {
            scene.pause(node);
            sleep(PAUSED).await;
            scene.resume(node);
        }
        Fault::KillRedis => {
            scene.redis().kill();
            sleep(DOWN).await;
            let scene = Arc::clone(scene);
            tokio::task::spawn_blocking(move || scene.redis().revive()).await.unwrap();
        }
        Fault::CutOff => {
            scene.gate(node).cut(true);
            sleep(CUT_OFF).await;
            scene.gate(node).open();
        }
        Fault::CutAll => nodes.for_each(|node| scene.gate(node).cut(false)),
        Fault::DelayRedis => {
            nodes.clone().for_each(|node| scene.gate(node).delay(DELAY));
            sleep(DELAYED).await;
            nodes.for_each(|node| scene.gate(node).delay(Duration::ZERO));
        }
    }
}
