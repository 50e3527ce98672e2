//! What a client's bot or back office asks for beside its turns (section 9).

use super::auth::Integration;
use super::decode::{Int, Name};
use super::idempotency::{Scope, mark};
use super::request::Posted;
use super::{Edge, Problem};
use axum::Json as Answered;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tract_actors::ports::KeyHome;
use tract_actors::router::Ask;
use tract_domain::{Command, Json, UserId};
use utoipa::ToSchema;

/// The countdown, in seconds, unless the caller says.
const COUNTDOWN_S: u64 = 10;

/// A chat for an agent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"user_name": "u-3f9c", "business_id": 343, "team_name": "billing", "countdown": 5}))]
pub struct SendChatToAgent {
    /// The thread's `user_id`.
    #[schema(value_type = String, max_length = 128)]
    user_name: UserId,
    /// The thread's business.
    #[schema(value_type = u64)]
    business_id: Int,
    /// The team to name to the agent tool.
    #[schema(value_type = String, max_length = 128)]
    team_name: Name<128>,
    /// Seconds to wait, 5 to 10; default 10.
    #[serde(default)]
    #[schema(value_type = Option<u64>, minimum = 5, maximum = 10)]
    countdown: Option<Int>,
}

/// It was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Success {
    /// Always true.
    success: bool,
}

impl Success {
    pub(super) fn new() -> Self {
        Self { success: true }
    }
}

/// `POST /integration/external/v1.0/send_chat_to_agent/`
pub async fn send_chat_to_agent(
    State(edge): State<Arc<Edge>>,
    caller: Integration,
    Posted { body, key }: Posted<SendChatToAgent>,
) -> Result<Response, Problem> {
    let countdown_s = match body.countdown {
        None => COUNTDOWN_S,
        Some(Int(seconds @ 5..=10)) => seconds,
        Some(_) => return Err(Problem::invalid("countdown", "must be an integer from 5 to 10")),
    };
    let stored = edge.thread(&caller.client, &body.user_name).await?;
    if stored.key.business != body.business_id.0 {
        return Err(Problem::unknown_user());
    }
    let scope = Scope {
        client: Some(&caller.client),
        receiver: "",
        route: "send_chat_to_agent",
        thread: body.user_name.as_str(),
    };
    let ask = Ask {
        idempotency: key.map(|key| key.scoped(scope, KeyHome::Thread(body.user_name.clone()), edge.now())),
        user_id: body.user_name.clone(),
        client: caller.client.clone(),
        command: Command::SendToAgent {
            countdown_ms: countdown_s * 1000,
            metadata: Some(Json(serde_json::json!({"team_name": String::from(body.team_name)}).to_string().into())),
        },
    };
    let answer = edge.threads.ask(ask).await?;
    Ok(mark(Answered(Success::new()).into_response(), answer.replayed))
}
