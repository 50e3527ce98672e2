//! Who is told of deliveries, and how the store stands.

use super::counts::Counts;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use tract_actors::ports::{Delivery, Endpoint, OutboxSink};

/// What sinks are told of a step.
#[derive(Default)]
pub(super) struct Told {
    /// These were committed by it, in order, in partitions that this node acts for.
    pub(super) committed: Vec<Delivery>,
    /// It committed something in these partitions for these endpoints, and which is not known.
    pub(super) missed: Vec<(u16, Vec<Endpoint>)>,
}

impl Told {
    /// Adds what another step did after this.
    pub(super) fn extend(&mut self, other: Self) {
        self.committed.extend(other.committed);
        self.missed.extend(other.missed);
    }
}

/// Everyone who is told of deliveries.
#[derive(Default)]
pub(super) struct Sinks {
    all: Mutex<Vec<Arc<dyn OutboxSink>>>,
    /// How many deliveries they were told of.
    pub(super) counts: Counts,
}

impl Sinks {
    pub(super) fn add(&self, sink: Arc<dyn OutboxSink>) {
        lock(&self.all).push(sink);
    }
    /// Tells each of them something.
    pub(super) fn each(&self, tell: impl Fn(&dyn OutboxSink)) {
        let sinks = lock(&self.all).clone();
        sinks.iter().for_each(|sink| tell(&**sink));
    }
    /// Tells what was done, in the order in which it was.
    pub(super) fn tell(&self, told: Told) {
        for delivery in &told.committed {
            self.counts.add(delivery.strand, 1);
        }
        for (strand, endpoints) in told.missed {
            self.each(|sink| sink.missed(strand, endpoints.clone()));
        }
        if told.committed.is_empty() {
            return;
        }
        let sinks = lock(&self.all).clone();
        if let Some((last, others)) = sinks.split_last() {
            others.iter().for_each(|sink| sink.enqueued(told.committed.clone()));
            last.enqueued(told.committed);
        }
    }
    /// Tells what was done when later steps may have been told of before: that there is something, not what.
    pub(super) fn tell_late(&self, told: Told) {
        let mut missed = told.missed;
        for delivery in told.committed {
            self.counts.add(delivery.strand, 1);
            match missed.iter_mut().find(|(strand, _)| *strand == delivery.strand) {
                Some((_, endpoints)) if endpoints.contains(&delivery.endpoint) => {}
                Some((_, endpoints)) => endpoints.push(delivery.endpoint),
                None => missed.push((delivery.strand, vec![delivery.endpoint])),
            }
        }
        self.tell(Told { committed: Vec::new(), missed });
    }
}

/// What the writer, its lanes and the keeper of the leases see.
#[derive(Default)]
pub(super) struct Standing {
    /// What was there is not there any more.
    emptied: AtomicBool,
    /// The store is being closed: what cannot be sent now is given up.
    closing: AtomicBool,
}

impl Standing {
    pub(super) fn is_emptied(&self) -> bool {
        self.emptied.load(Ordering::Relaxed)
    }
    /// The store is not what it was when it was opened: nothing is to be written to it.
    pub(super) fn be_emptied(&self) {
        if !self.emptied.swap(true, Ordering::Relaxed) {
            tracing::error!("the store was emptied, or is another one now: nothing is written here any more");
        }
    }
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
