//! What deliveries came to: attempts, what was received, dead letters, and sending those again.

use super::outbox::{Told, ids, over, over_of, retry, retry_of};
use super::*;
use tract_actors::ports::{
    Buried, DEAD_LETTERS_KEPT_MS, DeliveryPage, DeliveryQuery, DeliveryRecord, DeliveryState, End, EndpointStatus,
    KeptAnswer, OutboxSink, Replay, Replayed,
};

/// So many deliveries to one endpoint, of one thread, each a millisecond after the other; their ids.
async fn enqueue(store: &dyn Store, endpoint: &Endpoint, user_id: &UserId, count: u64) -> Vec<u64> {
    for _ in 0..count {
        let commit = next_step(store, user_id, 1).await;
        let sequence = commit.thread.sequence();
        let outbox = vec![delivery(endpoint, sequence)];
        applied(store, Commit { outbox, now: NOW.plus(sequence), ..commit }).await;
    }
    ids(&pending(store, endpoint, 0, 10_000).await)
}

async fn listed(store: &dyn Store, endpoints: &[Endpoint], state: Option<DeliveryState>) -> Vec<DeliveryRecord> {
    let query = DeliveryQuery { endpoints: endpoints.to_vec(), state, limit: 10_000, ..DeliveryQuery::default() };
    let page = store.deliveries(query).await.unwrap();
    assert_eq!(page.next, None);
    page.deliveries
}

async fn replayed(store: &dyn Store, endpoint: &Endpoint, which: Replayed, limit: usize) -> u64 {
    store.replay(Replay { endpoints: vec![endpoint.clone()], which, limit, now: NOW.plus(90_000) }).await.unwrap()
}

fn sequences(records: &[DeliveryRecord]) -> Vec<u64> {
    records.iter().map(|record| record.sequence).collect()
}

async fn dead(store: &dyn Store, endpoint: &Endpoint) -> u64 {
    store.endpoint_status(endpoint).await.unwrap().dead
}

pub(crate) async fn what_was_received_is_listed_with_its_attempts(place: &impl Place) {
    let store = place.open().await;
    let (one, user_id) = (hook("one"), open_thread(&*store, 1, "walter").await);
    let all = enqueue(&*store, &one, &user_id, 3).await;
    let updates = vec![
        retry(&one, all[0], 1, NOW, NOW.plus(5_000)),
        over(&one, all[0], End::Delivered, NOW.plus(5_000)),
        over(&one, all[1], End::Rejected, NOW.plus(6_000)),
    ];
    write_outcomes(&*store, updates.clone()).await;
    write_outcomes(&*store, updates).await;
    let records = listed(&*store, std::slice::from_ref(&one), None).await;
    assert_eq!(sequences(&records), [3, 2, 1], "the newest first, each once");
    let states = records.iter().map(|r| r.state).collect::<Vec<_>>();
    assert_eq!(states, [DeliveryState::Pending, DeliveryState::Rejected, DeliveryState::Delivered]);
    let first = &records[2];
    assert_eq!((&first.user_id, &first.endpoint, first.created_at), (&user_id, &one, NOW.plus(1)));
    assert_eq!((first.ended_at, first.replayed), (Some(NOW.plus(5_000)), false));
    let attempts: Vec<_> = first.attempts.iter().map(|a| (a.status, a.error.as_deref())).collect();
    assert_eq!(attempts, [(Some(500), Some("503")), (Some(200), None)]);
    assert_eq!(records[1].attempts[0].error.as_deref(), Some("no such agent"));
    assert_eq!((records[0].attempts.len(), records[0].ended_at), (0, None));
    for (state, expected) in
        [(DeliveryState::Delivered, [1]), (DeliveryState::Rejected, [2]), (DeliveryState::Pending, [3])]
    {
        assert_eq!(sequences(&listed(&*store, std::slice::from_ref(&one), Some(state)).await), expected);
    }
    assert!(listed(&*store, &[hook("two")], None).await.is_empty());
    let stranger = DeliveryQuery {
        endpoints: vec![one.clone()],
        user_id: Some(open_thread(&*store, 1, "skyler").await),
        limit: 10,
        ..DeliveryQuery::default()
    };
    assert_eq!(store.deliveries(stranger.clone()).await, Ok(DeliveryPage::default()));
    let own = DeliveryQuery { user_id: Some(user_id), ..stranger };
    assert_eq!(store.deliveries(own).await.unwrap().deliveries.len(), 3);
}

pub(crate) async fn a_retry_counts_once_and_a_fresh_schedule_counts_anew(place: &impl Place) {
    let store = place.open().await;
    let (one, user_id) = (hook("one"), open_thread(&*store, 1, "walter").await);
    let id = enqueue(&*store, &one, &user_id, 1).await[0];
    for attempts in [1, 1, 2, 1] {
        write_outcomes(&*store, vec![retry(&one, id, attempts, NOW, NOW.plus(9))]).await;
    }
    let tried = |store: Arc<dyn Store>, one: Endpoint| async move {
        let row = pending(&*store, &one, 0, 1).await.remove(0);
        (row.attempts, row.first_attempt_at, listed(&*store, &[one], None).await[0].attempts.len())
    };
    assert_eq!(tried(Arc::clone(&store), one.clone()).await, (2, Some(NOW), 2));
    let later = NOW.plus(3_600_000);
    write_outcomes(&*store, vec![retry(&one, id, 1, later, later)]).await;
    assert_eq!(
        tried(Arc::clone(&store), one.clone()).await,
        (1, Some(later), 3),
        "the endpoint was enabled in between"
    );
    for n in 2..40 {
        write_outcomes(&*store, vec![retry(&one, id, n, later, later)]).await;
    }
    assert_eq!(tried(store, one).await.2, 16, "the last attempts are kept");
}

pub(crate) async fn each_message_of_a_range_ends_by_itself(place: &impl Place) {
    let store = place.open().await;
    let (one, user_id) = (hook("one"), open_thread(&*store, 1, "walter").await);
    let commit = next_step(&*store, &user_id, 9).await;
    let range = NewDelivery { what: What::History { after: 2, through: 8 }, ..delivery(&one, 8) };
    let webhook_id = range.webhook_id.clone();
    applied(&*store, Commit { outbox: vec![range], ..commit }).await;
    let id = pending(&*store, &one, 0, 1).await[0].id;
    let updates = vec![
        over_of(&one, id, End::Delivered, 3),
        retry_of(&one, id, 5),
        over_of(&one, id, End::Dead, 5),
        over_of(&one, id, End::Delivered, 4),
    ];
    write_outcomes(&*store, updates.clone()).await;
    write_outcomes(&*store, updates).await;
    let rest = pending(&*store, &one, 0, 10).await;
    assert_eq!((rest[0].what, rest[0].attempts), (What::History { after: 5, through: 8 }, 0), "never back");
    assert_eq!(store.endpoint_status(&one).await.unwrap().dead, 1);
    let records = listed(&*store, std::slice::from_ref(&one), None).await;
    let told: Vec<_> = records.iter().map(|r| (r.state, r.what, r.webhook_id.clone(), r.attempts.len())).collect();
    let (of, entry) = (|n: u64| format!("{webhook_id}-{n}"), What::Entry);
    assert_eq!(told[..2], [(DeliveryState::Dead, entry, of(5), 2), (DeliveryState::Delivered, entry, of(3), 1)]);
    assert_eq!(told[2].0, DeliveryState::Pending, "what is left of it");
    assert_eq!(replayed(&*store, &one, Replayed::One(of(5)), 10).await, 1);
    let again = pending(&*store, &one, 0, 10).await.pop().unwrap();
    assert_eq!((again.what, again.sequence, again.replayed), (What::Entry, 5, true));
}

pub(crate) async fn the_oldest_are_buried_first(place: &impl Place) {
    let store = place.open().await;
    let (one, two) = (hook("one"), hook("two"));
    let user_id = open_thread(&*store, 1, "walter").await;
    let all = enqueue(&*store, &one, &user_id, 6).await;
    enqueue(&*store, &two, &user_id, 1).await;
    write_outcomes(&*store, vec![retry(&one, all[0], 1, NOW, NOW)]).await;
    let (now, held) = (NOW.plus(50_000), held(&*store).await);
    let bury = |before, limit| store.bury(&one, &held, NOW.plus(before), limit, now);
    assert_eq!(bury(0, 10).await, Ok(Buried { count: 0, oldest: Some(NOW.plus(1)) }));
    assert_eq!(bury(4, 3).await, Ok(Buried { count: 3, oldest: Some(NOW.plus(4)) }));
    assert_eq!(bury(4, 3).await, Ok(Buried { count: 1, oldest: Some(NOW.plus(5)) }));
    assert_eq!(bury(4, 3).await, Ok(Buried { count: 0, oldest: Some(NOW.plus(5)) }));
    let status = store.endpoint_status(&one).await.unwrap();
    assert_eq!((status.pending, status.dead, status.oldest), (2, 4, Some(NOW.plus(5))));
    let letters = listed(&*store, std::slice::from_ref(&one), Some(DeliveryState::Dead)).await;
    assert_eq!(sequences(&letters), [4, 3, 2, 1]);
    assert!(letters.iter().all(|letter| letter.ended_at == Some(now)));
    assert_eq!(letters[3].attempts.len(), 1, "with the attempts that were made");
    assert_eq!(bury(99, 10).await, Ok(Buried { count: 2, oldest: None }));
    assert_eq!(store.bury(&hook("none"), &held, now, 10, now).await, Ok(Buried::default()));
    assert_eq!(store.endpoint_status(&two).await.unwrap().pending, 1);
}

pub(crate) async fn dead_letters_are_sent_again_in_order(place: &impl Place) {
    let store = place.open().await;
    let told = Arc::new(Told::default());
    let (one, user_id) = (hook("one"), open_thread(&*store, 1, "walter").await);
    let all = enqueue(&*store, &one, &user_id, 5).await;
    let before = pending(&*store, &one, 0, 10).await;
    for (n, id) in all.iter().take(4).enumerate().rev() {
        write_outcomes(&*store, vec![over(&one, *id, End::Dead, NOW.plus(n as u64 * 1_000))]).await;
    }
    assert_eq!(dead(&*store, &one).await, 4);
    store.subscribe(Arc::clone(&told) as Arc<dyn OutboxSink>);
    assert_eq!(replayed(&*store, &one, Replayed::One("unknown".to_owned()), 10).await, 0);
    assert_eq!(replayed(&*store, &hook("two"), Replayed::Since(NOW), 10).await, 0);
    assert_eq!(replayed(&*store, &one, Replayed::One(before[2].webhook_id.clone()), 10).await, 1);
    assert_eq!(
        replayed(&*store, &one, Replayed::One(before[2].webhook_id.clone()), 10).await,
        0,
        "it is no dead letter now"
    );
    assert_eq!(replayed(&*store, &one, Replayed::Since(NOW.plus(1_000)), 1).await, 1);
    assert_eq!(replayed(&*store, &one, Replayed::Since(NOW.plus(1_000)), 10).await, 1);
    assert_eq!(replayed(&*store, &one, Replayed::Since(NOW.plus(1_000)), 10).await, 0, "the other died before");
    let waiting = pending(&*store, &one, 0, 10).await;
    let expected = [&before[4], &before[2], &before[1], &before[3]].map(|d| d.webhook_id.clone());
    assert_eq!(waiting.iter().map(|d| d.webhook_id.clone()).collect::<Vec<_>>(), expected, "behind what waits");
    assert!(waiting.is_sorted_by(|a, b| a.id < b.id));
    let again = &waiting[1];
    assert_eq!((again.replayed, again.attempts, again.sequence, again.what), (true, 0, 3, What::Entry));
    assert_eq!((again.created_at, again.due_at), (NOW.plus(90_000), NOW.plus(90_000)));
    assert_eq!(ids(&told.deliveries()), ids(&waiting[1..]));
    let status = store.endpoint_status(&one).await.unwrap();
    assert_eq!((status.pending, status.dead), (4, 1));
    let records = listed(&*store, std::slice::from_ref(&one), Some(DeliveryState::Pending)).await;
    assert!(records[..3].iter().all(|record| record.replayed && record.attempts.len() == 1), "its attempts stay");
}

pub(crate) async fn dead_letters_survive_a_restart_and_are_kept_for_seven_days(place: &impl Place) {
    let store = place.open().await;
    let (one, user_id) = (hook("one"), open_thread(&*store, 1, "walter").await);
    let all = enqueue(&*store, &one, &user_id, 3).await;
    for (n, id) in (1..).zip(&all) {
        write_outcomes(&*store, vec![over(&one, *id, End::Dead, NOW.plus(n))]).await;
    }
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert_eq!(store.endpoints().await.unwrap(), [(one.clone(), store.endpoint_status(&one).await.unwrap())]);
    assert_eq!(dead(&*store, &one).await, 3);
    let until = NOW.plus(DEAD_LETTERS_KEPT_MS);
    assert_eq!(store.forget_expired(until.plus(1)).await, Ok(0), "they are kept seven days to the millisecond");
    assert_eq!(store.forget_expired(until.plus(3)).await, Ok(2));
    assert_eq!(dead(&*store, &one).await, 1);
    assert_eq!(sequences(&listed(&*store, std::slice::from_ref(&one), None).await), [3]);
}

pub(crate) async fn pages_go_on_while_things_change(place: &impl Place) {
    let store = place.open().await;
    let endpoints = [hook("one"), hook("two"), hook("three")];
    let user_id = open_thread(&*store, 1, "walter").await;
    for n in 0..30 {
        let commit = next_step(&*store, &user_id, 1).await;
        let sequence = commit.thread.sequence();
        applied(&*store, Commit { outbox: vec![delivery(&endpoints[n % 3], sequence)], ..commit }).await;
    }
    for (n, endpoint) in endpoints.iter().enumerate() {
        let waiting = pending(&*store, endpoint, 0, 10).await;
        let ends = [End::Delivered, End::Dead, End::Rejected];
        write_outcomes(&*store, vec![over(endpoint, waiting[n].id, ends[n], NOW)]).await;
    }
    let mut seen = Vec::new();
    let mut query = DeliveryQuery { endpoints: endpoints.to_vec(), limit: 7, ..DeliveryQuery::default() };
    loop {
        let page = store.deliveries(query.clone()).await.unwrap();
        assert!(page.deliveries.len() <= 7);
        seen.extend(sequences(&page.deliveries));
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
        // Something new, and something that ends, in the middle of the reading.
        enqueue(&*store, &endpoints[0], &user_id, 1).await;
        let oldest = pending(&*store, &endpoints[1], 0, 1).await.remove(0);
        write_outcomes(&*store, vec![over(&endpoints[1], oldest.id, End::Delivered, NOW)]).await;
    }
    assert_eq!(seen, (1..=30).rev().collect::<Vec<_>>());
    let nonsense = DeliveryQuery { cursor: Some("nonsense".to_owned()), ..query };
    assert_eq!(store.deliveries(nonsense).await, Ok(DeliveryPage::default()));
}

pub(crate) async fn the_last_thousand_that_were_received_are_kept(place: &impl Place) {
    let store = place.open().await;
    let (one, user_id) = (hook("one"), open_thread(&*store, 1, "walter").await);
    let mut last = 0;
    for _ in 0..25 {
        let commit = next_step(&*store, &user_id, 100).await;
        let outbox = commit.entries.iter().map(|entry| delivery(&one, entry.sequence)).collect();
        applied(&*store, Commit { outbox, ..commit }).await;
        let waiting = pending(&*store, &one, 0, 200).await;
        let updates = waiting.iter().map(|d| over(&one, d.id, End::Delivered, NOW)).collect();
        write_outcomes(&*store, updates).await;
        last = waiting.last().unwrap().sequence;
    }
    let records = listed(&*store, std::slice::from_ref(&one), None).await;
    assert!((1_000..=2_000).contains(&records.len()), "{}", records.len());
    assert_eq!(sequences(&records), (1..=last).rev().take(records.len()).collect::<Vec<_>>(), "the last ones");
}

pub(crate) async fn a_forgotten_endpoint_has_no_past(place: &impl Place) {
    use tract_actors::ports::DocumentWrite;
    let store = place.open().await;
    let (one, user_id) = (hook("one"), open_thread(&*store, 1, "walter").await);
    let all = enqueue(&*store, &one, &user_id, 3).await;
    let ended = vec![over(&one, all[0], End::Delivered, NOW), over(&one, all[1], End::Dead, NOW)];
    write_outcomes(&*store, ended).await;
    let write = DocumentWrite { forget: vec![one.clone()], ..DocumentWrite::default() };
    assert_eq!(store.write_documents(write).await, Ok(Written::Applied));
    assert_eq!(store.endpoint_status(&one).await, Ok(EndpointStatus::default()));
    assert!(listed(&*store, std::slice::from_ref(&one), None).await.is_empty());
    assert_eq!(replayed(&*store, &one, Replayed::Since(Timestamp(0)), 10).await, 0);
    enqueue(&*store, &one, &user_id, 1).await;
    assert_eq!(listed(&*store, &[one], None).await.len(), 1, "it begins anew");
}

pub(crate) async fn an_answer_is_kept_by_itself(place: &impl Place) {
    let store = place.open().await;
    let until = NOW.plus(1_000);
    store.keep(key(1, 1, until), json(r#"{"first":1}"#), NOW).await.unwrap();
    store.keep(key(1, 2, until), json(r#"{"second":2}"#), NOW).await.unwrap();
    let kept = store.kept(&[1; 32], NOW).await.unwrap().unwrap();
    assert_eq!((kept.request, kept.answer), ([1; 32], KeptAnswer::Body(json(r#"{"first":1}"#))));
    assert_eq!(store.kept(&[1; 32], until).await, Ok(None));
}
