//! From a declaration and what there is to what changes: merging, making ids and secrets, and every check that needs to
//! see more than one key.

use super::{
    certificate,
    declaration::{Declaration, DeclaredBusiness, DeclaredClient, DeclaredEct, Made},
    directory::{Change, Directory},
    model::{
        Business, Certificate, ChannelWebhook, Client, Ect, EndpointState, Iva, Previous, Secret, bot_break_message,
    },
    policy::{self, Ects},
    secrets::{make_token, make_webhook_secret, sha256_hex},
};
use crate::{
    reading::{Fault, Faults},
    security::url::{EgressRules, check_url},
};
use serde_json::Value;
use std::{collections::HashSet, sync::Arc};
use tract_actors::ports::Endpoint;
use tract_domain::{ClientId, ReceiverId, Timestamp};

/// What begins a client's API token that we made.
const API_TOKEN_PREFIX: &str = "tract_";

/// What applying a declaration does.
#[derive(Debug)]
pub(super) struct Plan {
    /// Only what really changes.
    pub(super) changes: Vec<Change>,
    /// In the declaration's order.
    pub(super) made: Vec<Made>,
}

impl Declaration {
    /// All that is wrong with a declaration, judged without a router: by itself, and as the first one applied to an empty
    /// store.
    pub fn check(value: &Value, rules: EgressRules) -> Vec<Fault> {
        let (declaration, mut faults) = Self::read(value);
        let bad = |list: &str| {
            let entities = faults.iter().filter(|f| f.key.starts_with(list));
            entities.filter_map(|f| f.key.split_inclusive(']').next().map(str::to_owned)).collect::<HashSet<_>>()
        };
        let (bad_ects, bad_clients) = (bad("ect["), bad("client["));
        // An ECT may be declared where it cannot be read; that a client's receivers exist is then no question.
        let hidden = |key: &str| key.ends_with(".ect_id") || !key.contains('[') || bad_ects.contains(key);
        let unsure = faults.iter().any(|f| hidden(&f.key));
        if let Err(more) = plan(&declaration, &Directory::default(), rules, Timestamp(0)) {
            // What already has a fault has stand-ins for values, about which there is nothing more to say.
            faults.extend(more.into_iter().filter(|fault| {
                let entity = fault.key.split_inclusive(']').next().unwrap_or_default();
                let about_receivers = fault.key.starts_with("client[") && !fault.key.ends_with("url");
                !(bad_ects.contains(entity) || bad_clients.contains(entity) || unsure && about_receivers)
            }));
        }
        faults
    }
}

/// Works out what applying this declaration changes, or all that is wrong with it.
pub(super) fn plan(
    declaration: &Declaration,
    directory: &Directory,
    rules: EgressRules,
    now: Timestamp,
) -> Result<Plan, Vec<Fault>> {
    let faults = Faults::default();
    let mut planner = Planner { rules, faults: &faults, now, made: Vec::new() };
    let mut changes = Vec::new();
    let mut ects = directory.ects.clone();
    let mut seen = HashSet::new();
    for (n, declared) in declaration.ects.iter().enumerate() {
        let at = format!("ect[{n}]");
        if !seen.insert(&declared.ect_id) {
            faults.add(format!("{at}.ect_id"), format!("ECT \"{}\" is declared twice", declared.ect_id));
            continue;
        }
        let before = directory.ect(&declared.ect_id);
        let ect = Arc::new(planner.ect(&at, declared, before.map(Arc::as_ref)));
        if before != Some(&ect) {
            changes.push(Change::Ect(ect.clone()));
        }
        ects.insert(ect.ect_id.clone(), ect);
    }
    let mut seen = HashSet::new();
    for (n, declared) in declaration.clients.iter().enumerate() {
        let at = format!("client[{n}]");
        if !seen.insert(&declared.client_id) {
            faults.add(format!("{at}.client_id"), format!("client \"{}\" is declared twice", declared.client_id));
            continue;
        }
        let before = directory.client(&declared.client_id);
        let client = Arc::new(planner.client(&at, declared, before.map(Arc::as_ref)));
        planner.check(&at, declared, &client, &ects);
        if before != Some(&client) {
            changes.extend(moved(before.map(Arc::as_ref), &client, now));
            changes.push(Change::Client(client));
        }
    }
    for (n, declared) in declaration.ects.iter().enumerate().filter(|(_, e)| !e.enabled) {
        let others = directory.clients_of(&declared.ect_id).into_iter().filter(|c| !seen.contains(c));
        for id in others {
            let client = directory.client(&id);
            if client.is_some_and(|c| policy::has_default(c, &directory.ects) && !policy::has_default(c, &ects)) {
                faults.add(format!("ect[{n}].enabled"), without_default(&id));
            }
        }
    }
    let made = planner.made;
    let faults = faults.into_vec();
    if faults.is_empty() { Ok(Plan { changes, made }) } else { Err(faults) }
}

/// A channel webhook that moves to another URL is enabled there, and what waits for it has its schedule begin afresh.
fn moved(before: Option<&Client>, client: &Client, now: Timestamp) -> Vec<Change> {
    let url = |client: &Client, id| client.business(id).and_then(|b| b.webhook.as_ref()).map(|w| w.url.clone());
    let all = client.businesses.iter().map(|b| b.business_id);
    let moved = all.filter(|id| {
        let was = before.and_then(|before| url(before, *id));
        was.is_some_and(|was| url(client, *id).is_some_and(|is| is != was))
    });
    let since = |id| Change::Endpoint(Endpoint::channel(&client.client_id, id), EndpointState::Since(now));
    moved.map(since).collect()
}

/// What to say of a client that has nobody to give a new conversation to.
fn without_default(client: &ClientId) -> String {
    format!(
        "client \"{client}\" has no default receiver: no IVA, no SAC and not exactly one enabled ECT; set default_receiver"
    )
}

/// A certificate with an id of its own.
pub(super) fn hold(parsed: &certificate::Parsed) -> Certificate {
    let uuid = uuid::Uuid::new_v4().hyphenated().to_string();
    Certificate { uuid, fingerprint: parsed.fingerprint.clone(), pem: parsed.pem.clone() }
}

struct Planner<'a> {
    rules: EgressRules,
    faults: &'a Faults,
    now: Timestamp,
    made: Vec<Made>,
}

impl Planner<'_> {
    fn ect(&mut self, at: &str, declared: &DeclaredEct, before: Option<&Ect>) -> Ect {
        let kept = before.map(|e| e.certificates.as_slice()).unwrap_or_default();
        let certificates = match &declared.certificates {
            None => kept.to_vec(),
            Some(list) => self.certificates(at, &declared.ect_id, list, kept),
        };
        Ect {
            ect_id: declared.ect_id.clone(),
            name: declared.name.clone().unwrap_or_else(|| declared.ect_id.to_string()),
            fqdn: declared.fqdn.clone(),
            certificates,
            require_sha256: declared.require_sha256,
            refuse_replays: declared.refuse_replays,
            requires_received: declared.requires_received,
            receive: declared.receive,
            may_pass_to: declared.may_pass_to,
            may_take: declared.may_take,
            may_request: declared.may_request,
            enabled: declared.enabled,
        }
    }

    fn certificates(&mut self, at: &str, ect: &ReceiverId, list: &[String], kept: &[Certificate]) -> Vec<Certificate> {
        let mut certificates: Vec<Certificate> = Vec::new();
        for (n, text) in list.iter().enumerate() {
            let parsed = match certificate::parse(text) {
                Ok(parsed) => parsed,
                Err(fault) => {
                    self.faults.add(format!("{at}.certificates[{n}]"), fault.to_string());
                    continue;
                }
            };
            if certificates.iter().any(|c| c.fingerprint == parsed.fingerprint) {
                self.faults.add(format!("{at}.certificates[{n}]"), "is the same certificate as one before it");
                continue;
            }
            let known = kept.iter().find(|c| c.fingerprint == parsed.fingerprint);
            let held = known.cloned().unwrap_or_else(|| hold(&parsed));
            self.made.push(Made { kind: "certificate".to_owned(), of: ect.to_string(), value: held.uuid.clone() });
            certificates.push(held);
        }
        certificates
    }

    /// The secret that is declared, else the one there is, else a new one, which is shown.
    fn secret(
        &mut self,
        declared: Option<&Secret>,
        before: Option<&Secret>,
        kind: &str,
        of: impl FnOnce() -> String,
    ) -> Secret {
        if let Some(secret) = declared.or(before) {
            return secret.clone();
        }
        let secret = make_webhook_secret();
        self.made.push(Made { kind: kind.to_owned(), of: of(), value: secret.expose().to_owned() });
        secret
    }

    /// The secret that this one replaces, while that signs too.
    fn previous(&self, secret: &Secret, before: Option<(&Secret, &Option<Previous>)>) -> Option<Previous> {
        let (old, previous) = before?;
        if old == secret { previous.clone() } else { Some(Previous::from(old.clone(), self.now)) }
    }

    fn client(&mut self, at: &str, declared: &DeclaredClient, before: Option<&Client>) -> Client {
        let id = &declared.client_id;
        let api_token_sha256 = match (&declared.api_token, before) {
            (Some(token), _) => sha256_hex(token.expose()),
            (None, Some(before)) => before.api_token_sha256.clone(),
            (None, None) => {
                let token = make_token(API_TOKEN_PREFIX);
                let value = token.expose().to_owned();
                self.made.push(Made { kind: "api_token".to_owned(), of: id.to_string(), value });
                sha256_hex(token.expose())
            }
        };
        let iva = declared.iva.as_ref().map(|iva| {
            let kept = before.and_then(|c| c.iva.as_ref());
            let secret = self.secret(iva.secret.as_ref(), kept.map(|i| &i.secret), "iva_secret", || id.to_string());
            Iva {
                url: iva.url.clone(),
                previous: self.previous(&secret, kept.map(|i| (&i.secret, &i.previous))),
                secret,
                timeout_ms: iva.timeout_ms,
            }
        });
        let mut seen = HashSet::new();
        let mut businesses = Vec::new();
        for (n, business) in declared.businesses.iter().enumerate() {
            if !seen.insert(business.business_id) {
                let what = format!("business {} of client \"{id}\" is declared twice", business.business_id);
                self.faults.add(format!("{at}.business[{n}].business_id"), what);
                continue;
            }
            let kept = before.and_then(|c| c.business(business.business_id));
            businesses.push(self.business(id, business, kept));
        }
        let unmentioned = before.map(|c| c.businesses.as_slice()).unwrap_or_default();
        businesses.extend(unmentioned.iter().filter(|b| !seen.contains(&b.business_id)).cloned());
        Client {
            client_id: id.clone(),
            name: declared.name.clone().unwrap_or_else(|| id.to_string()),
            api_token_sha256,
            ects: declared.ects.clone(),
            sac: declared.sac,
            default_receiver: declared.default_receiver.clone(),
            handoff_receiver: declared.handoff_receiver.clone(),
            fallback: declared.fallback.clone(),
            human_assistance: declared.human_assistance,
            bot_break_message: declared.bot_break_message.clone().unwrap_or_else(bot_break_message),
            handoff_timeout_ms: declared.handoff_timeout_ms,
            idle_timeout_ms: declared.idle_timeout_ms,
            iva,
            businesses,
            enabled: declared.enabled,
        }
    }

    fn business(&mut self, client: &ClientId, declared: &DeclaredBusiness, before: Option<&Business>) -> Business {
        let id = declared.business_id;
        let webhook = declared.webhook.as_ref().map(|webhook| {
            let kept = before.and_then(|b| b.webhook.as_ref());
            let of = || format!("{client}/{id}");
            let secret = self.secret(webhook.secret.as_ref(), kept.map(|w| &w.secret), "channel_secret", of);
            let previous = self.previous(&secret, kept.map(|w| (&w.secret, &w.previous)));
            ChannelWebhook { url: webhook.url.clone(), secret, previous }
        });
        Business {
            business_id: id,
            name: declared.name.clone().unwrap_or_else(|| id.to_string()),
            webhook,
            default_receiver: declared.default_receiver.clone(),
            teams: declared.teams.clone(),
        }
    }

    /// Whether everything that the client names exists, and its URLs are allowed.
    fn check(&self, at: &str, declared: &DeclaredClient, client: &Client, ects: &Ects) {
        for (n, id) in client.ects.iter().enumerate() {
            let key = format!("{at}.ects[{n}]");
            match id.as_str() {
                "iva" => self.faults.add(key, "iva is not an ECT; configure it in [client.iva]"),
                "sac" => self.faults.add(key, "sac is not an ECT; enable it with sac = true"),
                _ if !ects.contains_key(id) => self.faults.add(key, format!("there is no ECT \"{id}\"")),
                _ => {}
            }
        }
        let receiver = |key: String, id: &ReceiverId| {
            let missing = match id.as_str() {
                "iva" if client.iva.is_none() => "has no [client.iva]",
                "sac" if !client.sac => "does not have sac = true",
                "iva" | "sac" => return,
                _ if !client.ects.contains(id) => "does not have it in ects",
                _ => return,
            };
            let what = format!("\"{id}\" is not a receiver of client \"{}\", which {missing}", client.client_id);
            self.faults.add(key, what);
        };
        if let Some(id) = &client.default_receiver {
            receiver(format!("{at}.default_receiver"), id);
        }
        match &client.handoff_receiver {
            Some(id) if id.as_str() == "iva" => {
                let what = "must be an agent tool or sac: a hand-off goes from the bot to people";
                self.faults.add(format!("{at}.handoff_receiver"), what);
            }
            Some(id) => receiver(format!("{at}.handoff_receiver"), id),
            None => {}
        }
        for (n, id) in client.fallback.iter().enumerate() {
            receiver(format!("{at}.fallback[{n}]"), id);
        }
        for (n, business) in declared.businesses.iter().enumerate() {
            if let Some(id) = &business.default_receiver {
                receiver(format!("{at}.business[{n}].default_receiver"), id);
            }
            if let Some(webhook) = &business.webhook {
                self.url(format!("{at}.business[{n}].webhook.url"), &webhook.url);
            }
        }
        if let Some(iva) = &client.iva {
            self.url(format!("{at}.iva.url"), &iva.url);
        }
        // A business that this declaration does not mention can lose its receiver by it, too.
        let mentioned = |b: &&Business| declared.businesses.iter().all(|d| d.business_id != b.business_id);
        for business in client.businesses.iter().filter(mentioned) {
            if let Some(id) = &business.default_receiver {
                receiver(format!("{at}.business {}.default_receiver", business.business_id), id);
            }
        }
        if !policy::has_default(client, ects) {
            self.faults.add(format!("{at}.default_receiver"), without_default(&client.client_id));
        }
    }

    fn url(&self, key: String, url: &str) {
        if let Err(fault) = check_url(url, self.rules) {
            self.faults.add(key, fault.to_string());
        }
    }
}

/// Removes an ECT, and itself from the clients that list it. Refused when it leaves one without a default receiver.
pub(super) fn delete_ect(id: &ReceiverId, directory: &Directory) -> Result<Vec<Change>, Vec<Fault>> {
    let mut ects = directory.ects.clone();
    ects.remove(id);
    let mut changes = vec![Change::NoEct(id.clone())];
    let mut faults = Vec::new();
    for client_id in directory.clients_of(id) {
        let Some(before) = directory.client(&client_id) else { continue };
        let mut client = before.as_ref().clone();
        client.ects.retain(|e| e != id);
        client.fallback.retain(|e| e != id);
        client.default_receiver.take_if(|e| e == id);
        client.handoff_receiver.take_if(|e| e == id);
        for business in &mut client.businesses {
            business.default_receiver.take_if(|e| e == id);
        }
        if policy::has_default(before, &directory.ects) && !policy::has_default(&client, &ects) {
            faults.push(Fault::new("ect_id", without_default(&client_id)));
        }
        changes.push(Change::Client(Arc::new(client)));
    }
    // Also of clients that listed it once: an ECT that comes back under this id is another one.
    for (client_id, tenant) in &directory.tenants {
        if tenant.hooks.contains_key(id) {
            changes.extend(without_hooks(directory, client_id, id));
        }
    }
    if faults.is_empty() { Ok(changes) } else { Err(faults) }
}

/// Removes a client with all that hangs on it.
pub(super) fn delete_client(id: &ClientId, directory: &Directory) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Some(tenant) = directory.tenants.get(id) {
        for receiver in tenant.hooks.keys() {
            changes.extend(without_hooks(directory, id, receiver));
        }
    }
    changes.push(Change::NoClient(id.clone()));
    changes
}

fn without_hooks(directory: &Directory, client: &ClientId, receiver: &ReceiverId) -> Vec<Change> {
    let Some(hooks) = directory.hooks(client, receiver) else { return Vec::new() };
    let topics = hooks.by_topic.keys().map(|topic| Change::NoHook(client.clone(), receiver.clone(), *topic));
    let secret = hooks.secret.as_ref().map(|_| Change::NoHookSecret(client.clone(), receiver.clone()));
    topics.chain(secret).collect()
}

/// Removes a business. Refused when it leaves the client without a default receiver.
pub(super) fn delete_business(client: &Client, number: u64, directory: &Directory) -> Result<Vec<Change>, Vec<Fault>> {
    let mut changed = client.clone();
    changed.businesses.retain(|b| b.business_id != number);
    if policy::has_default(client, &directory.ects) && !policy::has_default(&changed, &directory.ects) {
        return Err(vec![Fault::new("business_id", without_default(&client.client_id))]);
    }
    Ok(vec![Change::Client(Arc::new(changed))])
}
