//! A running router with everybody around it.

use super::api::{Api, Channel, Token};
use super::clock::ManualClock;
use super::peer::{Answer, Peer, Received};
use super::redis::RedisServer;
use super::redis_cluster::SharedCluster;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tract::app::{self, Running};
use tract::config::{JwtKey, Limits, RetentionSettings, Settings, StoreSettings};
use tract::{telemetry, tenancy::Secret};
use tract_actors::Router;
use tract_actors::ports::Clock;

/// The client that a fixture declares.
pub(crate) const CLIENT: &str = "acme";
/// Its business.
pub(crate) const BUSINESS: u64 = 343;

/// The name and the secret of the key that a fixture's tokens are signed with.
pub(crate) const JWT_KEY: (&str, &str) = ("k1", "the key of this test, 32 bytes long at least");

/// How long a condition over the API is waited for. Real time: only a failing test ever takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// All topics that an agent tool registers for.
const TOPICS: &[&str] = &[
    "message.receive",
    "conversation_state.bot",
    "conversation_state.incomplete",
    "conversation_state.pinned",
    "conversation_state.waiting",
    "conversation_state.complete",
    "aeu_events.received",
    "aeu_events.allocated",
    "aeu_events.user_timeout",
    "user_events.create_user",
    "thread_control.pass",
    "thread_control.take",
    "thread_control.request",
    "thread_control.offer",
    "thread_control.decline",
    "thread_control.expire",
];

/// What a test wants of the tenants, besides what every test has.
#[derive(Default)]
pub(crate) struct Tenants {
    /// Keys of both agent tools, such as `may_take`.
    pub(crate) ect: Value,
    /// Keys of the client, such as `fallback`.
    pub(crate) client: Value,
}

/// A running router with everybody around it.
pub(crate) struct Fixture {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) api: Api,
    pub(crate) channel: Channel,
    /// The bot. Unless told otherwise it answers `you said <words>`.
    pub(crate) bot: Peer,
    /// Receives what the customer reads.
    pub(crate) phone: Peer,
    /// The agent tool that hand-offs go to: its hooks, and its token.
    pub(crate) desk: Peer,
    pub(crate) sprinkle: Token,
    /// Another agent tool.
    pub(crate) second_desk: Peer,
    pub(crate) helper: Token,
    /// The bot's own token.
    pub(crate) iva: Token,
    pub(crate) admin_token: String,
    running: Running,
    limits: Limits,
    retention: RetentionSettings,
    /// Where its threads are, if not in a directory.
    redis: Option<Servers>,
    // Removed last, once nothing is written there any more.
    data: tempfile::TempDir,
}

impl Fixture {
    /// Everything with its defaults: `acme` with bot, hand-offs to `sprinkle`, human assistance.
    pub(crate) async fn start() -> Self {
        Self::with(Tenants::default()).await
    }

    pub(crate) async fn with(tenants: Tenants) -> Self {
        Self::within(Limits::default(), tenants).await
    }

    pub(crate) async fn within(limits: Limits, tenants: Tenants) -> Self {
        Self::made_of(limits, RetentionSettings::default(), tenants, None).await
    }

    /// That keeps conversations for so long after they were completed.
    pub(crate) async fn keeping(completed: Duration, limits: Limits, redis: Option<RedisServer>) -> Self {
        let retention = RetentionSettings { completed: Some(completed) };
        Self::made_of(limits, retention, Tenants::default(), redis.map(Servers::One)).await
    }

    /// With its threads in Redis.
    pub(crate) async fn on_redis(tenants: Tenants) -> Self {
        let redis = Some(Servers::One(RedisServer::start()));
        Self::made_of(Limits::default(), RetentionSettings::default(), tenants, redis).await
    }

    /// With its threads in a Redis Cluster.
    pub(crate) async fn on_cluster(tenants: Tenants) -> Self {
        let redis = Some(Servers::Cluster(SharedCluster::take()));
        Self::made_of(Limits::default(), RetentionSettings::default(), tenants, redis).await
    }

    async fn made_of(limits: Limits, retention: RetentionSettings, tenants: Tenants, redis: Option<Servers>) -> Self {
        let store = redis.as_ref().map(store_on);
        let data = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new());
        let running = start_router_with(&data, Arc::clone(&clock) as Arc<dyn Clock>, |s| {
            s.limits = limits.clone();
            s.retention = retention.clone();
            s.store = store.unwrap_or_else(|| s.store.clone());
        })
        .await;
        let api = Api::new(format!("http://{}", running.addr()));
        let admin_token = running.admin_token().expose().to_owned();

        let (bot, phone) = (Peer::start("bot").await, Peer::start("phone").await);
        let (desk, second_desk) = (Peer::start("desk").await, Peer::start("second_desk").await);
        bot.script(|turn| Some(Answer::say(&[&format!("you said {}", turn.text())])));
        let made = api.apply(&admin_token, &declaration(tenants, &bot, &phone)).await;
        let secret = |kind: &str| {
            let found = made.iter().find(|made| made["kind"] == kind).and_then(|made| made["value"].as_str());
            found.unwrap_or_else(|| panic!("apply made no {kind}"))
        };
        bot.expect_signed_with(secret("iva_secret"));
        phone.expect_signed_with(secret("channel_secret"));
        let channel = Channel::new(api.clone(), CLIENT, secret("api_token"), BUSINESS);

        let sprinkle = api.token(&admin_token, CLIENT, "sprinkle").await;
        let helper = api.token(&admin_token, CLIENT, "helper").await;
        let iva = api.token(&admin_token, CLIENT, "iva").await;
        for (token, peer) in [(&sprinkle, &desk), (&helper, &second_desk)] {
            for topic in TOPICS {
                if let Some(secret) = token.register(topic, &peer.url()).await {
                    peer.expect_signed_with(&secret);
                }
            }
        }
        Self {
            clock,
            api,
            channel,
            bot,
            phone,
            desk,
            sprinkle,
            second_desk,
            helper,
            iva,
            admin_token,
            running,
            limits,
            retention,
            redis,
            data,
        }
    }

    /// Stops the router, lets so much time pass without one, and starts it anew on the same directory.
    pub(crate) async fn restarted_after(self, ms: u64) -> Self {
        self.running.stop().await.expect("the router stops in order");
        self.clock.advance(ms);
        let running = start_router_with(&self.data, Arc::clone(&self.clock) as Arc<dyn Clock>, |s| {
            s.limits = self.limits.clone();
            s.retention = self.retention.clone();
            s.store = self.redis.as_ref().map_or_else(|| s.store.clone(), store_on);
        })
        .await;
        let api = Api::new(format!("http://{}", running.addr()));
        Self {
            channel: self.channel.at(&api),
            sprinkle: self.sprinkle.at(&api),
            helper: self.helper.at(&api),
            iva: self.iva.at(&api),
            api,
            running,
            ..self
        }
    }

    /// Another node on the same Redis, with the same clock.
    pub(crate) async fn second_node(&self) -> Running {
        let redis = self.redis.as_ref().expect("several nodes share a Redis");
        start_router_with(&self.data, Arc::clone(&self.clock) as Arc<dyn Clock>, |s| {
            s.limits = self.limits.clone();
            s.retention = self.retention.clone();
            s.store = store_on(redis);
        })
        .await
    }

    /// Where its Redis is.
    pub(crate) fn redis_url(&self) -> String {
        match &self.redis {
            Some(Servers::One(server)) => server.url(),
            _ => panic!("its store is not on one Redis server"),
        }
    }

    /// The handle to the router's conversations.
    pub(crate) fn threads(&self) -> &Router {
        self.running.router()
    }

    /// Where the router listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.running.addr()
    }

    /// Where the store is.
    pub(crate) fn directory(&self) -> &Path {
        self.data.path()
    }

    /// A request of the operator's.
    pub(crate) fn operator(&self, method: Method, path: &str) -> RequestBuilder {
        self.api.request(method, path).bearer_auth(&self.admin_token)
    }

    /// Declares more tenants; what that made.
    pub(crate) async fn apply(&self, declaration: &Value) -> Vec<Value> {
        self.api.apply(&self.admin_token, declaration).await
    }

    /// Another receiver's token, as the operator gives it out.
    pub(crate) async fn operator_token(&self, receiver: &str) -> Token {
        self.token_for(CLIENT, receiver).await
    }

    /// A token of a receiver of another client's.
    pub(crate) async fn token_for(&self, client: &str, receiver: &str) -> Token {
        self.api.token(&self.admin_token, client, receiver).await
    }

    /// A new customer: `auth_id` and `user_id` are told apart everywhere, so they differ.
    pub(crate) async fn customer(&self, auth_id: &str) -> String {
        self.channel.user(&json!({"auth_id": auth_id, "name": "Ada", "device_platform": 5})).await
    }

    /// A customer whom the bot has just handed to `sprinkle`: conversation 1, `incomplete`.
    pub(crate) async fn handed_off(&self, auth_id: &str) -> String {
        let user_id = self.customer(auth_id).await;
        self.bot.reply_to("agent, please", hand_off_to("sprinkle"));
        self.channel.say(auth_id, "agent, please").await;
        self.until(&user_id, |thread| thread["active"] == "sprinkle").await;
        user_id
    }

    /// Waits until the thread, as the API tells it, is as is asked for.
    pub(crate) async fn until(&self, user_id: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until_get(&format!("/tract/thread/?user_id={user_id}"), holds).await
    }

    /// Waits until `sprinkle` reads at this path what is asked for. The API has no way to wait, so it is asked again.
    pub(crate) async fn until_get(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let read = self.sprinkle.get(path).await.ok();
            if holds(&read) {
                return read;
            }
            assert!(tokio::time::Instant::now() < deadline, "{path} stays as it is: {read:#}");
        }
    }

    /// What went out to the customer, in order, once there is this much of it.
    pub(crate) async fn customer_reads(&self, words: &[&str]) -> Vec<Received> {
        let texts =
            |seen: &[Received]| -> Vec<Received> { seen.iter().filter(|r| r.topic == "message").cloned().collect() };
        let what = format!("{words:?}");
        let read = self.phone.find(&what, |seen| Some(texts(seen)).filter(|t| t.len() >= words.len())).await;
        assert_eq!(read.iter().map(Received::text).collect::<Vec<_>>(), words);
        read
    }

    /// Ends the router, and with it the test: nothing that anybody received was wrong by itself.
    pub(crate) async fn stop(self) {
        self.running.stop().await.expect("the router stops in order");
        for peer in [&self.bot, &self.phone, &self.desk, &self.second_desk] {
            peer.assert_sound();
        }
    }
}

/// A bot's hand-off without words.
pub(crate) fn hand_off_to(receiver: &str) -> Answer {
    Answer::ok(json!({"response": [], "callback_ops": {"tract_atc": {"receiver": receiver}}}))
}

/// The operator's token of every router that is started in a process.
pub(crate) const ADMIN_TOKEN: &str = "the-operator-of-this-test";

/// Servers that a fixture has for itself.
enum Servers {
    One(RedisServer),
    Cluster(SharedCluster),
}

fn store_on(servers: &Servers) -> StoreSettings {
    let url = match servers {
        Servers::One(server) => server.url(),
        Servers::Cluster(cluster) => cluster.url(),
    };
    StoreSettings::Redis { url: Secret::new(url), ca: None, partitions: 16 }
}

/// The one place that knows how the router is started in a process.
pub(crate) async fn start_router_with(
    data: &tempfile::TempDir,
    clock: Arc<dyn Clock>,
    adjust: impl FnOnce(&mut Settings),
) -> Running {
    let mut settings = Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        store: StoreSettings::Embedded { path: data.path().to_owned(), partitions: 16 },
        ..Settings::default()
    };
    settings.security.admin_token = Some(Secret::new(ADMIN_TOKEN));
    let (kid, secret) = JWT_KEY;
    settings.security.jwt_keys = vec![JwtKey { kid: kid.to_owned(), secret: Secret::new(secret) }];
    settings.egress.rules.allow_private = true;
    settings.egress.rules.allow_http = true;
    adjust(&mut settings);
    // Also where there are few cores, so that registries divide the threads between them.
    settings.limits.actor_threads.get_or_insert(2);
    // Several routers share this process, so none of them collects its metrics.
    let metrics = telemetry::detached().expect("metrics are set up");
    app::start(settings, clock, metrics).await.expect("the router starts")
}

fn declaration(tenants: Tenants, bot: &Peer, phone: &Peer) -> Value {
    let ect = |id: &str| overlaid(json!({"ect_id": id, "name": id, "fqdn": format!("{id}.example")}), &tenants.ect);
    let client = json!({
        "client_id": CLIENT,
        "name": "Acme",
        "ects": ["sprinkle", "helper"],
        "handoff_receiver": "sprinkle",
        "iva": {"url": bot.url()},
        "business": [{"business_id": BUSINESS, "name": "Acme Shop", "webhook": {"url": phone.url()}}],
    });
    json!({"ect": [ect("sprinkle"), ect("helper")], "client": [overlaid(client, &tenants.client)]})
}

fn overlaid(mut base: Value, over: &Value) -> Value {
    for (key, value) in over.as_object().into_iter().flatten() {
        base[key] = value.clone();
    }
    base
}
