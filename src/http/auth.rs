//! Who calls: a receiver with its JWT, a client's channel side with its API token, or the operator.

use super::{Edge, Problem};
use crate::security::rates::mark;
use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tract_domain::{ClientId, ReceiverId};

const CLIENT_ID: &str = "client-id";

/// How a route is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    Open,
    /// A signature over the body (section 3).
    Signed,
    /// A receiver's JWT (section 3): [`Caller`].
    Receiver,
    /// A client's API token as a bearer (section 10): [`ChannelSide`].
    Channel,
    /// A client's API token, with or without `Bearer` (section 9): [`Integration`].
    Integration,
    /// The admin token (section 11): [`Admin`].
    Admin,
}

/// A receiver of a client, as its token says.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For whom it acts.
    pub client: ClientId,
    /// Who it is.
    pub receiver: ReceiverId,
}

impl FromRequestParts<Arc<Edge>> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, Problem> {
        let token = match bearer(&parts.headers)? {
            Some(token) => token,
            None => return Err(Problem::unauthorized("token_missing", "send Authorization: Bearer <token>")),
        };
        let claims = edge.tokens.verify(token, edge.now())?;
        let mut named = parts.headers.get_all(CLIENT_ID).iter();
        if named.any(|name| name.as_bytes() != claims.client_id.as_str().as_bytes()) {
            let text = "the client-id header names another client than the token";
            return Err(Problem::unauthorized("client_mismatch", text));
        }
        if !edge.tenancy.directory().is_receiver(&claims.client_id, &claims.sub) {
            let text = "this receiver is not enabled for this client";
            return Err(Problem::unauthorized("receiver_not_enabled", text));
        }
        note(&claims.client_id, Some(&claims.sub));
        edge.rates.check(token)?;
        Ok(Self { client: claims.client_id.clone(), receiver: claims.sub.clone() })
    }
}

/// A client's channel side.
#[derive(Debug, Clone)]
pub struct ChannelSide {
    /// Whose.
    pub client: ClientId,
}

impl FromRequestParts<Arc<Edge>> for ChannelSide {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, Problem> {
        let token = bearer(&parts.headers).ok().flatten();
        client_of(edge, &parts.headers, token).map(|client| Self { client })
    }
}

/// A client's bot or back office, with the same token as its channel side.
#[derive(Debug, Clone)]
pub struct Integration {
    /// Whose.
    pub client: ClientId,
}

impl FromRequestParts<Arc<Edge>> for Integration {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, Problem> {
        let bare = || parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).map(str::trim);
        let token = bearer(&parts.headers).ok().flatten().or_else(bare);
        client_of(edge, &parts.headers, token).map(|client| Self { client })
    }
}

/// The operator.
#[derive(Debug, Clone, Copy)]
pub struct Admin;

impl FromRequestParts<Arc<Edge>> for Admin {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?
            .ok_or_else(|| Problem::unauthorized("token_missing", "send Authorization: Bearer <admin token>"))?;
        // Hashes are compared, so that not even the length shows.
        if bool::from(mark(token).ct_eq(&mark(edge.admin_token.expose()))) {
            Ok(Self)
        } else {
            Err(Problem::unauthorized("token_invalid", "this is not the admin token"))
        }
    }
}

fn client_of(edge: &Edge, headers: &HeaderMap, token: Option<&str>) -> Result<ClientId, Problem> {
    // One answer for every fault: it must not tell which clients there are.
    let refused = || Problem::unauthorized("authorization_invalid", "invalid authorization details");
    let token = token.ok_or_else(refused)?;
    let mut named = headers.get_all(CLIENT_ID).iter();
    let (Some(name), None) = (named.next(), named.next()) else { return Err(refused()) };
    let client = name.to_str().ok().and_then(|name| ClientId::new(name).ok()).ok_or_else(refused)?;
    let directory = edge.tenancy.directory();
    let enabled = directory.client(&client).is_some_and(|c| c.enabled);
    if !enabled || !directory.api_token_matches(&client, token) {
        return Err(refused());
    }
    note(&client, None);
    edge.rates.check(token)?;
    Ok(client)
}

/// The bearer token, if there is an `Authorization` header at all.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let wrong = || Problem::unauthorized("token_invalid", "the Authorization header must be: Bearer <token>");
    let (scheme, token) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(wrong)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() { Ok(Some(token)) } else { Err(wrong()) }
}

/// Puts into the request's span who calls.
pub(super) fn note(client: &ClientId, receiver: Option<&ReceiverId>) {
    let span = tracing::Span::current();
    match receiver {
        Some(receiver) => tracing::record_all!(span, client = client.as_str(), receiver = receiver.as_str()),
        None => tracing::record_all!(span, client = client.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn reads_bearer_tokens() {
        let read = |value: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())]);
            bearer(&headers).map(|t| t.map(str::to_owned)).map_err(|p| p.code())
        };
        assert_eq!(read("Bearer abc"), Ok(Some("abc".to_owned())));
        assert_eq!(read("bearer  abc"), Ok(Some("abc".to_owned())));
        for bad in ["", "abc", "Basic abc", "Bearer", "Bearer ", "Bearer\tabc"] {
            assert_eq!(read(bad), Err("token_invalid"), "{bad}");
        }
        assert!(matches!(bearer(&HeaderMap::new()), Ok(None)));
    }
}
