//! Endpoints (hooks, channel webhooks, bots) and their dead letters, as the operator sees them.

use crate::http::auth::Admin;
use crate::http::decode::{Name, Text};
use crate::http::deliveries::{self, DeliveriesReplayed, DeliveryView};
use crate::http::idempotency::{self, rendered};
use crate::http::request::{Params, Posted};
use crate::http::{Edge, Problem};
use crate::tenancy::Directory;
use crate::wire;
use axum::Json as Answered;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use tract_actors::ports::{DeliveryState, Endpoint, EndpointKind, EndpointStatus};
use tract_domain::ClientId;
use utoipa::ToSchema;

/// All endpoints.
#[derive(Debug, Serialize, ToSchema)]
pub struct Endpoints {
    /// By client, and there by name.
    hooks: Vec<EndpointView>,
}

/// An endpoint and how it fares.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct EndpointView {
    /// Its name, by which it is enabled and its dead letters are replayed.
    #[schema(example = "hook:acme:sprinkle:message:receive")]
    endpoint: String,
    /// `hook`, `channel` or `iva`.
    kind: &'static str,
    client_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    business_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subcategory: Option<&'static str>,
    url: String,
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_reason: Option<String>,
    /// How many deliveries wait.
    pending: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_pending_at: Option<String>,
    /// How many were given up, and are kept.
    dead_letters: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// `open` while it has failed so often in a row that only probes are sent, as the node that answers sees it.
    breaker: &'static str,
}

impl EndpointView {
    /// What the tenants say of it; none when it is gone.
    fn new(directory: &Directory, endpoint: &Endpoint) -> Option<Self> {
        let disabled = directory.disabled(endpoint);
        let common = Self {
            endpoint: endpoint.name().to_owned(),
            enabled: disabled.is_none(),
            disabled_at: disabled.map(|d| wire::time(d.at)),
            disabled_reason: disabled.map(|d| d.reason.clone()),
            ..Self::default()
        };
        Some(match endpoint.kind() {
            EndpointKind::Hook { client, receiver, topic } => {
                let hook = directory.hook(&client, &receiver, topic)?;
                Self {
                    kind: "hook",
                    client_id: client.to_string(),
                    receiver: Some(receiver.to_string()),
                    category: Some(hook.category.clone()),
                    subcategory: Some(topic.names().1),
                    url: hook.url.clone(),
                    ..common
                }
            }
            EndpointKind::Channel { client, business } => Self {
                kind: "channel",
                client_id: client.to_string(),
                business_id: Some(business),
                url: directory.client(&client)?.business(business)?.webhook.as_ref()?.url.clone(),
                ..common
            },
            EndpointKind::Iva { client } => Self {
                kind: "iva",
                client_id: client.to_string(),
                url: directory.client(&client)?.iva.as_ref()?.url.clone(),
                ..common
            },
            EndpointKind::Unknown => return None,
        })
    }
    fn faring(self, status: EndpointStatus, breaker_is_open: bool) -> Self {
        Self {
            pending: status.pending,
            oldest_pending_at: status.oldest.map(wire::time),
            dead_letters: status.dead,
            last_success_at: status.last_success_at.map(wire::time),
            last_error: status.last_error,
            breaker: if breaker_is_open { "open" } else { "closed" },
            ..self
        }
    }
}

/// `GET /admin/v1/hooks`
pub async fn list(State(edge): State<Arc<Edge>>, _: Admin, params: Params) -> Result<Answered<Endpoints>, Problem> {
    let directory = edge.tenancy.directory();
    let endpoints = endpoints(&directory, params.parse("client_id")?.as_ref(), None)?;
    let mut statuses: HashMap<_, _> = edge.store.endpoints().await?.into_iter().collect();
    let shown = endpoints.iter().filter_map(|endpoint| {
        let status = statuses.remove(endpoint).unwrap_or_default();
        Some(EndpointView::new(&directory, endpoint)?.faring(status, edge.breakers.is_open(endpoint)))
    });
    Ok(Answered(Endpoints { hooks: shown.collect() }))
}

/// Which endpoint.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"endpoint": "hook:acme:sprinkle:message:receive"}))]
pub struct WhichEndpoint {
    /// As `GET /admin/v1/hooks` names it.
    #[schema(value_type = String, max_length = 512)]
    endpoint: Name<512>,
}

/// An endpoint that is enabled.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointEnabled {
    endpoint: String,
    /// Always true.
    enabled: bool,
}

/// `POST /admin/v1/hooks/enable`
pub async fn enable(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    Posted { body, key }: Posted<WhichEndpoint>,
) -> Result<Response, Problem> {
    let key = edge.operators(key, "admin/hooks/enable", "");
    if let Some(answer) = edge.kept_for(key.as_ref()).await? {
        return Ok(idempotency::body(&answer, true));
    }
    let endpoint = Endpoint::from_name(&body.endpoint);
    let answer = rendered(&EndpointEnabled { endpoint: body.endpoint.into(), enabled: true });
    edge.tenancy.enable(&endpoint, edge.now(), key.map(|key| (key, answer.clone()))).await?;
    Ok(idempotency::body(&answer, false))
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetters {
    /// The newest first.
    dead_letters: Vec<DeliveryView>,
    /// The cursor of the next page; null when there is none.
    next: Option<String>,
}

/// `GET /admin/v1/dead_letters`
pub async fn dead_letters(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    params: Params,
) -> Result<Answered<DeadLetters>, Problem> {
    let named = params.get("endpoint").map(Endpoint::from_name);
    let endpoints = endpoints(&edge.tenancy.directory(), params.parse("client_id")?.as_ref(), named)?;
    let mut query = deliveries::query(&params, endpoints)?;
    query.state = Some(DeliveryState::Dead);
    let (dead_letters, next) = edge.deliveries(query, true).await?;
    Ok(Answered(DeadLetters { dead_letters, next }))
}

/// Which dead letters to send again: exactly one of `webhook_id` and `since`; of one endpoint, of a client, or of all.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"client_id": "acme", "since": "2026-07-25T17:20:00.000Z"}))]
pub struct ReplayDeadLetters {
    /// Of this endpoint.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 512)]
    endpoint: Option<Name<512>>,
    /// Of all endpoints of this client.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    client_id: Option<ClientId>,
    /// The one with this id.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 256)]
    webhook_id: Option<Name<256>>,
    /// All that were given up at or after this, ISO 8601.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Text<64>>,
}

/// `POST /admin/v1/dead_letters/replay`
pub async fn replay(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    Posted { body, key }: Posted<ReplayDeadLetters>,
) -> Result<Response, Problem> {
    let key = edge.operators(key, "admin/dead_letters/replay", "");
    if let Some(answer) = edge.kept_for(key.as_ref()).await? {
        return Ok(idempotency::body(&answer, true));
    }
    let which = deliveries::which(body.webhook_id.as_ref(), body.since.as_ref())?;
    let named = body.endpoint.as_deref().map(Endpoint::from_name);
    let endpoints = endpoints(&edge.tenancy.directory(), body.client_id.as_ref(), named)?;
    let answer = rendered::<DeliveriesReplayed>(&edge.replay(endpoints, which).await?);
    if let Some(key) = key {
        edge.keep(key, &answer).await?;
    }
    Ok(idempotency::body(&answer, false))
}

fn known(directory: &Directory, endpoint: &Endpoint) -> Result<(), Problem> {
    if directory.has_endpoint(endpoint) {
        return Ok(());
    }
    let hook = matches!(endpoint.kind(), EndpointKind::Hook { .. });
    Err(Problem::unknown(if hook { "hook" } else { "webhook" }))
}

/// One endpoint, or all of a client, or all.
fn endpoints(
    directory: &Directory,
    client: Option<&ClientId>,
    named: Option<Endpoint>,
) -> Result<Vec<Endpoint>, Problem> {
    match (client, named) {
        (Some(_), Some(_)) => Err(Problem::invalid("endpoint", "must not be given together with client_id")),
        (None, Some(endpoint)) => known(directory, &endpoint).map(|()| vec![endpoint]),
        (Some(client), None) if directory.client(client).is_none() => Err(Problem::unknown("client")),
        (Some(client), None) => Ok(directory.endpoints_of(client)),
        (None, None) => {
            Ok(directory.clients().iter().flat_map(|client| directory.endpoints_of(&client.client_id)).collect())
        }
    }
}
