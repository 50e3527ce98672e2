//! Facts of a thread as they travel: the entries of the feed (section 6).

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tract_actors::ports::StoredEntry;
use tract_domain::entry::IvaNote;
use tract_domain::{
    Agent, Completion, ControlChange, Entry, Event, Fact, Json, Message, ReceiverId, StateChange, Timestamp,
};

/// A time on the wire: ISO 8601, UTC, milliseconds, `Z`.
pub fn time(at: Timestamp) -> String {
    // A time beyond the calendar's end is not worth an error: it shows as the end.
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.3}")
}

/// A cause, action or the like by its wire name, which is its serde name.
pub fn name<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// `completion_type`, section 10.
pub fn completion(completion: Completion) -> &'static str {
    match completion {
        Completion::Bot => "gogo",
        Completion::Agent => "agent",
        Completion::Auto => "autocomplete",
    }
}

/// The wire names of what is known of an agent.
pub fn agent(agent: &Agent) -> Map<String, Value> {
    let fields = [
        ("agent_id", &agent.id),
        ("agent_name", &agent.name),
        ("agent_email", &agent.email),
        ("profile_image", &agent.profile_image),
        ("team_name", &agent.team_name),
    ];
    fields.into_iter().filter_map(|(name, v)| v.as_ref().map(|v| (name.to_owned(), json!(v)))).collect()
}

/// An object's fields, each verbatim. What is stored was checked when it came in.
pub fn fields(object: Option<&Json>) -> BTreeMap<String, Box<RawValue>> {
    object.and_then(|json| serde_json::from_str(&json.0).ok()).unwrap_or_default()
}

/// Puts our own fields over a sender's: ours win.
pub fn overlay(fields: &mut BTreeMap<String, Box<RawValue>>, ours: Map<String, Value>) {
    for (name, value) in ours {
        if let Ok(raw) = serde_json::value::to_raw_value(&value) {
            fields.insert(name, raw);
        }
    }
}

/// A message's `metadata`: the sender's keys, then ours, as this receiver stands to the thread.
pub fn message_metadata(
    entry: &Entry,
    message: &Message,
    viewer: Option<&ReceiverId>,
) -> BTreeMap<String, Box<RawValue>> {
    let mut metadata = fields(message.metadata.as_ref());
    // Ours too, of deliveries: here it would only be somebody's word.
    metadata.remove("replayed");
    let mut ours = Map::new();
    ours.insert("sequence".to_owned(), json!(entry.sequence));
    ours.insert("control_epoch".to_owned(), json!(entry.control_epoch));
    ours.insert("active".to_owned(), json!(entry.active.as_str()));
    if let Some(viewer) = viewer {
        ours.insert("standby".to_owned(), json!(*viewer != entry.active));
    }
    overlay(&mut metadata, ours);
    metadata
}

/// One entry of the feed.
#[derive(Debug, Serialize)]
pub struct FeedEntry {
    sequence: u64,
    kind: &'static str,
    conversation_number: String,
    timestamp: String,
    control_epoch: u64,
    #[serde(flatten)]
    own: BTreeMap<&'static str, Value>,
    /// Verbatim, so beside the fields that are made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<String, Box<RawValue>>>,
}

/// Renders an entry as this receiver sees it; the operator is no receiver.
pub fn feed_entry(stored: &StoredEntry, viewer: Option<&ReceiverId>) -> FeedEntry {
    let entry = &stored.entry;
    let (kind, own, metadata) = match &entry.fact {
        Fact::Message(message) => {
            let own = BTreeMap::from([
                ("message_id", json!(stored.message_id)),
                ("message_body", json!(&*message.body.0)),
                ("sender", json!(message.sender.as_str())),
            ]);
            ("message", own, Some(message_metadata(entry, message, viewer)))
        }
        Fact::Event(event) => {
            let (own, metadata) = event_fields(event);
            ("event", own, metadata.map(|m| fields(Some(m))))
        }
        Fact::State(change) => ("state", state_fields(change), change.metadata.as_ref().map(|m| fields(Some(m)))),
        Fact::Control(change) => {
            let mut own = control_fields(change);
            own.insert("active", json!(entry.active.as_str()));
            ("control", own, change.metadata.as_ref().map(|m| fields(Some(m))))
        }
    };
    FeedEntry {
        sequence: entry.sequence,
        kind,
        conversation_number: entry.conversation.to_string(),
        timestamp: time(entry.at),
        control_epoch: entry.control_epoch,
        own,
        metadata,
    }
}

fn event_fields(event: &Event) -> (BTreeMap<&'static str, Value>, Option<&Json>) {
    match event {
        Event::Agent { topic, by, agent: named, metadata } => {
            let (category, subcategory) = topic.names();
            let mut own = categorised(category, json!(subcategory));
            own.insert("by", json!(by.as_str()));
            put(&mut own, "agent", named.as_ref().map(|a| Value::Object(agent(a))));
            (own, metadata.as_ref())
        }
        Event::Iva { note, detail } => {
            let mut own = categorised("iva", json!(IvaNote::as_str(*note)));
            put(&mut own, "detail", detail.as_ref().map(|d| json!(d)));
            (own, None)
        }
        Event::Feedback(feedback) => {
            let mut own = categorised("user_events", json!("feedback"));
            own.insert("query_resolved", json!(feedback.resolved));
            own.insert("query_rating", json!(feedback.rating));
            put(&mut own, "feedback", feedback.comment.as_ref().map(|c| json!(c)));
            (own, None)
        }
    }
}

fn state_fields(change: &StateChange) -> BTreeMap<&'static str, Value> {
    let mut own = categorised("conversation_state", json!(change.to.as_str()));
    own.insert("from", json!(change.from.as_str()));
    own.insert("to", json!(change.to.as_str()));
    own.insert("cause", name(&change.cause));
    put(&mut own, "by", change.by.as_ref().map(|by| json!(by.as_str())));
    put(&mut own, "completion_type", change.completion.map(|c| json!(completion(c))));
    put(&mut own, "agent", change.agent.as_ref().map(|a| Value::Object(agent(a))));
    own
}

fn control_fields(change: &ControlChange) -> BTreeMap<&'static str, Value> {
    let mut own = categorised("thread_control", name(&change.action));
    own.insert("action", name(&change.action));
    own.insert("from", json!(change.from.as_str()));
    own.insert("to", json!(change.to.as_str()));
    own.insert("cause", name(&change.cause));
    put(&mut own, "by", change.by.as_ref().map(|by| json!(by.as_str())));
    put(&mut own, "offer_id", change.offer_id.as_ref().map(|id| json!(id)));
    put(&mut own, "deadline", change.deadline.map(|at| json!(time(at))));
    own
}

fn categorised(category: &str, subcategory: Value) -> BTreeMap<&'static str, Value> {
    BTreeMap::from([("category", json!(category)), ("subcategory", subcategory)])
}

fn put(fields: &mut BTreeMap<&'static str, Value>, name: &'static str, value: Option<Value>) {
    if let Some(value) = value {
        fields.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_domain::{Body, Cause, ControlAction, Sender, State, Topic};

    fn id(text: &str) -> ReceiverId {
        ReceiverId::new(text).unwrap()
    }
    fn rendered(fact: Fact, viewer: Option<&str>) -> Value {
        let at = Timestamp(1_785_000_000_007);
        let entry = Entry { sequence: 3, conversation: 2, at, control_epoch: 4, active: id("sprinkle"), fact };
        let viewer = viewer.map(id);
        serde_json::to_value(feed_entry(&StoredEntry { message_id: 77, entry }, viewer.as_ref())).unwrap()
    }
    fn object(json: &str) -> Option<Json> {
        Some(Json(json.into()))
    }

    #[test]
    fn times_have_milliseconds() {
        assert_eq!(time(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(Timestamp(1_785_000_000_007)), "2026-07-25T17:20:00.007Z");
        assert!(time(Timestamp(i64::MAX)).ends_with('Z'));
    }

    #[test]
    fn a_message_keeps_its_senders_metadata_but_our_keys_win() {
        let message = Message {
            sender: Sender::Aeu,
            by: Some(id("sprinkle")),
            body: Body(r#"{"text":"hi"}"#.into()),
            metadata: object(r#"{"ticket":1.50,"sequence":"mine","replayed":true}"#),
            agent: None,
            answers: None,
        };
        let json = rendered(Fact::Message(message), Some("iva"));
        assert_eq!(
            json,
            json!({"sequence": 3, "kind": "message", "conversation_number": "2", "control_epoch": 4,
                "timestamp": "2026-07-25T17:20:00.007Z", "message_id": 77, "message_body": "{\"text\":\"hi\"}",
                "sender": "aeu",
                "metadata": {"ticket": 1.5, "sequence": 3, "control_epoch": 4, "active": "sprinkle", "standby": true}})
        );
    }

    #[test]
    fn the_other_kinds_carry_their_own_fields() {
        let agent = Some(Agent { name: Some("Ann".to_owned()), ..Agent::default() });
        let event = Event::Agent { topic: Topic::AeuAllocated, by: id("sprinkle"), agent, metadata: object("{}") };
        let json = rendered(Fact::Event(event), None);
        assert_eq!(
            (&json["kind"], &json["category"], &json["subcategory"]),
            (&json!("event"), &json!("aeu_events"), &json!("allocated"))
        );
        assert_eq!(json["agent"], json!({"agent_name": "Ann"}));

        let state = StateChange {
            from: State::Bot,
            to: State::Complete,
            cause: Cause::IdleTimeout,
            by: None,
            completion: Some(Completion::Auto),
            agent: None,
            metadata: None,
            details: None,
        };
        let json = rendered(Fact::State(state), None);
        assert_eq!(
            (&json["from"], &json["to"], &json["cause"]),
            (&json!("bot"), &json!("complete"), &json!("idle_timeout"))
        );
        assert_eq!(json["completion_type"], "autocomplete");

        let control = ControlChange {
            action: ControlAction::Offer,
            from: id("iva"),
            to: id("sprinkle"),
            cause: Cause::Offer,
            by: Some(id("iva")),
            offer_id: Some("o1".to_owned()),
            deadline: Some(Timestamp(0)),
            metadata: None,
        };
        let json = rendered(Fact::Control(control), None);
        assert_eq!(
            (&json["subcategory"], &json["offer_id"], &json["active"]),
            (&json!("offer"), &json!("o1"), &json!("sprinkle"))
        );
        assert_eq!(json["deadline"], "1970-01-01T00:00:00.000Z");
    }
}
