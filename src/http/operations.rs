//! Whether the process lives, whether it wants requests, and what it counts (section 11).

use super::{Edge, Problem};
use crate::telemetry;
use crate::tenancy::expiry::Expiring;
use axum::Json as Answered;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use metrics::gauge;
use serde::Serialize;
use std::sync::Arc;
use tract_actors::ports::StoreError;
use utoipa::ToSchema;

/// How it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`
    status: &'static str,
}

/// `GET /healthz`
pub async fn healthz() -> Answered<Health> {
    Answered(Health { status: "ok" })
}

/// How ready it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    /// `ok`
    status: &'static str,
    /// What this node is called.
    node_id: String,
    /// How many nodes have the store open.
    nodes: usize,
    /// Of the store's partitions, or of 1 where only one node can have it open: how many this node sends from, and fires
    /// timers of.
    partitions_held: usize,
    store: ReadyStore,
}

/// What the store does to keep what it acknowledged.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyStore {
    survives_power_cut: bool,
    /// What a power cut can cost.
    durability: String,
}

/// `GET /readyz`
pub async fn readyz(State(edge): State<Arc<Edge>>) -> Result<Answered<Ready>, Problem> {
    let mut reasons = Vec::new();
    if edge.readiness.is_draining() {
        reasons.push("it is shutting down");
    }
    if let Err(error) = edge.store.ping().await {
        tracing::warn!(%error, "the store does not answer");
        reasons.push("the store is not available");
    }
    if reasons.is_empty() {
        let durability = edge.store.durability();
        return Ok(Answered(Ready {
            status: "ok",
            node_id: edge.node_id.clone(),
            nodes: edge.store.nodes().len().max(1),
            partitions_held: edge.store.held().borrow().len(),
            store: ReadyStore { survives_power_cut: durability.survives_power_cut, durability: durability.says },
        }));
    }
    let text = format!("not ready: {}", reasons.join("; "));
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", text))
}

/// `GET /metrics`
pub async fn metrics(State(edge): State<Arc<Edge>>) -> ([(HeaderName, &'static str); 1], String) {
    // Without the store everything else is still worth a scrape.
    if let Ok(states) = edge.store.states().await {
        for state in tract_domain::State::ALL {
            // Gauges are floating-point; counts stay exact up to 2^53.
            let count = states.get(&state).copied().unwrap_or(0) as f64;
            gauge!("tract_conversations", "state" => state.as_str()).set(count);
        }
    }
    let endpoints = outbox(&edge).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the outbox could not be counted");
        String::new()
    });
    telemetry::count_lost_lines();
    let mut text = edge.metrics.render();
    text.push_str(&endpoints);
    certificates(&edge, &mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// Written here and not kept as a gauge, so that a certificate that is revoked is gone from the next scrape. Ids hold no
/// character that would need an escape.
fn certificates(edge: &Edge, text: &mut String) {
    use std::fmt::Write;
    let expiring = edge.tenancy.expiring(edge.now());
    if expiring.is_empty() {
        return;
    }
    text.push_str("# HELP tract_certificate_expires_seconds How long a certificate is still valid, from 30 days before its end.\n");
    text.push_str("# TYPE tract_certificate_expires_seconds gauge\n");
    for Expiring { ect, uuid, left_s } in expiring {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "tract_certificate_expires_seconds{{ect=\"{ect}\",uuid=\"{uuid}\"}} {left_s}");
    }
}

/// How much waits to be delivered and for how long, and what was given up: by kind of endpoint, and for each endpoint that
/// there is something to say of. Those are written here and not kept as gauges, so that one that is well again is gone.
async fn outbox(edge: &Edge) -> Result<String, StoreError> {
    let (now, directory) = (edge.now(), edge.tenancy.directory());
    let mut totals = [("hook", 0, 0, 0, 0), ("channel", 0, 0, 0, 0), ("iva", 0, 0, 0, 0)];
    let mut lines: [Vec<String>; 5] = Default::default();
    for (endpoint, status) in edge.store.endpoints().await? {
        let kind = endpoint.name().split(':').next().unwrap_or_default();
        let age_ms = status.oldest.map_or(0, |oldest| now.since(oldest));
        let (disabled, open) = (directory.disabled(&endpoint).is_some(), edge.breakers.is_open(&endpoint));
        if let Some((_, pending, oldest_ms, dead, probed)) = totals.iter_mut().find(|(name, ..)| *name == kind) {
            *pending += status.pending;
            *oldest_ms = age_ms.max(*oldest_ms);
            *dead += status.dead;
            *probed += u32::from(open);
        }
        if status.pending == 0 && status.dead == 0 && !disabled && !open {
            continue;
        }
        let values = [
            status.pending as f64,
            age_ms as f64 / 1000.0,
            status.dead as f64,
            f64::from(u8::from(disabled)),
            f64::from(u8::from(open)),
        ];
        for ((name, _), (lines, value)) in OF_ENDPOINTS.iter().zip(lines.iter_mut().zip(values)) {
            lines.push(format!("{name}{{endpoint=\"{}\"}} {value}\n", endpoint.name()));
        }
    }
    for (kind, pending, age_ms, dead, probed) in totals {
        gauge!("tract_outbox_pending", "kind" => kind).set(pending as f64);
        gauge!("tract_outbox_oldest_age_seconds", "kind" => kind).set(age_ms as f64 / 1000.0);
        gauge!("tract_dead_letters", "kind" => kind).set(dead as f64);
        gauge!("tract_breakers_open", "kind" => kind).set(f64::from(probed));
    }
    let mut text = String::new();
    for ((name, help), lines) in OF_ENDPOINTS.iter().zip(lines).filter(|(_, lines)| !lines.is_empty()) {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
        text.extend(lines);
    }
    Ok(text)
}

/// What is said of an endpoint. Ids hold no character that would need an escape.
const OF_ENDPOINTS: [(&str, &str); 5] = [
    ("tract_endpoint_pending", "Deliveries that wait for this endpoint."),
    ("tract_endpoint_oldest_age_seconds", "How long the oldest of them has waited."),
    ("tract_endpoint_dead_letters", "Dead letters of this endpoint that are kept."),
    ("tract_endpoint_disabled", "1 while this endpoint is disabled."),
    ("tract_breaker_open", "1 while the breaker of this endpoint is open on this node."),
];
