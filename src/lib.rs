//! The edge of TRACT: HTTP, stores, security, webhook and IVA clients, configuration, command line.

pub mod app;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod conformance;
pub mod demo;
pub mod hsl;
pub mod http;
pub mod iva;
pub mod json;
pub mod reading;
pub mod security;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tenancy;
pub mod webhook;
pub mod wire;
