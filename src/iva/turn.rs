//! One turn: a customer's message, put to the bot.

use crate::channel::Profile;
use crate::webhook::{Metadata, embedded};
use crate::wire;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tract_actors::ports::StoredEntry;
use tract_domain::{BusinessId, Entry, Fact, Json, MessageType, ReceiverId, Thread, UserId};

/// What surrounds the message.
pub(crate) struct Setting<'a> {
    pub(crate) business_id: BusinessId,
    pub(crate) user_id: &'a UserId,
    pub(crate) profile: &'a Profile,
    /// What the bot keeps of this conversation, if it still lives.
    pub(crate) conversation_details: Option<&'a Json>,
    /// What the bot keeps of the user.
    pub(crate) user_details: Option<&'a Json>,
}

#[derive(Serialize)]
struct Turn<'a> {
    event: &'static str,
    node: &'static str,
    business_id: BusinessId,
    user: User<'a>,
    conversation_no: u64,
    conversation_details: Box<RawValue>,
    user_details: Box<RawValue>,
    entities: Map<String, Value>,
    message: Said,
}

#[derive(Serialize)]
struct User<'a> {
    user_id: &'a UserId,
    user_name: &'a UserId,
    full_name: Option<&'a str>,
    device_platform: u64,
    language_code: Option<&'a str>,
    auth_id: &'a str,
    auth_code: Option<&'a str>,
}

#[derive(Serialize)]
struct Said {
    id: u64,
    /// What the customer wrote: the text of the element that was made of it.
    body: String,
    /// A number of section 1.
    r#type: u64,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_url: Option<Box<RawValue>>,
}

/// Whether the turn still belongs to what goes on: the same conversation, the same epoch, the bot in control.
pub(crate) fn belongs(entry: &Entry, thread: &Thread) -> bool {
    thread.conversation() == entry.conversation
        && thread.control().epoch == entry.control_epoch
        && thread.control().active == ReceiverId::iva()
}

/// The body of the turn; none when the entry is not a message.
pub(crate) fn render(stored: &StoredEntry, setting: &Setting<'_>) -> Option<Vec<u8>> {
    let StoredEntry { message_id, entry } = stored;
    let Fact::Message(message) = &entry.fact else { return None };
    let metadata = Metadata::of(message.metadata.as_ref());
    let numbered = metadata.get("message_type").and_then(|raw| raw.get().parse().ok());
    let details = |json: Option<&Json>| embedded(json.map_or("{}", |j| &j.0));
    let profile = setting.profile;
    let turn = Turn {
        event: "API_INTEGRATION",
        node: "tract",
        business_id: setting.business_id,
        user: User {
            user_id: setting.user_id,
            user_name: setting.user_id,
            full_name: profile.name.as_deref(),
            device_platform: profile.device_platform.number(),
            language_code: profile.language_code.as_deref(),
            auth_id: &profile.auth_id,
            auth_code: profile.auth_code.as_deref(),
        },
        conversation_no: entry.conversation,
        conversation_details: details(setting.conversation_details),
        user_details: details(setting.user_details),
        entities: Map::new(),
        message: Said {
            id: *message_id,
            body: text_of(&message.body.0),
            r#type: numbered.unwrap_or_else(|| MessageType::Text.number()),
            timestamp: wire::time(entry.at),
            file_url: metadata.get("file_url").map(ToOwned::to_owned),
        },
    };
    serde_json::to_vec(&turn).ok()
}

/// The words of an element.
fn text_of(body: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Element {
        #[serde(default)]
        text: String,
    }
    serde_json::from_str::<Element>(body).map(|element| element.text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tract_domain::{Body, Message, Sender, Timestamp};

    fn turn(metadata: Option<&str>, conversation_details: Option<&Json>) -> Value {
        let profile: Profile = serde_json::from_value(json!({
            "auth_id": "+49 1", "auth_code": "top", "name": "Ada", "device_platform": 5, "language_code": "de",
        }))
        .unwrap();
        let entry = Entry {
            sequence: 7,
            conversation: 2,
            at: Timestamp(1_592_810_665_120),
            control_epoch: 3,
            active: ReceiverId::iva(),
            fact: Fact::Message(Message {
                sender: Sender::Ceu,
                by: None,
                body: Body(r#"{"text":"where is \"it\"?","type":"TEXT","data":{}}"#.into()),
                metadata: metadata.map(|m| Json(m.into())),
                agent: None,
                answers: None,
            }),
        };
        let user_id = UserId::new("u-1").unwrap();
        let setting = Setting {
            business_id: 343,
            user_id: &user_id,
            profile: &profile,
            conversation_details,
            user_details: Some(&Json(r#"{"tier":"gold"}"#.into())),
        };
        serde_json::from_slice(&render(&StoredEntry { message_id: 99, entry }, &setting).unwrap()).unwrap()
    }

    #[test]
    fn a_turn_is_as_the_contract_shows_it() {
        assert_eq!(
            turn(None, Some(&Json(r#"{"order":5}"#.into()))),
            json!({"event": "API_INTEGRATION", "node": "tract", "business_id": 343,
                   "user": {"user_id": "u-1", "user_name": "u-1", "full_name": "Ada", "device_platform": 5,
                            "language_code": "de", "auth_id": "+49 1", "auth_code": "top"},
                   "conversation_no": 2, "conversation_details": {"order": 5}, "user_details": {"tier": "gold"},
                   "entities": {},
                   "message": {"id": 99, "body": "where is \"it\"?", "type": 0,
                               "timestamp": "2020-06-22T07:24:25.120Z"}})
        );
    }

    #[test]
    fn a_file_comes_with_its_type_and_link() {
        let said = turn(Some(r#"{"message_type": 1, "file_url": "https://t.example/f"}"#), None);
        assert_eq!((&said["message"]["type"], &said["conversation_details"]), (&json!(1), &json!({})));
        assert_eq!(said["message"]["file_url"], json!("https://t.example/f"));
    }
}
