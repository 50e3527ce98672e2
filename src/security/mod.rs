//! What keeps strangers out, and the router from being used against its own network.

pub mod address;
pub mod egress;
pub mod tokens;
pub mod url;
