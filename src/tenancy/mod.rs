//! Who the tenants are: ECTs, clients with their businesses and IVA, hooks and their secrets.
//!
//! All of it is documents in the store, held in memory by everyone as one immutable [`Directory`]. It changes one way
//! only: decide on the present directory, commit the documents in one step, then show the new directory.

pub mod certificate;
pub mod declaration;
pub mod directory;
pub mod expiry;
pub mod follow;
pub mod host;
pub mod keeper;
pub mod model;
mod plan;
mod policy;
pub mod secrets;

pub use declaration::{Declaration, Made};
pub use directory::Directory;
pub use keeper::{KeepMade, Tenancy, TenancyError};
pub use model::{
    Business, Certificate, ChannelWebhook, Client, Disabled, Ect, EndpointState, Hook, Iva, PassScope, Previous,
    ReceiveScope, Secret, Secrets,
};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::unimplemented, reason = "a test says what it expects by panicking")]
mod tests;
