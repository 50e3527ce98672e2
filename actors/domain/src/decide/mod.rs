//! What each command does; one file per command.

pub(crate) mod ceu;
pub(crate) mod control;
pub(crate) mod drain;
pub(crate) mod due;
pub(crate) mod event;
pub(crate) mod feedback;
pub(crate) mod handoff;
pub(crate) mod iva;
pub(crate) mod send;
