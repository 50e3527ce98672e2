//! From the strings of the wire to a message's body (section 6): serialised HSL, or plain text that becomes an element.

use crate::json::{MAX_DEPTH, too_deep};
use serde::Serialize;
use serde_json::json;
use tract_domain::{
    Body,
    hsl::{Fault, Node, check},
};

/// Longest `message_body`, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// Why a string is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HslFault {
    /// There is nothing in it.
    #[error("must not be empty")]
    Empty,
    /// It is longer than [`MAX_BODY`].
    #[error("must be at most {MAX_BODY} bytes long")]
    TooLong,
    /// It is nested deeper than anybody reads.
    #[error("must not be nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// It begins like a JSON object but is none.
    #[error("begins like HSL but is not valid JSON (line {line}, column {column})")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// It is an object that no renderer could show.
    #[error("{0}")]
    Element(Fault),
}

impl HslFault {
    /// The path of the fault within the named field: `message_body.data.items[2].type`.
    pub fn path(&self, field: &str) -> String {
        match self {
            Self::Element(Fault { path, .. }) if !path.is_empty() => format!("{field}.{path}"),
            _ => field.to_owned(),
        }
    }
    /// What is wrong there, to read on from the path.
    pub fn what(&self) -> String {
        match self {
            Self::Element(fault) => fault.what.to_owned(),
            other => other.to_string(),
        }
    }
}

/// Reads what a receiver sends. Valid HSL is kept verbatim; what does not look like HSL is text.
pub fn read_body(text: &str) -> Result<Body, HslFault> {
    bounded(text)?;
    if !looks_like_hsl(text) {
        return Ok(text_element(text));
    }
    if too_deep(text.as_bytes()) {
        return Err(HslFault::TooDeep);
    }
    let element: Node<'_> =
        serde_json::from_str(text).map_err(|e| HslFault::Syntax { line: e.line(), column: e.column() })?;
    check(&element).map_err(HslFault::Element)?;
    Ok(Body(text.into()))
}

/// Takes what a customer wrote, which is never parsed.
pub fn customer_text(text: &str) -> Result<Body, HslFault> {
    bounded(text).map(|()| text_element(text))
}

fn bounded(text: &str) -> Result<(), HslFault> {
    match text.len() {
        0 => Err(HslFault::Empty),
        1..=MAX_BODY => Ok(()),
        _ => Err(HslFault::TooLong),
    }
}

fn looks_like_hsl(text: &str) -> bool {
    let next = text.strip_prefix('{').and_then(|rest| rest.trim_start_matches([' ', '\t', '\n', '\r']).chars().next());
    matches!(next, Some('"' | '}'))
}

/// A TEXT element that says this.
pub fn text_element(text: &str) -> Body {
    #[derive(Serialize)]
    struct Element<'a> {
        text: &'a str,
        r#type: &'static str,
        data: Data,
    }
    #[derive(Serialize)]
    struct Data {
        quick_replies: [(); 0],
    }
    let element = Element { text, r#type: "TEXT", data: Data { quick_replies: [] } };
    // Serialising strings and lists to memory cannot fail; an empty element would still be valid JSON.
    Body(serde_json::to_string(&element).unwrap_or_else(|_| "{}".to_owned()).into())
}

/// An image that a customer sent, with what was said to it: a CAROUSEL of one card.
pub fn image_element(text: &str, url: &str) -> Body {
    let card = json!({"thumbnail": {"image": url}, "actionables": []});
    element(json!({"text": text, "type": "CAROUSEL", "data": {"items": [card], "width": "MEDIUM"}}))
}

/// A document that a customer sent, with what was said to it: a BUTTON that leads to it.
pub fn document_element(text: &str, name: &str, url: &str) -> Body {
    let link = json!({"actionable_text": name, "uri": "LINK", "type": "APP_ACTION", "payload": {"url": url}});
    element(json!({"text": text, "type": "BUTTON", "data": {"items": [link]}}))
}

fn element(value: serde_json::Value) -> Body {
    Body(value.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_becomes_an_element() {
        for text in ["hi", "{not json", "{ 'a'", "[1]", " {\"text\":\"a\"}", "{", "\u{0}\n\"\\"] {
            let body = read_body(text).unwrap();
            let value: serde_json::Value = serde_json::from_str(&body.0).unwrap();
            assert_eq!(value, serde_json::json!({"text": text, "type": "TEXT", "data": {"quick_replies": []}}));
        }
        assert_eq!(&*read_body("hi").unwrap().0, r#"{"text":"hi","type":"TEXT","data":{"quick_replies":[]}}"#);
    }

    #[test]
    fn hsl_is_kept_verbatim() {
        for text in [r#"{ "text" : "a" , "n": 1.50 }"#, "{\n\"text\":\"a\"}"] {
            assert_eq!(&*read_body(text).unwrap().0, text);
        }
    }

    #[test]
    fn broken_hsl_is_refused_with_its_path() {
        let fault = |text: &str| {
            let fault = read_body(text).unwrap_err();
            format!("{}: {}", fault.path("message_body"), fault.what())
        };
        assert_eq!(fault("{}"), "message_body: must have `text` or `data`");
        assert_eq!(
            fault(r#"{"text":"a","type":"BUTTON","data":{"items":[{"uri":"LINK","type":2}]}}"#),
            "message_body.data.items[0].type: must be a string"
        );
        assert_eq!(fault(r#"{"text":"a""#), "message_body: begins like HSL but is not valid JSON (line 1, column 11)");
        assert_eq!(
            fault(r#"{"text":"a"} b"#),
            "message_body: begins like HSL but is not valid JSON (line 1, column 14)"
        );
        let deep = format!("{{\"text\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read_body(&deep[..60_000]), Err(HslFault::TooDeep));
        assert_eq!(read_body(&deep), Err(HslFault::TooLong));
        assert_eq!(read_body(""), Err(HslFault::Empty));
        assert!(read_body(&"a".repeat(MAX_BODY)).is_ok());
    }

    #[test]
    fn files_are_elements_that_can_be_shown() {
        let url = "https://t.example/files/t";
        for (body, shown) in [
            (image_element("", url), r#""image":"https://t.example/files/t""#),
            (document_element("see \"here\"", "a \"b\".pdf", url), r#""actionable_text":"a \"b\".pdf""#),
        ] {
            assert!(body.0.contains(shown), "{}", body.0);
            assert_eq!(read_body(&body.0).as_ref(), Ok(&body));
        }
    }

    #[test]
    fn a_customer_is_never_parsed() {
        assert!(customer_text(r#"{"text":5}"#).unwrap().0.contains(r#"{\"text\":5}"#));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_json(text in "\\{?[\"{}\\[\\]:,a-z \\\\]{0,40}") {
            if let Ok(body) = read_body(&text) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&body.0).is_ok());
            }
        }
    }
}
