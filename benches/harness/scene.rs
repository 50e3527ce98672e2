//! A tenant with threads, and a place where its webhooks go.

use super::{ADMIN, API, Server, post, token, wire::Call};
use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::any};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The client that all threads belong to.
pub(crate) const CLIENT: &str = "acme";

/// The agent tool that holds all threads, and may therefore send.
pub(crate) const RECEIVER: &str = "bench";

/// An agent tool beside it that hears what the other says.
const LISTENER: &str = "listener";

/// What is sent.
const TEXT: &str = "Your parcel left the depot this morning and arrives tomorrow.";

/// Where threads are made: a router, and what its channel side asks for.
pub(crate) struct Channel<'a> {
    pub(crate) http: &'a reqwest::Client,
    pub(crate) url: &'a str,
    pub(crate) client: &'a str,
    pub(crate) api_token: &'a str,
    pub(crate) business: u64,
}

impl Channel<'_> {
    /// So many users, each of whom has said something: threads with an open conversation. Their handles.
    pub(crate) async fn threads(&self, count: usize) -> Vec<String> {
        self.more_threads("bench", count).await
    }

    /// The same, of users called this and a number.
    pub(crate) async fn more_threads(&self, called: &str, count: usize) -> Vec<String> {
        let mut tasks = tokio::task::JoinSet::new();
        let per_task = count.div_ceil(64).max(1);
        for first in (0..count).step_by(per_task) {
            let (http, url) = (self.http.clone(), self.url.to_owned());
            let (client, api_token, business) = (self.client.to_owned(), self.api_token.to_owned(), self.business);
            let called = called.to_owned();
            tasks.spawn(async move {
                let mut users = Vec::new();
                for user in first..(first + per_task).min(count) {
                    let auth_id = format!("{called}-{user}");
                    let made = json!({"auth_id": auth_id, "business_id": business});
                    let made = post(&http, format!("{url}/v1.0/user"), &api_token, &client, made).await;
                    users.push(made["user_id"].as_str().unwrap().to_owned());
                    let message = json!({"user": {"auth_id": auth_id}, "message_body": "Hello?", "message_type": 0,
                                         "business_id": business});
                    post(&http, format!("{url}/v1.0/log_message_from_user"), &api_token, &client, message).await;
                }
                users
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }
}

/// Declares the client and its agent tools on a fresh router. The token of the one that holds all threads.
pub(crate) async fn tenant(router: &Server, http: &reqwest::Client, hook: Option<&str>) -> String {
    let ect = |id: &str| json!({"ect_id": id, "fqdn": format!("{id}.example")});
    let mut ects = vec![RECEIVER];
    ects.extend(hook.map(|_| LISTENER));
    let tenants = json!({
        "ect": ects.iter().map(|id| ect(id)).collect::<Vec<Value>>(),
        "client": [{"client_id": CLIENT, "api_token": API, "ects": ects, "default_receiver": RECEIVER,
                    "handoff_timeout": "0s", "business": [{"business_id": 1}]}],
    });
    post(http, format!("{}/admin/v1/apply", router.url), ADMIN, CLIENT, tenants).await;
    if let Some(url) = hook {
        let bearer = token(router, http, CLIENT, LISTENER).await;
        let hook = json!({"category": "message", "subcategory": "receive", "url": url});
        post(http, format!("{}/tract/hooks/register", router.url), &bearer, CLIENT, hook).await;
    }
    token(router, http, CLIENT, RECEIVER).await
}

/// A message to each of these threads.
pub(crate) fn messages(users: &[String]) -> Vec<Call> {
    let to = |user| json!({"user_id": user, "sender": "ect", "message_body": TEXT});
    users.iter().map(|user| Call::post("/tract/message/send", &to(user))).collect()
}

/// Takes webhooks in this process, so that they cost the router what it does, and nothing else.
pub(crate) struct Sink {
    count: AtomicU64,
    /// Where they go.
    pub(crate) url: String,
}

impl Sink {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let sink = Arc::new(Self { count: AtomicU64::new(0), url });
        let app = Router::new().route("/hook", any(Self::take)).with_state(Arc::clone(&sink));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        sink
    }

    async fn take(State(sink): State<Arc<Self>>, _: Bytes) -> StatusCode {
        sink.count.fetch_add(1, Ordering::Relaxed);
        StatusCode::OK
    }

    /// How many have come.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until so many have come; the last ones may be on their way a while after their messages were accepted.
    pub(crate) async fn until(&self, count: u64) {
        let begun = Instant::now();
        while self.count() < count {
            assert!(begun.elapsed() < Duration::from_secs(120), "{} of {count} webhooks came", self.count());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
