//! The two calls that are signed instead of carrying a token (section 3).

use super::request::RawPosted;
use super::{Edge, Problem, auth, decode};
use crate::security::signed_request::{SignedFault, SignedHeaders, SignedRequest};
use crate::security::tokens::DEFAULT_TTL_S;
use crate::tenancy::Ect;
use axum::Json as Answered;
use axum::extract::State;
use axum::http::HeaderMap;
use metrics::counter;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tract_domain::ClientId;
use utoipa::ToSchema;

/// The header with the signature.
pub const SIGNATURE: &str = "Signature";
/// The header with the hash.
pub const ALGORITHM: &str = "Signature-Algorithm";
/// The header with a certificate's id.
pub const CERTIFICATE_UUID: &str = "SignatureCertUUID";
/// The header with a chain's place.
pub const CHAIN_URL: &str = "SignatureCertChainUrl";

/// Who asks for a token, and for whom.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"fqdn": "chat.sprinkle.example", "client_id": "acme", "timestamp": "2026-01-31T12:00:00.000Z"}))]
pub struct SignedTokenRequest {
    /// The chat tool's host name.
    fqdn: String,
    /// The client that it wants to act for.
    #[schema(value_type = String)]
    client_id: ClientId,
    /// ISO 8601 with `Z`, at most 150 s from now.
    timestamp: String,
}

/// A token.
#[derive(Serialize, ToSchema)]
pub struct SignedTokenIssued {
    token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// In seconds.
    expires_in: u64,
}

/// Who asks for its clients.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"fqdn": "chat.sprinkle.example", "timestamp": "2026-01-31T12:00:00.000Z"}))]
pub struct ClientListRequest {
    /// The chat tool's host name.
    fqdn: String,
    /// ISO 8601 with `Z`, at most 150 s from now.
    timestamp: String,
}

/// The clients that a chat tool is enabled for.
#[derive(Serialize, ToSchema)]
pub struct ClientList {
    clients: Vec<ListedClient>,
}

/// One of them.
#[derive(Serialize, ToSchema)]
pub struct ListedClient {
    client_id: String,
    name: String,
}

/// `POST /tract/management/token/issue/`
pub async fn issue_token(
    State(edge): State<Arc<Edge>>,
    raw: RawPosted,
) -> Result<Answered<SignedTokenIssued>, Problem> {
    let body: SignedTokenRequest = decode::json(&raw.body)?;
    let ect = accept(&edge, &raw, &body.fqdn, &body.timestamp, Some(&body.client_id)).await?;
    auth::note(&body.client_id, Some(&ect.ect_id));
    let token = edge.tokens.issue(&body.client_id, &ect.ect_id, edge.now(), DEFAULT_TTL_S);
    let token = token.ok_or_else(Problem::internal)?.expose().to_owned();
    Ok(Answered(SignedTokenIssued { token, token_type: "Bearer", expires_in: DEFAULT_TTL_S }))
}

/// `POST /tract/management/client/list/`
pub async fn list_clients(State(edge): State<Arc<Edge>>, raw: RawPosted) -> Result<Answered<ClientList>, Problem> {
    let body: ClientListRequest = decode::json(&raw.body)?;
    let ect = accept(&edge, &raw, &body.fqdn, &body.timestamp, None).await?;
    let directory = edge.tenancy.directory();
    let enabled = directory.clients().into_iter().filter(|c| directory.is_receiver(&c.client_id, &ect.ect_id));
    let clients = enabled.map(|c| ListedClient { client_id: c.client_id.to_string(), name: c.name.clone() }).collect();
    Ok(Answered(ClientList { clients }))
}

async fn accept(
    edge: &Edge,
    raw: &RawPosted,
    fqdn: &str,
    timestamp: &str,
    client: Option<&ClientId>,
) -> Result<Arc<Ect>, Problem> {
    let accepted = match headers(&raw.headers) {
        Ok(headers) => {
            let request = SignedRequest { headers, body: &raw.body, fqdn, timestamp, client };
            edge.signed.accept(request).await
        }
        Err(fault) => Err(fault),
    };
    let result = accepted.as_ref().map_or_else(SignedFault::code, |_| "accepted");
    counter!("tract_signed_requests_total", "result" => result).increment(1);
    Ok(accepted?)
}

/// Each at most once: of two, nobody knows which is meant.
fn headers(all: &HeaderMap) -> Result<SignedHeaders<'_>, SignedFault> {
    let one = |name: &'static str| {
        let mut values = all.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(|_| SignedFault::Field(name, "must be ASCII")),
            (Some(_), Some(_)) => Err(SignedFault::Field(name, "must be sent once")),
        }
    };
    Ok(SignedHeaders {
        signature: one(SIGNATURE)?,
        algorithm: one(ALGORITHM)?,
        uuid: one(CERTIFICATE_UUID)?,
        chain_url: one(CHAIN_URL)?,
    })
}
