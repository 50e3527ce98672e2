//! The synchronous variant of a customer's message (section 10): the bot's replies come with the answer.

use crate::support::{Answer, BUSINESS, Fixture, Reply, Tenants, hand_off_to};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Notify;

const AUTH: &str = "+49 170 22";

fn asking(router: &Fixture, words: &str) -> RequestBuilder {
    let body = json!({"user": {"auth_id": AUTH}, "message_body": words, "message_type": 0, "business_id": BUSINESS});
    router.channel.request(Method::POST, "/v1.0/sync_message_from_user/").json(&body)
}

async fn ask(router: &Fixture, words: &str) -> Value {
    router.api.send(asking(router, words)).await.ok()
}

fn texts(answer: &Value) -> Vec<&str> {
    answer["message"].as_array().unwrap().iter().map(|m| m["body"]["text"].as_str().unwrap()).collect()
}

fn bot() -> Value {
    json!({"id": null, "name": "gogo", "profile_image": null, "is_automated": true})
}

async fn replies_come_with_the_answer(router: Fixture) {
    router.customer(AUTH).await;
    router.bot.reply_to("two", Answer::say(&["one", "two"]));
    let answer = ask(&router, "two").await;
    assert_eq!((texts(&answer), &answer["agent"], &answer["version"]), (vec!["one", "two"], &bot(), &json!("1.0")));
    assert!(answer["timestamp"].as_str().unwrap().ends_with('Z'), "{answer}");
    // The channel webhook is told all the same, under the same ids.
    for (reply, told) in answer["message"].as_array().unwrap().iter().zip(router.customer_reads(&["one", "two"]).await)
    {
        assert_eq!((&reply["id"], &reply["body"]), (&told.body["message"]["id"], &told.body["message"]["body"]));
    }
    router.stop().await;
}

#[tokio::test]
async fn replies_come_with_the_answer_on_the_embedded_store() {
    replies_come_with_the_answer(Fixture::start().await).await;
}

#[tokio::test]
async fn replies_come_with_the_answer_on_redis() {
    replies_come_with_the_answer(Fixture::on_redis(Tenants::default()).await).await;
}

#[tokio::test]
async fn each_caller_gets_the_replies_to_its_own_words() {
    let router = Fixture::start().await;
    router.customer(AUTH).await;
    let answered = Arc::new(Notify::new());
    router.bot.reply_to("first", Answer::say(&["to the first"]).after(&answered));
    router.bot.reply_to("second", Answer::say(&["to the second"]));
    let first = tokio::spawn(asking(&router, "first").send());
    router.bot.hear("turn", "first").await;
    let second = tokio::spawn(asking(&router, "second").send());
    router.desk.hear("message.receive", "second").await;
    answered.notify_one();
    for (asked, reply) in [(first, "to the first"), (second, "to the second")] {
        let answer: Value = asked.await.unwrap().unwrap().json().await.unwrap();
        assert_eq!(texts(&answer), [reply]);
    }
    router.stop().await;
}

#[tokio::test]
async fn the_same_request_again_gets_the_same_answer() {
    let router = Fixture::start().await;
    router.customer(AUTH).await;
    let again = async || -> Reply { router.api.send(asking(&router, "hello").header("idempotency-key", "k")).await };
    let first = again().await.ok();
    assert_eq!(texts(&first), ["you said hello"]);
    ask(&router, "something else").await;
    router.clock.advance(5_000);
    let second = again().await;
    assert_eq!(second.header("idempotent-replayed"), "true");
    assert_eq!(second.ok(), first);
    assert_eq!(router.bot.seen_on("turn").len(), 2, "it was asked once");
    router.stop().await;
}

#[tokio::test]
async fn nobody_waits_when_no_reply_will_come() {
    let router = Fixture::start().await;
    let user_id = router.customer(AUTH).await;
    router.bot.reply_to("agent", hand_off_to("sprinkle"));
    let answer = ask(&router, "agent").await;
    let desk = json!({"id": null, "name": "sprinkle", "profile_image": null, "is_automated": false});
    assert_eq!((texts(&answer).len(), &answer["agent"]), (0, &desk));
    // From now on an agent has it, who answers by the channel webhook.
    router.sprinkle.event(&user_id, "aeu_events.allocated", &json!({"agent_id": "7", "agent_name": "Ann"})).await.ok();
    let answer = ask(&router, "are you there?").await;
    let ann = json!({"id": "7", "name": "Ann", "profile_image": null, "is_automated": false});
    assert_eq!((texts(&answer).len(), &answer["agent"]), (0, &ann));
    router.stop().await;
}

#[tokio::test]
async fn a_bot_that_breaks_apologises_in_the_answer() {
    let router = Fixture::with(Tenants { client: json!({"human_assistance": false}), ..Tenants::default() }).await;
    router.customer(AUTH).await;
    router.bot.reply_to("break", Answer::status(500));
    let answer = ask(&router, "break").await;
    let told = router.phone.wait_for("message", |_| true).await;
    assert_eq!(texts(&answer), [told.text()]);
    assert_eq!(answer["agent"], bot());
    router.stop().await;
}

#[tokio::test]
async fn a_bot_that_answers_later_is_waited_for() {
    let router = Fixture::start().await;
    let user_id = router.customer(AUTH).await;
    router.bot.reply_to("think", Answer::status(202));
    let asked = tokio::spawn(asking(&router, "think").send());
    router.bot.hear("turn", "think").await;
    router.iva.send(&user_id, "iva", "I have thought").await.ok();
    let answer: Value = asked.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(texts(&answer), ["I have thought"]);
    router.stop().await;
}

#[tokio::test]
async fn a_router_that_stops_lets_those_who_wait_go() {
    let router = Fixture::start().await;
    router.customer(AUTH).await;
    router.bot.reply_to("think", Answer::status(202));
    let asked = tokio::spawn(asking(&router, "think").send());
    router.bot.hear("turn", "think").await;
    router.stop().await;
    let answer: Value = asked.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!((texts(&answer).len(), &answer["agent"]), (0, &bot()));
}
