//! The calls that the demo itself makes, as the operator and as the channel side.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::time::Duration;

/// Longer than any of the router's own time limits.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The router could not be reached, or its answer could not be read.
    #[error("{route}: {source}")]
    Unreachable {
        /// Which call.
        route: String,
        /// Why, without the URL.
        source: reqwest::Error,
    },
    /// The router refused.
    #[error("{route}: {status} {error}")]
    Refused {
        /// Which call.
        route: String,
        /// The answer's status.
        status: u16,
        /// The answer's text for a person.
        error: String,
    },
    /// The answer lacks something that the contract promises.
    #[error("{route}: the answer has no {field}")]
    Incomplete {
        /// Which call.
        route: String,
        /// What is missing.
        field: &'static str,
    },
}

/// A client of the router's public API.
#[derive(Clone)]
pub(super) struct Api {
    http: reqwest::Client,
    base: String,
}

impl Api {
    pub(super) fn new(base: &str) -> Self {
        Self { http: reqwest::Client::new(), base: base.trim_end_matches('/').to_owned() }
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// `POST /admin/v1/apply`: what it made, by kind.
    pub(super) async fn apply(&self, admin_token: &str, declaration: &Value) -> Result<Value, CallError> {
        let route = "/admin/v1/apply";
        let answer = self.send(route, self.request(Method::POST, route).bearer_auth(admin_token).json(declaration));
        Ok(answer.await?["made"].take())
    }

    /// `POST /admin/v1/tokens`
    pub(super) async fn token(&self, admin_token: &str, client: &str, receiver: &str) -> Result<String, CallError> {
        let route = "/admin/v1/tokens";
        let body = json!({"client_id": client, "receiver": receiver, "ttl_seconds": 86_400});
        let answer = self.send(route, self.request(Method::POST, route).bearer_auth(admin_token).json(&body)).await?;
        text(&answer, route, "token")
    }

    /// `POST /v1.0/user/`: the thread's handle.
    pub(super) async fn create_user(&self, channel: &Channel, user: &Value) -> Result<String, CallError> {
        let route = "/v1.0/user/";
        text(&self.send(route, self.as_channel(channel, route).json(user)).await?, route, "user_id")
    }

    /// `POST /v1.0/log_message_from_user/`
    pub(super) async fn log_message(&self, channel: &Channel, auth_id: &str, said: &str) -> Result<(), CallError> {
        let route = "/v1.0/log_message_from_user/";
        let body = json!({
            "user": {"auth_id": auth_id}, "message_body": said, "message_type": 0, "business_id": channel.business_id
        });
        self.send(route, self.as_channel(channel, route).json(&body)).await.map(|_| ())
    }

    /// One page of `GET /tract/thread/feed/`.
    pub(super) async fn feed(&self, token: &str, user_id: &str, after: u64) -> Result<Vec<Value>, CallError> {
        let path = format!("/tract/thread/feed/?user_id={user_id}&after={after}&limit=500");
        let mut page = self.send("/tract/thread/feed/", self.request(Method::GET, &path).bearer_auth(token)).await?;
        match page["entries"].take() {
            Value::Array(entries) => Ok(entries),
            _ => Err(CallError::Incomplete { route: "/tract/thread/feed/".to_owned(), field: "entries" }),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).timeout(TIMEOUT)
    }

    fn as_channel(&self, channel: &Channel, route: &str) -> RequestBuilder {
        self.request(Method::POST, route).bearer_auth(&channel.api_token).header("client-id", &channel.client_id)
    }

    async fn send(&self, route: &str, request: RequestBuilder) -> Result<Value, CallError> {
        let unreachable =
            |error: reqwest::Error| CallError::Unreachable { route: route.to_owned(), source: error.without_url() };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        if status.is_success() {
            return answer.json().await.map_err(unreachable);
        }
        let answer: Value = answer.json().await.unwrap_or_default();
        let error = answer["error"].as_str().or(answer["error_message"].as_str()).unwrap_or_default().to_owned();
        Err(CallError::Refused { route: route.to_owned(), status: status.as_u16(), error })
    }
}

fn text(answer: &Value, route: &str, field: &'static str) -> Result<String, CallError> {
    let text = answer[field].as_str().map(str::to_owned);
    text.ok_or_else(|| CallError::Incomplete { route: route.to_owned(), field })
}

/// What the channel side identifies itself with (section 10).
#[derive(Clone)]
pub(super) struct Channel {
    pub(super) client_id: String,
    pub(super) api_token: String,
    pub(super) business_id: u64,
}
