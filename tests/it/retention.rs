//! Old conversations leave, and their customers return, over HTTP.

use crate::support::{Answer, Api, Fixture, Received, RedisServer, hand_off_to};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tract::config::Limits;

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

#[tokio::test]
async fn old_conversations_leave_and_their_customers_return() {
    live_through(None).await;
}

#[tokio::test]
async fn old_conversations_leave_redis_too() {
    live_through(Some(RedisServer::start())).await;
}

fn numbers(feed: &Value, name: &str) -> Vec<u64> {
    feed["entries"].as_array().unwrap().iter().map(|entry| entry[name].as_u64().unwrap()).collect()
}

async fn feed(router: &Fixture, user_id: &str, after: u64) -> Value {
    router.sprinkle.get(&format!("/tract/thread/feed/?user_id={user_id}&after={after}&limit=500")).await.ok()
}

/// A day passes, and with it every token.
async fn a_day_passes(router: &mut Fixture) {
    router.clock.advance(DAY);
    router.sprinkle = router.operator_token("sprinkle").await;
}

/// One conversation with the bot, until silence completes it.
async fn converse(router: &Fixture, auth_id: &str, user_id: &str) {
    router.channel.say(auth_id, "hello").await;
    let answered = |thread: &Value| thread["state"] == "bot" && thread["last_sequence"].as_u64() > Some(2);
    router.until(user_id, answered).await;
    router.clock.advance(9 * MINUTE);
    router.until(user_id, |thread| thread["state"] == "complete").await;
}

/// Lets retention come by until it has done what is asked for: it leaves alone what is still being delivered.
async fn until_gone(router: &Fixture, path: &str, holds: impl Fn(u16, &Value) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        router.clock.advance(10 * MINUTE);
        for _ in 0..20 {
            let answer = router.sprinkle.get(path).await;
            if holds(answer.status, &answer.body) {
                return;
            }
        }
        assert!(Instant::now() < deadline, "{path} stays as it is");
    }
}

async fn live_through(redis: Option<RedisServer>) {
    // Actors stay in memory all the while: none may answer for a thread that has left.
    let limits = Limits { passivate_after: Duration::from_secs(365 * 86_400), ..Limits::default() };
    let mut router = Fixture::keeping(Duration::from_millis(2 * DAY), limits, redis).await;
    let (walter, skyler) = (router.customer("walter").await, router.customer("skyler").await);
    converse(&router, "walter", &walter).await;
    converse(&router, "skyler", &skyler).await;
    let (first_of_walter, first_of_skyler) = (feed(&router, &walter, 0).await, feed(&router, &skyler, 0).await);
    let past = *numbers(&first_of_skyler, "sequence").last().unwrap();

    // A day later Skyler's second conversation begins, and stays open.
    a_day_passes(&mut router).await;
    router.bot.reply_to("agent", hand_off_to("sprinkle"));
    router.channel.say("skyler", "agent").await;
    router.until(&skyler, |thread| thread["active"] == "sprinkle").await;
    router.sprinkle.event(&skyler, "aeu_events.allocated", &json!({})).await.ok();
    router.clock.advance(20 * MINUTE);
    assert_eq!(feed(&router, &walter, 0).await, first_of_walter, "a day is not two");
    let whole = feed(&router, &skyler, 0).await;

    // Two days later what is left of the first ones is that they counted.
    a_day_passes(&mut router).await;
    let late = router.sprinkle.send(&walter, "aeu", "still there?").await;
    until_gone(&router, &format!("/tract/thread/?user_id={walter}"), |status, _| status == 404).await;
    assert!(late.status == 409 || late.status == 404, "{late:?}");
    router.sprinkle.send(&walter, "aeu", "still there?").await.refused(404, "unknown_user");
    router.sprinkle.get(&format!("/tract/thread/feed/?user_id={walter}")).await.refused(404, "unknown_user");
    router.sprinkle.post("/tract/user/", &json!({"user_id": walter})).await.refused(404, "unknown_user");
    let left = format!("/tract/thread/feed/?user_id={skyler}");
    until_gone(&router, &left, |_, feed| numbers(feed, "sequence").first() > Some(&past)).await;
    let page = feed(&router, &skyler, 0).await;
    let sequences = numbers(&page, "sequence");
    assert_eq!(sequences[0], past + 1, "the open conversation is whole");
    assert!(sequences.windows(2).all(|two| two[1] == two[0] + 1));
    assert_eq!(page["next_after"], json!(sequences.last().unwrap()));
    let kept = &whole["entries"].as_array().unwrap()[usize::try_from(past).unwrap()..];
    assert_eq!(page["entries"].as_array().unwrap()[..kept.len()], *kept);
    assert_eq!(feed(&router, &skyler, past + 1).await["entries"][0]["sequence"], json!(past + 2));
    router.sprinkle.send(&skyler, "aeu", "an agent here").await.ok();

    // Walter returns: the same handle, a new user to everybody, and nothing counts back.
    let told = |router: &Fixture| {
        let seen = router.desk.seen_on("user_events.create_user");
        seen.into_iter().filter(|r| r.body["user_id"] == json!(walter)).collect::<Vec<_>>()
    };
    let before = told(&router);
    let refused = router.channel.saying("walter", "me again").send().await.unwrap();
    assert_eq!(refused.status(), 403, "the channel side has to tell of the user again");
    assert_eq!(router.customer("walter").await, walter);
    router.desk.find("word of the user", |_| (told(&router).len() > before.len()).then_some(())).await;
    converse(&router, "walter", &walter).await;
    let second = feed(&router, &walter, 0).await;
    for name in ["sequence", "control_epoch"] {
        let highest = numbers(&first_of_walter, name).into_iter().max();
        assert!(numbers(&second, name).into_iter().min() > highest, "{name}: {second:#}");
    }
    assert!(numbers(&second, "sequence").windows(2).all(|two| two[1] == two[0] + 1));
    let conversation =
        |feed: &Value| feed["entries"][0]["conversation_number"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(conversation(&second) > conversation(&first_of_walter));
    router.stop().await;
}

/// A dead letter that is sent again finds its message, however old; only then does the conversation leave.
#[tokio::test]
async fn what_is_still_to_be_delivered_stays() {
    owe(None).await;
}

#[tokio::test]
async fn what_is_still_to_be_delivered_stays_in_redis() {
    owe(Some(RedisServer::start())).await;
}

/// Another node remembers the thread, and finds that it has left; what is opened in its place is not taken for it.
#[tokio::test]
async fn what_has_left_is_gone_on_every_node() {
    let limits = Limits { passivate_after: Duration::from_secs(365 * 86_400), ..Limits::default() };
    let mut router = Fixture::keeping(Duration::from_millis(DAY), limits, Some(RedisServer::start())).await;
    let second = router.second_node().await;
    let there = Api::new(format!("http://{}", second.addr()));
    let walter = router.customer("walter").await;
    converse(&router, "walter", &walter).await;
    let last = *numbers(&feed(&router, &walter, 0).await, "sequence").last().unwrap();
    for token in [&router.sprinkle, &router.sprinkle.at(&there)] {
        token.send(&walter, "aeu", "I am not to speak").await.refused(409, "not_active");
    }
    assert_eq!((router.threads().live_actors().await, second.router().live_actors().await), (1, 1));
    a_day_passes(&mut router).await;
    until_gone(&router, &format!("/tract/thread/?user_id={walter}"), |status, _| status == 404).await;
    for token in [&router.sprinkle, &router.sprinkle.at(&there)] {
        token.send(&walter, "aeu", "still there?").await.refused(404, "unknown_user");
    }
    router.customer("walter").await;
    router.channel.at(&there).say("walter", "me again").await;
    router.channel.say("walter", "and here").await;
    let sequences = numbers(&feed(&router, &walter, 0).await, "sequence");
    assert!(sequences[0] > last && sequences.windows(2).all(|two| two[1] == two[0] + 1), "{sequences:?}");
    second.stop().await.unwrap();
    router.stop().await;
}

/// Actors that took part in a leaving do not fill the memory.
#[tokio::test]
async fn what_has_left_is_held_by_no_actor() {
    let limits = Limits { passivate_after: Duration::from_secs(365 * 86_400), ..Limits::default() };
    let mut router = Fixture::keeping(Duration::from_millis(DAY), limits, None).await;
    let walter = router.customer("walter").await;
    converse(&router, "walter", &walter).await;
    assert_eq!(router.threads().live_actors().await, 1);
    a_day_passes(&mut router).await;
    until_gone(&router, &format!("/tract/thread/?user_id={walter}"), |status, _| status == 404).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while router.threads().live_actors().await > 0 {
        assert!(Instant::now() < deadline, "its actor stays");
    }
    router.stop().await;
}

async fn owe(redis: Option<RedisServer>) {
    let mut router = Fixture::keeping(Duration::from_millis(DAY), Limits::default(), redis).await;
    let (walter, jesse) = (router.customer("walter").await, router.customer("jesse").await);
    converse(&router, "walter", &walter).await;
    router.desk.hear("message.receive", "you said hello").await;
    router.desk.script(|r| (r.topic == "message.receive").then(|| Answer::status(410)));
    converse(&router, "jesse", &jesse).await;
    router.until_get("/tract/hooks/list/", |hooks| hooks.to_string().contains("disabled_at")).await;
    router.clock.advance(61 * MINUTE);
    let two = |page: &Value| page["deliveries"].as_array().is_some_and(|letters| letters.len() == 2);
    let letters = router.until_get("/tract/hooks/deliveries/?state=dead", two).await;
    let owed = feed(&router, &jesse, 0).await["entries"].as_array().unwrap().clone();

    a_day_passes(&mut router).await;
    until_gone(&router, &format!("/tract/thread/?user_id={walter}"), |status, _| status == 404).await;
    let left = feed(&router, &jesse, 0).await["entries"].as_array().unwrap().clone();
    let first = owed.iter().position(|entry| entry["kind"] == "message").unwrap();
    assert!(first > 0 && left.len() == owed.len() - first, "what nobody needs has left: {left:#?}");
    assert_eq!(left, owed[first..]);

    router.desk.script(|r| (r.topic == "message.receive").then(|| Answer::ok(json!({}))));
    router.sprinkle.post("/tract/hooks/enable/", &json!({"category": "message", "subcategory": "receive"})).await.ok();
    for letter in letters["deliveries"].as_array().unwrap() {
        let which = json!({"webhook_id": letter["webhook_id"]});
        assert_eq!(router.sprinkle.post("/tract/hooks/replay/", &which).await.ok()["replayed"], json!(1));
    }
    for words in ["hello", "you said hello"] {
        let again = |r: &Received| r.text() == words && r.metadata()["replayed"] == true;
        assert_eq!(router.desk.wait_for("message.receive", again).await.body["user_id"], json!(jesse));
    }
    until_gone(&router, &format!("/tract/thread/?user_id={jesse}"), |status, _| status == 404).await;
    router.stop().await;
}
