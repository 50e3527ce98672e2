//! What a receiver may know of a user (section 5).

use super::auth::Caller;
use super::control::OfThread;
use super::decode::Text;
use super::request::Posted;
use super::{Edge, Problem};
use crate::channel::profile::Profile;
use axum::Json as Answered;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use tract_actors::ports::StoreError;
use tract_domain::{Json, UserId};
use utoipa::ToSchema;

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserView {
    #[schema(example = "u-3f9c")]
    user_id: String,
    /// The client's own id of the user.
    third_party_user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
    /// The platform's name.
    #[schema(example = "WhatsApp")]
    device_platform: &'static str,
    /// What can be asked for with `/tract/user/details/`.
    #[schema(example = json!(["email", "plan"]))]
    details_available: Vec<String>,
}

/// `POST /tract/user/`
pub async fn user(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    Posted { body, .. }: Posted<OfThread>,
) -> Result<Answered<UserView>, Problem> {
    let profile = edge.profile(&caller, &body.user_id).await?;
    let details_available = profile.details().into_iter().map(|(name, _)| name).collect();
    Ok(Answered(UserView {
        user_id: body.user_id.to_string(),
        third_party_user_id: profile.auth_id,
        user_name: profile.name,
        device_platform: profile.device_platform.name(),
        details_available,
    }))
}

/// Which details of which user.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"user_id": "u-3f9c", "details_requested": ["email", "plan"]}))]
pub struct DetailsRequest {
    #[schema(value_type = String, max_length = 128)]
    user_id: UserId,
    /// Names out of `details_available`; others are simply absent from the answer.
    #[schema(value_type = Vec<String>)]
    details_requested: Vec<Text<256>>,
}

/// A user's details.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserDetails {
    user_id: String,
    /// Those that were asked for and are there.
    #[schema(value_type = Object, example = json!({"email": "kim@example.org"}))]
    details: Map<String, Value>,
}

/// `POST /tract/user/details/`
pub async fn user_details(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    Posted { body, .. }: Posted<DetailsRequest>,
) -> Result<Answered<UserDetails>, Problem> {
    let mut available = edge.profile(&caller, &body.user_id).await?.details();
    available.retain(|name, _| body.details_requested.iter().any(|wanted| **wanted == **name));
    Ok(Answered(UserDetails { user_id: body.user_id.to_string(), details: available }))
}

/// Reads a stored profile.
pub(super) fn read_profile(stored: &Json) -> Result<Profile, Problem> {
    let unreadable = |e: serde_json::Error| StoreError::Corrupt(format!("a user's profile: {:?}", e.classify()));
    Ok(serde_json::from_str(&stored.0).map_err(unreadable)?)
}

impl Edge {
    /// The profile behind one of the client's threads.
    async fn profile(&self, caller: &Caller, user_id: &UserId) -> Result<Profile, Problem> {
        let stored = self.thread(&caller.client, user_id).await?;
        let user = self.store.user(&caller.client, &stored.key.auth_id).await?.ok_or_else(Problem::unknown_user)?;
        read_profile(&user.profile)
    }
}
