//! The edge of TRACT: HTTP, stores, security, webhook and IVA clients, configuration, command line.

pub mod demo;
pub mod tenancy;
