//! When a failed delivery is tried again, and when it is given up (section 8). Pure: times come in as values.

use tract_domain::Timestamp;

/// The waits between attempts, in milliseconds: an hour in all.
pub const WAITS_MS: [u64; 6] = [5_000, 25_000, 125_000, 625_000, 1_410_000, 1_410_000];

/// A failure longer than this after the first attempt is the last, in milliseconds.
pub const SCHEDULE_MS: u64 = 3_600_000;

/// The most that a `Retry-After` can ask for, in milliseconds.
pub const RETRY_AFTER_MAX_MS: u64 = 3_600_000;

/// A wait is up to this fraction of itself longer, so that what failed together is not tried again together.
const SPREAD: u64 = 10;

/// A delivery whose attempt has failed.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    /// Which; spreads the waits.
    pub id: u64,
    /// Failed attempts, this one included.
    pub attempts: u32,
    /// When the first was made.
    pub first_attempt_at: Timestamp,
    /// When this one failed.
    pub at: Timestamp,
    /// What `Retry-After` asks for, in milliseconds; lengthens this one wait.
    pub retry_after_ms: Option<u64>,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is tried again, not before this.
    Retry(Timestamp),
    /// That was the last attempt, but others got through meanwhile: it alone is given up.
    Dead,
    /// That was the last attempt, and nothing got through meanwhile: the endpoint is disabled.
    Disable,
}

/// How long to wait after this failure; none, if it was the last one.
fn wait_after(failed: &Failed) -> Option<&'static u64> {
    let tried = usize::try_from(failed.attempts).unwrap_or(usize::MAX);
    WAITS_MS.get(tried.saturating_sub(1)).filter(|_| failed.at.since(failed.first_attempt_at) <= SCHEDULE_MS)
}

/// Whether it is not tried again: then it matters when the endpoint last received anything.
pub fn is_last(failed: &Failed) -> bool {
    wait_after(failed).is_none()
}

/// What follows a failure, by when the endpoint last received anything.
pub fn next(failed: Failed, last_success_at: Option<Timestamp>) -> Next {
    match wait_after(&failed) {
        Some(wait) => {
            let asked = failed.retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MAX_MS);
            Next::Retry(failed.at.plus((*wait).max(asked) + spread(failed, *wait)))
        }
        None if last_success_at.is_some_and(|success| success > failed.first_attempt_at) => Next::Dead,
        None => Next::Disable,
    }
}

/// When it is tried once more although that was the last attempt.
pub fn once_more(failed: Failed) -> Timestamp {
    let [.., wait] = WAITS_MS;
    failed.at.plus(wait + spread(failed, wait))
}

/// The same for the same failure, whoever asks: a restarted router does not move what is due.
fn spread(failed: Failed, wait: u64) -> u64 {
    // The finaliser of SplitMix64: neighbouring ids come out far apart.
    let mut mixed = failed.id.wrapping_add(u64::from(failed.attempts).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % (wait / SPREAD + 1)
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a test may panic")]
mod tests {
    use super::*;

    const FIRST: Timestamp = Timestamp(1_000_000);

    fn failed(attempts: u32, after_ms: u64) -> Failed {
        let at = FIRST.plus(after_ms);
        Failed { id: 7, attempts, first_attempt_at: FIRST, at, retry_after_ms: None }
    }

    fn wait(failed: Failed) -> u64 {
        match next(failed, None) {
            Next::Retry(due) => due.since(failed.at),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_schedule_is_the_contracts() {
        let mut elapsed = 0;
        for (n, base) in (1..).zip(WAITS_MS) {
            let wait = wait(failed(n, elapsed.min(SCHEDULE_MS)));
            assert!((base..=base + base / SPREAD).contains(&wait), "attempt {n}: {wait}");
            elapsed += wait;
        }
        assert_eq!(WAITS_MS.iter().sum::<u64>(), SCHEDULE_MS);
        assert_eq!(next(failed(7, SCHEDULE_MS), None), Next::Disable);
    }

    #[test]
    fn a_failure_over_an_hour_after_the_first_attempt_is_the_last() {
        assert!(matches!(next(failed(2, SCHEDULE_MS), None), Next::Retry(_)));
        assert_eq!(next(failed(2, SCHEDULE_MS + 1), None), Next::Disable);
    }

    #[test]
    fn one_poison_message_does_not_silence_an_endpoint_that_receives_others() {
        assert_eq!(next(failed(7, SCHEDULE_MS), Some(FIRST.plus(1))), Next::Dead);
        assert_eq!(next(failed(7, SCHEDULE_MS), Some(FIRST)), Next::Disable, "a success before it says nothing");
    }

    #[test]
    fn retry_after_only_lengthens_and_has_a_bound() {
        let asking = |ms| Failed { retry_after_ms: Some(ms), ..failed(1, 0) };
        let bare = wait(failed(1, 0));
        assert_eq!(wait(asking(1_000)), bare);
        assert!((60_000..=60_500).contains(&wait(asking(60_000))));
        assert!((RETRY_AFTER_MAX_MS..=RETRY_AFTER_MAX_MS + 500).contains(&wait(asking(u64::MAX))));
    }

    #[test]
    fn what_fails_together_is_spread_out_and_does_not_move_by_being_asked_again() {
        let due: Vec<u64> = (0..1000).map(|id| wait(Failed { id, ..failed(5, 0) })).collect();
        let buckets: std::collections::BTreeSet<u64> = due.iter().map(|ms| (ms - 1_410_000) / 14_100).collect();
        assert_eq!(buckets.len(), 10 + usize::from(buckets.contains(&10)), "every tenth of the spread is used");
        assert_eq!(wait(failed(3, 9)), wait(failed(3, 9)));
    }
}
