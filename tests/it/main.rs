//! The integration tests: one binary, a file for each resource of the contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects by panicking")]

mod cli;
mod control;
mod crash;
mod delivery;
mod demo;
mod egress;
mod lifecycle;
mod secrets;
mod store_contract;
mod store_embedded;
mod support;
mod tls;
mod tokens;
