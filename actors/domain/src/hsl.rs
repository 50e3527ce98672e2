//! HSL.
