//! The shell around the domain: one actor per live conversation, registry actors that supervise them, couriers that
//! drain the outbox, and a timekeeper that fires stored deadlines. It knows the world only through its [`ports`].

pub mod ports;
pub mod router;
