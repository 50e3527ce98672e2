//! Hooks: register, list, enable, unregister; what was sent to them, and trying them (section 4).

pub mod deliveries;
pub mod trial;

use crate::http::auth::Caller;
use crate::http::decode::{Name, Text};
use crate::http::idempotency::{self, RequestKey, Scope, rendered};
use crate::http::request::Posted;
use crate::http::{Edge, Problem};
use crate::security::egress::check_url;
use crate::tenancy::{Hook, Secret};
use crate::wire;
use axum::Json as Answered;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tract_actors::ports::{Endpoint, IdempotencyKey, KeyHome};
use tract_domain::{Json, Topic, topic::COLLECTION_STATE};
use utoipa::ToSchema;

/// A hook to register.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"category": "message", "subcategory": "receive", "url": "https://chat.sprinkle.example/tract"}))]
pub struct RegisterHook {
    /// Such as `message`, `conversation_state` (alias `collection_state`), `aeu_events`.
    #[schema(value_type = String, max_length = 64)]
    category: Name<64>,
    /// Such as `receive`, `incomplete`, `allocated`.
    #[schema(value_type = String, max_length = 64)]
    subcategory: Name<64>,
    /// Where payloads are posted: an absolute https URL without credentials, of at most 2048 characters.
    #[schema(value_type = String, max_length = 2048)]
    url: Text<8192>,
}

/// Which hook.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"category": "message", "subcategory": "receive"}))]
pub struct WhichHook {
    #[schema(value_type = String, max_length = 64)]
    category: Name<64>,
    #[schema(value_type = String, max_length = 64)]
    subcategory: Name<64>,
}

/// A registered hook.
#[derive(Debug, Serialize, ToSchema)]
pub struct HookRegistered {
    /// As it was registered; payloads carry this name.
    category: String,
    subcategory: &'static str,
    url: String,
    enabled: bool,
    /// What payloads are signed with: one for each (ECT, client), shown only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: Option<String>,
}

impl HookRegistered {
    fn new(hook: &Hook, secret: Option<&Secret>) -> Self {
        Self {
            category: hook.category.clone(),
            subcategory: hook.topic.names().1,
            url: hook.url.clone(),
            // It is shown only where it was just enabled.
            enabled: true,
            secret: secret.map(|s| s.expose().to_owned()),
        }
    }
}

/// What is kept for an idempotency key: the answer without the secret.
fn kept(hook: &Hook) -> Json {
    rendered(&HookRegistered::new(hook, None))
}

/// `POST /tract/hooks/register/`
pub async fn register(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    Posted { body, key }: Posted<RegisterHook>,
) -> Result<Response, Problem> {
    let topic = topic(&body.category, &body.subcategory)?;
    check_url(&body.url, edge.egress).map_err(|fault| Problem::invalid("url", fault))?;
    let key = key.map(|key| hook_key(&edge, &key, &caller, "hooks/register"));
    if let Some(key) = &key
        && let Some(answer) = edge.kept(key).await?
    {
        return Ok(idempotency::body(&answer, true));
    }
    let hook = Hook {
        client: caller.client,
        receiver: caller.receiver,
        topic,
        category: body.category.into(),
        url: body.url.into(),
        registered_at: edge.now(),
    };
    let keep = key.map(|key| (key, kept as fn(&Hook) -> Json));
    let (hook, secret) = edge.tenancy.register_hook(hook, keep).await?;
    Ok(Answered(HookRegistered::new(&hook, secret.as_ref())).into_response())
}

/// `POST /tract/hooks/enable/`
pub async fn enable(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    Posted { body, key }: Posted<WhichHook>,
) -> Result<Response, Problem> {
    let topic = topic(&body.category, &body.subcategory)?;
    let key = key.map(|key| hook_key(&edge, &key, &caller, "hooks/enable"));
    if let Some(key) = &key
        && let Some(answer) = edge.kept(key).await?
    {
        return Ok(idempotency::body(&answer, true));
    }
    let directory = edge.tenancy.directory();
    let hook = directory.hook(&caller.client, &caller.receiver, topic).ok_or_else(|| Problem::unknown("hook"))?;
    let answer = kept(hook);
    let endpoint = Endpoint::hook(&caller.client, &caller.receiver, topic);
    edge.tenancy.enable(&endpoint, edge.now(), key.map(|key| (key, answer.clone()))).await?;
    Ok(idempotency::body(&answer, false))
}

/// What was removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct HookUnregistered {
    /// Always true.
    success: bool,
    category: String,
    subcategory: String,
}

/// `POST /tract/hooks/unregister/`
pub async fn unregister(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    Posted { body, key }: Posted<WhichHook>,
) -> Result<Response, Problem> {
    let topic = topic(&body.category, &body.subcategory)?;
    let key = key.map(|key| hook_key(&edge, &key, &caller, "hooks/unregister"));
    if let Some(key) = &key
        && let Some(answer) = edge.kept(key).await?
    {
        return Ok(idempotency::body(&answer, true));
    }
    let (category, subcategory) = (body.category.into(), body.subcategory.into());
    let answer = HookUnregistered { success: true, category, subcategory };
    let json = rendered(&answer);
    let keep = key.map(|key| (key, json.clone()));
    edge.tenancy.unregister_hook(&caller.client, &caller.receiver, topic, keep).await?;
    Ok(idempotency::body(&json, false))
}

/// A receiver's hooks.
#[derive(Debug, Serialize, ToSchema)]
pub struct Hooks {
    hooks: Vec<HookView>,
}

/// A hook and how it fares.
#[derive(Debug, Serialize, ToSchema)]
pub struct HookView {
    category: String,
    subcategory: &'static str,
    url: String,
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_at: Option<String>,
    /// Why it was disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_reason: Option<String>,
    /// How many deliveries wait.
    pending: u64,
    /// How many were given up, and are kept.
    dead_letters: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success_at: Option<String>,
    /// The last failure or rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// `GET /tract/hooks/list/`
pub async fn list(State(edge): State<Arc<Edge>>, caller: Caller) -> Result<Answered<Hooks>, Problem> {
    let mut hooks = Vec::new();
    let directory = edge.tenancy.directory();
    for hook in directory.hooks_of(&caller.client, &caller.receiver) {
        let endpoint = Endpoint::hook(&caller.client, &caller.receiver, hook.topic);
        let status = edge.store.endpoint_status(&endpoint).await?;
        let disabled = directory.disabled(&endpoint);
        hooks.push(HookView {
            category: hook.category.clone(),
            subcategory: hook.topic.names().1,
            url: hook.url.clone(),
            enabled: disabled.is_none(),
            disabled_at: disabled.map(|d| wire::time(d.at)),
            disabled_reason: disabled.map(|d| d.reason.clone()),
            pending: status.pending,
            dead_letters: status.dead,
            last_success_at: status.last_success_at.map(wire::time),
            last_error: status.last_error,
        });
    }
    Ok(Answered(Hooks { hooks }))
}

fn topic(category: &str, subcategory: &str) -> Result<Topic, Problem> {
    if let Some(topic) = Topic::parse(category, subcategory) {
        return Ok(topic);
    }
    let named = if category == COLLECTION_STATE { "conversation_state" } else { category };
    let subcategories: Vec<_> =
        Topic::ALL.iter().map(|t| t.names()).filter(|(c, _)| *c == named).map(|(_, s)| s).collect();
    if !subcategories.is_empty() {
        let what = format!("is not known in {category}; known are {}", subcategories.join(", "));
        return Err(Problem::invalid("subcategory", what));
    }
    let mut categories: Vec<_> = Topic::ALL.iter().map(|t| t.names().0).collect();
    categories.dedup();
    categories.push(COLLECTION_STATE);
    Err(Problem::invalid("category", format!("is not known; known are {}", categories.join(", "))))
}

fn hook_key(edge: &Edge, key: &RequestKey, caller: &Caller, route: &'static str) -> IdempotencyKey {
    let scope = Scope { client: Some(&caller.client), receiver: caller.receiver.as_str(), route, thread: "" };
    key.scoped(scope, KeyHome::Configuration, edge.now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Shape;

    #[test]
    fn topics_by_name_and_alias() {
        assert_eq!(topic("message", "receive"), Ok(Topic::MessageReceive));
        assert_eq!(topic("collection_state", "bot"), Ok(Topic::StateBot));
        let says = |category, subcategory| {
            let problem = topic(category, subcategory).unwrap_err();
            problem.body(Shape::Error, "")["error"].as_str().unwrap().to_owned()
        };
        assert_eq!(
            says("messages", "receive"),
            "category: is not known; known are message, conversation_state, aeu_events, user_events, thread_control, \
             collection_state"
        );
        assert_eq!(says("message", "send"), "subcategory: is not known in message; known are receive");
        assert_eq!(
            says("collection_state", "none"),
            "subcategory: is not known in collection_state; known are bot, incomplete, pinned, waiting, complete"
        );
    }

    #[test]
    fn what_is_kept_has_no_secret() {
        let hook: Hook = serde_json::from_value(serde_json::json!({"client": "acme", "receiver": "sprinkle",
            "topic": "message_receive", "category": "message", "url": "https://x.example", "registered_at": 1}))
        .unwrap();
        let shown = serde_json::to_string(&HookRegistered::new(&hook, Some(&Secret::new("whsec_x")))).unwrap();
        assert!(shown.contains("whsec_x"));
        assert!(!kept(&hook).0.contains("secret"));
    }
}
