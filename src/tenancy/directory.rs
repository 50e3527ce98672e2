//! The tenants as everyone holds them: an immutable snapshot, replaced whole on each change.

use super::declaration::{Declaration, Made};
use super::model::{Client, Ect, Hook, Secret};
use arc_swap::ArcSwap;
use std::{collections::HashMap, sync::Arc};
use tract_actors::ports::{Endpoint, IdempotencyKey, Store, StoreError, Tenants};
use tract_domain::{BusinessId, ClientId, Json, Policy, ReceiverId, Timestamp, Topic};

/// All tenants at one moment.
#[derive(Debug, Default)]
pub struct Directory {
    revision: u64,
    ects: HashMap<ReceiverId, Arc<Ect>>,
    clients: HashMap<ClientId, Arc<Client>>,
    hooks: HashMap<(ClientId, ReceiverId, Topic), Arc<Hook>>,
    secrets: HashMap<(ClientId, ReceiverId), Secret>,
    policies: HashMap<(ClientId, BusinessId), Arc<Policy>>,
}

impl Directory {
    /// A client; also when it is disabled.
    pub fn client(&self, id: &ClientId) -> Option<&Arc<Client>> {
        self.clients.get(id)
    }
    /// An ECT; also when it is disabled.
    pub fn ect(&self, id: &ReceiverId) -> Option<&Arc<Ect>> {
        self.ects.get(id)
    }
    /// All clients, ordered by id.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        Vec::new()
    }
    /// All ECTs, ordered by id.
    pub fn ects(&self) -> Vec<Arc<Ect>> {
        Vec::new()
    }
    /// Whether this receiver may act for this client now: both exist and are enabled, and the client has enabled it.
    pub fn is_receiver(&self, client: &ClientId, receiver: &ReceiverId) -> bool {
        let _ = (client, receiver);
        false
    }
    /// A receiver's hooks for a client, in the contract's order of topics.
    pub fn hooks_of(&self, client: &ClientId, receiver: &ReceiverId) -> Vec<Arc<Hook>> {
        let _ = (client, receiver);
        Vec::new()
    }
    /// A hook.
    pub fn hook(&self, client: &ClientId, receiver: &ReceiverId, topic: Topic) -> Option<&Arc<Hook>> {
        self.hooks.get(&(client.clone(), receiver.clone(), topic))
    }
    /// What a receiver's hooks for a client are signed with.
    pub fn hook_secret(&self, client: &ClientId, receiver: &ReceiverId) -> Option<&Secret> {
        self.secrets.get(&(client.clone(), receiver.clone()))
    }
    /// The client whose channel side this token belongs to (compared by SHA-256, in constant time).
    pub fn api_token_matches(&self, client: &ClientId, token: &str) -> bool {
        let _ = (client, token);
        false
    }
}

/// Why the configuration was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TenancyError {
    /// It would not be valid: one line for each fault, each naming its key, such as `client[0].default_receiver: …`.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// There is no such thing.
    #[error("no such {0}")]
    Unknown(&'static str),
    /// Threads still use it; so many.
    #[error("{0} threads still use it")]
    InUse(u64),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps the [`Directory`] and changes it.
pub struct Tenancy {
    store: Arc<dyn Store>,
    current: ArcSwap<Directory>,
    writing: tokio::sync::Mutex<()>,
}

impl Tenancy {
    /// Reads all documents.
    pub async fn load(store: Arc<dyn Store>) -> Result<Arc<Self>, TenancyError> {
        Ok(Arc::new(Self { store, current: ArcSwap::default(), writing: tokio::sync::Mutex::default() }))
    }
    /// The present tenants.
    pub fn directory(&self) -> Arc<Directory> {
        self.current.load_full()
    }
    /// Creates or updates what is declared, all or nothing; idempotent. Says what it made, in the declaration's order.
    pub async fn apply(&self, declaration: Declaration) -> Result<Vec<Made>, TenancyError> {
        let _ = (declaration, &self.store, &self.writing);
        Err(TenancyError::Unknown("apply"))
    }
    /// Registers a hook, or replaces its URL and enables it. The secret is shown when this made it. `keep` commits in the
    /// same step.
    pub async fn register_hook(
        &self,
        hook: Hook,
        keep: Option<(IdempotencyKey, fn(&Hook) -> Json)>,
    ) -> Result<(Arc<Hook>, Option<Secret>), TenancyError> {
        let _ = (hook, keep);
        Err(TenancyError::Unknown("hook"))
    }
    /// Removes a hook; what waits for it goes too. `keep` commits in the same step.
    pub async fn unregister_hook(
        &self,
        client: &ClientId,
        receiver: &ReceiverId,
        topic: Topic,
        keep: Option<(IdempotencyKey, Json)>,
    ) -> Result<(), TenancyError> {
        let _ = (client, receiver, topic, keep);
        Err(TenancyError::Unknown("hook"))
    }
    /// Removes an ECT. Refused while threads are held by it, unless forced.
    pub async fn delete_ect(&self, id: &ReceiverId, force: bool) -> Result<(), TenancyError> {
        let _ = (id, force);
        Err(TenancyError::Unknown("ect"))
    }
    /// Removes a client. Refused while it has threads, unless forced.
    pub async fn delete_client(&self, id: &ClientId, force: bool) -> Result<(), TenancyError> {
        let _ = (id, force);
        Err(TenancyError::Unknown("client"))
    }
    /// Removes a business. Refused while it has threads, unless forced.
    pub async fn delete_business(&self, client: &ClientId, id: BusinessId, force: bool) -> Result<(), TenancyError> {
        let _ = (client, id, force);
        Err(TenancyError::Unknown("business"))
    }
    /// A secret of the deployment itself, such as the JWT key: made by `make` the first time, the same ever after.
    pub async fn deployment_secret(&self, name: &str, make: fn() -> String) -> Result<Secret, TenancyError> {
        let _ = (name, make);
        Err(TenancyError::Unknown("secret"))
    }
}

impl Tenants for Tenancy {
    fn policy(&self, client: &ClientId, business: BusinessId) -> Option<Arc<Policy>> {
        self.directory().policies.get(&(client.clone(), business)).cloned()
    }
    fn hook(&self, client: &ClientId, receiver: &ReceiverId, topic: Topic) -> Option<Endpoint> {
        let directory = self.directory();
        directory.hook(client, receiver, topic).map(|_| Endpoint::hook(client, receiver, topic))
    }
    fn channel(&self, client: &ClientId, business: BusinessId) -> Option<Endpoint> {
        let _ = (client, business);
        None
    }
    fn iva(&self, client: &ClientId) -> Option<Endpoint> {
        let _ = client;
        None
    }
}
