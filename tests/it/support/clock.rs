//! Time, held by the test.

use async_trait::async_trait;
use tokio::sync::watch;
use tract_actors::ports::Clock;
use tract_domain::Timestamp;

/// A clock that stands still until it is told to move.
pub(crate) struct ManualClock(watch::Sender<Timestamp>);

impl ManualClock {
    /// Begins at the present time, so that tokens and signatures look as they do in life.
    pub(crate) fn new() -> Self {
        let now = jiff::Timestamp::now().as_millisecond();
        Self(watch::Sender::new(Timestamp(now)))
    }
    /// Moves on, and wakes whoever slept until then.
    pub(crate) fn advance(&self, ms: u64) {
        self.0.send_modify(|now| *now = now.plus(ms));
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }
    async fn sleep_until(&self, at: Timestamp) {
        // The sender is in `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|now| *now >= at).await;
    }
}
