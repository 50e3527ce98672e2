//! The sample ECT's desk: it follows each thread and plays the agent.
//!
//! What the contract offers a tool to get this right:
//!
//! - **`sequence`** is gapless within a thread. Hooks are delivered independently, so the next webhook may be ahead of
//!   one that is still under way, and our own messages are not sent to us: whatever is missing is in the *feed*.
//! - **`control_epoch`** is a fencing token. Sent along, it makes sure that nobody speaks after losing control: the router
//!   answers 409 instead.
//! - **`Idempotency-Key`** makes a repeated call the same call. The keys here are made from what is being answered, so even
//!   after a restart the customer gets each answer once.
//!
//! The desk acts on where a thread *is*, not on each thing that happened: after an outage it reads the feed to its end and
//! then does what is still to be done.

use super::{
    ect::{Report, Settings, metadata, topic},
    webhook::words,
};
use reqwest::{Method, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// Attempts at one call. Each repeats the same key, so it does not matter which of them got through.
const ATTEMPTS: u32 = 5;

/// The largest page of the feed.
const PAGE: usize = 500;

/// What we know of a thread. A real tool keeps it in its database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Thread {
    /// Everything up to this entry is in.
    sequence: u64,
    conversation: String,
    epoch: u64,
    active: String,
    state: String,
    /// The customer's last message.
    asked: u64,
    /// The agent's last message.
    answered: u64,
    /// What the customer said last.
    said: String,
}

/// The agent's desk.
pub struct Desk {
    settings: Settings,
    report: Arc<dyn Fn(Report) + Send + Sync>,
    http: reqwest::Client,
    threads: HashMap<String, Thread>,
}

impl Desk {
    /// An empty desk.
    pub fn new(settings: Settings, report: Arc<dyn Fn(Report) + Send + Sync>) -> Self {
        Self { settings, report, http: reqwest::Client::new(), threads: HashMap::new() }
    }

    /// Takes webhooks one by one. A real tool has one such queue for each thread.
    pub async fn work(mut self, mut inbox: mpsc::Receiver<Value>) {
        while let Some(payload) = inbox.recv().await {
            let Some(user_id) = payload["user_id"].as_str() else { continue };
            let user_id = user_id.to_owned();
            let mut thread = self.threads.remove(&user_id).unwrap_or_default();
            // What has no sequence (`create_user`, `ping`) is no entry of the thread.
            if let Some(entry) = Entry::from_webhook(&payload)
                && entry.sequence > thread.sequence
            {
                match entry.sequence == thread.sequence + 1 {
                    true => thread.apply(&entry),
                    false => self.catch_up(&user_id, &mut thread).await,
                }
                self.serve(&user_id, &mut thread).await;
            }
            self.threads.insert(user_id, thread);
        }
    }

    /// Reads the feed to its end.
    async fn catch_up(&self, user_id: &str, thread: &mut Thread) {
        let after = thread.sequence;
        loop {
            let path = format!("/tract/thread/feed/?user_id={user_id}&after={}&limit={PAGE}", thread.sequence);
            let Some((StatusCode::OK, page)) = self.call(Method::GET, &path, None, None).await else { break };
            let entries = page["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
            for entry in entries.iter().filter_map(Entry::from_feed) {
                thread.apply(&entry);
            }
            if entries.len() < PAGE {
                break;
            }
        }
        (self.report)(Report::CaughtUp { user_id: user_id.to_owned(), after, through: thread.sequence });
    }

    /// Does what is to be done where the thread is.
    async fn serve(&self, user_id: &str, thread: &mut Thread) {
        if thread.active != self.settings.receiver {
            return; // Somebody else's. We hear it (standby), and we keep silent.
        }
        match thread.state.as_str() {
            "incomplete" => self.pick_up(user_id, thread).await,
            "pinned" | "waiting" if thread.asked > thread.answered => self.answer(user_id, thread).await,
            _ => {}
        }
    }

    /// A chat came in: say that it is in our queue, that an agent has it, greet, and wait for the customer.
    async fn pick_up(&self, user_id: &str, thread: &mut Thread) {
        let key = format!("{}-{}", thread.conversation, thread.epoch);
        let agent = json!({"agent_id": "7", "agent_name": "Asha", "team_name": "orders"});
        if !self.event(user_id, "aeu_events", "received", &json!({}), &key).await
            || !self.event(user_id, "aeu_events", "allocated", &agent, &key).await
        {
            return; // No longer ours, most likely: the next webhooks tell.
        }
        thread.state = "pinned".to_owned();
        let name = self.customer_name(user_id).await.map(|name| format!(" {name}")).unwrap_or_default();
        let greeting = format!("Hello{name}, this is Asha. Which order is it about?");
        if self.say(user_id, thread, &greeting, &format!("greeting-{key}")).await
            && self.event(user_id, "conversation_state", "waiting", &json!({}), &key).await
        {
            thread.state = "waiting".to_owned();
        }
    }

    /// The customer answered: solve it, and end the conversation.
    async fn answer(&self, user_id: &str, thread: &mut Thread) {
        let key = format!("answer-{}", thread.asked);
        let digits: String = thread.said.chars().filter(char::is_ascii_digit).take(12).collect();
        let order = if digits.is_empty() { "Your order".to_owned() } else { format!("Order {digits}") };
        let answer = format!("{order} left our depot this morning and will be with you tomorrow.");
        if !self.say(user_id, thread, &answer, &key).await {
            return;
        }
        let reason = json!({"closing_categories": {"reason": "delivery", "subReason": "status", "comment": ""}});
        if self.event(user_id, "conversation_state", "complete", &reason, &key).await {
            thread.state = "complete".to_owned();
        }
    }

    async fn say(&self, user_id: &str, thread: &mut Thread, text: &str, key: &str) -> bool {
        let body = json!({
            "user_id": user_id,
            "sender": "aeu",
            "message_body": json!({"text": text, "type": "TEXT", "data": {"quick_replies": []}}).to_string(),
            "metadata": {"agent_name": "Asha"},
            "control_epoch": thread.epoch,
        });
        let Some((status, answer)) = self.call(Method::POST, "/tract/message/send/", Some(&body), Some(key)).await
        else {
            return false;
        };
        self.called(user_id, "message/send", status);
        // Our own messages do not come back as webhooks; the answer says where this one stands.
        thread.answered = answer["sequence"].as_u64().unwrap_or(thread.answered);
        status.is_success()
    }

    async fn event(&self, user_id: &str, category: &str, subcategory: &str, metadata: &Value, key: &str) -> bool {
        let body = json!({"user_id": user_id, "category": category, "subcategory": subcategory, "metadata": metadata});
        let key = format!("{subcategory}-{key}");
        let Some((status, _)) = self.call(Method::POST, "/tract/events/send", Some(&body), Some(&key)).await else {
            return false;
        };
        self.called(user_id, &format!("events/send {category}.{subcategory}"), status);
        status.is_success()
    }

    async fn customer_name(&self, user_id: &str) -> Option<String> {
        let body = json!({"user_id": user_id});
        let (_, user) = self.call(Method::POST, "/tract/user/", Some(&body), None).await?;
        user["user_name"].as_str().map(str::to_owned)
    }

    /// Calls the router; what may succeed later is repeated, with the same key.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Option<(StatusCode, Value)> {
        let what = path.split('?').next().unwrap_or_default();
        for attempt in 1..=ATTEMPTS {
            let url = format!("{}{path}", self.settings.router);
            let mut request = self.http.request(method.clone(), url).bearer_auth(&self.settings.token);
            request = request.timeout(Duration::from_secs(10));
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Some(key) = key {
                request = request.header("Idempotency-Key", key);
            }
            let mut wait = Duration::from_millis(250) * 2_u32.pow(attempt);
            match request.send().await {
                Ok(answer) => {
                    let status = answer.status();
                    let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                    // 504 means that the outcome is unknown: with the same key it is safe to ask again.
                    if !matches!(status.as_u16(), 429 | 503 | 504) {
                        return Some((status, answer.json().await.unwrap_or_default()));
                    }
                    wait = after.map_or(wait, |seconds: u64| Duration::from_secs(seconds.min(30)));
                    self.failed(what, format!("{status}, attempt {attempt} of {ATTEMPTS}"));
                }
                Err(error) => self.failed(what, error.without_url().to_string()),
            }
            tokio::time::sleep(wait).await;
        }
        None
    }

    fn called(&self, user_id: &str, what: &str, status: StatusCode) {
        let (user_id, what) = (user_id.to_owned(), what.to_owned());
        (self.report)(Report::Called { user_id, what, status: status.as_u16() });
    }

    fn failed(&self, what: &str, reason: String) {
        (self.report)(Report::Failed { what: what.to_owned(), reason });
    }
}

impl Thread {
    fn apply(&mut self, entry: &Entry) {
        self.sequence = entry.sequence;
        self.epoch = entry.epoch.max(self.epoch);
        self.conversation.clone_from(&entry.conversation);
        if let Some(active) = &entry.active {
            self.active.clone_from(active);
        }
        match &entry.what {
            What::Said { sender, text } if sender == "ceu" => {
                self.asked = entry.sequence;
                self.said.clone_from(text);
            }
            What::Said { sender, .. } if sender == "aeu" || sender == "ect" => self.answered = entry.sequence,
            What::State(state) => self.state.clone_from(state),
            What::Said { .. } | What::Other => {}
        }
    }
}

/// One fact of a thread, from a webhook or from the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    sequence: u64,
    epoch: u64,
    conversation: String,
    /// Who is in control once this entry is in, as far as it says so.
    active: Option<String>,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Said { sender: String, text: String },
    State(String),
    Other,
}

impl Entry {
    fn from_webhook(payload: &Value) -> Option<Self> {
        let metadata = metadata(payload);
        let topic = topic(payload);
        let what = match topic.split_once('.')? {
            ("message", "receive") => What::said(payload),
            ("conversation_state" | "collection_state", state) => What::State(state.to_owned()),
            _ => What::Other,
        };
        let moved = matches!(topic.as_str(), "thread_control.pass" | "thread_control.take");
        Self::new(payload, &metadata, &metadata, what, moved)
    }

    fn from_feed(entry: &Value) -> Option<Self> {
        let what = match entry["kind"].as_str()? {
            "message" => What::said(entry),
            "state" => What::State(entry["to"].as_str().or(entry["state"].as_str())?.to_owned()),
            _ => What::Other,
        };
        let moved = entry["kind"] == "control" && matches!(entry["action"].as_str(), Some("pass" | "take"));
        Self::new(entry, entry, &metadata(entry), what, moved)
    }

    fn new(entry: &Value, numbers: &Value, metadata: &Value, what: What, moved: bool) -> Option<Self> {
        let active = numbers["active"].as_str().or(metadata["active"].as_str());
        let active = if moved { numbers["to"].as_str().or(active) } else { active };
        Some(Self {
            sequence: numbers["sequence"].as_u64()?,
            epoch: numbers["control_epoch"].as_u64()?,
            conversation: entry["conversation_number"].as_str().unwrap_or_default().to_owned(),
            active: active.map(str::to_owned),
            what,
        })
    }
}

impl What {
    fn said(entry: &Value) -> Self {
        let sender = entry["sender"].as_str().unwrap_or_default().to_owned();
        Self::Said { sender, text: words(&entry["message_body"]) }
    }
}
