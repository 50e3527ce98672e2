//! What was sent to a receiver's hooks, and dead letters that it has sent again.

use super::{hook_key, topic};
use crate::http::auth::Caller;
use crate::http::decode::{Name, Text};
use crate::http::deliveries::{self, DeliveriesReplayed, DeliveryView};
use crate::http::idempotency::{self, rendered};
use crate::http::request::{Params, Posted};
use crate::http::{Edge, Problem};
use axum::Json as Answered;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tract_actors::ports::Endpoint;
use utoipa::ToSchema;

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deliveries {
    /// The newest first.
    deliveries: Vec<DeliveryView>,
    /// The cursor of the next page; null when there is none.
    next: Option<String>,
}

/// `GET /tract/hooks/deliveries/`
pub async fn list(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    params: Params,
) -> Result<Answered<Deliveries>, Problem> {
    let endpoints = endpoints(&edge, &caller, params.get("category"), params.get("subcategory"))?;
    let query = deliveries::query(&params, endpoints)?;
    let (deliveries, next) = edge.deliveries(query, false).await?;
    Ok(Answered(Deliveries { deliveries, next }))
}

/// Which dead letters to send again: exactly one of `webhook_id` and `since`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"since": "2026-07-25T17:20:00.000Z", "category": "message", "subcategory": "receive"}))]
pub struct ReplayDeliveries {
    /// The one with this id.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 256)]
    webhook_id: Option<Name<256>>,
    /// All that were given up at or after this, ISO 8601.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Text<64>>,
    /// Only those of this hook, with `subcategory`; default: of all hooks.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 64)]
    category: Option<Name<64>>,
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 64)]
    subcategory: Option<Name<64>>,
}

/// `POST /tract/hooks/replay/`
pub async fn replay(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    Posted { body, key }: Posted<ReplayDeliveries>,
) -> Result<Response, Problem> {
    let which = deliveries::which(body.webhook_id.as_ref(), body.since.as_ref())?;
    let endpoints = endpoints(&edge, &caller, body.category.as_deref(), body.subcategory.as_deref())?;
    let key = key.map(|key| hook_key(&edge, &key, &caller, "hooks/replay"));
    if let Some(key) = &key
        && let Some(answer) = edge.kept(key).await?
    {
        return Ok(idempotency::body(&answer, true));
    }
    let answer: DeliveriesReplayed = edge.replay(endpoints, which).await?;
    let json = rendered(&answer);
    if let Some(key) = key {
        edge.keep(key, &json).await?;
    }
    Ok(idempotency::body(&json, false))
}

/// The endpoints of the caller's hooks, of all or of one category or topic.
fn endpoints(
    edge: &Edge,
    caller: &Caller,
    category: Option<&str>,
    subcategory: Option<&str>,
) -> Result<Vec<Endpoint>, Problem> {
    let asked = match (category, subcategory) {
        (None, None) => None,
        (Some(category), Some(subcategory)) => Some(topic(category, subcategory)?),
        (None, Some(_)) => return Err(Problem::invalid("category", "is missing; subcategory alone names no hook")),
        (Some(_), None) => return Err(Problem::invalid("subcategory", "is missing; category alone names no hook")),
    };
    let hooks = edge.tenancy.directory().hooks_of(&caller.client, &caller.receiver);
    let meant = hooks.iter().filter(|hook| asked.is_none_or(|asked| hook.topic == asked));
    Ok(meant.map(|hook| Endpoint::hook(&caller.client, &caller.receiver, hook.topic)).collect())
}
