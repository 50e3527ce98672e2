//! The edge of TRACT: HTTP, stores, security, webhook and IVA clients, configuration, command line.

//app
pub mod channel;
//cli
pub mod clock;
pub mod config;
pub mod demo;
//hsl
//http
pub mod iva;
pub mod reading;
pub mod security;
pub mod store;
//telemetry
pub mod tenancy;
pub mod webhook;
