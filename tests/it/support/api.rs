//! The public API, as each kind of caller uses it.

use super::form::Form;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::time::Duration;

/// Longer than any of the router's own limits.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What the router answered.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// A JSON string when it is not JSON.
    pub(crate) body: Value,
}

impl Reply {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.body);
        self.body
    }
    /// The body of a refusal with this status and code.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        self.body
    }
    /// A header; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A client of the router.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
}

impl Api {
    pub(crate) fn new(base: impl Into<String>) -> Self {
        Self { http: reqwest::Client::builder().no_proxy().build().unwrap(), base: base.into() }
    }
    pub(crate) fn base(&self) -> &str {
        &self.base
    }
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).timeout(TIMEOUT)
    }
    pub(crate) async fn send(&self, request: RequestBuilder) -> Reply {
        self.try_send(request).await.expect("the router answers")
    }
    /// None when the router went away before it answered.
    pub(crate) async fn try_send(&self, request: RequestBuilder) -> Option<Reply> {
        let answer = request.send().await.ok()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.bytes().await.ok()?;
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        Some(Reply { status, headers, body })
    }

    /// `POST /admin/v1/apply`: what it made.
    pub(crate) async fn apply(&self, admin_token: &str, declaration: &Value) -> Vec<Value> {
        let request = self.request(Method::POST, "/admin/v1/apply").bearer_auth(admin_token).json(declaration);
        let body = self.send(request).await.ok();
        body["made"].as_array().expect("apply says what it made").clone()
    }
    /// `POST /admin/v1/tokens`
    pub(crate) async fn token(&self, admin_token: &str, client: &str, receiver: &str) -> Token {
        let body = json!({"client_id": client, "receiver": receiver, "ttl_seconds": 86_400});
        let request = self.request(Method::POST, "/admin/v1/tokens").bearer_auth(admin_token).json(&body);
        let token = self.send(request).await.ok()["token"].as_str().expect("a token").to_owned();
        Token { api: self.clone(), token, receiver: receiver.to_owned() }
    }
}

/// A receiver with its token (Part A).
#[derive(Clone)]
pub(crate) struct Token {
    api: Api,
    /// The JWT itself.
    pub(crate) token: String,
    pub(crate) receiver: String,
}

impl Token {
    /// The same token at another address of the same router.
    pub(crate) fn at(&self, api: &Api) -> Self {
        Self { api: api.clone(), ..self.clone() }
    }
    /// A request that carries the token, to be given a body.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.api.request(method, path).bearer_auth(&self.token)
    }
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.api.send(self.request(Method::POST, path).json(body)).await
    }
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.api.send(self.request(Method::GET, path)).await
    }

    /// Registers a hook; the secret, if this made it.
    pub(crate) async fn register(&self, topic: &str, url: &str) -> Option<String> {
        let (category, subcategory) = topic.split_once('.').unwrap();
        let body = json!({"category": category, "subcategory": subcategory, "url": url});
        let answer = self.post("/tract/hooks/register/", &body).await.ok();
        answer["secret"].as_str().map(str::to_owned)
    }
    pub(crate) async fn send(&self, user_id: &str, sender: &str, words: &str) -> Reply {
        let body = json!({"user_id": user_id, "sender": sender, "message_body": words});
        self.post("/tract/message/send/", &body).await
    }
    pub(crate) async fn event(&self, user_id: &str, topic: &str, metadata: &Value) -> Reply {
        let (category, subcategory) = topic.split_once('.').unwrap();
        let body = json!({"user_id": user_id, "category": category, "subcategory": subcategory, "metadata": metadata});
        self.post("/tract/events/send", &body).await
    }
    /// A control operation; `receiver` is the target, where the operation has one.
    pub(crate) async fn control(&self, user_id: &str, op: &str, receiver: Option<&str>) -> Reply {
        self.control_with(user_id, op, receiver, json!({})).await
    }
    pub(crate) async fn control_with(&self, user_id: &str, op: &str, receiver: Option<&str>, extra: Value) -> Reply {
        let mut body = json!({"user_id": user_id, "type": op, "requester": self.receiver});
        if let Some(receiver) = receiver {
            body["receiver"] = receiver.into();
        }
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.post("/tract/thread_control/request", &body).await
    }
    pub(crate) async fn thread(&self, user_id: &str) -> Value {
        self.get(&format!("/tract/thread/?user_id={user_id}")).await.ok()
    }
    /// The whole feed; its sequence is checked to be gapless.
    pub(crate) async fn feed(&self, user_id: &str) -> Vec<Value> {
        let mut entries: Vec<Value> = Vec::new();
        loop {
            let after = entries.len();
            let path = format!("/tract/thread/feed/?user_id={user_id}&after={after}&limit=500");
            let page = self.get(&path).await.ok();
            let page = page["entries"].as_array().expect("a feed has entries").clone();
            if page.is_empty() {
                return entries;
            }
            entries.extend(page);
            for (index, entry) in entries.iter().enumerate().skip(after) {
                assert_eq!(entry["sequence"], json!(index + 1), "the feed has a gap");
            }
        }
    }
}

/// A client's channel side (section 10).
#[derive(Clone)]
pub(crate) struct Channel {
    api: Api,
    client: String,
    /// The client's API token itself.
    pub(crate) token: String,
    business: u64,
}

impl Channel {
    /// The same channel side at another address of the same router.
    pub(crate) fn at(&self, api: &Api) -> Self {
        Self { api: api.clone(), ..self.clone() }
    }
    pub(crate) fn new(api: Api, client: &str, token: &str, business: u64) -> Self {
        Self { api, client: client.to_owned(), token: token.to_owned(), business }
    }
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.api.send(self.request(Method::POST, path).json(body)).await
    }
    /// A request with the client's credentials, to be given a body.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.api.request(method, path).bearer_auth(&self.token).header("client-id", &self.client)
    }
    /// Creates a user; its handle.
    pub(crate) async fn user(&self, user: &Value) -> String {
        let answer = self.post("/v1.0/user/", user).await.ok();
        answer["user_id"].as_str().expect("a user_id").to_owned()
    }
    /// The customer writes; the message's id.
    pub(crate) async fn say(&self, auth_id: &str, words: &str) -> u64 {
        self.try_say(auth_id, words).await.expect("the message is acknowledged")
    }
    /// The message's id, if the router lived to acknowledge it.
    pub(crate) async fn try_say(&self, auth_id: &str, words: &str) -> Option<u64> {
        let request = self.saying(auth_id, words);
        let answer = self.api.try_send(request).await.filter(|answer| answer.status == 200)?;
        answer.body["message_id"].as_u64()
    }
    /// The customer sends a file: what is answered.
    pub(crate) async fn send_file(&self, form: &Form) -> Reply {
        self.api.send(self.sending(form)).await
    }
    /// The request by which the customer sends a file.
    pub(crate) fn sending(&self, form: &Form) -> RequestBuilder {
        form.in_request(self.request(Method::POST, "/v1.0/log_file_from_user/"))
    }
    /// The request by which the customer writes.
    pub(crate) fn saying(&self, auth_id: &str, words: &str) -> RequestBuilder {
        let body = json!({
            "user": {"auth_id": auth_id}, "message_body": words, "message_type": 0, "business_id": self.business,
        });
        self.request(Method::POST, "/v1.0/log_message_from_user/").json(&body)
    }
}
