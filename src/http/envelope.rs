//! What surrounds every request: its id, its span, its metrics, the shape of its error, and what becomes of a panic.

use super::unread::{self, Unread};
use super::{Edge, Problem, Shape};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tracing::{Instrument, field::Empty};

/// The challenge in a 401.
pub const REALM: &str = "Bearer realm=\"tract\"";

/// Longest request id that is taken over.
const MAX_REQUEST_ID: usize = 128;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names a route in metrics and spans: its template, so that ids never become labels.
fn route_of(matched: Option<&MatchedPath>) -> &str {
    let template = matched.map_or("unmatched", MatchedPath::as_str);
    template.strip_suffix('/').filter(|t| !t.is_empty()).unwrap_or(template)
}

/// Wraps everything, also what no route matches.
pub async fn envelope(State(_): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let shape = Shape::of(request.uri().path());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = route_of(matched.as_ref());
    let method = label(request.method());
    let reads = request.method().is_safe();
    let span = tracing::info_span!(
        "request",
        request_id = request_id.to_str().unwrap_or_default(),
        method,
        route,
        trace_id = Empty,
        client = Empty,
        receiver = Empty,
    );
    if let Some(trace_id) = trace_id(request.headers()) {
        span.record("trace_id", trace_id);
    }
    let in_flight = InFlight::enter();
    let (request, body) = Unread::lend(request);
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    drop(in_flight);
    if answered.as_ref().map_or(true, |response| is_refusal(response.status())) {
        // Whoever may send files is told why one is refused, however large it is.
        let is_known = answered.as_ref().is_ok_and(|response| response.status() != StatusCode::UNAUTHORIZED);
        let most = if route == super::files::ROUTE && is_known { unread::MOST_OF_FILES } else { unread::MOST };
        body.discard(most).await;
    }

    let _entered = span.enter();
    let mut response = answered.unwrap_or_else(|_| {
        // The panic itself was reported by the hook; its text is not for the caller.
        tracing::error!("a handler panicked");
        axum::response::IntoResponse::into_response(Problem::internal())
    });
    let (status, took) = (response.status(), started.elapsed());
    if is_refusal(status) {
        let problem = response.extensions_mut().remove::<Problem>().unwrap_or_else(|| Problem::of_status(status));
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), code = problem.code(), "refused");
        } else {
            tracing::info!(status = status.as_u16(), code = problem.code(), "refused");
        }
        let rendered = problem.render(shape, request_id.to_str().unwrap_or_default());
        let (parts, _) = response.into_parts();
        response = with_headers(rendered, parts.headers);
    } else {
        let (status, took_us) = (status.as_u16(), u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        // What changes something can be found again by its request id; what only looks is asked every few seconds.
        if reads {
            tracing::debug!(status, took_us, "answered");
        } else {
            tracing::info!(status, took_us, "answered");
        }
    }
    response.headers_mut().insert(REQUEST_ID.clone(), request_id);
    count(route, method, response.status(), took);
    response
}

/// What is counted of requests of one route and method that were answered with one status.
struct Counts {
    total: Counter,
    seconds: Histogram,
}

/// By method and status.
type OfRoute = HashMap<(&'static str, StatusCode), Counts>;

thread_local! {
    /// By route. Each thread looks up what it counts once; there is little of it.
    static COUNTS: RefCell<HashMap<String, OfRoute>> = RefCell::default();
}

/// Counts a request.
fn count(route: &str, method: &'static str, status: StatusCode, took: Duration) {
    let counts = || Counts {
        total: counter!("tract_http_requests_total", "method" => method, "route" => route.to_owned(),
            "status" => status.as_u16().to_string()),
        seconds: histogram!("tract_http_request_seconds", "method" => method, "route" => route.to_owned()),
    };
    COUNTS.with_borrow_mut(|routes| {
        let of_route = match routes.get_mut(route) {
            Some(of_route) => of_route,
            None => routes.entry(route.to_owned()).or_default(),
        };
        let known = of_route.entry((method, status)).or_insert_with(counts);
        known.total.increment(1);
        known.seconds.record(took.as_secs_f64());
    });
}

fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Headers of the answer that was made first, such as `Allow`, where they do not contradict the rendered one.
fn with_headers(mut response: Response, earlier: HeaderMap) -> Response {
    for (name, value) in &earlier {
        let about_body = *name == axum::http::header::CONTENT_TYPE || *name == axum::http::header::CONTENT_LENGTH;
        if !about_body && !response.headers().contains_key(name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// The caller's id for this request, if it is 1 to 128 visible ASCII characters; else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&REQUEST_ID).filter(|value| {
        (1..=MAX_REQUEST_ID).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let made = uuid::Uuid::now_v7().to_string();
        HeaderValue::from_str(&made).unwrap_or_else(|_| HeaderValue::from_static("-"))
    })
}

/// The trace that this request belongs to, from a W3C `traceparent`.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (_version, trace) = (parts.next()?, parts.next()?);
    let hex = trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (hex && trace.bytes().any(|b| b != b'0') && parts.next()?.len() == 16).then_some(trace)
}

/// A method as a label; callers may make methods up.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Counts a request as in flight, also when its caller hangs up.
struct InFlight;

static IN_FLIGHT: LazyLock<Gauge> = LazyLock::new(|| gauge!("tract_http_requests_in_flight"));

impl InFlight {
    fn enter() -> Self {
        IN_FLIGHT.increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        IN_FLIGHT.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())])
    }

    #[test]
    fn a_request_id_is_taken_over_or_made() {
        let id = |value: &[u8]| request_id(&headers("x-request-id", value)).to_str().unwrap().to_owned();
        assert_eq!(id(b"abc-123"), "abc-123");
        assert_eq!(id("x".repeat(128).as_bytes()).len(), 128);
        for bad in [&b""[..], b"a b", b"a\tb", b"\xc3\xa4", "x".repeat(129).as_bytes()] {
            assert_eq!(uuid::Uuid::parse_str(&id(bad)).unwrap().get_version_num(), 7);
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn a_trace_is_found_in_traceparent() {
        let found = |value: &str| trace_id(&headers("traceparent", value.as_bytes())).map(str::to_owned);
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(found(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(), Some(trace));
        for bad in ["", "00", "00-xyz-00f067aa0ba902b7-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert_eq!(found(bad), None);
        }
    }
}
