//! What a customer thinks of a conversation (section 10).

use super::auth::ChannelSide;
use super::decode::{Flag, Int, Name, Text};
use super::idempotency::{Scope, mark};
use super::integration::Success;
use super::request::Posted;
use super::{Edge, Problem};
use axum::Json as Answered;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;
use tract_actors::ports::KeyHome;
use tract_actors::router::{Ask, Failure};
use tract_domain::{Command, Feedback, Refusal};
use utoipa::ToSchema;

/// What a customer thinks of the last conversation.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"auth_id": "wa:491700000001", "business_id": 343, "query_resolved": true, "query_rating": 4,
    "feedback": "It took a while."}))]
pub struct LogFeedback {
    /// The client's own id of the user.
    #[schema(value_type = String, max_length = 256)]
    auth_id: Name<256>,
    /// About which business.
    #[schema(value_type = u64)]
    business_id: Int,
    /// Whether the customer's question was answered.
    #[schema(value_type = bool)]
    query_resolved: Flag,
    /// 1 (bad) to 5 (good).
    #[schema(value_type = u64, minimum = 1, maximum = 5)]
    query_rating: Int,
    /// In the customer's words.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 4096)]
    feedback: Option<Text<4096>>,
}

/// `POST /v1.0/log_feedback_from_user/`
pub async fn log_feedback(
    State(edge): State<Arc<Edge>>,
    side: ChannelSide,
    Posted { body, key }: Posted<LogFeedback>,
) -> Result<Response, Problem> {
    let rating = u8::try_from(body.query_rating.0).ok().filter(|rating| (1..=5).contains(rating));
    let rating = rating.ok_or_else(|| Problem::invalid("query_rating", "must be an integer from 1 to 5"))?;
    let (business, _) = edge.business(&side.client, Some(body.business_id))?;
    let user_id = edge.store.user_id(&side.client, business, &body.auth_id);
    let scope =
        Scope { client: Some(&side.client), receiver: "", route: "log_feedback_from_user", thread: user_id.as_str() };
    let comment = body.feedback.map(String::from).filter(|text| !text.is_empty());
    let ask = Ask {
        idempotency: key.map(|key| key.scoped(scope, KeyHome::Thread(user_id.clone()), edge.now())),
        user_id: user_id.clone(),
        client: side.client.clone(),
        command: Command::Feedback(Feedback { resolved: body.query_resolved.0, rating, comment }),
    };
    let answer = match edge.threads.ask(ask).await {
        // A user of another business of the client is known, and has just had no conversation here.
        Err(Failure::UnknownUser) => match edge.store.user(&side.client, &body.auth_id).await? {
            Some(_) => return Err(Refusal::NoConversation.into()),
            None => return Err(Problem::new(StatusCode::FORBIDDEN, "invalid_user", "Invalid_User")),
        },
        answered => answered?,
    };
    Ok(mark((StatusCode::CREATED, Answered(Success::new())).into_response(), answer.replayed))
}
