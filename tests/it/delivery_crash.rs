//! `kill -9` while webhooks are delivered: at least once, in order, the schedule kept, one id for ever (section 8).

use crate::support::{Answer, Peer, Process, Received, Tenant};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

const ROUNDS: usize = 50;
const CUSTOMERS: usize = 6;
/// Messages of each customer in each round.
const MESSAGES: usize = 4;
/// The first waits of the schedule, in milliseconds.
const WAITS: [i64; 3] = [5_000, 25_000, 125_000];

fn auth_id(customer: usize) -> String {
    format!("customer {customer}")
}

/// What the desk saw, in the order in which it answered: the words, the webhook's id, and whether it took it.
type Seen = Arc<Mutex<Vec<(String, String, bool)>>>;

/// A desk that refuses the first attempt at some messages, and everything of `poison`'s.
fn picky(desk: &Peer) -> Seen {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let mut refused = BTreeSet::new();
    desk.script(move |received: &Received| {
        let words = received.text();
        let number: usize = words.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default();
        let takes = !words.starts_with("poison") && (!number.is_multiple_of(67) || !refused.insert(words.clone()));
        kept.lock().unwrap().push((words, received.header("webhook-id").to_owned(), takes));
        (!takes).then(|| Answer::status(500))
    });
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_crashes_lose_nothing_reorder_nothing_and_forget_no_schedule() {
    let data = tempfile::tempdir().unwrap();
    let mut process = Process::start(data.path()).await;
    let Tenant { desk, sprinkle, channel } = process.tenant().await;
    let seen = picky(&desk);
    for customer in 0..CUSTOMERS {
        channel.user(&json!({"auth_id": auth_id(customer)})).await;
    }
    let poisoned = channel.user(&json!({"auth_id": "poison"})).await;
    channel.say("poison", "poison 1").await;

    for round in 0..ROUNDS {
        let here = channel.at(&process.api());
        // A different moment each time, in the middle of delivering.
        let enough = desk.seen().len() + 1 + round % 12;
        for message in 0..MESSAGES {
            let number = round * MESSAGES + message + 1;
            let sent = (0..CUSTOMERS).map(|customer| {
                let (here, auth_id) = (here.clone(), auth_id(customer));
                async move { here.say(&auth_id, &format!("{auth_id} message {number}")).await }
            });
            futures_util::future::join_all(sent).await;
        }
        desk.find("some deliveries", |seen| (seen.len() >= enough).then_some(())).await;
        process.kill();
        process = Process::start(data.path()).await;
    }

    let all = CUSTOMERS * ROUNDS * MESSAGES;
    let taken =
        |seen: &[(String, String, bool)]| seen.iter().filter(|s| s.2).map(|s| &s.0).collect::<BTreeSet<_>>().len();
    desk.find("everything", |_| (taken(&seen.lock().unwrap()) == all).then_some(())).await;
    desk.assert_sound();

    let seen = seen.lock().unwrap().clone();
    let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    for (words, id, takes) in &seen {
        ids.entry(words).or_default().insert(id);
        let Some((customer, number)) = words.split_once(" message ") else { continue };
        let number: usize = number.parse().unwrap();
        let before = done.entry(customer).or_insert(0);
        assert!(number <= *before + 1, "{words:?} was tried before the one before it was received");
        if *takes {
            *before = (*before).max(number);
        }
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "a duplicate carries the same id");
    assert_eq!(ids.values().flatten().collect::<BTreeSet<_>>().len(), ids.len(), "and nothing else does");

    // What was recorded of the poisoned delivery keeps the contract's distances, however often the router died meanwhile.
    let sprinkle = sprinkle.at(&process.api());
    let path = format!("/tract/hooks/deliveries/?user_id={poisoned}&category=message&subcategory=receive");
    let page = sprinkle.get(&path).await.ok();
    let attempts = page["deliveries"][0]["attempts"].as_array().expect("attempts").clone();
    assert!(attempts.len() >= 2, "{page}");
    let at = |attempt: &Value| attempt["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    for (pair, wait) in attempts.windows(2).zip(WAITS) {
        assert!(at(&pair[1]) - at(&pair[0]) >= wait, "{page}");
    }
    assert_eq!(page["deliveries"][0]["state"], "pending");
}
