//! Reading a message body as `message/send` does. Stands in for `crate::hsl::read_body` until that is merged.

use serde_json::Value;
use tract_domain::Body;

/// Not a body that any renderer could show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither text nor HSL")]
pub(super) struct Unreadable;

/// A string that begins like a JSON object must be HSL; any other is text.
pub(super) fn read_body(text: &str) -> Result<Body, Unreadable> {
    let looks_like_hsl =
        text.strip_prefix('{').is_some_and(|rest| matches!(rest.trim_start().chars().next(), Some('"' | '}')));
    if !looks_like_hsl {
        return Ok(text_body(text));
    }
    let element: Value = serde_json::from_str(text).map_err(|_| Unreadable)?;
    let showable =
        element.get("text").is_some_and(Value::is_string) || element.get("data").is_some_and(Value::is_object);
    let items = element.get("data").and_then(|data| data.get("items"));
    if showable && items.is_none_or(Value::is_array) { Ok(Body(text.into())) } else { Err(Unreadable) }
}

/// A TEXT element.
pub(super) fn text_body(text: &str) -> Body {
    Body(serde_json::json!({"text": text, "type": "TEXT", "data": {"quick_replies": []}}).to_string().into())
}
