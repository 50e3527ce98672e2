//! The integration tests: one binary, a file per subject.

mod store_contract;
mod store_embedded;
