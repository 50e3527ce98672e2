//! Delivery out of the router (section 8): what an attempt sends, how it is signed, and what its answer means.

pub mod deliverer;
mod metadata;
mod outcome;
pub(crate) mod payload;
pub mod signer;

pub use deliverer::WebhookDeliverer;
pub use metadata::Metadata;
pub(crate) use metadata::embedded;
pub use signer::Signer;

use crate::security::egress::{Answer, SendFault};
use tract_actors::ports::Attempt;
use tract_domain::Timestamp;

/// What an answer means for a delivery, also for those who deliver without a store.
pub(crate) fn judge(sent: &Result<Answer, SendFault>, now: Timestamp) -> Attempt {
    outcome::judge(sent, now)
}
