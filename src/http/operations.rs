//! Whether the process lives, whether it wants requests, and what it counts (section 11).

use super::{Edge, Problem};
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

/// `GET /readyz`
pub async fn readyz(State(edge): State<Arc<Edge>>) -> Result<Answered<Health>, Problem> {
    let mut reasons = Vec::new();
    if edge.readiness.is_draining() {
        reasons.push("it is shutting down");
    }
    if let Err(error) = edge.store.ping().await {
        tracing::warn!(%error, "the store does not answer");
        reasons.push("the store is not available");
    }
    if reasons.is_empty() {
        return Ok(Answered(Health { status: "ok" }));
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
    if let Err(error) = gauge_outbox(&edge).await {
        tracing::warn!(%error, "the outbox could not be counted");
    }
    let mut text = edge.metrics.render();
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

/// How much waits to be delivered, and for how long, by what kind of endpoint it waits for.
async fn gauge_outbox(edge: &Edge) -> Result<(), StoreError> {
    let mut waiting = [("hook", 0, 0), ("channel", 0, 0), ("iva", 0, 0)];
    for endpoint in edge.store.backlog().await? {
        let status = edge.store.endpoint_status(&endpoint).await?;
        let kind = endpoint.name().split(':').next().unwrap_or_default();
        if let Some((_, pending, age_ms)) = waiting.iter_mut().find(|(name, ..)| *name == kind) {
            *pending += status.pending;
            *age_ms = status.oldest.map_or(0, |oldest| edge.now().since(oldest)).max(*age_ms);
        }
    }
    for (kind, pending, age_ms) in waiting {
        gauge!("tract_outbox_pending", "kind" => kind).set(pending as f64);
        gauge!("tract_outbox_oldest_age_seconds", "kind" => kind).set(age_ms as f64 / 1000.0);
    }
    Ok(())
}
