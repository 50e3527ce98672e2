//! Delivery out of the router (section 8): what an attempt sends, how it is signed, and what its answer means.

pub mod deliverer;
mod metadata;
mod outcome;
mod payload;
pub mod signer;

pub use deliverer::WebhookDeliverer;
pub use metadata::Metadata;
pub(crate) use metadata::embedded;
pub use signer::Signer;
