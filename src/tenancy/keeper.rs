//! Keeps the [`Directory`], answers from it without waiting, and changes it one step at a time.

use super::{
    certificate,
    declaration::{Declaration, Made},
    directory::{Change, Directory, KeptHookSecret, Moves},
    model::{Certificate, Disabled, Ect, EndpointState, Hook, Previous, Secret},
    plan,
    secrets::make_webhook_secret,
};
use crate::{
    reading::Fault,
    security::url::{EgressRules, check_url},
};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::watch;
use tract_actors::ports::{
    DocumentWrite, Documents, Endpoint, EndpointKind, IdempotencyKey, Standing, Store, StoreError, Tenants, Written,
};
use tract_domain::{BusinessId, ClientId, Json, Policy, ReceiverId, Timestamp, Topic};

/// How often a change is decided anew when another node was faster. Changes are rare; so many in a row is a fault.
const ATTEMPTS: usize = 16;

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

impl From<Vec<Fault>> for TenancyError {
    fn from(faults: Vec<Fault>) -> Self {
        Self::Invalid(faults.iter().map(Fault::to_string).collect())
    }
}

/// A caller's idempotency key, with the body to keep for it; it commits in one step with the change (section 2).
pub type Keep = Option<(IdempotencyKey, Json)>;
/// As [`Keep`], where the body shows the hook as it came to be.
pub type KeepHook = Option<(IdempotencyKey, fn(&Hook) -> Json)>;

/// As [`Keep`], where the body tells what was made.
pub type KeepMade = Option<(IdempotencyKey, fn(&[Made]) -> Json)>;

/// As [`Keep`], where the body shows the certificate as it is held.
pub type KeepCertificate = Option<(IdempotencyKey, fn(&Certificate) -> Json)>;

/// As [`Keep`], where the body says until when the old secret signs.
pub type KeepUntil = Option<(IdempotencyKey, fn(Timestamp) -> Json)>;

/// What is to be done, and what the caller then gets.
struct Decided<T> {
    changes: Vec<Change>,
    keep: Keep,
    answer: T,
}

impl<T> Decided<T> {
    fn new(changes: Vec<Change>, answer: T) -> Self {
        Self { changes, keep: None, answer }
    }
}

/// Keeps the [`Directory`] and changes it.
pub struct Tenancy {
    store: Arc<dyn Store>,
    rules: EgressRules,
    current: ArcSwap<Directory>,
    /// The revision of `current`.
    shown: watch::Sender<u64>,
    writing: tokio::sync::Mutex<()>,
}

impl Tenancy {
    /// Reads all documents. `rules` say which URLs tenants may give.
    pub async fn load(store: Arc<dyn Store>, rules: EgressRules) -> Result<Arc<Self>, TenancyError> {
        let directory = Directory::read(&store.documents().await?)?;
        let shown = watch::Sender::new(directory.revision);
        let current = ArcSwap::from_pointee(directory);
        Ok(Arc::new(Self { store, rules, current, shown, writing: tokio::sync::Mutex::default() }))
    }
    /// The present tenants.
    pub fn directory(&self) -> Arc<Directory> {
        self.current.load_full()
    }
    /// Takes over what other nodes have changed. Says whether there was anything.
    pub async fn refresh(&self) -> Result<bool, TenancyError> {
        let (revision, write_id) = self.store.revision().await?;
        if self.current.load().is_of(revision, write_id) {
            return Ok(false);
        }
        let _one_at_a_time = self.writing.lock().await;
        let documents = self.store.documents().await?;
        if self.current.load().is_of(documents.revision, documents.write_id) {
            return Ok(false);
        }
        self.show(Directory::read(&documents)?);
        Ok(true)
    }

    fn show(&self, directory: Directory) {
        let revision = directory.revision;
        self.current.store(Arc::new(directory));
        self.shown.send_replace(revision);
    }

    /// Creates or updates what is declared, all or nothing; idempotent. Says what it made, in the declaration's order;
    /// certificates are told each time. A secret that it replaces still signs for a day.
    /// `keep` commits in the same step.
    pub async fn apply(
        &self,
        declaration: Declaration,
        now: Timestamp,
        keep: KeepMade,
    ) -> Result<Vec<Made>, TenancyError> {
        let decide = |directory: &Directory| {
            let plan = plan::plan(&declaration, directory, self.rules, now)?;
            let keep = keep.clone().map(|(key, render)| (key, render(&plan.made)));
            Ok(Decided { changes: plan.changes, keep, answer: plan.made })
        };
        self.change(decide).await
    }

    /// Registers a hook, or replaces its URL and enables it; the present time is its `registered_at`. The secret is shown
    /// when this made it. `keep` commits in the same step.
    pub async fn register_hook(&self, hook: Hook, keep: KeepHook) -> Result<(Arc<Hook>, Option<Secret>), TenancyError> {
        if let Err(fault) = check_url(&hook.url, self.rules) {
            return Err(vec![Fault::new("url", fault.to_string())].into());
        }
        let decide = |directory: &Directory| {
            if directory.client(&hook.client).is_none() {
                return Err(TenancyError::Unknown("client"));
            }
            if !directory.is_receiver(&hook.client, &hook.receiver) {
                return Err(TenancyError::Unknown("receiver"));
            }
            let before = directory.hook(&hook.client, &hook.receiver, hook.topic);
            let mut hook = hook.clone();
            let now = hook.registered_at;
            hook.registered_at = before.map_or(hook.registered_at, |h| h.registered_at);
            let hook = Arc::new(hook);
            let keep = keep.clone().map(|(key, render)| (key, render(&hook)));
            let mut changes = Vec::new();
            if before != Some(&hook) {
                changes.push(Change::Hook(hook.clone()));
            }
            let endpoint = Endpoint::hook(&hook.client, &hook.receiver, hook.topic);
            let moved = before.is_some_and(|before| before.url != hook.url);
            if moved || directory.disabled(&endpoint).is_some() {
                changes.push(Change::Endpoint(endpoint, EndpointState::Since(now)));
            }
            let mut made = None;
            if directory.hook_secret(&hook.client, &hook.receiver).is_none() {
                let secret = make_webhook_secret();
                let (client, receiver) = (hook.client.clone(), hook.receiver.clone());
                changes.push(Change::HookSecret(KeptHookSecret {
                    client,
                    receiver,
                    secret: secret.clone(),
                    previous: None,
                }));
                made = Some(secret);
            }
            Ok(Decided { changes, keep, answer: (hook, made) })
        };
        self.change(decide).await
    }
    /// Removes a hook; what waits for it goes too. `keep` commits in the same step.
    pub async fn unregister_hook(
        &self,
        client: &ClientId,
        receiver: &ReceiverId,
        topic: Topic,
        keep: Keep,
    ) -> Result<(), TenancyError> {
        let decide = |directory: &Directory| match directory.hook(client, receiver, topic) {
            None => Err(TenancyError::Unknown("hook")),
            Some(_) => {
                let changes = vec![Change::NoHook(client.clone(), receiver.clone(), topic)];
                Ok(Decided { changes, keep: keep.clone(), answer: () })
            }
        };
        self.change(decide).await
    }

    /// Replaces what a receiver's hooks for a client are signed with; the old secret signs too, until its time that is
    /// answered. One that was replaced before does so no longer. `keep` commits in the same step.
    pub async fn rotate_hook_secret(
        &self,
        client: &ClientId,
        receiver: &ReceiverId,
        now: Timestamp,
        keep: KeepUntil,
    ) -> Result<(Secret, Timestamp), TenancyError> {
        // Made once: when the outcome of a write is unknown and it is found to be done, this is what was written.
        let secret = make_webhook_secret();
        let decide = |directory: &Directory| {
            let old = directory.hook_secret(client, receiver).ok_or(TenancyError::Unknown("hook"))?;
            let previous = Previous::from(old.clone(), now);
            let until = previous.until;
            let keep = keep.clone().map(|(key, render)| (key, render(until)));
            let kept = KeptHookSecret {
                client: client.clone(),
                receiver: receiver.clone(),
                secret: secret.clone(),
                previous: Some(previous),
            };
            Ok(Decided { changes: vec![Change::HookSecret(kept)], keep, answer: (secret.clone(), until) })
        };
        self.change(decide).await
    }

    /// Enables an endpoint; one that is enabled stays as it is. `keep` commits in the same step.
    pub async fn enable(&self, endpoint: &Endpoint, now: Timestamp, keep: Keep) -> Result<(), TenancyError> {
        let decide = |directory: &Directory| {
            if !directory.has_endpoint(endpoint) {
                let hook = matches!(endpoint.kind(), EndpointKind::Hook { .. });
                return Err(TenancyError::Unknown(if hook { "hook" } else { "webhook" }));
            }
            let disabled = directory.disabled(endpoint).is_some();
            let since = || Change::Endpoint(endpoint.clone(), EndpointState::Since(now));
            Ok(Decided { changes: disabled.then(since).into_iter().collect(), keep: keep.clone(), answer: disabled })
        };
        if self.change(decide).await? {
            tracing::info!(?endpoint, "an endpoint is enabled");
        }
        Ok(())
    }

    /// Removes an ECT, its hooks and secrets, and itself from all clients. Refused while threads are held by it, unless
    /// forced; refused anyway when it leaves a client without a default receiver.
    pub async fn delete_ect(&self, id: &ReceiverId, force: bool) -> Result<(), TenancyError> {
        let there = |d: &Directory| d.ect(id).map(|_| ()).ok_or(TenancyError::Unknown("ECT"));
        there(&self.current.load())?;
        self.unused(None, None, Some(id), force).await?;
        let decide = |directory: &Directory| {
            there(directory)?;
            Ok(Decided::new(plan::delete_ect(id, directory)?, ()))
        };
        self.change(decide).await
    }
    /// Has an ECT hold a certificate; one that it holds already keeps its id. `keep` commits in the same step.
    pub async fn add_certificate(
        &self,
        ect: &ReceiverId,
        parsed: &certificate::Parsed,
        keep: KeepCertificate,
    ) -> Result<Certificate, TenancyError> {
        let decide = |directory: &Directory| {
            let ect = directory.ect(ect).ok_or(TenancyError::Unknown("ECT"))?;
            let kept = |held: &Certificate| keep.clone().map(|(key, render)| (key, render(held)));
            if let Some(held) = ect.certificates.iter().find(|held| held.fingerprint == parsed.fingerprint) {
                return Ok(Decided { changes: Vec::new(), keep: kept(held), answer: held.clone() });
            }
            let new = plan::hold(parsed);
            let mut ect = Ect::clone(ect);
            ect.certificates.push(new.clone());
            Ok(Decided { changes: vec![Change::Ect(Arc::new(ect))], keep: kept(&new), answer: new })
        };
        self.change(decide).await
    }
    /// Has an ECT hold a certificate no longer.
    pub async fn remove_certificate(&self, ect: &ReceiverId, uuid: &str) -> Result<(), TenancyError> {
        let decide = |directory: &Directory| {
            let mut ect = Ect::clone(directory.ect(ect).ok_or(TenancyError::Unknown("ECT"))?);
            let before = ect.certificates.len();
            ect.certificates.retain(|held| !held.uuid.eq_ignore_ascii_case(uuid));
            if ect.certificates.len() == before {
                return Err(TenancyError::Unknown("certificate"));
            }
            Ok(Decided::new(vec![Change::Ect(Arc::new(ect))], ()))
        };
        self.change(decide).await
    }

    /// Removes a client. Refused while it has threads, unless forced.
    pub async fn delete_client(&self, id: &ClientId, force: bool) -> Result<(), TenancyError> {
        let there = |d: &Directory| d.client(id).map(|_| ()).ok_or(TenancyError::Unknown("client"));
        there(&self.current.load())?;
        self.unused(Some(id), None, None, force).await?;
        let decide = |directory: &Directory| {
            there(directory)?;
            Ok(Decided::new(plan::delete_client(id, directory), ()))
        };
        self.change(decide).await
    }
    /// Removes a business. Refused while it has threads, unless forced.
    pub async fn delete_business(&self, client: &ClientId, id: BusinessId, force: bool) -> Result<(), TenancyError> {
        let there = |d: &Directory| {
            let client = d.client(client).ok_or(TenancyError::Unknown("client"))?;
            client.business(id).map(|_| client.clone()).ok_or(TenancyError::Unknown("business"))
        };
        there(&self.current.load())?;
        self.unused(Some(client), Some(id), None, force).await?;
        let decide =
            |directory: &Directory| Ok(Decided::new(plan::delete_business(&*there(directory)?, id, directory)?, ()));
        self.change(decide).await
    }

    /// A secret of the deployment itself, such as the JWT key: made by `make` the first time, the same ever after.
    pub async fn deployment_secret(&self, name: &str, make: fn() -> String) -> Result<Secret, TenancyError> {
        let decide = |directory: &Directory| {
            if let Some(secret) = directory.secrets.get(name) {
                return Ok(Decided::new(Vec::new(), secret.clone()));
            }
            let secret = Secret::new(make());
            Ok(Decided::new(vec![Change::Secret(name.to_owned(), secret.clone())], secret))
        };
        self.change(decide).await
    }

    async fn unused(
        &self,
        client: Option<&ClientId>,
        business: Option<BusinessId>,
        active: Option<&ReceiverId>,
        force: bool,
    ) -> Result<(), TenancyError> {
        if force {
            return Ok(());
        }
        match self.store.count_threads(client, business, active).await? {
            0 => Ok(()),
            count => Err(TenancyError::InUse(count)),
        }
    }

    /// Decides on the present directory, commits, and only then shows the new one. Decides anew when another node was
    /// faster; a write whose outcome is unknown is looked for before it is repeated, so that a secret which it made is
    /// not lost.
    async fn change<T>(
        &self,
        decide: impl Fn(&Directory) -> Result<Decided<T>, TenancyError>,
    ) -> Result<T, TenancyError> {
        let _one_at_a_time = self.writing.lock().await;
        let mut undecided = None;
        for _ in 0..ATTEMPTS {
            let current = self.current.load_full();
            let (write, next, answer) = match undecided.take() {
                Some(decided) => decided,
                None => {
                    let Decided { changes, keep, answer } = decide(&current)?;
                    if changes.is_empty() && keep.is_none() {
                        return Ok(answer);
                    }
                    let (changes, next, moves) = current.step(changes);
                    let write = write_of(&changes, &current, moves, keep)?;
                    let next = Directory { write_id: Some(write.write_id), ..next };
                    (write, next, answer)
                }
            };
            let unknown = match self.store.write_documents(write.clone()).await {
                Ok(Written::Applied) => {
                    self.show(next);
                    return Ok(answer);
                }
                Ok(Written::Conflict) => false,
                Err(StoreError::OutcomeUnknown) => true,
                Err(error) => return Err(error.into()),
            };
            let documents = match self.store.documents().await {
                Ok(documents) => documents,
                Err(_) if unknown => return Err(StoreError::OutcomeUnknown.into()),
                Err(error) => return Err(error.into()),
            };
            if current.is_of(documents.revision, documents.write_id) {
                undecided = Some((write, next, answer));
                continue;
            }
            self.show(Directory::read(&documents)?);
            if is_done(&write, &documents) {
                return Ok(answer);
            }
        }
        Err(StoreError::Unavailable("the configuration keeps being changed by others".to_owned()).into())
    }
}

fn write_of(
    changes: &[Change],
    current: &Directory,
    Moves { lost: forget, gained: welcome }: Moves,
    idempotency: Keep,
) -> Result<DocumentWrite, StoreError> {
    let (expected_revision, expected_write) = (current.revision, current.write_id);
    let mut write =
        DocumentWrite { expected_revision, expected_write, forget, welcome, idempotency, ..DocumentWrite::default() };
    for change in changes {
        match change.document()? {
            Some(document) => write.put.push(document),
            None => write.delete.push(change.document_key()),
        }
    }
    Ok(write)
}

/// A fault while what is stored was read or changed as it is.
fn of_the_store(error: TenancyError) -> StoreError {
    match error {
        TenancyError::Store(error) => error,
        error => StoreError::Corrupt(error.to_string()),
    }
}

/// Whether the store holds exactly what this write would have left.
fn is_done(write: &DocumentWrite, documents: &Documents) -> bool {
    let find = |kind: &str, id: &str| documents.documents.iter().find(|d| d.kind == kind && d.id == id);
    !(write.put.is_empty() && write.delete.is_empty())
        && write.put.iter().all(|d| find(&d.kind, &d.id) == Some(d))
        && write.delete.iter().all(|(kind, id)| find(kind, id).is_none())
}

// Asked for several times per message: no lock, nothing formatted, nothing copied but reference counts.
#[async_trait]
impl Tenants for Tenancy {
    fn policy(&self, client: &ClientId, business: BusinessId) -> Option<Arc<Policy>> {
        self.current.load().tenants.get(client)?.businesses.get(&business)?.policy.clone()
    }
    fn hook(&self, client: &ClientId, receiver: &ReceiverId, topic: Topic) -> Option<Endpoint> {
        self.current.load().hooks(client, receiver)?.by_topic.get(&topic).map(|(_, endpoint)| endpoint.clone())
    }
    fn channel(&self, client: &ClientId, business: BusinessId) -> Option<Endpoint> {
        self.current.load().tenants.get(client)?.businesses.get(&business)?.channel.clone()
    }
    fn iva(&self, client: &ClientId) -> Option<Endpoint> {
        self.current.load().tenants.get(client)?.iva.clone()
    }
    fn standing(&self, endpoint: &Endpoint) -> Standing {
        self.current.load().standing(endpoint)
    }
    async fn disable(
        &self,
        endpoint: &Endpoint,
        since: Timestamp,
        at: Timestamp,
        reason: &str,
    ) -> Result<(), StoreError> {
        // The bot is asked anew for each message, and never disabled (section 9).
        if matches!(endpoint.kind(), EndpointKind::Iva { .. }) {
            return Ok(());
        }
        let decide = |directory: &Directory| {
            let meant = directory.has_endpoint(endpoint) && directory.standing(endpoint) == Standing::Enabled { since };
            let disabled = || EndpointState::Disabled(Disabled { at, reason: reason.to_owned() });
            let changes = meant.then(|| Change::Endpoint(endpoint.clone(), disabled()));
            Ok(Decided::new(changes.into_iter().collect(), meant))
        };
        match self.change(decide).await {
            Ok(true) => tracing::warn!(?endpoint, reason, "an endpoint is disabled"),
            Ok(false) => {}
            Err(error) => return Err(of_the_store(error)),
        }
        Ok(())
    }
    async fn refresh(&self) -> Result<(), StoreError> {
        Self::refresh(self).await.map(|_| ()).map_err(of_the_store)
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.shown.subscribe()
    }
}
