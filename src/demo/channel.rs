//! The demo's channel: where the customer's phone would be. It takes the channel webhook (section 10).

use super::samples::webhook::{self, Fault, Recent};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

/// What arrived at the channel.
#[derive(Debug)]
pub(super) enum Report {
    /// A genuine delivery.
    Arrived {
        event: String,
        webhook_id: String,
        user_id: String,
        /// What the customer now reads; empty for an event without words.
        text: String,
        again: bool,
    },
    /// Something that was not believed.
    Refused(Fault),
}

struct Sink {
    secret: String,
    seen: Mutex<Recent<()>>,
    report: Box<dyn Fn(Report) + Send + Sync>,
}

pub(super) fn routes(secret: String, report: impl Fn(Report) + Send + Sync + 'static) -> Router {
    let sink = Sink { secret, seen: Mutex::default(), report: Box::new(report) };
    Router::new().route("/channel", post(arrive)).with_state(Arc::new(sink))
}

async fn arrive(State(sink): State<Arc<Sink>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let webhook_id = match webhook::verify(&sink.secret, &headers, &body, webhook::unix_now()) {
        Ok(id) => id,
        Err(fault) => {
            (sink.report)(Report::Refused(fault));
            return StatusCode::UNAUTHORIZED;
        }
    };
    let Ok(payload) = serde_json::from_slice::<Value>(&body) else { return StatusCode::BAD_REQUEST };
    let again = {
        let mut seen = sink.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let again = seen.get(&webhook_id).is_some();
        seen.put(webhook_id.clone(), ());
        again
    };
    (sink.report)(Report::Arrived {
        event: payload["event_name"].as_str().unwrap_or_default().to_owned(),
        webhook_id,
        user_id: payload["user"]["user_id"].as_str().unwrap_or_default().to_owned(),
        text: webhook::words(&payload["message"]["body"]),
        again,
    });
    StatusCode::OK
}
