//! Thread control (section 7): who could hold a thread, and the operations that move it.

use super::auth::Caller;
use super::decode::{Int, Name, Object};
use super::idempotency::mark;
use super::messages::unexpected;
use super::request::Posted;
use super::{Edge, Problem};
use axum::Json as Answered;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tract_actors::ports::Tenants;
use tract_domain::{Command, ControlOp, ControlRequest, ReceiverId, Reply, UserId};
use utoipa::ToSchema;

/// The longest that an offer or request may stand, in seconds: a day.
const MAX_DEADLINE_S: u64 = 86_400;

/// Which thread.
#[derive(Debug, Deserialize, ToSchema)]
pub struct OfThread {
    /// The thread.
    #[schema(value_type = String, max_length = 128, example = "u-3f9c")]
    pub(super) user_id: UserId,
}

/// Who could hold a thread.
#[derive(Debug, Serialize, ToSchema)]
pub struct Listeners {
    /// All receivers of the client.
    listeners: Vec<Listener>,
}

/// A receiver as a thread sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Listener {
    #[schema(example = "sprinkle")]
    id: String,
    /// `iva`, `sac` or `ect`.
    r#type: &'static str,
    #[schema(example = "Sprinkle")]
    name: String,
    /// Gets new conversations.
    is_default: bool,
    /// May take.
    is_primary: bool,
    /// Holds this thread.
    active: bool,
    /// Has been offered this thread.
    pending: bool,
    /// Can be given control now.
    healthy: bool,
}

/// `POST /tract/thread_control/listeners/`
pub async fn listeners(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    Posted { body, .. }: Posted<OfThread>,
) -> Result<Answered<Listeners>, Problem> {
    let stored = edge.thread(&caller.client, &body.user_id).await?;
    let policy = edge.tenancy.policy(&caller.client, stored.key.business).ok_or_else(Problem::unknown_user)?;
    let control = stored.thread.control();
    let listeners = policy
        .receivers
        .iter()
        .map(|receiver| Listener {
            id: receiver.id.to_string(),
            r#type: receiver.kind.as_str(),
            name: receiver.name.clone(),
            is_default: receiver.id == policy.default_receiver,
            is_primary: receiver.kind.is_primary(),
            active: receiver.id == control.active,
            pending: control.offer.as_ref().is_some_and(|offer| offer.to == receiver.id),
            healthy: receiver.healthy,
        })
        .collect();
    Ok(Answered(Listeners { listeners }))
}

/// A control operation.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"user_id": "u-3f9c", "type": "pass", "requester": "sprinkle", "receiver": "iva"}))]
pub struct RequestControl {
    /// The thread.
    #[schema(value_type = String, max_length = 128)]
    user_id: UserId,
    /// `pass`, `take`, `request`, `offer`, `accept`, `decline` or `release`.
    #[schema(value_type = String)]
    r#type: Name<16>,
    /// The token's own receiver.
    #[schema(value_type = String)]
    requester: ReceiverId,
    /// The target; in `request` the active receiver. Not needed for `take`, `accept`, `decline` and `release`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    receiver: Option<ReceiverId>,
    /// Handed on to whoever is told.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Object>,
    /// How long an offer or request stands, in seconds, up to a day; default 60.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    deadline_seconds: Option<Int>,
    /// The fencing token.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    control_epoch: Option<Int>,
    /// The offer that `accept` and `decline` answer.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    offer_id: Option<Name<128>>,
}

/// Who holds the thread now. A refusal has `success: false` and a `reason` instead.
#[derive(Debug, Serialize, ToSchema)]
pub struct ControlGranted {
    /// Always true.
    success: bool,
    /// Who holds it.
    active: String,
    /// The present fencing token.
    control_epoch: u64,
    /// The offer that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    offer_id: Option<String>,
}

/// `POST /tract/thread_control/request`
pub async fn request(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    Posted { body, key }: Posted<RequestControl>,
) -> Result<Response, Problem> {
    let user_id = body.user_id.clone();
    let command = Command::Control(body.read(&caller.receiver)?);
    let answer = edge.ask(&caller, user_id, "thread_control/request", key, command).await?;
    let Reply::Control { active, control_epoch, offer_id } = answer.reply else {
        return Err(unexpected(&answer.reply));
    };
    let granted = ControlGranted { success: true, active: active.to_string(), control_epoch, offer_id };
    Ok(mark(Answered(granted).into_response(), answer.replayed))
}

impl RequestControl {
    fn read(self, caller: &ReceiverId) -> Result<ControlRequest, Problem> {
        let op = ControlOp::ALL.into_iter().find(|op| op.as_str() == &*self.r#type).ok_or_else(|| {
            let known: Vec<_> = ControlOp::ALL.iter().map(|op| op.as_str()).collect();
            Problem::invalid("type", format_args!("must be one of {}", known.join(", ")))
        })?;
        if self.requester != *caller {
            let text = "requester must be the receiver that the token speaks for";
            return Err(Problem::new(StatusCode::FORBIDDEN, "requester_mismatch", text));
        }
        let needs_target = match op {
            ControlOp::Pass | ControlOp::Offer | ControlOp::Request => true,
            ControlOp::Take | ControlOp::Accept | ControlOp::Decline | ControlOp::Release => false,
        };
        if needs_target && self.receiver.is_none() {
            return Err(Problem::invalid("receiver", "is missing"));
        }
        if op == ControlOp::Take && self.receiver.as_ref().is_some_and(|receiver| receiver != caller) {
            return Err(Problem::invalid("receiver", "must be the requester, which takes for itself only"));
        }
        let deadline_ms = match self.deadline_seconds {
            None => None,
            Some(Int(seconds @ 1..=MAX_DEADLINE_S)) => Some(seconds * 1000),
            Some(_) => {
                let what = format_args!("must be an integer from 1 to {MAX_DEADLINE_S}");
                return Err(Problem::invalid("deadline_seconds", what));
            }
        };
        Ok(ControlRequest {
            by: self.requester,
            op,
            receiver: self.receiver,
            control_epoch: self.control_epoch.map(|Int(epoch)| epoch),
            deadline_ms,
            offer_id: self.offer_id.map(String::from),
            metadata: self.metadata.map(|object| object.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Shape, decode};

    fn read(json: serde_json::Value) -> Result<ControlRequest, String> {
        let caller = ReceiverId::new("sprinkle").unwrap();
        let body: Result<RequestControl, _> = decode::json(json.to_string().as_bytes());
        body.and_then(|b| b.read(&caller)).map_err(|p| {
            assert_eq!(p.body(Shape::Control, "")["success"], false);
            format!("{} {}", p.status().as_u16(), p.body(Shape::Control, "")["error"])
        })
    }

    #[test]
    fn operations_and_their_operands() {
        let ok = |op: &str, receiver: Option<&str>| {
            let body = serde_json::json!({"user_id": "u", "type": op, "requester": "sprinkle", "receiver": receiver});
            read(body).is_ok()
        };
        for (op, needs) in [
            ("pass", true),
            ("take", false),
            ("request", true),
            ("offer", true),
            ("accept", false),
            ("decline", false),
            ("release", false),
        ] {
            // One takes for oneself only.
            assert_eq!(ok(op, Some("iva")), op != "take", "{op}");
            assert!(ok(op, Some("sprinkle")), "{op}");
            assert_eq!(ok(op, None), !needs, "{op}");
        }
        let base = || serde_json::json!({"user_id": "u", "type": "offer", "requester": "sprinkle", "receiver": "iva"});
        let with = |name: &str, value: serde_json::Value| {
            let mut body = base();
            body[name] = value;
            read(body)
        };
        assert_eq!(with("deadline_seconds", "90".into()).unwrap().deadline_ms, Some(90_000));
        assert_eq!(with("control_epoch", 3.into()).unwrap().control_epoch, Some(3));
        for (name, value, says) in [
            ("type", "grab".into(), "400 \"type: must be one of pass, take"),
            ("requester", "iva".into(), "403"),
            ("requester", "".into(), "400 \"requester"),
            ("receiver", "a b".into(), "400 \"receiver"),
            ("deadline_seconds", 0.into(), "400 \"deadline_seconds"),
            ("deadline_seconds", 86_401.into(), "400 \"deadline_seconds"),
            ("metadata", "x".into(), "400 \"metadata"),
        ] {
            let refused = with(name, value).unwrap_err();
            assert!(refused.starts_with(says), "{refused}");
        }
    }
}
