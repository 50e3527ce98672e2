//! What the shell promises, seen through the API: an actor that fails harms nobody, a flood is refused before anything is
//! done, what was begun completes, memory is bounded, and time goes on for threads that no actor holds.

use crate::support::{Answer, Channel, Fixture, Reply, Tenants, Token};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tract::config::Limits;
use tract_actors::Failure;
use tract_domain::UserId;

const MINUTE: u64 = 60_000;

/// How long a condition of the router's is waited for. Real time: only a failing test ever takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until this holds; what it is about cannot be waited for, so it is looked at again.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::task::yield_now().await;
    }
}

/// Waits until so many commands are in flight.
async fn in_flight(router: &Fixture, count: usize) {
    until("commands in flight", async || router.threads().in_flight() == count).await;
}

/// The store's write lock: while this lives, whatever is to be committed waits.
struct Held(rusqlite::Connection);

impl Held {
    fn store_of(router: &Fixture) -> Self {
        let conn = rusqlite::Connection::open(router.directory().join("tract.db")).unwrap();
        conn.busy_timeout(PATIENCE).unwrap();
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(conn)
    }
    fn release(self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

/// What people said, as the feed has it.
fn said(feed: &[Value], sender: &str) -> Vec<String> {
    let messages = feed.iter().filter(|entry| entry["kind"] == "message" && entry["sender"] == sender);
    let texts = messages.map(|entry| serde_json::from_str::<Value>(entry["message_body"].as_str().unwrap()).unwrap());
    texts.map(|element| element["text"].as_str().unwrap().to_owned()).collect()
}

fn refused_as_busy(reply: Reply, code: &str) -> Value {
    assert!(reply.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{:?}", reply.headers);
    reply.refused(503, code)
}

#[tokio::test]
async fn an_actor_that_fails_answers_503_and_starts_afresh() {
    let router = Fixture::start().await;
    let (one, other) = (router.handed_off("one").await, router.handed_off("other").await);
    let send = |user_id: &str, words: &'static str| {
        let (tool, user_id) = (router.sprinkle.clone(), user_id.to_owned());
        tokio::spawn(async move { tool.send(&user_id, "aeu", words).await })
    };

    // One command is being committed; behind it waits what makes the actor fail, and behind that another command.
    let held = Held::store_of(&router);
    let before = send(&one, "before");
    in_flight(&router, 1).await;
    let mut failing = Box::pin(router.threads().panic_for_test(UserId::new(&one).unwrap()));
    // The first poll puts it into the mailbox.
    let polled = std::future::poll_fn(|cx| Poll::Ready(failing.as_mut().poll(cx))).await;
    assert!(polled.is_pending());
    let behind = send(&one, "behind");
    in_flight(&router, 2).await;
    let elsewhere = send(&other, "elsewhere");
    in_flight(&router, 3).await;
    held.release();

    before.await.unwrap().ok();
    let failure = failing.await.unwrap_err();
    assert!(matches!(failure, Failure::Unavailable(_)), "{failure}");
    refused_as_busy(behind.await.unwrap(), "store_unavailable");
    elsewhere.await.unwrap().ok();

    let thread = router.sprinkle.thread(&one).await;
    let after = router.sprinkle.send(&one, "aeu", "after").await.ok();
    assert_eq!(after["sequence"].as_u64(), thread["last_sequence"].as_u64().map(|last| last + 1));
    assert_eq!(after["control_epoch"], thread["control_epoch"]);
    assert_eq!(said(&router.sprinkle.feed(&one).await, "aeu"), ["before", "after"], "what was refused was not done");
    router.phone.hear("message", "after").await;
    router.stop().await;
}

/// Says this until it is taken; how often it was refused because its actor had just failed.
async fn insist(channel: &Channel, auth_id: &str, words: &str) -> usize {
    for refusals in 0.. {
        if channel.try_say(auth_id, words).await.is_some() {
            return refusals;
        }
    }
    unreachable!("it says it for ever")
}

#[tokio::test(flavor = "multi_thread")]
async fn other_threads_do_not_notice_that_an_actor_fails() {
    const FAILURES: usize = 30;
    let router = Fixture::start().await;
    let victim = router.customer("victim").await;
    let mut others = Vec::new();
    for n in 0..12 {
        others.push(router.customer(&format!("other {n}")).await);
    }
    let mut writers = JoinSet::new();
    for n in 0..others.len() {
        let channel = router.channel.clone();
        writers.spawn(async move {
            for number in 0..25 {
                channel.say(&format!("other {n}"), &number.to_string()).await;
            }
        });
    }
    for number in 0..FAILURES {
        insist(&router.channel, "victim", &number.to_string()).await;
        router.threads().panic_for_test(UserId::new(&victim).unwrap()).await.unwrap_err();
    }
    // Each of the others was acknowledged, or this would say so.
    writers.join_all().await;
    let expected = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    for user_id in &others {
        assert_eq!(said(&router.sprinkle.feed(user_id).await, "ceu"), expected(25));
    }
    assert_eq!(said(&router.sprinkle.feed(&victim).await, "ceu"), expected(FAILURES));
    router.stop().await;
}

#[tokio::test]
async fn beyond_the_bound_in_flight_callers_are_refused_before_anything_is_done() {
    let limits = Limits { in_flight: 3, ..Limits::default() };
    let router = Fixture::within(limits, Tenants::default()).await;
    let user_id = router.handed_off("late").await;
    for n in 0..3 {
        router.customer(&format!("early {n}")).await;
    }
    in_flight(&router, 0).await;
    let before = router.sprinkle.thread(&user_id).await;

    let held = Held::store_of(&router);
    let mut early = JoinSet::new();
    for n in 0..3 {
        let channel = router.channel.clone();
        early.spawn(async move { channel.try_say(&format!("early {n}"), "in time").await });
    }
    in_flight(&router, 3).await;
    let late = router.api.send(router.channel.saying("late", "too late")).await;
    refused_as_busy(late, "overloaded");
    refused_as_busy(router.sprinkle.send(&user_id, "aeu", "too late").await, "overloaded");
    let control = router.sprinkle.control(&user_id, "pass", Some("iva")).await;
    assert_eq!(refused_as_busy(control, "overloaded")["success"], json!(false));
    assert_eq!(router.sprinkle.thread(&user_id).await, before, "reading goes on, and nothing was done");
    router.api.send(router.api.request(Method::GET, "/healthz")).await.ok();
    held.release();

    for taken in early.join_all().await {
        assert!(taken.is_some(), "what was let in is done");
    }
    in_flight(&router, 0).await;
    assert_eq!(router.sprinkle.thread(&user_id).await, before);
    router.sprinkle.send(&user_id, "aeu", "again").await.ok();
    router.phone.hear("message", "again").await;
    assert!(!router.phone.seen().iter().any(|r| r.topic == "message" && r.text() == "too late"));
    router.stop().await;
}

/// Sends a request over a connection of its own.
async fn sent_raw(router: &Fixture, request: reqwest::RequestBuilder) -> TcpStream {
    let request = request.build().unwrap();
    let body = request.body().and_then(reqwest::Body::as_bytes).unwrap();
    let mut raw = format!("POST {} HTTP/1.1\r\nhost: router\r\n", request.url().path());
    for (name, value) in request.headers() {
        raw.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    raw.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut connection = TcpStream::connect(router.address()).await.unwrap();
    connection.write_all(raw.as_bytes()).await.unwrap();
    connection.write_all(body).await.unwrap();
    connection
}

#[tokio::test]
async fn a_command_completes_although_its_caller_hung_up() {
    let router = Fixture::start().await;
    let user_id = router.customer("impatient").await;
    let saying = || router.channel.saying("impatient", "I cannot wait").header("idempotency-key", "only-once");

    let held = Held::store_of(&router);
    let mut connection = sent_raw(&router, saying()).await;
    in_flight(&router, 1).await;
    connection.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // The router closes its side when it has given up on the caller.
    connection.read_to_end(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "", "the caller is gone before there is an answer");
    assert_eq!(router.threads().in_flight(), 1, "the command is not");
    held.release();

    in_flight(&router, 0).await;
    assert_eq!(said(&router.sprinkle.feed(&user_id).await, "ceu"), ["I cannot wait"]);
    let again = router.api.send(saying()).await;
    assert_eq!(again.header("idempotent-replayed"), "true", "whoever asks again gets the first answer");
    again.ok();
    router.customer_reads(&["you said I cannot wait"]).await;
    assert_eq!(said(&router.sprinkle.feed(&user_id).await, "ceu"), ["I cannot wait"]);
    router.stop().await;
}

#[tokio::test]
async fn an_actor_leaves_memory_after_five_idle_minutes() {
    let router = Fixture::start().await;
    let mut user_ids = Vec::new();
    for n in 0..5 {
        user_ids.push(router.customer(&format!("customer {n}")).await);
    }
    for n in 0..5 {
        router.channel.say(&format!("customer {n}"), &format!("words of {n}")).await;
        router.phone.hear("message", &format!("you said words of {n}")).await;
    }
    assert_eq!(router.threads().live_actors().await, 5);
    router.clock.advance(4 * MINUTE);
    router.channel.say("customer 3", "still here").await;
    router.phone.hear("message", "you said still here").await;
    assert_eq!(router.threads().live_actors().await, 5, "four minutes are not five");
    router.clock.advance(MINUTE);
    until("all leave but one", async || router.threads().live_actors().await == 1).await;

    let last = router.sprinkle.thread(&user_ids[0]).await["last_sequence"].as_u64().unwrap();
    router.channel.say("customer 0", "back again").await;
    assert_eq!(router.threads().live_actors().await, 2);
    let feed = router.sprinkle.feed(&user_ids[0]).await;
    assert_eq!(said(&feed, "ceu"), ["words of 0", "back again"]);
    assert!(feed.len() as u64 > last, "the sequence goes on");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_threads_than_live_actors_are_served_all_the_same() {
    const THREADS: usize = 100;
    const ROUNDS: usize = 3;
    const CAP: usize = 8;
    // Each core has its share of the cap, rounded up.
    let cores = std::thread::available_parallelism().unwrap().get();
    let cap = CAP.div_ceil(cores) * cores;
    let limits = Limits { live_actors: CAP, ..Limits::default() };
    let router = Fixture::within(limits, Tenants::default()).await;
    let mut user_ids = Vec::new();
    for n in 0..THREADS {
        user_ids.push(router.customer(&format!("customer {n}")).await);
    }
    for round in 0..ROUNDS {
        let mut writers = JoinSet::new();
        for n in 0..THREADS {
            let channel = router.channel.clone();
            writers.spawn(async move { channel.say(&format!("customer {n}"), &format!("{n} in round {round}")).await });
        }
        writers.join_all().await;
        let live = router.threads().live_actors().await;
        assert!((1..=cap).contains(&live), "{live} actors in memory");
    }
    for (n, user_id) in user_ids.iter().enumerate() {
        let words: Vec<_> = (0..ROUNDS).map(|round| format!("{n} in round {round}")).collect();
        let answers: Vec<_> = words.iter().map(|words| format!("you said {words}")).collect();
        router.phone.hear("message", answers.last().unwrap()).await;
        let feed = router.sprinkle.feed(user_id).await;
        assert_eq!((said(&feed, "ceu"), said(&feed, "iva")), (words, answers));
    }
    router.stop().await;
}

#[tokio::test]
async fn deadlines_fire_for_threads_that_no_actor_holds() {
    let router = Fixture::start().await;
    let user_id = router.customer("quiet").await;
    router.channel.say("quiet", "hello").await;
    router.customer_reads(&["you said hello"]).await;
    router.clock.advance(5 * MINUTE);
    until("the actor leaves", async || router.threads().live_actors().await == 0).await;
    assert_eq!(router.sprinkle.thread(&user_id).await["state"], "bot");
    router.clock.advance(3 * MINUTE);
    completed_by_itself(&router, &user_id).await;
    router.stop().await;
}

async fn completed_by_itself(router: &Fixture, user_id: &str) {
    let told = router.phone.wait_for("webhook_conversation_complete", |r| r.body["user"]["user_id"] == user_id).await;
    assert_eq!(told.body["data"]["completion_type"], "autocomplete");
    assert_eq!(router.sprinkle.thread(user_id).await["state"], "complete");
}

#[tokio::test]
async fn deadlines_that_passed_while_nothing_ran_fire_after_the_start() {
    let router = Fixture::start().await;
    let user_id = router.customer("quiet").await;
    router.channel.say("quiet", "hello").await;
    router.customer_reads(&["you said hello"]).await;
    let router = router.restarted_after(9 * MINUTE).await;
    completed_by_itself(&router, &user_id).await;
    router.channel.say("quiet", "hello again").await;
    let thread = router.until(&user_id, |thread| thread["state"] == "bot").await;
    assert_eq!(thread["conversation_number"], "2");
    router.customer_reads(&["you said hello", "you said hello again"]).await;
    router.stop().await;
}

/// What came of attempts that were under way when the router was told to stop is written before it ends, at whichever moment
/// of its stopping they come back.
#[tokio::test]
async fn a_stop_in_order_doubles_no_webhook() {
    const ROUNDS: usize = 15;
    let mut router = Fixture::start().await;
    router.customer("quiet").await;
    let mut read = Vec::new();
    for round in 0..ROUNDS {
        let stopping = Arc::new(Notify::new());
        router.phone.next("message", [Answer::ok(Value::Null).after(&stopping)]);
        let words = format!("hello {round}");
        router.channel.say("quiet", &words).await;
        read.push(format!("you said {words}"));
        router.phone.hear("message", &read[round]).await;
        let api = router.api.clone();
        let answer = async {
            let ping = || api.try_send(api.request(Method::GET, "/healthz"));
            until("the router stops", async || ping().await.is_none()).await;
            stopping.notify_one();
        };
        (router, ()) = tokio::join!(router.restarted_after(0), answer);
    }
    router.channel.say("quiet", "the last").await;
    read.push("you said the last".to_owned());
    router.customer_reads(&read.iter().map(String::as_str).collect::<Vec<_>>()).await;
    router.stop().await;
}

/// One that cannot be read is a matter for the operator, not for the others.
#[tokio::test]
async fn a_thread_that_cannot_be_read_holds_up_nobody_elses_deadline() {
    let router = Fixture::start().await;
    let mut user_ids = Vec::new();
    for n in 0..40 {
        user_ids.push(router.customer(&format!("customer {n}")).await);
        router.channel.say(&format!("customer {n}"), &format!("words of {n}")).await;
        router.phone.hear("message", &format!("you said words of {n}")).await;
    }
    let (broken, others) = user_ids.split_first().unwrap();
    let conn = rusqlite::Connection::open(router.directory().join("tract.db")).unwrap();
    conn.busy_timeout(PATIENCE).unwrap();
    let spoil = "UPDATE log SET snapshot = 'unreadable' WHERE id = (SELECT (id << 32) | 0xffffffff FROM threads WHERE user_id = ?1)";
    assert_eq!(conn.execute(spoil, [broken]).unwrap(), 1);
    drop(conn);
    let router = router.restarted_after(9 * MINUTE).await;
    for user_id in others {
        completed_by_itself(&router, user_id).await;
    }
    router.stop().await;
}

#[tokio::test]
async fn retries_that_are_due_later_survive_a_restart() {
    let router = Fixture::start().await;
    router.customer("one").await;
    router.desk.next("message.receive", [Answer::status(500)]);
    router.channel.say("one", "first").await;
    let recorded = |hooks: &Value| {
        let hooks = hooks["hooks"].as_array().cloned().unwrap_or_default();
        hooks.iter().any(|h| h["subcategory"] == "receive" && h["last_error"].is_string())
    };
    router.until_get("/tract/hooks/list/", recorded).await;

    let router = router.restarted_after(1_000).await;
    router.customer("another").await;
    router.channel.say("another", "elsewhere").await;
    router.desk.hear("message.receive", "elsewhere").await;
    let attempts = || {
        let seen = router.desk.seen_on("message.receive");
        let attempts = seen.into_iter().filter(|r| r.text() == "first");
        attempts.map(|r| r.header("webhook-id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(attempts().len(), 1, "it is not due yet");
    router.clock.advance(4_500);
    router.desk.find("the second attempt", |_| (attempts().len() == 2).then_some(())).await;
    assert_eq!(attempts()[0], attempts()[1], "it is the same delivery");
    router.stop().await;
}

#[tokio::test]
async fn a_stop_lets_what_was_begun_come_to_its_end() {
    let router = Fixture::start().await;
    let user_id = router.customer("last").await;
    let (channel, address) = (router.channel.clone(), router.address());
    let held = Held::store_of(&router);
    let saying = tokio::spawn(async move { channel.try_say("last", "just in time").await });
    in_flight(&router, 1).await;
    let release = async {
        until("nobody is let in any more", async || TcpStream::connect(address).await.is_err()).await;
        held.release();
    };
    let (router, ()) = tokio::join!(router.restarted_after(0), release);
    assert!(saying.await.unwrap().is_some(), "it was answered");
    assert_eq!(said(&router.sprinkle.feed(&user_id).await, "ceu"), ["just in time"]);
    router.customer_reads(&["you said just in time"]).await;
    router.stop().await;
}

#[tokio::test]
async fn tokens_and_hooks_survive_a_restart() {
    let router = Fixture::start().await.restarted_after(0).await;
    let user_id = router.handed_off("one").await;
    let tool: &Token = &router.sprinkle;
    tool.send(&user_id, "aeu", "hello").await.ok();
    router.second_desk.hear("message.receive", "hello").await;
    router.stop().await;
}
