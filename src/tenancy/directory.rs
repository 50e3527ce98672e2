//! The tenants as everyone holds them: an immutable snapshot, replaced whole on each change.

use super::model::{Client, Disabled, Ect, EndpointState, Hook, Previous, Secret, Secrets};
use super::policy::{self, Ects};
use super::secrets::sha256_hex;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use subtle::ConstantTimeEq;
use tract_actors::ports::{Document, Documents, Endpoint, EndpointKind, Standing, StoreError};
use tract_domain::{BusinessId, ClientId, Policy, ReceiverId, Timestamp, Topic};
use uuid::Uuid;

/// The endpoints that go, and those that come, with some changes.
pub(super) struct Moves {
    pub(super) lost: Vec<Endpoint>,
    pub(super) gained: Vec<Endpoint>,
}

/// All tenants at one moment.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    pub(super) revision: u64,
    /// The write that made it, where that is known.
    pub(super) write_id: Option<Uuid>,
    pub(super) ects: Ects,
    pub(super) tenants: HashMap<ClientId, Arc<Tenant>>,
    pub(super) secrets: HashMap<String, Secret>,
    /// Of those endpoints only that were disabled once.
    pub(super) states: HashMap<Endpoint, EndpointState>,
}

/// A client with all that hangs on it; what couriers and decisions ask for several times per message lies ready.
#[derive(Debug, Clone)]
pub(super) struct Tenant {
    pub(super) client: Arc<Client>,
    pub(super) hooks: HashMap<ReceiverId, Hooks>,
    pub(super) iva: Option<Endpoint>,
    pub(super) businesses: HashMap<BusinessId, Ready>,
}

/// A receiver's hooks for one client, and what they are signed with.
#[derive(Debug, Clone, Default)]
pub(super) struct Hooks {
    pub(super) by_topic: BTreeMap<Topic, (Arc<Hook>, Endpoint)>,
    pub(super) secret: Option<Secret>,
    pub(super) previous: Option<Previous>,
}

/// What is worked out for a business.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) policy: Option<Arc<Policy>>,
    pub(super) channel: Option<Endpoint>,
}

impl Directory {
    /// Whether these are the documents of this revision, and not of another history that has counted as far.
    pub(super) fn is_of(&self, revision: u64, write_id: Option<Uuid>) -> bool {
        let is_other = self.write_id.zip(write_id).is_some_and(|(own, of)| own != of);
        self.revision == revision && !is_other
    }
    /// A client; also when it is disabled.
    pub fn client(&self, id: &ClientId) -> Option<&Arc<Client>> {
        self.tenants.get(id).map(|t| &t.client)
    }
    /// An ECT; also when it is disabled.
    pub fn ect(&self, id: &ReceiverId) -> Option<&Arc<Ect>> {
        self.ects.get(id)
    }
    /// All clients, ordered by id.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = self.tenants.values().map(|t| t.client.clone()).collect();
        all.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        all
    }
    /// All ECTs, ordered by id.
    pub fn ects(&self) -> Vec<Arc<Ect>> {
        let mut all: Vec<_> = self.ects.values().cloned().collect();
        all.sort_by(|a, b| a.ect_id.cmp(&b.ect_id));
        all
    }
    /// Whether this receiver may act for this client now: both exist and are enabled, and the client has enabled it.
    pub fn is_receiver(&self, client: &ClientId, receiver: &ReceiverId) -> bool {
        let client = self.client(client).filter(|c| c.enabled);
        client.is_some_and(|c| policy::is_enabled(c, &self.ects, receiver))
    }
    /// A receiver's hooks for a client, in the contract's order of topics.
    pub fn hooks_of(&self, client: &ClientId, receiver: &ReceiverId) -> Vec<Arc<Hook>> {
        let hooks = self.hooks(client, receiver);
        hooks.map(|h| h.by_topic.values().map(|(hook, _)| hook.clone()).collect()).unwrap_or_default()
    }
    /// A hook.
    pub fn hook(&self, client: &ClientId, receiver: &ReceiverId, topic: Topic) -> Option<&Arc<Hook>> {
        self.hooks(client, receiver)?.by_topic.get(&topic).map(|(hook, _)| hook)
    }
    /// What a receiver's hooks for a client are signed with.
    pub fn hook_secret(&self, client: &ClientId, receiver: &ReceiverId) -> Option<&Secret> {
        self.hooks(client, receiver)?.secret.as_ref()
    }
    /// What a receiver's hooks for a client are signed with, and were before.
    pub fn hook_secrets(&self, client: &ClientId, receiver: &ReceiverId) -> Option<Secrets<'_>> {
        let hooks = self.hooks(client, receiver)?;
        hooks.secret.as_ref().map(|current| Secrets { current, previous: hooks.previous.as_ref() })
    }
    /// Whether an endpoint is sent to; of one that there is not, that it is.
    pub fn standing(&self, endpoint: &Endpoint) -> Standing {
        match self.states.get(endpoint) {
            None => Standing::Enabled { since: Timestamp(0) },
            Some(EndpointState::Since(since)) => Standing::Enabled { since: *since },
            Some(EndpointState::Disabled(disabled)) => Standing::Disabled { at: disabled.at },
        }
    }
    /// When and why an endpoint was disabled, if it is.
    pub fn disabled(&self, endpoint: &Endpoint) -> Option<&Disabled> {
        match self.states.get(endpoint)? {
            EndpointState::Disabled(disabled) => Some(disabled),
            EndpointState::Since(_) => None,
        }
    }
    /// Whether there is such an endpoint.
    pub fn has_endpoint(&self, endpoint: &Endpoint) -> bool {
        match endpoint.kind() {
            EndpointKind::Hook { client, receiver, topic } => self.hook(&client, &receiver, topic).is_some(),
            EndpointKind::Channel { client, business } => {
                self.client(&client).and_then(|c| c.business(business)).is_some_and(|b| b.webhook.is_some())
            }
            EndpointKind::Iva { client } => self.client(&client).is_some_and(|c| c.iva.is_some()),
            EndpointKind::Unknown => false,
        }
    }
    /// All endpoints of a client, ordered by name.
    pub fn endpoints_of(&self, client: &ClientId) -> Vec<Endpoint> {
        let mut all = self.endpoints(client);
        all.sort();
        all
    }
    /// The client whose channel side this token belongs to (compared by SHA-256, in constant time).
    pub fn api_token_matches(&self, client: &ClientId, token: &str) -> bool {
        // Hashed first and always, so that a client that there is takes no longer than one that there is not.
        let shown = sha256_hex(token);
        let client = self.client(client).filter(|c| c.enabled);
        let kept = client.map_or("", |c| c.api_token_sha256.as_str());
        bool::from(shown.as_bytes().ct_eq(kept.as_bytes()))
    }

    pub(super) fn hooks(&self, client: &ClientId, receiver: &ReceiverId) -> Option<&Hooks> {
        self.tenants.get(client)?.hooks.get(receiver)
    }

    /// Reads the stored form.
    pub(super) fn read(documents: &Documents) -> Result<Self, StoreError> {
        let mut changes = Vec::with_capacity(documents.documents.len());
        for document in &documents.documents {
            changes.extend(Change::read(document)?);
        }
        let read = Self::default().with(documents.revision, &changes);
        Ok(Self { write_id: documents.write_id, ..read })
    }

    /// This, changed.
    pub(super) fn with(&self, revision: u64, changes: &[Change]) -> Self {
        let mut next = Self { revision, ..self.clone() };
        let mut touched = BTreeSet::new();
        for change in changes {
            touched.extend(change.touches(self));
            next.apply(change);
        }
        for id in &touched {
            next.work_out(id);
        }
        next
    }

    /// The endpoints that these changes take away from `self`.
    pub(super) fn lost(&self, next: &Self, changes: &[Change]) -> Vec<Endpoint> {
        let touched: BTreeSet<_> = changes.iter().flat_map(|c| c.touches(self)).collect();
        let all = |d: &Self| touched.iter().flat_map(|id| d.endpoints(id)).collect::<BTreeSet<_>>();
        all(self).difference(&all(next)).cloned().collect()
    }

    /// What these changes make of `self`, with the changes that go with them: an endpoint that goes takes its state along.
    /// Says which endpoints go and which come.
    pub(super) fn step(&self, mut changes: Vec<Change>) -> (Vec<Change>, Self, Moves) {
        let next = self.with(self.revision + 1, &changes);
        let lost = self.lost(&next, &changes);
        let gained = next.lost(self, &changes);
        let stale: Vec<_> =
            lost.iter().filter(|e| self.states.contains_key(*e)).cloned().map(Change::NoEndpoint).collect();
        let moves = Moves { lost, gained };
        if stale.is_empty() {
            return (changes, next, moves);
        }
        let next = next.with(next.revision, &stale);
        changes.extend(stale);
        (changes, next, moves)
    }

    fn endpoints(&self, client: &ClientId) -> Vec<Endpoint> {
        let Some(tenant) = self.tenants.get(client) else { return Vec::new() };
        let hooks = tenant.hooks.values().flat_map(|h| h.by_topic.values().map(|(_, endpoint)| endpoint));
        let channels = tenant.businesses.values().filter_map(|b| b.channel.as_ref());
        hooks.chain(channels).chain(&tenant.iva).cloned().collect()
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Ect(ect) => {
                self.ects.insert(ect.ect_id.clone(), ect.clone());
            }
            Change::NoEct(id) => {
                self.ects.remove(id);
            }
            Change::Client(client) => match self.tenants.get_mut(&client.client_id) {
                Some(tenant) => Arc::make_mut(tenant).client = client.clone(),
                None => {
                    let tenant =
                        Tenant { client: client.clone(), hooks: HashMap::new(), iva: None, businesses: HashMap::new() };
                    self.tenants.insert(client.client_id.clone(), Arc::new(tenant));
                }
            },
            Change::NoClient(id) => {
                self.tenants.remove(id);
            }
            Change::Hook(hook) => {
                if let Some(hooks) = self.hooks_mut(&hook.client, &hook.receiver) {
                    let endpoint = Endpoint::hook(&hook.client, &hook.receiver, hook.topic);
                    hooks.by_topic.insert(hook.topic, (hook.clone(), endpoint));
                }
            }
            Change::NoHook(client, receiver, topic) => {
                if let Some(hooks) = self.hooks_mut(client, receiver) {
                    hooks.by_topic.remove(topic);
                }
            }
            Change::HookSecret(kept) => {
                if let Some(hooks) = self.hooks_mut(&kept.client, &kept.receiver) {
                    hooks.secret = Some(kept.secret.clone());
                    hooks.previous.clone_from(&kept.previous);
                }
            }
            Change::NoHookSecret(client, receiver) => {
                if let Some(hooks) = self.hooks_mut(client, receiver) {
                    (hooks.secret, hooks.previous) = (None, None);
                }
            }
            Change::Secret(name, secret) => {
                self.secrets.insert(name.clone(), secret.clone());
            }
            Change::Endpoint(endpoint, state) => {
                self.states.insert(endpoint.clone(), state.clone());
            }
            Change::NoEndpoint(endpoint) => {
                self.states.remove(endpoint);
            }
        }
    }

    fn hooks_mut(&mut self, client: &ClientId, receiver: &ReceiverId) -> Option<&mut Hooks> {
        let tenant = Arc::make_mut(self.tenants.get_mut(client)?);
        Some(tenant.hooks.entry(receiver.clone()).or_default())
    }

    /// Works out policies and endpoints of a client anew.
    fn work_out(&mut self, id: &ClientId) {
        let Some(mut tenant) = self.tenants.get(id).cloned() else { return };
        let ready = Arc::make_mut(&mut tenant);
        let hooks = &ready.hooks;
        let receives = |ect: &ReceiverId| {
            let hook = hooks.get(ect).and_then(|h| h.by_topic.get(&Topic::MessageReceive));
            hook.is_some_and(|(_, endpoint)| self.disabled(endpoint).is_none())
        };
        let client = ready.client.clone();
        let business = |(number, policy): (BusinessId, Option<Arc<Policy>>)| {
            if policy.is_none() {
                tracing::warn!(client = %id, business = number, "no default receiver: this business is out of service");
            }
            let channel = client.business(number).and_then(|b| b.webhook.as_ref());
            (number, Ready { policy, channel: channel.map(|_| Endpoint::channel(id, number)) })
        };
        ready.businesses = policy::policies(&client, &self.ects, receives).into_iter().map(business).collect();
        ready.iva = client.iva.as_ref().map(|_| Endpoint::iva(id));
        self.tenants.insert(id.clone(), tenant);
    }
}

/// One change of the directory, which is one document of the store.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Ect(Arc<Ect>),
    NoEct(ReceiverId),
    Client(Arc<Client>),
    NoClient(ClientId),
    Hook(Arc<Hook>),
    NoHook(ClientId, ReceiverId, Topic),
    HookSecret(KeptHookSecret),
    NoHookSecret(ClientId, ReceiverId),
    Secret(String, Secret),
    Endpoint(Endpoint, EndpointState),
    NoEndpoint(Endpoint),
}

/// What a receiver's hooks for a client are signed with, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptHookSecret {
    pub(super) client: ClientId,
    pub(super) receiver: ReceiverId,
    pub(super) secret: Secret,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<Previous>,
}

/// A secret of the deployment, as it is stored.
#[derive(Serialize, Deserialize)]
struct KeptSecret {
    secret: Secret,
}

fn parse<'a, T: Deserialize<'a>>(document: &'a Document) -> Result<T, StoreError> {
    // The fault's own text could show a value.
    let fault = |_| StoreError::Corrupt(format!("document {} {}", document.kind, document.id));
    serde_json::from_str(&document.body).map_err(fault)
}

impl Change {
    /// Reads a document; one of a kind from a later version is passed over.
    fn read(document: &Document) -> Result<Option<Self>, StoreError> {
        Ok(Some(match document.kind.as_str() {
            "ect" => Self::Ect(parse(document)?),
            "client" => Self::Client(parse(document)?),
            "hook" => Self::Hook(parse(document)?),
            "hook_secret" => Self::HookSecret(parse(document)?),
            "secret" => Self::Secret(document.id.clone(), parse::<KeptSecret>(document)?.secret),
            "endpoint" => Self::Endpoint(Endpoint::from_name(&document.id), parse(document)?),
            _ => return Ok(None),
        }))
    }

    /// Kind and id of its document.
    pub(super) fn document_key(&self) -> (String, String) {
        let (kind, id) = match self {
            Self::Ect(ect) => ("ect", ect.ect_id.to_string()),
            Self::NoEct(id) => ("ect", id.to_string()),
            Self::Client(client) => ("client", client.client_id.to_string()),
            Self::NoClient(id) => ("client", id.to_string()),
            Self::Hook(hook) => ("hook", hook_id(&hook.client, &hook.receiver, hook.topic)),
            Self::NoHook(client, receiver, topic) => ("hook", hook_id(client, receiver, *topic)),
            Self::HookSecret(kept) => ("hook_secret", format!("{}:{}", kept.client, kept.receiver)),
            Self::NoHookSecret(client, receiver) => ("hook_secret", format!("{client}:{receiver}")),
            Self::Secret(name, _) => ("secret", name.clone()),
            Self::Endpoint(endpoint, _) | Self::NoEndpoint(endpoint) => ("endpoint", endpoint.name().to_owned()),
        };
        (kind.to_owned(), id)
    }

    /// The document to put; none when it is one to delete.
    pub(super) fn document(&self) -> Result<Option<Document>, StoreError> {
        let body = match self {
            Self::Ect(ect) => serde_json::to_string(ect),
            Self::Client(client) => serde_json::to_string(client),
            Self::Hook(hook) => serde_json::to_string(hook),
            Self::HookSecret(kept) => serde_json::to_string(kept),
            Self::Secret(_, secret) => serde_json::to_string(&KeptSecret { secret: secret.clone() }),
            Self::Endpoint(_, state) => serde_json::to_string(state),
            Self::NoEct(_) | Self::NoClient(_) | Self::NoHook(..) | Self::NoHookSecret(..) | Self::NoEndpoint(_) => {
                return Ok(None);
            }
        };
        let (kind, id) = self.document_key();
        match body {
            Ok(body) => Ok(Some(Document { kind, id, body })),
            Err(_) => Err(StoreError::Corrupt(format!("document {kind} {id}"))),
        }
    }

    /// The clients whose policies and endpoints it can alter.
    fn touches(&self, directory: &Directory) -> Vec<ClientId> {
        match self {
            Self::Client(client) => vec![client.client_id.clone()],
            Self::NoClient(client) | Self::NoHook(client, ..) | Self::NoHookSecret(client, _) => vec![client.clone()],
            Self::Hook(hook) => vec![hook.client.clone()],
            Self::HookSecret(kept) => vec![kept.client.clone()],
            Self::Ect(ect) => directory.clients_of(&ect.ect_id),
            Self::NoEct(id) => directory.clients_of(id),
            Self::Endpoint(endpoint, _) | Self::NoEndpoint(endpoint) => match endpoint.kind() {
                EndpointKind::Hook { client, .. }
                | EndpointKind::Channel { client, .. }
                | EndpointKind::Iva { client } => vec![client],
                EndpointKind::Unknown => Vec::new(),
            },
            Self::Secret(..) => Vec::new(),
        }
    }
}

impl Directory {
    /// The clients that list this ECT, ordered by id.
    pub(super) fn clients_of(&self, ect: &ReceiverId) -> Vec<ClientId> {
        let listing = self.tenants.values().filter(|t| t.client.ects.contains(ect));
        let mut ids: Vec<_> = listing.map(|t| t.client.client_id.clone()).collect();
        ids.sort();
        ids
    }
}

fn hook_id(client: &ClientId, receiver: &ReceiverId, topic: Topic) -> String {
    let (category, subcategory) = topic.names();
    format!("{client}:{receiver}:{category}:{subcategory}")
}
