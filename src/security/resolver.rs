//! Where names lead, and whether the router may go there. What is checked here is what is connected to: there is no second
//! lookup between check and use that could give another answer.

use super::address::is_public;
use super::egress::SendFault;
use super::url::EgressRules;
use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// Finds the addresses of a name. They are not trusted.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of this name; the port is of no account.
    async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        let name = name.to_owned();
        let looked_up = tokio::task::spawn_blocking(move || (name.as_str(), 0).to_socket_addrs().map(Vec::from_iter));
        looked_up.await.map_err(io::Error::other)?
    }
}

/// Lets through only addresses that may be connected to.
pub(super) struct GuardedResolver {
    rules: EgressRules,
    lookup: Arc<dyn Lookup>,
    /// Places that need no lookup, with their ports: a test's.
    routes: HashMap<String, SocketAddr>,
}

impl GuardedResolver {
    pub(super) fn new(rules: EgressRules, lookup: Arc<dyn Lookup>, routes: HashMap<String, SocketAddr>) -> Self {
        Self { rules, lookup, routes }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        if let Some(place) = self.routes.get(name.as_str()).copied() {
            let allowed = permitted(vec![place], self.rules).map(|_| place);
            return Box::pin(async move { Ok(Box::new(std::iter::once(allowed?)) as Addrs) });
        }
        let (rules, lookup) = (self.rules, Arc::clone(&self.lookup));
        Box::pin(async move {
            let found = lookup.lookup(name.as_str()).await.map_err(|_| SendFault::Unresolvable)?;
            Ok(Box::new(permitted(found, rules)?.into_iter()) as Addrs)
        })
    }
}

fn permitted(found: Vec<SocketAddr>, rules: EgressRules) -> Result<Vec<SocketAddr>, SendFault> {
    if found.is_empty() {
        return Err(SendFault::Unresolvable);
    }
    // Only the address counts: a port or a scope that came with an answer is not the URL's.
    let bare = found.into_iter().map(|a| SocketAddr::new(a.ip(), 0));
    let allowed: Vec<_> = bare.filter(|a| rules.allow_private || is_public(a.ip())).collect();
    if allowed.is_empty() { Err(SendFault::NotPublic) } else { Ok(allowed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;
    use std::sync::Mutex;

    const STRICT: EgressRules = EgressRules { allow_private: false, allow_http: false };
    const OPEN: EgressRules = EgressRules { allow_private: true, allow_http: true };

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_that_leads_to_several_addresses_is_connected_to_at_public_ones_only() {
        let found = vec![at("127.0.0.1:0"), at("8.8.8.8:0"), at("[::1]:0"), at("[::ffff:10.0.0.1]:0")];
        assert_eq!(permitted(found, STRICT), Ok(vec![at("8.8.8.8:0")]));
        assert_eq!(permitted(vec![at("10.0.0.1:0")], STRICT), Err(SendFault::NotPublic));
        assert_eq!(permitted(vec![at("10.0.0.1:0")], OPEN), Ok(vec![at("10.0.0.1:0")]));
        assert_eq!(permitted(vec![], OPEN), Err(SendFault::Unresolvable));
        assert_eq!(permitted(vec![at("8.8.8.8:6379")], STRICT), Ok(vec![at("8.8.8.8:0")]), "the URL says the port");
    }

    /// A name server in a stranger's hand: another answer every time.
    struct Rebinding(Mutex<Vec<&'static str>>);

    #[async_trait]
    impl Lookup for Rebinding {
        async fn lookup(&self, _: &str) -> io::Result<Vec<SocketAddr>> {
            let next = self.0.lock().unwrap().pop().ok_or(io::ErrorKind::NotFound)?;
            Ok(vec![at(next)])
        }
    }

    #[tokio::test]
    async fn every_answer_is_judged_by_itself() {
        let answers = vec!["127.0.0.1:0", "8.8.8.8:0", "169.254.169.254:0", "8.8.8.8:0"];
        let resolver = GuardedResolver::new(STRICT, Arc::new(Rebinding(Mutex::new(answers))), HashMap::new());
        let mut found = Vec::new();
        for _ in 0..5 {
            let answer = resolver.resolve(Name::from_str("rebinding.example").unwrap()).await;
            found.push(answer.map(Vec::from_iter).map_err(|e| e.downcast::<SendFault>().map(|f| *f).ok()));
        }
        let (public, private) = (Ok(vec![at("8.8.8.8:0")]), Err(Some(SendFault::NotPublic)));
        assert_eq!(found[..4], [public.clone(), private.clone(), public, private]);
        assert_eq!(found[4], Err(Some(SendFault::Unresolvable)));
    }
}
