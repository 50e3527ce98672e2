//! `Idempotency-Key` (section 2): the first answer again, or a refusal.

use super::{AUTH, Call, Stage};
use crate::support::{BUSINESS, CLIENT, Reply};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::task::JoinSet;
use tract::http::routes::table;

const HEADER: &str = "idempotency-key";
const DAY: u64 = 24 * 3_600_000;

async fn ask(stage: &Stage, call: Call, key: &str, body: &Value) -> Reply {
    stage.router.api.send(call.header(HEADER, key).json(body).request).await
}

fn replayed(reply: &Reply) -> bool {
    reply.header("idempotent-replayed") == "true"
}

/// A certificate of the agent tool's.
fn certificate() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new(vec!["sprinkle.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
}

#[tokio::test]
async fn every_change_can_be_asked_for_again() {
    let stage = Stage::set().await;
    let router = &stage.router;
    let (in_hand, to_give, with_bot) =
        (router.handed_off("in hand").await, router.handed_off("to give").await, router.customer("with the bot").await);
    router.channel.say("with the bot", "hello").await;
    router.phone.hear("message", "you said hello").await;
    let epoch = router.sprinkle.thread(&to_give).await["control_epoch"].clone();
    let hook = json!({"category": "message", "subcategory": "receive", "url": "http://127.0.0.1:9/a"});
    // Path, body, and a body that is another.
    let changes = [
        ("/tract/message/send", json!({"user_id": in_hand, "sender": "aeu", "message_body": "a"}), "message_body"),
        (
            "/tract/events/send",
            json!({"user_id": in_hand, "category": "aeu_events", "subcategory": "received"}),
            "subcategory",
        ),
        (
            "/tract/thread_control/request",
            json!({"user_id": to_give, "type": "pass", "requester": "sprinkle", "receiver": "sac", "control_epoch": epoch}),
            "type",
        ),
        ("/tract/hooks/register", hook.clone(), "url"),
        ("/tract/hooks/enable", json!({"category": "message", "subcategory": "receive"}), "subcategory"),
        ("/tract/hooks/test", json!({"category": "conversation_state", "subcategory": "incomplete"}), "more"),
        ("/tract/hooks/secret/rotate", json!({}), "more"),
        ("/tract/hooks/replay", json!({"since": "2026-01-01T00:00:00Z"}), "more"),
        ("/tract/hooks/unregister", json!({"category": "aeu_events", "subcategory": "received"}), "subcategory"),
        ("/v1.0/user", json!({"auth_id": "new", "name": "a"}), "name"),
        ("/v1.0/webhook", json!({"enabled": true}), "more"),
        (
            "/v1.0/log_message_from_user",
            json!({"user": {"auth_id": AUTH}, "message_body": "a", "message_type": 0, "business_id": BUSINESS}),
            "message_body",
        ),
        (
            "/v1.0/sync_message_from_user",
            json!({"user": {"auth_id": AUTH}, "message_body": "a", "message_type": 0, "business_id": BUSINESS}),
            "message_body",
        ),
        (
            "/v1.0/log_feedback_from_user",
            json!({"auth_id": AUTH, "business_id": BUSINESS, "query_resolved": true, "query_rating": 5}),
            "feedback",
        ),
        ("/admin/v1/apply", json!({"ect": [{"ect_id": "third", "fqdn": "third.example"}]}), "more"),
        ("/admin/v1/ects/{ect_id}/certificates", json!({"pem": certificate()}), "pem"),
        ("/admin/v1/hooks/enable", json!({"endpoint": "channel:acme:343"}), "endpoint"),
        ("/admin/v1/dead_letters/replay", json!({"since": "2026-01-01T00:00:00Z"}), "more"),
        ("/admin/v1/drain", json!({"client_id": CLIENT, "receiver": "helper", "to": "sprinkle"}), "more"),
        (
            "/integration/external/v1.0/send_chat_to_agent",
            json!({"user_name": with_bot, "business_id": BUSINESS, "team_name": "a"}),
            "team_name",
        ),
    ];
    let here: BTreeSet<_> = changes.iter().map(|(path, ..)| *path).collect();
    // Forms are in `files/repeated.rs`.
    let there = table().into_iter().filter(|route| route.idempotent && !route.is_form);
    assert_eq!(here, there.map(|route| route.path).collect(), "every route that takes the header is tried");

    for (path, body, field) in changes {
        let path = &path.replace("{ect_id}", "sprinkle");
        let first = ask(&stage, stage.by_path(path), "k", &body).await;
        assert!(!replayed(&first), "{path}");
        for again in [path.clone(), format!("{path}/")] {
            let second = ask(&stage, stage.by_path(&again), "k", &body).await;
            assert!(replayed(&second), "{path}: {}", second.body);
            let mut shown = first.body.clone();
            shown.as_object_mut().unwrap().remove("secret");
            assert_eq!((second.status, &second.body), (first.status, &shown), "{path}");
        }
        first.ok();
        let mut other = body.clone();
        other[field] = json!("allocated");
        if path == "/tract/hooks/enable" {
            other = json!({"category": "conversation_state", "subcategory": "incomplete"});
        }
        if field == "url" {
            other[field] = json!("http://127.0.0.1:9/b");
        }
        if field == "type" {
            other[field] = json!("release");
        }
        let reused = ask(&stage, stage.by_path(path), "k", &other).await;
        assert!(!replayed(&reused));
        let control = path == "/tract/thread_control/request";
        let refusal = reused.refused(422, "idempotency_key_reused");
        assert_eq!(refusal.get("success").is_some(), control, "{refusal}");
        super::text_of(path, &refusal);
    }
    let feed = router.sprinkle.feed(&in_hand).await;
    let of = |kind: &str, sender: &str| {
        feed.iter().filter(|e| e["kind"] == kind && (sender.is_empty() || e["sender"] == sender)).count()
    };
    assert_eq!((of("message", "aeu"), of("event", "")), (1, 1), "each was done once: {feed:#?}");
}

/// What applying makes is shown once, not to whoever asks again.
#[tokio::test]
async fn no_secret_is_kept_with_an_answer() {
    let stage = Stage::set().await;
    let body =
        json!({"client": [{"client_id": "new", "ects": ["helper"], "business": [{"business_id": 9, "name": "N"}]}]});
    let apply = "/admin/v1/apply";
    let first = ask(&stage, stage.by_path(apply), "k", &body).await.ok();
    let token = first["made"][0].clone();
    assert_eq!((&token["kind"], &token["of"]), (&json!("api_token"), &json!("new")));
    let again = ask(&stage, stage.by_path(apply), "k", &body).await;
    assert!(replayed(&again));
    assert_eq!(again.ok(), json!({"made": [{"kind": "api_token", "of": "new"}]}));
    stage.router.stop().await;
}

#[tokio::test]
async fn a_key_means_one_thing_only_within_its_scope() {
    let stage = Stage::set().await;
    let router = &stage.router;
    let other = router.handed_off("other").await;
    let to = |user_id: &str| json!({"user_id": user_id, "sender": "aeu", "message_body": "same words"});
    let send = "/tract/message/send/";
    assert!(!replayed(&ask(&stage, stage.tool(send), "k", &to(&stage.user_id)).await));
    let elsewhere = ask(&stage, stage.tool(send), "k", &to(&other)).await;
    assert!(!replayed(&elsewhere), "another thread");
    elsewhere.ok();
    // Another receiver's key is its own: this is judged, and refused for another reason.
    let call = Call { path: send.to_owned(), request: router.helper.request(Method::POST, send) };
    ask(&stage, call, "k", &to(&stage.user_id)).await.refused(409, "not_active");
    // An alias is the same route.
    let event = json!({"user_id": other, "category": "aeu_events", "subcategory": "received"});
    ask(&stage, stage.tool("/tract/events/send"), "e", &event).await.ok();
    assert!(replayed(&ask(&stage, stage.tool("/tract/event/send/"), "e", &event).await));
    // Another client's is its own, too.
    let user = json!({"auth_id": "new"});
    let here = ask(&stage, stage.channel("/v1.0/user/"), "u", &user).await.ok();
    let request = stage.elsewhere.channel.request(Method::POST, "/v1.0/user/");
    let there = ask(&stage, Call { path: "/v1.0/user/".to_owned(), request }, "u", &user).await;
    assert!(!replayed(&there));
    assert_ne!(there.ok()["user_id"], here["user_id"]);
    stage.router.stop().await;
}

#[tokio::test]
async fn refusals_are_not_kept_and_answers_only_for_a_day() {
    let stage = Stage::set().await;
    let mut body =
        json!({"user_id": stage.user_id, "sender": "aeu", "message_body": "x", "control_epoch": stage.epoch + 1});
    let send = "/tract/message/send/";
    for _ in 0..2 {
        let refused = ask(&stage, stage.tool(send), "k", &body).await;
        assert!(!replayed(&refused));
        refused.refused(409, "stale_epoch");
    }
    body["control_epoch"] = stage.epoch.into();
    let done = ask(&stage, stage.tool(send), "k", &body).await;
    assert!(!replayed(&done), "the key was not used up");
    done.ok();

    let user = |name: &str| json!({"auth_id": "new", "name": name});
    ask(&stage, stage.channel("/v1.0/user/"), "u", &user("a")).await.ok();
    stage.router.clock.advance(DAY - 1);
    assert!(replayed(&ask(&stage, stage.channel("/v1.0/user/"), "u", &user("a")).await));
    ask(&stage, stage.channel("/v1.0/user/"), "u", &user("b")).await.refused(422, "idempotency_key_reused");
    stage.router.clock.advance(1);
    let later = ask(&stage, stage.channel("/v1.0/user/"), "u", &user("b")).await;
    assert!(!replayed(&later));
    assert_eq!(later.ok()["name"], "b");
}

#[tokio::test]
async fn a_secret_is_not_in_the_answer_that_is_kept() {
    let stage = Stage::set().await;
    let path = "/tract/hooks/register/";
    let hook = json!({"category": "message", "subcategory": "receive", "url": "http://127.0.0.1:9/a"});
    let call = || Call { path: path.to_owned(), request: stage.router.iva.request(Method::POST, path) };
    let mut first = ask(&stage, call(), "k", &hook).await.ok();
    let secret = first.as_object_mut().unwrap().remove("secret").unwrap();
    assert!(secret.as_str().unwrap().starts_with("whsec_"));
    let again = ask(&stage, call(), "k", &hook).await;
    assert!(replayed(&again));
    assert_eq!(again.ok(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_is_done() {
    let stage = Stage::set().await;
    let body = json!({"user_id": stage.user_id, "sender": "aeu", "message_body": "once"});
    let mut asking = JoinSet::new();
    for _ in 0..24 {
        let call = stage.tool("/tract/message/send/").header(HEADER, "k").json(&body);
        let api = stage.router.api.clone();
        asking.spawn(async move { api.send(call.request).await });
    }
    let answers = asking.join_all().await;
    assert_eq!(answers.iter().filter(|answer| !replayed(answer)).count(), 1);
    let bodies: BTreeSet<_> = answers.into_iter().map(|answer| answer.ok().to_string()).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    stage.router.customer_reads(&["before", "once"]).await;
    stage.router.stop().await;
}

#[tokio::test]
async fn keys_that_are_none() {
    let stage = Stage::set().await;
    let mut cases = Vec::new();
    for (path, body) in stage.good() {
        for (what, key) in [
            ("empty", b"".to_vec()),
            ("129 characters", b"k".repeat(129)),
            ("a blank within", b"a b".to_vec()),
            ("a tab within", b"a\tb".to_vec()),
            ("not ASCII", "k\u{e4}".as_bytes().to_vec()),
            ("not UTF-8", b"\xff".to_vec()),
        ] {
            let call = stage.by_path(path).header(HEADER, key).json(&body);
            cases.push(call.refused(what, 400, "invalid_field", "Idempotency-Key"));
        }
    }
    stage.check(cases).await;
}
