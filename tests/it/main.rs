//! Integration tests: one binary, a file for each resource of the contract, everything through the public interfaces.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that panics has failed, which is what it is for; helpers fail on behalf of their test"
)]

mod control;
mod crash;
mod delivery;
mod demo;
mod lifecycle;
mod support;
