//! Several nodes on one Redis, and everything that can befall them: whatever happens, each thread's history is explained by
//! one order of its calls, and every webhook comes.
//!
//! The checker (`check`, by the `model` of the contract) is pure and has tests of its own.

mod callers;
mod check;
mod check_tests;
mod cluster;
mod deliveries;
mod desk;
mod faults;
mod gate;
mod history;
mod model;
mod paused;
mod rolling;
mod scene;
mod storm;
mod takeover;
