//! Certificates that are about to expire: told in time, so that agent tools do not fall silent.

use super::{Tenancy, certificate};
use std::sync::Arc;
use tract_actors::ports::Clock;
use tract_domain::{ReceiverId, Timestamp};

/// How long before its end a certificate is told of, in milliseconds.
const AHEAD_MS: u64 = 30 * DAY_MS;
const DAY_MS: u64 = 24 * 3_600_000;

/// A certificate that ends soon, or has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring {
    /// Whose.
    pub ect: ReceiverId,
    /// Its id.
    pub uuid: String,
    /// How long it is still valid, in seconds; negative when it has expired.
    pub left_s: i64,
}

impl Tenancy {
    /// The certificates that expire within 30 days, or have expired.
    pub fn expiring(&self, now: Timestamp) -> Vec<Expiring> {
        let mut all = Vec::new();
        for ect in self.directory().ects() {
            for held in &ect.certificates {
                let Ok(facts) = certificate::facts(&held.pem) else { continue };
                if facts.not_after.0 <= now.plus(AHEAD_MS).0 {
                    let left_s = facts.not_after.0.saturating_sub(now.0).div_euclid(1000);
                    all.push(Expiring { ect: ect.ect_id.clone(), uuid: held.uuid.clone(), left_s });
                }
            }
        }
        all
    }
}

/// Logs them once a day, for ever.
pub async fn watch(tenancy: Arc<Tenancy>, clock: Arc<dyn Clock>) {
    loop {
        let now = clock.now();
        for Expiring { ect, uuid, left_s } in tenancy.expiring(now) {
            let days = left_s.div_euclid(24 * 3600);
            if left_s < 0 {
                tracing::warn!(%ect, uuid, days, "a certificate has expired");
            } else {
                tracing::warn!(%ect, uuid, days, "a certificate is about to expire");
            }
        }
        clock.sleep_until(now.plus(DAY_MS)).await;
    }
}
