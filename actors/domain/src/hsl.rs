//! HSL, the message language (section 6): which elements are let through.
//!
//! Real messages are sloppy, so this refuses only what no renderer could show. Everything else passes untouched: fields
//! and element types that are not known here, and optional fields that are not there.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::{borrow::Cow, fmt};

/// A parsed element, only as far as checking needs it: numbers carry no value, texts borrow from the input.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'a> {
    /// `null`, which counts as absent.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Node<'a>>),
    /// An object, in the order of its keys; of a repeated key the last counts, as with most readers of JSON.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// An object's field, unless it is absent or null.
    fn field(&self, name: &str) -> Option<&Node<'a>> {
        let Self::Object(fields) = self else { return None };
        fields.iter().rev().find(|(key, _)| key == name).map(|(_, node)| node).filter(|node| **node != Self::Null)
    }
}

/// What is wrong with an element, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} {what}")]
pub struct Fault {
    /// Such as `data.items[2].type`; empty for the element itself.
    pub path: String,
    /// Reads on from the path: `must be a list`.
    pub what: &'static str,
}

/// Where the check is; rendered only when something is wrong.
#[derive(Clone, Copy)]
enum At<'p> {
    Root,
    Field(&'p At<'p>, &'static str),
    Item(&'p At<'p>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(At::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl At<'_> {
    fn fault(&self, what: &'static str) -> Fault {
        Fault { path: self.to_string(), what }
    }
}

/// Whether this element can be shown to anybody.
pub fn check(element: &Node<'_>) -> Result<(), Fault> {
    let root = At::Root;
    if !matches!(element, Node::Object(_)) {
        return Err(root.fault("must be an object"));
    }
    let text = text_field(element, &root, "text")?;
    let kind = text_field(element, &root, "type")?;
    let data = element.field("data");
    if text.is_none() && data.is_none() {
        return Err(root.fault("must have `text` or `data`"));
    }
    let at = At::Field(&root, "data");
    let has_text = text.is_some_and(|t| !t.is_empty());
    match kind {
        Some("TEXT") => list_field(object(data, &at)?, &at, "quick_replies", actionable).map(drop),
        Some("BUTTON") => shown(list_field(object(data, &at)?, &at, "items", actionable)?, has_text, &at),
        Some("CAROUSEL") => {
            let data = object(data, &at)?;
            if let Some(data) = data {
                text_field(data, &at, "width")?;
            }
            shown(list_field(data, &at, "items", card)?, has_text, &at)
        }
        Some("SYSTEM") | None => object(data, &at).map(drop),
        Some(_) => Ok(()),
    }
}

/// Buttons or cards without a list of them are nothing to show, unless there is a text.
fn shown(has_items: bool, has_text: bool, at: &At<'_>) -> Result<(), Fault> {
    if has_items || has_text { Ok(()) } else { Err(At::Field(at, "items").fault("is missing")) }
}

fn actionable(node: &Node<'_>, at: &At<'_>) -> Result<(), Fault> {
    let node = object(Some(node), at)?.ok_or_else(|| at.fault("must be an object"))?;
    let label = text_field(node, at, "actionable_text")?;
    let uri = text_field(node, at, "uri")?;
    text_field(node, at, "type")?;
    let payload = object(node.field("payload"), &At::Field(at, "payload"))?;
    if label.is_none() && uri.is_none() && payload.is_none() {
        return Err(at.fault("must have `actionable_text`, `uri` or `payload`"));
    }
    Ok(())
}

fn card(node: &Node<'_>, at: &At<'_>) -> Result<(), Fault> {
    let node = object(Some(node), at)?.ok_or_else(|| at.fault("must be an object"))?;
    let thumbnail = At::Field(at, "thumbnail");
    if let Some(node) = object(node.field("thumbnail"), &thumbnail)? {
        text_field(node, &thumbnail, "image")?;
    }
    for name in ["title", "sub_title", "description"] {
        text_field(node, at, name)?;
    }
    list_field(Some(node), at, "actionables", actionable).map(drop)
}

fn object<'n, 'a>(node: Option<&'n Node<'a>>, at: &At<'_>) -> Result<Option<&'n Node<'a>>, Fault> {
    match node {
        None | Some(Node::Null) => Ok(None),
        Some(Node::Object(_)) => Ok(node),
        Some(_) => Err(at.fault("must be an object")),
    }
}

fn text_field<'n>(node: &'n Node<'_>, at: &At<'_>, name: &'static str) -> Result<Option<&'n str>, Fault> {
    match node.field(name) {
        None => Ok(None),
        Some(Node::Text(text)) => Ok(Some(text)),
        Some(_) => Err(At::Field(at, name).fault("must be a string")),
    }
}

/// Checks each item of a list; says whether the list is there.
fn list_field(
    node: Option<&Node<'_>>,
    at: &At<'_>,
    name: &'static str,
    item: fn(&Node<'_>, &At<'_>) -> Result<(), Fault>,
) -> Result<bool, Fault> {
    let at = At::Field(at, name);
    match node.and_then(|n| n.field(name)) {
        None => Ok(false),
        Some(Node::List(items)) => {
            for (index, node) in items.iter().enumerate() {
                item(node, &At::Item(&at, index))?;
            }
            Ok(true)
        }
        Some(_) => Err(at.fault("must be a list")),
    }
}

impl<'de> Deserialize<'de> for Node<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Node::Null)
    }
    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Node::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Node::deserialize(deserializer)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Node::Bool)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Node::Number)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Node::Number)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Node::Number)
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Node::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Node::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Node::Text(Cow::Owned(text)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // No `size_hint` as capacity: it is the sender's word.
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            fields.push((key, map.next_value()?));
        }
        Ok(Node::Object(fields))
    }
}

/// A key, borrowed where it has no escapes; serde's own `Cow` always copies.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(json: &str) -> Option<String> {
        let node: Node<'_> = serde_json::from_str(json).unwrap();
        check(&node).err().map(|f| f.to_string().trim().to_owned())
    }

    #[test]
    fn what_a_renderer_can_show_passes() {
        for json in [
            r#"{"text":"hi"}"#,
            r#"{"text":"hi","type":"TEXT","data":{}}"#,
            r#"{"text":"hi","type":"TEXT","data":null,"extra":[1,2.5,true,null]}"#,
            r#"{"text":"","type":"TEXT","data":{"quick_replies":[{"actionable_text":"Yes","type":"TEXT_ONLY","is_default":0,"payload":{"message":"yes","gogo_message":"y"}}]}}"#,
            r#"{"text":"pick","type":"BUTTON","data":{"items":[{"actionable_text":"Site","uri":"LINK","type":"APP_ACTION","payload":{"url":"https://x.example"}}]}}"#,
            r#"{"text":"pick","type":"BUTTON","data":{}}"#,
            r#"{"type":"CAROUSEL","data":{"width":"MEDIUM","image_aspect_ratio":1.5,"items":[{"thumbnail":{"image":"https://x.example/a.png"},"title":"A","actionables":[]},{}]}}"#,
            r#"{"text":"gone","type":"SYSTEM","data":{"event_name":"chat_pinned"}}"#,
            r#"{"type":"TAB_LIST","data":[1,2,3]}"#,
            r#"{"text":"no type","data":{"anything":{"goes":1}}}"#,
        ] {
            assert_eq!(fault(json), None, "{json}");
        }
    }

    #[test]
    fn what_no_renderer_can_show_is_refused_with_its_path() {
        for (json, expected) in [
            ("[]", "must be an object"),
            ("{}", "must have `text` or `data`"),
            (r#"{"type":"TEXT"}"#, "must have `text` or `data`"),
            (r#"{"text":null,"data":null}"#, "must have `text` or `data`"),
            (r#"{"text":5}"#, "text must be a string"),
            (r#"{"text":"a","type":7}"#, "type must be a string"),
            (r#"{"text":"a","data":"b"}"#, "data must be an object"),
            (r#"{"text":"a","type":"TEXT","data":{"quick_replies":{}}}"#, "data.quick_replies must be a list"),
            (r#"{"text":"a","type":"TEXT","data":{"quick_replies":["b"]}}"#, "data.quick_replies[0] must be an object"),
            (r#"{"type":"BUTTON","data":{}}"#, "data.items is missing"),
            (r#"{"text":"a","type":"BUTTON","data":{"items":"b"}}"#, "data.items must be a list"),
            (
                r#"{"text":"a","type":"BUTTON","data":{"items":[{"uri":""},{"uri":""},{"type":1,"uri":"LINK"}]}}"#,
                "data.items[2].type must be a string",
            ),
            (
                r#"{"text":"a","type":"BUTTON","data":{"items":[{}]}}"#,
                "data.items[0] must have `actionable_text`, `uri` or `payload`",
            ),
            (
                r#"{"type":"CAROUSEL","data":{"items":[{"thumbnail":{"image":{}}}]}}"#,
                "data.items[0].thumbnail.image must be a string",
            ),
            (
                r#"{"type":"CAROUSEL","data":{"items":[{"actionables":[{"uri":"LINK","payload":[]}]}]}}"#,
                "data.items[0].actionables[0].payload must be an object",
            ),
            (r#"{"type":"CAROUSEL","data":{"width":3,"items":[]}}"#, "data.width must be a string"),
        ] {
            assert_eq!(fault(json).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn of_a_repeated_key_the_last_counts() {
        assert_eq!(fault(r#"{"text":5,"text":"a"}"#), None);
        assert_eq!(fault(r#"{"text":"a","text":5}"#).as_deref(), Some("text must be a string"));
    }

    fn any_node() -> impl Strategy<Value = Node<'static>> {
        let names = ["text", "type", "data", "items", "quick_replies", "actionables", "payload", "thumbnail", "width"];
        let words = vec!["TEXT", "BUTTON", "CAROUSEL", "SYSTEM", "", "x"];
        let leaf = prop_oneof![
            Just(Node::Null),
            Just(Node::Bool),
            Just(Node::Number),
            prop::sample::select(words).prop_map(|w| Node::Text(Cow::Borrowed(w))),
        ];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            let field = (prop::sample::select(names.to_vec()), inner.clone()).prop_map(|(k, v)| (Cow::Borrowed(k), v));
            prop_oneof![
                prop::collection::vec(inner, 0..5).prop_map(Node::List),
                prop::collection::vec(field, 0..6).prop_map(Node::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_tree_gets_a_verdict(node in any_node()) {
            if let Err(fault) = check(&node) {
                prop_assert!(!fault.what.is_empty());
            }
        }

        /// Whatever passes still passes with fields that nobody knows.
        #[test]
        fn unknown_fields_change_nothing(node in any_node(), more in any_node()) {
            if let Node::Object(fields) = &node {
                let mut fields = fields.clone();
                fields.push((Cow::Borrowed("unheard_of"), more));
                prop_assert_eq!(check(&node), check(&Node::Object(fields)));
            }
        }

        #[test]
        fn unknown_types_pass(data in any_node()) {
            let text = (Cow::Borrowed("text"), Node::Text(Cow::Borrowed("a")));
            let kind = (Cow::Borrowed("type"), Node::Text(Cow::Borrowed("MAP")));
            prop_assert_eq!(check(&Node::Object(vec![text, kind, (Cow::Borrowed("data"), data)])), Ok(()));
        }
    }
}
