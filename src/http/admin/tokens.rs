//! Tokens for receivers, from the operator's hand.

use crate::http::auth::Admin;
use crate::http::decode::Int;
use crate::http::request::Posted;
use crate::http::{Edge, Problem};
use crate::security::tokens::DEFAULT_TTL_S;
use axum::Json as Answered;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tract_domain::{ClientId, ReceiverId};
use utoipa::ToSchema;

/// The longest that a token may live, in seconds: a year.
const MAX_TTL_S: u64 = 366 * 24 * 3600;

/// For whom.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"client_id": "acme", "receiver": "sprinkle", "ttl_seconds": 3600}))]
pub struct IssueToken {
    #[schema(value_type = String)]
    client_id: ClientId,
    /// `iva`, `sac` or an `ect_id`.
    #[schema(value_type = String)]
    receiver: ReceiverId,
    /// Default 3600.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    ttl_seconds: Option<Int>,
}

/// A token.
#[derive(Serialize, ToSchema)]
pub struct TokenIssued {
    token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// In seconds.
    expires_in: u64,
}

/// `POST /admin/v1/tokens`
pub async fn issue(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    Posted { body, .. }: Posted<IssueToken>,
) -> Result<Answered<TokenIssued>, Problem> {
    let ttl = body.ttl_seconds.map_or(DEFAULT_TTL_S, |Int(seconds)| seconds);
    if !(1..=MAX_TTL_S).contains(&ttl) {
        return Err(Problem::invalid("ttl_seconds", format_args!("must be an integer from 1 to {MAX_TTL_S}")));
    }
    let directory = edge.tenancy.directory();
    if directory.client(&body.client_id).is_none() {
        return Err(Problem::unknown("client"));
    }
    if !directory.is_receiver(&body.client_id, &body.receiver) {
        return Err(Problem::invalid("receiver", format_args!("{} is not enabled for this client", body.receiver)));
    }
    let token = edge.tokens.issue(&body.client_id, &body.receiver, edge.now(), ttl).ok_or_else(Problem::internal)?;
    tracing::info!(client = %body.client_id, receiver = %body.receiver, ttl, "issued a token");
    Ok(Answered(TokenIssued { token: token.expose().to_owned(), token_type: "Bearer", expires_in: ttl }))
}
