//! What every store must do, whatever it is made of. A store runs through it with one line:
//! `store_contract!(its_name, its_place())`, where the place is where a fresh store of its lives.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

pub(crate) mod dead_letters;
pub(crate) mod files;
pub(crate) mod model;
pub(crate) mod outbox;
pub(crate) mod retention;
pub(crate) mod threads;
pub(crate) mod users;

use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use tract::store::record;
use tract_actors::ports::{
    Commit, Committed, DeadlineChange, Delivery, Endpoint, IdempotencyKey, Kept, KeyHome, NewDelivery, OpenThread,
    OutboxUpdate, Part, Settled, Store, StoredThread, UserWrite, What, Written,
};
use tract_domain::{BusinessId, ClientId, Entry, Json, ReceiverId, Thread, Timestamp, UserId};
use uuid::Uuid;

/// Where a store lives.
#[async_trait]
pub(crate) trait Place: Send + Sync + 'static {
    /// Opens it; the one that was opened before is closed or dropped by then.
    async fn open(&self) -> Arc<dyn Store>;
}

/// Makes one test of each case, on a place of its own.
macro_rules! store_contract {
    ($name:ident, $place:expr) => {
        mod $name {
            use super::*;
            store_contract! { @cases $place;
                threads::a_thread_is_opened_once
                threads::what_is_committed_is_read_back
                threads::a_stale_version_conflicts
                threads::another_history_of_the_same_version_conflicts
                threads::a_repeated_commit_is_recognised
                threads::entries_continue_the_sequence
                threads::a_foreign_handle_is_nobody
                threads::message_ids_are_unique_and_increase
                threads::one_users_threads_share_a_partition
                threads::deadlines_come_due
                threads::threads_are_counted
                threads::threads_are_listed_in_pages
                threads::concurrent_commits_lose_nothing
                threads::a_store_that_was_not_closed_is_whole
                outbox::deliveries_wait_in_commit_order
                outbox::the_sink_is_told_in_commit_order
                outbox::a_retry_survives_a_restart
                outbox::a_range_advances
                outbox::a_turn_is_settled_once
                outbox::a_forgotten_endpoint_has_nothing_waiting
                dead_letters::what_was_received_is_listed_with_its_attempts
                dead_letters::a_retry_counts_once_and_a_fresh_schedule_counts_anew
                dead_letters::each_message_of_a_range_ends_by_itself
                dead_letters::the_oldest_are_buried_first
                dead_letters::dead_letters_are_sent_again_in_order
                dead_letters::dead_letters_survive_a_restart_and_are_kept_for_seven_days
                dead_letters::pages_go_on_while_things_change
                dead_letters::the_last_thousand_that_were_received_are_kept
                dead_letters::a_forgotten_endpoint_has_no_past
                dead_letters::an_answer_is_kept_by_itself
                files::a_file_is_kept_whole
                files::a_file_is_unnamed_until_it_is_named
                files::files_go_with_the_entries_that_name_them
                retention::a_thread_leaves_wholly
                retention::what_is_opened_in_its_place_counts_on
                retention::a_user_leaves_with_the_last_thread
                retention::a_feed_loses_its_beginning
                retention::what_is_owed_is_found
                retention::nothing_ever_counts_back
                users::a_user_is_written_and_read
                users::what_others_tell_of_a_user_is_kept
                users::an_answer_is_kept_with_its_commit
                users::a_key_of_a_users_request_is_known_from_anothers
                users::an_expired_answer_makes_room
                users::a_signed_request_is_new_once
                users::a_signed_request_is_new_once_however_many_ask
                users::documents_have_one_revision
                users::a_closed_store_says_so
                model::any_history_agrees_with_the_model
            }
        }
    };
    (@cases $place:expr; $($file:ident::$case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::store_contract::$file::$case(&$place).await;
            }
        )*
    };
}
pub(crate) use store_contract;

/// 2025-11-22, in the middle of nowhere.
pub(crate) const NOW: Timestamp = Timestamp(1_763_800_000_000);

pub(crate) fn client(id: &str) -> ClientId {
    ClientId::new(id).unwrap()
}

pub(crate) fn receiver(id: &str) -> ReceiverId {
    ReceiverId::new(id).unwrap()
}

pub(crate) fn json(text: &str) -> Json {
    Json(text.into())
}

/// A thread in its stored form.
pub(crate) fn snapshot(sequence: u64, state: &str, active: &str) -> Thread {
    let phase = match state {
        "bot" | "waiting" => format!(r#"{{"state":"{state}","since":5}}"#),
        _ => format!(r#"{{"state":"{state}"}}"#),
    };
    let text = format!(
        r#"{{"format":1,"sequence":{sequence},"conversation":1,"control":{{"active":"{active}","epoch":1}},
            "phase":{phase},"last_entry_at":5,"last_message_at":5}}"#
    );
    record::read_thread(&text).unwrap()
}

/// A customer's message in its stored form.
pub(crate) fn message(sequence: u64, text: &str) -> Entry {
    let body = serde_json::to_string(&format!(r#"{{"text":"{text}"}}"#)).unwrap();
    let form = format!(
        r#"{{"format":1,"sequence":{sequence},"conversation":1,"at":7,"control_epoch":1,"active":"iva",
            "fact":{{"message":{{"sender":"ceu","body":{body}}}}}}}"#
    );
    record::read_entry(&form).unwrap()
}

/// What waits for an endpoint with an id above `after`, over all strands.
pub(crate) async fn pending(store: &dyn Store, endpoint: &Endpoint, after: u64, limit: usize) -> Vec<Delivery> {
    let parts: Vec<Part> = (0..store.strands()).map(|strand| Part { strand, after, limit }).collect();
    let mut all: Vec<Delivery> = store.outbox(endpoint, &parts).await.unwrap().into_iter().flatten().collect();
    all.sort_by_key(|delivery| delivery.id);
    all.truncate(limit);
    all
}

/// All strands with their epochs, once the store has them.
pub(crate) async fn held(store: &dyn Store) -> Vec<(u16, u64)> {
    let mut held = store.held();
    let all = held.wait_for(|held| held.len() == usize::from(store.strands()));
    let all = tokio::time::timeout(Duration::from_secs(20), all).await.expect("the leases in time").unwrap().clone();
    all.all_active().collect()
}

/// What became of deliveries, under the leases of this moment.
pub(crate) async fn write_outcomes(store: &dyn Store, mut updates: Vec<OutboxUpdate>) {
    let held = held(store).await;
    for update in &mut updates {
        update.epoch = held[usize::try_from(update.id % held.len() as u64).unwrap()].1;
    }
    store.update_outbox(updates).await.unwrap();
}

pub(crate) fn hook(name: &str) -> Endpoint {
    Endpoint::from_name(&format!("hook:acme:{name}:message:receive"))
}

pub(crate) fn delivery(endpoint: &Endpoint, sequence: u64) -> NewDelivery {
    NewDelivery {
        endpoint: endpoint.clone(),
        webhook_id: Uuid::now_v7().to_string(),
        what: What::Entry,
        sequence,
        answers_handoff: None,
    }
}

pub(crate) fn key(home: &KeyHome, n: u8, body: u8, expires_at: Timestamp) -> IdempotencyKey {
    IdempotencyKey { home: home.clone(), key: [n; 32], request: [body; 32], expires_at }
}

/// What is kept for a key that is so used.
pub(crate) async fn kept(store: &dyn Store, home: &KeyHome, n: u8, now: Timestamp) -> Option<Kept> {
    store.kept(&key(home, n, 0, now), now).await.unwrap()
}

/// A write that changes nothing yet.
pub(crate) fn user_write(of: &str, auth_id: &str, expected_version: u64) -> UserWrite {
    UserWrite {
        commit_id: Uuid::new_v4(),
        client: client(of),
        auth_id: auth_id.into(),
        expected_version,
        profile: None,
        open: None,
        idempotency: None,
        now: NOW,
    }
}

/// Opens a thread of `acme`, whose user may exist.
pub(crate) async fn open_thread(store: &dyn Store, business: BusinessId, auth_id: &str) -> UserId {
    open_thread_of(store, "acme", business, auth_id).await
}

pub(crate) async fn open_thread_of(store: &dyn Store, of: &str, business: BusinessId, auth_id: &str) -> UserId {
    let version = store.user(&client(of), auth_id).await.unwrap().map_or(0, |user| user.version);
    let open = Some(OpenThread { business, thread: snapshot(0, "none", "iva"), outbox: Vec::new() });
    let write = UserWrite { open, ..user_write(of, auth_id, version) };
    assert_eq!(store.write_user(write).await, Ok(Written::Applied));
    store.user_id(&client(of), business, auth_id)
}

/// The next step of a thread: so many messages, nothing else.
pub(crate) fn step(on: &StoredThread, messages: u64) -> Commit {
    let last = on.thread.sequence();
    Commit {
        commit_id: Uuid::new_v4(),
        user_id: on.key.user_id.clone(),
        expected_version: on.version,
        expected_commit: on.commit_id,
        thread: Arc::new(snapshot(last + messages, "bot", "iva")),
        entries: (last + 1..=last + messages).map(|n| message(n, &format!("message {n}"))).collect(),
        outbox: Vec::new(),
        settles: None,
        deadline: DeadlineChange::Keep,
        user_details: None,
        idempotency: None,
        now: NOW,
    }
}

/// Loads the thread, and makes its next step.
pub(crate) async fn next_step(store: &dyn Store, user_id: &UserId, messages: u64) -> Commit {
    step(&store.thread(user_id).await.unwrap().unwrap(), messages)
}

/// The message ids of a commit that must be applied.
pub(crate) async fn applied(store: &dyn Store, commit: Commit) -> Vec<u64> {
    let version = commit.expected_version + 1;
    match store.commit(commit).await.unwrap() {
        Committed::Applied { version: now, message_ids } => {
            assert_eq!(now, version);
            message_ids
        }
        Committed::Conflict => panic!("a conflict with nobody"),
    }
}
