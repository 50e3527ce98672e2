//! Every refusal that leaves the edge: one status, one code, one sentence (section 2).
//!
//! A handler says what is wrong; the envelope renders it in the shape that the path asks for.

use super::envelope::REALM;
use crate::security::rates::TooMany;
use crate::security::signed_request::SignedFault;
use crate::security::tokens::TokenFault;
use crate::tenancy::TenancyError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use tract_actors::ports::StoreError;
use tract_actors::router::Failure;
use tract_domain::{BusinessId, ReceiverId, Refusal};

/// What a refused client should wait before it asks again, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// A refusal, as the caller gets to know it. Never carries what anybody said, nor why a store failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    holder: Option<(ReceiverId, u64)>,
    count: Option<u64>,
    retry_after_s: Option<u32>,
    /// Whether a token would help.
    challenge: bool,
}

/// The shapes of error bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{error, code, request_id}`: `/tract/*`, `/admin/*` and whatever else there is.
    Error,
    /// `{error_message, code, request_id}`: `/v1.0/*` and `/integration/*`.
    ErrorMessage,
    /// `{success: false, reason, error, code, request_id}`: `thread_control/request` (section 7).
    Control,
}

impl Shape {
    /// The shape that a path asks for, whatever the outcome.
    pub fn of(path: &str) -> Self {
        if path.strip_suffix('/').unwrap_or(path) == "/tract/thread_control/request" {
            Self::Control
        } else if path.starts_with("/v1.0/") || path.starts_with("/integration/") {
            Self::ErrorMessage
        } else {
            Self::Error
        }
    }
}

impl Problem {
    /// A refusal with this status and code.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self { status, code, message, holder: None, count: None, retry_after_s: None, challenge: false }
    }
    /// 400: the named field is missing or wrong.
    pub fn invalid(field: &str, what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_field", format!("{field}: {what}"))
    }
    /// 401 with the scheme that would help.
    pub fn unauthorized(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { challenge: true, ..Self::new(StatusCode::UNAUTHORIZED, code, message) }
    }
    /// 404 for a thread that there is not, or that is another client's: nobody can tell which.
    pub fn unknown_user() -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_user", "no such user")
    }
    /// 404 for a piece of configuration.
    pub fn unknown(what: &'static str) -> Self {
        let code = match what {
            "hook" => "unknown_hook",
            "webhook" => "unknown_webhook",
            "ECT" => "unknown_ect",
            "receiver" => "unknown_receiver",
            "client" => "unknown_client",
            "business" => "unknown_business",
            "certificate" => "unknown_certificate",
            _ => "unknown",
        };
        Self::new(StatusCode::NOT_FOUND, code, format!("no such {what}"))
    }
    /// 404 for a business that is not the client's.
    pub fn unknown_business(business: BusinessId) -> Self {
        let text = format!("business_id: {business} is not a business of this client");
        Self::new(StatusCode::NOT_FOUND, "unknown_business", text)
    }
    /// 422
    pub fn key_reused() -> Self {
        let text = "this Idempotency-Key was used for another body";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", text)
    }
    /// 500; what happened is in the log, under the request's id.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong here")
    }
    /// 503: try again soon.
    pub fn unavailable(code: &'static str, message: &'static str) -> Self {
        Self { retry_after_s: Some(RETRY_AFTER_S), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }
    /// What a bare status says, for answers that no handler made.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::new(status, "not_found", "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::new(status, "method_not_allowed", "this path does not have that method; see Allow")
            }
            _ => Self::new(status, "http", status.canonical_reason().unwrap_or("refused")),
        }
    }
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
    /// The code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The body, in this shape.
    pub fn body(&self, shape: Shape, request_id: &str) -> Value {
        let mut body = Map::new();
        let holder = self.holder.as_ref().map(|(active, epoch)| (active.as_str(), *epoch));
        if shape == Shape::Control {
            let mut reason =
                Map::from_iter([("code".to_owned(), json!(self.code)), ("message".to_owned(), json!(self.message))]);
            if let Some((active, epoch)) = holder {
                reason.insert("active".to_owned(), json!(active));
                reason.insert("control_epoch".to_owned(), json!(epoch));
            }
            body.insert("success".to_owned(), json!(false));
            body.insert("reason".to_owned(), Value::Object(reason));
        }
        let text = if shape == Shape::ErrorMessage { "error_message" } else { "error" };
        body.insert(text.to_owned(), json!(self.message));
        body.insert("code".to_owned(), json!(self.code));
        body.insert("request_id".to_owned(), json!(request_id));
        if let Some((active, epoch)) = holder.filter(|_| shape != Shape::Control) {
            body.insert("active".to_owned(), json!(active));
            body.insert("control_epoch".to_owned(), json!(epoch));
        }
        if let Some(count) = self.count {
            body.insert("count".to_owned(), json!(count));
        }
        Value::Object(body)
    }

    /// The finished answer.
    pub fn render(&self, shape: Shape, request_id: &str) -> Response {
        let mut response = (self.status, axum::Json(self.body(shape, request_id))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(REALM));
        }
        response
    }
}

/// Hands itself to the envelope, which knows path and request id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::NotActive { .. }
            | Refusal::StaleEpoch { .. }
            | Refusal::InvalidState { .. }
            | Refusal::ReceiverUnavailable { .. }
            | Refusal::ReceiverNotActive { .. }
            | Refusal::OfferPending { .. }
            | Refusal::RequestPending { .. }
            | Refusal::NoOffer { .. }
            | Refusal::DuplicateFeedback => StatusCode::CONFLICT,
            Refusal::SenderNotAllowed { .. }
            | Refusal::NotAReceiver(_)
            | Refusal::NotPermitted { .. }
            | Refusal::TargetNotPermitted { .. } => StatusCode::FORBIDDEN,
            Refusal::UnknownReceiver(_) | Refusal::NoConversation => StatusCode::NOT_FOUND,
        };
        let holder = refusal.holder().map(|(active, epoch)| (active.clone(), epoch));
        Self { holder, ..Self::new(status, refusal.code(), refusal.to_string()) }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::UnknownUser => Self::unknown_user(),
            Failure::Refused(refusal) => refusal.into(),
            Failure::KeyReused => Self::key_reused(),
            Failure::Overloaded => Self::unavailable("overloaded", "too many requests are in flight; nothing was done"),
            Failure::Unavailable(why) => {
                tracing::warn!(why, "a thread could not be asked");
                Self::unavailable("store_unavailable", "the store is not available; nothing was done")
            }
            // No caller's command is done under a lease.
            Failure::Superseded => {
                Self::unavailable("store_unavailable", "another node has this thread; nothing was done")
            }
            Failure::OutcomeUnknown => outcome_unknown(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) => {
                tracing::warn!(why, "the store is unavailable");
                Self::unavailable("store_unavailable", "the store is not available; nothing was done")
            }
            StoreError::Superseded => Failure::Superseded.into(),
            StoreError::OutcomeUnknown => outcome_unknown(),
            StoreError::Corrupt(why) => {
                tracing::error!(why, "the store holds something unreadable");
                Self::internal()
            }
        }
    }
}

impl From<TenancyError> for Problem {
    fn from(error: TenancyError) -> Self {
        match error {
            TenancyError::Invalid(lines) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_configuration", lines.join("\n"))
            }
            TenancyError::Unknown(what) => Self::unknown(what),
            TenancyError::InUse(count) => {
                let text = format!("{count} threads still use it; force=true removes it all the same");
                Self { count: Some(count), ..Self::new(StatusCode::CONFLICT, "in_use", text) }
            }
            TenancyError::Store(error) => error.into(),
        }
    }
}

impl From<TooMany> for Problem {
    fn from(fault: TooMany) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", fault.to_string());
        Self { retry_after_s: Some(fault.retry_after_s), ..problem }
    }
}

impl From<TokenFault> for Problem {
    fn from(fault: TokenFault) -> Self {
        let code = match fault {
            TokenFault::Expired => "token_expired",
            TokenFault::Malformed
            | TokenFault::Algorithm
            | TokenFault::UnknownKey
            | TokenFault::Signature
            | TokenFault::Audience => "token_invalid",
        };
        Self::unauthorized(code, fault.to_string())
    }
}

impl From<SignedFault> for Problem {
    fn from(fault: SignedFault) -> Self {
        match fault {
            SignedFault::Store(StoreError::OutcomeUnknown) => {
                let text = "the store did not answer in time; sign a new request with a new timestamp";
                Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", text)
            }
            SignedFault::Store(error) => error.into(),
            fault => {
                let retry_after_s = (fault == SignedFault::Replayed).then_some(RETRY_AFTER_S);
                Self { retry_after_s, ..Self::new(StatusCode::BAD_REQUEST, fault.code(), fault.to_string()) }
            }
        }
    }
}

fn outcome_unknown() -> Problem {
    let text = "the store did not answer in time, so it may have been done: repeat with the same Idempotency-Key";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_active() -> Problem {
        let id = |text| ReceiverId::new(text).unwrap();
        Refusal::NotActive { by: id("sprinkle"), active: id("iva"), epoch: 4 }.into()
    }

    #[test]
    fn the_three_shapes() {
        let text = "sprinkle does not hold this thread; iva does";
        assert_eq!(
            not_active().body(Shape::of("/tract/message/send/"), "r1"),
            json!({"error": text, "code": "not_active", "request_id": "r1", "active": "iva", "control_epoch": 4})
        );
        assert_eq!(
            not_active().body(Shape::of("/v1.0/log_message_from_user/"), "r1"),
            json!({"error_message": text, "code": "not_active", "request_id": "r1", "active": "iva", "control_epoch": 4})
        );
        assert_eq!(
            not_active().body(Shape::of("/tract/thread_control/request/"), "r1"),
            json!({"success": false, "error": text, "code": "not_active", "request_id": "r1",
                "reason": {"code": "not_active", "message": text, "active": "iva", "control_epoch": 4}})
        );
        assert_eq!(
            Problem::unknown_user().body(Shape::Control, "r1"),
            json!({"success": false, "error": "no such user", "code": "unknown_user", "request_id": "r1",
                "reason": {"code": "unknown_user", "message": "no such user"}})
        );
    }

    #[test]
    fn statuses_and_headers() {
        let header = |problem: &Problem, name| {
            let response = problem.render(Shape::Error, "r");
            response.headers().get(name).map(|v| v.to_str().unwrap().to_owned())
        };
        let overloaded = Problem::from(Failure::Overloaded);
        assert_eq!((overloaded.status().as_u16(), overloaded.code()), (503, "overloaded"));
        assert_eq!(header(&overloaded, "retry-after").as_deref(), Some("1"));
        let down = Problem::from(Failure::Unavailable("secret path".to_owned()));
        assert_eq!((down.status().as_u16(), down.code()), (503, "store_unavailable"));
        assert!(!down.body(Shape::Error, "r").to_string().contains("secret path"));
        let unknown = Problem::from(Failure::OutcomeUnknown);
        assert_eq!((unknown.status().as_u16(), unknown.code()), (504, "outcome_unknown"));
        let reused = Problem::from(Failure::KeyReused);
        assert_eq!((reused.status().as_u16(), reused.code()), (422, "idempotency_key_reused"));
        let expired = Problem::from(TokenFault::Expired);
        assert_eq!((expired.status().as_u16(), expired.code()), (401, "token_expired"));
        assert!(header(&expired, "www-authenticate").is_some_and(|v| v.starts_with("Bearer")));
        let codes = ["hook", "ECT", "client", "business", "receiver"].map(|what| Problem::unknown(what).code());
        let expected = ["unknown_hook", "unknown_ect", "unknown_client", "unknown_business", "unknown_receiver"];
        assert_eq!(codes, expected);
        let used = Problem::from(TenancyError::InUse(3));
        assert_eq!((used.status().as_u16(), used.code()), (409, "in_use"));
        assert_eq!(used.body(Shape::Error, "r")["count"], 3);
        assert_eq!(not_active().status().as_u16(), 409);
    }
}
