//! What handlers work with.

use crate::security::rates::Rates;
use crate::security::signed_request::SignedRequests;
use crate::security::tokens::Tokens;
use crate::security::url::EgressRules;
use crate::tenancy::{Secret, Tenancy};
use crate::webhook::WebhookDeliverer;
use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusHandle;
use std::fmt;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::Semaphore;
use tract_actors::Couriers;
use tract_actors::ports::{Clock, Endpoint, Store, StoredThread};
use tract_actors::router::{Answer, Ask, Failure, Router};
use tract_domain::{ClientId, Timestamp, UserId};

use super::Problem;
use super::files::FileDesk;

/// Whoever answers for threads: the actors' [`Router`], or a test in its place.
#[async_trait]
pub trait Threads: Send + Sync + 'static {
    /// Asks a thread something. The command completes even if the caller stops waiting.
    async fn ask(&self, ask: Ask) -> Result<Answer, Failure>;
}

#[async_trait]
impl Threads for Router {
    async fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        Self::ask(self, ask).await
    }
}

/// Whether requests are still wanted. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on `/readyz` says no, so that nobody sends more; what comes is still served.
    pub fn drain(&self) {
        self.0.store(true, Ordering::Release);
    }
    /// Whether it is over.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Whoever knows which endpoints' breakers are open: the couriers, or a test in their place.
pub trait Breakers: Send + Sync + 'static {
    /// Whether an endpoint's breaker is open on this node.
    fn is_open(&self, endpoint: &Endpoint) -> bool;
}

impl Breakers for Couriers {
    fn is_open(&self, endpoint: &Endpoint) -> bool {
        self.breaker_is_open(endpoint)
    }
}

/// What handlers work with. Made once, by the composition root.
pub struct Edge {
    /// Answers for threads.
    pub threads: Arc<dyn Threads>,
    /// For reads, users and kept answers.
    pub store: Arc<dyn Store>,
    /// Who the tenants are.
    pub tenancy: Arc<Tenancy>,
    /// Issues and verifies the tokens of Part A.
    pub tokens: Arc<Tokens>,
    /// Judges signed requests.
    pub signed: Arc<SignedRequests>,
    /// Sends pings.
    pub deliverer: Arc<WebhookDeliverer>,
    /// Says which endpoints only get probes.
    pub breakers: Arc<dyn Breakers>,
    /// Bounds and links of files.
    pub files: FileDesk,
    /// How often each token may be used.
    pub rates: Rates,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Opens `/admin/v1`.
    pub admin_token: Secret,
    /// Which URLs may be registered.
    pub egress: EgressRules,
    /// What `/metrics` renders.
    pub metrics: PrometheusHandle,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// What this node is called.
    pub node_id: String,
    /// Places for callers that wait for the IVA's replies.
    pub waiting: Semaphore,
    /// When this process began.
    pub started_at: Timestamp,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

impl Edge {
    /// The present time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
    /// A client's thread; another client's is as unknown as none.
    pub async fn thread(&self, client: &ClientId, user_id: &UserId) -> Result<StoredThread, Problem> {
        let found = self.store.thread(user_id).await?;
        found.filter(|thread| thread.key.client == *client).ok_or_else(Problem::unknown_user)
    }
}
