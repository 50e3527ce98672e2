//! Trying a hook, and replacing what hooks are signed with.

use super::{WhichHook, hook_key, topic};
use crate::http::auth::Caller;
use crate::http::idempotency::{self, rendered};
use crate::http::request::{Posted, PostedOrNothing};
use crate::http::{Edge, Problem};
use crate::webhook::deliverer::Pinged;
use crate::wire;
use axum::Json as Answered;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tract_domain::{Json, Timestamp};
use utoipa::ToSchema;

/// What came of a ping.
#[derive(Debug, Serialize, ToSchema)]
pub struct HookTested {
    /// Whether it was received with a 2xx within 5 s, and nothing was said against it.
    success: bool,
    /// The hook's answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    latency_ms: u64,
    /// What went wrong, or what the hook said against it. Not `error`, which no success has.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// `POST /tract/hooks/test/`
pub async fn test(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    Posted { body, key }: Posted<WhichHook>,
) -> Result<Response, Problem> {
    let topic = topic(&body.category, &body.subcategory)?;
    let key = key.map(|key| hook_key(&edge, &key, &caller, "hooks/test"));
    if let Some(key) = &key
        && let Some(answer) = edge.kept(key).await?
    {
        return Ok(idempotency::body(&answer, true));
    }
    let directory = edge.tenancy.directory();
    let hook = directory.hook(&caller.client, &caller.receiver, topic).ok_or_else(|| Problem::unknown("hook"))?;
    let secrets = directory.hook_secrets(&caller.client, &caller.receiver).ok_or_else(|| Problem::unknown("hook"))?;
    let Pinged { status, latency_ms, error } = edge.deliverer.ping(hook, secrets).await;
    let answer = HookTested { success: error.is_none(), status, latency_ms, reason: error };
    let json = rendered(&answer);
    if let Some(key) = key {
        edge.keep(key, &json).await?;
    }
    Ok(idempotency::body(&json, false))
}

/// Nothing needs to be said.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({}))]
pub struct RotateSecret {}

/// A new secret.
#[derive(Serialize, ToSchema)]
pub struct SecretRotated {
    /// What payloads are signed with from now on; shown only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: Option<String>,
    /// Until when the old one signs too.
    previous_valid_until: String,
}

/// What is kept for an idempotency key: the answer without the secret.
fn kept(until: Timestamp) -> Json {
    let answer = SecretRotated { secret: None, previous_valid_until: wire::time(until) };
    rendered(&answer)
}

/// `POST /tract/hooks/secret/rotate/`
pub async fn rotate(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    PostedOrNothing(Posted { key, .. }): PostedOrNothing<RotateSecret>,
) -> Result<Response, Problem> {
    let key = key.map(|key| hook_key(&edge, &key, &caller, "hooks/secret/rotate"));
    if let Some(key) = &key
        && let Some(answer) = edge.kept(key).await?
    {
        return Ok(idempotency::body(&answer, true));
    }
    let keep = key.map(|key| (key, kept as fn(Timestamp) -> Json));
    let rotated = edge.tenancy.rotate_hook_secret(&caller.client, &caller.receiver, edge.now(), keep).await?;
    let (secret, until) = rotated;
    tracing::info!("the secret of a receiver's hooks is replaced");
    let answer = SecretRotated { secret: Some(secret.expose().to_owned()), previous_valid_until: wire::time(until) };
    Ok(Answered(answer).into_response())
}
