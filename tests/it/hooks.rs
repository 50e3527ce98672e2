//! What an agent tool does about its hooks: try them, see what was sent, replace their secret, and go on after they were
//! disabled.

use crate::support::{Answer, Fixture, Tenants};
use reqwest::Method;
use serde_json::{Value, json};

const MINUTE: u64 = 60_000;

fn which() -> Value {
    json!({"category": "message", "subcategory": "receive"})
}

#[tokio::test]
async fn a_ping_is_signed_and_told_of() {
    let router = Fixture::start().await;
    let tried = router.sprinkle.post("/tract/hooks/test/", &which()).await.ok();
    assert_eq!((&tried["success"], &tried["status"]), (&json!(true), &json!(200)));
    assert!(tried["latency_ms"].is_u64(), "{tried}");
    let ping = router.desk.wait_for("message.receive", |r| r.body["event"] == "ping").await;
    assert!(ping.body["timestamp"].as_str().unwrap().ends_with('Z') && ping.header("webhook-id").starts_with("ping_"));
    router.desk.next("message.receive", [Answer::status(503), Answer::ok(json!({"error": "not me"}))]);
    let busy = router.sprinkle.post("/tract/hooks/test/", &which()).await;
    assert_eq!((busy.status, &busy.body["success"], &busy.body["status"]), (200, &json!(false), &json!(503)));
    let rejected = router.sprinkle.post("/tract/hooks/test/", &which()).await;
    assert_eq!((rejected.status, &rejected.body["reason"]), (200, &json!("not me")));
    router.stop().await;
}

#[tokio::test]
async fn both_secrets_sign_for_a_day() {
    let router = Fixture::start().await;
    let old = router.desk.secret();
    let rotated = router.sprinkle.post("/tract/hooks/secret/rotate/", &json!({})).await.ok();
    let new = rotated["secret"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    let test = async || router.sprinkle.post("/tract/hooks/test/", &which()).await.ok();
    for (secret, headers) in [(&old, 2), (&new, 2)] {
        router.desk.expect_signed_with(secret);
        test().await;
        let pings = router.desk.seen_on("message.receive");
        assert_eq!(pings.last().unwrap().header("webhook-signature").split(' ').count(), headers);
    }
    router.clock.advance(24 * 60 * MINUTE);
    router.operator_token("sprinkle").await.post("/tract/hooks/test/", &which()).await.ok();
    let last = router.desk.seen_on("message.receive").pop().unwrap();
    assert!(last.header("x-hub-signature-previous").is_empty());
    assert_eq!(last.header("webhook-signature").split(' ').count(), 1);
    router.stop().await;
}

#[tokio::test]
async fn what_was_sent_is_listed_with_its_attempts() {
    let router = Fixture::start().await;
    let user_id = router.handed_off("listed").await;
    router
        .desk
        .script(|r| (r.topic == "message.receive" && r.text() == "no").then(|| Answer::ok(json!({"error": "full"}))));
    router.channel.say("listed", "yes").await;
    router.channel.say("listed", "no").await;
    router.desk.hear("message.receive", "no").await;
    let path = format!("/tract/hooks/deliveries/?user_id={user_id}&category=message&subcategory=receive&limit=2");
    let two =
        |page: &Value| page["deliveries"].as_array().is_some_and(|all| all.len() == 2 && all[0]["state"] == "rejected");
    let page = router.until_get(&path, two).await;
    let (rejected, delivered) = (&page["deliveries"][0], &page["deliveries"][1]);
    assert_eq!((&delivered["state"], &delivered["attempts"][0]["status"]), (&json!("delivered"), &json!(200)));
    assert_eq!(rejected["attempts"][0]["error"], "full");
    assert_eq!(rejected["sequence"].as_u64().unwrap(), delivered["sequence"].as_u64().unwrap() + 1);
    assert_eq!((&delivered["user_id"], &delivered["replayed"]), (&json!(user_id), &json!(false)));
    let next = page["next"].as_str().expect("the customer's first words are on the next page");
    let more = router.sprinkle.get(&format!("{path}&cursor={next}")).await.ok();
    assert!(!more["deliveries"].as_array().unwrap().is_empty());
    // Another tool sees its own only.
    let helpers = router.helper.get("/tract/hooks/deliveries/").await.ok();
    assert!(!helpers.to_string().contains(delivered["webhook_id"].as_str().unwrap()), "{helpers}");
    router.stop().await;
}

#[tokio::test]
async fn gone_disables_at_once_and_enabling_sends_what_was_kept() {
    let router = Fixture::start().await;
    let user_id = router.handed_off("kept").await;
    router.desk.script(|r| (r.topic == "message.receive").then(|| Answer::status(410)));
    router.channel.say("kept", "one").await;
    let disabled = |hooks: &Value| {
        hooks["hooks"]
            .as_array()
            .is_some_and(|all| all.iter().any(|h| h["subcategory"] == "receive" && h["enabled"] == false))
    };
    let hooks = router.until_get("/tract/hooks/list/", disabled).await;
    let hook = hooks["hooks"].as_array().unwrap().iter().find(|h| h["subcategory"] == "receive").unwrap();
    assert!(hook["disabled_reason"].as_str().unwrap().contains("410") && hook["disabled_at"].is_string(), "{hook}");
    let listeners = router.iva.post("/tract/thread_control/listeners/", &json!({"user_id": user_id})).await.ok();
    let told = listeners["receivers"].as_array().or(listeners["listeners"].as_array()).cloned().unwrap_or_default();
    assert!(told.iter().any(|r| r["healthy"] == false), "{listeners}");
    let metrics = router.api.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let endpoint = "{endpoint=\"hook:acme:sprinkle:message:receive\"}";
    for line in [format!("tract_endpoint_disabled{endpoint} 1\n"), format!("tract_breaker_open{endpoint} 0\n")] {
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    router.channel.say("kept", "two").await;
    router.desk.script(|r| (r.topic == "message.receive").then(|| Answer::ok(json!({}))));
    router.sprinkle.post("/tract/hooks/enable/", &which()).await.ok();
    router.desk.hear("message.receive", "two").await;
    let words: Vec<_> = router.desk.seen_on("message.receive").iter().map(|r| r.text()).collect();
    let at = |said: &str| words.iter().rposition(|w| w == said).unwrap();
    assert!(at("one") < at("two"), "{words:?}");
    router.stop().await;
}

#[tokio::test]
async fn what_outlives_the_hour_is_a_dead_letter_that_is_replayed() {
    let router = Fixture::start().await;
    router.handed_off("dead").await;
    router.desk.script(|r| (r.topic == "message.receive").then(|| Answer::status(410)));
    router.channel.say("dead", "one").await;
    let state = |state: &'static str, count: usize| {
        move |page: &Value| {
            let of = |d: &&Value| d["state"] == state && d["category"] == "message";
            page["deliveries"].as_array().is_some_and(|all| all.iter().filter(of).count() >= count)
        }
    };
    router.until_get("/tract/hooks/list/", |h| h.to_string().contains("disabled_at")).await;
    router.clock.advance(61 * MINUTE);
    let page = router.until_get("/tract/hooks/deliveries/?state=dead", state("dead", 1)).await;
    let webhook_id = page["deliveries"][0]["webhook_id"].as_str().unwrap().to_owned();
    let letters = router.operator(Method::GET, "/admin/v1/dead_letters");
    let letters = router.api.send(letters).await.ok();
    assert_eq!(letters["dead_letters"][0]["webhook_id"], webhook_id);
    router.desk.script(|r| (r.topic == "message.receive").then(|| Answer::ok(json!({}))));
    router.sprinkle.post("/tract/hooks/enable/", &which()).await.ok();
    let replay = json!({"webhook_id": webhook_id});
    router.helper.post("/tract/hooks/replay/", &replay).await.refused(404, "unknown_delivery");
    let replayed = router.sprinkle.post("/tract/hooks/replay/", &replay).await.ok();
    assert_eq!(replayed, json!({"success": true, "replayed": 1}));
    let again = router.desk.wait_for("message.receive", |r| r.metadata()["replayed"] == true).await;
    assert_eq!((again.text().as_str(), again.header("webhook-id")), ("one", webhook_id.as_str()));
    router.sprinkle.post("/tract/hooks/replay/", &replay).await.refused(404, "unknown_delivery");
    router.stop().await;
}

#[tokio::test]
async fn what_waited_for_an_unregistered_hook_is_not_sent_to_its_successor() {
    let router = Fixture::start().await;
    router.handed_off("again").await;
    router.desk.script(|r| (r.topic == "message.receive").then(|| Answer::status(500)));
    router.channel.say("again", "before").await;
    let pending = "/tract/hooks/deliveries/?state=pending&category=message&subcategory=receive";
    let tried = |page: &Value| page["deliveries"][0]["attempts"].as_array().is_some_and(|tried| tried.len() == 1);
    router.until_get(pending, tried).await;
    let mut hook = which();
    let hooks = router.sprinkle.get("/tract/hooks/list/").await.ok();
    hook["url"] =
        hooks["hooks"].as_array().unwrap().iter().find(|h| h["subcategory"] == "receive").unwrap()["url"].clone();
    router.sprinkle.post("/tract/hooks/unregister/", &which()).await.ok();
    router.desk.script(|r| (r.topic == "message.receive").then(|| Answer::ok(json!({}))));
    router.clock.advance(1);
    router.sprinkle.post("/tract/hooks/register/", &hook).await.ok();
    // The retry is due, and so is what comes after it in the same thread.
    router.clock.advance(MINUTE);
    router.channel.say("again", "after").await;
    router.desk.hear("message.receive", "after").await;
    let befores = router.desk.seen_on("message.receive").iter().filter(|r| r.text() == "before").count();
    assert_eq!(befores, 1);
    router.stop().await;
}

/// What an earlier unregistering left to be forgotten, because a shard was away or its node died, is not forgotten of the hook
/// that is registered again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_hook_that_was_registered_again_survives_a_start() {
    let router = Fixture::on_redis(Tenants::default()).await;
    router.handed_off("again").await;
    let hooks = router.sprinkle.get("/tract/hooks/list/").await.ok();
    let mut hook = which();
    hook["url"] =
        hooks["hooks"].as_array().unwrap().iter().find(|h| h["subcategory"] == "receive").unwrap()["url"].clone();
    router.sprinkle.post("/tract/hooks/unregister/", &which()).await.ok();
    let client = redis::Client::open(router.redis_url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut leave = redis::cmd("SADD");
    leave.arg("{tract:config}:forgetting").arg("hook:acme:sprinkle:message:receive");
    leave.exec_async(&mut redis).await.unwrap();
    router.sprinkle.post("/tract/hooks/register/", &hook).await.ok();

    router.desk.script(|r| (r.topic == "message.receive").then(|| Answer::status(500)));
    router.clock.advance(1);
    router.channel.say("again", "wait for me").await;
    router.desk.hear("message.receive", "wait for me").await;
    router.desk.script(|r| (r.topic == "message.receive").then(|| Answer::ok(json!({}))));
    let router = router.restarted_after(MINUTE).await;
    let delivered = "/tract/hooks/deliveries/?state=delivered&category=message&subcategory=receive";
    let tried = |page: &Value| page["deliveries"][0]["attempts"].as_array().is_some_and(|tried| tried.len() == 2);
    router.until_get(delivered, tried).await;
    router.stop().await;
}
