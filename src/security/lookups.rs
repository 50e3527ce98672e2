//! Lookups of names, so that a name whose name server is silent does not hold up the others.
//!
//! The system's resolver cannot be interrupted: a lookup holds a thread of the runtime's blocking pool until the resolver
//! gives up, and the store needs that pool too. So there are only so many at once, few of them for one owner of names,
//! and one for each name. Whoever shares a lookup still judges what it found, and connects to just that.

use super::resolver::Lookup;
use super::shares::Shares;
use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// Lookups that may be under way at once.
const LOOKUPS: usize = 64;
/// Of these, for one owner of names: two tenants' names rarely have the same one.
const LOOKUPS_OF_OWNER: usize = 6;
/// How long anybody waits for a lookup; also how long one may wait for its turn.
const LOOKUP_TIME: Duration = Duration::from_secs(10);

/// What was found; can be handed to several.
type Found = Result<Arc<[SocketAddr]>, io::ErrorKind>;
/// A lookup under way.
type Flight = Shared<BoxFuture<'static, Found>>;
type Flights = Arc<Mutex<HashMap<String, Flight>>>;

/// Looks names up, fairly.
pub(super) struct FairLookups {
    lookup: Arc<dyn Lookup>,
    turns: Arc<Shares>,
    flights: Flights,
    time: Duration,
}

impl FairLookups {
    pub(super) fn new(lookup: Arc<dyn Lookup>) -> Self {
        let turns = Arc::new(Shares::new(LOOKUPS, LOOKUPS_OF_OWNER));
        Self { lookup, turns, flights: Flights::default(), time: LOOKUP_TIME }
    }

    /// The lookup of this name that is under way, else a new one. It goes on when nobody waits for it any more: its
    /// thread would, too.
    fn flight(&self, name: &str) -> Flight {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(name) {
            return flight.clone();
        }
        let landing = Landing { name: name.to_owned(), flights: Arc::clone(&self.flights) };
        let (lookup, turns, time) = (Arc::clone(&self.lookup), Arc::clone(&self.turns), self.time);
        let task = tokio::spawn(async move {
            let landing = landing;
            let name = landing.name.as_str();
            let _turn = timeout(time, turns.turn(owner(name))).await.map_err(|_| io::ErrorKind::TimedOut)?;
            lookup.lookup(name).await.map(Arc::from).map_err(|error| error.kind())
        });
        let flight = task.map(|ended| ended.unwrap_or(Err(io::ErrorKind::Other))).boxed().shared();
        flights.insert(name.to_owned(), flight.clone());
        flight
    }
}

#[async_trait]
impl Lookup for FairLookups {
    async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        let found = timeout(self.time, self.flight(name)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(found.to_vec())
    }
}

/// Takes a lookup off the list when it ends, however it ends.
struct Landing {
    name: String,
    flights: Flights,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// Who answers for a name, roughly: its last two labels. Whoever owns these can make names below them without end.
fn owner(name: &str) -> &str {
    let name = name.trim_end_matches('.');
    name.rmatch_indices('.').nth(1).map_or(name, |(dot, _)| &name[dot + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const FOUND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 8, 8)), 0);

    /// A resolver that gets no answer for names below `silent.example`, and counts what it is asked.
    #[derive(Default)]
    struct Silent {
        asked: Mutex<HashMap<String, usize>>,
        fails: AtomicUsize,
    }

    impl Silent {
        fn asked(&self) -> HashMap<String, usize> {
            self.asked.lock().unwrap().clone()
        }
    }

    #[async_trait]
    impl Lookup for Silent {
        async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
            *self.asked.lock().unwrap().entry(name.to_owned()).or_default() += 1;
            if name.ends_with("silent.example") {
                std::future::pending::<()>().await;
            }
            assert_ne!(name, "panics.example");
            if self.fails.fetch_add(1, Ordering::SeqCst) % 2 == 1 {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(vec![FOUND])
        }
    }

    fn fair(time: Duration) -> (Arc<Silent>, FairLookups) {
        let silent = Arc::new(Silent::default());
        let turns = Arc::new(Shares::new(LOOKUPS, LOOKUPS_OF_OWNER));
        (Arc::clone(&silent), FairLookups { lookup: silent, turns, flights: Flights::default(), time })
    }

    /// Lets everything run that can.
    async fn settle(silent: &Silent, names: usize) {
        while silent.asked().len() < names {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_name_that_is_never_answered_holds_up_no_other() {
        let (silent, lookups) = fair(LOOKUP_TIME);
        let names: Vec<_> = (0..200).map(|n| format!("{n}.silent.example")).collect();
        let mut waiting: Vec<_> = names.iter().map(|name| lookups.lookup(name)).collect();
        assert!(waiting.iter_mut().all(|found| found.now_or_never().is_none()));
        settle(&silent, LOOKUPS_OF_OWNER).await;
        assert_eq!(lookups.lookup("spoken.example").await.unwrap(), [FOUND]);
        let asked = silent.asked();
        assert_eq!(asked.keys().filter(|name| name.ends_with("silent.example")).count(), LOOKUPS_OF_OWNER);
    }

    #[tokio::test]
    async fn all_who_ask_for_a_name_share_one_lookup() {
        let (silent, lookups) = fair(LOOKUP_TIME);
        let mut waiting: Vec<_> = (0..100).map(|_| lookups.lookup("a.silent.example")).collect();
        assert!(waiting.iter_mut().all(|found| found.now_or_never().is_none()));
        settle(&silent, 1).await;
        let spoken = futures_util::future::join_all((0..100).map(|_| lookups.lookup("spoken.example"))).await;
        assert!(spoken.into_iter().all(|found| found.is_ok_and(|found| found == [FOUND])));
        let expected = ["a.silent.example", "spoken.example"].map(|name| (name.to_owned(), 1));
        assert_eq!(silent.asked(), HashMap::from(expected));
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_lookup_that_has_ended() {
        let (silent, lookups) = fair(LOOKUP_TIME);
        assert!(lookups.lookup("spoken.example").await.is_ok());
        assert_eq!(lookups.lookup("spoken.example").await.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(lookups.lookup("spoken.example").await.is_ok());
        assert_eq!(silent.asked()["spoken.example"], 3);
        for _ in 0..2 {
            assert!(lookups.lookup("panics.example").await.is_err());
        }
        assert_eq!(silent.asked()["panics.example"], 2);
        assert!(lookups.flights.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let (silent, lookups) = fair(Duration::from_millis(1));
        for _ in 0..3 {
            let error = lookups.lookup("a.silent.example").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(silent.asked()["a.silent.example"], 1, "it is still under way");
    }

    #[test]
    fn names_have_owners() {
        for (name, whose) in [
            ("localhost", "localhost"),
            ("ect.example", "ect.example"),
            ("a.b.ect.example", "ect.example"),
            ("a.ect.example.", "ect.example"),
            ("", ""),
            (".", ""),
            ("..example", ".example"),
        ] {
            assert_eq!(owner(name), whose, "{name}");
        }
    }
}
