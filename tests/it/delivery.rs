//! How webhooks are delivered when things go wrong (section 8).

use crate::support::{Answer, Fixture, Received};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Notify;

const AUTH: &str = "+49 170 3";
const SECOND: u64 = 1000;

/// Waits until a failure of this tool's `message.receive` is recorded, and with it when to try again.
async fn failure_is_recorded(router: &Fixture, error: &str) {
    let holds = |hooks: &serde_json::Value| {
        let hooks = hooks["hooks"].as_array().cloned().unwrap_or_default();
        hooks
            .iter()
            .any(|h| h["subcategory"] == "receive" && h["last_error"].as_str().is_some_and(|e| e.contains(error)))
    };
    router.until_get("/tract/hooks/list/", holds).await;
}

fn messages(seen: &[Received]) -> Vec<Received> {
    seen.iter().filter(|r| r.topic == "message.receive" && r.body["sender"] == "ceu").cloned().collect()
}

#[tokio::test]
async fn a_failed_delivery_is_tried_again_and_holds_back_its_thread_only() {
    let router = Fixture::start().await;
    let (one, other) = (router.customer(AUTH).await, router.customer("another").await);
    router.desk.next("message.receive", [Answer::status(500)]);
    router.channel.say(AUTH, "first").await;
    failure_is_recorded(&router, "500").await;
    router.channel.say(AUTH, "second").await;
    router.channel.say("another", "elsewhere").await;
    router.desk.hear("message.receive", "elsewhere").await;
    let before = messages(&router.desk.seen());
    assert_eq!(before.iter().map(Received::text).collect::<Vec<_>>(), ["first", "elsewhere"]);

    // Up to a tenth is added to each wait.
    router.clock.advance(5 * SECOND + 500);
    router.desk.hear("message.receive", "second").await;
    let of_one: Vec<_> = messages(&router.desk.seen()).into_iter().filter(|r| r.body["user_id"] == one).collect();
    assert_eq!(of_one.iter().map(Received::text).collect::<Vec<_>>(), ["first", "first", "second"]);
    assert_eq!(of_one[0].header("webhook-id"), of_one[1].header("webhook-id"), "a duplicate carries the same id");
    assert_ne!(of_one[0].header("webhook-id"), of_one[2].header("webhook-id"));
    assert_ne!(one, other);
    router.stop().await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let router = Fixture::start().await;
    router.customer(AUTH).await;
    router.desk.next("message.receive", [Answer::status(503).header("retry-after", "60")]);
    router.channel.say(AUTH, "hello").await;
    failure_is_recorded(&router, "503").await;
    router.clock.advance(60 * SECOND - 1);
    // Whatever was due by now went out before this, which comes later on the same endpoint.
    router.customer("another").await;
    router.channel.say("another", "elsewhere").await;
    router.desk.hear("message.receive", "elsewhere").await;
    let count = |seen: &[Received]| messages(seen).iter().filter(|r| r.text() == "hello").count();
    assert_eq!(count(&router.desk.seen()), 1);
    router.clock.advance(1 + 500);
    router.desk.find("the second attempt", |seen| (count(seen) == 2).then_some(())).await;
    router.stop().await;
}

#[tokio::test]
async fn a_slow_endpoint_costs_the_others_nothing() {
    let router = Fixture::start().await;
    let user_id = router.customer(AUTH).await;
    let never = Arc::new(Notify::new());
    let hold = Arc::clone(&never);
    router.desk.script(move |_| Some(Answer::ok(json!({})).after(&hold)));
    router.channel.say(AUTH, "hello").await;
    router.customer_reads(&["you said hello"]).await;
    router.second_desk.hear("message.receive", "you said hello").await;
    assert_eq!(router.helper.thread(&user_id).await["state"], json!("bot"));
    never.notify_waiters();
    router.stop().await;
}

#[tokio::test]
async fn what_an_endpoint_rejects_was_received() {
    let router = Fixture::start().await;
    router.customer(AUTH).await;
    router.desk.next("message.receive", [Answer::ok(json!({"error": "no such user here"}))]);
    router.channel.say(AUTH, "first").await;
    failure_is_recorded(&router, "no such user here").await;
    router.channel.say(AUTH, "second").await;
    router.desk.hear("message.receive", "second").await;
    let texts: Vec<_> = messages(&router.desk.seen()).iter().map(Received::text).collect();
    assert_eq!(texts, ["first", "second"], "it is not sent again");
    router.stop().await;
}

/// `receive = "active"`: the conversation so far comes first, marked, when the tool gets control.
#[tokio::test]
async fn who_gets_control_first_gets_the_conversation_so_far() {
    let tenants = crate::support::Tenants { ect: json!({"receive": "active"}), ..Default::default() };
    let router = Fixture::with(tenants).await;
    let user_id = router.customer(AUTH).await;
    router.channel.say(AUTH, "before").await;
    router.customer_reads(&["you said before"]).await;
    router.bot.reply_to("agent", Answer::ok(json!({"callback_ops": {"tract_atc": {"receiver": "sprinkle"}}})));
    router.channel.say(AUTH, "agent").await;
    router.until(&user_id, |thread| thread["active"] == "sprinkle").await;
    router.channel.say(AUTH, "after").await;
    router.desk.hear("message.receive", "after").await;

    let got = router.desk.seen_on("message.receive");
    let told: Vec<_> = got.iter().map(|r| (r.text(), r.metadata()["replayed"] == true)).collect();
    let expected = [("before", true), ("you said before", true), ("agent", true), ("after", false)];
    assert_eq!(told, expected.map(|(text, replayed)| (text.to_owned(), replayed)));
    assert!(got.is_sorted_by_key(Received::sequence));
    let ids: std::collections::BTreeSet<_> = got.iter().map(|r| r.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), got.len(), "each has an id of its own");
    assert!(router.second_desk.seen_on("message.receive").is_empty(), "who never held it gets nothing");
    router.stop().await;
}
