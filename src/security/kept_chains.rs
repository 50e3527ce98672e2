//! Certificate chains that were fetched and found good, so that a request does not fetch its chain again.

use super::chain::Chain;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tract_domain::Timestamp;

/// How long a chain is kept, in milliseconds.
const KEEP_MS: u64 = 3_600_000;
/// Chains that are kept: with [`super::chain::MAX_CHAIN`] this bounds their memory.
const KEPT: usize = 256;
/// Of these, for one FQDN: a chat tool that uses many URLs puts out its own chains, not another's.
const KEPT_OF_FQDN: usize = 4;

/// The chains, by their URLs.
#[derive(Default)]
pub(super) struct KeptChains(Mutex<HashMap<String, Kept>>);

struct Kept {
    chain: Arc<Chain>,
    fqdn: String,
    fetched_at: Timestamp,
}

impl KeptChains {
    /// The chain from this URL, and how old it is, in milliseconds.
    pub(super) fn find(&self, url: &str, now: Timestamp) -> Option<(Arc<Chain>, u64)> {
        let chains = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = chains.get(url)?;
        let age_ms = now.0.abs_diff(kept.fetched_at.0);
        (age_ms < KEEP_MS).then(|| (Arc::clone(&kept.chain), age_ms))
    }

    /// Keeps a chain in the place of the oldest one, if there is no room.
    pub(super) fn keep(&self, url: &str, fqdn: &str, chain: Chain, now: Timestamp) {
        let mut chains = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chains.remove(url);
        let crowded = chains.values().filter(|kept| kept.fqdn == fqdn).count() >= KEPT_OF_FQDN;
        if crowded || chains.len() >= KEPT {
            let may_go = chains.iter().filter(|(_, kept)| !crowded || kept.fqdn == fqdn);
            let oldest = may_go.min_by_key(|(_, kept)| kept.fetched_at).map(|(url, _)| url.clone());
            oldest.map(|url| chains.remove(&url));
        }
        let kept = Kept { chain: Arc::new(chain), fqdn: fqdn.to_owned(), fetched_at: now };
        chains.insert(url.to_owned(), kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_puts_out_its_own_chains_only() {
        let pem = rcgen::generate_simple_self_signed(["ect.example".to_owned()]).unwrap().cert.pem();
        let chain = Chain::read(pem.as_bytes()).unwrap();
        let chains = KeptChains::default();
        chains.keep("quiet/0", "quiet", chain.clone(), Timestamp(0));
        for n in 1..1000 {
            chains.keep(&format!("busy/{n}"), "busy", chain.clone(), Timestamp(n));
        }
        let found = |url: &str| chains.find(url, Timestamp(1000)).is_some();
        assert!(found("quiet/0"));
        assert_eq!([995, 996, 999].map(|n| found(&format!("busy/{n}"))), [false, true, true]);
        // All together are bounded, too: the oldest goes.
        for n in 0..1000 {
            chains.keep(&n.to_string(), &format!("{n}.example"), chain.clone(), Timestamp(1000 + n));
        }
        assert_eq!(chains.0.lock().unwrap().len(), KEPT);
        assert!(!found("quiet/0") && found("999"));
        // The same one anew takes no other's place.
        chains.keep("999", "999.example", chain, Timestamp(3000));
        assert_eq!(chains.0.lock().unwrap().len(), KEPT);
    }
}
