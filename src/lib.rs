//! The edge of TRACT: HTTP, stores, security, webhook and IVA clients, configuration, command line.

pub mod channel;
pub mod hsl;
pub mod http;
pub mod json;
pub mod security;
pub mod telemetry;
pub mod tenancy;
pub mod wire;
