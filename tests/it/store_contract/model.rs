//! Random histories beside a model that is a handful of maps.

use super::outbox::{over, retry};
use super::*;
use proptest::{prelude::*, test_runner::TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use tract_actors::ports::End;
use tract_domain::Reply;

const AUTH_IDS: [&str; 3] = ["walter", "skyler", "jesse"];
const ENDPOINTS: [&str; 2] = ["one", "two"];

#[derive(Debug, Clone)]
enum Op {
    Open {
        user: usize,
        business: u64,
    },
    Commit {
        user: usize,
        business: u64,
        stale: bool,
        messages: u64,
        endpoints: Vec<usize>,
        deadline: Option<Option<u64>>,
        key: Option<u8>,
    },
    Repeat {
        which: usize,
    },
    Done {
        which: usize,
    },
    Retry {
        which: usize,
        attempts: u32,
    },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let user = 0..AUTH_IDS.len();
    let business = 1..3_u64;
    let commit = (
        user.clone(),
        business.clone(),
        prop::bool::weighted(0.15),
        0..4_u64,
        prop::collection::vec(0..ENDPOINTS.len(), 0..4),
        prop::option::of(prop::option::of(0..50_u64)),
        prop::option::weighted(0.3, 0..8_u8),
    );
    let commit = commit.prop_map(|(user, business, stale, messages, endpoints, deadline, key)| Op::Commit {
        user,
        business,
        stale,
        messages,
        endpoints,
        deadline,
        key,
    });
    prop_oneof![
        2 => (user, business).prop_map(|(user, business)| Op::Open { user, business }),
        12 => commit,
        2 => any::<prop::sample::Index>().prop_map(|i| Op::Repeat { which: i.index(1 << 16) }),
        3 => any::<prop::sample::Index>().prop_map(|i| Op::Done { which: i.index(1 << 16) }),
        2 => (any::<prop::sample::Index>(), 1..7_u32)
            .prop_map(|(i, attempts)| Op::Retry { which: i.index(1 << 16), attempts }),
        1 => Just(Op::Reopen),
    ]
}

#[derive(Default)]
struct ModelThread {
    version: u64,
    ids: Vec<u64>,
    deadline: Option<Timestamp>,
}

#[derive(Default)]
struct Model {
    users: BTreeMap<usize, u64>,
    threads: BTreeMap<(usize, u64), ModelThread>,
    /// Endpoint, webhook id, attempts; in commit order.
    outbox: Vec<(usize, String, u32)>,
    kept: BTreeMap<u8, Vec<u64>>,
    /// Every commit with entries that was applied, and its ids.
    applied: Vec<(Commit, Vec<u64>)>,
}

/// Runs one history; panics where store and model differ.
async fn run(place: &impl Place, ops: Vec<Op>) {
    let mut store = place.open().await;
    let acme = client("acme");
    // Places are shared by the histories: each has users of its own, and what waits from before is cleared.
    let history = Uuid::new_v4();
    let auth_id = |user: usize| format!("{} {history}", AUTH_IDS[user]);
    let endpoint = |n: usize| hook(&format!("{}-{history}", ENDPOINTS[n]));
    let mut model = Model::default();
    for op in ops {
        match op {
            Op::Open { user, business } => {
                let version = model.users.entry(user).or_default();
                let open = OpenThread { business, thread: snapshot(0, "none", "iva"), outbox: Vec::new() };
                let write = UserWrite { open: Some(open), ..user_write("acme", &auth_id(user), *version) };
                assert_eq!(store.write_user(write).await, Ok(Written::Applied));
                *version += 1;
                model.threads.entry((user, business)).or_default();
            }
            Op::Commit { user, business, stale, messages, endpoints, deadline, key: kept } => {
                let user_id = store.user_id(&acme, business, &auth_id(user));
                let Some(thread) = model.threads.get_mut(&(user, business)) else {
                    assert!(store.thread(&user_id).await.unwrap().is_none());
                    continue;
                };
                let mut commit = next_step(&*store, &user_id, messages).await;
                assert_eq!(commit.expected_version, thread.version);
                if stale {
                    commit.expected_version = thread.version.wrapping_sub(1).min(99);
                }
                let sequence = commit.thread.sequence();
                commit.outbox = endpoints.iter().map(|e| delivery(&endpoint(*e), sequence)).collect();
                if let Some(at) = deadline {
                    commit.deadline = DeadlineChange::Set(at.map(|ms| NOW.plus(ms)));
                }
                let expires = NOW.plus(86_400_000);
                let name =
                    kept.map(|n| IdempotencyKey { key: digest(history, n), request: [n; 32], expires_at: expires });
                commit.idempotency = name.map(|key| (key, Reply::Done));
                let used = kept.is_some_and(|n| model.kept.contains_key(&n));
                match store.commit(commit.clone()).await.unwrap() {
                    Committed::Conflict => assert!(stale || used),
                    Committed::Applied { version, message_ids } => {
                        assert!(!stale && !used);
                        thread.version += 1;
                        assert_eq!(version, thread.version);
                        assert_eq!(message_ids.len() as u64, messages);
                        thread.ids.extend(&message_ids);
                        if let Some(at) = deadline {
                            thread.deadline = at.map(|ms| NOW.plus(ms));
                        }
                        let new = endpoints.iter().zip(&commit.outbox);
                        model.outbox.extend(new.map(|(e, d)| (*e, d.webhook_id.clone(), 0)));
                        if let Some(n) = kept {
                            model.kept.insert(n, message_ids.clone());
                        }
                        if messages > 0 {
                            model.applied.push((commit, message_ids));
                        }
                    }
                }
            }
            Op::Repeat { which } => {
                if let Some((commit, ids)) = model.applied.get(which % model.applied.len().max(1)) {
                    assert_eq!(applied(&*store, commit.clone()).await, *ids);
                }
            }
            Op::Done { which } | Op::Retry { which, .. } => {
                if model.outbox.is_empty() {
                    continue;
                }
                let which = which % model.outbox.len();
                let (n, webhook_id, _) = model.outbox[which].clone();
                let endpoint = endpoint(n);
                let waiting = pending(&*store, &endpoint, 0, 1000).await;
                let id = waiting.iter().find(|d| d.webhook_id == webhook_id).unwrap().id;
                let update = if let Op::Retry { attempts, .. } = op {
                    // The same schedule never counts back.
                    model.outbox[which].2 = model.outbox[which].2.max(attempts);
                    retry(&endpoint, id, attempts, NOW, NOW.plus(5))
                } else {
                    model.outbox.remove(which);
                    over(&endpoint, id, End::Delivered, NOW)
                };
                write_outcomes(&*store, vec![update]).await;
            }
            Op::Reopen => {
                drop(store);
                store = place.open().await;
            }
        }
    }
    for ((user, business), thread) in &model.threads {
        let user_id = store.user_id(&acme, *business, &auth_id(*user));
        let stored = store.thread(&user_id).await.unwrap().unwrap();
        assert_eq!((stored.version, stored.deadline), (thread.version, thread.deadline));
        let feed = store.feed(&user_id, 0, 1000).await.unwrap();
        assert_eq!(feed.iter().map(|e| e.message_id).collect::<Vec<_>>(), thread.ids);
        assert!(feed.iter().zip(1..).all(|(e, n)| e.entry.sequence == n));
        assert!(thread.ids.is_sorted_by(|a, b| a < b));
    }
    for n in 0..ENDPOINTS.len() {
        let waiting = pending(&*store, &endpoint(n), 0, 1000).await;
        let expected: Vec<_> =
            model.outbox.iter().filter(|(e, ..)| *e == n).map(|(_, id, tries)| (id, *tries)).collect();
        assert_eq!(waiting.len(), expected.len());
        // In commit order for each thread.
        let users: BTreeSet<&UserId> = waiting.iter().map(|d| &d.user_id).collect();
        for user_id in users {
            let of_user: Vec<_> = waiting.iter().filter(|d| d.user_id == *user_id).collect();
            let expected = expected.iter().filter(|(id, _)| of_user.iter().any(|d| d.webhook_id == **id));
            let of_user = of_user.iter().map(|d| (&d.webhook_id, d.attempts));
            assert_eq!(of_user.collect::<Vec<_>>(), expected.copied().collect::<Vec<_>>());
        }
        assert_eq!(store.endpoint_status(&endpoint(n)).await.unwrap().pending, expected.len() as u64);
    }
    for n in 0..8 {
        let kept = store.kept(&digest(history, n), NOW).await.unwrap();
        assert_eq!(kept.is_some(), model.kept.contains_key(&n));
    }
}

fn digest(history: Uuid, n: u8) -> [u8; 32] {
    let mut key = [n; 32];
    key[..16].copy_from_slice(history.as_bytes());
    key
}

pub(crate) async fn any_history_agrees_with_the_model(place: &impl Place) {
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let outcome = TestRunner::new(config).run(&prop::collection::vec(op(), 1..80), |ops| {
            let shown = std::panic::AssertUnwindSafe(|| runtime.block_on(run(place, ops)));
            std::panic::catch_unwind(shown).map_err(|_| TestCaseError::fail("store and model differ"))
        });
        outcome.unwrap();
    });
}
