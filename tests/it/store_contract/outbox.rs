//! The outbox: what waits, in which order, and what becomes of it.

use super::*;
use std::{collections::BTreeMap, sync::Mutex};
use tract_actors::ports::{AttemptRecord, Delivery, End, EndpointStatus, OutboxChange, OutboxSink, OutboxUpdate};

#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<Delivery>>, Mutex<Vec<(u16, Endpoint)>>, Mutex<Vec<u16>>);

impl Told {
    /// What was handed over so far.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.0.lock().unwrap().clone()
    }
    /// Waits until what was handed over and missed is as it should be.
    pub(crate) async fn until(&self, is_so: impl Fn(&[Delivery], &[(u16, Endpoint)]) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !is_so(&self.deliveries(), &self.missed()) {
            assert!(std::time::Instant::now() < deadline, "what should have been told was not");
            tokio::task::yield_now().await;
        }
    }
    /// Where something was missed.
    pub(crate) fn missed(&self) -> Vec<(u16, Endpoint)> {
        self.1.lock().unwrap().clone()
    }
    /// Where anything may have been missed.
    pub(crate) fn missed_all(&self) -> Vec<u16> {
        self.2.lock().unwrap().clone()
    }
}

impl OutboxSink for Told {
    fn enqueued(&self, deliveries: Vec<Delivery>) {
        self.0.lock().unwrap().extend(deliveries);
    }
    fn missed(&self, strand: u16, endpoints: Vec<Endpoint>) {
        self.1.lock().unwrap().extend(endpoints.into_iter().map(|endpoint| (strand, endpoint)));
    }
    fn missed_all(&self, strands: Vec<u16>) {
        self.2.lock().unwrap().extend(strands);
    }
    fn deadline(&self, _: Timestamp) {}
}

pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|d| d.id).collect()
}

/// An attempt that ended at this time.
pub(crate) fn attempt(ended_at: Timestamp, error: Option<&str>) -> AttemptRecord {
    let at = Timestamp(ended_at.0 - 40);
    AttemptRecord {
        at,
        status: Some(if error.is_some() { 500 } else { 200 }),
        latency_ms: 40,
        error: error.map(str::to_owned),
    }
}

pub(crate) fn over(endpoint: &Endpoint, id: u64, end: End, at: Timestamp) -> OutboxUpdate {
    let error = (end != End::Delivered).then_some("no such agent");
    let change = OutboxChange::Over { end, attempt: attempt(at, error), of: None };
    OutboxUpdate { endpoint: endpoint.clone(), id, epoch: 0, change }
}

/// One message of a range is over.
pub(crate) fn over_of(endpoint: &Endpoint, id: u64, end: End, of: u64) -> OutboxUpdate {
    let error = (end != End::Delivered).then_some("no such agent");
    let change = OutboxChange::Over { end, attempt: attempt(NOW.plus(7), error), of: Some(of) };
    OutboxUpdate { endpoint: endpoint.clone(), id, epoch: 0, change }
}

fn done(endpoint: &Endpoint, id: u64, at: Option<Timestamp>, rejected: bool) -> OutboxUpdate {
    match at {
        Some(at) => over(endpoint, id, if rejected { End::Rejected } else { End::Delivered }, at),
        None => OutboxUpdate { endpoint: endpoint.clone(), id, epoch: 0, change: OutboxChange::Void },
    }
}

/// A failed attempt, the n-th of a schedule that began at this time.
pub(crate) fn retry(
    endpoint: &Endpoint,
    id: u64,
    attempts: u32,
    first_attempt_at: Timestamp,
    due_at: Timestamp,
) -> OutboxUpdate {
    let attempt = attempt(first_attempt_at.plus(40), Some("503"));
    let change = OutboxChange::Retry { attempts, first_attempt_at, due_at, attempt, of: None };
    OutboxUpdate { endpoint: endpoint.clone(), id, epoch: 0, change }
}

/// A failed attempt at one message of a range, the first.
pub(crate) fn retry_of(endpoint: &Endpoint, id: u64, of: u64) -> OutboxUpdate {
    let attempt = attempt(NOW.plus(40), Some("503"));
    let (attempts, first_attempt_at, due_at) = (1, NOW, NOW);
    let change = OutboxChange::Retry { attempts, first_attempt_at, due_at, attempt, of: Some(of) };
    OutboxUpdate { endpoint: endpoint.clone(), id, epoch: 0, change }
}

/// In the order of their creation: those of a strand in the order of their ids.
pub(crate) fn by_creation(mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
    deliveries.sort_by_key(|delivery| delivery.created_at);
    deliveries
}

/// The endpoints that something waits for.
pub(crate) async fn backlog(store: &dyn Store) -> Vec<Endpoint> {
    let all = store.endpoints().await.unwrap();
    all.into_iter().filter(|(_, status)| status.pending > 0).map(|(endpoint, _)| endpoint).collect()
}

pub(crate) async fn deliveries_wait_in_commit_order(place: &impl Place) {
    let store = place.open().await;
    let (one, two) = (hook("one"), hook("two"));
    let users = [open_thread(&*store, 1, "walter").await, open_thread(&*store, 1, "skyler").await];
    assert_eq!(store.endpoint_status(&one).await, Ok(EndpointStatus::default()));
    let mut webhook_ids = Vec::new();
    for n in 0..6 {
        let commit = next_step(&*store, &users[n % 2], 2).await;
        let last = commit.thread.sequence();
        let mut outbox = vec![delivery(&one, last - 1), delivery(&two, last - 1), delivery(&one, last)];
        outbox[2].answers_handoff = Some(9);
        webhook_ids.extend([outbox[0].webhook_id.clone(), outbox[2].webhook_id.clone()]);
        applied(&*store, Commit { outbox, now: NOW.plus(n as u64), ..commit }).await;
    }
    let waiting = by_creation(pending(&*store, &one, 0, 100).await);
    assert_eq!(waiting.iter().map(|d| d.webhook_id.clone()).collect::<Vec<_>>(), webhook_ids);
    assert_eq!(waiting.iter().map(|d| d.sequence).collect::<Vec<_>>(), [1, 2, 1, 2, 3, 4, 3, 4, 5, 6, 5, 6]);
    let first = &waiting[0];
    assert_eq!((&first.user_id, first.what, first.answers_handoff), (&users[0], What::Entry, None));
    assert_eq!(waiting[1].answers_handoff, Some(9));
    assert_eq!((first.created_at, first.due_at, first.attempts, first.first_attempt_at), (NOW, NOW, 0, None));
    let all = ids(&waiting);
    let of_first = [all[0], all[1], all[4], all[5], all[8], all[9]];
    assert!(of_first.is_sorted_by(|a, b| a < b));
    let part = Part { strand: first.strand, after: all[1], limit: 2 };
    let page = store.outbox(&one, &[part]).await.unwrap().remove(0);
    assert!(page.len() == 2 && page.iter().all(|d| d.strand == part.strand && d.id > all[1]));
    assert_eq!(page[0].id, if waiting[2].strand == part.strand { all[2] } else { all[4] });
    let of_second = [all[2], all[3], all[6], all[7], all[10], all[11]];
    let by_id = store.outbox_by_id(&one, &of_second).await.unwrap();
    assert_eq!(ids(&by_id), of_second);
    assert!(by_id.iter().all(|delivery| delivery.user_id == users[1]));
    assert_eq!(ids(&store.outbox_by_id(&one, &[all[3], u64::MAX >> 1, all[6]]).await.unwrap()), [all[3], all[6]]);
    assert!(store.outbox_by_id(&two, &[all[3]]).await.unwrap().is_empty(), "it waits for another");
    assert_eq!(pending(&*store, &hook("three"), 0, 10).await.len(), 0);
    assert_eq!(backlog(&*store).await, [one.clone(), two.clone()]);

    let updates = vec![done(&one, all[0], Some(NOW.plus(50)), false), done(&one, all[1], None, false)];
    write_outcomes(&*store, updates.clone()).await;
    write_outcomes(&*store, updates).await;
    write_outcomes(&*store, vec![]).await;
    let status = store.endpoint_status(&one).await.unwrap();
    let expected = EndpointStatus {
        pending: 10,
        oldest: Some(NOW.plus(1)),
        dead: 0,
        last_success_at: Some(NOW.plus(50)),
        last_error: None,
    };
    assert_eq!(status, expected, "twice is once");
    let rest: Vec<_> = all[2..].iter().map(|id| done(&one, *id, Some(NOW), true)).collect();
    write_outcomes(&*store, rest).await;
    let status = store.endpoint_status(&one).await.unwrap();
    assert_eq!((status.pending, status.oldest, status.last_success_at), (0, None, Some(NOW.plus(50))));
    assert_eq!(status.last_error.as_deref(), Some("no such agent"));
    assert_eq!(backlog(&*store).await, [two]);
}

pub(crate) async fn the_sink_is_told_in_commit_order(place: &impl Place) {
    let store = place.open().await;
    let told = Arc::new(Told::default());
    store.subscribe(Arc::clone(&told) as Arc<dyn OutboxSink>);
    let endpoints = [hook("one"), hook("two")];
    let tasks = (0..16).map(|n| {
        let (store, endpoints) = (Arc::clone(&store), endpoints.clone());
        tokio::spawn(async move {
            let user_id = open_thread(&*store, 1, &format!("user {n}")).await;
            for _ in 0..10 {
                let commit = next_step(&*store, &user_id, 1).await;
                let outbox = endpoints.iter().map(|e| delivery(e, commit.thread.sequence())).collect();
                applied(&*store, Commit { outbox, ..commit }).await;
            }
        })
    });
    for task in futures_util::future::join_all(tasks).await {
        task.unwrap();
    }
    // Who has been answered is in it: the sink is told first.
    let told = told.deliveries();
    assert_eq!(told.len(), 2 * 160);
    let mut last: BTreeMap<(Endpoint, UserId), (u64, u64)> = BTreeMap::new();
    for delivery in &told {
        let entry = delivery.entry.as_ref().expect("the entry was at hand");
        assert_eq!(entry.entry.sequence, delivery.sequence);
        let of = (delivery.endpoint.clone(), delivery.user_id.clone());
        let before = last.insert(of, (delivery.id, delivery.sequence)).unwrap_or((0, 0));
        assert!(delivery.id > before.0 && delivery.sequence == before.1 + 1);
    }
    for endpoint in &endpoints {
        let waiting = pending(&*store, endpoint, 0, 1000).await;
        let mut of_endpoint = ids(&told.iter().filter(|d| d.endpoint == *endpoint).cloned().collect::<Vec<_>>());
        of_endpoint.sort_unstable();
        assert_eq!(of_endpoint, ids(&waiting));
        let thread = &waiting[0].user_id;
        let feed = store.feed(thread, 0, 1).await.unwrap();
        let first = told.iter().find(|d| d.user_id == *thread).unwrap();
        assert_eq!(first.entry.as_deref(), feed.first(), "with the id that the feed tells");
    }
}

pub(crate) async fn a_retry_survives_a_restart(place: &impl Place) {
    let store = place.open().await;
    let (one, user_id) = (hook("one"), open_thread(&*store, 1, "walter").await);
    let commit = next_step(&*store, &user_id, 1).await;
    applied(&*store, Commit { outbox: vec![delivery(&one, 1), delivery(&one, 1)], ..commit }).await;
    let before = pending(&*store, &one, 0, 10).await;
    let retry = |id| retry(&one, id, 2, NOW.plus(5), NOW.plus(600_000));
    write_outcomes(&*store, vec![retry(before[0].id), retry(before[1].id + 77)]).await;
    store.close().await;
    drop(store);
    let store = place.open().await;
    let waiting = pending(&*store, &one, 0, 10).await;
    assert_eq!(ids(&waiting), ids(&before));
    let first = &waiting[0];
    assert_eq!((first.attempts, first.first_attempt_at, first.due_at), (2, Some(NOW.plus(5)), NOW.plus(600_000)));
    assert_eq!((waiting[1].attempts, waiting[1].due_at), (0, NOW));
    assert_eq!(store.endpoint_status(&one).await.unwrap().last_error.as_deref(), Some("503"));
    assert_eq!(backlog(&*store).await, std::slice::from_ref(&one));
    let later = next_step(&*store, &user_id, 1).await;
    applied(&*store, Commit { outbox: vec![delivery(&one, 2)], ..later }).await;
    let waiting = pending(&*store, &one, 0, 10).await;
    assert!(waiting[2].id > before[1].id, "ids go on after a restart");
}

pub(crate) async fn a_range_advances(place: &impl Place) {
    let store = place.open().await;
    let (one, user_id) = (hook("one"), open_thread(&*store, 1, "walter").await);
    let commit = next_step(&*store, &user_id, 9).await;
    let range = NewDelivery { what: What::History { after: 2, through: 8 }, ..delivery(&one, 0) };
    applied(&*store, Commit { outbox: vec![range, delivery(&one, 9)], ..commit }).await;
    let waiting = pending(&*store, &one, 0, 10).await;
    let id = waiting[0].id;
    let failed = retry(&one, id, 3, NOW, NOW.plus(5));
    let advance = |id, of| over_of(&one, id, End::Delivered, of);
    write_outcomes(&*store, vec![failed, advance(id, 5), advance(id, 4)]).await;
    let now = pending(&*store, &one, 0, 10).await;
    assert_eq!(ids(&now), ids(&waiting));
    assert_eq!(now[0].what, What::History { after: 5, through: 8 }, "never back");
    assert_eq!((now[0].attempts, now[0].first_attempt_at), (0, None), "the next message has its own attempts");
    assert_eq!(now[1].what, What::Entry);
    assert_eq!(store.endpoint_status(&one).await.unwrap().last_success_at, Some(NOW.plus(7)));
}

pub(crate) async fn a_turn_is_settled_once(place: &impl Place) {
    let store = place.open().await;
    let iva = Endpoint::iva(&client("acme"));
    let user_id = open_thread(&*store, 1, "walter").await;
    let other = open_thread(&*store, 1, "skyler").await;
    let commit = next_step(&*store, &user_id, 1).await;
    let turn = NewDelivery { what: What::Turn, ..delivery(&iva, 1) };
    applied(&*store, Commit { outbox: vec![turn], ..commit }).await;
    let turn = pending(&*store, &iva, 0, 10).await[0].clone();
    let epoch = held(&*store).await[usize::from(turn.strand)].1;
    let settles = Some(Settled { endpoint: iva.clone(), id: turn.id, epoch });
    let stranger = Commit { settles: settles.clone(), ..next_step(&*store, &other, 1).await };
    assert_eq!(store.commit(stranger).await, Ok(Committed::Conflict), "another thread's turn");
    let answer = Commit { settles: settles.clone(), ..next_step(&*store, &user_id, 2).await };
    let ids = applied(&*store, answer.clone()).await;
    assert!(pending(&*store, &iva, 0, 10).await.is_empty());
    assert!(backlog(&*store).await.is_empty());
    assert_eq!(applied(&*store, answer).await, ids);
    let again = Commit { settles, ..next_step(&*store, &user_id, 1).await };
    assert_eq!(store.commit(again).await, Ok(Committed::Conflict), "it has been answered");
    let unknown = Commit {
        settles: Some(Settled { endpoint: hook("none"), id: 1, epoch }),
        ..next_step(&*store, &user_id, 1).await
    };
    assert_eq!(store.commit(unknown).await, Ok(Committed::Conflict));
    assert_eq!(store.feed(&user_id, 0, 10).await.unwrap().len(), 3);
}

pub(crate) async fn a_forgotten_endpoint_has_nothing_waiting(place: &impl Place) {
    use tract_actors::ports::DocumentWrite;
    let store = place.open().await;
    let (one, two) = (hook("one"), hook("two"));
    let user_id = open_thread(&*store, 1, "walter").await;
    let commit = next_step(&*store, &user_id, 1).await;
    applied(&*store, Commit { outbox: vec![delivery(&one, 1), delivery(&two, 1)], ..commit }).await;
    let old = pending(&*store, &one, 0, 10).await[0].id;
    let write = DocumentWrite { forget: vec![one.clone(), hook("never")], ..DocumentWrite::default() };
    assert_eq!(store.write_documents(write).await, Ok(Written::Applied));
    assert_eq!(backlog(&*store).await, std::slice::from_ref(&two));
    assert!(pending(&*store, &one, 0, 10).await.is_empty());
    assert_eq!(store.endpoint_status(&one).await, Ok(EndpointStatus::default()));
    write_outcomes(&*store, vec![done(&one, old, Some(NOW), false)]).await;
    let commit = next_step(&*store, &user_id, 1).await;
    applied(&*store, Commit { outbox: vec![delivery(&one, 2)], ..commit }).await;
    write_outcomes(&*store, vec![done(&one, old, Some(NOW), false)]).await;
    assert_eq!(pending(&*store, &one, 0, 10).await.len(), 1, "it begins anew");
    assert_eq!(store.endpoint_status(&one).await.unwrap().pending, 1);
    assert_eq!(pending(&*store, &two, 0, 10).await.len(), 1);
}
