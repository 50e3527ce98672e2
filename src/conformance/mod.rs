//! The kit for integrators: plays the router's side against somebody's webhook endpoint (sections 4 and 8), and says in
//! plain words what the endpoint handles and what it does not.
//!
//! What is sent is rendered, signed, posted and judged by the code that the router itself delivers with. The plan
//! ([`plan`]) and the judgement ([`findings`]) are pure; `runner` between them is all that does I/O.

pub mod check;
pub mod findings;
pub mod outcome;
pub mod plan;
pub mod report;
mod runner;
pub mod signing;
mod thread;

pub use check::Check;
pub use report::Report;
pub use runner::{ConformanceError, Target, run};
pub use thread::Registered;
