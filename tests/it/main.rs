//! The integration tests: one binary, a file for each resource of the contract.

mod demo;
