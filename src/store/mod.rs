//! Where everything is durable: implementations of [`tract_actors::ports::Store`].
//!
//! One contract suite (`tests/it/store_contract`) runs on each of them.

pub mod handle;
pub mod migrate;
pub mod record;
pub mod redis;
pub mod sqlite;

pub use sqlite::{OpenError, SqliteOptions, SqliteStore};
