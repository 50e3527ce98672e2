//! A Redis Cluster of the test's own.

use super::redis::{RedisServer, TestCa, free_port};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a cluster may take for what it does by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a server of it is missed before it counts as down, in milliseconds.
const NODE_TIMEOUT: &str = "1000";

/// Looks again and again whether it has come to this.
pub(crate) fn wait_until(what: &str, mut come: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !come() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Three primaries, each with a third of the slots, and perhaps replicas. It goes with the test.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<RedisServer>,
    tls: bool,
}

impl RedisCluster {
    /// Without replicas.
    pub(crate) fn start() -> Self {
        Self::made_of(3, None)
    }

    /// Three primaries and as many replicas, of which the n-th primary's is the one with three more.
    pub(crate) fn start_with_replicas() -> Self {
        let cluster = Self::made_of(6, None);
        for n in 0..3 {
            let id: String = cluster.nodes[n].ask(&["CLUSTER", "MYID"]);
            let replica = &cluster.nodes[n + 3];
            // It has to have heard of it.
            wait_until("a replica", || {
                let mut replicate = redis::cmd("CLUSTER");
                replicate.arg("REPLICATE").arg(&id).query::<()>(&mut replica.connection()).is_ok()
            });
            wait_until("replication", || {
                replica.ask::<String>(&["INFO", "replication"]).contains("master_link_status:up")
            });
        }
        cluster
    }

    /// One that speaks TLS only.
    pub(crate) fn start_tls(ca: &TestCa) -> Self {
        Self::made_of(3, Some(ca))
    }

    fn made_of(count: usize, tls: Option<&TestCa>) -> Self {
        let settings = || {
            let bus = free_port().to_string();
            let mut settings = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT];
            settings.extend(["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"]);
            settings.extend(["--cluster-require-full-coverage", "no", "--cluster-port", &bus]);
            if tls.is_some() {
                settings.extend(["--tls-cluster", "yes", "--tls-replication", "yes"]);
            }
            settings.into_iter().map(str::to_owned).collect()
        };
        let nodes: Vec<_> = (0..count).map(|_| RedisServer::start_each(tls, settings)).collect();
        for (n, range) in [["0", "5460"], ["5461", "10922"], ["10923", "16383"]].into_iter().enumerate() {
            nodes[n].ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", range[0], range[1]]);
        }
        let addresses: Vec<(String, String)> = nodes
            .iter()
            .map(|node| {
                let bus: Vec<String> = node.ask(&["CONFIG", "GET", "cluster-port"]);
                (node.address().port().to_string(), bus[1].clone())
            })
            .collect();
        for (n, node) in nodes.iter().enumerate() {
            node.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
            for (port, bus) in &addresses[..n] {
                node.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", port, bus]);
            }
        }
        let cluster = Self { nodes, tls: tls.is_some() };
        cluster.settle();
        cluster
    }

    /// Waits until all agree that all is well.
    pub(crate) fn settle(&self) {
        let count = format!("cluster_known_nodes:{}\r\n", self.nodes.len());
        for node in &self.nodes {
            let mut connection = node.connection();
            wait_until("a cluster", || {
                let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut connection).unwrap();
                info.contains("cluster_state:ok") && info.contains(&count)
            });
        }
    }

    /// As the store is told of it: by some of its servers.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls { "rediss+cluster" } else { "redis+cluster" };
        format!("{scheme}://{},{}", self.nodes[0].address(), self.nodes[1].address())
    }

    /// The number of the primary that has this key.
    pub(crate) fn home(&self, key: &str) -> usize {
        let there = self.nodes.iter().find(|node| node.is_there()).unwrap();
        let slot: u32 = there.ask(&["CLUSTER", "KEYSLOT", key]);
        let has = |node: &RedisServer| {
            if !node.is_there() {
                return false;
            }
            let nodes: String = node.ask(&["CLUSTER", "NODES"]);
            let own = nodes.lines().find(|line| line.contains("myself") && line.contains("master"));
            own.is_some_and(|own| own.split(' ').skip(8).any(|range| has_slot(range, slot)))
        };
        self.nodes.iter().position(has).unwrap()
    }
}

/// Whether a slot is in a range such as `0-5460` or `7`; slots that move stand in brackets.
fn has_slot(range: &str, slot: u32) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    first.parse().is_ok_and(|first: u32| first <= slot) && last.parse().is_ok_and(|last: u32| slot <= last)
}

const PASSWORD: &str = "a-secret";

/// Clusters that wait for the next test: to make one takes two seconds, for which servers wait before they serve as
/// primaries.
static WAITING: Mutex<Vec<RedisCluster>> = Mutex::new(Vec::new());

/// A cluster that is emptied before each test. Its servers end with the process of the tests.
pub(crate) struct SharedCluster(Option<RedisCluster>);

impl SharedCluster {
    pub(crate) fn take() -> Self {
        let waiting = WAITING.lock().unwrap().pop();
        let cluster = waiting.unwrap_or_else(RedisCluster::start);
        for node in &cluster.nodes {
            node.ask::<()>(&["FLUSHALL"]);
            node.add_router(PASSWORD);
        }
        Self(Some(cluster))
    }

    /// With the user that operators are told to make.
    pub(crate) fn url(&self) -> String {
        self.0.as_ref().unwrap().url().replace("://", &format!("://router:{PASSWORD}@"))
    }
}

impl Drop for SharedCluster {
    fn drop(&mut self) {
        // What a failed test has made of it is nothing for the next one.
        if !std::thread::panicking() {
            WAITING.lock().unwrap().extend(self.0.take());
        }
    }
}
