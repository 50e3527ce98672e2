//! Who acts for which threads, when several nodes share a store: couriers and timers need one owner.
//!
//! A *strand* is what one node has to itself: of the embedded store everything, of a shared store a partition. A node
//! acts for a strand under a lease with an epoch; whatever it writes under an epoch that has passed on does not count.

use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// A lease on a strand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Goes up each time that the strand changes hands.
    pub epoch: u64,
    /// It is about to be handed over: nothing new is to be begun.
    pub ending: bool,
}

/// The leases that this node has, by strand. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held(Arc<BTreeMap<u16, Lease>>);

impl Held {
    /// These.
    pub fn new(leases: BTreeMap<u16, Lease>) -> Self {
        Self(Arc::new(leases))
    }
    /// Strand 0 for ever: everything, of a store that only one node can have open.
    pub fn everything() -> Self {
        Self::new(BTreeMap::from([(0, Lease { epoch: 1, ending: false })]))
    }
    /// The lease on this strand, if there is one.
    pub fn get(&self, strand: u16) -> Option<Lease> {
        self.0.get(&strand).copied()
    }
    /// Whether something may be begun for this strand, and the epoch.
    pub fn active(&self, strand: u16) -> Option<u64> {
        self.get(strand).filter(|lease| !lease.ending).map(|lease| lease.epoch)
    }
    /// All strands for which something may be begun, with their epochs.
    pub fn all_active(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.0.iter().filter(|(_, lease)| !lease.ending).map(|(strand, lease)| (*strand, lease.epoch))
    }
    /// All leases.
    pub fn iter(&self) -> impl Iterator<Item = (u16, Lease)> + '_ {
        self.0.iter().map(|(strand, lease)| (*strand, *lease))
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A node that has the store open, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, from its settings.
    pub node_id: String,
    /// This very process.
    pub instance: String,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// How long ago it was heard of, in milliseconds.
    pub seen_ms_ago: u64,
    /// How many strands it acts for.
    pub strands: usize,
    /// It is about to stop.
    pub draining: bool,
    /// It is the one that tells this.
    pub is_this: bool,
}

/// The part of a store that says who acts for which threads. By default: this node for all, for ever.
pub trait Leases: Send + Sync + 'static {
    /// Whether other nodes may write too: then what is in memory may be out of date.
    fn is_shared(&self) -> bool {
        false
    }
    /// How many strands there are.
    fn strands(&self) -> u16 {
        1
    }
    /// The leases of this node, as they change.
    fn held(&self) -> watch::Receiver<Held> {
        watch::channel(Held::everything()).1
    }
    /// Nothing is under way any more on a strand whose lease is ending.
    fn let_go(&self, _strand: u16, _epoch: u64) {}
    /// Has all leases end, so that others take over; they are gone once [`Leases::held`] is empty.
    fn resign(&self) {}
    /// The nodes that have the store open; none, where there is only ever one.
    fn nodes(&self) -> Vec<Node> {
        Vec::new()
    }
}
