//! What is wrong with one field of an otherwise good body, or with one parameter of a query.

use super::{AUTH, Case, Stage};
use crate::support::BUSINESS;
use reqwest::Method;
use serde_json::{Value, json};

/// What a field takes.
#[derive(Clone, Copy)]
enum Kind {
    /// An identifier: 1 to 128 URL-safe characters.
    Id,
    /// A name of so many characters at most.
    Name(usize),
    /// A text of so many characters at most.
    Text(usize),
    /// A text of so many bytes at most, not empty.
    Body(usize),
    /// A text whose content is judged otherwise.
    Word,
    Integer,
    Flag,
    Object,
    ObjectOrText,
    Texts(usize),
}

struct Field {
    path: &'static str,
    name: &'static str,
    kind: Kind,
    required: bool,
}

const fn must(path: &'static str, name: &'static str, kind: Kind) -> Field {
    Field { path, name, kind, required: true }
}
const fn may(path: &'static str, name: &'static str, kind: Kind) -> Field {
    Field { path, name, kind, required: false }
}

const FIELDS: &[Field] = &[
    must("/tract/hooks/register/", "category", Kind::Name(64)),
    must("/tract/hooks/register/", "subcategory", Kind::Name(64)),
    must("/tract/hooks/register/", "url", Kind::Text(2048)),
    must("/tract/hooks/unregister/", "category", Kind::Name(64)),
    must("/tract/hooks/unregister/", "subcategory", Kind::Name(64)),
    must("/tract/hooks/enable/", "category", Kind::Name(64)),
    must("/tract/hooks/enable/", "subcategory", Kind::Name(64)),
    must("/tract/hooks/test/", "category", Kind::Name(64)),
    must("/tract/hooks/test/", "subcategory", Kind::Name(64)),
    must("/tract/user/", "user_id", Kind::Id),
    must("/tract/user/details/", "user_id", Kind::Id),
    must("/tract/user/details/", "details_requested", Kind::Texts(256)),
    must("/tract/message/send/", "user_id", Kind::Id),
    must("/tract/message/send/", "message_body", Kind::Body(64 * 1024)),
    must("/tract/message/send/", "sender", Kind::Word),
    may("/tract/message/send/", "metadata", Kind::Object),
    may("/tract/message/send/", "control_epoch", Kind::Integer),
    must("/tract/events/send/", "user_id", Kind::Id),
    must("/tract/events/send/", "category", Kind::Name(64)),
    must("/tract/events/send/", "subcategory", Kind::Name(64)),
    may("/tract/events/send/", "metadata", Kind::ObjectOrText),
    must("/tract/thread_control/listeners/", "user_id", Kind::Id),
    must("/tract/thread_control/request/", "user_id", Kind::Id),
    must("/tract/thread_control/request/", "type", Kind::Name(16)),
    must("/tract/thread_control/request/", "requester", Kind::Id),
    // The base passes, and a pass must say to whom.
    must("/tract/thread_control/request/", "receiver", Kind::Id),
    may("/tract/thread_control/request/", "metadata", Kind::Object),
    may("/tract/thread_control/request/", "deadline_seconds", Kind::Integer),
    may("/tract/thread_control/request/", "control_epoch", Kind::Integer),
    may("/tract/thread_control/request/", "offer_id", Kind::Name(128)),
    must("/v1.0/user/", "auth_id", Kind::Name(256)),
    may("/v1.0/user/", "auth_code", Kind::Text(4096)),
    may("/v1.0/user/", "mobile_no", Kind::Text(64)),
    may("/v1.0/user/", "email", Kind::Text(320)),
    may("/v1.0/user/", "name", Kind::Text(256)),
    may("/v1.0/user/", "language_code", Kind::Text(16)),
    may("/v1.0/user/", "phone_model", Kind::Text(256)),
    may("/v1.0/user/", "os_version", Kind::Text(256)),
    may("/v1.0/user/", "package_name", Kind::Text(256)),
    may("/v1.0/user/", "device_platform", Kind::Integer),
    may("/v1.0/user/", "business_id", Kind::Integer),
    may("/v1.0/user/", "custom_data", Kind::Object),
    must("/v1.0/log_message_from_user/", "user", Kind::Object),
    must("/v1.0/log_message_from_user/", "user.auth_id", Kind::Name(256)),
    must("/v1.0/log_message_from_user/", "message_body", Kind::Body(64 * 1024)),
    must("/v1.0/log_message_from_user/", "message_type", Kind::Integer),
    must("/v1.0/log_message_from_user/", "business_id", Kind::Integer),
    must("/v1.0/sync_message_from_user/", "user", Kind::Object),
    must("/v1.0/sync_message_from_user/", "user.auth_id", Kind::Name(256)),
    must("/v1.0/sync_message_from_user/", "message_body", Kind::Body(64 * 1024)),
    must("/v1.0/sync_message_from_user/", "message_type", Kind::Integer),
    must("/v1.0/sync_message_from_user/", "business_id", Kind::Integer),
    must("/v1.0/log_feedback_from_user/", "auth_id", Kind::Name(256)),
    must("/v1.0/log_feedback_from_user/", "business_id", Kind::Integer),
    must("/v1.0/log_feedback_from_user/", "query_resolved", Kind::Flag),
    must("/v1.0/log_feedback_from_user/", "query_rating", Kind::Integer),
    may("/v1.0/log_feedback_from_user/", "feedback", Kind::Text(4096)),
    must("/integration/external/v1.0/send_chat_to_agent/", "user_name", Kind::Id),
    must("/integration/external/v1.0/send_chat_to_agent/", "business_id", Kind::Integer),
    must("/integration/external/v1.0/send_chat_to_agent/", "team_name", Kind::Name(128)),
    may("/integration/external/v1.0/send_chat_to_agent/", "countdown", Kind::Integer),
    may("/v1.0/webhook/", "business_id", Kind::Integer),
    may("/v1.0/webhook/", "device_platform", Kind::Integer),
    must("/admin/v1/hooks/enable", "endpoint", Kind::Name(512)),
    may("/admin/v1/dead_letters/replay", "client_id", Kind::Id),
    must("/admin/v1/drain", "to", Kind::Id),
    may("/admin/v1/drain", "receiver", Kind::Id),
    may("/admin/v1/drain", "client_id", Kind::Id),
    may("/admin/v1/drain", "state", Kind::Name(16)),
    may("/admin/v1/drain", "q", Kind::Name(256)),
    may("/admin/v1/drain", "dry_run", Kind::Flag),
    must("/admin/v1/tokens", "client_id", Kind::Id),
    must("/admin/v1/tokens", "receiver", Kind::Id),
    may("/admin/v1/tokens", "ttl_seconds", Kind::Integer),
];

impl Kind {
    fn wrong(self) -> Vec<Value> {
        let mut wrong = match self {
            Self::Id => {
                let texts =
                    ["", " ", "a b", "a/b", "a\u{0}b", "a\nb", "\u{7f}", "a\u{1b}[31m", "\u{e4}", "a?b", "%41", "a:b"];
                let mut texts: Vec<Value> = texts.into_iter().map(Value::from).collect();
                texts.push("u".repeat(129).into());
                texts
            }
            Self::Name(max) => {
                vec![json!(""), json!("a\u{0}b"), json!("a\rb"), json!("a\u{85}b"), json!("\u{e4}".repeat(max + 1))]
            }
            Self::Text(max) => vec![json!("\u{e4}".repeat(max + 1))],
            Self::Body(max) => vec![json!(""), json!("x".repeat(max + 1)), json!("\u{e4}".repeat(max / 2 + 1))],
            Self::Word => vec![],
            Self::Integer => vec![
                json!(-1),
                json!(1.5),
                json!(1.0),
                json!(9_007_199_254_740_993_u64),
                json!(u64::MAX),
                json!(1e300),
                json!("-1"),
                json!("1.5"),
                json!("+1"),
                json!(" 1"),
                json!("0x1"),
                json!("\u{661}"),
                json!("9007199254740993"),
                json!("99999999999999999999999999"),
                json!("one"),
                json!(""),
            ],
            Self::Flag => vec![json!(2), json!(-1), json!("yes"), json!("True"), json!("")],
            Self::Object => vec![json!("x"), json!("{}")],
            Self::ObjectOrText => vec![],
            Self::Texts(max) => {
                vec![json!("email"), json!([5]), json!([null]), json!([["a"]]), json!(["x".repeat(max + 1)])]
            }
        };
        if !matches!(self, Self::Integer) {
            wrong.extend([json!(5), json!(1.5)]);
        }
        if !matches!(self, Self::Object | Self::ObjectOrText) {
            wrong.extend([json!({}), json!({"a": 1})]);
        }
        if !matches!(self, Self::Texts(_)) {
            wrong.extend([json!([]), json!(["a"])]);
        }
        if !matches!(self, Self::Flag) {
            wrong.push(json!(true));
        }
        wrong
    }
}

/// Puts a value at a path of keys; none takes it away.
fn put(body: &mut Value, path: &str, value: Option<Value>) {
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let at = parents.split('.').filter(|key| !key.is_empty()).fold(body, |at, key| &mut at[key]);
    match value {
        Some(value) => at[last] = value,
        None => drop(at.as_object_mut().unwrap().remove(last)),
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(40).collect()
}

#[tokio::test]
async fn fields_of_wrong_types_and_sizes_and_missing_ones() {
    let stage = Stage::set().await;
    let goods = stage.good();
    let mut cases = Vec::new();
    for Field { path, name, kind, required } in FIELDS {
        let (_, good) = goods.iter().find(|(known, _)| known == path).unwrap();
        let mut case = |value: Option<Value>| {
            let mut body = good.clone();
            let what = format!("{name} = {}", value.as_ref().map_or("nothing".to_owned(), short));
            put(&mut body, name, value);
            cases.push(stage.by_path(path).json(&body).refused(what, 400, "invalid_field", *name));
        };
        kind.wrong().into_iter().for_each(|value| case(Some(value)));
        if *required {
            case(None);
            case(Some(Value::Null));
        }
    }
    assert!(cases.len() > 600, "{}", cases.len());
    stage.check(cases).await;
}

/// Fields that are well formed, but say what they may not.
#[tokio::test]
async fn fields_that_say_what_they_may_not() {
    let stage = Stage::set().await;
    let goods = stage.good();
    let mut cases = Vec::new();
    let mut case = |path: &str, name: &str, value: Value, status: u16, code: &'static str, names: &str| {
        let (_, good) = goods.iter().find(|(known, _)| *known == path).unwrap();
        let mut body = good.clone();
        put(&mut body, name, Some(value.clone()));
        cases.push(stage.by_path(path).json(&body).refused(format!("{name} = {value}"), status, code, names));
    };
    let register = "/tract/hooks/register/";
    case(register, "category", json!("messages"), 400, "invalid_field", "known are message, conversation_state");
    case(register, "subcategory", json!("sent"), 400, "invalid_field", "known are receive");
    for url in [
        "",
        "no",
        "/hook",
        "ftp://a.example/",
        "file:///etc/passwd",
        "https://",
        "https://u:p@a.example/",
        "javascript:1",
    ] {
        case(register, "url", json!(url), 400, "invalid_field", "url");
    }
    case(register, "url", json!(format!("https://a.example/{}", "x".repeat(2048))), 400, "invalid_field", "url");
    case("/tract/hooks/unregister/", "category", json!("nothing"), 400, "invalid_field", "category");

    let send = "/tract/message/send/";
    for sender in ["", "ceu", "haptik", "iva", "AEU", "aeu ", "nobody", "a\u{0}"] {
        case(send, "sender", json!(sender), 403, "sender_not_allowed", "send");
    }
    case(send, "control_epoch", json!(stage.epoch + 1), 409, "stale_epoch", "control_epoch");
    case(send, "control_epoch", json!(0), 409, "stale_epoch", "control_epoch");
    case(send, "control_epoch", json!(1_u64 << 53), 409, "stale_epoch", "control_epoch");
    case(send, "control_epoch", json!((stage.epoch - 1).to_string()), 409, "stale_epoch", "control_epoch");

    let event = "/tract/events/send/";
    for (name, value) in [("category", "bot_events"), ("subcategory", "pinned"), ("subcategory", "ALLOCATED")] {
        case(event, name, json!(value), 400, "invalid_field", "category, subcategory");
    }

    let control = "/tract/thread_control/request/";
    for op in ["grab", "PASS", "pass ", "expire"] {
        case(control, "type", json!(op), 400, "invalid_field", "type: must be one of pass, take");
    }
    case(control, "requester", json!("helper"), 403, "requester_mismatch", "requester");
    case(control, "requester", json!("nobody"), 403, "requester_mismatch", "requester");
    case(control, "receiver", json!("nobody"), 404, "unknown_receiver", "nobody");
    case(control, "receiver", json!("helper"), 403, "target_not_permitted", "helper");
    case(control, "type", json!("take"), 400, "invalid_field", "receiver");
    case(control, "type", json!("accept"), 409, "no_offer", "offer");
    case(control, "type", json!("decline"), 409, "no_offer", "offer");
    case(control, "control_epoch", json!(stage.epoch + 1), 409, "stale_epoch", "control_epoch");
    for seconds in [json!(0), json!(86_401), json!("0"), json!(1_u64 << 53)] {
        case(control, "deadline_seconds", seconds, 400, "invalid_field", "deadline_seconds");
    }

    let user = "/v1.0/user/";
    for code in ["e", "eng", "e1", "\u{e4}", "en-US", "  "] {
        case(user, "language_code", json!(code), 400, "invalid_field", "language_code");
    }
    for platform in [0, 1, 7, 16, 1_u64 << 53] {
        case(user, "device_platform", json!(platform), 400, "invalid_field", "device_platform");
    }
    case(user, "business_id", json!(344), 404, "unknown_business", "business_id");
    case(user, "custom_data", json!({"a": {"b": 1}}), 400, "invalid_field", "custom_data.a");
    case(user, "custom_data", json!({"a": 1, "b": [1]}), 400, "invalid_field", "custom_data.b");
    case(user, "custom_data", json!({"a": {}}), 400, "invalid_field", "custom_data.a");

    let log = "/v1.0/log_message_from_user/";
    for number in [1, 52, 2, 1_u64 << 53] {
        case(log, "message_type", json!(number), 400, "invalid_field", "message_type");
    }
    case(log, "business_id", json!(0), 404, "unknown_business", "business_id");
    case(log, "business_id", json!(super::OTHER_BUSINESS), 404, "unknown_business", "business_id");
    case(log, "user.auth_id", json!("nobody"), 403, "user_not_registered", "user is not registered");

    let feedback = "/v1.0/log_feedback_from_user/";
    for rating in [json!(0), json!(6), json!("0"), json!(1_u64 << 53)] {
        case(feedback, "query_rating", rating, 400, "invalid_field", "query_rating: must be an integer from 1 to 5");
    }
    case(feedback, "auth_id", json!("nobody"), 403, "invalid_user", "Invalid_User");
    case(feedback, "business_id", json!(super::OTHER_BUSINESS), 404, "unknown_business", "business_id");
    let sync = "/v1.0/sync_message_from_user/";
    case(sync, "message_type", json!(1), 400, "invalid_field", "message_type");
    case(sync, "user.auth_id", json!("nobody"), 403, "user_not_registered", "user is not registered");

    let to_agent = "/integration/external/v1.0/send_chat_to_agent/";
    for seconds in [json!(4), json!(11), json!(0), json!("60")] {
        case(to_agent, "countdown", seconds, 400, "invalid_field", "countdown");
    }
    case(to_agent, "business_id", json!(344), 404, "unknown_user", "no such user");

    let tokens = "/admin/v1/tokens";
    case(tokens, "client_id", json!("nobody"), 404, "unknown_client", "client");
    case(tokens, "receiver", json!("nobody"), 400, "invalid_field", "receiver");
    for ttl in [json!(0), json!(400 * 86_400), json!(1_u64 << 53)] {
        case(tokens, "ttl_seconds", ttl, 400, "invalid_field", "ttl_seconds");
    }
    let drain = "/admin/v1/drain";
    case(drain, "cursor", json!("zz"), 400, "invalid_field", "cursor: must be the next");
    case(drain, "to", json!("helper"), 400, "invalid_field", "to: must be another receiver");
    case(drain, "to", json!("nobody"), 404, "unknown_receiver", "nobody");
    case(drain, "client_id", json!("nobody"), 404, "unknown_client", "client");
    case(drain, "state", json!("open"), 400, "invalid_field", "state: must be one of none, bot");
    let apply = "/admin/v1/apply";
    case(apply, "clients", json!([]), 400, "invalid_configuration", "clients");
    case(apply, "client", json!({}), 400, "invalid_configuration", "client");
    case(apply, "client", json!([{}]), 400, "invalid_configuration", "client[0].client_id");
    case(apply, "client", json!([{"client_id": "a b"}]), 400, "invalid_configuration", "client[0].client_id");
    case(apply, "ect", json!([{"ect_id": "x", "fqdn": 5}]), 400, "invalid_configuration", "ect[0].fqdn");
    stage.check(cases).await;
}

#[tokio::test]
async fn keys_that_come_twice() {
    let stage = Stage::set().await;
    let mut cases = Vec::new();
    for (path, body) in stage.good().into_iter().filter(|(path, _)| *path != "/admin/v1/apply") {
        for (name, value) in body.as_object().unwrap() {
            let text = body.to_string();
            let twice = format!("{},\"{name}\":{value}}}", text.strip_suffix('}').unwrap());
            cases.push(stage.by_path(path).raw(twice).refused(format!("{name} twice"), 400, "invalid_field", name));
        }
    }
    stage.check(cases).await;
}

#[tokio::test]
async fn messages_that_are_broken_hsl() {
    let stage = Stage::set().await;
    let deep = |n: usize| format!("{{\"text\":\"a\",\"data\":{{\"a\":{}{}}}}}", "[".repeat(n), "]".repeat(n));
    let broken: Vec<(String, &str)> = [
        ("{}", "message_body: must have"),
        ("{\"", "message_body: begins like HSL"),
        ("{\"text\":\"a\"", "message_body: begins like HSL"),
        ("{\"text\":\"a\"} and more", "message_body: begins like HSL"),
        ("{ \"text\":\"a\",}", "message_body: begins like HSL"),
        ("{\n\t\"text\":\"\\ud800\"}", "message_body: begins like HSL"),
        (r#"{"type":"TEXT"}"#, "message_body: must have"),
        (r#"{"text":5}"#, "message_body.text"),
        (r#"{"text":["a"]}"#, "message_body.text"),
        (r#"{"text":"a","type":5}"#, "message_body.type"),
        (r#"{"text":null,"data":null}"#, "message_body: must have"),
        (r#"{"text":"a","data":[]}"#, "message_body.data"),
        (r#"{"text":"a","type":"TEXT","data":"x"}"#, "message_body.data"),
        (r#"{"text":"a","type":"TEXT","data":{"quick_replies":{}}}"#, "message_body.data.quick_replies"),
        (r#"{"text":"a","type":"TEXT","data":{"quick_replies":["x"]}}"#, "message_body.data.quick_replies[0]"),
        (
            r#"{"text":"a","type":"TEXT","data":{"quick_replies":[{"actionable_text":1}]}}"#,
            "quick_replies[0].actionable_text",
        ),
        (r#"{"text":"","type":"BUTTON","data":{}}"#, "message_body.data.items"),
        (r#"{"text":"a","type":"BUTTON","data":{"items":5}}"#, "message_body.data.items"),
        (
            r#"{"text":"a","type":"BUTTON","data":{"items":[{"uri":"LINK"},{"uri":5}]}}"#,
            "message_body.data.items[1].uri",
        ),
        (
            r#"{"text":"a","type":"BUTTON","data":{"items":[{"uri":"LINK","payload":[]}]}}"#,
            "message_body.data.items[0].payload",
        ),
        (r#"{"text":"a","type":"BUTTON","data":{"items":[{}]}}"#, "message_body.data.items[0]"),
        (r#"{"type":"CAROUSEL","data":{}}"#, "message_body.data.items"),
        (r#"{"type":"CAROUSEL","data":{"items":[5]}}"#, "message_body.data.items[0]"),
        (r#"{"type":"CAROUSEL","data":{"items":[{"thumbnail":"x"}]}}"#, "message_body.data.items[0].thumbnail"),
        (
            r#"{"type":"CAROUSEL","data":{"items":[{"thumbnail":{"image":1}}]}}"#,
            "message_body.data.items[0].thumbnail.image",
        ),
        (r#"{"type":"CAROUSEL","data":{"items":[{"title":1}]}}"#, "message_body.data.items[0].title"),
        (r#"{"type":"CAROUSEL","data":{"items":[{"actionables":{}}]}}"#, "message_body.data.items[0].actionables"),
        (r#"{"type":"CAROUSEL","data":{"items":[{"actionables":[1]}]}}"#, "message_body.data.items[0].actionables[0]"),
        (r#"{"type":"CAROUSEL","data":{"items":[],"width":5}}"#, "message_body.data.width"),
        (r#"{"text":"a","type":"SYSTEM","data":5}"#, "message_body.data"),
    ]
    .into_iter()
    .map(|(text, names)| (text.to_owned(), names))
    .chain([(deep(63), "message_body: must not be nested"), (deep(10_000), "message_body: must not be nested")])
    .collect();
    let cases = broken.into_iter().map(|(text, names)| {
        let body = json!({"user_id": stage.user_id, "sender": "aeu", "message_body": text});
        let what: String = text.chars().take(80).collect();
        stage.tool("/tract/message/send/").json(&body).refused(what, 400, "invalid_field", names)
    });
    let cases = cases.collect();
    stage.check(cases).await;
}

#[tokio::test]
async fn parameters_that_are_wrong() {
    let stage = Stage::set().await;
    let long = "u".repeat(129);
    let user_id = &stage.user_id;
    let mut cases: Vec<Case> = Vec::new();
    for (query, names) in [
        (String::new(), "user_id"),
        ("user_id=".to_owned(), "user_id"),
        (format!("user_id={long}"), "user_id"),
        ("user_id=a%00b".to_owned(), "user_id"),
        ("user_id=a%20b".to_owned(), "user_id"),
        ("user_id=%C3%A4".to_owned(), "user_id"),
    ] {
        for path in ["/tract/thread/", "/tract/thread/feed/"] {
            let call = stage.tool_call(Method::GET, &format!("{path}?{query}"));
            cases.push(call.refused("", 400, "invalid_field", names));
        }
    }
    for (name, values) in [
        ("after", &["-1", "x", "1.5", "9007199254740993", "1e3", "+1", "%00"][..]),
        ("limit", &["0", "501", "-1", "x", "1.5", "99999999999999999999"]),
    ] {
        for value in values {
            let path = format!("/tract/thread/feed/?user_id={user_id}&{name}={value}");
            cases.push(stage.tool_call(Method::GET, &path).refused("", 400, "invalid_field", name));
            let path = format!("/admin/v1/threads/{user_id}?{name}={value}");
            cases.push(stage.operator(Method::GET, &path).refused("", 400, "invalid_field", name));
        }
    }
    for (query, names) in [
        ("state=lost", "state: must be one of pending, delivered, rejected, dead"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("user_id=a%20b", "user_id"),
        ("category=message", "subcategory"),
        ("subcategory=receive", "category"),
        ("category=%00&subcategory=receive", "category"),
    ] {
        let call = stage.tool_call(Method::GET, &format!("/tract/hooks/deliveries/?{query}"));
        cases.push(call.refused("", 400, "invalid_field", names));
    }
    for (body, names) in [
        (json!({}), "webhook_id"),
        (json!({"webhook_id": "m", "since": "2026-01-01T00:00:00Z"}), "since"),
        (json!({"since": "yesterday"}), "since"),
        (json!({"since": 5}), "since"),
        (json!({"webhook_id": "a\u{0}b"}), "webhook_id"),
        (json!({"webhook_id": "m", "category": "message"}), "subcategory"),
    ] {
        let call = stage.tool("/tract/hooks/replay/").json(&body);
        cases.push(call.refused(body.to_string(), 400, "invalid_field", names));
        if body.get("category").is_none() {
            let call = stage.operator(Method::POST, "/admin/v1/dead_letters/replay").json(&body);
            cases.push(call.refused(body.to_string(), 400, "invalid_field", names));
        }
    }
    for (path, names) in [
        ("/admin/v1/threads?state=open", "state"),
        ("/admin/v1/hooks?client_id=a%20b", "client_id"),
        ("/admin/v1/dead_letters?limit=501", "limit"),
        ("/admin/v1/dead_letters?client_id=acme&endpoint=iva:acme", "endpoint"),
        ("/admin/v1/threads?limit=0", "limit"),
        ("/admin/v1/threads?client_id=a%20b", "client_id"),
        ("/admin/v1/threads?active=%00", "active"),
        ("/admin/v1/threads?cursor=zz", "cursor"),
        ("/admin/v1/threads?cursor=7.", "cursor"),
        ("/admin/v1/dead_letters?cursor=-1", "cursor"),
    ] {
        cases.push(stage.operator(Method::GET, path).refused("", 400, "invalid_field", names));
    }
    for (path, names) in [
        (format!("/admin/v1/threads/{long}"), "user_id: "),
        ("/admin/v1/ects/a%20b".to_owned(), "ect_id: "),
        ("/admin/v1/clients/%00".to_owned(), "client_id: "),
        ("/admin/v1/clients/%ff".to_owned(), "client_id: is not UTF-8"),
        ("/admin/v1/clients/acme/businesses/-1".to_owned(), "business_id: "),
        ("/admin/v1/clients/acme/businesses/x".to_owned(), "business_id: "),
    ] {
        cases.push(stage.operator(Method::GET, &path).refused("", 400, "invalid_path", names));
    }
    cases.push(stage.operator(Method::GET, "/admin/v1/threads/nobody").refused("", 404, "unknown_user", "user"));
    cases.push(stage.operator(Method::DELETE, "/admin/v1/ects/helper?force=yes").refused(
        "",
        400,
        "invalid_field",
        "force",
    ));
    stage.check(cases).await;
}

/// What looks odd but is meant to be taken.
#[tokio::test]
async fn what_is_unusual_but_right() {
    let stage = Stage::set().await;
    let (router, user_id) = (&stage.router, &stage.user_id);
    let send = |words: &str, more: Value| {
        let mut body = json!({"user_id": user_id, "sender": "aeu", "message_body": words});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        stage.tool("/tract/message/send/").json(&body).request
    };
    let long = "\u{e4}".repeat(32 * 1024);
    let bodies = ["64 KiB to the byte is not too much", "{not JSON", "[]", "{ 'a'", "\u{0}\u{7}\n", " ", &long];
    router.api.send(send(bodies[0], json!({"control_epoch": stage.epoch.to_string()}))).await.ok();
    router
        .api
        .send(send(bodies[1], json!({"unknown": {"field": [1, 2]}, "metadata": null, "control_epoch": null})))
        .await
        .ok();
    for words in &bodies[2..] {
        router.api.send(send(words, json!({}))).await.ok();
    }
    let mut expected = vec!["before"];
    expected.extend(bodies);
    router.customer_reads(&expected).await;

    let user = json!({"auth_id": "odd", "device_platform": "14", "business_id": BUSINESS.to_string(), "language_code": "EN",
        "custom_data": {"a": null, "b": 1.5, "c": true, "d": "x"}, "more": [[[]]]});
    router.channel.post("/v1.0/user/", &user).await.ok();
    let said =
        json!({"user": {"auth_id": AUTH, "x": 1}, "message_body": "{}", "message_type": "0", "business_id": "343"});
    let logged = router.channel.post("/v1.0/log_message_from_user", &said).await.ok();
    assert_eq!(logged["message_body"], "{}", "what a customer writes is never parsed");
    let too_many =
        json!({"user": {"auth_id": AUTH}, "message_body": long.clone() + "x", "message_type": 0, "business_id": 343});
    router.channel.post("/v1.0/log_message_from_user", &too_many).await.refused(400, "invalid_field");
    stage.router.stop().await;
}
