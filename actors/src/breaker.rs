//! The circuit breaker of one endpoint (section 8). Pure: times come in as values.

use tract_domain::Timestamp;

/// So many failures in a row open it.
pub const FAILURES: u32 = 10;

/// While it is open, one probe is let through every so many milliseconds.
pub const PROBE_EVERY_MS: u64 = 30_000;

/// Whether an endpoint may be tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    /// When the next probe may be made; none while it is closed.
    probe_at: Option<Timestamp>,
}

impl Breaker {
    /// Something got through: it closes.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
    /// An attempt failed.
    pub fn failed(&mut self, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.probe_at = Some(now.plus(PROBE_EVERY_MS));
        }
    }
    /// Whether only probes are let through.
    pub fn is_open(&self) -> bool {
        self.probe_at.is_some()
    }
    /// Whether an attempt may be made now, with so many under way. A probe is alone.
    pub fn admits(&self, now: Timestamp, under_way: usize) -> bool {
        self.probe_at.is_none_or(|at| under_way == 0 && at <= now)
    }
    /// When the next probe may be made; none while it is closed.
    pub fn probe_at(&self) -> Option<Timestamp> {
        self.probe_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(5);

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        (0..FAILURES).for_each(|_| breaker.failed(NOW));
        breaker
    }

    #[test]
    fn ten_failures_in_a_row_open_it() {
        let mut breaker = Breaker::default();
        (1..FAILURES).for_each(|_| breaker.failed(NOW));
        assert!(!breaker.is_open() && breaker.admits(NOW, 31));
        breaker.succeeded();
        (1..FAILURES).for_each(|_| breaker.failed(NOW));
        assert!(!breaker.is_open(), "not in a row");
        breaker.failed(NOW);
        assert!(breaker.is_open() && !breaker.admits(NOW, 0));
    }

    #[test]
    fn one_probe_at_a_time_is_let_through() {
        let mut breaker = open();
        assert!(!breaker.admits(NOW.plus(PROBE_EVERY_MS - 1), 0));
        let probe = NOW.plus(PROBE_EVERY_MS);
        assert!(breaker.admits(probe, 0) && !breaker.admits(probe, 1));
        breaker.failed(probe);
        assert!(!breaker.admits(probe.plus(1), 0));
        assert_eq!(breaker.probe_at(), Some(probe.plus(PROBE_EVERY_MS)));
    }

    #[test]
    fn a_success_closes_it() {
        let mut breaker = open();
        breaker.succeeded();
        assert!(breaker.admits(NOW, 31));
        assert_eq!(breaker.probe_at(), None);
    }
}
