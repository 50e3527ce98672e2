//! Tenants as the operator sees them: the form of `tenants.toml` as JSON, with `"set"` where a secret is.
//!
//! What is shown can be sent back: [`declared`] takes out again what is only for showing.

use crate::tenancy::{Business, Client, Ect, PassScope, ReceiveScope};
use serde_json::{Map, Value, json};

/// Stands for a secret that is there.
const SET: &str = "set";

/// An ECT.
pub fn ect(ect: &Ect) -> Value {
    let certificates: Vec<_> =
        ect.certificates.iter().map(|c| json!({"uuid": c.uuid, "fingerprint": c.fingerprint, "pem": c.pem})).collect();
    json!({
        "ect_id": ect.ect_id.as_str(),
        "name": ect.name,
        "fqdn": ect.fqdn,
        "certificates": certificates,
        "require_sha256": ect.require_sha256,
        "refuse_replays": ect.refuse_replays,
        "requires_received": ect.requires_received,
        "receive": match ect.receive {
            ReceiveScope::All => "all",
            ReceiveScope::Active => "active",
        },
        "may_pass_to": match ect.may_pass_to {
            PassScope::Primary => "primary",
            PassScope::Any => "any",
        },
        "may_take": ect.may_take,
        "may_request": ect.may_request,
        "enabled": ect.enabled,
    })
}

/// A client with its businesses.
pub fn client(client: &Client) -> Value {
    let ids = |ids: &[tract_domain::ReceiverId]| -> Vec<Value> { ids.iter().map(|id| json!(id.as_str())).collect() };
    let mut shown = Map::from_iter([
        ("client_id".to_owned(), json!(client.client_id.as_str())),
        ("name".to_owned(), json!(client.name)),
        ("api_token".to_owned(), json!(SET)),
        ("ects".to_owned(), json!(ids(&client.ects))),
        ("sac".to_owned(), json!(client.sac)),
        ("fallback".to_owned(), json!(ids(&client.fallback))),
        ("human_assistance".to_owned(), json!(client.human_assistance)),
        ("bot_break_message".to_owned(), json!(client.bot_break_message)),
        ("handoff_timeout".to_owned(), json!(duration(client.handoff_timeout_ms))),
        ("idle_timeout".to_owned(), json!(duration(client.idle_timeout_ms))),
        ("business".to_owned(), client.businesses.iter().map(business).collect()),
        ("enabled".to_owned(), json!(client.enabled)),
    ]);
    for (name, receiver) in
        [("default_receiver", &client.default_receiver), ("handoff_receiver", &client.handoff_receiver)]
    {
        if let Some(receiver) = receiver {
            shown.insert(name.to_owned(), json!(receiver.as_str()));
        }
    }
    if let Some(iva) = &client.iva {
        let iva = json!({"url": iva.url, "secret": SET, "timeout": duration(iva.timeout_ms)});
        shown.insert("iva".to_owned(), iva);
    }
    Value::Object(shown)
}

/// A business.
pub fn business(business: &Business) -> Value {
    let mut shown = Map::from_iter([
        ("business_id".to_owned(), json!(business.business_id)),
        ("name".to_owned(), json!(business.name)),
        ("teams".to_owned(), json!(business.teams)),
    ]);
    if let Some(webhook) = &business.webhook {
        shown.insert("webhook".to_owned(), json!({"url": webhook.url, "secret": SET}));
    }
    if let Some(receiver) = &business.default_receiver {
        shown.insert("default_receiver".to_owned(), json!(receiver.as_str()));
    }
    Value::Object(shown)
}

fn duration(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

/// What was shown, as a declaration again: without the places of secrets, which stay as they are, and with certificates
/// as the PEM text that they were declared with.
pub fn declared(mut shown: Map<String, Value>) -> Map<String, Value> {
    unset(&mut shown, "api_token");
    if let Some(Value::Object(iva)) = shown.get_mut("iva") {
        unset(iva, "secret");
    }
    if let Some(Value::Object(webhook)) = shown.get_mut("webhook") {
        unset(webhook, "secret");
    }
    if let Some(Value::Array(businesses)) = shown.get_mut("business") {
        for business in businesses.iter_mut() {
            if let Value::Object(fields) = business {
                *fields = declared(std::mem::take(fields));
            }
        }
    }
    if let Some(Value::Array(certificates)) = shown.get_mut("certificates") {
        for certificate in certificates.iter_mut() {
            if let Some(pem) = certificate.get_mut("pem").map(Value::take) {
                *certificate = pem;
            }
        }
    }
    shown
}

fn unset(fields: &mut Map<String, Value>, name: &str) {
    if fields.get(name).is_some_and(|value| value == SET) {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Client {
        serde_json::from_value(json!({"client_id": "acme", "name": "Acme", "api_token_sha256": "c0ffee",
            "ects": ["sprinkle"], "handoff_receiver": "sprinkle", "idle_timeout_ms": 1500,
            "iva": {"url": "https://bot.example/turn", "secret": "whsec_iva"},
            "businesses": [{"business_id": 343, "name": "Shop",
                "webhook": {"url": "https://acme.example/channel", "secret": "whsec_channel"}}]}))
        .unwrap()
    }

    #[test]
    fn no_secret_is_shown() {
        let text = client(&acme()).to_string();
        assert!(!text.contains("whsec") && !text.contains("c0ffee"), "{text}");
        assert!(text.contains(r#""idle_timeout":"1500ms""#) && text.contains(r#""handoff_timeout":"120s""#), "{text}");
    }

    #[test]
    fn what_is_shown_can_be_sent_back() {
        let Value::Object(shown) = client(&acme()) else { panic!() };
        let declared = Value::Object(declared(shown));
        assert_eq!(declared["api_token"], Value::Null);
        assert_eq!(declared["iva"], json!({"url": "https://bot.example/turn", "timeout": "30s"}));
        assert_eq!(declared["business"][0]["webhook"], json!({"url": "https://acme.example/channel"}));
        let Value::Object(ect) = json!({"certificates": [{"uuid": "u", "fingerprint": "f", "pem": "P"}, "Q"]}) else {
            panic!()
        };
        assert_eq!(Value::Object(super::declared(ect)), json!({"certificates": ["P", "Q"]}));
        let Value::Object(new) = json!({"iva": {"url": "u", "secret": "whsec_new"}}) else { panic!() };
        assert_eq!(Value::Object(super::declared(new)), json!({"iva": {"url": "u", "secret": "whsec_new"}}));
    }
}
