//! Bodies and query strings, bounded and typed (section 2).

use super::idempotency::RequestKey;
use super::{Edge, Problem, decode};
use axum::body::{Body, HttpBody};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Path, Query, Request};
use axum::http::{HeaderMap, StatusCode, header, request::Parts};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tract_domain::UserId;

/// Largest body, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
/// How long a body may take to arrive: a slow sender must not hold memory for ever.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A JSON body, read, with the idempotency key that came with it.
#[derive(Debug)]
pub struct Posted<T> {
    /// What it says.
    pub body: T,
    /// The caller's `Idempotency-Key`.
    pub key: Option<RequestKey>,
}

impl<T: DeserializeOwned> FromRequest<Arc<Edge>> for Posted<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, edge: &Arc<Edge>) -> Result<Self, Problem> {
        let RawPosted { headers, body } = RawPosted::from_request(request, edge).await?;
        let key = RequestKey::read(&headers, &body)?;
        Ok(Self { body: decode::json(&body)?, key })
    }
}

/// As [`Posted`], where nothing needs to be said: no body at all is `{}`.
#[derive(Debug)]
pub struct PostedOrNothing<T>(pub Posted<T>);

impl<T: DeserializeOwned> FromRequest<Arc<Edge>> for PostedOrNothing<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &Arc<Edge>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = collect(body).await?;
        if !bytes.is_empty() && !is_json(&parts.headers) {
            return Err(not_json());
        }
        let said: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        Ok(Self(Posted { body: decode::json(said)?, key: RequestKey::read(&parts.headers, said)? }))
    }
}

/// A JSON body as it came, with the headers that came with it.
#[derive(Debug)]
pub struct RawPosted {
    /// All headers.
    pub headers: HeaderMap,
    /// Not yet read.
    pub body: Bytes,
}

impl FromRequest<Arc<Edge>> for RawPosted {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &Arc<Edge>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(not_json());
        }
        Ok(Self { headers: parts.headers, body: collect(body).await? })
    }
}

fn not_json() -> Problem {
    let text = "the body must be JSON: send Content-Type: application/json";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text)
}

async fn collect(body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        let text = format!("the body must be at most {MAX_BODY} bytes long");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", text)
    };
    // What is announced as too large need not be sent.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", "the body did not arrive whole")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body took too long to arrive")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let json = parts.next().is_some_and(|mime| mime.eq_ignore_ascii_case("application/json"));
    let utf8 = |p: &str| {
        p.split_once('=').is_none_or(|(name, value)| {
            let value = value.trim_matches('"');
            !name.eq_ignore_ascii_case("charset")
                || value.eq_ignore_ascii_case("utf-8")
                || value.eq_ignore_ascii_case("utf8")
        })
    };
    json && parts.all(utf8)
}

/// A cursor, if it looks like one of either store: numbers with dots between them. What is none would be answered as the end
/// of the list.
pub fn cursor(given: Option<&str>) -> Result<Option<String>, Problem> {
    if given.is_some_and(|text| text.split('.').any(|number| number.parse::<u64>().is_err())) {
        return Err(Problem::invalid("cursor", "must be the next of the page before, as it was given"));
    }
    Ok(given.map(str::to_owned))
}

/// A query string.
#[derive(Debug, Default)]
pub struct Params(HashMap<String, String>);

impl FromRequestParts<Arc<Edge>> for Params {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Arc<Edge>) -> Result<Self, Problem> {
        let malformed = |_| Problem::new(StatusCode::BAD_REQUEST, "malformed_query", "the query string is malformed");
        Query::try_from_uri(&parts.uri).map(|Query(map)| Self(map)).map_err(malformed)
    }
}

impl Params {
    /// A parameter, unless it is absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
    /// A parameter of some type.
    pub fn parse<T: TryFrom<String, Error: Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.get(name).map(|v| T::try_from(v.to_owned()).map_err(|e| Problem::invalid(name, e))).transpose()
    }
    /// An integer within bounds.
    pub fn integer(&self, name: &str, min: u64, max: u64, default: u64) -> Result<u64, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let wrong = || Problem::invalid(name, format_args!("must be an integer from {min} to {max}"));
        decode::integer(text).filter(|n| (min..=max).contains(n)).ok_or_else(wrong)
    }
    /// The `next` of the page before.
    pub fn cursor(&self) -> Result<Option<String>, Problem> {
        cursor(self.get("cursor"))
    }
    /// `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(false),
            Some(text) => bool::from_str(text).map_err(|_| Problem::invalid(name, "must be true or false")),
        }
    }
    /// The thread in question.
    pub fn user_id(&self) -> Result<UserId, Problem> {
        self.parse("user_id")?.ok_or_else(|| Problem::invalid("user_id", "is missing"))
    }
}

/// Parameters in the query string or, beside or instead of it, as fields of a JSON body. The query string wins.
#[derive(Debug)]
pub struct Asked(pub Params);

impl FromRequest<Arc<Edge>> for Asked {
    type Rejection = Problem;
    async fn from_request(request: Request, edge: &Arc<Edge>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Params(mut params) = Params::from_request_parts(&mut parts, edge).await?;
        let bytes = collect(body).await?;
        if !bytes.is_empty() {
            if !is_json(&parts.headers) {
                return Err(not_json());
            }
            let fields: serde_json::Map<String, serde_json::Value> = decode::json(&bytes)?;
            for (name, value) in fields {
                let text = match value {
                    serde_json::Value::String(text) => text,
                    serde_json::Value::Number(number) => number.to_string(),
                    // No parameter is of another kind, and unknown fields are ignored.
                    _ => continue,
                };
                params.entry(name).or_insert(text);
            }
        }
        Ok(Self(Params(params)))
    }
}

/// What stands in the path, of some type.
#[derive(Debug)]
pub struct InPath<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Edge>> for InPath<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, Problem> {
        Path::<T>::from_request_parts(parts, edge).await.map(|Path(value)| Self(value)).map_err(|rejection| {
            let template = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
            Problem::new(StatusCode::BAD_REQUEST, "invalid_path", misread(template, &rejection))
        })
    }
}

/// What is wrong with a path, by the name that the route's template has for it.
fn misread(template: &str, rejection: &PathRejection) -> String {
    use axum::extract::path::ErrorKind;
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else { return rejection.body_text() };
    let names = || template.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    match failed.kind() {
        ErrorKind::ParseErrorAtIndex { index, .. } => {
            format!("{}: is not a number in the path", names().nth(*index).unwrap_or("the path"))
        }
        ErrorKind::InvalidUtf8InPathParam { key } => format!("{key}: is not UTF-8"),
        ErrorKind::DeserializeError { key, message, .. } => format!("{key}: {message}"),
        // An identifier's own words; routes that end in one have no other that could be meant.
        ErrorKind::Message(message) => match names().next_back() {
            Some(name) if names().count() == 1 => format!("{name}: {message}"),
            _ => message.clone(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn params(query: &str) -> Params {
        let uri = format!("/x?{query}").parse().unwrap();
        let Query(map) = Query::try_from_uri(&uri).unwrap();
        Params(map)
    }

    #[test]
    fn content_types() {
        let json = |value: &'static str| {
            is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]))
        };
        for good in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\"; x=y"] {
            assert!(json(good), "{good}");
        }
        for bad in ["text/plain", "application/jsonp", "application/json; charset=latin1", "multipart/form-data", ""] {
            assert!(!json(bad), "{bad}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn parameters_are_checked_by_name() {
        let p = params("after=7&limit=501&force=yes&user_id=a%20b&q=");
        assert_eq!(p.integer("after", 0, 100, 0).unwrap(), 7);
        assert_eq!(p.integer("missing", 1, 500, 100).unwrap(), 100);
        assert!(p.integer("limit", 1, 500, 100).is_err());
        assert!(p.flag("force").is_err());
        assert!(p.user_id().is_err());
        assert!(params("").user_id().is_err());
        assert_eq!(p.get("q"), None);
        assert!(params("limit=-1").integer("limit", 1, 500, 100).is_err());
        assert!(params("limit=9007199254740993").integer("limit", 0, u64::MAX, 1).is_err());
    }

    #[tokio::test]
    async fn bodies_are_bounded() {
        let collected = |body: Body| async { collect(body).await.map(|b| b.len()).map_err(|p| p.status().as_u16()) };
        assert_eq!(collected(Body::from(vec![b'a'; MAX_BODY])).await, Ok(MAX_BODY));
        assert_eq!(collected(Body::from(vec![b'a'; MAX_BODY + 1])).await, Err(413));
        let chunks = (0..5).map(|_| Ok::<_, std::io::Error>(vec![b'a'; MAX_BODY / 4]));
        assert_eq!(collected(Body::from_stream(futures_util::stream::iter(chunks))).await, Err(413));
        let broken = [Ok(vec![b'a']), Err(std::io::Error::other("gone"))];
        assert_eq!(collected(Body::from_stream(futures_util::stream::iter(broken))).await, Err(400));
    }
}
