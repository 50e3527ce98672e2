use super::*;
use crate::ports::Endpoint;
use tract_domain::UserId;

const CREATED: Timestamp = Timestamp(500);
const BEGUN: Timestamp = Timestamp(1_000);
const ENDED: Timestamp = Timestamp(1_040);

fn delivery(what: What) -> Delivery {
    Delivery {
        strand: 0,
        behind: 0,
        id: 7,
        endpoint: Endpoint::from_name("hook:acme:one:message:receive"),
        user_id: UserId::new("u").unwrap(),
        webhook_id: "w".to_owned(),
        what,
        sequence: 3,
        answers_handoff: None,
        created_at: CREATED,
        attempts: 0,
        first_attempt_at: None,
        due_at: CREATED,
        replayed: false,
        entry: None,
    }
}

fn record(error: Option<&str>) -> AttemptRecord {
    AttemptRecord { at: BEGUN, status: Some(500), latency_ms: 40, error: error.map(str::to_owned) }
}

fn came(outcome: Attempt, of: Option<u64>) -> Came {
    let error = match &outcome {
        Attempt::Failed { reason, .. } | Attempt::Rejected(reason) => Some(reason.clone()),
        _ => None,
    };
    Came::Back { attempted: Attempted { outcome, status: Some(500), of }, record: record(error.as_deref()) }
}

fn last(at: Option<Timestamp>) -> LastSuccess {
    LastSuccess { at, is_unsure: false }
}

fn failure() -> Attempt {
    Attempt::Failed { reason: "status 500".to_owned(), retry_after_ms: None }
}

fn changed(fate: Fate) -> Delivery {
    match fate {
        Fate::Changed(delivery) => *delivery,
        Fate::Over(_) => panic!("it is over"),
    }
}

#[test]
fn what_was_received_is_over() {
    for (outcome, end) in [(Attempt::Accepted, End::Delivered), (Attempt::Rejected("no".to_owned()), End::Rejected)] {
        let verdict = of(delivery(What::Entry), came(outcome, None), last(None), ENDED);
        assert_eq!((verdict.reached, verdict.disable), (Some(true), None));
        assert!(matches!(verdict.fate, Fate::Over(_)));
        assert!(matches!(verdict.change, Some(OutboxChange::Over { end: e, of: None, .. }) if e == end));
    }
}

#[test]
fn a_failure_is_tried_again_and_counted_from_the_attempts_begin() {
    let verdict = of(delivery(What::Entry), came(failure(), None), last(None), ENDED);
    assert_eq!((verdict.reached, verdict.disable), (Some(false), None));
    let retry = changed(verdict.fate);
    assert_eq!((retry.attempts, retry.first_attempt_at), (1, Some(BEGUN)));
    assert!(retry.due_at >= ENDED.plus(5_000));
    let told = OutboxChange::Retry {
        attempts: 1,
        first_attempt_at: BEGUN,
        due_at: retry.due_at,
        attempt: record(Some("status 500")),
        of: None,
    };
    assert_eq!(verdict.change, Some(told));
}

#[test]
fn the_last_failure_disables_an_endpoint_that_received_nothing_else() {
    let mut tried = delivery(What::Entry);
    (tried.attempts, tried.first_attempt_at) = (6, Some(Timestamp(600)));
    let verdict = of(tried.clone(), came(failure(), None), last(Some(Timestamp(599))), ENDED);
    assert_eq!(verdict.disable.as_deref(), Some("status 500, after 7 attempts"));
    assert_eq!(changed(verdict.fate).attempts, 7, "it is kept");

    let verdict = of(tried, came(failure(), None), last(Some(Timestamp(601))), ENDED);
    assert_eq!(verdict.disable, None);
    assert!(matches!(verdict.fate, Fate::Over(_)), "it alone is given up");
    assert!(matches!(verdict.change, Some(OutboxChange::Over { end: End::Dead, .. })));
}

#[test]
fn the_last_failure_disables_nobody_while_the_store_does_not_say_who_received_what() {
    let mut tried = delivery(What::Entry);
    (tried.attempts, tried.first_attempt_at) = (6, Some(Timestamp(600)));
    let unsure = |at| LastSuccess { at, is_unsure: true };
    let verdict = of(tried.clone(), came(failure(), None), unsure(None), ENDED);
    assert_eq!((verdict.reached, verdict.disable), (Some(false), None), "the breaker counts it");
    assert!(matches!(verdict.change, Some(OutboxChange::Retry { attempts: 7, .. })), "it was an attempt");
    let retry = changed(verdict.fate);
    assert!(retry.due_at >= ENDED.plus(1_410_000), "not sooner than the schedule's last wait");

    let verdict = of(tried, came(failure(), None), unsure(Some(Timestamp(601))), ENDED);
    assert!(matches!(verdict.change, Some(OutboxChange::Over { end: End::Dead, .. })), "what is known is enough");
}

#[test]
fn gone_disables_at_once() {
    let verdict = of(delivery(What::Entry), came(Attempt::Gone, None), last(Some(ENDED)), ENDED);
    assert!(verdict.disable.is_some());
    assert_eq!(changed(verdict.fate).attempts, 1);
}

#[test]
fn a_range_goes_on_after_each_message_with_a_schedule_of_its_own() {
    let mut range = delivery(What::History { after: 2, through: 9 });
    (range.attempts, range.first_attempt_at) = (6, Some(Timestamp(600)));
    for (outcome, success) in [(Attempt::Accepted, None), (failure(), Some(ENDED))] {
        let verdict = of(range.clone(), came(outcome, Some(4)), last(success), ENDED);
        assert!(matches!(verdict.change, Some(OutboxChange::Over { of: Some(4), .. })));
        let rest = changed(verdict.fate);
        assert_eq!(rest.what, What::History { after: 4, through: 9 });
        assert_eq!((rest.attempts, rest.first_attempt_at), (0, None));
    }
}

#[test]
fn what_was_no_attempt_counts_as_none() {
    for came in [came(Attempt::Postponed("the store".to_owned()), None), Came::Died] {
        let verdict = of(delivery(What::Entry), came, last(None), ENDED);
        assert_eq!((verdict.reached, verdict.change, verdict.disable), (None, None, None));
        let same = changed(verdict.fate);
        assert_eq!((same.attempts, same.due_at), (0, ENDED.plus(PAUSE_MS)));
    }
    let verdict = of(delivery(What::Entry), came(Attempt::Void("gone".to_owned()), None), last(None), ENDED);
    assert_eq!((verdict.reached, verdict.change), (None, Some(OutboxChange::Void)));
}
