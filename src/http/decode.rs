//! From JSON to what handlers work with: types whose reading says which field is wrong, and how (section 2).

use super::problem::Problem;
use crate::json::{MAX_DEPTH, too_deep};
use axum::http::StatusCode;
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Visitor};
use serde_json::value::RawValue;
use std::{fmt, marker::PhantomData, ops::Deref};
use tract_domain::Json;

/// The largest integer that every JSON reader gets right: 2^53.
pub const MAX_INTEGER: u64 = 1 << 53;

/// Reads a whole body.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let malformed = |what: String| Problem::new(StatusCode::BAD_REQUEST, "malformed_json", what);
    let text = std::str::from_utf8(body).map_err(|_| malformed("the body is not UTF-8".to_owned()))?;
    if too_deep(body) {
        return Err(malformed(format!("the body is nested more than {MAX_DEPTH} levels deep")));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let syntax = |e: &serde_json::Error| {
        malformed(format!("the body is not valid JSON (line {}, column {})", e.line(), e.column()))
    };
    // A list would be read as the fields in their order, which nobody means.
    let value = if text.trim_start().starts_with('{') {
        serde_path_to_error::deserialize(&mut reader).map_err(|e| {
            let path = e.path().to_string();
            let inner = e.inner();
            if inner.is_data() { named(&path, inner) } else { syntax(inner) }
        })?
    } else {
        de::IgnoredAny::deserialize(&mut reader).map_err(|e| syntax(&e))?;
        return Err(malformed("the body must be a JSON object".to_owned()));
    };
    reader.end().map_err(|e| syntax(&e))?;
    Ok(value)
}

fn named(path: &str, error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let what = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
    match (what.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')), path) {
        (Some(field), ".") => Problem::invalid(field, "is missing"),
        (Some(field), path) => Problem::invalid(&format!("{path}.{field}"), "is missing"),
        (None, ".") => Problem::new(StatusCode::BAD_REQUEST, "invalid_field", what.to_owned()),
        (None, path) => Problem::invalid(path, what),
    }
}

/// An integer from 0 to 2^53, also as a decimal string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int(pub u64);

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntVisitor;
        impl Visitor<'_> for IntVisitor {
            type Value = Int;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an integer from 0 to {MAX_INTEGER}")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Int, E> {
                if number <= MAX_INTEGER { Ok(Int(number)) } else { Err(out_of_range()) }
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Int, E> {
                u64::try_from(number).map_err(|_| out_of_range()).and_then(|n| self.visit_u64(n))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Int, E> {
                Err(out_of_range())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Int, E> {
                integer(text).map(Int).ok_or_else(out_of_range)
            }
        }
        deserializer.deserialize_any(IntVisitor)
    }
}

fn out_of_range<E: de::Error>() -> E {
    E::custom(format_args!("must be an integer from 0 to {MAX_INTEGER}"))
}

/// Yes or no, also as 1 or 0, or as one of these in a string: sloppy clients send them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagVisitor;
        impl Visitor<'_> for FlagVisitor {
            type Value = Flag;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }
            fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Flag, E> {
                Ok(Flag(yes))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Flag, E> {
                match number {
                    0 | 1 => Ok(Flag(number == 1)),
                    _ => Err(E::custom("must be true or false")),
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Flag, E> {
                match text {
                    "true" | "1" => Ok(Flag(true)),
                    "false" | "0" => Ok(Flag(false)),
                    _ => Err(E::custom("must be true or false")),
                }
            }
        }
        deserializer.deserialize_any(FlagVisitor)
    }
}

/// Reads a decimal integer from 0 to 2^53.
pub fn integer(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n <= MAX_INTEGER)
}

/// A text of at most `MAX` characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Text<const MAX: usize>(String);

/// A text that names something: 1 to `MAX` characters, none of them a control character.
#[derive(Clone, PartialEq, Eq)]
pub struct Name<const MAX: usize>(String);

macro_rules! text {
    ($name:ident) => {
        impl<const MAX: usize> Deref for $name<MAX> {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }
        impl<const MAX: usize> From<$name<MAX>> for String {
            fn from(text: $name<MAX>) -> String {
                text.0
            }
        }
        impl<const MAX: usize> fmt::Debug for $name<MAX> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({} bytes)", stringify!($name), self.0.len())
            }
        }
    };
}
text!(Text);
text!(Name);

fn at_most<E: de::Error>(text: &str, max: usize) -> Result<(), E> {
    // Counting characters is only needed where there are more bytes than the bound.
    if text.len() > max && text.chars().count() > max {
        return Err(E::custom(format_args!("must be at most {max} characters long")));
    }
    Ok(())
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        at_most(&text, MAX).map(|()| Self(text))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Name<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Err(de::Error::custom("must not be empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(de::Error::custom("must not contain control characters"));
        }
        at_most(&text, MAX).map(|()| Self(text))
    }
}

/// An object within a body. Unlike a bare struct it is not read from a list of its fields, which nobody means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nested<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Nested<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NestedVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for NestedVisitor<T> {
            type Value = Nested<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Nested<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(Nested)
            }
        }
        deserializer.deserialize_any(NestedVisitor(PhantomData))
    }
}

/// A JSON object that passes through untouched. It has been read once, so that whoever gets it can read it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object(pub Json);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(deserializer)?;
        object(raw.get()).map(Self).ok_or_else(|| de::Error::custom("must be an object"))
    }
}

/// This text, if it is a JSON object.
pub fn object(json: &str) -> Option<Json> {
    let is_object = json.starts_with('{') && !too_deep(json.as_bytes());
    // Reading it as values also finds what merely skipping over it does not: lone surrogates, numbers beyond any range.
    let readable = is_object && serde_json::from_str::<serde_json::Map<_, _>>(json).is_ok();
    readable.then(|| Json(json.into()))
}

/// The metadata of an event: an object, or a string that holds one, or any text, which is kept as `{"text": …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventMetadata(pub Option<Json>);

impl<'de> Deserialize<'de> for EventMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(deserializer)?;
        if raw.get() == "null" {
            return Ok(Self(None));
        }
        if let Some(object) = object(raw.get()) {
            return Ok(Self(Some(object)));
        }
        let text: String =
            serde_json::from_str(raw.get()).map_err(|_| de::Error::custom("must be a string or an object"))?;
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Ok(Self(None));
        }
        let kept = object(trimmed).unwrap_or_else(|| Json(serde_json::json!({"text": text}).to_string().into()));
        Ok(Self(Some(kept)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::Shape;
    use proptest::prelude::*;
    use tract_domain::UserId;

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only whether it can be read matters here")]
    struct Wire {
        user_id: UserId,
        #[serde(default)]
        epoch: Option<Int>,
        #[serde(default)]
        name: Option<Name<5>>,
        #[serde(default)]
        note: Option<Text<5>>,
        #[serde(default)]
        metadata: Option<Object>,
        #[serde(default)]
        event: Option<EventMetadata>,
        #[serde(default)]
        inner: Vec<Inner>,
    }
    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only whether it can be read matters here")]
    struct Inner {
        n: Int,
    }

    fn refused(body: &str) -> String {
        let problem = json::<Wire>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.status(), 400, "{body}");
        let body = problem.body(Shape::Error, "");
        format!("{}: {}", problem.code(), body["error"].as_str().unwrap())
    }

    #[test]
    fn says_which_field_is_wrong_and_how() {
        let user = |more: &str| format!(r#"{{"user_id":"u","x":[{{}}],{more}}}"#);
        for (body, expected) in [
            ("{}".to_owned(), "invalid_field: user_id: is missing"),
            (r#"{"user_id":5}"#.to_owned(), "invalid_field: user_id: invalid type: integer `5`, expected a string"),
            (r#"{"user_id":null}"#.to_owned(), "invalid_field: user_id: invalid type: null, expected a string"),
            (r#"{"user_id":""}"#.to_owned(), "invalid_field: user_id: must not be empty"),
            (
                format!(r#"{{"user_id":"{}"}}"#, "a".repeat(129)),
                "invalid_field: user_id: must be at most 128 characters long",
            ),
            (
                r#"{"user_id":"a\u0000"}"#.to_owned(),
                "invalid_field: user_id: may only contain letters, digits, '-', '_', '.' and '~'",
            ),
            (
                user(r#""epoch":9007199254740993"#),
                "invalid_field: epoch: must be an integer from 0 to 9007199254740992",
            ),
            (user(r#""epoch":-1"#), "invalid_field: epoch: must be an integer from 0 to 9007199254740992"),
            (user(r#""epoch":1.5"#), "invalid_field: epoch: must be an integer from 0 to 9007199254740992"),
            (user(r#""epoch":1e300"#), "invalid_field: epoch: must be an integer from 0 to 9007199254740992"),
            (user(r#""epoch":"+1""#), "invalid_field: epoch: must be an integer from 0 to 9007199254740992"),
            (
                user(r#""epoch":true"#),
                "invalid_field: epoch: invalid type: boolean `true`, expected an integer from 0 to 9007199254740992",
            ),
            (user(r#""name":"""#), "invalid_field: name: must not be empty"),
            (user(r#""name":"a\nb""#), "invalid_field: name: must not contain control characters"),
            (user(r#""name":"abcdef""#), "invalid_field: name: must be at most 5 characters long"),
            (user(r#""note":"äöüßéè""#), "invalid_field: note: must be at most 5 characters long"),
            (user(r#""metadata":"{}""#), "invalid_field: metadata: must be an object"),
            (user(r#""metadata":{"a":"\ud800"}"#), "invalid_field: metadata: must be an object"),
            (user(r#""metadata":{"a":1e999}"#), "invalid_field: metadata: must be an object"),
            (user(r#""event":[1]"#), "invalid_field: event: must be a string or an object"),
            (user(r#""inner":[{"n":1},{}]"#), "invalid_field: inner[1].n: is missing"),
            (
                user(r#""inner":[{"n":1},{"n":"x"}]"#),
                "invalid_field: inner[1].n: must be an integer from 0 to 9007199254740992",
            ),
            (String::new(), "malformed_json: the body is not valid JSON (line 1, column 0)"),
            ("{".to_owned(), "malformed_json: the body is not valid JSON (line 1, column 1)"),
            (r#"{"user_id":"u"} x"#.to_owned(), "malformed_json: the body is not valid JSON (line 1, column 17)"),
            ("not json".to_owned(), "malformed_json: the body is not valid JSON (line 1, column 2)"),
            (r#"["u"]"#.to_owned(), "malformed_json: the body must be a JSON object"),
            (
                user(&format!("\"deep\":{}1{}", "[".repeat(200_000), "]".repeat(200_000))),
                "malformed_json: the body is nested more than 64 levels deep",
            ),
        ] {
            assert_eq!(refused(&body), expected, "{:.100}", body);
        }
        assert_eq!(json::<Wire>(b"{\"user_id\":\"\xff\"}").unwrap_err().code(), "malformed_json");
    }

    #[test]
    fn reads_what_integrators_send() {
        let wire: Wire = json(
            r#"{"unknown":{"a":[1]},"user_id":"u1","epoch":"12","name":"äöüßé","note":"a\nb","metadata":{"a" : 1.0}}"#
                .as_bytes(),
        )
        .unwrap();
        assert_eq!(wire.epoch, Some(Int(12)));
        assert_eq!(&*wire.metadata.unwrap().0.0, r#"{"a" : 1.0}"#, "verbatim");
        let wire: Wire = json(br#"{"user_id":"u1","epoch":null,"name":null,"metadata":null}"#).unwrap();
        assert!(wire.epoch.is_none() && wire.name.is_none() && wire.metadata.is_none());
    }

    #[test]
    fn event_metadata_is_an_object_however_it_comes() {
        let read = |json: &str| {
            let kept: EventMetadata = serde_json::from_str(json).unwrap();
            kept.0.map(|json| json.0.to_string())
        };
        assert_eq!(read(r#"{"a":1}"#).as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(read(r#""{\"a\":1}""#).as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(read(r#""gone home""#).as_deref(), Some(r#"{"text":"gone home"}"#));
        assert_eq!(read(r#""[1]""#).as_deref(), Some(r#"{"text":"[1]"}"#));
        assert_eq!(read(r#""""#), None);
        assert_eq!(read("null"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_verdict(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = json::<Wire>(&body);
        }
        #[test]
        fn any_json_like_text_gets_a_verdict(body in "\\{(\"(user_id|epoch|metadata|inner)\":[\\[\\]{}0-9\",:a-z\\\\-]{0,20},?){0,4}\\}?") {
            let _ = json::<Wire>(body.as_bytes());
        }
    }
}
