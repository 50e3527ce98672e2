//! The integration tests: one binary, a file for each resource of the contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects by panicking")]

mod bad_input;
mod chaos;
mod chat_history;
mod cli;
mod conformance;
mod control;
mod crash;
mod delivery;
mod delivery_crash;
mod demo;
mod egress;
mod endurance;
mod forged_tokens;
mod full_disk;
mod fuzz_corpus;
mod hooks;
mod lifecycle;
mod migrate;
mod mutation;
mod nodes;
mod retention;
mod secrets;
mod shell;
mod signed_requests;
mod store_contract;
mod store_embedded;
mod store_redis;
mod support;
mod tenancy_matrix;
mod tls;
mod tokens;
mod webhook_signatures;
