//! Threads: opening, committing, reading.

use super::*;
use std::collections::BTreeSet;
use tract_actors::ports::{StoreError, ThreadQuery};
use tract_domain::State;

pub(crate) async fn a_thread_is_opened_once(place: &impl Place) {
    let store = place.open().await;
    let (acme, hook) = (client("acme"), hook("sprinkle"));
    let user_id = store.user_id(&acme, 343, "walter");
    assert!(store.thread(&user_id).await.unwrap().is_none());
    for version in 0..2 {
        let open = OpenThread { business: 343, thread: snapshot(0, "none", "iva"), outbox: vec![delivery(&hook, 0)] };
        let write = UserWrite { open: Some(open), ..user_write("acme", "walter", version) };
        assert_eq!(store.write_user(write).await, Ok(Written::Applied));
    }
    let thread = store.thread(&user_id).await.unwrap().unwrap();
    assert_eq!((thread.version, thread.deadline), (0, None));
    assert_eq!(thread.thread, snapshot(0, "none", "iva"));
    assert_eq!((&thread.key.user_id, &thread.key.client), (&user_id, &acme));
    assert_eq!((thread.key.business, &*thread.key.auth_id), (343, "walter"));
    let told = pending(&*store, &hook, 0, 10).await;
    assert_eq!(told.len(), 1, "who opens a thread that is open tells nobody");
    assert_eq!(told[0].user_id, user_id);
    let other = store.user_id(&acme, 344, "walter");
    assert_ne!(other, user_id);
    assert!(store.thread(&other).await.unwrap().is_none());
}

pub(crate) async fn what_is_committed_is_read_back(place: &impl Place) {
    let store = place.open().await;
    let user_id = open_thread(&*store, 1, "walter").await;
    let neighbour = open_thread(&*store, 1, "skyler").await;
    let mut expected = Vec::new();
    for round in 0..4_u64 {
        let commit = Commit { deadline: DeadlineChange::Set(Some(NOW)), ..next_step(&*store, &user_id, round).await };
        let (entries, thread) = (commit.entries.clone(), Arc::clone(&commit.thread));
        let ids = applied(&*store, commit).await;
        assert_eq!(ids.len(), entries.len());
        expected.extend(ids.into_iter().zip(entries));
        let stored = store.thread(&user_id).await.unwrap().unwrap();
        assert_eq!((stored.version, stored.deadline), (round + 1, Some(NOW)));
        assert_eq!(stored.thread, *thread);
        let other = next_step(&*store, &neighbour, 1).await;
        applied(&*store, other).await;
    }
    let feed = |after, limit| {
        let (store, user_id) = (&store, &user_id);
        async move {
            let feed = store.feed(user_id, after, limit).await.unwrap();
            feed.into_iter().map(|e| (e.message_id, e.entry)).collect::<Vec<_>>()
        }
    };
    assert_eq!(expected.iter().map(|(_, e)| e.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(feed(0, 500).await, expected);
    assert_eq!(feed(2, 3).await, expected[2..5]);
    assert_eq!(feed(6, 500).await, []);
    assert_eq!(feed(u64::MAX, 500).await, []);
    assert_eq!(feed(0, 0).await, []);
}

pub(crate) async fn a_stale_version_conflicts(place: &impl Place) {
    let store = place.open().await;
    let user_id = open_thread(&*store, 1, "walter").await;
    let (first, second) = (next_step(&*store, &user_id, 1).await, next_step(&*store, &user_id, 1).await);
    let ahead = Commit { expected_version: 7, ..next_step(&*store, &user_id, 1).await };
    let hook = hook("sprinkle");
    applied(&*store, first).await;
    let home = KeyHome::Thread(user_id.clone());
    let idempotency = Some((key(&home, 1, 1, NOW.plus(9)), done()));
    let lost = Commit { outbox: vec![delivery(&hook, 1)], idempotency, ..second };
    assert_eq!(store.commit(lost).await, Ok(Committed::Conflict));
    assert_eq!(store.commit(ahead).await, Ok(Committed::Conflict));
    assert_eq!(store.feed(&user_id, 0, 10).await.unwrap().len(), 1);
    assert!(super::outbox::backlog(&*store).await.is_empty(), "nothing of a conflict remains");
    assert_eq!(kept(&*store, &home, 1, NOW).await, None);
}

/// Two histories can have as many commits: a failover takes some back, and others are made in their place.
pub(crate) async fn another_history_of_the_same_version_conflicts(place: &impl Place) {
    let store = place.open().await;
    let user_id = open_thread(&*store, 1, "walter").await;
    assert_eq!(store.version(&user_id).await, Ok(Some((0, None))));
    let made = next_step(&*store, &user_id, 1).await;
    applied(&*store, made.clone()).await;
    assert_eq!(store.version(&user_id).await, Ok(Some((1, Some(made.commit_id)))));
    let next = next_step(&*store, &user_id, 1).await;
    assert_eq!(next.expected_commit, Some(made.commit_id));
    let lost = Commit { expected_commit: Some(Uuid::new_v4()), ..next.clone() };
    assert_eq!(store.commit(lost).await, Ok(Committed::Conflict));
    applied(&*store, next.clone()).await;
    applied(&*store, next).await;
}

fn done() -> tract_domain::Reply {
    tract_domain::Reply::Done
}

pub(crate) async fn a_repeated_commit_is_recognised(place: &impl Place) {
    let store = place.open().await;
    let user_id = open_thread(&*store, 1, "walter").await;
    let hook = hook("sprinkle");
    let commit = next_step(&*store, &user_id, 3).await;
    let commit = Commit { outbox: vec![delivery(&hook, 2)], ..commit };
    let ids = applied(&*store, commit.clone()).await;
    assert_eq!(applied(&*store, commit.clone()).await, ids);
    let without_entries = next_step(&*store, &user_id, 0).await;
    assert!(applied(&*store, without_entries.clone()).await.is_empty());
    assert!(applied(&*store, without_entries).await.is_empty());
    for _ in 0..2 {
        let later = next_step(&*store, &user_id, 2).await;
        applied(&*store, later).await;
    }
    assert_eq!(applied(&*store, commit.clone()).await, ids, "also after others");
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert_eq!(applied(&*store, commit.clone()).await, ids, "also after a restart");
    let stranger = Commit { commit_id: Uuid::new_v4(), ..commit };
    assert_eq!(store.commit(stranger).await, Ok(Committed::Conflict));
    assert_eq!(store.thread(&user_id).await.unwrap().unwrap().version, 4);
    assert_eq!(store.feed(&user_id, 0, 100).await.unwrap().len(), 7);
    assert_eq!(pending(&*store, &hook, 0, 10).await.len(), 1);
}

pub(crate) async fn entries_continue_the_sequence(place: &impl Place) {
    let store = place.open().await;
    let user_id = open_thread(&*store, 1, "walter").await;
    for first in [0, 2, 1 << 40] {
        let commit = Commit { entries: vec![message(first, "gap")], ..next_step(&*store, &user_id, 1).await };
        let refused = store.commit(commit).await;
        assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    }
    assert!(store.feed(&user_id, 0, 10).await.unwrap().is_empty());
    let good = next_step(&*store, &user_id, 1).await;
    applied(&*store, good).await;
}

pub(crate) async fn a_foreign_handle_is_nobody(place: &impl Place) {
    let store = place.open().await;
    let user_id = open_thread(&*store, 1, "walter").await;
    assert_ne!(user_id, store.user_id(&client("other"), 1, "walter"), "another client knows somebody else");
    let never = store.user_id(&client("acme"), 1, "nobody");
    let long = UserId::new(&"x".repeat(128)).unwrap();
    for foreign in [never, long, UserId::new("u").unwrap(), UserId::new("~").unwrap()] {
        assert!(store.thread(&foreign).await.unwrap().is_none());
        assert!(store.feed(&foreign, 0, 10).await.unwrap().is_empty());
        let commit = Commit { user_id: foreign, ..next_step(&*store, &user_id, 1).await };
        assert_eq!(store.commit(commit).await, Ok(Committed::Conflict));
    }
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.user_id(&client("acme"), 1, "walter"), user_id, "the same for ever");
}

pub(crate) async fn message_ids_are_unique_and_increase(place: &impl Place) {
    let mut store = place.open().await;
    let mut all = BTreeSet::new();
    let mut last = [0; 20];
    // The clock goes forward, stands, goes back, is before the epoch of the ids.
    for (round, now) in
        [NOW, NOW.plus(10), NOW.plus(10), Timestamp(NOW.0 - 86_400_000), Timestamp(0)].iter().enumerate()
    {
        for (n, last) in last.iter_mut().enumerate() {
            let user_id = open_thread(&*store, 1, &format!("user {n}")).await;
            let commit = Commit { now: *now, ..next_step(&*store, &user_id, 3).await };
            for id in applied(&*store, commit).await {
                assert!(id > *last, "{id} is not above {last}");
                assert!(id < 1 << 53);
                assert!(all.insert(id), "{id} was given out before");
                *last = id;
            }
        }
        if round == 3 {
            store.close().await;
            drop(store);
            store = place.open().await;
        }
    }
    assert_eq!(all.len(), 5 * 20 * 3);
}

pub(crate) async fn one_users_threads_share_a_partition(place: &impl Place) {
    let store = place.open().await;
    let mut partitions = BTreeSet::new();
    for n in 0..20 {
        let auth_id = format!("user {n}");
        let mut of_user = BTreeSet::new();
        for business in [1, 2, u64::MAX] {
            let user_id = open_thread(&*store, business, &auth_id).await;
            assert_eq!(store.thread(&user_id).await.unwrap().unwrap().key.business, business);
            let commit = next_step(&*store, &user_id, 1).await;
            of_user.insert(applied(&*store, commit).await[0] % 256);
        }
        assert_eq!(of_user.len(), 1);
        partitions.extend(of_user);
    }
    assert!(partitions.len() > 10, "users are spread");
}

pub(crate) async fn deadlines_come_due(place: &impl Place) {
    let store = place.open().await;
    let strands: Vec<u16> = (0..store.strands()).collect();
    assert_eq!(store.next_due(&strands).await, Ok(None));
    let mut threads = Vec::new();
    for (n, after) in [30, 10, 20].into_iter().enumerate() {
        let user_id = open_thread(&*store, 1, &format!("user {n}")).await;
        let deadline = DeadlineChange::Set(Some(NOW.plus(after)));
        let commit = Commit { deadline, ..next_step(&*store, &user_id, 1).await };
        applied(&*store, commit).await;
        threads.push(user_id);
    }
    let [late, early, middle] = [&threads[0], &threads[1], &threads[2]];
    assert_eq!(store.next_due(&strands).await, Ok(Some(NOW.plus(10))));
    assert_eq!(store.due(&strands, NOW.plus(9), 10).await, Ok(vec![]));
    assert_eq!(store.due(&strands, NOW.plus(20), 10).await, Ok(vec![early.clone(), middle.clone()]));
    assert_eq!(store.due(&strands, NOW.plus(99), 2).await, Ok(vec![early.clone(), middle.clone()]));
    let kept = next_step(&*store, early, 1).await;
    applied(&*store, kept).await;
    assert_eq!(store.next_due(&strands).await, Ok(Some(NOW.plus(10))), "kept as it was");
    for (user_id, deadline) in [(early, None), (middle, Some(NOW.plus(40)))] {
        let commit = Commit { deadline: DeadlineChange::Set(deadline), ..next_step(&*store, user_id, 0).await };
        applied(&*store, commit).await;
        assert_eq!(store.thread(user_id).await.unwrap().unwrap().deadline, deadline);
    }
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.next_due(&strands).await, Ok(Some(NOW.plus(30))));
    assert_eq!(store.due(&strands, NOW.plus(99), 10).await, Ok(vec![late.clone(), middle.clone()]));
}

pub(crate) async fn threads_are_counted(place: &impl Place) {
    let store = place.open().await;
    for (n, (state, active)) in
        [("bot", "iva"), ("bot", "iva"), ("pinned", "sprinkle"), ("complete", "iva")].iter().enumerate()
    {
        let user_id = open_thread(&*store, n as u64 % 2, &format!("user {n}")).await;
        let commit = Commit { thread: Arc::new(snapshot(1, state, active)), ..next_step(&*store, &user_id, 1).await };
        applied(&*store, commit).await;
    }
    open_thread_of(&*store, "other", 1, "user 0").await;
    let states = store.states().await.unwrap();
    let count = |state| states.get(&state).copied().unwrap_or(0);
    assert_eq!([State::None, State::Bot, State::Pinned, State::Waiting, State::Complete].map(count), [1, 2, 1, 0, 1]);
    let (acme, iva, sprinkle) = (client("acme"), receiver("iva"), receiver("sprinkle"));
    assert_eq!(store.count_threads(None, None, None).await, Ok(5));
    assert_eq!(store.count_threads(Some(&acme), None, None).await, Ok(4));
    assert_eq!(store.count_threads(Some(&acme), Some(1), None).await, Ok(2));
    assert_eq!(store.count_threads(Some(&acme), None, Some(&iva)).await, Ok(3));
    assert_eq!(store.count_threads(None, None, Some(&sprinkle)).await, Ok(1));
    assert_eq!(store.count_threads(Some(&client("nobody")), None, None).await, Ok(0));
}

pub(crate) async fn threads_are_listed_in_pages(place: &impl Place) {
    let store = place.open().await;
    let mut all = Vec::new();
    for n in 0..25 {
        let of = if n % 5 == 0 { "other" } else { "acme" };
        let user_id = open_thread_of(&*store, of, 1, &format!("user {n}")).await;
        let (state, active) = if n % 2 == 0 { ("pinned", "sprinkle") } else { ("complete", "iva") };
        let commit = Commit { thread: Arc::new(snapshot(1, state, active)), ..next_step(&*store, &user_id, 1).await };
        applied(&*store, commit).await;
        all.push((n, user_id));
    }
    let list = async |query: ThreadQuery| {
        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            let page = store.threads(ThreadQuery { cursor, limit: 4, ..query.clone() }).await.unwrap();
            assert!(page.threads.len() <= 4);
            listed.extend(page.threads.into_iter().map(|t| t.key.user_id));
            cursor = page.next;
            if cursor.is_none() {
                return listed;
            }
        }
    };
    let those = |pick: fn(usize) -> bool| {
        all.iter().filter(|(n, _)| pick(*n)).map(|(_, id)| id.clone()).collect::<BTreeSet<_>>()
    };
    let check = async |query: ThreadQuery, pick: fn(usize) -> bool| {
        let listed = list(query.clone()).await;
        assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), those(pick), "{query:?}");
        assert_eq!(listed.len(), those(pick).len(), "each once: {query:?}");
    };
    let (acme, sprinkle) = (Some(client("acme")), Some(receiver("sprinkle")));
    let none = ThreadQuery::default();
    check(none.clone(), |_| true).await;
    check(ThreadQuery { client: acme.clone(), ..none.clone() }, |n| n % 5 != 0).await;
    check(ThreadQuery { state: Some(State::Pinned), ..none.clone() }, |n| n % 2 == 0).await;
    check(ThreadQuery { state: Some(State::Complete), ..none.clone() }, |n| n % 2 != 0).await;
    check(ThreadQuery { active: sprinkle.clone(), ..none.clone() }, |n| n % 2 == 0).await;
    let both = ThreadQuery { client: acme.clone(), state: Some(State::Pinned), active: sprinkle, ..none.clone() };
    check(both, |n| n % 2 == 0 && n % 5 != 0).await;
    let complete = ThreadQuery { client: acme.clone(), state: Some(State::Complete), ..none.clone() };
    check(complete, |n| n % 2 != 0 && n % 5 != 0).await;
    check(ThreadQuery { q: Some("user 7".into()), ..none.clone() }, |n| n == 7).await;
    check(ThreadQuery { q: Some("user".into()), ..none.clone() }, |_| false).await;
    check(ThreadQuery { q: Some("' OR 1=1 --%_".into()), ..none.clone() }, |_| false).await;
    let whole = all[3].1.as_str();
    check(ThreadQuery { q: Some(whole.into()), ..none.clone() }, |n| n == 3).await;
    check(ThreadQuery { q: Some(whole[..20].into()), client: acme, ..none.clone() }, |n| n == 3).await;
    let astray = ThreadQuery { cursor: Some("no cursor".into()), limit: 5, ..none };
    assert!(store.threads(astray).await.unwrap().threads.is_empty());
}

pub(crate) async fn concurrent_commits_lose_nothing(place: &impl Place) {
    const THREADS: usize = 200;
    const TASKS: usize = 64;
    let store = place.open().await;
    let mut threads = Vec::new();
    for n in 0..THREADS {
        threads.push(open_thread(&*store, 1, &format!("user {n}")).await);
    }
    let threads = Arc::new(threads);
    let tasks = (0..TASKS).map(|task| {
        let (store, threads) = (Arc::clone(&store), Arc::clone(&threads));
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for n in 0..20 {
                // Neighbouring tasks meet on the same threads.
                let user_id = &threads[(task / 4 * 31 + n * 7) % THREADS];
                loop {
                    let commit = next_step(&*store, user_id, 1 + n as u64 % 2).await;
                    match store.commit(commit).await.unwrap() {
                        Committed::Applied { message_ids, .. } => break ids.extend(message_ids),
                        Committed::Conflict => {}
                    }
                }
            }
            ids
        })
    });
    let mut given = Vec::new();
    for ids in futures_util::future::join_all(tasks).await {
        given.extend(ids.unwrap());
    }
    let mut found = Vec::new();
    for user_id in threads.iter() {
        let feed = store.feed(user_id, 0, usize::MAX).await.unwrap();
        assert!(feed.iter().zip(1..).all(|(e, n)| e.entry.sequence == n), "gapless");
        assert!(feed.is_sorted_by(|a, b| a.message_id < b.message_id));
        found.extend(feed.iter().map(|e| e.message_id));
    }
    given.sort_unstable();
    found.sort_unstable();
    assert_eq!(given.len(), TASKS * 30);
    assert_eq!(given, found);
    given.dedup();
    assert_eq!(given.len(), TASKS * 30, "each id once");
}

pub(crate) async fn a_store_that_was_not_closed_is_whole(place: &impl Place) {
    let mut expected = Vec::new();
    for _ in 0..3 {
        let store = place.open().await;
        let user_id = open_thread(&*store, 1, "walter").await;
        let feed = store.feed(&user_id, 0, 100).await.unwrap();
        assert_eq!(feed.iter().map(|e| e.message_id).collect::<Vec<_>>(), expected);
        let commit = next_step(&*store, &user_id, 2).await;
        expected.extend(applied(&*store, commit).await);
    }
}
