//! The edge of TRACT: HTTP, stores, security, webhook and IVA clients, configuration, command line.

pub mod store;
pub mod tenancy;
