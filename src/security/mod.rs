//! What keeps strangers out, and the router from being used against its own network.

pub mod address;
pub mod chain;
pub mod chain_url;
pub mod egress;
pub mod signature;
pub mod signed_request;
pub mod tokens;
pub mod url;
pub mod x509;
