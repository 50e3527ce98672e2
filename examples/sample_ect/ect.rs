//! A sample ECT: an agent tool as the router sees it (sections 4, 6 and 7 of the contract). Its one agent is a script;
//! [`desk`](super::desk) holds what the agent does, this file how a tool listens.
//!
//! What the contract asks of a tool, in the order in which it appears below:
//!
//! - register hooks, and keep the `secret` that the first registration shows once;
//! - check the signatures of what arrives, over the raw bytes;
//! - answer within 5 seconds: take it down, answer 200, work later;
//! - expect a webhook twice: the same event has the same `webhook-id`.

use super::{
    desk::Desk,
    webhook::{self, Fault, Recent},
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

/// Everything that a tool can be told about. The category is `collection_state` or `conversation_state`, as you like.
pub const HOOKS: [(&str, &str); 16] = [
    ("message", "receive"),
    ("conversation_state", "bot"),
    ("conversation_state", "incomplete"),
    ("conversation_state", "pinned"),
    ("conversation_state", "waiting"),
    ("conversation_state", "complete"),
    ("aeu_events", "received"),
    ("aeu_events", "allocated"),
    ("aeu_events", "user_timeout"),
    ("user_events", "create_user"),
    ("thread_control", "pass"),
    ("thread_control", "take"),
    ("thread_control", "request"),
    ("thread_control", "offer"),
    ("thread_control", "decline"),
    ("thread_control", "expire"),
];

/// Webhooks that wait for the desk. Beyond that the router keeps them for us: it gets 503 and comes again.
const INBOX: usize = 1024;

/// What the tool needs to know.
#[derive(Clone)]
pub struct Settings {
    /// The router, such as `http://127.0.0.1:8080`.
    pub router: String,
    /// A token of this tool for one client.
    pub token: String,
    /// Our receiver id, that is our `ect_id`.
    pub receiver: String,
    /// Where the router reaches us, such as `https://chat.sprinkle.example`.
    pub public_url: String,
    /// The hooks' secret, if we have registered before: the router shows it only once.
    pub secret: Option<String>,
}

/// What happened, for whoever watches.
#[derive(Debug, Clone)]
pub enum Report {
    /// The hooks are registered. The secret must be kept.
    Registered {
        /// How many.
        hooks: usize,
    },
    /// A genuine webhook came.
    Webhook {
        /// `category.subcategory`
        topic: String,
        /// The same for each attempt at the same event.
        webhook_id: String,
        /// Of which thread.
        user_id: String,
        /// Which entry it is about, if any.
        sequence: Option<u64>,
        /// The control epoch that it tells.
        epoch: Option<u64>,
        /// It had been here before.
        again: bool,
    },
    /// Something came that was not believed.
    Refused(Fault),
    /// There was a gap before the webhook, and the feed filled it.
    CaughtUp {
        /// Of which thread.
        user_id: String,
        /// From after this entry …
        after: u64,
        /// … through this one.
        through: u64,
    },
    /// We called the router.
    Called {
        /// About which thread.
        user_id: String,
        /// The route and what it was about; never what anybody said.
        what: String,
        /// The answer's status.
        status: u16,
    },
    /// A call could not be made, or its answer could not be read.
    Failed {
        /// Which call.
        what: String,
        /// Why.
        reason: String,
    },
}

/// Why the tool could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listening socket has no address.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The router cannot be reached, or did not answer in its own words.
    #[error("registering hooks: {0}")]
    Http(#[from] reqwest::Error),
    /// The router does not want us.
    #[error("registering hooks: {status} {error}")]
    Refused {
        /// The answer's status.
        status: u16,
        /// What it says.
        error: String,
    },
    /// We have registered before, and the secret that was shown then was not given.
    #[error("the hooks' secret was shown at the first registration; start again with it")]
    NoSecret,
}

/// The running tool; stops when dropped.
pub struct SampleEct {
    secret: String,
    tasks: JoinSet<()>,
}

impl SampleEct {
    /// Listens, registers all hooks, and sets the desk to work.
    ///
    /// # Errors
    /// Whatever keeps the hooks from being registered.
    pub async fn start(
        settings: Settings,
        listener: TcpListener,
        report: impl Fn(Report) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let report: Arc<dyn Fn(Report) + Send + Sync> = Arc::new(report);
        let (inbox, work) = mpsc::channel(INBOX);
        let door = Door { secret: OnceLock::new(), inbox, seen: Mutex::default(), report: Arc::clone(&report) };
        let door = Arc::new(door);

        // Listen first: webhooks may come before the answer to `register` does.
        let mut tasks = JoinSet::new();
        let routes = Router::new().route("/tract", post(webhook)).with_state(Arc::clone(&door));
        tasks.spawn(async move {
            // Serving ends with the task; `axum::serve` itself retries what fails on the socket.
            let _ = axum::serve(listener, routes).await;
        });
        if let Some(secret) = &settings.secret {
            let _ = door.secret.set(secret.clone());
        }
        register(&settings, &door).await?;
        let secret = door.secret.get().cloned().ok_or(StartError::NoSecret)?;
        report(Report::Registered { hooks: HOOKS.len() });
        tasks.spawn(Desk::new(settings, report).work(work));
        Ok(Self { secret, tasks })
    }

    /// The hooks' secret, to be kept for the next start.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Works until the process ends.
    pub async fn join(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Registering is idempotent: again replaces the URL and enables the hook.
async fn register(settings: &Settings, door: &Door) -> Result<(), StartError> {
    let http = reqwest::Client::new();
    for (category, subcategory) in HOOKS {
        let url = format!("{}/tract", settings.public_url);
        let answer = http
            .post(format!("{}/tract/hooks/register/", settings.router))
            .bearer_auth(&settings.token)
            .json(&json!({"category": category, "subcategory": subcategory, "url": url}))
            .send()
            .await?;
        let status = answer.status();
        let answer: Value = answer.json().await?;
        if !status.is_success() {
            let error = answer["error"].as_str().unwrap_or_default().to_owned();
            return Err(StartError::Refused { status: status.as_u16(), error });
        }
        if let Some(secret) = answer["secret"].as_str() {
            let _ = door.secret.set(secret.to_owned());
        }
    }
    Ok(())
}

/// Where webhooks come in.
struct Door {
    secret: OnceLock<String>,
    inbox: mpsc::Sender<Value>,
    seen: Mutex<Recent<()>>,
    report: Arc<dyn Fn(Report) + Send + Sync>,
}

async fn webhook(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(secret) = door.secret.get() else {
        return busy(); // The answer with the secret is still on its way.
    };
    let webhook_id = match webhook::verify(secret, &headers, &body, webhook::unix_now()) {
        Ok(id) => id,
        Err(fault) => {
            (door.report)(Report::Refused(fault));
            return (StatusCode::UNAUTHORIZED, fault.to_string()).into_response();
        }
    };
    let Ok(payload) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };

    let topic = topic(&payload);
    let metadata = metadata(&payload);
    let user_id = payload["user_id"].as_str().unwrap_or_default().to_owned();
    // Taken down and remembered in one step; a real tool commits both to its database before it answers.
    let again = {
        let mut seen = door.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let again = seen.get(&webhook_id).is_some();
        if !again {
            if door.inbox.try_send(payload).is_err() {
                return busy();
            }
            seen.put(webhook_id.clone(), ());
        }
        again
    };
    let answer = match topic.as_str() {
        // The router keeps our own id of the customer, should we have one.
        "user_events.create_user" => json!({"success": true, "ect_user_id": format!("sample-{user_id}")}),
        // A non-empty `error` here would say: received, but we cannot use it.
        _ => json!({}),
    };
    let (sequence, epoch) = (metadata["sequence"].as_u64(), metadata["control_epoch"].as_u64());
    (door.report)(Report::Webhook { topic, webhook_id, user_id, sequence, epoch, again });
    Json(answer).into_response()
}

/// Not now: the router comes again, in order. Nothing is lost by saying so.
fn busy() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response()
}

/// What a webhook is about. Events name themselves; the other two kinds are told by what they carry.
pub fn topic(payload: &Value) -> String {
    match (payload["category"].as_str(), payload["subcategory"].as_str()) {
        (Some(category), Some(subcategory)) => format!("{category}.{subcategory}"),
        _ if payload["message_id"].is_number() => "message.receive".to_owned(),
        _ => "user_events.create_user".to_owned(),
    }
}

/// A webhook's metadata: an object in `message.receive`, an object serialised to a string in events.
pub fn metadata(payload: &Value) -> Value {
    match &payload["metadata"] {
        Value::String(serialised) => serde_json::from_str(serialised).unwrap_or_default(),
        other => other.clone(),
    }
}
