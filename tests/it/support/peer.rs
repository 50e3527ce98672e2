//! Somebody whom the router calls: an agent tool's hooks, a bot, a channel webhook.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

/// How long a test waits for something that must happen. Real time: only a failing test ever takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request that was received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// `message.receive`, `conversation_state.bot`, …; a channel's `event_name`; or `turn`.
    pub(crate) topic: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// The body as it came.
    pub(crate) raw: Bytes,
}

impl Received {
    fn new(headers: HeaderMap, raw: Bytes, body: Value) -> Self {
        let text = |key: &str| body[key].as_str();
        let topic = match (text("category"), text("subcategory"), text("event_name")) {
            (Some(category), Some(subcategory), _) => format!("{category}.{subcategory}"),
            (_, _, Some(event)) => event.to_owned(),
            _ if body["event"] == "API_INTEGRATION" => "turn".to_owned(),
            _ if body["message_id"].is_u64() => "message.receive".to_owned(),
            _ => "user_events.create_user".to_owned(),
        };
        Self { topic, headers, body, raw }
    }
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
    /// The words of a message: of a hook, a channel webhook or a turn.
    pub(crate) fn text(&self) -> String {
        let hook = self.body["message_body"].as_str().map(|hsl| serde_json::from_str(hsl).unwrap());
        let element: Value = hook.unwrap_or_else(|| self.body["message"]["body"].clone());
        element.as_str().or(element["text"].as_str()).unwrap_or_default().to_owned()
    }
    /// What an event is about; in an event it is a string, in a message an object.
    pub(crate) fn metadata(&self) -> Value {
        match &self.body["metadata"] {
            Value::String(text) => serde_json::from_str(text).expect("an event's metadata is JSON in a string"),
            object => object.clone(),
        }
    }
    pub(crate) fn sequence(&self) -> u64 {
        self.metadata()["sequence"].as_u64().expect("a hook tells the sequence")
    }
}

/// How a request is answered.
#[derive(Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
    until: Option<Arc<Notify>>,
}

impl Answer {
    /// 200 with this body.
    pub(crate) fn ok(body: Value) -> Self {
        Self { status: 200, headers: Vec::new(), body, until: None }
    }
    /// Another status.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::ok(Value::Null) }
    }
    /// A bot's words.
    pub(crate) fn say(words: &[&str]) -> Self {
        Self::ok(json!({"response": words, "status": true}))
    }
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
    /// Not before this is notified.
    pub(crate) fn after(mut self, until: &Arc<Notify>) -> Self {
        self.until = Some(Arc::clone(until));
        self
    }
}

type Script = Box<dyn FnMut(&Received) -> Option<Answer> + Send>;

struct Shared {
    name: &'static str,
    secret: Mutex<Option<String>>,
    seen: watch::Sender<Vec<Received>>,
    scripts: Mutex<Vec<Script>>,
    faults: Mutex<Vec<String>>,
}

/// A server that the router calls.
pub(crate) struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Peer {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            name,
            secret: Mutex::default(),
            seen: watch::Sender::new(Vec::new()),
            scripts: Mutex::default(),
            faults: Mutex::default(),
        });
        let app = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/{}", self.address, self.shared.name)
    }

    /// From now on every request must be signed with this secret.
    pub(crate) fn expect_signed_with(&self, secret: &str) {
        *self.shared.secret.lock().unwrap() = Some(secret.to_owned());
    }

    /// What requests must be signed with.
    pub(crate) fn secret(&self) -> String {
        self.shared.secret.lock().unwrap().clone().expect("the peer was told a secret")
    }

    /// Answers as this says; where it says nothing, as was said before it, in the end with 200 and `{}`.
    pub(crate) fn script(&self, script: impl FnMut(&Received) -> Option<Answer> + Send + 'static) {
        self.shared.scripts.lock().unwrap().push(Box::new(script));
    }

    /// Answers the next requests on a topic with these, one each.
    pub(crate) fn next(&self, topic: &'static str, answers: impl IntoIterator<Item = Answer>) {
        let mut answers: std::collections::VecDeque<_> = answers.into_iter().collect();
        self.script(move |received| if received.topic == topic { answers.pop_front() } else { None });
    }

    /// A bot's answer to these words.
    pub(crate) fn reply_to(&self, words: &'static str, answer: Answer) {
        self.script(move |turn| (turn.text() == words).then(|| answer.clone()));
    }

    /// Everything that was received so far.
    pub(crate) fn seen(&self) -> Vec<Received> {
        self.shared.seen.borrow().clone()
    }

    /// What was received on a topic so far.
    pub(crate) fn seen_on(&self, topic: &str) -> Vec<Received> {
        self.seen().into_iter().filter(|r| r.topic == topic).collect()
    }

    /// Waits until what was received shows what is looked for.
    pub(crate) async fn find<T>(&self, what: &str, mut look: impl FnMut(&[Received]) -> Option<T>) -> T {
        let mut seen = self.shared.seen.subscribe();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(found) = look(&seen.borrow_and_update()) {
                    return found;
                }
                seen.changed().await.expect("the peer outlives the wait");
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("{}: {what}: not within {PATIENCE:?}; received:\n{}", self.shared.name, self.listing()),
        }
    }

    /// Waits for the first request on a topic of which this holds.
    pub(crate) async fn wait_for(&self, topic: &str, holds: impl Fn(&Received) -> bool) -> Received {
        let look = |seen: &[Received]| seen.iter().find(|r| r.topic == topic && holds(r)).cloned();
        self.find(topic, look).await
    }

    /// Waits for a message of these words.
    pub(crate) async fn hear(&self, topic: &str, words: &str) -> Received {
        let look = |seen: &[Received]| seen.iter().find(|r| r.topic == topic && r.text() == words).cloned();
        self.find(&format!("{topic} {words:?}"), look).await
    }

    /// What was received, one line each, for a test that fails.
    fn listing(&self) -> String {
        let lines = self.seen().into_iter().map(|r| format!("  {} {}", r.topic, r.body));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Nothing that was received was wrong by itself.
    pub(crate) fn assert_sound(&self) {
        let faults = self.shared.faults.lock().unwrap();
        assert!(faults.is_empty(), "{}: {}", self.shared.name, faults.join("\n"));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, raw: Bytes) -> Response {
    let Ok(body) = serde_json::from_slice(&raw) else {
        shared.faults.lock().unwrap().push("a body is not JSON".to_owned());
        return StatusCode::BAD_REQUEST.into_response();
    };
    let received = Received::new(headers, raw.clone(), body);
    let secret = shared.secret.lock().unwrap().clone();
    if let Some(fault) = secret.and_then(|secret| fault(&received, &raw, &secret)) {
        shared.faults.lock().unwrap().push(format!("{}: {fault}", received.topic));
    }
    let scripted = {
        let mut scripts = shared.scripts.lock().unwrap();
        scripts.iter_mut().rev().find_map(|script| script(&received))
    };
    shared.seen.send_modify(|seen| seen.push(received));
    let answer = scripted.unwrap_or_else(|| Answer::ok(json!({})));
    if let Some(until) = answer.until {
        until.notified().await;
    }
    let mut response = (StatusCode::from_u16(answer.status).unwrap(), axum::Json(answer.body)).into_response();
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// What is wrong with a request's signatures and headers (section 8). Worked out anew here, from the contract.
fn fault(received: &Received, raw: &[u8], secret: &str) -> Option<String> {
    let id = received.header("webhook-id");
    let at = received.header("webhook-timestamp");
    if id.is_empty() || received.header("content-type") != "application/json" {
        return Some("a header is missing".to_owned());
    }
    let mut sha1 = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    sha1.update(raw);
    let hex: String = sha1.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    // While secrets rotate, whoever knows only the old one looks at the other header.
    let shown = [received.header("x-hub-signature"), received.header("x-hub-signature-previous")];
    if !shown.contains(&format!("sha1={hex}").as_str()) {
        return Some("X-Hub-Signature is wrong".to_owned());
    }
    let key = match secret.strip_prefix("whsec_") {
        Some(rest) => STANDARD.decode(rest).unwrap(),
        None => secret.as_bytes().to_vec(),
    };
    // The library's own `verify` compares with the machine's clock; ours may have moved on.
    let oracle = standardwebhooks::Webhook::from_bytes(key).unwrap();
    let expected = oracle.sign(id, at.parse().unwrap_or_default(), raw).unwrap();
    let signed = received.header("webhook-signature").split(' ').any(|s| s == expected);
    (!signed).then(|| "webhook-signature is wrong".to_owned())
}
