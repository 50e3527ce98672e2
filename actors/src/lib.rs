//! The shell around the domain: one actor per live conversation, registry actors that find, start, restart and passivate
//! them, couriers that drain the outbox, and a timekeeper that fires stored deadlines. It knows the world only through
//! its [`ports`], and the world knows it only through the [`router::Router`].

pub mod breaker;
pub mod conversation;
pub mod courier;
pub mod dispatch;
pub mod ports;
pub mod registry;
mod retention;
pub mod router;
pub mod schedule;
pub mod shell;
pub mod step;
pub mod timekeeper;
pub mod under_way;
mod unnamed;

pub use dispatch::Couriers;
pub use router::{Answer, Ask, Failure, Router};
pub use shell::{Shell, ShellSettings, World};
