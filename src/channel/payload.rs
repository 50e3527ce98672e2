//! What a business's channel webhook is told (section 10, "Outgoing").

use super::Profile;
use crate::webhook::{Metadata, embedded};
use crate::wire;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tract_actors::ports::StoredEntry;
use tract_domain::{
    Agent, BusinessId, ChannelEvent, Entry, Event, Fact, Json, Message, ReceiverId, Sender, StateChange, UserId,
    entry::Completion,
};

/// The bot's name, as published clients know it.
pub(crate) const BOT: &str = "gogo";

/// Whose conversation it is, and where.
pub(crate) struct Setting<'a> {
    pub(crate) business_id: BusinessId,
    pub(crate) business_name: &'a str,
    pub(crate) user_id: &'a UserId,
    pub(crate) profile: &'a Profile,
    /// What the IVA keeps of the user.
    pub(crate) user_details: Option<&'a Json>,
    /// What a receiver is called, where it does not name the agent.
    pub(crate) tool_name: &'a (dyn Fn(&ReceiverId) -> String + Sync),
}

#[derive(Serialize)]
struct Outgoing<'a> {
    version: &'static str,
    timestamp: String,
    business_id: BusinessId,
    business_name: &'a str,
    event_name: &'static str,
    user: User<'a>,
    agent: Speaker,
    #[serde(flatten)]
    content: Content,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content {
    Message { message: Said },
    Completed { follow_up_details: Map<String, Value>, data: Box<Ended> },
}

#[derive(Serialize)]
struct Said {
    id: u64,
    body: Box<RawValue>,
}

#[derive(Serialize)]
struct User<'a> {
    auth_id: &'a str,
    device_platform: u64,
    device_platform_name: &'static str,
    /// The handle, as everywhere in Part B; the channel knows its user's name already.
    user_name: &'a UserId,
    user_id: &'a UserId,
    phone_model: Option<&'a str>,
    os_version: Option<&'a str>,
    package_name: Option<&'a str>,
}

/// Who speaks to the customer. (Also the `agent` of the synchronous variant.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Speaker {
    id: Option<String>,
    name: String,
    profile_image: Option<String>,
    is_automated: bool,
    email: Option<String>,
}

impl Speaker {
    /// The bot, in whose name everything automatic is said.
    pub(crate) fn bot() -> Self {
        Self { id: None, name: BOT.to_owned(), profile_image: None, is_automated: true, email: None }
    }
    /// A human agent, as far as it is known; `tool` is what its tool is called.
    fn agent(agent: Option<&Agent>, tool: String) -> Self {
        let agent = agent.cloned().unwrap_or_default();
        Self {
            id: agent.id,
            name: agent.name.unwrap_or(tool),
            profile_image: agent.profile_image,
            is_automated: false,
            email: agent.email,
        }
    }
}

#[derive(Serialize)]
struct Ended {
    conversation_no: u64,
    /// Both identifiers are the conversation's own: `<user_id>-<number>`, the same for ever.
    collection_id: String,
    conversation_identifier: String,
    /// Empty: there is no page that a stranger could open.
    chat_link: &'static str,
    complete_chat_link: &'static str,
    completion_type: &'static str,
    completion_by: String,
    closing_categories: Closing,
    conversation_details: Box<RawValue>,
    user_details: Box<RawValue>,
}

#[derive(Serialize)]
struct Closing {
    reason: Option<Box<RawValue>>,
    #[serde(rename = "subReason")]
    sub_reason: Option<Box<RawValue>>,
    comment: Option<Box<RawValue>>,
}

/// The body for one event; none when the entry is not one of this event's kind.
pub(crate) fn render(event: ChannelEvent, stored: &StoredEntry, setting: &Setting<'_>) -> Option<Vec<u8>> {
    let StoredEntry { message_id, entry } = stored;
    let (agent, content) = match (event, &entry.fact) {
        (ChannelEvent::Message, Fact::Message(message)) => {
            (speaker(message, setting), said(*message_id, embedded(&message.body.0)))
        }
        (ChannelEvent::ChatPinned, fact) => {
            let (by, agent) = allocation(fact, entry)?;
            let speaker = Speaker::agent(agent, (setting.tool_name)(by));
            let body = pinned(&speaker, agent);
            (speaker, said(*message_id, raw(&body)?))
        }
        (ChannelEvent::ChatComplete, Fact::State(change)) => {
            let body = json!({"text": "The conversation has been completed", "type": "SYSTEM", "data": {}});
            (closer(change, entry, setting), said(*message_id, raw(&body)?))
        }
        (ChannelEvent::WebhookConversationComplete, Fact::State(change)) => {
            let speaker = closer(change, entry, setting);
            let data = ended(entry, change, &speaker, setting);
            (speaker, Content::Completed { follow_up_details: Map::new(), data: Box::new(data) })
        }
        _ => return None,
    };
    let body = Outgoing {
        version: "1.0",
        timestamp: wire::time(entry.at),
        business_id: setting.business_id,
        business_name: setting.business_name,
        event_name: event.as_str(),
        user: user(setting),
        agent,
        content,
    };
    serde_json::to_vec(&body).ok()
}

fn said(id: u64, body: Box<RawValue>) -> Content {
    Content::Message { message: Said { id, body } }
}

fn raw(value: &Value) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}

fn user<'a>(setting: &Setting<'a>) -> User<'a> {
    let profile = setting.profile;
    User {
        auth_id: &profile.auth_id,
        device_platform: profile.device_platform.number(),
        device_platform_name: profile.device_platform.name(),
        user_name: setting.user_id,
        user_id: setting.user_id,
        phone_model: profile.phone_model.as_deref(),
        os_version: profile.os_version.as_deref(),
        package_name: profile.package_name.as_deref(),
    }
}

fn speaker(message: &Message, setting: &Setting<'_>) -> Speaker {
    match (message.sender, &message.by) {
        (Sender::Aeu | Sender::Ect, Some(by)) => Speaker::agent(message.agent.as_ref(), (setting.tool_name)(by)),
        _ => Speaker::bot(),
    }
}

/// Who allocated which agent: an event says so, or the state that an agent's first message brought.
fn allocation<'e>(fact: &'e Fact, entry: &'e Entry) -> Option<(&'e ReceiverId, Option<&'e Agent>)> {
    match fact {
        Fact::Event(Event::Agent { by, agent, .. }) => Some((by, agent.as_ref())),
        Fact::State(change) => Some((change.by.as_ref().unwrap_or(&entry.active), change.agent.as_ref())),
        Fact::Message(message) => Some((message.by.as_ref().unwrap_or(&entry.active), message.agent.as_ref())),
        _ => None,
    }
}

fn pinned(speaker: &Speaker, agent: Option<&Agent>) -> Value {
    json!({
        "text": format!("{} has entered the Conversation", speaker.name),
        "type": "SYSTEM",
        "data": {
            "event_name": ChannelEvent::ChatPinned.as_str(),
            "payload": {
                "profile_image": speaker.profile_image,
                "agent_name": speaker.name,
                "team_name": agent.and_then(|a| a.team_name.as_deref()),
            },
        },
    })
}

/// Whose conversation it was when it ended.
fn closer(change: &StateChange, entry: &Entry, setting: &Setting<'_>) -> Speaker {
    match (change.completion, &change.agent) {
        (Some(Completion::Agent), agent) => {
            let tool = change.by.as_ref().unwrap_or(&entry.active);
            Speaker::agent(agent.as_ref(), (setting.tool_name)(tool))
        }
        (Some(Completion::Auto), Some(agent)) if !agent.is_empty() => {
            Speaker::agent(Some(agent), (setting.tool_name)(&entry.active))
        }
        _ => Speaker::bot(),
    }
}

fn ended(entry: &Entry, change: &StateChange, speaker: &Speaker, setting: &Setting<'_>) -> Ended {
    let completion = change.completion.unwrap_or(Completion::Auto);
    let identifier = format!("{}-{}", setting.user_id, entry.conversation);
    let object = |json: Option<&Json>| embedded(json.map_or("{}", |j| &j.0));
    Ended {
        conversation_no: entry.conversation,
        collection_id: identifier.clone(),
        conversation_identifier: identifier,
        chat_link: "",
        complete_chat_link: "",
        completion_type: wire::completion(completion),
        completion_by: match completion {
            Completion::Bot => "Bot completed".to_owned(),
            Completion::Agent => speaker.name.clone(),
            Completion::Auto => "Waiting for User".to_owned(),
        },
        closing_categories: closing(change.metadata.as_ref()),
        conversation_details: object(change.details.as_ref()),
        user_details: object(setting.user_details),
    }
}

/// Why it was closed, as the agent's tool says: in a `closing_categories` of its metadata, or beside it.
fn closing(metadata: Option<&Json>) -> Closing {
    let outer = Metadata::of(metadata);
    let inner = outer.get("closing_categories").map(|raw| Metadata::of(Some(&Json(raw.get().into()))));
    let given = |key: &str| {
        let inner = inner.as_ref().and_then(|categories| categories.get(key));
        inner.or_else(|| outer.get(key)).map(ToOwned::to_owned)
    };
    Closing { reason: given("reason"), sub_reason: given("subReason"), comment: given("comment") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_domain::{Body, Cause, State, Timestamp, Topic};

    fn stored(fact: Fact) -> StoredEntry {
        let entry = Entry {
            sequence: 7,
            conversation: 2,
            at: Timestamp(1_592_810_665_120),
            control_epoch: 3,
            active: ReceiverId::new("sprinkle").unwrap(),
            fact,
        };
        StoredEntry { message_id: 99, entry }
    }

    fn rendered(event: ChannelEvent, fact: Fact) -> Value {
        let profile: Profile = serde_json::from_value(json!({
            "auth_id": "+49 1", "device_platform": 14, "os_version": "17", "email": "a@b.example", "auth_code": "top",
        }))
        .unwrap();
        let user_id = UserId::new("u-1").unwrap();
        let setting = Setting {
            business_id: 343,
            business_name: "Acme Shop",
            user_id: &user_id,
            profile: &profile,
            user_details: Some(&Json(r#"{"tier":"gold"}"#.into())),
            tool_name: &|id| format!("the {id} desk"),
        };
        serde_json::from_slice(&render(event, &stored(fact), &setting).unwrap()).unwrap()
    }

    fn ada() -> Agent {
        Agent {
            id: Some("9".to_owned()),
            name: Some("Ada".to_owned()),
            email: Some("ada@s.example".to_owned()),
            profile_image: Some("https://s.example/ada.png".to_owned()),
            team_name: Some("billing".to_owned()),
        }
    }

    fn message(sender: Sender, by: &str, agent: Option<Agent>) -> Fact {
        Fact::Message(Message {
            sender,
            by: ReceiverId::new(by).ok(),
            body: Body(r#"{"text":"hi","type":"TEXT","data":{"quick_replies":[]}}"#.into()),
            metadata: None,
            agent,
            answers: None,
        })
    }

    fn completed(completion: Completion, agent: Option<Agent>, metadata: Option<Value>) -> Fact {
        Fact::State(StateChange {
            from: State::Pinned,
            to: State::Complete,
            cause: Cause::Complete,
            by: ReceiverId::new("sprinkle").ok(),
            completion: Some(completion),
            agent,
            metadata: metadata.map(|m| Json(m.to_string().into())),
            details: Some(Json(r#"{"order":5}"#.into())),
        })
    }

    #[test]
    fn a_message_is_an_object_and_says_who_speaks() {
        let body = rendered(ChannelEvent::Message, message(Sender::Aeu, "sprinkle", Some(ada())));
        assert_eq!(
            body,
            json!({
                "version": "1.0", "timestamp": "2020-06-22T07:24:25.120Z", "business_id": 343,
                "business_name": "Acme Shop", "event_name": "message",
                "user": {"auth_id": "+49 1", "device_platform": 14, "device_platform_name": "WhatsApp",
                         "user_name": "u-1", "user_id": "u-1", "phone_model": null, "os_version": "17",
                         "package_name": null},
                "agent": {"id": "9", "name": "Ada", "profile_image": "https://s.example/ada.png",
                          "is_automated": false, "email": "ada@s.example"},
                "message": {"id": 99, "body": {"text": "hi", "type": "TEXT", "data": {"quick_replies": []}}},
            })
        );
    }

    #[test]
    fn what_is_automatic_is_the_bots() {
        let bot = json!({"id": null, "name": "gogo", "profile_image": null, "is_automated": true, "email": null});
        assert_eq!(rendered(ChannelEvent::Message, message(Sender::Iva, "iva", None))["agent"], bot);
        assert_eq!(rendered(ChannelEvent::Message, message(Sender::Haptik, "", Some(ada())))["agent"], bot);
        let nameless = rendered(ChannelEvent::Message, message(Sender::Ect, "sprinkle", None));
        assert_eq!(nameless["agent"]["name"], json!("the sprinkle desk"));
        assert_eq!(nameless["agent"]["is_automated"], json!(false));
    }

    #[test]
    fn an_agent_enters() {
        let event = Event::Agent {
            topic: Topic::AeuAllocated,
            by: ReceiverId::new("sprinkle").unwrap(),
            agent: Some(ada()),
            metadata: None,
        };
        let body = rendered(ChannelEvent::ChatPinned, Fact::Event(event));
        assert_eq!(body["event_name"], json!("chat_pinned"));
        assert_eq!(body["message"]["id"], json!(99));
        assert_eq!(
            body["message"]["body"],
            json!({"text": "Ada has entered the Conversation", "type": "SYSTEM",
                   "data": {"event_name": "chat_pinned",
                            "payload": {"profile_image": "https://s.example/ada.png", "agent_name": "Ada",
                                        "team_name": "billing"}}})
        );
        assert_eq!(body["agent"]["name"], json!("Ada"));
    }

    #[test]
    fn an_agents_end_is_told_twice() {
        let why = json!({"closing_categories": {"reason": "solved", "subReason": "refund"}, "comment": "ok"});
        let fact = completed(Completion::Agent, Some(ada()), Some(why));
        let first = rendered(ChannelEvent::ChatComplete, fact.clone());
        assert_eq!(
            first["message"]["body"],
            json!({"text": "The conversation has been completed", "type": "SYSTEM", "data": {}})
        );
        let second = rendered(ChannelEvent::WebhookConversationComplete, fact);
        assert!(second.get("message").is_none());
        assert_eq!(second["follow_up_details"], json!({}));
        assert_eq!(second["agent"]["name"], json!("Ada"));
        assert_eq!(
            second["data"],
            json!({"conversation_no": 2, "collection_id": "u-1-2", "conversation_identifier": "u-1-2",
                   "chat_link": "", "complete_chat_link": "", "completion_type": "agent", "completion_by": "Ada",
                   "closing_categories": {"reason": "solved", "subReason": "refund", "comment": "ok"},
                   "conversation_details": {"order": 5}, "user_details": {"tier": "gold"}})
        );
    }

    #[test]
    fn other_ends_say_what_they_are() {
        let data = |c, agent| rendered(ChannelEvent::WebhookConversationComplete, completed(c, agent, None));
        let bot = data(Completion::Bot, None);
        assert_eq!(bot["data"]["completion_type"], json!("gogo"));
        assert_eq!(bot["data"]["completion_by"], json!("Bot completed"));
        assert_eq!(bot["agent"]["name"], json!("gogo"));
        assert_eq!(bot["data"]["closing_categories"], json!({"reason": null, "subReason": null, "comment": null}));
        let idle = data(Completion::Auto, Some(ada()));
        assert_eq!(idle["data"]["completion_type"], json!("autocomplete"));
        assert_eq!(idle["data"]["completion_by"], json!("Waiting for User"));
        assert_eq!(idle["agent"]["name"], json!("Ada"));
        assert_eq!(data(Completion::Auto, None)["agent"]["is_automated"], json!(true));
        assert_eq!(data(Completion::Agent, None)["data"]["completion_by"], json!("the sprinkle desk"));
    }

    #[test]
    fn an_entry_of_another_kind_is_not_rendered() {
        let profile = Profile::new("x");
        let user_id = UserId::new("u-1").unwrap();
        let setting = Setting {
            business_id: 1,
            business_name: "",
            user_id: &user_id,
            profile: &profile,
            user_details: None,
            tool_name: &ToString::to_string,
        };
        let fact = message(Sender::Iva, "iva", None);
        assert!(render(ChannelEvent::ChatComplete, &stored(fact), &setting).is_none());
    }
}
