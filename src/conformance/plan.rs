//! What is sent, and what is expected of the answer. No I/O: the same run and time make the same plan.

use super::check::Check;
use super::signing::Signing;
use super::thread::{Registered, Thread};
use crate::hsl::{MAX_BODY, text_element};
use crate::webhook::payload;
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;
use tract_domain::{Sender, Timestamp, Topic};
use uuid::Uuid;

/// How many deliveries the router has under way to one endpoint at most (section 8).
pub const AT_ONCE: usize = 32;

/// How long ago the first attempt was, of which a retry comes now.
const RETRIED_AFTER: Duration = Duration::from_secs(25);

/// An endpoint that takes longer than this sees the router hang up, as it would after 5 s, and the retry come while it
/// is at work.
const HANG_UP: Duration = Duration::from_millis(50);

/// The age of a delivery that somebody recorded: twice what is tolerated.
const RECORDED: Duration = Duration::from_secs(600);

/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;

/// One delivery.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Names the event for this endpoint.
    pub webhook_id: String,
    /// What is posted.
    pub body: Bytes,
    /// How it is signed.
    pub signing: Signing,
    /// How long ago it was sent, as its timestamp says.
    pub age: Duration,
    /// The sender hangs up so soon; none: after the run's time limit.
    pub hang_up: Option<Duration>,
}

/// What the endpoint should do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Take it.
    Taken,
    /// Take it; the router works without that, but whoever tries the hook is told that it fails.
    Welcome,
    /// Refuse it with a 4xx: it is forged.
    Refused,
    /// Refuse it with a 4xx: it is a recording, rightly signed.
    RefusedAsOld,
    /// Either: the answer tells whether `webhook-signature` alone is believed.
    TellsStandard,
    /// Either: the answer tells whether `X-Hub-Signature` alone is believed.
    TellsHub,
    /// Anything, an answer included: the sender hung up.
    Whatever,
}

/// One delivery of a check.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is, for people.
    pub label: String,
    /// What is sent.
    pub delivery: Delivery,
    /// What should come of it.
    pub expect: Expect,
}

/// A check, with all that is sent for it.
#[derive(Debug)]
pub struct Planned {
    /// Which.
    pub check: Check,
    /// In this order; or all at once.
    pub cases: Vec<Case>,
    /// Whether one does not wait for the other's answer.
    pub at_once: bool,
}

/// Makes up threads and deliveries.
pub struct Planner {
    run: Uuid,
    now: Timestamp,
    hooks: Vec<Registered>,
    threads: usize,
    deliveries: usize,
}

impl Planner {
    /// Plans for an endpoint that is registered for these hooks; at least one.
    pub fn new(run: Uuid, now: Timestamp, hooks: Vec<Registered>) -> Self {
        Self { run, now, hooks, threads: 0, deliveries: 0 }
    }

    /// The deliveries of a check; none if the endpoint's hooks leave nothing to send, or if it is not about a delivery
    /// of its own.
    pub fn plan(&mut self, check: Check) -> Option<Planned> {
        let cases = match check {
            Check::Answers => self.answers(),
            Check::Topics => self.topics(),
            Check::Duplicates => self.duplicates(),
            Check::Retries => self.retries(),
            Check::Order => self.order(),
            Check::History => self.history(),
            Check::Unknown => self.unknown(),
            Check::Contents => self.contents(),
            Check::Concurrency => self.concurrency(),
            Check::Signatures => self.signatures(),
            Check::Rotation => self.rotation(),
            Check::Url | Check::Rejections | Check::Latency => Vec::new(),
        };
        let at_once = check == Check::Concurrency;
        (!cases.is_empty()).then_some(Planned { check, cases, at_once })
    }

    fn thread(&mut self) -> Thread {
        self.threads += 1;
        Thread::new(self.run, self.threads, self.now)
    }

    /// The hook for most checks: `message.receive`, if it is registered.
    fn usual(&self) -> Registered {
        let usual = self.hook(Topic::MessageReceive).or_else(|| self.hooks.first().cloned());
        usual.unwrap_or_else(|| Registered { topic: Topic::MessageReceive, category: "message".to_owned() })
    }

    fn hook(&self, topic: Topic) -> Option<Registered> {
        self.hooks.iter().find(|hook| hook.topic == topic).cloned()
    }

    /// Any hook whose payloads are events.
    fn event(&self) -> Option<Registered> {
        let plain = |hook: &&Registered| !matches!(hook.topic, Topic::MessageReceive | Topic::CreateUser);
        self.hooks.iter().find(plain).cloned()
    }

    /// A delivery that the router would send now, of an event of its own.
    fn case(&mut self, label: impl Into<String>, body: Vec<u8>) -> Case {
        self.deliveries += 1;
        let webhook_id = format!("{}-{}", self.run.simple(), self.deliveries);
        let delivery =
            Delivery { webhook_id, body: body.into(), signing: Signing::Genuine, age: Duration::ZERO, hang_up: None };
        Case { label: label.into(), delivery, expect: Expect::Taken }
    }

    /// An ordinary delivery about a thread of its own.
    pub fn ordinary(&mut self, label: impl Into<String>) -> Case {
        let hook = self.usual();
        let body = self.thread().tell(&hook);
        self.case(label, body)
    }

    fn answers(&mut self) -> Vec<Case> {
        let name = self.usual().name();
        vec![self.ordinary(name)]
    }

    fn topics(&mut self) -> Vec<Case> {
        let mut thread = self.thread();
        // A user is created before anything happens to it.
        let mut hooks = self.hooks.clone();
        hooks.sort_by_key(|hook| hook.topic != Topic::CreateUser);
        let mut cases: Vec<_> = hooks.iter().map(|hook| self.case(hook.name(), thread.tell(hook))).collect();
        cases.push(self.ping());
        cases
    }

    /// What `hooks/test/` sends.
    fn ping(&mut self) -> Case {
        let hook = self.usual();
        let body = payload::ping(&hook.category, hook.topic.names().1, self.now);
        let mut case = self.case("a ping, as POST /tract/hooks/test/ sends it", body);
        case.delivery.webhook_id = format!("ping_{}", case.delivery.webhook_id);
        case.expect = Expect::Welcome;
        case
    }

    fn duplicates(&mut self) -> Vec<Case> {
        let mut hooks = vec![self.usual()];
        hooks.extend(self.event());
        hooks.extend(self.hook(Topic::CreateUser));
        hooks.dedup();
        let mut thread = self.thread();
        let mut cases = Vec::new();
        for hook in hooks {
            let first = self.case(format!("{}, the first time", hook.name()), thread.tell(&hook));
            let second = Case { label: format!("{}, the second time", hook.name()), ..first.clone() };
            cases.extend([first, second]);
        }
        cases
    }

    fn retries(&mut self) -> Vec<Case> {
        let mut later = self.ordinary("a first attempt, which the router counts as failed");
        later.delivery.age = RETRIED_AFTER;
        let mut retry = Case { label: "its retry, 25 s later".to_owned(), ..later.clone() };
        retry.delivery.age = Duration::ZERO;

        let mut cut = self.ordinary("an attempt at which the router hung up");
        cut.expect = Expect::Whatever;
        cut.delivery.hang_up = Some(HANG_UP);
        cut.delivery.age = RETRIED_AFTER;
        let mut again = Case { label: "the retry after the router hung up".to_owned(), ..cut.clone() };
        again.expect = Expect::Taken;
        again.delivery.hang_up = None;
        again.delivery.age = Duration::ZERO;
        vec![later, retry, cut, again]
    }

    fn order(&mut self) -> Vec<Case> {
        let hook = self.usual();
        let (mut one, mut other) = (self.thread(), self.thread());
        // Each thread in its own order, interleaved.
        let mut cases = Vec::new();
        let of_one: Vec<_> = (0..3).map(|_| one.tell(&hook)).collect();
        let of_other: Vec<_> = (0..3).map(|_| other.tell(&hook)).collect();
        let mut bodies = [of_one, of_other].map(Vec::into_iter);
        for index in [1, 0, 1, 1, 0, 0] {
            cases.extend(bodies[index].next().map(|body| self.case("two threads, interleaved", body)));
        }
        let mut jumping = self.thread();
        for gap in [0, 1, 6] {
            jumping.skip(gap);
            let label = format!("sequence {} after a gap of {gap}", jumping.sequence() + 1);
            cases.push(self.case(label, jumping.tell(&hook)));
        }
        // Hooks do not wait for each other: the later entry can be here first.
        if let Some(event) = self.event().filter(|event| *event != hook) {
            let mut thread = self.thread();
            let (earlier, later) = (thread.tell(&event), thread.tell(&hook));
            cases.push(self.case(format!("{} ahead of an earlier entry at another hook", hook.name()), later));
            cases.push(self.case(format!("{} after a later entry at another hook", event.name()), earlier));
        }
        cases
    }

    fn history(&mut self) -> Vec<Case> {
        if self.hook(Topic::MessageReceive).is_none() {
            return Vec::new();
        }
        let yesterday = Timestamp(self.now.0 - DAY_MS);
        let mut thread = self.thread().since(yesterday).held();
        let range = self.case("", Vec::new()).delivery.webhook_id;
        let mut cases = Vec::new();
        thread.replayed(true);
        let said = [(Sender::Ceu, "Hello"), (Sender::Iva, "Hi! How can I help?"), (Sender::Ceu, "A person, please")];
        for (sender, words) in said {
            thread.skip(1); // States, and what the tool itself said, are no part of it.
            let mut case = self.case("a message of yesterday, replayed", thread.say(sender, text_element(words)));
            case.delivery.webhook_id = format!("{range}-{}", thread.sequence());
            cases.push(case);
        }
        thread.replayed(false);
        let mut thread = thread.since(self.now);
        let live = thread.say(Sender::Ceu, text_element("Are you there?"));
        cases.push(self.case("a message of now, after them", live));
        // A dead letter comes when somebody replays it, whatever came meanwhile.
        let mut dead = self.thread().since(Timestamp(self.now.0 - 3 * DAY_MS)).held();
        dead.replayed(true);
        let letter = dead.say(Sender::Ceu, text_element("Is anybody there?"));
        dead.replayed(false);
        let mut dead = dead.since(self.now);
        let live = dead.say(Sender::Ceu, text_element("Never mind"));
        cases.push(self.case("a message of now, ahead of a dead letter", live));
        cases.push(self.case("a dead letter of three days ago, replayed", letter));
        cases
    }

    fn unknown(&mut self) -> Vec<Case> {
        let mut cases = Vec::new();
        let extra = json!({"since": "a later version", "list": [1, 2.5, null]});
        let mut thread = self.thread();
        if let Some(hook) = self.hook(Topic::MessageReceive) {
            let body = altered(&thread.tell(&hook), |body| {
                body["not_known_yet"] = extra.clone();
                body["metadata"]["not_known_yet"] = extra.clone();
            });
            cases.push(self.case("a message with unknown fields", body));
            let element = json!({"text": "See the map", "type": "HOLOGRAM", "data": {"items": [extra]}});
            cases.push(self.case("a message of an unknown type", thread.show(&element)));
        }
        if let Some(hook) = self.event() {
            let body = altered(&thread.tell(&hook), |body| {
                body["not_known_yet"] = extra.clone();
                let metadata = body["metadata"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
                let mut metadata = metadata.unwrap_or_default();
                metadata["not_known_yet"] = extra.clone();
                body["metadata"] = metadata.to_string().into();
            });
            cases.push(self.case("an event with unknown fields", body));
            let body = altered(&thread.tell(&hook), |body| body["subcategory"] = "not_known_yet".into());
            cases.push(self.case("an event of an unknown subcategory", body));
            let body = altered(&thread.tell(&hook), |body| body["category"] = "not_known_yet".into());
            cases.push(self.case("an event of an unknown category", body));
        }
        if self.hook(Topic::CreateUser).is_some() {
            let stranger = self.thread().stranger();
            cases.push(self.case("a user of whom only the id is known", stranger));
        }
        cases
    }

    fn contents(&mut self) -> Vec<Case> {
        if self.hook(Topic::MessageReceive).is_none() {
            return Vec::new();
        }
        let mut thread = self.thread();
        let text = |thread: &mut Thread, words: &str| thread.say(Sender::Ceu, text_element(words));
        let full: String = "0123456789abcde ".chars().cycle().take(MAX_BODY).collect();
        let quotes = "\"".repeat(MAX_BODY);
        let many = "Grüße, здравствуйте, こんにちは, مرحبا, 👩🏽‍🚀🏳️‍🌈, e\u{301}, \u{202e}right to left\u{202c}";
        let awkward = "first line\r\nsecond\tline, \"quoted\", 'quoted', \\n, </script>, %00, {{name}}, {\"text\": 1}";
        let button = json!({"text": "Your invoice", "type": "BUTTON", "data": {"items": [
            {"actionable_text": "Open", "type": "APP_ACTION", "uri": "LINK",
             "payload": {"url": "https://files.conformance.example/invoice.pdf"}}]}});
        let carousel = json!({"text": "Our best", "type": "CAROUSEL", "data": {"width": "MEDIUM",
            "image_aspect_ratio": 1.77, "items": [
            {"thumbnail": {"image": "https://files.conformance.example/1.jpg"}, "title": "Tea", "sub_title": "Green",
             "actionables": [{"actionable_text": "Buy", "uri": "LINK", "type": "APP_ACTION",
                              "payload": {"url": "https://shop.conformance.example/1"}}]},
            {"thumbnail": {"image": "https://files.conformance.example/2.jpg"}, "actionables": []}]}});
        vec![
            self.case("text in many scripts, with emoji", text(&mut thread, many)),
            self.case("text with line ends, quotation marks and markup", text(&mut thread, awkward)),
            self.case("a CAROUSEL with a button", thread.show(&carousel)),
            self.case("a BUTTON with a link", thread.show(&button)),
            self.case("a text of 64 KiB", text(&mut thread, &full)),
            self.case("a text of 64 KiB, all quotation marks: 256 KiB on the wire", text(&mut thread, &quotes)),
        ]
    }

    fn concurrency(&mut self) -> Vec<Case> {
        (1..=AT_ONCE).map(|n| self.ordinary(format!("number {n} of {AT_ONCE} at once"))).collect()
    }

    fn signatures(&mut self) -> Vec<Case> {
        let forged = [
            ("signed with another secret", Signing::OfAStranger, Expect::Refused),
            ("without any signature", Signing::Missing, Expect::Refused),
            ("altered after it was signed", Signing::OfAnotherBody, Expect::Refused),
            ("with only webhook-signature right", Signing::StandardOnly, Expect::TellsStandard),
            ("with only X-Hub-Signature right", Signing::HubOnly, Expect::TellsHub),
            ("rightly signed ten minutes ago", Signing::Genuine, Expect::RefusedAsOld),
        ];
        let mut cases = Vec::new();
        for (label, signing, expect) in forged {
            let mut case = self.ordinary(format!("a delivery {label}"));
            case.delivery.signing = signing;
            case.expect = expect;
            if expect == Expect::RefusedAsOld {
                case.delivery.age = RECORDED;
            }
            cases.push(case);
        }
        cases
    }

    fn rotation(&mut self) -> Vec<Case> {
        let mut old = self.ordinary("yours is the old secret");
        old.delivery.signing = Signing::RotatingFromOurs;
        let mut new = self.ordinary("yours is the new secret");
        new.delivery.signing = Signing::RotatingToOurs;
        vec![old, new]
    }
}

/// A body with something in it that the router does not send yet.
fn altered(body: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = serde_json::from_slice(body).unwrap_or_else(|_| json!({}));
    change(&mut value);
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn planner(hooks: &[&str]) -> Planner {
        let hooks = hooks.iter().map(|name| Registered::parse(name).unwrap()).collect();
        Planner::new(Uuid::nil(), Timestamp(1_785_000_000_000), hooks)
    }

    fn everything() -> Vec<Planned> {
        let mut planner = Planner::new(Uuid::nil(), Timestamp(1_785_000_000_000), Registered::all());
        Check::ALL.into_iter().filter_map(|check| planner.plan(check)).collect()
    }

    fn metadata(body: &Value) -> Value {
        match &body["metadata"] {
            Value::String(text) => serde_json::from_str(text).unwrap(),
            other => other.clone(),
        }
    }

    #[test]
    fn every_body_is_an_object_and_an_id_names_one_event() {
        let mut seen = std::collections::BTreeMap::new();
        for case in everything().iter().flat_map(|planned| &planned.cases) {
            let body: Value = serde_json::from_slice(&case.delivery.body).unwrap();
            assert!(body.is_object() && (body["user_id"].is_string() || body["event"] == "ping"), "{}", case.label);
            let before = seen.insert(case.delivery.webhook_id.clone(), case.delivery.body.clone());
            assert!(before.is_none_or(|before| before == case.delivery.body), "{}", case.label);
        }
    }

    #[test]
    fn an_endpoint_is_sent_nothing_that_it_is_not_registered_for() {
        let mut planner = planner(&["conversation_state.complete"]);
        for check in Check::ALL {
            for case in planner.plan(check).map(|planned| planned.cases).unwrap_or_default() {
                let body: Value = serde_json::from_slice(&case.delivery.body).unwrap();
                let name = (body["category"].as_str(), body["subcategory"].as_str());
                let known = name == (Some("conversation_state"), Some("complete"));
                assert!(known || check == Check::Unknown, "{}: {body}", case.label);
            }
        }
        assert!(planner.plan(Check::History).is_none() && planner.plan(Check::Contents).is_none());
    }

    #[test]
    fn a_ping_is_of_a_hook_that_is_registered() {
        let cases = planner(&["collection_state.complete"]).plan(Check::Topics).unwrap().cases;
        let ping = cases.last().unwrap();
        let body: Value = serde_json::from_slice(&ping.delivery.body).unwrap();
        let timestamp = body["timestamp"].as_str().unwrap_or_default();
        assert_eq!(
            body,
            json!({"event": "ping", "category": "collection_state", "subcategory": "complete", "timestamp": timestamp})
        );
        assert!(
            ping.expect == Expect::Welcome && ping.delivery.webhook_id.starts_with("ping_") && timestamp.ends_with('Z')
        );
    }

    #[test]
    fn history_is_old_marked_and_in_order() {
        let cases = planner(&["message.receive"]).plan(Check::History).unwrap().cases;
        let bodies: Vec<Value> = cases.iter().map(|c| serde_json::from_slice(&c.delivery.body).unwrap()).collect();
        let marked: Vec<_> = bodies.iter().map(|b| metadata(b)["replayed"] == true).collect();
        assert_eq!(marked, [true, true, true, false, false, true]);
        let range = &bodies[..4];
        assert!(range.is_sorted_by_key(|body| metadata(body)["sequence"].as_u64()));
        assert!(range.is_sorted_by_key(|body| body["message_id"].as_u64()));
        assert!(range.iter().all(|body| metadata(body)["standby"] == false));
        assert_eq!(range.iter().map(|b| b["sender"].clone()).collect::<Vec<_>>(), ["ceu", "iva", "ceu", "ceu"]);
        assert!(metadata(&bodies[5])["sequence"].as_u64() < metadata(&bodies[4])["sequence"].as_u64());
    }

    #[test]
    fn the_largest_message_is_what_the_contract_allows() {
        let cases = planner(&["message.receive"]).plan(Check::Contents).unwrap().cases;
        let size = |index: usize| cases[index].delivery.body.len();
        assert!((64 * 1024..66 * 1024).contains(&size(4)), "{}", size(4));
        assert!((256 * 1024..258 * 1024).contains(&size(5)), "{}", size(5));
    }

    #[test]
    fn thirty_two_threads_go_at_once() {
        let planned = planner(&["message.receive"]).plan(Check::Concurrency).unwrap();
        let users: BTreeSet<_> = planned.cases.iter().map(|c| metadata_user(&c.delivery.body)).collect();
        assert_eq!((planned.at_once, users.len()), (true, AT_ONCE));
    }

    fn metadata_user(body: &[u8]) -> String {
        serde_json::from_slice::<Value>(body).unwrap()["user_id"].to_string()
    }
}
