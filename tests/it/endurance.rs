//! An endpoint that fails for long: the whole schedule, disabling, the hour, dead letters, replay, the breaker
//! (section 8). Time is the test's.

use crate::support::{Answer, CLIENT, Fixture, Received, Tenants};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tract_actors::ports::Clock;

const AUTH: &str = "+49 170 3";
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 24 * 60 * MINUTE;

/// The contract's waits; each may be a tenth longer.
const WAITS: [u64; 6] = [5 * SECOND, 25 * SECOND, 125 * SECOND, 625 * SECOND, 1_410 * SECOND, 1_410 * SECOND];

const LIST: &str = "/tract/hooks/list/";
const DELIVERIES: &str = "/tract/hooks/deliveries/?category=message&subcategory=receive";
const RECEIVE: &str = "message.receive";

fn receive_hook(hooks: &Value) -> Value {
    let hooks = hooks["hooks"].as_array().cloned().unwrap_or_default();
    let hook = hooks.into_iter().find(|h| h["category"] == "message" && h["subcategory"] == "receive");
    hook.expect("the hook is registered")
}

fn deliveries(page: &Value) -> Vec<Value> {
    page["deliveries"].as_array().cloned().expect("a list of deliveries")
}

fn attempts(delivery: &Value) -> usize {
    delivery["attempts"].as_array().map_or(0, Vec::len)
}

/// The delivery of these words, by what the desk received.
fn webhook_id(seen: &[Received], words: &str) -> String {
    let of = |r: &&Received| r.topic == RECEIVE && r.text() == words;
    seen.iter().find(of).unwrap_or_else(|| panic!("{words:?} was sent")).header("webhook-id").to_owned()
}

fn heard(seen: &[Received]) -> Vec<String> {
    seen.iter().filter(|r| r.topic == RECEIVE && r.body["sender"] == "ceu").map(Received::text).collect()
}

/// The desk's `message.receive` answers 500 for as long as this is true.
fn broken(router: &Fixture) -> Arc<AtomicBool> {
    answering(router, 500)
}

fn answering(router: &Fixture, status: u16) -> Arc<AtomicBool> {
    let broken = Arc::new(AtomicBool::new(true));
    let is = Arc::clone(&broken);
    router.desk.script(move |r| (r.topic == RECEIVE && is.load(Ordering::SeqCst)).then(|| Answer::status(status)));
    broken
}

async fn enable(router: &Fixture) {
    let hook = json!({"category": "message", "subcategory": "receive"});
    assert_eq!(router.sprinkle.post("/tract/hooks/enable/", &hook).await.ok()["enabled"], true);
}

async fn until_disabled(router: &Fixture) -> Value {
    receive_hook(&router.until_get(LIST, |hooks| receive_hook(hooks)["enabled"] == false).await)
}

/// Waits until the oldest delivery shows so many attempts.
async fn until_attempted(router: &Fixture, times: usize) -> Value {
    let oldest = |page: &Value| deliveries(page).last().cloned().unwrap_or_default();
    oldest(&router.until_get(DELIVERIES, |page| attempts(&oldest(page)) == times).await)
}

async fn healthy(router: &Fixture, user_id: &str) -> bool {
    let answer = router.helper.post("/tract/thread_control/listeners/", &json!({"user_id": user_id})).await.ok();
    let listeners = answer["listeners"].as_array().cloned().unwrap_or_default();
    listeners.iter().find(|l| l["id"] == "sprinkle").expect("the tool is a listener")["healthy"] == true
}

#[tokio::test]
async fn the_whole_schedule_is_kept_across_restarts_and_ends_in_a_disabled_hook() {
    let mut router = Fixture::start().await;
    let user_id = router.customer(AUTH).await;
    let repaired = broken(&router);
    router.channel.say(AUTH, "first").await;
    for (made, wait) in (1..).zip(WAITS) {
        until_attempted(&router, made).await;
        // A moment too early for the next attempt, whatever was added to the wait: nothing happens by restarting.
        router = router.restarted_after(wait - 1).await;
        until_attempted(&router, made).await;
        assert_eq!(heard(&router.desk.seen()).len(), made);
        router = router.restarted_after(wait / 10 + 1).await;
    }
    let last = until_attempted(&router, 7).await;
    for (pair, wait) in last["attempts"].as_array().unwrap().windows(2).zip(WAITS) {
        let at = |attempt: &Value| attempt["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
        assert!((at(&pair[1]) - at(&pair[0])).unsigned_abs() >= wait);
        assert_eq!((&pair[0]["status"], &pair[0]["error"]), (&json!(500), &json!("status 500")));
    }
    let hook = until_disabled(&router).await;
    assert!(hook["disabled_reason"].as_str().unwrap().contains("status 500"), "{hook}");
    assert!(hook["disabled_at"].is_string());
    assert!(!healthy(&router, &user_id).await);

    // Kept for an hour, also what comes now; across a restart.
    router.channel.say(AUTH, "second").await;
    repaired.store(false, Ordering::SeqCst);
    router = router.restarted_after(59 * MINUTE).await;
    assert_eq!(heard(&router.desk.seen()).len(), 7, "nothing is sent to a disabled hook");
    enable(&router).await;
    router.desk.hear(RECEIVE, "second").await;
    let heard = heard(&router.desk.seen());
    assert_eq!(heard[7..], ["first", "second"], "what was kept comes in order");
    assert!(healthy(&router, &user_id).await);
    router.stop().await;
}

/// Several nodes deliver to one hook: a message that alone is refused is given up alone, although this node has seen nothing
/// else of the hook.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_other_nodes_deliver_counts_before_a_hook_is_disabled() {
    let router = Fixture::on_redis(Tenants::default()).await;
    router.customer(AUTH).await;
    let _broken = broken(&router);
    router.channel.say(AUTH, "first").await;
    for (made, wait) in (1..).zip(WAITS) {
        until_attempted(&router, made).await;
        if made == WAITS.len() {
            // As another node notes it, in partitions of its own.
            let client = redis::Client::open(router.redis_url()).unwrap();
            let mut redis = client.get_multiplexed_async_connection().await.unwrap();
            let hook = "hook:acme:sprinkle:message:receive";
            for n in 0..16 {
                let (known, status) = (format!("{{tract:{n}}}:endpoints"), format!("{{tract:{n}}}:status:{hook}"));
                redis::cmd("SADD").arg(known).arg(hook).exec_async(&mut redis).await.unwrap();
                let now = router.clock.now().0;
                redis::cmd("HSET").arg(status).arg("success").arg(now).exec_async(&mut redis).await.unwrap();
            }
        }
        router.clock.advance(wait + wait / 10 + 1);
    }
    let dead = format!("{DELIVERIES}&state=dead");
    router.until_get(&dead, |page| deliveries(page).first().is_some_and(|letter| attempts(letter) == 7)).await;
    let hooks = router.sprinkle.get(LIST).await.ok();
    assert_eq!(receive_hook(&hooks)["enabled"], true, "{hooks}");
    router.stop().await;
}

#[tokio::test]
async fn hand_offs_skip_a_disabled_tool() {
    let client = json!({"fallback": ["helper"]});
    let router = Fixture::with(crate::support::Tenants { client, ..Default::default() }).await;
    let user_id = router.customer(AUTH).await;
    answering(&router, 410);
    router.channel.say(AUTH, "hello").await;
    until_disabled(&router).await;
    let refused = router.iva.control(&user_id, "pass", Some("sprinkle")).await;
    refused.refused(409, "receiver_unavailable");
    router.bot.reply_to("agent, please", crate::support::hand_off_to("sprinkle"));
    router.channel.say(AUTH, "agent, please").await;
    assert_ne!(router.helper.thread(&user_id).await["active"], "sprinkle");
    router.second_desk.wait_for("thread_control.pass", |r| r.metadata()["to"] == "helper").await;
    router.stop().await;
}

#[tokio::test]
async fn what_outlives_the_hour_is_a_dead_letter_and_can_be_replayed() {
    let mut router = Fixture::start().await;
    router.customer(AUTH).await;
    let gone = answering(&router, 410);
    router.channel.say(AUTH, "first").await;
    let hook = until_disabled(&router).await;
    assert!(hook["disabled_reason"].as_str().unwrap().contains("410"), "410 disables at once: {hook}");
    router.customer_reads(&["you said first"]).await;
    router.clock.advance(30 * MINUTE);
    router.channel.say(AUTH, "later").await;
    router.customer_reads(&["you said first", "you said later"]).await;

    let dead = format!("{DELIVERIES}&state=dead");
    router = router.restarted_after(30 * MINUTE).await;
    let page = router.until_get(&dead, |page| deliveries(page).len() == 2).await;
    let first = webhook_id(&router.desk.seen(), "first");
    assert!(deliveries(&page).iter().any(|d| d["webhook_id"] == first.as_str() && d["state"] == "dead"), "{page}");
    let waiting = router.sprinkle.get(&format!("{DELIVERIES}&state=pending")).await.ok();
    assert_eq!(deliveries(&waiting).len(), 2, "what came later has an hour of its own");
    router.clock.advance(30 * MINUTE);
    router.until_get(&dead, |page| deliveries(page).len() == 4).await;
    assert_eq!(receive_hook(&router.sprinkle.get(LIST).await.ok())["pending"], 0);

    gone.store(false, Ordering::SeqCst);
    enable(&router).await;
    router = router.restarted_after(SECOND).await;
    let replayed = router.sprinkle.post("/tract/hooks/replay/", &json!({"webhook_id": first})).await.ok();
    assert_eq!(replayed["replayed"], 1);
    let again = router.desk.wait_for(RECEIVE, |r| r.metadata()["replayed"] == true).await;
    assert_eq!((again.text().as_str(), again.header("webhook-id")), ("first", first.as_str()));
    let missing = router.sprinkle.post("/tract/hooks/replay/", &json!({"webhook_id": first})).await;
    missing.refused(404, "unknown_delivery");

    let all = json!({"since": "2020-01-01T00:00:00.000Z"});
    assert_eq!(router.sprinkle.post("/tract/hooks/replay/", &all).await.ok()["replayed"], 3);
    router.desk.hear(RECEIVE, "you said later").await;
    router.until_get(&dead, |page| deliveries(page).is_empty()).await;
    let ids: Vec<_> = router.desk.seen_on(RECEIVE).iter().map(|r| r.header("webhook-id").to_owned()).collect();
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), 4, "each has one id for ever");
    router.stop().await;
}

#[tokio::test]
async fn a_dead_letter_is_kept_for_seven_days() {
    let mut router = Fixture::start().await;
    router.customer(AUTH).await;
    answering(&router, 410);
    router.channel.say(AUTH, "first").await;
    until_disabled(&router).await;
    router.customer_reads(&["you said first"]).await;
    router = router.restarted_after(60 * MINUTE).await;
    let dead = format!("{DELIVERIES}&state=dead");
    router.until_get(&dead, |page| deliveries(page).len() == 2).await;
    router = router.restarted_after(7 * DAY - MINUTE).await;
    // Tokens do not last so long.
    router.sprinkle = router.operator_token("sprinkle").await;
    assert_eq!(receive_hook(&router.sprinkle.get(LIST).await.ok())["dead_letters"], 2);
    router.clock.advance(20 * MINUTE);
    router.until_get(&dead, |page| deliveries(page).is_empty()).await;
    assert_eq!(receive_hook(&router.sprinkle.get(LIST).await.ok())["dead_letters"], 0);
    router.stop().await;
}

#[tokio::test]
async fn one_poison_message_does_not_silence_the_hook() {
    let router = Fixture::start().await;
    let user_id = router.customer(AUTH).await;
    router.customer("another").await;
    router.desk.script(|r| (r.topic == RECEIVE && r.text() == "poison").then(|| Answer::status(500)));
    router.channel.say(AUTH, "poison").await;
    until_attempted(&router, 1).await;
    // A success at the very time of the first attempt would say nothing.
    router.clock.advance(1);
    router.channel.say("another", "fine").await;
    router.desk.hear(RECEIVE, "fine").await;
    router.channel.say(AUTH, "behind it").await;
    let path = format!("/tract/hooks/deliveries/?user_id={user_id}");
    for (made, wait) in (2..).zip(WAITS) {
        router.clock.advance(wait + wait / 10);
        let oldest = |page: &Value| {
            let mut all = deliveries(page).into_iter();
            all.rfind(|d| d["category"] == "message").map_or(0, |d| attempts(&d))
        };
        router.until_get(&path, |page| oldest(page) == made).await;
    }
    router.desk.hear(RECEIVE, "behind it").await;
    assert_eq!(receive_hook(&router.sprinkle.get(LIST).await.ok())["enabled"], true);
    let dead = router.until_get(&format!("{DELIVERIES}&state=dead"), |page| deliveries(page).len() == 1).await;
    assert_eq!(deliveries(&dead)[0]["webhook_id"], webhook_id(&router.desk.seen(), "poison"));
    router.stop().await;
}

#[tokio::test]
async fn the_breaker_lets_one_probe_through_until_one_succeeds() {
    let router = Fixture::start().await;
    let repaired = broken(&router);
    let customers: Vec<String> = (0..12).map(|n| format!("customer {n}")).collect();
    let endpoint = format!("hook:{CLIENT}:sprinkle:message:receive");
    let breaker = || async {
        let answer = router.operator(Method::GET, "/admin/v1/hooks").send().await.unwrap();
        let hooks: Value = answer.json().await.unwrap();
        let hook = hooks["hooks"].as_array().unwrap().iter().find(|h| h["endpoint"] == endpoint.as_str()).cloned();
        hook.expect("the operator sees it")["breaker"].as_str().unwrap().to_owned()
    };
    for (n, auth_id) in customers.iter().enumerate() {
        let user_id = router.customer(auth_id).await;
        assert_eq!(breaker().await, if n < 10 { "closed" } else { "open" });
        router.channel.say(auth_id, auth_id).await;
        if n < 10 {
            let path = format!("/tract/hooks/deliveries/?user_id={user_id}&category=message&subcategory=receive");
            router.until_get(&path, |page| deliveries(page).last().is_some_and(|d| attempts(d) == 1)).await;
        }
    }
    assert_eq!(heard(&router.desk.seen()), customers[..10]);

    // Ten of them are due after the first half of a minute, but only the oldest is tried.
    router.clock.advance(30 * SECOND);
    router.desk.find("a probe", |seen| (heard(seen).len() == 11).then_some(())).await;
    until_attempted(&router, 2).await;
    repaired.store(false, Ordering::SeqCst);
    router.clock.advance(29 * SECOND);
    assert_eq!(breaker().await, "open");
    assert_eq!(heard(&router.desk.seen())[10..], customers[..1], "one probe in half a minute");
    router.clock.advance(SECOND);
    for auth_id in &customers {
        let found = |seen: &[Received]| (heard(seen)[11..].contains(auth_id)).then_some(());
        router.desk.find(auth_id, found).await;
    }
    assert_eq!(breaker().await, "closed");
    router.stop().await;
}

#[tokio::test]
async fn a_bot_that_is_not_there_is_not_asked_for_every_customer() {
    let router = Fixture::with(crate::support::Tenants {
        client: json!({"human_assistance": false, "bot_break_message": "Sorry."}),
        ..Default::default()
    })
    .await;
    let repaired = Arc::new(AtomicBool::new(false));
    let is = Arc::clone(&repaired);
    router.bot.script(move |_| (!is.load(Ordering::SeqCst)).then(|| Answer::status(503)));
    let mut read = Vec::new();
    for n in 0..12 {
        let auth_id = format!("customer {n}");
        router.customer(&auth_id).await;
        router.channel.say(&auth_id, "hello").await;
        read.push("Sorry.");
        router.customer_reads(&read).await;
    }
    assert_eq!(router.bot.seen().len(), 10, "the last two were spared the wait");
    repaired.store(true, Ordering::SeqCst);
    router.clock.advance(30 * SECOND);
    router.channel.say("customer 0", "are you there?").await;
    read.push("you said are you there?");
    router.customer_reads(&read).await;
    router.channel.say("customer 1", "and for me?").await;
    read.push("you said and for me?");
    router.customer_reads(&read).await;
    router.stop().await;
}

#[tokio::test]
async fn a_disabled_channel_webhook_is_enabled_by_the_channel_side() {
    let router = Fixture::start().await;
    router.customer(AUTH).await;
    let gone = Arc::new(AtomicBool::new(true));
    let is = Arc::clone(&gone);
    router.phone.script(move |_| is.load(Ordering::SeqCst).then(|| Answer::status(410)));
    router.channel.say(AUTH, "first").await;
    let endpoint = format!("channel:{CLIENT}:{}", crate::support::BUSINESS);
    let enabled = || async {
        let answer = router.operator(Method::GET, "/admin/v1/hooks").send().await.unwrap();
        let hooks: Value = answer.json().await.unwrap();
        hooks["hooks"].as_array().unwrap().iter().any(|h| h["endpoint"] == endpoint.as_str() && h["enabled"] == true)
    };
    router.phone.hear("message", "you said first").await;
    while enabled().await {
        tokio::task::yield_now().await;
    }
    router.channel.say(AUTH, "second").await;
    router.desk.hear(RECEIVE, "you said second").await;
    gone.store(false, Ordering::SeqCst);
    let answer = router.channel.post("/v1.0/webhook/", &json!({"enabled": true})).await.ok();
    assert_eq!(answer["enabled"], true);
    router.phone.hear("message", "you said second").await;
    let texts: Vec<_> = router.phone.seen_on("message").iter().map(Received::text).collect();
    assert_eq!(texts, ["you said first", "you said first", "you said second"]);
    router.stop().await;
}
