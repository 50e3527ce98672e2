//! The channel side (section 10): what is known of a customer, and what the business's channel webhook is told.

pub(crate) mod payload;
pub mod profile;

pub(crate) use payload::BOT;
pub use profile::Profile;
