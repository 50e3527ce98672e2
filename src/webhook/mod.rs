//! Delivery out of the router (section 8): what an attempt sends, how it is signed, and what its answer means.

pub mod deliverer;
mod metadata;
mod outcome;
mod payload;
pub mod signer;
mod wire_time;

pub use deliverer::WebhookDeliverer;
pub use metadata::Metadata;
pub(crate) use metadata::embedded;
pub use payload::agent_fields;
pub(crate) use payload::completion_type;
pub use signer::Signer;
pub use wire_time::iso;
