//! The HTTP edge: decodes, asks, encodes. It decides nothing about threads; that is the domain's.
//!
//! One table, [`routes::table`], says what there is, who may call it and what it looks like; router and OpenAPI document
//! are both made from it. Around all of it lies the [`envelope`]: request ids, the shapes of errors, spans, metrics.

pub mod admin;
pub mod auth;
pub mod channel;
pub mod control;
pub mod decode;
pub mod deliveries;
pub mod edge;
pub mod envelope;
pub mod feedback;
pub mod files;
pub mod history;
pub mod hooks;
pub mod idempotency;
pub mod integration;
pub mod messages;
pub mod openapi;
pub mod operations;
pub mod problem;
pub mod request;
pub mod routes;
pub mod signed;
pub mod sync;
pub mod threads;
mod unread;
pub mod users;

pub use edge::{Breakers, Edge, Readiness, Threads};
pub use problem::{Problem, Shape};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::{http::StatusCode, middleware};
use std::sync::Arc;

/// The whole edge as a service.
pub fn service(edge: Arc<Edge>) -> Router {
    let mut router = Router::new();
    for route in routes::table() {
        for path in route.paths() {
            router = router.route(path, route.handler.clone());
            if !path.ends_with('/') {
                router = router.route(&format!("{path}/"), route.handler.clone());
            }
        }
    }
    openapi::with_pages(router)
        .fallback(nothing_here)
        .layer(middleware::from_fn_with_state(edge.clone(), envelope::envelope))
        .with_state(edge)
}

async fn nothing_here() -> Response {
    Problem::of_status(StatusCode::NOT_FOUND).into_response()
}

#[cfg(test)]
mod tests;
