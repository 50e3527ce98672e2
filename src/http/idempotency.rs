//! `Idempotency-Key` (section 2): the same key and body within 24 hours gets the first answer again.

use super::{Edge, Problem};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tract_actors::ports::{IdempotencyKey, KeptAnswer, KeyHome, StoreError};
use tract_domain::{ClientId, Json, Timestamp};

/// How long an answer is kept, in milliseconds.
const KEPT_MS: u64 = 24 * 3600 * 1000;
/// Longest key.
const MAX_KEY: usize = 128;

/// The header of a key, as names of headers are compared.
pub const HEADER: &str = "idempotency-key";
static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A caller's key with the body that it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    key: String,
    body: [u8; 32],
}

impl RequestKey {
    /// Reads the header, if there is one.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(HEADER) else { return Ok(None) };
        let visible = (1..=MAX_KEY).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
        match value.to_str() {
            Ok(key) if visible => Ok(Some(Self { key: key.to_owned(), body: Sha256::digest(body).into() })),
            _ => Err(Problem::invalid(
                "Idempotency-Key",
                format_args!("must be 1 to {MAX_KEY} visible ASCII characters"),
            )),
        }
    }
    /// The key in its scope. `receiver` and `thread` are empty where there is none.
    pub fn scoped(&self, scope: Scope<'_>, home: KeyHome, now: Timestamp) -> IdempotencyKey {
        let mut hash = Sha256::new();
        // Each part behind its length, so that no two scopes can run together into the same bytes.
        for part in [scope.client.map_or("", ClientId::as_str), scope.receiver, scope.route, scope.thread, &self.key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        IdempotencyKey { home, key: hash.finalize().into(), request: self.body, expires_at: now.plus(KEPT_MS) }
    }
}

/// Within what a key means one thing.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The client; none for the operator.
    pub client: Option<&'a ClientId>,
    /// The receiver; empty on the channel side. Of the operator's, the tool that is changed.
    pub receiver: &'a str,
    /// The operation, under its first name whatever alias was called.
    pub route: &'a str,
    /// The thread; empty where there is none.
    pub thread: &'a str,
}

impl Edge {
    /// The body that was kept for this key, if any; a 422 if it was for another request.
    pub async fn kept(&self, key: &IdempotencyKey) -> Result<Option<Json>, Problem> {
        match self.store.kept(key, self.now()).await? {
            None => Ok(None),
            Some(kept) if kept.request != key.request => Err(Problem::key_reused()),
            Some(kept) => match kept.answer {
                KeptAnswer::Body(body) => Ok(Some(body)),
                // Threads' answers have scopes of their own; the record is not one of ours.
                KeptAnswer::Thread { .. } => Err(Problem::internal()),
            },
        }
    }
}

impl Edge {
    /// An operator's key for this route, and for the tool that it changes, if one.
    pub fn operators(&self, key: Option<RequestKey>, route: &'static str, tool: &str) -> Option<IdempotencyKey> {
        let scope = Scope { client: None, receiver: tool, route, thread: "" };
        key.map(|key| key.scoped(scope, KeyHome::Configuration, self.now()))
    }
    /// The body that was kept for this key, if there is a key and it was used.
    pub async fn kept_for(&self, key: Option<&IdempotencyKey>) -> Result<Option<Json>, Problem> {
        match key {
            None => Ok(None),
            Some(key) => self.kept(key).await,
        }
    }
    /// Keeps the body for this key, of what was done in more than one step. If that fails, the
    /// outcome is unknown to the caller, for it was done.
    pub async fn keep(&self, key: IdempotencyKey, body: &Json) -> Result<(), Problem> {
        self.store.keep(key, body.clone(), self.now()).await.map_err(|_| StoreError::OutcomeUnknown.into())
    }
}

/// Marks an answer as the first one again, if it is.
pub fn mark(mut response: Response, replayed: bool) -> Response {
    if replayed {
        response.headers_mut().insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    }
    response
}

/// An answer's JSON text.
pub fn rendered<T: Serialize>(value: &T) -> Json {
    Json(serde_json::to_string(value).unwrap_or_default().into())
}

/// An answer from a JSON text.
pub fn body(json: &Json, replayed: bool) -> Response {
    let content_type = (axum::http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    mark(([content_type], json.0.to_string()).into_response(), replayed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &[u8]) -> Result<Option<RequestKey>, &'static str> {
        let value = HeaderValue::from_bytes(value).unwrap();
        let headers = HeaderMap::from_iter([(HeaderName::from_static(HEADER), value)]);
        RequestKey::read(&headers, b"{}").map_err(|p| p.code())
    }

    #[test]
    fn keys_are_visible_ascii() {
        assert!(read("k".repeat(128).as_bytes()).unwrap().is_some());
        for bad in [&b""[..], b"a b", b"\xff", "k".repeat(129).as_bytes()] {
            assert_eq!(read(bad), Err("invalid_field"));
        }
        assert_eq!(RequestKey::read(&HeaderMap::new(), b""), Ok(None));
    }

    #[test]
    fn every_part_of_the_scope_counts() {
        let client = ClientId::new("acme").unwrap();
        let other = ClientId::new("acmes").unwrap();
        let key = read(b"k").unwrap().unwrap();
        let now = Timestamp(5);
        let scope = Scope { client: Some(&client), receiver: "prinkle", route: "r", thread: "t" };
        let scoped = |key: &RequestKey, scope| key.scoped(scope, KeyHome::Configuration, now);
        let hash = |scope| scoped(&key, scope).key;
        let all = [
            hash(scope),
            hash(Scope { client: Some(&other), ..scope }),
            hash(Scope { client: Some(&other), receiver: "rinkle", ..scope }),
            hash(Scope { client: None, ..scope }),
            hash(Scope { receiver: "prinkler", route: "", ..scope }),
            hash(Scope { route: "rt", thread: "", ..scope }),
            scoped(&read(b"kk").unwrap().unwrap(), scope).key,
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
        }
        assert_eq!(scoped(&key, scope).expires_at, Timestamp(5 + 86_400_000));
    }
}
