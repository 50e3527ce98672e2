//! Turns at what there is little of, so that nobody takes all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many turns at once, and of these only so many for each key: whoever wants more waits behind its own, while the
/// others go on.
#[derive(Debug)]
pub(super) struct Shares {
    all: Arc<Semaphore>,
    each: usize,
    /// Of keys that hold turns or wait for one.
    keys: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A turn; dropping it ends it.
#[derive(Debug)]
pub(super) struct Turn {
    _of_key: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Shares {
    pub(super) fn new(all: usize, each: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), each, keys: Mutex::default() }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self, key: &str) -> Turn {
        // In this order: who waits for its own share must not hold one of all.
        let of_key = self.of(key).acquire_owned().await.ok();
        Turn { _of_key: of_key, _of_all: Arc::clone(&self.all).acquire_owned().await.ok() }
    }

    fn of(&self, key: &str) -> Arc<Semaphore> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = keys.get(key).and_then(Weak::upgrade) {
            return share;
        }
        keys.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.each));
        keys.insert(key.to_owned(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn nobody_takes_more_than_its_share() {
        let shares = Shares::new(3, 2);
        let mut held = vec![shares.turn("greedy").await, shares.turn("greedy").await];
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(shares.turn("greedy"))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        let other = shares.turn("other").now_or_never().expect("there is one left for others");
        assert!(shares.turn("third").now_or_never().is_none(), "there are three in all");
        drop(other);
        assert!(shares.turn("third").now_or_never().is_some());
        held.pop();
        assert!(waiting[0].as_mut().now_or_never().is_some(), "it goes on with its own");
    }

    #[tokio::test]
    async fn who_has_no_turn_is_forgotten() {
        let shares = Shares::new(8, 1);
        let kept = shares.turn("kept").await;
        for n in 0..100 {
            drop(shares.turn(&n.to_string()).await);
        }
        assert!(shares.keys.lock().unwrap().len() <= 2);
        assert!(shares.turn("kept").now_or_never().is_none());
        drop(kept);
        assert!(shares.turn("kept").now_or_never().is_some());
    }
}
