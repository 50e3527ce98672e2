//! The channel side: what it tells us of its users, and what we tell it.

pub mod profile;
