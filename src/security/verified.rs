//! Tokens that were found good, so that a request does not pay for the same verification twice.

use super::rates::TokenMark;
use super::tokens::Claims;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Remembers what good tokens say, by their hash. Whether one has ended or was revoked is no business of this: both are
/// judged at every request.
///
/// Bounded: two generations, and the older one goes when the younger one is full. What is in use stays.
pub(super) struct Verified {
    half: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<TokenMark, Arc<Claims>>,
    old: HashMap<TokenMark, Arc<Claims>>,
}

impl Verified {
    /// Remembers at most `most` tokens.
    pub(super) fn new(most: usize) -> Self {
        Self { half: (most / 2).max(1), generations: Mutex::default() }
    }

    pub(super) fn find(&self, token: &TokenMark) -> Option<Arc<Claims>> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claims) = generations.young.get(token) {
            return Some(Arc::clone(claims));
        }
        let claims = generations.old.remove(token)?;
        self.put(&mut generations, *token, Arc::clone(&claims));
        Some(claims)
    }

    pub(super) fn keep(&self, token: TokenMark, claims: Arc<Claims>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(&mut generations, token, claims);
    }

    fn put(&self, generations: &mut Generations, token: TokenMark, claims: Arc<Claims>) {
        if generations.young.len() >= self.half {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(token, claims);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let generations = self.generations.lock().unwrap();
        generations.young.len() + generations.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokens::Role;
    use super::*;
    use tract_domain::{ClientId, ReceiverId};

    fn claims() -> Arc<Claims> {
        Arc::new(Claims {
            iss: String::new(),
            aud: String::new(),
            sub: ReceiverId::new("sprinkle").unwrap(),
            client_id: ClientId::new("acme").unwrap(),
            role: Role::Ect,
            iat: 0,
            exp: 0,
            jti: String::new(),
        })
    }

    fn token(n: u32) -> TokenMark {
        super::super::rates::mark(&n.to_string())
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_in_use() {
        let verified = Verified::new(100);
        verified.keep(token(0), claims());
        for n in 1..1000 {
            verified.keep(token(n), claims());
            assert!(verified.len() <= 100);
            assert!(verified.find(&token(0)).is_some(), "it was used a moment ago: {n}");
        }
        assert!(verified.find(&token(1)).is_none());
        assert!(verified.find(&token(999)).is_some());
    }
}
