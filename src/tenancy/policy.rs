//! From a client's configuration to the [`Policy`] that decisions depend on: who its receivers are, and the ladders of
//! section 7 that say who gets new conversations and hand-offs.

use super::model::{Business, Client, Ect, PassScope, ReceiveScope};
use std::{collections::HashMap, sync::Arc};
use tract_domain::{Body, Policy, Receiver, ReceiverId, ReceiverKind};

/// All ECTs by their ids.
pub(super) type Ects = HashMap<ReceiverId, Arc<Ect>>;

/// The client's ECTs that exist and are enabled, in the configuration's order.
fn enabled_ects<'a>(client: &'a Client, ects: &'a Ects) -> impl Iterator<Item = &'a Arc<Ect>> {
    client.ects.iter().filter_map(|id| ects.get(id)).filter(|e| e.enabled)
}

/// Whether this receiver may act for this client, the client's own state aside.
pub(super) fn is_enabled(client: &Client, ects: &Ects, id: &ReceiverId) -> bool {
    match id.as_str() {
        "iva" => client.iva.is_some(),
        "sac" => client.sac,
        _ => client.ects.contains(id) && ects.get(id).is_some_and(|e| e.enabled),
    }
}

fn only_ect(client: &Client, ects: &Ects) -> Option<ReceiverId> {
    let mut enabled = enabled_ects(client, ects);
    let first = enabled.next()?;
    enabled.next().is_none().then(|| first.ect_id.clone())
}

/// Who gets a new conversation: the business's choice, else the client's, else the IVA, else SAC, else the only ECT. A
/// choice that is disabled now is passed over.
pub(super) fn default_receiver(client: &Client, business: Option<&Business>, ects: &Ects) -> Option<ReceiverId> {
    let mut choices = business.and_then(|b| b.default_receiver.as_ref()).into_iter().chain(&client.default_receiver);
    let chosen = choices.find(|id| is_enabled(client, ects, id)).cloned();
    let iva = || client.iva.is_some().then(ReceiverId::iva);
    let sac = || client.sac.then(ReceiverId::sac);
    chosen.or_else(iva).or_else(sac).or_else(|| only_ect(client, ects))
}

/// Who gets a hand-off: the client's choice, else SAC, else the only ECT.
fn handoff_receiver(client: &Client, ects: &Ects) -> Option<ReceiverId> {
    let chosen = client.handoff_receiver.as_ref().filter(|id| is_enabled(client, ects, id)).cloned();
    chosen.or_else(|| client.sac.then(ReceiverId::sac)).or_else(|| only_ect(client, ects))
}

/// Whether every thread that the client could have would find a default receiver.
pub(super) fn has_default(client: &Client, ects: &Ects) -> bool {
    let found = |business| default_receiver(client, business, ects).is_some();
    if client.businesses.is_empty() { found(None) } else { client.businesses.iter().all(|b| found(Some(b))) }
}

/// The policies of all the client's businesses, in their order; a business without a default receiver has none.
/// `receives` says of an ECT whether its `message.receive` hook is registered and enabled.
pub(super) fn policies(
    client: &Client,
    ects: &Ects,
    receives: impl Fn(&ReceiverId) -> bool,
) -> Vec<(u64, Option<Arc<Policy>>)> {
    let mut receivers = Vec::new();
    if client.iva.is_some() {
        receivers.push(ours(ReceiverId::iva(), ReceiverKind::Iva, "Bot"));
    }
    if client.sac {
        receivers.push(ours(ReceiverId::sac(), ReceiverKind::Sac, "Agent inbox"));
    }
    receivers.extend(enabled_ects(client, ects).map(|ect| Receiver {
        id: ect.ect_id.clone(),
        kind: ReceiverKind::Ect,
        name: ect.name.clone(),
        healthy: receives(&ect.ect_id),
        may_take: ect.may_take,
        may_request: ect.may_request,
        may_pass_to_any: ect.may_pass_to == PassScope::Any,
        requires_received: ect.requires_received,
        only_while_active: ect.receive == ReceiveScope::Active,
    }));
    let fallback: Vec<_> = client.fallback.iter().filter(|id| is_enabled(client, ects, id)).cloned().collect();
    let handoff_receiver = handoff_receiver(client, ects);
    let bot_break_message = text_element(&client.bot_break_message);
    let policy = |business: &Business| {
        default_receiver(client, Some(business), ects).map(|default_receiver| {
            Arc::new(Policy {
                receivers: receivers.clone(),
                default_receiver,
                handoff_receiver: handoff_receiver.clone(),
                fallback: fallback.clone(),
                handoff_timeout_ms: client.handoff_timeout_ms,
                idle_timeout_ms: client.idle_timeout_ms,
                human_assistance: client.human_assistance,
                bot_break_message: bot_break_message.clone(),
            })
        })
    };
    client.businesses.iter().map(|b| (b.business_id, policy(b))).collect()
}

/// A primary receiver; the settings of ECTs do not bind it.
fn ours(id: ReceiverId, kind: ReceiverKind, name: &str) -> Receiver {
    Receiver {
        id,
        kind,
        name: name.to_owned(),
        healthy: true,
        may_take: true,
        may_request: true,
        may_pass_to_any: true,
        requires_received: false,
        only_while_active: false,
    }
}

/// A text as a serialised HSL element, its keys in the order of the contract.
fn text_element(text: &str) -> Body {
    let text = serde_json::Value::from(text);
    Body(format!(r#"{{"text":{text},"type":"TEXT","data":{{"quick_replies":[]}}}}"#).into())
}
