//! `message/send` and `events/send` (section 6).

use super::Edge;
use super::auth::Caller;
use super::decode::{EventMetadata, Int, Name, Object};
use super::idempotency::{RequestKey, Scope, mark};
use super::problem::Problem;
use super::request::Posted;
use crate::hsl;
use axum::Json as Answered;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use tract_actors::ports::{IdempotencyKey, KeyHome};
use tract_actors::router::{Answer, Ask};
use tract_domain::{Agent, AgentEvent, Command, Json, ReceiverId, Reply, Sender, Topic, UserId};
use utoipa::ToSchema;

/// A message to the customer.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"user_id": "u-3f9c", "message_body": "Hello, this is Ann. How can I help?", "sender": "aeu",
    "metadata": {"agent_name": "Ann"}, "control_epoch": 2}))]
pub struct SendMessage {
    /// The thread.
    #[schema(value_type = String, max_length = 128)]
    user_id: UserId,
    /// A serialised HSL object, or plain text, which becomes a TEXT element. At most 64 KiB.
    message_body: String,
    /// In whose name: `aeu` or `ect` for an ECT or SAC, `iva` for the IVA.
    #[schema(example = "aeu")]
    sender: String,
    /// Passes through; `agent_id`, `agent_name`, `agent_email`, `profile_image` and `team_name` are understood.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Object>,
    /// The fencing token: refused with `stale_epoch` unless it is the present one.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    control_epoch: Option<Int>,
}

/// Where the message went.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageSent {
    /// Unique in the deployment, increasing within a thread, below 2^53.
    message_id: u64,
    /// The conversation it belongs to.
    #[schema(example = "1")]
    conversation_number: String,
    /// Its place in the thread.
    sequence: u64,
    /// The present fencing token.
    control_epoch: u64,
}

/// `POST /tract/message/send/`
pub async fn send(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    Posted { body, key }: Posted<SendMessage>,
) -> Result<Response, Problem> {
    let sender = Sender::parse(&body.sender).ok_or_else(|| {
        let text = "sender must be aeu or ect for an agent tool, iva for the bot";
        Problem::new(StatusCode::FORBIDDEN, "sender_not_allowed", text)
    })?;
    let said = hsl::read_body(&body.message_body)
        .map_err(|fault| Problem::invalid(&fault.path("message_body"), fault.what()))?;
    let metadata = body.metadata.map(|object| object.0);
    let command = Command::Send {
        by: caller.receiver.clone(),
        sender,
        body: said,
        agent: metadata.as_ref().and_then(agent),
        metadata,
        control_epoch: body.control_epoch.map(|Int(epoch)| epoch),
    };
    let answer = edge.ask(&caller, body.user_id, "message/send", key, command).await?;
    let Reply::Message { entry, sequence, conversation, control_epoch } = answer.reply else {
        return Err(unexpected(&answer.reply));
    };
    let message_id = answer.message_ids.get(entry).copied().ok_or_else(Problem::internal)?;
    let sent = MessageSent { message_id, conversation_number: conversation.to_string(), sequence, control_epoch };
    Ok(mark(Answered(sent).into_response(), answer.replayed))
}

/// Something that the agent side reports.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"user_id": "u-3f9c", "category": "aeu_events", "subcategory": "allocated",
    "metadata": {"agent_id": "7", "agent_name": "Ann", "team_name": "billing"}}))]
pub struct SendEvent {
    /// The thread.
    #[schema(value_type = String, max_length = 128)]
    user_id: UserId,
    /// `aeu_events`, `conversation_state` (alias `collection_state`), or `message` as an alias of `aeu_events`.
    #[schema(value_type = String, max_length = 64)]
    category: Name<64>,
    /// `received`, `allocated`, `user_timeout`; `waiting`, `complete`.
    #[schema(value_type = String, max_length = 64)]
    subcategory: Name<64>,
    /// An object, or a string that holds one, or any text. May name the agent.
    #[serde(default = "nothing")]
    #[schema(value_type = Option<Object>)]
    metadata: EventMetadata,
}

fn nothing() -> EventMetadata {
    EventMetadata(None)
}

/// Where the thread stands after it.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventSent {
    /// Always true.
    success: bool,
    /// The conversation it belongs to.
    conversation_number: String,
    /// The thread's last sequence.
    sequence: u64,
    /// The present fencing token.
    control_epoch: u64,
}

/// `POST /tract/events/send` and its alias
pub async fn send_event(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    Posted { body, key }: Posted<SendEvent>,
) -> Result<Response, Problem> {
    let event = event(&body.category, &body.subcategory)?;
    let metadata = body.metadata.0;
    let command =
        Command::Event { by: caller.receiver.clone(), event, agent: metadata.as_ref().and_then(agent), metadata };
    let answer = edge.ask(&caller, body.user_id, "events/send", key, command).await?;
    let Reply::Event { sequence, conversation, control_epoch } = answer.reply else {
        return Err(unexpected(&answer.reply));
    };
    let sent = EventSent { success: true, conversation_number: conversation.to_string(), sequence, control_epoch };
    Ok(mark(Answered(sent).into_response(), answer.replayed))
}

/// The events that are accepted, with `message.allocated` and `message.user_timeout` as aliases.
fn event(category: &str, subcategory: &str) -> Result<AgentEvent, Problem> {
    let category = match (category, subcategory) {
        ("message", "allocated" | "user_timeout") => "aeu_events",
        _ => category,
    };
    match Topic::parse(category, subcategory) {
        Some(Topic::AeuReceived) => Ok(AgentEvent::Received),
        Some(Topic::AeuAllocated) => Ok(AgentEvent::Allocated),
        Some(Topic::AeuUserTimeout) => Ok(AgentEvent::UserTimeout),
        Some(Topic::StateWaiting) => Ok(AgentEvent::Waiting),
        Some(Topic::StateComplete) => Ok(AgentEvent::Complete),
        _ => Err(Problem::invalid(
            "category, subcategory",
            "must be aeu_events.received, aeu_events.allocated, aeu_events.user_timeout, conversation_state.waiting \
             or conversation_state.complete",
        )),
    }
}

/// The agent that metadata names. Fields of another type name nobody and just pass through.
fn agent(metadata: &Json) -> Option<Agent> {
    let fields: serde_json::Map<String, Value> = serde_json::from_str(&metadata.0).ok()?;
    let text = |name: &str| match fields.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let agent = Agent {
        id: text("agent_id"),
        name: text("agent_name"),
        email: text("agent_email"),
        profile_image: text("profile_image"),
        team_name: text("team_name"),
    };
    (!agent.is_empty()).then_some(agent)
}

/// The domain answered with another kind of reply than the command has: a fault of ours.
pub(super) fn unexpected(reply: &Reply) -> Problem {
    tracing::error!(?reply, "the reply does not fit the command");
    Problem::internal()
}

impl Edge {
    /// Asks a thread on behalf of a receiver.
    pub(super) async fn ask(
        &self,
        caller: &Caller,
        user_id: UserId,
        route: &'static str,
        key: Option<RequestKey>,
        command: Command,
    ) -> Result<Answer, Problem> {
        let idempotency = key.map(|key| self.thread_key(&key, caller, route, &user_id));
        let ask = Ask { user_id, client: caller.client.clone(), command, idempotency };
        Ok(self.threads.ask(ask).await?)
    }

    fn thread_key(&self, key: &RequestKey, caller: &Caller, route: &str, user_id: &UserId) -> IdempotencyKey {
        let receiver: &ReceiverId = &caller.receiver;
        let scope =
            Scope { client: Some(&caller.client), receiver: receiver.as_str(), route, thread: user_id.as_str() };
        key.scoped(scope, KeyHome::Thread(user_id.clone()), self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::decode;

    #[test]
    fn events_by_all_their_names() {
        for (category, subcategory, expected) in [
            ("aeu_events", "received", AgentEvent::Received),
            ("aeu_events", "allocated", AgentEvent::Allocated),
            ("message", "allocated", AgentEvent::Allocated),
            ("aeu_events", "user_timeout", AgentEvent::UserTimeout),
            ("message", "user_timeout", AgentEvent::UserTimeout),
            ("conversation_state", "waiting", AgentEvent::Waiting),
            ("collection_state", "waiting", AgentEvent::Waiting),
            ("conversation_state", "complete", AgentEvent::Complete),
            ("collection_state", "complete", AgentEvent::Complete),
        ] {
            assert_eq!(event(category, subcategory), Ok(expected));
        }
        for (category, subcategory) in
            [("message", "received"), ("message", "receive"), ("conversation_state", "bot"), ("a", "b"), ("", "")]
        {
            assert_eq!(event(category, subcategory).map_err(|p| p.status().as_u16()), Err(400));
        }
    }

    #[test]
    fn metadata_may_name_the_agent() {
        let read = |json: &str| agent(&decode::object(json).unwrap());
        assert_eq!(read(r#"{"ticket":1,"agent_name":"","agent_email":{}}"#), None);
        let ann = read(r#"{"agent_id":7,"agent_name":"Ann","team_name":"billing"}"#).unwrap();
        assert_eq!((ann.id.as_deref(), ann.name.as_deref(), ann.email), (Some("7"), Some("Ann"), None));
    }
}
