//! What a hook is told (section 4).

use super::metadata::Metadata;
use crate::channel::Profile;
use crate::tenancy::Hook;
use crate::wire;
use serde::Serialize;
use tract_actors::ports::StoredEntry;
use tract_domain::{
    Agent, ControlChange, Entry, Event, Fact, Json, Message, ReceiverId, StateChange, Timestamp, UserId,
};

#[derive(Serialize)]
struct Receive<'a> {
    user_id: &'a UserId,
    message_id: u64,
    conversation_number: String,
    message_body: &'a str,
    sender: &'static str,
    timestamp: String,
    metadata: Metadata,
}

#[derive(Serialize)]
struct Report<'a> {
    conversation_number: String,
    user_id: &'a UserId,
    category: &'a str,
    subcategory: &'static str,
    metadata: String,
}

#[derive(Serialize)]
struct CreateUser<'a> {
    user_id: &'a UserId,
    /// The client's own id of the user.
    third_party_user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<&'a str>,
    device_platform: &'static str,
    details_available: Vec<Available>,
}

#[derive(Serialize)]
struct Available {
    name: String,
}

/// The body for one entry; none when this kind of entry is nothing that a hook is told.
pub(crate) fn entry(hook: &Hook, user_id: &UserId, stored: &StoredEntry, replayed: bool) -> Option<Vec<u8>> {
    let StoredEntry { message_id, entry } = stored;
    match &entry.fact {
        Fact::Message(message) => receive(&hook.receiver, user_id, *message_id, entry, message, replayed),
        Fact::Event(Event::Agent { by, agent, metadata, .. }) => {
            let said = agent_fields(Metadata::of(metadata.as_ref()), agent.as_ref()).with("by", by);
            report(hook, user_id, entry, said, replayed)
        }
        Fact::Event(Event::Iva { .. } | Event::Feedback(_)) => None,
        Fact::State(change) => report(hook, user_id, entry, state(change), replayed),
        Fact::Control(change) => report(hook, user_id, entry, control(entry, change), replayed),
    }
}

fn receive(
    receiver: &ReceiverId,
    user_id: &UserId,
    message_id: u64,
    entry: &Entry,
    message: &Message,
    replayed: bool,
) -> Option<Vec<u8>> {
    let metadata = Metadata::from(wire::message_metadata(entry, message, Some(receiver)))
        .with_some("replayed", replayed.then_some(true));
    let body = Receive {
        user_id,
        message_id,
        conversation_number: entry.conversation.to_string(),
        message_body: &message.body.0,
        sender: message.sender.as_str(),
        timestamp: wire::time(entry.at),
        metadata,
    };
    serde_json::to_vec(&body).ok()
}

fn report(hook: &Hook, user_id: &UserId, entry: &Entry, about: Metadata, replayed: bool) -> Option<Vec<u8>> {
    let metadata = about
        .with("sequence", entry.sequence)
        .with("control_epoch", entry.control_epoch)
        .with("timestamp", wire::time(entry.at))
        .with_some("replayed", replayed.then_some(true));
    let body = Report {
        conversation_number: entry.conversation.to_string(),
        user_id,
        category: &hook.category,
        subcategory: hook.topic.names().1,
        metadata: metadata.to_json(),
    };
    serde_json::to_vec(&body).ok()
}

/// What is told of a state that was entered.
fn state(change: &StateChange) -> Metadata {
    agent_fields(Metadata::of(change.metadata.as_ref()), change.agent.as_ref())
        .with("from", change.from)
        .with("to", change.to)
        .with("cause", change.cause)
        .with("by", &change.by)
        .with_some("completion_type", change.completion.map(wire::completion))
}

/// What is told of a control change.
fn control(entry: &Entry, change: &ControlChange) -> Metadata {
    Metadata::default()
        .with("action", change.action)
        .with("cause", change.cause)
        .with("from", &change.from)
        .with("to", &change.to)
        .with("by", &change.by)
        .with("active", &entry.active)
        .with_some("offer_id", change.offer_id.as_ref())
        .with_some("deadline", change.deadline.map(wire::time))
        .with_some("metadata", change.metadata.as_ref().map(|Json(text)| super::metadata::embedded(text)))
}

/// Adds what is known of an agent, under the names that `events/send` takes (section 6).
fn agent_fields(metadata: Metadata, agent: Option<&Agent>) -> Metadata {
    let known = agent.map(wire::agent).unwrap_or_default();
    known.into_iter().fold(metadata, |metadata, (name, value)| metadata.with(&name, value))
}

/// The body of a ping, which says which hook it tries: by the name that it is registered with.
pub(crate) fn ping(category: &str, subcategory: &str, at: Timestamp) -> Vec<u8> {
    let body = serde_json::json!({
        "event": "ping", "category": category, "subcategory": subcategory, "timestamp": wire::time(at),
    });
    body.to_string().into_bytes()
}

/// The body of `user_events.create_user`.
pub(crate) fn create_user(user_id: &UserId, profile: &Profile) -> Option<Vec<u8>> {
    let body = CreateUser {
        user_id,
        third_party_user_id: &profile.auth_id,
        user_name: profile.name.as_deref(),
        device_platform: profile.device_platform.name(),
        details_available: profile.details().keys().map(|name| Available { name: name.clone() }).collect(),
    };
    serde_json::to_vec(&body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tract_domain::{Body, Cause, ControlAction, Sender, State, Topic};

    fn id(text: &str) -> ReceiverId {
        ReceiverId::new(text).unwrap()
    }

    fn hook(topic: Topic, category: &str) -> Hook {
        Hook {
            client: tract_domain::ClientId::new("acme").unwrap(),
            receiver: id("sprinkle"),
            topic,
            category: category.to_owned(),
            url: "https://chat.sprinkle.example/hook".to_owned(),
            registered_at: Timestamp(0),
        }
    }

    fn stored(fact: Fact) -> StoredEntry {
        let entry = Entry {
            sequence: 7,
            conversation: 2,
            at: Timestamp(1_592_810_665_120),
            control_epoch: 3,
            active: ReceiverId::iva(),
            fact,
        };
        StoredEntry { message_id: 4_503_599_627_370_497, entry }
    }

    fn rendered(hook: &Hook, fact: Fact, replayed: bool) -> Value {
        let user_id = UserId::new("u-1").unwrap();
        serde_json::from_slice(&entry(hook, &user_id, &stored(fact), replayed).unwrap()).unwrap()
    }

    /// An event's body, and its metadata parsed from the string that it must be.
    fn reported(hook: &Hook, fact: Fact) -> (Value, Value) {
        let mut body = rendered(hook, fact, false);
        let metadata = body["metadata"].take();
        (body, serde_json::from_str(metadata.as_str().unwrap()).unwrap())
    }

    fn meta(value: &Value) -> Option<Json> {
        Some(Json(value.to_string().into()))
    }

    #[test]
    fn a_message_carries_its_hsl_as_a_string() {
        let message = Message {
            sender: Sender::Iva,
            by: Some(ReceiverId::iva()),
            body: Body(r#"{"text":"hi","type":"TEXT","data":{}}"#.into()),
            metadata: meta(&json!({"sequence": "theirs", "order": {"no": 5}})),
            agent: None,
            answers: None,
        };
        let receive = hook(Topic::MessageReceive, "message");
        let expected = json!({
            "user_id": "u-1", "message_id": 4_503_599_627_370_497_u64, "conversation_number": "2",
            "message_body": r#"{"text":"hi","type":"TEXT","data":{}}"#, "sender": "iva",
            "timestamp": "2020-06-22T07:24:25.120Z",
            "metadata": {"order": {"no": 5}, "sequence": 7, "control_epoch": 3, "active": "iva", "standby": true},
        });
        assert_eq!(rendered(&receive, Fact::Message(message.clone()), false), expected);
        let replay = rendered(&receive, Fact::Message(message.clone()), true);
        assert_eq!(replay["metadata"]["replayed"], json!(true));
        let own = Hook { receiver: ReceiverId::iva(), ..receive };
        assert_eq!(rendered(&own, Fact::Message(message), false)["metadata"]["standby"], json!(false));
    }

    #[test]
    fn a_state_is_told_under_the_name_it_was_registered_with() {
        let change = StateChange {
            from: State::Pinned,
            to: State::Complete,
            cause: Cause::Complete,
            by: Some(id("sprinkle")),
            completion: Some(tract_domain::Completion::Agent),
            agent: Some(Agent { name: Some("Ada".to_owned()), ..Agent::default() }),
            metadata: meta(&json!({"reason": "solved", "from": "theirs"})),
            details: None,
        };
        let (body, about) = reported(&hook(Topic::StateComplete, "collection_state"), Fact::State(change));
        assert_eq!(
            body,
            json!({"conversation_number": "2", "user_id": "u-1", "category": "collection_state",
                   "subcategory": "complete", "metadata": null})
        );
        assert_eq!(
            about,
            json!({"sequence": 7, "control_epoch": 3, "timestamp": "2020-06-22T07:24:25.120Z", "from": "pinned",
                   "to": "complete", "cause": "complete", "by": "sprinkle", "completion_type": "agent",
                   "agent_name": "Ada", "reason": "solved"})
        );
    }

    #[test]
    fn an_agent_event_names_the_agent() {
        let event = Event::Agent {
            topic: Topic::AeuAllocated,
            by: id("other"),
            agent: Some(Agent { id: Some("9".to_owned()), team_name: Some("billing".to_owned()), ..Agent::default() }),
            metadata: meta(&json!({"agent_id": 9, "shift": "late"})),
        };
        let (body, about) = reported(&hook(Topic::AeuAllocated, "aeu_events"), Fact::Event(event));
        assert_eq!((&body["category"], &body["subcategory"]), (&json!("aeu_events"), &json!("allocated")));
        assert_eq!(
            about,
            json!({"sequence": 7, "control_epoch": 3, "timestamp": "2020-06-22T07:24:25.120Z", "by": "other",
                   "agent_id": "9", "team_name": "billing", "shift": "late"})
        );
    }

    #[test]
    fn a_control_change_says_who_what_and_why() {
        let change = ControlChange {
            action: ControlAction::Offer,
            from: ReceiverId::iva(),
            to: id("sprinkle"),
            cause: Cause::Offer,
            by: Some(ReceiverId::iva()),
            offer_id: Some("o-1".to_owned()),
            deadline: Some(Timestamp(1_592_810_725_120)),
            metadata: meta(&json!({"why": "vip"})),
        };
        let (body, about) = reported(&hook(Topic::ControlOffer, "thread_control"), Fact::Control(change));
        assert_eq!(body["subcategory"], json!("offer"));
        assert_eq!(
            about,
            json!({"sequence": 7, "control_epoch": 3, "timestamp": "2020-06-22T07:24:25.120Z", "action": "offer",
                   "cause": "offer", "from": "iva", "to": "sprinkle", "by": "iva", "active": "iva", "offer_id": "o-1",
                   "deadline": "2020-06-22T07:25:25.120Z", "metadata": {"why": "vip"}})
        );
    }

    #[test]
    fn an_event_that_was_a_dead_letter_says_so() {
        let event = Event::Agent { topic: Topic::AeuReceived, by: id("other"), agent: None, metadata: None };
        let body = rendered(&hook(Topic::AeuReceived, "aeu_events"), Fact::Event(event), true);
        let about: Value = serde_json::from_str(body["metadata"].as_str().unwrap()).unwrap();
        assert_eq!((&about["replayed"], &about["by"]), (&json!(true), &json!("other")));
    }

    #[test]
    fn notes_about_the_iva_are_no_hooks_business() {
        let note = Event::Iva { note: tract_domain::entry::IvaNote::LateAnswer, detail: None };
        let user_id = UserId::new("u-1").unwrap();
        assert!(entry(&hook(Topic::StateBot, "x"), &user_id, &stored(Fact::Event(note)), false).is_none());
    }

    #[test]
    fn a_created_user_is_told_with_what_is_known() {
        let profile: Profile = serde_json::from_value(json!({
            "auth_id": "+49 1", "auth_code": "top", "name": "Ada", "email": "a@b.example", "device_platform": 14,
            "custom_data": {"tier": "gold"},
        }))
        .unwrap();
        let user_id = UserId::new("u-1").unwrap();
        let body: Value = serde_json::from_slice(&create_user(&user_id, &profile).unwrap()).unwrap();
        assert_eq!(
            body,
            json!({"user_id": "u-1", "third_party_user_id": "+49 1", "user_name": "Ada", "device_platform": "WhatsApp",
                   "details_available": [{"name": "device_platform"}, {"name": "email"}, {"name": "name"},
                                         {"name": "tier"}]})
        );
    }
}
