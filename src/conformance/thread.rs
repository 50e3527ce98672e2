//! Threads that never were, told as the router tells of real ones: every body is made by the router's own rendering.

use crate::channel::Profile;
use crate::hsl::text_element;
use crate::tenancy::Hook;
use crate::webhook::payload;
use serde_json::{Value, json};
use tract_actors::ports::StoredEntry;
use tract_domain::ids::IdFault;
use tract_domain::{
    Agent, Body, Cause, ClientId, Completion, ControlAction, ControlChange, DevicePlatform, Entry, Event, Fact, Json,
    Message, ReceiverId, Sender, State, StateChange, Timestamp, Topic, UserId,
};
use uuid::Uuid;

/// How far apart a thread's entries are, in milliseconds.
const STEP_MS: i64 = 1000;

/// A hook that the endpoint is registered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// For what.
    pub topic: Topic,
    /// Under which name: `conversation_state` or its alias.
    pub category: String,
}

impl Registered {
    /// Reads `category.subcategory`; none if there is no such hook.
    pub fn parse(text: &str) -> Option<Self> {
        let (category, subcategory) = text.split_once('.')?;
        Topic::parse(category, subcategory).map(|topic| Self { topic, category: category.to_owned() })
    }
    /// Every hook that there is, under its usual name.
    pub fn all() -> Vec<Self> {
        Topic::ALL.iter().map(|&topic| Self { topic, category: topic.names().0.to_owned() }).collect()
    }
    /// `category.subcategory`
    pub fn name(&self) -> String {
        format!("{}.{}", self.category, self.topic.names().1)
    }
}

/// A thread, as far as it has been told.
pub(super) struct Thread {
    user_id: UserId,
    us: ReceiverId,
    other: ReceiverId,
    epoch: u64,
    active: ReceiverId,
    sequence: u64,
    at: i64,
    replayed: bool,
}

/// Ids are made here of letters, digits and hyphens, so that no fault can come of it.
#[allow(clippy::expect_used, reason = "what is made of letters, digits and hyphens, and short, is an id")]
fn id<T>(made: Result<T, IdFault>) -> T {
    made.expect("letters, digits and hyphens make an id")
}

impl Thread {
    /// The nth thread of a run, whose next entry happens now. Nobody else's `user_id` looks like its.
    pub(super) fn new(run: Uuid, number: usize, now: Timestamp) -> Self {
        Self {
            user_id: id(UserId::new(&format!("conformance-{}-{number}", run.simple()))),
            us: id(ReceiverId::new("conformance")),
            other: id(ReceiverId::new("another-tool")),
            epoch: 1,
            active: ReceiverId::iva(),
            sequence: 0,
            at: now.0,
            replayed: false,
        }
    }

    /// The next entry belongs to this time.
    pub(super) fn since(mut self, at: Timestamp) -> Self {
        self.at = at.0;
        self
    }

    /// The endpoint's own tool has control.
    pub(super) fn held(mut self) -> Self {
        self.epoch += 1;
        self.active = self.us.clone();
        self
    }

    /// What comes now is history, or a dead letter replayed.
    pub(super) fn replayed(&mut self, replayed: bool) {
        self.replayed = replayed;
    }

    /// The last entry's number.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// So many entries happen that this hook is not told of: others have them, or the tool itself said them.
    pub(super) fn skip(&mut self, entries: u64) {
        self.sequence += entries;
        self.at += STEP_MS * i64::try_from(entries).unwrap_or_default();
    }

    /// The next entry is about this topic.
    pub(super) fn tell(&mut self, hook: &Registered) -> Vec<u8> {
        match hook.topic {
            Topic::CreateUser => self.create_user(&self.profile()),
            Topic::MessageReceive => self.say(Sender::Ceu, text_element("Where is my order?")),
            _ => {
                let fact = self.fact(hook.topic);
                self.body(hook, fact)
            }
        }
    }

    /// The next entry is a message.
    pub(super) fn say(&mut self, sender: Sender, body: Body) -> Vec<u8> {
        let by = (sender == Sender::Iva).then(ReceiverId::iva);
        let message = Message { sender, by, body, metadata: None, agent: None, answers: None };
        let hook = Registered { topic: Topic::MessageReceive, category: "message".to_owned() };
        self.body(&hook, Fact::Message(message))
    }

    /// The next entry is a message of the bot with this element.
    pub(super) fn show(&mut self, element: &Value) -> Vec<u8> {
        self.say(Sender::Iva, Body(element.to_string().into()))
    }

    /// The user is created. No entry of the thread.
    pub(super) fn create_user(&self, profile: &Profile) -> Vec<u8> {
        // Serialising texts to memory has no way to fail.
        payload::create_user(&self.user_id, profile).unwrap_or_default()
    }

    /// A user of whom nothing but the id is known.
    pub(super) fn stranger(&self) -> Vec<u8> {
        self.create_user(&Profile::new(self.user_id.as_str()))
    }

    fn profile(&self) -> Profile {
        Profile {
            name: Some("Ada Lovelace".to_owned()),
            email: Some("ada@conformance.example".to_owned()),
            language_code: Some("en".to_owned()),
            device_platform: DevicePlatform::WhatsApp,
            ..Profile::new(self.user_id.as_str())
        }
    }

    fn body(&mut self, hook: &Registered, fact: Fact) -> Vec<u8> {
        self.sequence += 1;
        if let Fact::Control(change) = &fact
            && change.action.moves()
        {
            self.epoch += 1;
            self.active = change.to.clone();
        }
        let entry = Entry {
            sequence: self.sequence,
            conversation: 1,
            at: Timestamp(self.at),
            control_epoch: self.epoch,
            active: self.active.clone(),
            fact,
        };
        self.at += STEP_MS;
        // As stores give them out: increasing with time, below 2^53.
        let message_id = u64::try_from(entry.at.0).unwrap_or_default() * 256;
        let hook = Hook {
            client: id(ClientId::new("conformance")),
            receiver: self.us.clone(),
            topic: hook.topic,
            category: hook.category.clone(),
            url: String::new(),
            registered_at: Timestamp(0),
        };
        // None only for notes about the bot, which no hook is told and nobody makes here.
        payload::entry(&hook, &self.user_id, &StoredEntry { message_id, entry }, self.replayed).unwrap_or_default()
    }

    fn fact(&self, topic: Topic) -> Fact {
        let (us, other) = (self.us.clone(), self.other.clone());
        let agent = Some(Agent {
            id: Some("7".to_owned()),
            name: Some("Asha".to_owned()),
            team_name: Some("orders".to_owned()),
            ..Agent::default()
        });
        let state = |from, to, cause| StateChange {
            from,
            to,
            cause,
            by: None,
            completion: None,
            agent: None,
            metadata: None,
            details: None,
        };
        let control = |action, from: &ReceiverId, to: &ReceiverId, cause| ControlChange {
            action,
            from: from.clone(),
            to: to.clone(),
            cause,
            by: Some(from.clone()),
            offer_id: None,
            deadline: None,
            metadata: None,
        };
        let deadline = Some(Timestamp(self.at + 60_000));
        let offer_id = Some("offer-1".to_owned());
        let iva = ReceiverId::iva();
        match topic {
            Topic::StateIncomplete => {
                Fact::State(StateChange { by: Some(iva), ..state(State::Bot, State::Incomplete, Cause::Handoff) })
            }
            Topic::StatePinned => Fact::State(StateChange {
                by: Some(other),
                agent,
                ..state(State::Incomplete, State::Pinned, Cause::Allocated)
            }),
            Topic::StateWaiting => Fact::State(StateChange {
                by: Some(other),
                agent,
                ..state(State::Pinned, State::Waiting, Cause::Waiting)
            }),
            Topic::StateComplete => Fact::State(StateChange {
                by: Some(other),
                agent,
                completion: Some(Completion::Agent),
                metadata: object(&json!({"closing_categories": {"reason": "delivery", "comment": ""}})),
                ..state(State::Waiting, State::Complete, Cause::Complete)
            }),
            Topic::AeuReceived | Topic::AeuUserTimeout => {
                Fact::Event(Event::Agent { topic, by: other, agent: None, metadata: None })
            }
            Topic::AeuAllocated => {
                Fact::Event(Event::Agent { topic, by: other, agent, metadata: object(&json!({"shift": "late"})) })
            }
            Topic::ControlPass => Fact::Control(control(ControlAction::Pass, &iva, &us, Cause::Handoff)),
            Topic::ControlTake => {
                let sac = ReceiverId::sac();
                let taken = control(ControlAction::Take, &us, &sac, Cause::Take);
                Fact::Control(ControlChange { by: Some(sac), ..taken })
            }
            Topic::ControlRequest => Fact::Control(ControlChange {
                deadline,
                metadata: object(&json!({"why": "a question about an invoice"})),
                ..control(ControlAction::Request, &ReceiverId::sac(), &us, Cause::Request)
            }),
            Topic::ControlOffer => Fact::Control(ControlChange {
                offer_id,
                deadline,
                ..control(ControlAction::Offer, &other, &us, Cause::Offer)
            }),
            Topic::ControlDecline => Fact::Control(ControlChange {
                by: Some(other.clone()),
                offer_id,
                ..control(ControlAction::Decline, &us, &other, Cause::Decline)
            }),
            Topic::ControlExpire => Fact::Control(ControlChange {
                by: None,
                offer_id,
                ..control(ControlAction::Expire, &us, &other, Cause::Deadline)
            }),
            // Messages and users have bodies of their own, above.
            Topic::StateBot | Topic::MessageReceive | Topic::CreateUser => {
                Fact::State(state(State::None, State::Bot, Cause::CeuMessage))
            }
        }
    }
}

fn object(value: &Value) -> Option<Json> {
    Some(Json(value.to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread() -> Thread {
        Thread::new(Uuid::nil(), 1, Timestamp(1_785_000_000_000))
    }

    #[test]
    fn every_topic_is_told_under_its_name_and_numbered() {
        let mut thread = thread();
        for (index, hook) in Registered::all().iter().filter(|h| h.topic != Topic::CreateUser).enumerate() {
            let body: Value = serde_json::from_slice(&thread.tell(hook)).unwrap();
            let metadata = match &body["metadata"] {
                Value::String(text) => serde_json::from_str(text).unwrap(),
                other => other.clone(),
            };
            assert_eq!(metadata["sequence"], json!(index + 1), "{}", hook.name());
            if hook.topic == Topic::MessageReceive {
                assert!(body["message_id"].as_u64().is_some_and(|id| id < 1 << 53));
            } else {
                let name = format!("{}.{}", body["category"].as_str().unwrap(), body["subcategory"].as_str().unwrap());
                assert_eq!(name, hook.name());
            }
        }
        assert_eq!((thread.epoch, thread.active), (3, ReceiverId::sac()), "passed once, taken once");
    }

    #[test]
    fn an_alias_is_told_as_it_was_registered() {
        let alias = Registered::parse("collection_state.complete").unwrap();
        let body: Value = serde_json::from_slice(&thread().tell(&alias)).unwrap();
        assert_eq!(body["category"], "collection_state");
        assert_eq!(Registered::parse("conversation_state.archived"), None);
        assert_eq!(Registered::parse("message"), None);
    }
}
