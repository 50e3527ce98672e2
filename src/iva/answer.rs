//! What a bot's answer means. Bots are sloppy: whatever can be shown to the customer is shown.

use crate::hsl::{MAX_BODY, read_body, text_element};
use crate::security::egress::{Answer, SendFault};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tract_actors::ports::TurnEnd;
use tract_domain::{Body, IvaAnswer, Json};

/// How much of an answer is read, in bytes.
pub const MAX_ANSWER: usize = 1024 * 1024;

/// How many messages an answer may hold: they are one commit, and a commit holds up everybody else's.
pub const MAX_MESSAGES: usize = 100;

/// How much a bot may keep, in characters: of the conversation and of the user together.
pub const MAX_DETAILS: usize = 500;

/// What the bot keeps already.
#[derive(Debug, Default, Clone, Copy)]
pub struct Kept<'a> {
    /// Of the conversation.
    pub conversation_details: Option<&'a Json>,
    /// Of the user.
    pub user_details: Option<&'a Json>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    response: Option<Box<RawValue>>,
    #[serde(default)]
    conversation_details: Option<Value>,
    #[serde(default)]
    user_details: Option<Value>,
    #[serde(default)]
    callback_ops: Value,
    #[serde(default)]
    complete: Value,
}

/// How the turn ended.
pub fn judge(sent: &Result<Answer, SendFault>, kept: Kept<'_>) -> TurnEnd {
    match sent {
        Err(fault) => TurnEnd::Broke(fault.to_string()),
        Ok(Answer { status: 202, .. }) => TurnEnd::Deferred,
        Ok(Answer { status: 200, body: Some(body), .. }) => read(body, kept).unwrap_or_else(TurnEnd::Broke),
        Ok(Answer { status: 200, body: None, .. }) => {
            TurnEnd::Broke("the answer did not come in time, or is over 1 MiB".to_owned())
        }
        Ok(Answer { status, .. }) => TurnEnd::Broke(format!("status {status}")),
    }
}

/// Reads the body of a 200. The error is the reason of the bot break; it never says what anybody said.
fn read(body: &[u8], kept: Kept<'_>) -> Result<TurnEnd, String> {
    if body.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return Err("the answer is not a JSON object".to_owned());
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|_| "the answer is not JSON".to_owned())?;
    let messages = messages(wire.response.as_deref())?;
    let handoff = handoff(&wire.callback_ops);
    let complete = wire.complete == Value::Bool(true);
    if messages.is_empty() && handoff.is_none() && !complete {
        return Err("the answer is empty".to_owned());
    }
    let details = details(wire.conversation_details.as_ref(), wire.user_details.as_ref(), kept);
    let (conversation_details, user_details, details_fault) = match details {
        Ok((conversation, user)) => (conversation, user, None),
        Err(fault) => (None, None, Some(fault)),
    };
    let answer = IvaAnswer { messages, handoff, complete, conversation_details, details_fault };
    Ok(TurnEnd::Answered { answer, user_details })
}

/// A list, a single item, or nothing.
fn messages(response: Option<&RawValue>) -> Result<Vec<Body>, String> {
    let Some(response) = response else { return Ok(Vec::new()) };
    let items: Vec<&RawValue> = match serde_json::from_str(response.get()) {
        Ok(items) => items,
        Err(_) => vec![response],
    };
    if items.len() > MAX_MESSAGES {
        return Err(format!("response has over {MAX_MESSAGES} messages"));
    }
    let read = items
        .into_iter()
        .enumerate()
        .map(|(index, item)| message(item).map_err(|fault| format!("response[{index}] {fault}")));
    read.filter_map(Result::transpose).collect()
}

/// Text, an HSL object, or a serialised one. Nothing (null, blank text) is no message.
fn message(item: &RawValue) -> Result<Option<Body>, &'static str> {
    let body = match serde_json::from_str(item.get()) {
        Ok(Value::Null) => return Ok(None),
        Ok(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        // Text that only looks like HSL is still what the bot wanted to say: better seen than lost.
        Ok(Value::String(text)) => read_body(&text).unwrap_or_else(|_| text_element(&text)),
        Ok(Value::Number(number)) => text_element(&number.to_string()),
        // As it was written: re-serialising would change numbers and the order of keys.
        Ok(Value::Object(element)) => match (read_body(item.get()), element.get("text")) {
            (Ok(body), _) => body,
            (Err(_), Some(Value::String(text))) if !text.trim().is_empty() => text_element(text),
            _ => return Err("is neither text nor HSL"),
        },
        _ => return Err("is neither text nor HSL"),
    };
    if body.0.len() > MAX_BODY { Err("is over 64 KiB") } else { Ok(Some(body)) }
}

/// `callback_ops.tract_atc`: whatever stands there wants a hand-off; a receiver that is none is the domain's to judge.
fn handoff(callback_ops: &Value) -> Option<String> {
    match callback_ops.get("tract_atc")? {
        Value::Null | Value::Bool(false) => None,
        Value::String(receiver) => Some(receiver.clone()),
        ops => Some(ops.get("receiver").and_then(Value::as_str).unwrap_or_default().to_owned()),
    }
}

/// New details of the conversation and of the user, within their bounds; the error names the fault.
fn details(
    conversation: Option<&Value>,
    user: Option<&Value>,
    kept: Kept<'_>,
) -> Result<(Option<Json>, Option<Json>), String> {
    let conversation = flat("conversation_details", conversation)?;
    let user = flat("user_details", user)?;
    if conversation.is_some() || user.is_some() {
        // What is kept already counts too, unless this answer replaces it.
        let size = |new: &Option<Json>, old: Option<&Json>| new.as_ref().or(old).map_or(0, |j| j.0.chars().count());
        let together = size(&conversation, kept.conversation_details) + size(&user, kept.user_details);
        if together > MAX_DETAILS {
            return Err(format!("details are {together} characters long together, over {MAX_DETAILS}"));
        }
    }
    Ok((conversation, user))
}

fn flat(name: &str, value: Option<&Value>) -> Result<Option<Json>, String> {
    let fields: &Map<String, Value> = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(format!("{name} is not an object")),
    };
    if !fields.values().all(|v| v.is_string() || v.is_number()) {
        return Err(format!("{name} has a value that is neither a string nor a number"));
    }
    serde_json::to_string(fields).map(|text| Some(Json(text.into()))).map_err(|_| format!("{name} cannot be kept"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn end(status: u16, body: &str, kept: Kept<'_>) -> TurnEnd {
        judge(&Ok(Answer { status, retry_after: None, body: Some(body.to_owned().into()) }), kept)
    }

    fn answered(body: &Value) -> (IvaAnswer, Option<Json>) {
        match end(200, &body.to_string(), Kept::default()) {
            TurnEnd::Answered { answer, user_details } => (answer, user_details),
            other => panic!("{other:?}"),
        }
    }

    fn said(response: Value) -> Vec<Value> {
        let (answer, _) = answered(&json!({"response": response, "complete": true}));
        answer.messages.iter().map(|body| serde_json::from_str(&body.0).unwrap()).collect()
    }

    fn text(text: &str) -> Value {
        json!({"text": text, "type": "TEXT", "data": {"quick_replies": []}})
    }

    #[test]
    fn messages_come_in_every_form_and_in_order() {
        let element = json!({"text": "pick", "type": "BUTTON", "data": {"items": []}});
        let response = json!(["one", element, element.to_string(), null, " ", 42]);
        assert_eq!(said(response), vec![text("one"), element.clone(), element.clone(), text("42")]);
        assert_eq!(said(json!("alone")), vec![text("alone")]);
        assert_eq!(said(element.clone()), vec![element]);
        assert!(said(json!([])).is_empty());
        assert!(said(json!(null)).is_empty());
    }

    #[test]
    fn an_element_passes_through_as_it_was_written() {
        let body = r#"{"response": [{"type":"X", "text":"a", "data":{"n": 1.0, "big": 12345678901234567890123}}]}"#;
        let TurnEnd::Answered { answer, .. } = end(200, body, Kept::default()) else { panic!() };
        assert_eq!(
            &*answer.messages[0].0,
            r#"{"type":"X", "text":"a", "data":{"n": 1.0, "big": 12345678901234567890123}}"#
        );
    }

    #[test]
    fn what_only_looks_like_hsl_is_text() {
        assert_eq!(said(json!([r#"{"text": oops"#, "{}"])), vec![text(r#"{"text": oops"#), text("{}")]);
        let broken = json!({"text": "pick", "type": "BUTTON", "data": {"items": "none"}});
        assert_eq!(said(json!([broken])), vec![text("pick")]);
    }

    #[test]
    fn what_is_not_usable_breaks() {
        let long = json!({"response": ["x".repeat(MAX_BODY)]}).to_string();
        let many = json!({"response": vec![1; MAX_MESSAGES + 1]}).to_string();
        for (body, reason) in [
            ("", "the answer is not a JSON object"),
            ("<html>", "the answer is not a JSON object"),
            (r#"["hi"]"#, "the answer is not a JSON object"),
            (r#"{"response": ["hi"]"#, "the answer is not JSON"),
            (r#""hello""#, "the answer is not a JSON object"),
            ("{}", "the answer is empty"),
            (r#"{"response": [], "status": true}"#, "the answer is empty"),
            (r#"{"response": [null, ""], "complete": false}"#, "the answer is empty"),
            (r#"{"callback_ops": {"tract_atc": null}}"#, "the answer is empty"),
            (r#"{"response": ["a", {"items": 1}]}"#, "response[1] is neither text nor HSL"),
            (r#"{"response": [true]}"#, "response[0] is neither text nor HSL"),
            (&long, "response[0] is over 64 KiB"),
            (&many, "response has over 100 messages"),
        ] {
            assert_eq!(end(200, body, Kept::default()), TurnEnd::Broke(reason.to_owned()), "{body:.40}");
        }
        for status in [201, 204, 301, 400, 410, 500] {
            let broke = TurnEnd::Broke(format!("status {status}"));
            assert_eq!(end(status, r#"{"response": ["hi"]}"#, Kept::default()), broke);
        }
        assert_eq!(judge(&Err(SendFault::TimedOut), Kept::default()), TurnEnd::Broke("timed out".to_owned()));
        assert_eq!(end(202, "", Kept::default()), TurnEnd::Deferred);
    }

    #[test]
    fn a_hand_off_or_an_end_needs_no_words() {
        let handoff = |ops: Value| answered(&json!({"callback_ops": ops, "status": {"any": 1}})).0.handoff;
        assert_eq!(handoff(json!({"tract_atc": {"receiver": "sprinkle"}})).as_deref(), Some("sprinkle"));
        assert_eq!(handoff(json!({"tract_atc": "sprinkle"})).as_deref(), Some("sprinkle"));
        assert_eq!(handoff(json!({"tract_atc": {}})).as_deref(), Some(""));
        assert!(answered(&json!({"complete": true})).0.complete);
    }

    #[test]
    fn details_are_flat_and_small() {
        let with = |conversation: Value, user: Value| {
            answered(&json!({"response": "x", "conversation_details": conversation, "user_details": user}))
        };
        let (answer, user) = with(json!({"order": 5}), json!({"tier": "gold"}));
        assert_eq!(answer.conversation_details, Some(Json(r#"{"order":5}"#.into())));
        assert_eq!(user, Some(Json(r#"{"tier":"gold"}"#.into())));
        assert_eq!(answer.details_fault, None);

        for (conversation, user) in [
            (json!({"a": []}), json!({"b": 1})),
            (json!({"a": "x".repeat(300)}), json!({"b": "y".repeat(200)})),
            (json!([]), json!(null)),
        ] {
            let (answer, user) = with(conversation, user);
            assert_eq!((answer.conversation_details, user), (None, None));
            assert!(answer.details_fault.is_some());
            assert_eq!(answer.messages.len(), 1, "the answer itself stands");
        }
    }

    #[test]
    fn what_is_kept_already_counts() {
        let old = Json(format!(r#"{{"a":"{}"}}"#, "x".repeat(300)).into());
        let kept = Kept { conversation_details: Some(&old), user_details: None };
        let body = |name: &str| json!({"response": "x", name: {"b": "ü".repeat(300)}}).to_string();
        let fault = |end| match end {
            TurnEnd::Answered { answer, .. } => answer.details_fault,
            other => panic!("{other:?}"),
        };
        assert!(fault(end(200, &body("user_details"), kept)).is_some());
        assert_eq!(fault(end(200, &body("conversation_details"), kept)), None, "replaced, not added");
    }
}
