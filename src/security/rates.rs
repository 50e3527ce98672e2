//! How often one token may be used (`limits.requests_per_second_per_token`).

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use sha2::{Digest, Sha256};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

/// From so many tokens on, those that have been quiet long enough to be as good as new are forgotten.
const FORGET_FROM: usize = 4096;

/// What stands for a token: its hash, so that no token lies about.
pub type TokenMark = [u8; 32];

/// What stands for this token.
pub fn mark(token: &str) -> TokenMark {
    Sha256::digest(token.as_bytes()).into()
}

/// Too many requests came with one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this token was used too often; try again in {retry_after_s} s")]
pub struct TooMany {
    /// When the next one will be taken, in whole seconds, at least 1.
    pub retry_after_s: u32,
}

type Limiter<C> = RateLimiter<TokenMark, HashMapStateStore<TokenMark>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Counts requests by token. Only tokens that were found good are counted, so that strangers cannot fill the memory.
pub struct Rates<C: Clock = MonotonicClock> {
    limiter: Option<Limiter<C>>,
    clock: C,
    /// At how many tokens the quiet ones are next forgotten.
    forget_at: AtomicUsize,
}

impl<C: Clock> fmt::Debug for Rates<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rates").field("on", &self.limiter.is_some()).finish_non_exhaustive()
    }
}

impl Rates {
    /// So many requests in a second for each token, in a burst if need be; 0 is no limit.
    pub fn new(per_second: u32) -> Self {
        Self::with_clock(per_second, MonotonicClock)
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn with_clock(per_second: u32, clock: C) -> Self {
        let limiter = NonZeroU32::new(per_second)
            .map(|rate| RateLimiter::new(Quota::per_second(rate), HashMapStateStore::default(), clock.clone()));
        Self { limiter, clock, forget_at: AtomicUsize::new(FORGET_FROM) }
    }

    /// Counts a request with this token, or says when to come again. A refused one is not counted.
    pub fn check(&self, token: &str) -> Result<(), TooMany> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let counted = limiter.check_key(&mark(token)).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            TooMany { retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX).max(1) }
        });
        if limiter.len() >= self.forget_at.load(Ordering::Relaxed) {
            limiter.retain_recent();
            // Not at every request again when as many as that are really busy.
            self.forget_at.store(FORGET_FROM.max(limiter.len() * 2), Ordering::Relaxed);
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use std::time::Duration;

    #[test]
    fn each_token_has_its_own_rate() {
        let clock = FakeRelativeClock::default();
        let rates = Rates::with_clock(2, clock.clone());
        assert_eq!([rates.check("a"), rates.check("a"), rates.check("b")], [Ok(()); 3]);
        assert_eq!(rates.check("a"), Err(TooMany { retry_after_s: 1 }));
        assert_eq!(rates.check("b"), Ok(()));
        clock.advance(Duration::from_millis(500));
        assert_eq!(rates.check("a"), Ok(()));
        assert!(rates.check("a").is_err());
        clock.advance(Duration::from_secs(60));
        assert_eq!([rates.check("a"), rates.check("a")], [Ok(()); 2]);
        assert!(rates.check("a").is_err());
    }

    #[test]
    fn zero_is_no_limit() {
        let rates = Rates::new(0);
        assert!((0..10_000).all(|_| rates.check("a").is_ok()));
    }

    #[test]
    fn quiet_tokens_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let rates = Rates::with_clock(1, clock.clone());
        for n in 0..10 * FORGET_FROM {
            clock.advance(Duration::from_millis(1));
            assert_eq!(rates.check(&n.to_string()), Ok(()));
        }
        let kept = rates.limiter.as_ref().unwrap().len();
        assert!(kept <= FORGET_FROM, "{kept}");
    }
}
