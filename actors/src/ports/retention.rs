//! Retention: what is old leaves the store, and what is opened in its place goes on counting above it.

use super::{StoreError, ThreadKey, What, Written};
use async_trait::async_trait;
use std::sync::Arc;
use tract_domain::{Origin, Thread, Timestamp, UserId};

/// How far the clock may have been set back between two commits, in milliseconds: what is searched by time alone is
/// searched so much further.
pub const CLOCK_SLACK_MS: u64 = 60 * 60 * 1000;

/// What is still to be delivered of a thread, dead letters included: they may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owed {
    /// There is something, if only word of the user.
    pub any: bool,
    /// The first entry that it needs.
    pub from: Option<u64>,
}

impl Owed {
    /// There is this delivery.
    pub fn add(&mut self, what: What, sequence: u64) {
        self.any = true;
        let first = match what {
            What::History { after, .. } => after + 1,
            What::Entry | What::Channel { .. } | What::Turn => sequence,
            What::CreateUser => return,
        };
        self.from = Some(self.from.map_or(first, |from| from.min(first)));
    }
}

/// A thread that leaves the store.
#[derive(Debug, Clone)]
pub struct Leave {
    /// Which.
    pub user_id: UserId,
    /// The version that was decided on.
    pub expected_version: u64,
    /// Its state at that version: threads that are opened in its place count on from there.
    pub thread: Arc<Thread>,
}

/// The part of a store that forgets.
#[async_trait]
pub trait Retention: Send + Sync + 'static {
    /// Above what a thread with this handle must begin to count: the highest of all that left its partition.
    async fn origin(&self, user_id: &UserId) -> Result<Origin, StoreError>;
    /// What is owed of each of these threads: of what was committed at or before `before`, all; and whatever is sent
    /// again.
    async fn owed(&self, threads: &[ThreadKey], before: Timestamp) -> Result<Vec<Owed>, StoreError>;
    /// Forgets a thread's first entries up to this sequence, at most `most` in one step; returns how many. Call again
    /// until it is fewer.
    async fn trim_feed(&self, user_id: &UserId, through: u64, most: usize) -> Result<u64, StoreError>;
    /// Forgets a thread with whatever entries it has left, and its user with the user's last thread. One that is gone
    /// already is found done.
    async fn leave(&self, leave: Leave) -> Result<Written, StoreError>;
}
