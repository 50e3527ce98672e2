//! The client's bot (section 9): what a turn asks it, and what its answer means.

pub mod answer;
pub(crate) mod turn;
