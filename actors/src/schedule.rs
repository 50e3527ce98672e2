//! When a failed delivery is tried again (section 8).

use tract_domain::Timestamp;

/// The waits between attempts, in milliseconds: an hour in all.
pub const WAITS_MS: [u64; 6] = [5_000, 25_000, 125_000, 625_000, 1_410_000, 1_410_000];

/// The most that a `Retry-After` can ask for, in milliseconds.
pub const RETRY_AFTER_MAX_MS: u64 = 3_600_000;

/// When to try again after so many failed attempts (at least one), the last of them at `now`.
///
/// `Retry-After` lengthens this one wait. After the last of the schedule, the last wait repeats.
pub fn next_attempt(failed: u32, now: Timestamp, retry_after_ms: Option<u64>) -> Timestamp {
    let index = usize::try_from(failed.saturating_sub(1)).unwrap_or(usize::MAX).min(WAITS_MS.len() - 1);
    let asked = retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MAX_MS);
    now.plus(WAITS_MS[index].max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_the_contracts() {
        let waits: Vec<i64> = (1..=8).map(|n| next_attempt(n, Timestamp(0), None).0 / 1000).collect();
        assert_eq!(waits, [5, 25, 125, 625, 1410, 1410, 1410, 1410]);
        assert_eq!(waits[..6].iter().sum::<i64>(), 3600);
    }

    #[test]
    fn retry_after_only_lengthens_and_has_a_bound() {
        assert_eq!(next_attempt(1, Timestamp(0), Some(1_000)), Timestamp(5_000));
        assert_eq!(next_attempt(1, Timestamp(0), Some(60_000)), Timestamp(60_000));
        assert_eq!(next_attempt(1, Timestamp(0), Some(u64::MAX)), Timestamp(3_600_000));
    }
}
