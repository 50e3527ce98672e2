//! Retention: what is old leaves, and what comes in its place counts on.

use super::outbox::{ids, over};
use super::*;
use std::collections::BTreeMap;
use tract_actors::ports::{CLOCK_SLACK_MS, End, Leave, Owed, Replay, Replayed, ThreadKey, ThreadQuery};
use tract_domain::{Origin, State};

/// A thread in its stored form, as far as it counts.
fn counted(sequence: u64, epoch: u64, conversation: u64, state: &str) -> Thread {
    let text = format!(
        r#"{{"format":1,"sequence":{sequence},"conversation":{conversation},"control":{{"active":"iva","epoch":{epoch}}},
            "phase":{{"state":"{state}"}},"last_entry_at":5,"last_message_at":5}}"#
    );
    record::read_thread(&text).unwrap()
}

fn origin_of(thread: &Thread) -> Origin {
    Origin { sequence: thread.sequence(), control_epoch: thread.control().epoch, conversation: thread.conversation() }
}

/// Opens a thread above that origin.
async fn open_above(store: &dyn Store, business: BusinessId, auth_id: &str, origin: Origin) -> Written {
    let version = store.user(&client("acme"), auth_id).await.unwrap().map_or(0, |user| user.version);
    let thread = counted(origin.sequence, origin.control_epoch + 1, origin.conversation, "none");
    let open = Some(OpenThread { business, thread, outbox: Vec::new() });
    store.write_user(UserWrite { open, ..user_write("acme", auth_id, version) }).await.unwrap()
}

/// So many more messages, and the conversation is over.
async fn complete(store: &dyn Store, user_id: &UserId, messages: u64) {
    let on = store.thread(user_id).await.unwrap().unwrap();
    let Origin { sequence, control_epoch, conversation } = origin_of(&on.thread);
    let thread = Arc::new(counted(sequence + messages, control_epoch, conversation + 1, "complete"));
    applied(store, Commit { thread, ..step(&on, messages) }).await;
}

/// What leaves, as it stands.
async fn leaving(store: &dyn Store, user_id: &UserId) -> Leave {
    let stored = store.thread(user_id).await.unwrap().unwrap();
    Leave { user_id: user_id.clone(), expected_version: stored.version, thread: Arc::new(stored.thread) }
}

async fn listed(store: &dyn Store) -> Vec<UserId> {
    let page = store.threads(ThreadQuery { limit: 1_000, ..ThreadQuery::default() }).await.unwrap();
    page.threads.into_iter().map(|thread| thread.key.user_id).collect()
}

pub(crate) async fn a_thread_leaves_wholly(place: &impl Place) {
    let store = place.open().await;
    let (walter, skyler) = (open_thread(&*store, 1, "walter").await, open_thread(&*store, 1, "skyler").await);
    complete(&*store, &walter, 3).await;
    complete(&*store, &skyler, 2).await;
    let stored = store.thread(&skyler).await.unwrap().unwrap();
    let timer = Commit {
        thread: Arc::new(stored.thread.clone()),
        deadline: DeadlineChange::Set(Some(NOW)),
        ..step(&stored, 0)
    };
    applied(&*store, timer).await;
    let leave = leaving(&*store, &skyler).await;
    let stale = Leave { expected_version: leave.expected_version - 1, ..leave.clone() };
    assert_eq!(store.leave(stale).await, Ok(Written::Conflict));
    assert_eq!(store.feed(&skyler, 0, 9).await.unwrap().len(), 2, "nothing of a conflict remains");
    for _ in 0..2 {
        assert_eq!(store.leave(leave.clone()).await, Ok(Written::Applied), "also when it is asked for again");
    }
    for reopened in [false, true] {
        if reopened {
            store.close().await;
        }
        let store = if reopened { place.open().await } else { Arc::clone(&store) };
        assert!(store.thread(&skyler).await.unwrap().is_none());
        assert!(store.feed(&skyler, 0, 9).await.unwrap().is_empty());
        assert_eq!(store.user(&client("acme"), "skyler").await, Ok(None));
        assert_eq!(listed(&*store).await, std::slice::from_ref(&walter));
        let strands: Vec<u16> = (0..store.strands()).collect();
        let timers = (store.due(&strands, NOW, 9).await.unwrap(), store.next_due(&strands).await.unwrap());
        assert_eq!(timers, (Vec::new(), None));
        assert_eq!(store.count_threads(None, None, None).await, Ok(1));
        assert_eq!(store.states().await.unwrap()[&State::Complete], 1);
        assert_eq!(store.feed(&walter, 0, 9).await.unwrap().len(), 3, "others are as they were");
        assert!(store.user(&client("acme"), "walter").await.unwrap().is_some());
    }
}

pub(crate) async fn what_is_opened_in_its_place_counts_on(place: &impl Place) {
    let store = place.open().await;
    let user_id = open_thread(&*store, 1, "walter").await;
    assert_eq!(store.origin(&user_id).await, Ok(Origin::default()));
    complete(&*store, &user_id, 3).await;
    let before = store.thread(&user_id).await.unwrap().unwrap();
    let late = step(&before, 1);
    let idle = step(&before, 0);
    store.leave(leaving(&*store, &user_id).await).await.unwrap();
    assert_eq!(store.commit(late.clone()).await, Ok(Committed::Conflict), "whoever remembers it finds it gone");
    let origin = store.origin(&user_id).await.unwrap();
    assert_eq!(origin, Origin { sequence: 3, control_epoch: 1, conversation: 2 });
    store.close().await;
    drop(store);

    let store = place.open().await;
    assert_eq!(store.origin(&user_id).await, Ok(origin));
    for low in [
        Origin::default(),
        Origin { sequence: 2, ..origin },
        Origin { control_epoch: 0, ..origin },
        Origin { conversation: 1, ..origin },
    ] {
        assert_eq!(open_above(&*store, 1, "walter", low).await, Written::Conflict, "{low:?}");
    }
    assert_eq!(store.user(&client("acme"), "walter").await, Ok(None), "nothing of a conflict remains");
    assert_eq!(open_above(&*store, 1, "walter", origin).await, Written::Applied);
    let after = store.thread(&user_id).await.unwrap().unwrap();
    assert!(after.version > before.version, "no commit on the old one counts on the new one");
    for late in [late, idle] {
        assert_eq!(store.commit(late).await, Ok(Committed::Conflict));
    }
    complete(&*store, &user_id, 2).await;
    let feed = store.feed(&user_id, 0, 9).await.unwrap();
    assert_eq!(feed.iter().map(|e| e.entry.sequence).collect::<Vec<_>>(), [4, 5]);
    let stale = Leave { expected_version: before.version, ..leaving(&*store, &user_id).await };
    assert_eq!(store.leave(stale).await, Ok(Written::Conflict));
}

pub(crate) async fn a_user_leaves_with_the_last_thread(place: &impl Place) {
    let store = place.open().await;
    let mut threads = Vec::new();
    for business in 1..=3 {
        threads.push(open_thread(&*store, business, "walter").await);
    }
    let other = open_thread(&*store, 1, "skyler").await;
    for user_id in &threads {
        assert!(store.user(&client("acme"), "walter").await.unwrap().is_some());
        complete(&*store, user_id, 1).await;
        assert_eq!(store.leave(leaving(&*store, user_id).await).await, Ok(Written::Applied));
    }
    assert_eq!(store.user(&client("acme"), "walter").await, Ok(None));
    assert!(store.user(&client("acme"), "skyler").await.unwrap().is_some());
    assert_eq!(listed(&*store).await, [other]);
}

pub(crate) async fn a_feed_loses_its_beginning(place: &impl Place) {
    let store = place.open().await;
    let (user_id, neighbour) = (open_thread(&*store, 1, "walter").await, open_thread(&*store, 1, "skyler").await);
    complete(&*store, &user_id, 10).await;
    complete(&*store, &neighbour, 10).await;
    let whole = store.feed(&user_id, 0, 99).await.unwrap();
    for (most, gone) in [(3, 3), (3, 3), (3, 1), (3, 0)] {
        assert_eq!(store.trim_feed(&user_id, 7, most).await, Ok(gone));
    }
    for after in 0..=7 {
        assert_eq!(store.feed(&user_id, after, 99).await.unwrap(), whole[7..]);
    }
    assert_eq!(store.feed(&user_id, 8, 99).await.unwrap(), whole[8..]);
    assert_eq!(store.feed(&neighbour, 0, 99).await.unwrap().len(), 10);
    assert_eq!(store.trim_feed(&user_id, u64::MAX, 99).await, Ok(3));
    assert!(store.feed(&user_id, 0, 99).await.unwrap().is_empty());
    let next = next_step(&*store, &user_id, 1).await;
    applied(&*store, next).await;
    assert_eq!(store.feed(&user_id, 0, 99).await.unwrap()[0].entry.sequence, 11);
    let nobody = store.user_id(&client("acme"), 1, "nobody");
    assert_eq!(store.trim_feed(&nobody, 7, 9).await, Ok(0));
}

pub(crate) async fn what_is_owed_is_found(place: &impl Place) {
    let store = place.open().await;
    let (one, two) = (hook("one"), hook("two"));
    let channel = Endpoint::from_name("channel:acme:1");
    let long_after = NOW.plus(30 * 86_400_000);
    let key = |user_id: &UserId| {
        let (store, user_id) = (Arc::clone(&store), user_id.clone());
        async move { store.thread(&user_id).await.unwrap().unwrap().key }
    };
    let mut keys: Vec<ThreadKey> = Vec::new();
    for name in ["walter", "skyler", "jesse", "hank", "nobody"] {
        keys.push(key(&open_thread(&*store, 1, name).await).await);
    }
    let owed = |store: Arc<dyn Store>, keys: Vec<ThreadKey>, before: Timestamp| async move {
        store.owed(&keys, before).await.unwrap()
    };
    let nothing = Owed::default();
    let from = |sequence| Owed { any: true, from: Some(sequence) };
    assert_eq!(owed(Arc::clone(&store), keys.clone(), NOW).await, [nothing; 5]);

    // Walter: entries to two endpoints. Skyler: a range. Jesse: only word of the user. Hank: something young.
    let commit = next_step(&*store, &keys[0].user_id, 5).await;
    applied(&*store, Commit { outbox: vec![delivery(&one, 4), delivery(&channel, 3)], ..commit }).await;
    let commit = next_step(&*store, &keys[1].user_id, 9).await;
    let range = NewDelivery { what: What::History { after: 6, through: 9 }, ..delivery(&two, 9) };
    applied(&*store, Commit { outbox: vec![range], ..commit }).await;
    let commit = next_step(&*store, &keys[2].user_id, 1).await;
    let word = NewDelivery { what: What::CreateUser, ..delivery(&two, 0) };
    applied(&*store, Commit { outbox: vec![word], ..commit }).await;
    let young = NOW.plus(CLOCK_SLACK_MS + 60_000);
    let commit = next_step(&*store, &keys[3].user_id, 1).await;
    applied(&*store, Commit { outbox: vec![delivery(&one, 1)], now: young, ..commit }).await;
    let word = Owed { any: true, from: None };
    // What is young need not be told of.
    let old = |owed: Vec<Owed>| [owed[0], owed[1], owed[2], owed[4]];
    assert_eq!(old(owed(Arc::clone(&store), keys.clone(), NOW).await), [from(3), from(7), word, nothing]);
    assert_eq!(owed(Arc::clone(&store), keys.clone(), young).await[3], from(1));
    assert_eq!(owed(Arc::clone(&store), vec![keys[1].clone()], NOW).await, [from(7)]);

    // What was received is owed no more; what is a dead letter is, and so is one that is sent again behind what is young.
    let waiting = pending(&*store, &channel, 0, 9).await;
    write_outcomes(&*store, vec![over(&channel, ids(&waiting)[0], End::Delivered, NOW)]).await;
    let waiting = pending(&*store, &one, 0, 9).await;
    write_outcomes(&*store, vec![over(&one, ids(&waiting)[0], End::Dead, NOW)]).await;
    let letter = [from(4), from(7), word, nothing];
    assert_eq!(old(owed(Arc::clone(&store), keys.clone(), NOW).await), letter);
    let again = Replay { endpoints: vec![one.clone()], which: Replayed::Since(NOW), limit: 9, now: long_after };
    assert_eq!(store.replay(again).await, Ok(1));
    assert_eq!(old(owed(Arc::clone(&store), keys.clone(), NOW).await), letter);
    let again = pending(&*store, &one, 0, 9).await.into_iter().find(|d| d.replayed).unwrap();
    write_outcomes(&*store, vec![over(&one, again.id, End::Delivered, long_after)]).await;
    assert_eq!(old(owed(Arc::clone(&store), keys, NOW).await), [nothing, from(7), word, nothing]);
}

/// However threads come and go: for each handle, sequence, epoch, conversation and version only ever go up.
pub(crate) async fn nothing_ever_counts_back(place: &impl Place) {
    let store = place.open().await;
    let names: Vec<String> = (0..40).map(|n| format!("user {n}")).collect();
    let mut highest: BTreeMap<UserId, (u64, u64, u64, u64)> = BTreeMap::new();
    let mut random = 88_172_645_463_325_252_u64;
    for _ in 0..600 {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let name = &names[(random % 40) as usize];
        let user_id = store.user_id(&client("acme"), 1, name);
        match store.thread(&user_id).await.unwrap() {
            None => {
                let origin = store.origin(&user_id).await.unwrap();
                assert_eq!(open_above(&*store, 1, name, origin).await, Written::Applied);
            }
            Some(stored) if random % 5 > 1 && stored.thread.state() == State::Complete => {
                assert_eq!(store.leave(leaving(&*store, &user_id).await).await, Ok(Written::Applied));
                continue;
            }
            Some(_) => complete(&*store, &user_id, 1 + random % 7).await,
        }
        let now = store.thread(&user_id).await.unwrap().unwrap();
        let Origin { sequence, control_epoch, conversation } = origin_of(&now.thread);
        let before = highest.entry(user_id.clone()).or_default();
        assert!(sequence >= before.0 && control_epoch >= before.1 && conversation >= before.2, "{before:?}");
        assert!(now.version > before.3 || *before == (0, 0, 0, 0));
        let feed = store.feed(&user_id, 0, 1_000).await.unwrap();
        assert!(feed.windows(2).all(|two| two[1].entry.sequence == two[0].entry.sequence + 1));
        *before = (sequence, control_epoch, conversation, now.version);
    }
}
