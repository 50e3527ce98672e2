//! The edge of TRACT: HTTP, stores, security, webhook and IVA clients, configuration, command line.

pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod reading;
pub mod tenancy;
