//! Who may call, and where we may call.

pub mod egress;
pub mod tokens;
