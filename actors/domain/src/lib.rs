//! The domain of TRACT: who holds *thread control* of a conversation, what may happen to it, and who must be told.
//!
//! Pure by construction: no async, no clock, no randomness, no I/O. Time, configuration and identifiers come in as
//! values; what has to happen outside comes out as [`Effect`]s. Drive it like this:
//!
//! 1. [`Thread::open`] makes a thread, or a stored one is deserialised (its stored form is its serde form).
//! 2. [`Thread::settle`] carries out what time or configuration made due; commit its [`Transition`] first.
//! 3. [`Thread::decide`] takes one [`Command`] and answers with a [`Transition`] or a [`Refusal`].
//! 4. Commit the transition (new state, entries, effects) in one atomic step, and only then act on its effects.
//! 5. [`Thread::next_deadline`] says when to call [`Thread::settle`] again.

mod change;
pub mod command;
pub mod control;
mod decide;
pub mod effect;
pub mod entry;
pub mod hsl;
pub mod ids;
pub mod lifecycle;
pub mod message;
pub mod policy;
pub mod refusal;
pub mod retention;
pub mod thread;
pub mod topic;

pub use command::{AgentEvent, Command, ControlOp, ControlRequest, IvaAnswer, Turn};
pub use control::{Cause, Handoff, Offer, Request};
pub use effect::{ChannelEvent, Effect};
pub use entry::{Agent, Completion, ControlAction, ControlChange, Entry, Event, Fact, Feedback, Message, StateChange};
pub use ids::{BusinessId, ClientId, ReceiverId, Timestamp, UserId};
pub use lifecycle::{Phase, State};
pub use message::{Body, DevicePlatform, Json, MessageType, Sender};
pub use policy::{Policy, Receiver, ReceiverKind};
pub use refusal::Refusal;
pub use retention::Past;
pub use thread::{Context, DeadlineKind, Origin, Reply, Thread, Transition};
pub use topic::{Category, Topic};
