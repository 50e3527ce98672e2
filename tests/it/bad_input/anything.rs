//! Whatever anybody sends to whatever route: it is answered, never by a fault of ours, and a refusal says why.

use super::{Stage, check_shape};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

const BODIES: u32 = 2000;

/// A change to a good body.
#[derive(Debug, Clone)]
enum Change {
    /// A key has another value.
    Put(Index, Value),
    /// A key is gone.
    Drop(Index),
    /// A key that nobody knows.
    Add(String, Value),
    /// The text ends early.
    Cut(Index),
    /// A byte is another.
    Byte(Index, u8),
    /// Something is in between.
    Insert(Index, Vec<u8>),
    /// It is something else altogether.
    Replace(Vec<u8>),
}

/// Texts that mean something somewhere, and some that do not.
fn text() -> impl Strategy<Value = String> {
    let known = vec![
        "",
        "aeu",
        "ect",
        "iva",
        "sac",
        "sprinkle",
        "helper",
        "haptik",
        "pass",
        "take",
        "request",
        "offer",
        "accept",
        "decline",
        "release",
        "message",
        "receive",
        "conversation_state",
        "waiting",
        "complete",
        "aeu_events",
        "allocated",
        "received",
        "user_timeout",
        "acme",
        "globex",
        "343",
        "-1",
        "{",
        "{\"text\":\"a\"}",
        "{}",
        "{\"data\":{\"items\":[{}]}}",
        "null",
        "https://a.example/x",
        "http://127.0.0.1:9/",
        "\u{0}",
        "\u{202e}",
        "9007199254740993",
    ];
    prop_oneof![
        3 => select(known).prop_map(str::to_owned),
        1 => ".{0,20}",
        1 => "[\\x00-\\x7f]{0,20}",
        1 => (1_usize..40_000).prop_map(|length| "x".repeat(length)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-3_i64..400).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..6)
                .prop_map(|all| Value::Object(all.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (any::<Index>(), value()).prop_map(|(at, value)| Change::Put(at, value)),
        2 => any::<Index>().prop_map(Change::Drop),
        2 => (text(), value()).prop_map(|(key, value)| Change::Add(key, value)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => (any::<Index>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => value().prop_map(|value| Change::Replace(value.to_string().into_bytes())),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Change::Replace),
    ]
}

fn changed(good: &Value, changes: Vec<Change>) -> Vec<u8> {
    let mut object = good.as_object().unwrap().clone();
    let mut bytes = None;
    for change in changes {
        let key = |at: Index, object: &Map<String, Value>| {
            (!object.is_empty()).then(|| object.keys().nth(at.index(object.len())).unwrap().clone())
        };
        let as_bytes = |object: &Map<String, Value>| Value::Object(object.clone()).to_string().into_bytes();
        match change {
            Change::Put(at, value) => {
                if let Some(key) = key(at, &object) {
                    object.insert(key, value);
                }
            }
            Change::Drop(at) => {
                if let Some(key) = key(at, &object) {
                    object.remove(&key);
                }
            }
            Change::Add(key, value) => drop(object.insert(key, value)),
            Change::Cut(at) => {
                let text: &mut Vec<u8> = bytes.get_or_insert_with(|| as_bytes(&object));
                text.truncate(at.index(text.len() + 1));
            }
            Change::Byte(at, byte) => {
                let text: &mut Vec<u8> = bytes.get_or_insert_with(|| as_bytes(&object));
                if !text.is_empty() {
                    let at = at.index(text.len());
                    text[at] = byte;
                }
            }
            Change::Insert(at, more) => {
                let text: &mut Vec<u8> = bytes.get_or_insert_with(|| as_bytes(&object));
                let at = at.index(text.len() + 1);
                text.splice(at..at, more);
            }
            Change::Replace(with) => bytes = Some(with),
        }
    }
    bytes.unwrap_or_else(|| Value::Object(object).to_string().into_bytes())
}

/// Every route is in `good`; that it is, is asserted beside it.
#[test]
fn no_body_makes_the_router_fail() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let stage = runtime.block_on(Stage::set());
    let goods = stage.good();
    let config = Config { cases: BODIES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let input = (any::<Index>(), prop::collection::vec(change(), 0..4));
    let outcome = TestRunner::new(config).run(&input, |(route, changes)| {
        let (path, good) = &goods[route.index(goods.len())];
        let call = stage.by_path(path).raw(changed(good, changes)).header("x-request-id", "r");
        let reply = runtime.block_on(stage.router.api.try_send(call.request));
        let Some(reply) = reply else { return Err(TestCaseError::fail(format!("{path}: there is no answer"))) };
        prop_assert!(reply.status < 500, "{path}: {} {}", reply.status, reply.body);
        prop_assert!(reply.body.is_object(), "{path}: {}", reply.body);
        if reply.status >= 400 {
            prop_assert!(reply.body["code"].as_str().is_some_and(|code| !code.is_empty()), "{path}: {}", reply.body);
            check_shape(path, "r", &reply, path);
        } else {
            prop_assert!(
                reply.body.get("error").is_none() && reply.body.get("error_message").is_none(),
                "{}",
                reply.body
            );
        }
        Ok(())
    });
    if let Err(fault) = outcome {
        panic!("{fault}");
    }
    runtime.block_on(async {
        // After all of that the router is as alive as before, and the thread's feed has no gap.
        stage.router.sprinkle.feed(&stage.user_id).await;
        let user = json!({"auth_id": "afterwards"});
        stage.router.channel.user(&user).await;
        stage.router.channel.say("afterwards", "still there?").await;
        stage.router.phone.hear("message", "you said still there?").await;
    });
}
