//! Several nodes on one Redis, each behind a gate of its own, or on a Redis Cluster, and the tenant that they all serve.

use super::{desk::Desk, gate::Gate};
use crate::support::{Api, BUSINESS, CLIENT, Channel, JWT_KEY, Process, RedisCluster, RedisServer};
use serde_json::{Value, json};
use std::{
    process::{Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// The agent tools of the tenant; the first one is its default receiver.
pub(super) const TOOLS: [&str; 3] = ["red", "blue", "green"];

/// Partitions of the store.
pub(super) const PARTITIONS: u32 = 256;

/// How long what must happen is waited for. Real time: only a failing test ever takes so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A customer's thread.
pub(super) struct Thread {
    pub(super) auth_id: String,
    pub(super) user_id: String,
}

/// See the module.
pub(super) struct Scene {
    pub(super) desks: Vec<Desk>,
    pub(super) threads: Vec<Thread>,
    pub(super) channel: Channel,
    nodes: Vec<Node>,
    redis: Redis,
    // Removed last, once nothing runs there any more.
    data: tempfile::TempDir,
}

enum Redis {
    Server(RedisServer),
    Cluster(Arc<RedisCluster>),
}

struct Node {
    /// Where it finds its store.
    url: String,
    /// In front of a server, and of no cluster.
    gate: Option<Gate>,
    /// None while it is down.
    process: Mutex<Option<Process>>,
    /// Where it is, or was last.
    api: Mutex<Option<Api>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap()
}

impl Scene {
    /// One node that runs and others that do not yet; so many customers, and nothing said. `client` overrides keys of the
    /// tenant.
    pub(super) async fn set(nodes: usize, customers: usize, client: &Value) -> Self {
        Self::set_on(Redis::Server(RedisServer::start()), nodes, customers, client).await
    }

    async fn set_on(redis: Redis, nodes: usize, customers: usize, client: &Value) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        for _ in 0..nodes {
            let (url, gate) = match &redis {
                Redis::Server(redis) => {
                    let gate = Gate::before(redis.address()).await;
                    (gate.url(), Some(gate))
                }
                Redis::Cluster(cluster) => (cluster.url(), None),
            };
            all.push(Node { url, gate, process: Mutex::default(), api: Mutex::default() });
        }
        let first = launch(&data, 0, &all[0].url).await;
        let (api, admin_token) = (first.api(), first.admin_token);
        *lock(&all[0].process) = Some(first);
        *lock(&all[0].api) = Some(api.clone());

        let made = api.apply(admin_token, &declaration(client)).await;
        let api_token = made.iter().find(|made| made["kind"] == "api_token").unwrap()["value"].as_str().unwrap();
        let channel = Channel::new(api.clone(), CLIENT, api_token, BUSINESS);
        let mut desks = Vec::new();
        for name in TOOLS {
            desks.push(Desk::open(name, api.token(admin_token, CLIENT, name).await).await);
        }
        let mut scene = Self { desks, threads: Vec::new(), channel, nodes: all, redis, data };
        for customer in 0..customers {
            scene.meet(&format!("customer {customer}")).await;
        }
        scene
    }

    /// The same with all nodes running, and the partitions spread over them.
    pub(super) async fn start(nodes: usize, customers: usize, client: &Value) -> Self {
        Self::set(nodes, customers, client).await.complete().await
    }

    /// The same on a cluster, and nobody there yet.
    pub(super) async fn start_on(cluster: &Arc<RedisCluster>, nodes: usize) -> Self {
        let redis = Redis::Cluster(Arc::clone(cluster));
        Self::set_on(redis, nodes, 0, &Value::Null).await.complete().await
    }

    async fn complete(self) -> Self {
        for node in 1..self.nodes() {
            self.launch(node).await;
        }
        self.until_spread().await;
        self
    }

    /// One more customer.
    pub(super) async fn meet(&mut self, auth_id: &str) -> &Thread {
        let user_id = self.channel.user(&json!({"auth_id": auth_id})).await;
        self.threads.push(Thread { auth_id: auth_id.to_owned(), user_id });
        &self.threads[self.threads.len() - 1]
    }

    pub(super) fn redis(&self) -> &RedisServer {
        match &self.redis {
            Redis::Server(redis) => redis,
            Redis::Cluster(_) => panic!("the store is a cluster"),
        }
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Where a node is, or was last.
    pub(super) fn api(&self, node: usize) -> Api {
        lock(&self.nodes[node].api).clone().expect("the node was started")
    }

    pub(super) fn gate(&self, node: usize) -> &Gate {
        self.nodes[node].gate.as_ref().expect("the store is one server")
    }

    /// Starts a node that is down, and waits until it is ready.
    pub(super) async fn launch(&self, node: usize) {
        let process = launch(&self.data, node, &self.nodes[node].url).await;
        *lock(&self.nodes[node].api) = Some(process.api());
        *lock(&self.nodes[node].process) = Some(process);
    }

    pub(super) fn kill(&self, node: usize) {
        self.take(node).kill();
    }

    pub(super) fn pause(&self, node: usize) {
        lock(&self.nodes[node].process).as_ref().expect("the node runs").pause();
    }

    pub(super) fn resume(&self, node: usize) {
        lock(&self.nodes[node].process).as_ref().expect("the node runs").resume();
    }

    /// SIGTERM; waits until it has ended.
    pub(super) async fn end(&self, node: usize) -> ExitStatus {
        let process = self.take(node);
        process.terminate();
        tokio::task::spawn_blocking(|| process.wait()).await.unwrap()
    }

    fn take(&self, node: usize) -> Process {
        lock(&self.nodes[node].process).take().expect("the node runs")
    }

    /// The sum of a metric of a node over its labels; none while it does not answer.
    pub(super) async fn metric(&self, node: usize, name: &str) -> Option<f64> {
        let text = self.api(node).request(reqwest::Method::GET, "/metrics").send().await.ok()?.text().await.ok()?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            if rest.starts_with(['{', ' ']) { rest.rsplit(' ').next()?.parse::<f64>().ok() } else { None }
        });
        Some(values.sum())
    }

    /// Waits until a metric of a node is as is asked for.
    pub(super) async fn until_metric(&self, node: usize, name: &str, holds: impl Fn(f64) -> bool) -> f64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.metric(node, name).await;
            if let Some(value) = value.filter(|value| holds(*value)) {
                return value;
            }
            assert!(Instant::now() < deadline, "node {node}: {name} stays {value:?}");
        }
    }

    /// Waits until the operator, who asks this node which nodes there are, is shown what is asked for.
    pub(super) async fn operator_sees(&self, node: usize, holds: impl Fn(&Value) -> bool) -> Value {
        let (api, token) =
            (self.api(node), lock(&self.nodes[node].process).as_ref().expect("the node runs").admin_token);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = api.request(reqwest::Method::GET, "/admin/v1/nodes").bearer_auth(token);
            let shown = api.send(request).await.ok();
            if holds(&shown) {
                return shown;
            }
            assert!(Instant::now() < deadline, "the operator sees {shown:#}");
        }
    }

    /// How many partitions each node acts for; none of one that does not answer.
    pub(super) async fn leases(&self) -> Vec<Option<f64>> {
        futures_util::future::join_all((0..self.nodes()).map(|node| self.metric(node, "tract_leases_held"))).await
    }

    /// Waits until all partitions are held, and no node has more than its fair share.
    pub(super) async fn until_spread(&self) -> Vec<f64> {
        let share = f64::from(PARTITIONS.div_ceil(self.nodes().try_into().unwrap()));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leases = self.leases().await;
            let spread: Vec<f64> = leases.iter().copied().flatten().filter(|held| *held <= share).collect();
            if spread.len() == self.nodes() && spread.iter().sum::<f64>() == f64::from(PARTITIONS) {
                return spread;
            }
            assert!(Instant::now() < deadline, "the partitions are not spread evenly: {leases:?}");
        }
    }
}

async fn launch(data: &tempfile::TempDir, node: usize, url: &str) -> Process {
    let (kid, secret) = JWT_KEY;
    let keys = format!(r#"[{{ kid = "{kid}", secret = "{secret}" }}]"#);
    let set = |command: &mut Command| {
        command.env("TRACT_STORE__KIND", "redis").env("TRACT_STORE__URL", url);
        command.env("TRACT_NODE_ID", format!("n{node}")).env("TRACT_SECURITY__JWT_KEYS", &keys);
        // What faults do to nodes is told by the tests.
        command.env("RUST_LOG", std::env::var("TRACT_CHAOS_LOG").as_deref().unwrap_or("off"));
    };
    Process::start_persistently(data.path(), set).await
}

fn declaration(client: &Value) -> Value {
    let tool =
        |id: &str| json!({"ect_id": id, "fqdn": format!("{id}.example"), "may_take": true, "may_pass_to": "any"});
    let mut declared = json!({
        "client_id": CLIENT, "ects": TOOLS, "default_receiver": TOOLS[0], "business": [{"business_id": BUSINESS}],
    });
    for (key, value) in client.as_object().into_iter().flatten() {
        declared[key] = value.clone();
    }
    json!({"ect": TOOLS.map(tool), "client": [declared]})
}
