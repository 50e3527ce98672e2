//! The edge as its callers meet it, on a real store and real tenants. Threads answer without actors: one decision, one
//! commit.

mod admin;
mod bounds;
mod calls;
mod hooks;

use super::files::{FileDesk, Links};
use super::{Breakers, Edge, Readiness, Threads, service};
use crate::clock::SystemClock;
use crate::security::chain::Roots;
use crate::security::egress::EgressClient;
use crate::security::rates::Rates;
use crate::security::signed_request::SignedRequests;
use crate::security::tokens::Tokens;
use crate::security::url::EgressRules;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::telemetry;
use crate::tenancy::{Declaration, Secret, Tenancy};
use crate::webhook::WebhookDeliverer;
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;
use tower::ServiceExt;
use tract_actors::ports::{Clock, Commit, Committed, DeadlineChange, Endpoint, KeptAnswer, Store, Tenants};
use tract_actors::router::{Answer, Ask, Failure};
use tract_domain::{ClientId, Context, ReceiverId, Timestamp};
use uuid::Uuid;

const ADMIN: &str = "the-operator";
const API_TOKEN: &str = "acme-channel-token-0123456789abcdef";

/// Stands still until it is moved.
struct ManualClock(AtomicI64);

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
    async fn sleep_until(&self, _: Timestamp) {
        std::future::pending::<()>().await;
    }
}

/// No breaker is ever open.
struct Closed;

impl Breakers for Closed {
    fn is_open(&self, _: &Endpoint) -> bool {
        false
    }
}

/// Decides and commits, one at a time.
struct Direct {
    store: Arc<dyn Store>,
    tenancy: Arc<Tenancy>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Threads for Direct {
    async fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        let now = self.clock.now();
        let stored = self.store.thread(&ask.user_id).await.unwrap();
        let stored = stored.filter(|s| s.key.client == ask.client).ok_or(Failure::UnknownUser)?;
        if let Some(key) = &ask.idempotency
            && let Some(kept) = self.store.kept(key, now).await.unwrap()
        {
            if kept.request != key.request {
                return Err(Failure::KeyReused);
            }
            let KeptAnswer::Thread { reply, message_ids, at } = kept.answer else { panic!("not a thread's answer") };
            return Ok(Answer { reply, message_ids, at, replayed: true });
        }
        let policy = self.tenancy.policy(&ask.client, stored.key.business).unwrap();
        let decided = stored.thread.decide(&ask.command, Context { now, policy: &policy });
        let transition = decided.map_err(Failure::Refused)?;
        let commit = Commit {
            commit_id: Uuid::now_v7(),
            user_id: ask.user_id,
            expected_version: stored.version,
            expected_commit: stored.commit_id,
            thread: Arc::new(transition.thread),
            entries: transition.entries,
            outbox: Vec::new(),
            settles: None,
            deadline: DeadlineChange::Keep,
            user_details: None,
            idempotency: ask.idempotency.map(|key| (key, transition.reply.clone())),
            now,
        };
        let Committed::Applied { message_ids, .. } = self.store.commit(commit).await.unwrap() else {
            panic!("nobody else writes here")
        };
        Ok(Answer { reply: transition.reply, message_ids, at: now, replayed: false })
    }
}

struct Fixture {
    service: Router,
    edge: Arc<Edge>,
    clock: Arc<ManualClock>,
    _directory: TempDir,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
    text: String,
}

impl Reply {
    #[track_caller]
    fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        assert!(self.body.get("error").is_none(), "{}", self.text);
        self.body
    }
    /// Status, code, and the text for a person.
    #[track_caller]
    fn refused(&self) -> (u16, &str, &str) {
        let text = self.body.get("error").or_else(|| self.body.get("error_message"));
        assert!(self.body["request_id"].is_string(), "{}", self.text);
        assert_eq!(self.headers["x-request-id"], self.body["request_id"].as_str().unwrap());
        (self.status, self.body["code"].as_str().unwrap(), text.unwrap().as_str().unwrap())
    }
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }
}

fn tenants() -> Value {
    json!({
        "ect": [
            {"ect_id": "sprinkle", "fqdn": "chat.sprinkle.example"},
            {"ect_id": "held", "fqdn": "chat.held.example", "receive": "active"},
        ],
        "client": [
            {"client_id": "acme", "api_token": API_TOKEN, "ects": ["sprinkle", "held"], "sac": true,
                "handoff_receiver": "sprinkle", "default_receiver": "iva",
                "iva": {"url": "https://bot.acme.example/turn"},
                "business": [{"business_id": 343, "name": "Shop"}, {"business_id": 344}]},
            {"client_id": "other", "ects": ["sprinkle"], "business": [{"business_id": 1}]},
        ],
    })
}

/// Links lead to the host that is asked.
fn desk() -> FileDesk {
    FileDesk::new(Links::new(None, false, ([127, 0, 0, 1], 8080).into()))
}

impl Fixture {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteOptions { partitions: 4, ..SqliteOptions::default() };
        let store: Arc<dyn Store> = SqliteStore::open(directory.path(), options).unwrap();
        let egress = EgressRules::default();
        let tenancy = Tenancy::load(Arc::clone(&store), egress).await.unwrap();
        let (declaration, faults) = Declaration::read(&tenants());
        assert!(faults.is_empty(), "{faults:?}");
        let clock = Arc::new(ManualClock(AtomicI64::new(SystemClock.now().0)));
        tenancy.apply(declaration, clock.now(), None).await.unwrap();
        let tokens = Tokens::new([("k1".to_owned(), Secret::new("s".repeat(32)))]).unwrap();
        let threads =
            Direct { store: Arc::clone(&store), tenancy: Arc::clone(&tenancy), clock: Arc::clone(&clock) as _ };
        let signed = SignedRequests::new(
            Arc::clone(&store),
            Arc::clone(&tenancy),
            Arc::clone(&clock) as _,
            EgressClient::new(egress, &[]).unwrap(),
            Roots::load(&[]),
        );
        let egress_client = EgressClient::new(egress, &[]).unwrap();
        let deliverer =
            WebhookDeliverer::new(Arc::clone(&store), Arc::clone(&tenancy), Arc::clone(&clock) as _, egress_client);
        let edge = Arc::new(Edge {
            deliverer: Arc::new(deliverer),
            breakers: Arc::new(Closed),
            signed: Arc::new(signed),
            threads: Arc::new(threads),
            store,
            tenancy,
            tokens: Arc::new(tokens),
            files: desk(),
            rates: Rates::new(0),
            clock: Arc::clone(&clock) as _,
            admin_token: Secret::new(ADMIN),
            egress,
            metrics: telemetry::detached().unwrap(),
            readiness: Readiness::default(),
            node_id: "n1".to_owned(),
            waiting: tokio::sync::Semaphore::new(crate::http::sync::WAITING),
            started_at: Timestamp(0),
        });
        Self { service: service(Arc::clone(&edge)), edge, clock, _directory: directory }
    }

    fn advance(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }
    fn token(&self, client: &str, receiver: &str) -> String {
        let (client, receiver) = (ClientId::new(client).unwrap(), ReceiverId::new(receiver).unwrap());
        let token = self.edge.tokens.issue(&client, &receiver, self.clock.now(), 3600).unwrap();
        token.expose().to_owned()
    }
    async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.service.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply { status: parts.status.as_u16(), headers: parts.headers, body, text }
    }
    async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap()).await
    }
    /// As a receiver of acme.
    async fn tool(&self, receiver: &str, path: &str, body: Value) -> Reply {
        let token = format!("Bearer {}", self.token("acme", receiver));
        self.call(Method::POST, path, &[("authorization", &token)], Some(&body)).await
    }
    async fn read(&self, receiver: &str, path: &str) -> Reply {
        let token = format!("Bearer {}", self.token("acme", receiver));
        self.call(Method::GET, path, &[("authorization", &token)], None).await
    }
    /// As acme's channel side.
    async fn channel(&self, method: Method, path: &str, body: Value) -> Reply {
        let token = format!("Bearer {API_TOKEN}");
        self.call(method, path, &[("authorization", &token), ("client-id", "acme")], Some(&body)).await
    }
    async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let token = format!("Bearer {ADMIN}");
        self.call(method, path, &[("authorization", &token)], body.as_ref()).await
    }
    /// A user of business 343, who has written nothing yet.
    async fn user(&self) -> String {
        let body =
            json!({"auth_id": "kim", "name": "Kim", "email": "kim@example.org", "custom_data": {"plan": "gold"}});
        let user = self.channel(Method::POST, "/v1.0/user/", body).await.ok();
        user["user_id"].as_str().unwrap().to_owned()
    }
    async fn says(&self, text: &str) -> Value {
        let body = json!({"user": {"auth_id": "kim"}, "message_body": text, "message_type": 0, "business_id": 343});
        self.channel(Method::POST, "/v1.0/log_message_from_user/", body).await.ok()
    }
    async fn pass(&self, user: &str, from: &str, to: &str) {
        let body = json!({"user_id": user, "type": "pass", "requester": from, "receiver": to});
        self.tool(from, "/tract/thread_control/request", body).await.ok();
    }
    /// Makes an ECT one that control can be given to.
    async fn healthy(&self, receiver: &str) -> Value {
        let body = json!({"category": "message", "subcategory": "receive", "url": "https://chat.example/hook"});
        self.tool(receiver, "/tract/hooks/register/", body).await.ok()
    }
}
