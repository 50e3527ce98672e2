//! What travels beside a message or event: the sender's own keys, overlaid by ours (section 6).

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;
use tract_domain::Json;

/// An object whose values pass through as they were written: numbers keep their digits.
#[derive(Serialize, Default)]
#[serde(transparent)]
pub struct Metadata(BTreeMap<String, Box<RawValue>>);

impl From<BTreeMap<String, Box<RawValue>>> for Metadata {
    fn from(fields: BTreeMap<String, Box<RawValue>>) -> Self {
        Self(fields)
    }
}

impl Metadata {
    /// The sender's keys.
    pub fn of(sender: Option<&Json>) -> Self {
        sender.and_then(|json| serde_json::from_str(&json.0).ok()).map(Self).unwrap_or_default()
    }
    /// Sets one of ours; the sender's of the same name gives way.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Serialize) -> Self {
        // What we put in are strings, numbers and flags: their serialisation has no way to fail.
        if let Ok(raw) = to_raw_value(&value) {
            self.0.insert(key.to_owned(), raw);
        }
        self
    }
    /// Sets one of ours if there is something to say; with nothing to say, the sender's of the same name goes all the same.
    #[must_use]
    pub fn with_some(mut self, key: &str, value: Option<impl Serialize>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => {
                self.0.remove(key);
                self
            }
        }
    }
    /// One value, as it was written.
    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.get(key).map(AsRef::as_ref)
    }
    /// The whole object, serialised.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }
}

/// Stored JSON text, to be embedded as it is; what is not JSON (nobody stores such) becomes null.
pub(crate) fn embedded(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_keys_win_and_theirs_are_untouched() {
        let theirs = Json(
            r#"{"sequence": "mine", "by": "me", "big": 123456789012345678901234567890, "deep": {"a": [1.0]}}"#.into(),
        );
        let ours = Metadata::of(Some(&theirs)).with("sequence", 7).with_some("by", None::<&str>).with("active", "iva");
        assert_eq!(
            ours.to_json(),
            r#"{"active":"iva","big":123456789012345678901234567890,"deep":{"a": [1.0]},"sequence":7}"#
        );
    }

    #[test]
    fn what_is_no_object_counts_as_nothing() {
        assert_eq!(Metadata::of(Some(&Json("[1]".into()))).to_json(), "{}");
        assert_eq!(Metadata::of(None).to_json(), "{}");
    }
}
