//! What keeps strangers out, and the router from being used against its own network.

pub mod address;
pub mod egress;
pub mod rates;
pub mod resolver;
pub mod tokens;
pub mod url;
mod verified;
