//! Attempts that are under way, by strand: a lease that ends is let go once there are none.

use crate::ports::{Held, Store};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// See the module.
pub(crate) struct UnderWay {
    store: Arc<dyn Store>,
    counts: Mutex<HashMap<u16, usize>>,
}

impl UnderWay {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, counts: Mutex::default() })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<u16, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, until what this returns is dropped: once what came of the attempt is written.
    pub(crate) fn begin(self: &Arc<Self>, strand: u16) -> Attempting {
        *self.counts().entry(strand).or_default() += 1;
        Attempting { of: Arc::clone(self), strand }
    }

    /// Lets go of what is ending and has nothing under way.
    pub(crate) fn look(&self, held: &Held) {
        for (strand, lease) in held.iter().filter(|(_, lease)| lease.ending) {
            if !self.counts().contains_key(&strand) {
                self.store.let_go(strand, lease.epoch);
            }
        }
    }

    fn end(&self, strand: u16) {
        {
            let mut counts = self.counts();
            let Some(count) = counts.get_mut(&strand) else { return };
            *count -= 1;
            if *count > 0 {
                return;
            }
            counts.remove(&strand);
        }
        let lease = self.store.held().borrow().get(strand);
        if let Some(lease) = lease.filter(|lease| lease.ending) {
            self.store.let_go(strand, lease.epoch);
        }
    }
}

/// An attempt that is under way.
pub(crate) struct Attempting {
    of: Arc<UnderWay>,
    strand: u16,
}

impl Attempting {
    /// Of which strand.
    pub(crate) fn strand(&self) -> u16 {
        self.strand
    }
}

impl Drop for Attempting {
    fn drop(&mut self) {
        self.of.end(self.strand);
    }
}
