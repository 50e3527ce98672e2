//! Who the tenants are: ECTs, clients with their businesses and IVA, hooks and their secrets.
//!
//! All of it is documents in the store, held in memory by everyone as one immutable [`Directory`].

pub mod declaration;
pub mod directory;
pub mod model;

pub use declaration::{Declaration, Made};
pub use directory::{Directory, Tenancy, TenancyError};
pub use model::{Business, Certificate, ChannelWebhook, Client, Ect, Hook, Iva, PassScope, ReceiveScope, Secret};
