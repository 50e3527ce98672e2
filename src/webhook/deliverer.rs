//! One attempt at a delivery, to whatever kind of endpoint it goes.

use super::signer::Signer;
use super::{outcome, payload};
use crate::channel::{self, Profile};
use crate::iva;
use crate::security::egress::{Answer, EgressClient, SendFault};
use crate::tenancy::{Client, Directory, Hook, Secrets, Tenancy};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tract_actors::ports::{
    Attempt, Attempted, Clock, Deliverer, Delivery, EndpointKind, Store, StoreError, StoredEntry, StoredThread,
    StoredUser, Tenants, ThreadKey, What,
};
use tract_domain::{BusinessId, ClientId, Fact, ReceiverId, Topic};

/// A webhook has so long to be answered (section 8). The IVA's time is the client's to set.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How much of a webhook's answer is read, in bytes: it says at most an error, or what an ECT calls a user.
const MAX_ANSWER: usize = 64 * 1024;

/// How many entries are looked at in one step when a range is expanded.
const PAGE: usize = 100;

/// Renders, signs and posts what the outbox holds.
///
/// Of an IVA's turn, `Failed` is answered only when the store could not be read and nothing was sent. Whatever the IVA
/// does ends the turn.
pub struct WebhookDeliverer {
    store: Arc<dyn Store>,
    tenancy: Arc<Tenancy>,
    clock: Arc<dyn Clock>,
    http: EgressClient,
}

/// Why there is nothing to send: what the courier is told instead.
enum Unsent {
    Void(&'static str),
    /// The configuration does not know where it goes. Another node may know already.
    Unconfigured(&'static str),
    Store(StoreError),
}

impl From<StoreError> for Unsent {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[async_trait]
impl Deliverer for WebhookDeliverer {
    async fn attempt(&self, delivery: &Delivery) -> Attempted {
        let outcome = match self.attempt_as_configured(delivery).await {
            Ok(attempted) => return attempted,
            Err(Unsent::Void(why) | Unsent::Unconfigured(why)) => Attempt::Void(why.to_owned()),
            Err(Unsent::Store(error)) => {
                tracing::warn!(endpoint = delivery.endpoint.name(), delivery = delivery.id, %error, "nothing was sent");
                // The store's own words are for the log; the delivery's record gets the class only.
                Attempt::Postponed("the store did not answer".to_owned())
            }
        };
        Attempted { outcome, status: None, of: None }
    }
}

impl WebhookDeliverer {
    /// Delivers through this client, with what this store and these tenants say.
    pub fn new(store: Arc<dyn Store>, tenancy: Arc<Tenancy>, clock: Arc<dyn Clock>, http: EgressClient) -> Self {
        Self { store, tenancy, clock, http }
    }

    /// What the configuration does not know is void only by the configuration as it is stored now: what another node has
    /// changed is taken over a moment later than its deliveries are.
    async fn attempt_as_configured(&self, delivery: &Delivery) -> Result<Attempted, Unsent> {
        let mut directory = self.tenancy.directory();
        loop {
            let attempted = self.attempt_by(&directory, delivery).await;
            if !matches!(attempted, Err(Unsent::Unconfigured(_))) || !self.store.is_shared() {
                return attempted;
            }
            Tenants::refresh(&*self.tenancy).await?;
            let refreshed = self.tenancy.directory();
            if Arc::ptr_eq(&refreshed, &directory) {
                return attempted;
            }
            directory = refreshed;
        }
    }

    async fn attempt_by(&self, directory: &Directory, delivery: &Delivery) -> Result<Attempted, Unsent> {
        match delivery.endpoint.kind() {
            EndpointKind::Hook { client, receiver, topic } => {
                self.hook(directory, delivery, &client, &receiver, topic).await
            }
            EndpointKind::Channel { client, business } => self.channel(directory, delivery, &client, business).await,
            EndpointKind::Iva { client } => self.turn(directory, delivery, &client).await,
            EndpointKind::Unknown => Err(Unsent::Void("the endpoint is of an unknown kind")),
        }
    }

    async fn hook(
        &self,
        directory: &Directory,
        delivery: &Delivery,
        client: &ClientId,
        receiver: &ReceiverId,
        topic: Topic,
    ) -> Result<Attempted, Unsent> {
        let hook = directory.hook(client, receiver, topic).ok_or(Unsent::Unconfigured("the hook is not registered"))?;
        let secrets = directory.hook_secrets(client, receiver).ok_or(Unsent::Unconfigured("the hook has no secret"))?;
        // A courier may still hold what waited for a hook of this name that was unregistered.
        if delivery.created_at < hook.registered_at {
            return Err(Unsent::Void("it is from before the hook was registered"));
        }
        match delivery.what {
            What::History { after, through } => self.history(hook, secrets, delivery, after, through).await,
            What::CreateUser => self.create_user(hook, secrets, delivery).await,
            What::Entry => {
                let stored = self.entry(delivery).await?;
                let body = payload::entry(hook, &delivery.user_id, &stored, delivery.replayed);
                let body = body.ok_or(Unsent::Void("the entry is nothing that a hook is told"))?;
                Ok(self.judged(&self.post(&hook.url, secrets, &delivery.webhook_id, body).await))
            }
            What::Channel { .. } | What::Turn => Err(Unsent::Void("not something for a hook")),
        }
    }

    /// Sends the first message of the range that this hook is to get.
    async fn history(
        &self,
        hook: &Hook,
        secrets: Secrets<'_>,
        delivery: &Delivery,
        mut after: u64,
        through: u64,
    ) -> Result<Attempted, Unsent> {
        while after < through {
            let page = self.store.feed(&delivery.user_id, after, PAGE).await?;
            let Some(last) = page.last().map(|stored| stored.entry.sequence) else { break };
            let wanted = page.iter().find(|stored| stored.entry.sequence <= through && replays(hook, stored));
            let Some(stored) = wanted else {
                after = last;
                continue;
            };
            let sequence = stored.entry.sequence;
            let body = payload::entry(hook, &delivery.user_id, stored, true);
            let body = body.ok_or(Unsent::Void("the entry is nothing that a hook is told"))?;
            let webhook_id = format!("{}-{sequence}", delivery.webhook_id);
            let attempted = self.judged(&self.post(&hook.url, secrets, &webhook_id, body).await);
            return Ok(Attempted { of: Some(sequence), ..attempted });
        }
        Err(Unsent::Void("the whole range is sent"))
    }

    async fn create_user(&self, hook: &Hook, secrets: Secrets<'_>, delivery: &Delivery) -> Result<Attempted, Unsent> {
        let key = self.thread(delivery).await?.key;
        let (_, profile) = self.user(&key).await?;
        let body = payload::create_user(&delivery.user_id, &profile);
        let body = body.ok_or(Unsent::Void("the user cannot be told"))?;
        let sent = self.post(&hook.url, secrets, &delivery.webhook_id, body).await;
        let attempted = self.judged(&sent);
        let accepted = attempted.outcome == Attempt::Accepted;
        let named = sent.ok().filter(|_| accepted).and_then(|answer| outcome::ect_user_id(&answer));
        if let Some(id) = named {
            self.store.keep_ect_user_id(&key.client, &key.auth_id, &hook.receiver, &id).await?;
        }
        Ok(attempted)
    }

    async fn channel(
        &self,
        directory: &Directory,
        delivery: &Delivery,
        client: &ClientId,
        business: BusinessId,
    ) -> Result<Attempted, Unsent> {
        let What::Channel { event } = delivery.what else {
            return Err(Unsent::Void("not something for a channel webhook"));
        };
        let client = client_of(directory, client)?;
        let business = client.businesses.iter().find(|b| b.business_id == business);
        let business = business.ok_or(Unsent::Unconfigured("the business is gone"))?;
        let webhook = business.webhook.as_ref().ok_or(Unsent::Unconfigured("the business has no webhook"))?;
        let stored = self.entry(delivery).await?;
        let (user, profile) = self.user(&self.thread(delivery).await?.key).await?;
        let setting = channel::payload::Setting {
            business_id: business.business_id,
            business_name: &business.name,
            user_id: &delivery.user_id,
            profile: &profile,
            user_details: user.as_ref().and_then(|user| user.user_details.as_ref()),
            tool_name: &|receiver| tool_name(directory, receiver),
        };
        let body = channel::payload::render(event, &stored, &setting);
        let body = body.ok_or(Unsent::Void("the entry is not one of this event"))?;
        Ok(self.judged(&self.post(&webhook.url, webhook.secrets(), &delivery.webhook_id, body).await))
    }

    async fn turn(&self, directory: &Directory, delivery: &Delivery, client: &ClientId) -> Result<Attempted, Unsent> {
        let bot =
            client_of(directory, client)?.iva.as_ref().ok_or(Unsent::Unconfigured("the client has no IVA any more"))?;
        let stored = self.entry(delivery).await?;
        if !matches!(stored.entry.fact, Fact::Message(_)) {
            return Err(Unsent::Void("the entry is not a message"));
        }
        let thread = self.thread(delivery).await?;
        if !iva::turn::belongs(&stored.entry, &thread.thread) {
            return Err(Unsent::Void("the conversation moved on"));
        }
        let (user, profile) = self.user(&thread.key).await?;
        let kept = iva::answer::Kept {
            conversation_details: thread.thread.conversation_details(self.clock.now()),
            user_details: user.as_ref().and_then(|user| user.user_details.as_ref()),
        };
        let setting = iva::turn::Setting {
            business_id: thread.key.business,
            user_id: &delivery.user_id,
            profile: &profile,
            conversation_details: kept.conversation_details,
            user_details: kept.user_details,
        };
        let body = iva::turn::render(&stored, &setting).ok_or(Unsent::Void("the entry is not a message"))?;
        let timeout = Duration::from_millis(bot.timeout_ms);
        let most = iva::answer::MAX_ANSWER;
        let sent = self.post_within(timeout, most, &bot.url, bot.secrets(), &delivery.webhook_id, body).await;
        let outcome = match &sent {
            // As after a crash.
            Err(SendFault::HeldUp) => Attempt::Postponed(SendFault::HeldUp.to_string()),
            _ => Attempt::Turn(iva::answer::judge(&sent, kept)),
        };
        Ok(Attempted { outcome, status: status_of(&sent), of: None })
    }

    async fn entry(&self, delivery: &Delivery) -> Result<Arc<StoredEntry>, Unsent> {
        if let Some(entry) = &delivery.entry {
            return Ok(Arc::clone(entry));
        }
        let before = delivery.sequence.checked_sub(1).ok_or(Unsent::Void("there is no such entry"))?;
        let mut found = self.store.feed(&delivery.user_id, before, 1).await?;
        let stored = found.pop().filter(|stored| stored.entry.sequence == delivery.sequence);
        stored.map(Arc::new).ok_or(Unsent::Void("there is no such entry"))
    }

    async fn thread(&self, delivery: &Delivery) -> Result<StoredThread, Unsent> {
        self.store.thread(&delivery.user_id).await?.ok_or(Unsent::Void("there is no such thread"))
    }

    async fn user(&self, key: &ThreadKey) -> Result<(Option<StoredUser>, Profile), StoreError> {
        let user = self.store.user(&key.client, &key.auth_id).await?;
        // A record that is missing or cannot be read holds nothing up: the id is all that a reply needs.
        let profile = user.as_ref().and_then(|user| Profile::from_json(&user.profile));
        let profile = profile.unwrap_or_else(|| Profile::new(&*key.auth_id));
        Ok((user, profile))
    }

    async fn post(
        &self,
        url: &str,
        secrets: Secrets<'_>,
        webhook_id: &str,
        body: Vec<u8>,
    ) -> Result<Answer, SendFault> {
        self.post_within(TIMEOUT, MAX_ANSWER, url, secrets, webhook_id, body).await
    }

    async fn post_within(
        &self,
        timeout: Duration,
        max_answer: usize,
        url: &str,
        secrets: Secrets<'_>,
        webhook_id: &str,
        body: Vec<u8>,
    ) -> Result<Answer, SendFault> {
        let now = self.clock.now();
        let headers = Signer::at(secrets, now).headers(webhook_id, now, &body);
        let headers = headers.map_err(|_| SendFault::Unsignable)?;
        self.http.post(url, headers, body.into(), timeout, max_answer).await
    }

    fn judged(&self, sent: &Result<Answer, SendFault>) -> Attempted {
        Attempted { outcome: outcome::judge(sent, self.clock.now()), status: status_of(sent), of: None }
    }

    /// Sends a hook a `ping` of its own now, whether the hook is enabled or not: nothing is kept of it.
    pub async fn ping(&self, hook: &Hook, secrets: Secrets<'_>) -> Pinged {
        let at = self.clock.now();
        let webhook_id = format!("ping_{}", uuid::Uuid::now_v7().simple());
        let body = payload::ping(&hook.category, hook.topic.names().1, at);
        let sent = self.post(&hook.url, secrets, &webhook_id, body).await;
        let Attempted { outcome, status, .. } = self.judged(&sent);
        let error = match outcome {
            Attempt::Accepted => None,
            Attempt::Rejected(error) => Some(error),
            Attempt::Failed { reason, .. } | Attempt::Postponed(reason) => Some(reason),
            _ => Some(format!("status {}", status.unwrap_or_default())),
        };
        Pinged { status, latency_ms: self.clock.now().since(at), error }
    }
}

/// What came of a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinged {
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub latency_ms: u64,
    /// What went wrong, or what the hook said against it; none when it was received.
    pub error: Option<String>,
}

fn status_of(sent: &Result<Answer, SendFault>) -> Option<u16> {
    sent.as_ref().ok().map(|answer| answer.status)
}

/// Whether a message of the past is one that this hook is to get: not its own, nothing from before it registered.
fn replays(hook: &Hook, stored: &StoredEntry) -> bool {
    let Fact::Message(message) = &stored.entry.fact else { return false };
    message.by.as_ref() != Some(&hook.receiver) && stored.entry.at >= hook.registered_at
}

fn client_of<'d>(directory: &'d Directory, client: &ClientId) -> Result<&'d Arc<Client>, Unsent> {
    directory.client(client).ok_or(Unsent::Unconfigured("the client is gone"))
}

/// What customers read where a tool does not name its agent.
fn tool_name(directory: &Directory, receiver: &ReceiverId) -> String {
    match directory.ect(receiver) {
        Some(ect) if !ect.name.is_empty() => ect.name.clone(),
        _ => receiver.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_domain::{Body, Entry, Message, Sender, Timestamp};

    #[test]
    fn history_is_others_messages_since_the_hook_was_registered() {
        let hook = Hook {
            client: ClientId::new("acme").unwrap(),
            receiver: ReceiverId::new("sprinkle").unwrap(),
            topic: Topic::MessageReceive,
            category: "message".to_owned(),
            url: String::new(),
            registered_at: Timestamp(100),
        };
        let stored = |by: Option<&str>, at: i64| {
            let message = Message {
                sender: Sender::Ceu,
                by: by.map(|id| ReceiverId::new(id).unwrap()),
                body: Body("{}".into()),
                metadata: None,
                agent: None,
                answers: None,
            };
            let entry = Entry {
                sequence: 1,
                conversation: 1,
                at: Timestamp(at),
                control_epoch: 1,
                active: ReceiverId::iva(),
                fact: Fact::Message(message),
            };
            StoredEntry { message_id: 1, entry }
        };
        assert!(replays(&hook, &stored(None, 100)));
        assert!(replays(&hook, &stored(Some("iva"), 101)));
        assert!(!replays(&hook, &stored(Some("iva"), 99)));
        assert!(!replays(&hook, &stored(Some("sprinkle"), 101)));
    }
}
