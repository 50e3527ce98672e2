//! Callers at three nodes on a Redis Cluster whose shards fail over.
//!
//! One shard's primary dies without a word, which may cost what was acknowledged and had not reached the replica; another's
//! hands over in order, which costs nothing; the third stays as it is.

use super::{
    callers::{Callers, Order},
    check, deliveries,
    faults::{BETWEEN, DOWN, PAUSED, reserve},
    history::{Entry, Told},
    scene::{PATIENCE, Scene},
    storm::{served_again, setting, settled},
};
use crate::{
    mutation::Random,
    support::{RedisCluster, wait_until},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::sleep,
};

const CALLERS: usize = 5;
const SHARDS: usize = 3;
/// Of each shard.
const CUSTOMERS: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// `kill -9` a node, and start it again.
    KillNode,
    /// SIGSTOP a node for longer than its leases last.
    PauseNode,
    /// `kill -9` a primary; start it again once its replica has taken its place.
    KillPrimary,
    /// Have a replica take its primary's place in order.
    HandOver,
}

impl Fault {
    const ALL: [Self; 4] = [Self::KillNode, Self::PauseNode, Self::KillPrimary, Self::HandOver];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_fails_over_and_the_others_do_not_notice() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let seed = setting("TRACT_CHAOS_SEED").unwrap_or_else(now);
    eprintln!("chaos on a cluster: TRACT_CHAOS_SEED={seed}");
    let mut random = Random::new(seed);
    let cluster = spawn_blocking(|| {
        let cluster = RedisCluster::start_with_replicas();
        (0..cluster.nodes.len()).for_each(|n| need_a_replica(&cluster, n));
        Arc::new(cluster)
    });
    let cluster = cluster.await.unwrap();
    let mut scene = Scene::start_on(&cluster, 3).await;
    let shards = populate(&mut scene, &cluster).await;
    let scene = Arc::new(scene);
    let callers = Callers::new(&scene);
    for thread in 0..scene.threads.len() {
        let opened = callers.call(Order::say(format!("hello-{thread}"), thread), || 0).await;
        assert!(matches!(opened.told, Told::Said { .. }), "{opened:?}");
    }
    let mut calling = JoinSet::new();
    for number in 0..CALLERS {
        calling.spawn(Arc::clone(&callers).run(number, seed));
    }
    let killed = random.below(SHARDS);
    let handed_over = (killed + 1 + random.below(SHARDS - 1)) % SHARDS;
    rage(&scene, &cluster, [killed, handed_over], &mut random).await;

    served_again(&scene, &callers).await;
    callers.finish();
    calling.join_all().await;
    scene.until_spread().await;
    settled(&scene).await;
    report(&scene, &callers, &shards, killed).await;
}

/// As operators are told to set it.
fn need_a_replica(cluster: &RedisCluster, n: usize) {
    for (key, value) in [("min-replicas-to-write", "1"), ("min-replicas-max-lag", "10")] {
        cluster.nodes[n].ask::<()>(&["CONFIG", "SET", key, value]);
    }
}

/// Has customers come until each shard has enough; the shard of each.
async fn populate(scene: &mut Scene, cluster: &RedisCluster) -> Vec<usize> {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let mut shards: Vec<usize> = Vec::new();
    for n in 0.. {
        let thread = scene.meet(&format!("customer {n}")).await;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&thread.user_id[1..]).unwrap();
        let tag = format!("{{tract:{}}}", u16::from_be_bytes([bytes[0], bytes[1]]));
        let shard = cluster.home(&tag);
        if shards.iter().filter(|other| **other == shard).count() == CUSTOMERS {
            scene.threads.pop();
            continue;
        }
        shards.push(shard);
        if shards.len() == CUSTOMERS * SHARDS {
            break;
        }
    }
    shards
}

/// Lets each kind of fault happen once in random order, and goes on for as long as is asked for. All is as it was when this
/// returns, but for who is primary and who is replica.
async fn rage(scene: &Arc<Scene>, cluster: &Arc<RedisCluster>, shards: [usize; 2], random: &mut Random) {
    let within = Duration::from_secs(setting("TRACT_CHAOS_SECONDS").unwrap_or(0));
    let (began, busy) = (Instant::now(), Arc::<Mutex<BTreeSet<usize>>>::default());
    let (mut left, mut going) = (Fault::ALL.to_vec(), JoinSet::new());
    while !left.is_empty() || began.elapsed() < within {
        let fault = match left.len() {
            0 => *random.pick(&Fault::ALL),
            several => left.remove(random.below(several)),
        };
        let at = began.elapsed().as_secs_f32();
        if let Fault::KillPrimary | Fault::HandOver = fault {
            let dies = matches!(fault, Fault::KillPrimary);
            let (cluster, shard) = (Arc::clone(cluster), shards[usize::from(!dies)]);
            // One at a time: an election needs most of the primaries.
            let took = spawn_blocking(move || fail_over(&cluster, shard, dies)).await.unwrap();
            eprintln!("chaos: {at:5.1} s: {fault:?} of shard {shard}: a primary again after {took:?}");
        } else {
            let node = loop {
                let node = random.below(scene.nodes());
                if reserve(&busy, node, scene.nodes()) {
                    break node;
                }
                sleep(DOWN).await;
            };
            eprintln!("chaos: {at:5.1} s: {fault:?} {node}");
            let (scene, busy) = (Arc::clone(scene), Arc::clone(&busy));
            going.spawn(async move {
                if let Fault::KillNode = fault {
                    scene.kill(node);
                    sleep(DOWN).await;
                    scene.launch(node).await;
                } else {
                    scene.pause(node);
                    sleep(PAUSED).await;
                    scene.resume(node);
                }
                busy.lock().unwrap().remove(&node);
            });
        }
        sleep(BETWEEN + Duration::from_millis(random.below(1_500) as u64)).await;
    }
    going.join_all().await;
}

/// Has primary and replica of a shard change places; how long there was no primary.
fn fail_over(cluster: &RedisCluster, shard: usize, dies: bool) -> Duration {
    let says = |n: usize, what: &str| cluster.nodes[n].ask::<String>(&["INFO", "replication"]).contains(what);
    let (mut primary, mut replica) = (shard, shard + SHARDS);
    if says(replica, "role:master") {
        (primary, replica) = (replica, primary);
    }
    let began = Instant::now();
    if dies {
        cluster.nodes[primary].kill();
        // Before that, it would be primary again, and have nothing.
        wait_until("the replica is primary", || says(replica, "role:master"));
    } else {
        let mut asked: Option<Instant> = None;
        wait_until("the replica is primary", || {
            // The two give it up after five seconds.
            if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(6)) {
                cluster.nodes[replica].ask::<()>(&["CLUSTER", "FAILOVER"]);
                asked = Some(Instant::now());
            }
            says(replica, "role:master")
        });
    }
    let took = began.elapsed();
    if dies {
        cluster.nodes[primary].revive();
        need_a_replica(cluster, primary);
    }
    wait_until("the primary is a replica", || {
        says(primary, "role:slave") && says(primary, "master_link_status:up") && says(replica, "state=online")
    });
    took
}

/// Everything is as it must be; of the shard whose primary died, what was lost is told.
async fn report(scene: &Scene, callers: &Callers, shards: &[usize], killed: usize) {
    let mut faults = callers.oddities.lock().unwrap().clone();
    let (mut feeds, mut all, mut lost, mut acknowledged) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (number, thread) in scene.threads.iter().enumerate() {
        let node = number % scene.nodes();
        let feed = scene.desks[0].token.at(&scene.api(node)).feed(&thread.user_id).await;
        let feed: Vec<Entry> = feed.iter().map(Entry::read).collect();
        let calls = callers.history(number);
        let found = if shards[number] == killed {
            let (found, lost_here) = check::faults_but_loss(scene.desks[0].name, &feed, &calls);
            lost.extend(lost_here);
            acknowledged += calls.iter().filter(|call| matches!(call.told, Told::Said { .. })).count();
            found
        } else {
            check::faults(scene.desks[0].name, &feed, &calls)
        };
        faults.extend(found.into_iter().map(|fault| format!("{}: {fault}", thread.auth_id)));
        all.extend(calls.clone());
        feeds.push((thread, feed, calls));
    }
    for desk in &scene.desks {
        let missing = |noted: &super::desk::Noted| -> Vec<String> {
            let of =
                feeds.iter().map(|(thread, feed, calls)| deliveries::missing(desk.name, noted, thread, feed, calls));
            of.flatten().collect()
        };
        desk.until(PATIENCE, |noted| missing(noted).is_empty()).await;
        let noted = desk.noted();
        faults.extend(missing(&noted));
        faults.extend(noted.faults.clone());
        desk.peer.assert_sound();
    }
    for ((thread, feed, calls), shard) in feeds.iter().zip(shards) {
        // What was lost may have been heard of.
        if *shard != killed {
            faults.extend(deliveries::faults(scene, thread, feed, calls));
        }
    }
    eprintln!("chaos: {}", check::tally(&all));
    eprintln!("chaos: the death of a primary cost {} of {acknowledged} acknowledged messages there", lost.len());
    lost.iter().for_each(|lost| eprintln!("chaos: {lost}"));
    assert!(lost.len() * 10 <= acknowledged, "that is more than the last moments");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
