//! The domain against the contract: its tables row by row, its scenarios, and its invariants over random histories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod control_operations;
mod conversation_states;
mod draining;
mod feedback;
mod handoffs;
mod iva_turns;
mod listening;
mod offers_and_requests;
mod properties;
mod retention;
mod scene;
