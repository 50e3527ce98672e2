//! What keeps strangers out, and the router from being used against its own network.

pub mod address;
pub mod chain;
pub mod chain_url;
pub mod egress;
mod kept_chains;
mod lookups;
pub mod rates;
pub mod resolver;
mod shares;
pub mod signature;
pub mod signed_request;
pub mod tokens;
pub mod url;
mod verified;
pub mod x509;
