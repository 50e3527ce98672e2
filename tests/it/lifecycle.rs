//! The whole life of a thread over HTTP, seen from everybody's side (sections 4, 6, 7, 9 and 10).

use crate::support::{Answer, BUSINESS, Fixture, Received, Tenants, Token};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Notify;

const AUTH: &str = "+49 170 1";
const MINUTE: u64 = 60_000;

/// One customer on the way from one step to the next.
struct Story {
    router: Fixture,
    user_id: String,
    sac: Token,
    /// All that the customer has read so far.
    read: Vec<&'static str>,
}

#[tokio::test]
async fn the_whole_life_of_a_thread() {
    live_through(begin(Fixture::with(tenants()).await).await).await;
}

#[tokio::test]
async fn the_whole_life_of_a_thread_in_redis() {
    live_through(begin(Fixture::on_redis(tenants()).await).await).await;
}

#[tokio::test]
async fn the_whole_life_of_a_thread_in_a_redis_cluster() {
    live_through(begin(Fixture::on_cluster(tenants()).await).await).await;
}

async fn live_through(mut story: Story) {
    a_user_is_created(&mut story).await;
    the_bot_answers_in_order(&mut story).await;
    the_bot_hands_off(&mut story).await;
    an_agent_picks_it_up(&mut story).await;
    the_agent_speaks_waits_and_completes(&mut story).await;
    a_second_conversation_breaks_the_bot(&mut story).await;
    passing_to_the_bot_completes(&mut story).await;
    silence_completes(&mut story).await;
    a_request_expires(&mut story).await;
    an_offer_is_declined_and_goes_down_the_chain(&mut story).await;

    let feed = story.router.sprinkle.feed(&story.user_id).await;
    let said: Vec<_> = feed.iter().filter(|e| e["kind"] == "message" && e["sender"] != "ceu").collect();
    assert_eq!(said.len(), story.read.len(), "what is in the feed is what the customer read");
    let mut epochs: Vec<u64> = feed.iter().map(|e| e["control_epoch"].as_u64().unwrap()).collect();
    epochs.dedup();
    assert!(epochs.is_sorted() && epochs.windows(2).all(|w| w[1] == w[0] + 1), "epochs skip nothing: {epochs:?}");
    // What a hook got of this thread came in the order of the feed.
    for topic in ["message.receive", "thread_control.pass"] {
        let sequences: Vec<u64> = story.router.desk.seen_on(topic).iter().map(Received::sequence).collect();
        assert!(sequences.is_sorted_by(|a, b| a < b), "{topic}: {sequences:?}");
    }
    let router = story.router.restarted_after(0).await;
    assert_eq!(router.sprinkle.feed(&story.user_id).await, feed, "it is all there after a restart");
    router.stop().await;
}

fn tenants() -> Tenants {
    Tenants {
        ect: json!({"may_request": true, "may_pass_to": "any"}),
        client: json!({"sac": true, "fallback": ["helper", "sac"]}),
    }
}

async fn begin(router: Fixture) -> Story {
    let sac = router.operator_token("sac").await;
    Story { router, user_id: String::new(), sac, read: Vec::new() }
}

impl Story {
    async fn reads(&mut self, words: &[&'static str]) -> Vec<Received> {
        self.read.extend(words);
        let mut all = self.router.customer_reads(&self.read).await;
        all.split_off(all.len() - words.len())
    }
    async fn says(&self, words: &str) {
        self.router.channel.say(AUTH, words).await;
    }
    /// The state as `sprinkle`'s hook is told it, for the n-th conversation.
    async fn enters(&self, state: &str, conversation: &str) -> Received {
        let topic = format!("conversation_state.{state}");
        self.router.desk.wait_for(&topic, |r| r.body["conversation_number"] == conversation).await
    }
}

async fn a_user_is_created(story: &mut Story) {
    let router = &story.router;
    router.desk.next("user_events.create_user", [Answer::ok(json!({"success": true, "ect_user_id": "s-1"}))]);
    let user = json!({
        "auth_id": AUTH, "name": "Ada", "email": "ada@example.org", "device_platform": 14, "custom_data": {"tier": "gold"},
    });
    story.user_id = router.channel.user(&user).await;
    assert_eq!(router.channel.user(&user).await, story.user_id, "the same customer, the same handle");

    let told = router.desk.wait_for("user_events.create_user", |_| true).await.body;
    assert_eq!(told["user_id"], json!(story.user_id));
    assert_eq!((&told["user_name"], &told["device_platform"]), (&json!("Ada"), &json!("WhatsApp")));
    for name in ["email", "tier"] {
        assert!(told["details_available"].as_array().unwrap().contains(&json!({"name": name})), "{told}");
    }
    let asked = json!({"user_id": story.user_id, "details_requested": ["email", "tier", "shoe_size"]});
    let details = router.sprinkle.post("/tract/user/details/", &asked).await.ok();
    assert_eq!(details["details"], json!({"email": "ada@example.org", "tier": "gold"}));
}

async fn the_bot_answers_in_order(story: &mut Story) {
    let button = json!({"text": "pick one", "type": "BUTTON", "data": {"items": []}});
    let answer = json!({
        "response": ["hello", button, button.to_string()],
        "conversation_details": {"order": 5}, "user_details": {"lang": "de"},
    });
    story.router.bot.reply_to("hi", Answer::ok(answer));
    story.says("hi").await;
    let read = story.reads(&["hello", "pick one", "pick one"]).await;
    assert_eq!(read[1].body["message"]["body"], button, "the body is an object");
    assert_eq!(read[0].body["agent"]["name"], json!("gogo"));
    assert_eq!(read[0].body["agent"]["is_automated"], json!(true));
    assert_eq!((&read[0].body["business_id"], &read[0].body["business_name"]), (&json!(BUSINESS), &json!("Acme Shop")));
    assert_eq!(read[0].body["user"]["auth_id"], json!(AUTH));

    let turn = story.router.bot.hear("turn", "hi").await.body;
    assert_eq!((&turn["user"]["user_id"], &turn["user"]["user_name"]), (&json!(story.user_id), &json!(story.user_id)));
    assert_eq!((&turn["conversation_no"], &turn["conversation_details"]), (&json!(1), &json!({})));

    let bot = story.enters("bot", "1").await;
    assert!(bot.body["metadata"].is_string(), "an event's metadata is a string");
    assert_eq!(bot.metadata()["cause"], json!("ceu_message"));
    let heard = story.router.desk.hear("message.receive", "hi").await;
    assert!(heard.body["message_body"].is_string(), "a hook's message_body is a string");
    assert!(heard.body["message_id"].is_u64());
    assert_eq!((&heard.body["sender"], &heard.body["conversation_number"]), (&json!("ceu"), &json!("1")));
    assert_eq!(heard.body["metadata"]["standby"], json!(true));
    assert_eq!(heard.body["metadata"]["active"], json!("iva"));
}

async fn the_bot_hands_off(story: &mut Story) {
    let answer = json!({"response": ["one moment"], "callback_ops": {"tract_atc": {"receiver": "sprinkle"}}});
    story.router.bot.reply_to("a person, please", Answer::ok(answer));
    story.says("a person, please").await;
    story.reads(&["one moment"]).await;

    let turn = story.router.bot.hear("turn", "a person, please").await.body;
    assert_eq!(turn["conversation_details"], json!({"order": 5}), "the bot gets back what it kept");
    assert_eq!(turn["user_details"], json!({"lang": "de"}));

    let incomplete = story.enters("incomplete", "1").await;
    assert_eq!(incomplete.metadata()["cause"], json!("handoff"));
    let pass = story.router.desk.wait_for("thread_control.pass", |_| true).await.metadata();
    assert_eq!((&pass["cause"], &pass["from"], &pass["to"]), (&json!("handoff"), &json!("iva"), &json!("sprinkle")));
    assert_eq!(pass["control_epoch"], json!(2));
    let said = story.router.desk.hear("message.receive", "one moment").await;
    assert!(said.sequence() < pass["sequence"].as_u64().unwrap(), "words come before the hand-off takes effect");
    assert_eq!((&said.body["sender"], &said.body["metadata"]["standby"]), (&json!("iva"), &json!(true)));
}

async fn an_agent_picks_it_up(story: &mut Story) {
    let (router, user_id) = (&story.router, &story.user_id);
    router.sprinkle.event(user_id, "aeu_events.received", &json!({})).await.ok();
    let agent = json!({"agent_id": "9", "agent_name": "Grace", "agent_email": "g@s.example", "team_name": "billing"});
    router.sprinkle.event(user_id, "aeu_events.allocated", &json!(agent.to_string())).await.ok();

    for topic in ["aeu_events.received", "aeu_events.allocated"] {
        let told = router.second_desk.wait_for(topic, |_| true).await;
        assert_eq!(told.metadata()["by"], json!("sprinkle"));
        assert!(router.desk.seen_on(topic).is_empty(), "the sender is not told");
    }
    let pinned = router.phone.wait_for("chat_pinned", |_| true).await.body;
    assert_eq!(pinned["message"]["body"]["text"], json!("Grace has entered the Conversation"));
    assert_eq!(pinned["message"]["body"]["data"]["payload"]["team_name"], json!("billing"));
    assert_eq!(story.enters("pinned", "1").await.metadata()["agent_name"], json!("Grace"));
}

async fn the_agent_speaks_waits_and_completes(story: &mut Story) {
    let user_id = story.user_id.clone();
    let sprinkle = story.router.sprinkle.clone();
    let sent = sprinkle.send(&user_id, "aeu", "Grace here").await.ok();
    assert_eq!((&sent["conversation_number"], &sent["control_epoch"]), (&json!("1"), &json!(2)));
    let read = story.reads(&["Grace here"]).await;
    assert_eq!(read[0].body["message"]["id"], sent["message_id"]);
    assert_eq!(read[0].body["agent"]["name"], json!("Grace"));
    assert_eq!(read[0].body["agent"]["is_automated"], json!(false));
    story.router.second_desk.hear("message.receive", "Grace here").await;

    sprinkle.event(&user_id, "collection_state.waiting", &json!({})).await.ok();
    story.enters("waiting", "1").await;
    story.says("still here").await;
    let own = story.router.desk.hear("message.receive", "still here").await;
    assert_eq!(own.body["metadata"]["standby"], json!(false));
    story.router.until(&user_id, |thread| thread["state"] == "pinned").await;

    let why = json!({"closing_categories": {"reason": "solved", "subReason": "refund", "comment": "ok"}});
    sprinkle.event(&user_id, "conversation_state.complete", &why).await.ok();
    let told = story.enters("complete", "1").await.metadata();
    assert_eq!((&told["completion_type"], &told["by"]), (&json!("agent"), &json!("sprinkle")));
    let ended = story.router.phone.wait_for("webhook_conversation_complete", |_| true).await.body;
    assert_eq!(
        (&ended["data"]["completion_type"], &ended["data"]["completion_by"]),
        (&json!("agent"), &json!("Grace"))
    );
    assert_eq!(ended["data"]["closing_categories"]["subReason"], json!("refund"));
    assert_eq!(ended["data"]["conversation_details"], json!({"order": 5}));
    assert_eq!(ended["data"]["user_details"], json!({"lang": "de"}));
    let topics: Vec<_> = story.router.phone.seen().into_iter().map(|r| r.topic).collect();
    assert_eq!(topics[topics.len() - 2..], ["chat_complete", "webhook_conversation_complete"]);

    let thread = story.router.until(&user_id, |thread| thread["state"] == "complete").await;
    assert_eq!(
        (&thread["active"], &thread["control_epoch"]),
        (&json!("iva"), &json!(3)),
        "back to the default receiver"
    );
    assert!(story.router.desk.seen().iter().all(|r| r.topic != "message.receive" || r.text() != "Grace here"));
}

async fn a_second_conversation_breaks_the_bot(story: &mut Story) {
    story.says("again").await;
    story.reads(&["you said again"]).await;
    story.enters("bot", "2").await;
    let turn = story.router.bot.hear("turn", "again").await.body;
    assert_eq!(turn["conversation_details"], json!({}), "they live as long as the conversation");
    assert_eq!(turn["user_details"], json!({"lang": "de"}), "they live with the user");

    story.router.bot.reply_to("break", Answer::status(500));
    story.says("break").await;
    assert_eq!(story.enters("incomplete", "2").await.metadata()["cause"], json!("bot_break"));
    story.router.until(&story.user_id, |thread| thread["active"] == "sprinkle").await;
}

async fn passing_to_the_bot_completes(story: &mut Story) {
    let passed = story.router.sprinkle.control(&story.user_id, "pass", Some("iva")).await.ok();
    assert_eq!(passed, json!({"success": true, "active": "iva", "control_epoch": 5}));
    assert_eq!(story.enters("complete", "2").await.metadata()["cause"], json!("pass"));
    let thread = story.router.until(&story.user_id, |thread| thread["state"] == "complete").await;
    assert_eq!((&thread["active"], &thread["control_epoch"]), (&json!("iva"), &json!(5)), "it stays with the bot");
}

async fn silence_completes(story: &mut Story) {
    story.says("and now?").await;
    story.reads(&["you said and now?"]).await;
    story.router.clock.advance(8 * MINUTE - 1);
    let thread = story.router.sprinkle.thread(&story.user_id).await;
    assert_eq!(thread["state"], json!("bot"), "not yet");
    story.router.clock.advance(1);
    let told = story.enters("complete", "3").await.metadata();
    assert_eq!((&told["cause"], &told["completion_type"]), (&json!("idle_timeout"), &json!("autocomplete")));
    let third = |r: &Received| r.body["data"]["conversation_no"] == 3;
    let ended = story.router.phone.wait_for("webhook_conversation_complete", third).await.body;
    assert_eq!(ended["data"]["completion_by"], json!("Waiting for User"));
    let number = |r: &Received| r.body["message"]["body"]["text"].clone();
    let chat_complete = story.router.phone.seen_on("chat_complete");
    assert_eq!(
        chat_complete.len(),
        2,
        "only agents' completions: {:?}",
        chat_complete.iter().map(number).collect::<Vec<_>>()
    );
}

async fn a_request_expires(story: &mut Story) {
    story.says("a person, please").await;
    story.reads(&["one moment"]).await;
    story.enters("incomplete", "4").await;
    let (router, user_id) = (&story.router, &story.user_id);

    let asked = router.helper.control_with(user_id, "request", Some("sprinkle"), json!({"metadata": {"why": "vip"}}));
    let epoch = asked.await.ok()["control_epoch"].clone();
    let told = router.desk.wait_for("thread_control.request", |_| true).await.metadata();
    assert_eq!(
        (&told["from"], &told["to"], &told["metadata"]),
        (&json!("helper"), &json!("sprinkle"), &json!({"why": "vip"}))
    );
    story.sac.control(user_id, "request", Some("sprinkle")).await.refused(409, "request_pending");
    router.clock.advance(MINUTE);
    let expired = router.second_desk.wait_for("thread_control.expire", |_| true).await.metadata();
    assert_eq!((&expired["cause"], &expired["active"]), (&json!("deadline"), &json!("sprinkle")));
    assert_eq!(expired["control_epoch"], epoch, "nothing moved");
}

async fn an_offer_is_declined_and_goes_down_the_chain(story: &mut Story) {
    let (router, user_id) = (&story.router, &story.user_id);
    let offered = router.sprinkle.control(user_id, "offer", Some("helper")).await.ok();
    let told = router.second_desk.wait_for("thread_control.offer", |_| true).await.metadata();
    assert_eq!(told["offer_id"], offered["offer_id"]);
    assert_eq!((&told["active"], &offered["active"]), (&json!("sprinkle"), &json!("sprinkle")), "not moved yet");
    router.sprinkle.control(user_id, "offer", Some("sac")).await.refused(409, "offer_pending");
    assert_eq!(pending(router, user_id).await, ["helper"]);

    let id = json!({"offer_id": offered["offer_id"]});
    router.helper.control_with(user_id, "decline", None, id.clone()).await.ok();
    let declined = router.desk.wait_for("thread_control.decline", |_| true).await.metadata();
    assert_eq!(declined["by"], json!("helper"));
    assert_eq!(pending(router, user_id).await, ["sac"], "the next in the chain");
    router.helper.control_with(user_id, "accept", None, id).await.refused(409, "no_offer");

    let accepted = story.sac.control(user_id, "accept", None).await.ok();
    assert_eq!(accepted["active"], json!("sac"));
    let pass = router.desk.wait_for("thread_control.pass", |r| r.metadata()["to"] == "sac").await.metadata();
    assert_eq!(pass["cause"], json!("accept"));
    router.sprinkle.send(user_id, "aeu", "too late").await.refused(409, "not_active");
    assert!(pending(router, user_id).await.is_empty());
    story.sac.send(user_id, "aeu", "this is the desk").await.ok();
    story.reads(&["this is the desk"]).await;
}

/// Whom the thread is offered to.
async fn pending(router: &Fixture, user_id: &str) -> Vec<String> {
    let answer = router.sprinkle.post("/tract/thread_control/listeners/", &json!({"user_id": user_id})).await.ok();
    let listeners = answer["listeners"].as_array().unwrap().clone();
    let pending = listeners.iter().filter(|l| l["pending"] == true);
    pending.map(|l| l["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_hand_off_that_nobody_answers_goes_down_the_chain_and_back() {
    let router =
        Fixture::with(Tenants { ect: json!({"requires_received": true}), client: json!({"fallback": ["helper"]}) })
            .await;
    let user_id = router.handed_off(AUTH).await;
    router.clock.advance(2 * MINUTE);
    let pass = router.second_desk.wait_for("thread_control.pass", |r| r.metadata()["to"] == "helper").await;
    assert_eq!(pass.metadata()["cause"], json!("fallback"));
    router.clock.advance(2 * MINUTE);
    let back = router.desk.wait_for("thread_control.pass", |r| r.metadata()["to"] == "iva").await;
    assert_eq!(back.metadata()["cause"], json!("return_to_default"));
    let thread = router.until(&user_id, |thread| thread["active"] == "iva").await;
    assert_eq!(
        (&thread["state"], &thread["conversation_number"]),
        (&json!("bot"), &json!("1")),
        "the same conversation"
    );
    router.stop().await;
}

#[tokio::test]
async fn a_hand_off_that_is_received_stays() {
    let router =
        Fixture::with(Tenants { ect: json!({"requires_received": true}), client: json!({"fallback": ["helper"]}) })
            .await;
    let user_id = router.handed_off(AUTH).await;
    router.sprinkle.event(&user_id, "aeu_events.received", &json!({})).await.ok();
    router.clock.advance(60 * MINUTE);
    router.sprinkle.send(&user_id, "aeu", "sorry for the wait").await.ok();
    router.customer_reads(&["sorry for the wait"]).await;
    router.stop().await;
}

#[tokio::test]
async fn a_bot_break_without_people_is_apologised_for() {
    let client = json!({"human_assistance": false, "bot_break_message": "Pardon?"});
    let router = Fixture::with(Tenants { client, ..Tenants::default() }).await;
    let user_id = router.customer(AUTH).await;
    let breaks = [Answer::status(500), Answer::ok(json!({"response": []})), Answer::ok(json!("no object"))];
    router.bot.next("turn", breaks);
    let mut read = Vec::new();
    for words in ["one", "two", "three"] {
        router.channel.say(AUTH, words).await;
        read.push("Pardon?");
        let apology = router.customer_reads(&read).await.pop().unwrap();
        assert_eq!(apology.body["agent"]["is_automated"], json!(true));
    }
    let thread = router.sprinkle.thread(&user_id).await;
    assert_eq!((&thread["state"], &thread["active"]), (&json!("bot"), &json!("iva")));
    router.stop().await;
}

#[tokio::test]
async fn a_bot_may_answer_later_with_its_own_token() {
    let router = Fixture::start().await;
    let user_id = router.customer(AUTH).await;
    router.bot.reply_to("think", Answer::status(202));
    router.channel.say(AUTH, "think").await;
    router.channel.say(AUTH, "well?").await;
    router.customer_reads(&["you said well?"]).await;
    router.iva.send(&user_id, "iva", "42").await.ok();
    router.customer_reads(&["you said well?", "42"]).await;
    router.stop().await;
}

#[tokio::test]
async fn a_late_answer_is_discarded_whole() {
    let router = Fixture::with(Tenants { client: json!({"sac": true}), ..Tenants::default() }).await;
    let sac = router.operator_token("sac").await;
    let user_id = router.customer(AUTH).await;
    let moved = Arc::new(Notify::new());
    let late =
        json!({"response": ["too late"], "user_details": {"tier": "late"}, "conversation_details": {"order": 1}});
    router.bot.reply_to("slow", Answer::ok(late).after(&moved));
    router.channel.say(AUTH, "slow").await;
    router.bot.hear("turn", "slow").await;
    sac.control(&user_id, "take", None).await.ok();
    moved.notify_one();
    let noted = |feed: &Value| feed["entries"].to_string().contains("late_answer");
    router.until_get(&format!("/tract/thread/feed/?user_id={user_id}&after=0&limit=500"), noted).await;
    sac.send(&user_id, "aeu", "I took over").await.ok();
    router.customer_reads(&["I took over"]).await;
    sac.control(&user_id, "release", None).await.ok();
    router.channel.say(AUTH, "and now?").await;
    let turn = router.bot.hear("turn", "and now?").await;
    assert_eq!((&turn.body["user_details"], &turn.body["conversation_details"]), (&json!({}), &json!({})));
    router.stop().await;
}
