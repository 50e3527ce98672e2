//! What an endpoint's answer means for a delivery (section 8).

use crate::security::egress::{Answer, SendFault};
use serde_json::{Map, Value};
use tract_actors::ports::Attempt;
use tract_actors::schedule::RETRY_AFTER_MAX_MS;
use tract_domain::Timestamp;

/// How much of an endpoint's complaint is kept, in characters.
const MAX_COMPLAINT: usize = 200;

/// Longest id of an ECT's own for a user that is kept, in characters.
const MAX_ECT_USER_ID: usize = 256;

/// Judges what came of sending a webhook.
pub(super) fn judge(sent: &Result<Answer, SendFault>, now: Timestamp) -> Attempt {
    match sent {
        Ok(answer) => judge_answer(answer, now),
        Err(SendFault::HeldUp) => Attempt::Postponed(SendFault::HeldUp.to_string()),
        Err(fault) => Attempt::Failed { reason: fault.to_string(), retry_after_ms: None },
    }
}

fn judge_answer(answer: &Answer, now: Timestamp) -> Attempt {
    match answer.status {
        200..=299 => match complaint(answer) {
            Some(error) => Attempt::Rejected(error),
            None => Attempt::Accepted,
        },
        410 => Attempt::Gone,
        status => {
            let asked = answer.retry_after.as_deref().filter(|_| matches!(status, 429 | 503));
            let retry_after_ms = asked.and_then(|text| retry_after(text, now));
            Attempt::Failed { reason: format!("status {status}"), retry_after_ms }
        }
    }
}

/// The non-empty `error` of a JSON body, if it has one.
fn complaint(answer: &Answer) -> Option<String> {
    let mut body: Map<String, Value> = serde_json::from_slice(answer.body.as_ref()?).ok()?;
    let text = match body.remove("error")? {
        Value::Null | Value::Bool(false) => return None,
        Value::String(text) => text,
        Value::Array(items) if items.is_empty() => return None,
        Value::Object(fields) if fields.is_empty() => return None,
        other => other.to_string(),
    };
    if text.trim().is_empty() {
        return None;
    }
    let shown = text.chars().take(MAX_COMPLAINT).map(|c| if c.is_control() { ' ' } else { c });
    Some(shown.collect())
}

/// What an ECT says it calls the user, in its answer to `create_user` (section 4).
pub(super) fn ect_user_id(answer: &Answer) -> Option<String> {
    let mut body: Map<String, Value> = serde_json::from_slice(answer.body.as_ref()?).ok()?;
    let id = match body.remove("ect_user_id")? {
        Value::String(id) => id,
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    (!id.is_empty() && id.chars().count() <= MAX_ECT_USER_ID).then_some(id)
}

/// Milliseconds to wait: the header is a number of seconds, or a date.
fn retry_after(text: &str, now: Timestamp) -> Option<u64> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1000)
    } else {
        let date = jiff::fmt::rfc2822::parse(text).ok()?;
        Timestamp(date.timestamp().as_millisecond()).since(now)
    };
    Some(wait.min(RETRY_AFTER_MAX_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after: None, body: Some(body.to_owned().into()) }
    }

    #[test]
    fn a_2xx_is_received_whatever_it_says() {
        for (status, body) in [(200, "{}"), (204, ""), (201, "not json"), (200, "[1]"), (202, r#"{"success": true}"#)] {
            assert_eq!(judge(&Ok(answer(status, body)), NOW), Attempt::Accepted, "{body}");
        }
        for body in
            [r#"{"error": ""}"#, r#"{"error": null}"#, r#"{"error": []}"#, r#"{"error": {}}"#, r#"{"error":false}"#]
        {
            assert_eq!(judge(&Ok(answer(200, body)), NOW), Attempt::Accepted, "{body}");
        }
        assert_eq!(judge(&Ok(Answer { status: 200, retry_after: None, body: None }), NOW), Attempt::Accepted);
    }

    #[test]
    fn a_2xx_with_an_error_is_rejected() {
        let rejected = |body| match judge(&Ok(answer(200, body)), NOW) {
            Attempt::Rejected(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(rejected(r#"{"error": "no such\nuser"}"#), "no such user");
        assert_eq!(rejected(r#"{"error": {"code": 7}}"#), r#"{"code":7}"#);
        assert_eq!(rejected(r#"{"error": true}"#), "true");
        assert_eq!(rejected(&format!(r#"{{"error": "{}"}}"#, "ü".repeat(500))).chars().count(), MAX_COMPLAINT);
    }

    #[test]
    fn everything_else_failed() {
        for status in [100, 301, 302, 307, 400, 401, 404, 409, 500, 599] {
            let expected = Attempt::Failed { reason: format!("status {status}"), retry_after_ms: None };
            assert_eq!(judge(&Ok(answer(status, r#"{"error": "x"}"#)), NOW), expected);
        }
        assert_eq!(judge(&Ok(answer(410, "")), NOW), Attempt::Gone);
        let timed_out = Attempt::Failed { reason: "timed out".to_owned(), retry_after_ms: None };
        assert_eq!(judge(&Err(SendFault::TimedOut), NOW), timed_out);
        // It was we who were not there: no attempt of the endpoint's schedule.
        assert!(matches!(judge(&Err(SendFault::HeldUp), NOW), Attempt::Postponed(_)));
    }

    #[test]
    fn retry_after_counts_on_429_and_503() {
        let wait = |status, text: &str| {
            let answer = Answer { status, retry_after: Some(text.to_owned()), body: None };
            match judge(&Ok(answer), NOW) {
                Attempt::Failed { retry_after_ms, .. } => retry_after_ms,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wait(503, "30"), Some(30_000));
        assert_eq!(wait(429, " 0 "), Some(0));
        assert_eq!(wait(429, "99999999999999999999999"), Some(RETRY_AFTER_MAX_MS));
        assert_eq!(wait(503, "Sun, 06 Nov 1994 08:50:37 GMT"), Some(60_000));
        assert_eq!(wait(503, "Sun, 06 Nov 1994 08:48:37 GMT"), Some(0));
        assert_eq!(wait(503, "soon"), None);
        assert_eq!(wait(503, "-1"), None);
        assert_eq!(wait(500, "30"), None);
    }

    #[test]
    fn what_the_ect_calls_the_user_is_read() {
        let id = |body| ect_user_id(&answer(200, body));
        assert_eq!(id(r#"{"success": true, "ect_user_id": "x-9"}"#).as_deref(), Some("x-9"));
        assert_eq!(id(r#"{"success": true, "ect_user_id": 9}"#).as_deref(), Some("9"));
        assert_eq!(id(r#"{"success": true}"#), None);
        assert_eq!(id(r#"{"ect_user_id": ""}"#), None);
        assert_eq!(id(r#"{"ect_user_id": {"a": 1}}"#), None);
        assert_eq!(id("no"), None);
    }
}
