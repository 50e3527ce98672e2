//! The machine's clock.

use async_trait::async_trait;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tract_actors::ports::Clock;
use tract_domain::Timestamp;

/// Wall-clock time. Deadlines are stored as wall-clock times, since they outlive the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The longest single sleep: so that a clock that was set forward is noticed.
const NAP_MS: u64 = 60_000;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    async fn sleep_until(&self, at: Timestamp) {
        loop {
            let left = at.since(self.now());
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(left.min(NAP_MS))).await;
        }
    }
}
