//! Tenancy against a store that is only a list of documents.

mod check;
mod endpoints;
mod store;

use super::{certificate::tests::sample, *};
use crate::security::url::EgressRules;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use store::FakeStore;
use tract_actors::ports::{Endpoint, IdempotencyKey, KeyHome, Store, StoreError, Tenants};
use tract_domain::{ClientId, Json, Policy, ReceiverId, Timestamp, Topic};

const NOW: Timestamp = Timestamp(1_000_000);

fn declare(value: Value) -> Declaration {
    serde_json::from_value(value).unwrap()
}
fn client(id: &str) -> ClientId {
    ClientId::new(id).unwrap()
}
fn receiver(id: &str) -> ReceiverId {
    ReceiverId::new(id).unwrap()
}
fn acme() -> Value {
    json!({
        "ect": [{ "ect_id": "sprinkle", "fqdn": "Chat.Sprinkle.example", "certificates": [sample(1)] }],
        "client": [{
            "client_id": "acme",
            "ects": ["sprinkle"],
            "iva": { "url": "https://bot.acme.example/turn" },
            "business": [
                { "business_id": 343, "webhook": { "url": "https://acme.example/channel" } },
                { "business_id": 7 },
            ],
        }],
    })
}
fn hook(topic: Topic, url: &str, at: i64) -> Hook {
    Hook {
        client: client("acme"),
        receiver: receiver("sprinkle"),
        topic,
        category: topic.names().0.to_owned(),
        url: url.to_owned(),
        registered_at: Timestamp(at),
    }
}
async fn load(store: &Arc<FakeStore>) -> Arc<Tenancy> {
    Tenancy::load(store.clone() as Arc<dyn Store>, EgressRules::default()).await.unwrap()
}
async fn with(declaration: Value) -> (Arc<FakeStore>, Arc<Tenancy>) {
    let store = Arc::new(FakeStore::default());
    let tenancy = load(&store).await;
    tenancy.apply(declare(declaration), NOW, None).await.unwrap();
    (store, tenancy)
}
fn policy(tenancy: &Tenancy) -> Arc<Policy> {
    tenancy.policy(&client("acme"), 343).unwrap()
}
fn kinds(made: &[Made]) -> Vec<(&str, &str)> {
    made.iter().map(|m| (m.kind.as_str(), m.of.as_str())).collect()
}

#[tokio::test]
async fn applying_makes_ids_and_secrets_once() {
    let store = Arc::new(FakeStore::default());
    let tenancy = load(&store).await;
    let first = tenancy.apply(declare(acme()), NOW, None).await.unwrap();
    let expected =
        [("certificate", "sprinkle"), ("api_token", "acme"), ("iva_secret", "acme"), ("channel_secret", "acme/343")];
    assert_eq!(kinds(&first), expected);
    assert_eq!(store.writes(), 1, "one step");
    assert!(uuid::Uuid::parse_str(&first[0].value).is_ok() && first[0].value == first[0].value.to_lowercase());
    assert!(tenancy.directory().api_token_matches(&client("acme"), &first[1].value));
    let directory = tenancy.directory();
    let kept = directory.client(&client("acme")).unwrap();
    assert_eq!(kept.iva.as_ref().unwrap().secret.expose(), first[2].value);
    assert_eq!(kept.business(343).unwrap().webhook.as_ref().unwrap().secret.expose(), first[3].value);
    assert!(!store.text().contains(&first[1].value), "the API token is kept only as its hash");

    let second = tenancy.apply(declare(acme()), NOW, None).await.unwrap();
    assert_eq!(second, first[..1], "only the certificate's id is told again, and it is the same");
    assert_eq!(store.writes(), 1, "nothing to write");

    let reloaded = load(&store).await;
    assert_eq!(format!("{:?}", reloaded.directory().clients()), format!("{:?}", directory.clients()));
    assert_eq!(policy(&reloaded).default_receiver, ReceiverId::iva());
}

#[tokio::test]
async fn what_is_left_out_has_its_default_but_secrets_stay() {
    let mut declaration = acme();
    declaration["client"][0]["idle_timeout"] = json!("1h");
    declaration["client"][0]["api_token"] = json!("given-token");
    declaration["client"][0]["iva"]["secret"] = json!("given-secret");
    let (_, tenancy) = with(declaration).await;
    assert_eq!(policy(&tenancy).idle_timeout_ms, 3_600_000);
    let made = tenancy.apply(declare(acme()), NOW, None).await.unwrap();
    assert_eq!(kinds(&made), [("certificate", "sprinkle")]);
    assert_eq!(policy(&tenancy).idle_timeout_ms, 480_000);
    let directory = tenancy.directory();
    assert!(directory.api_token_matches(&client("acme"), "given-token"));
    assert_eq!(directory.client(&client("acme")).unwrap().iva.as_ref().unwrap().secret.expose(), "given-secret");

    let mut declaration = acme();
    declaration["client"][0]["api_token"] = json!("another-token");
    declaration["ect"][0]["certificates"] = json!([sample(2), sample(1)]);
    let made = tenancy.apply(declare(declaration), NOW, None).await.unwrap();
    let directory = tenancy.directory();
    assert!(directory.api_token_matches(&client("acme"), "another-token"));
    assert!(!directory.api_token_matches(&client("acme"), "given-token"));
    let certificates = &directory.ect(&receiver("sprinkle")).unwrap().certificates;
    assert_eq!(
        made.iter().map(|m| &m.value).collect::<Vec<_>>(),
        certificates.iter().map(|c| &c.uuid).collect::<Vec<_>>()
    );
    assert_ne!(made[0].value, made[1].value);

    // Without the key the certificates stay; what is not mentioned stays too.
    let partly = json!({ "ect": [{ "ect_id": "sprinkle", "fqdn": "chat.sprinkle.example", "name": "Sprinkle" }] });
    assert_eq!(tenancy.apply(declare(partly), NOW, None).await.unwrap(), []);
    let directory = tenancy.directory();
    assert_eq!(directory.ect(&receiver("sprinkle")).unwrap().certificates.len(), 2);
    assert_eq!(directory.ect(&receiver("sprinkle")).unwrap().name, "Sprinkle");
    assert_eq!(directory.ect(&receiver("sprinkle")).unwrap().fqdn, "chat.sprinkle.example");
    let partly = json!({ "client": [{ "client_id": "acme", "sac": true, "business": [{ "business_id": 9 }] }] });
    tenancy.apply(declare(partly), NOW, None).await.unwrap();
    let directory = tenancy.directory();
    let businesses = &directory.client(&client("acme")).unwrap().businesses;
    assert_eq!(businesses.iter().map(|b| b.business_id).collect::<Vec<_>>(), [9, 343, 7]);
}

#[tokio::test]
async fn all_or_nothing() {
    let (store, tenancy) = with(acme()).await;
    let mut declaration = acme();
    declaration["ect"][0]["name"] = json!("Changed");
    declaration["client"][0]["default_receiver"] = json!("nobody");
    let error = tenancy.apply(declare(declaration), NOW, None).await.unwrap_err();
    assert!(
        matches!(error, TenancyError::Invalid(lines) if lines.len() == 1 && lines[0].starts_with("client[0].default_receiver: "))
    );
    assert_eq!(store.writes(), 1);
    assert_eq!(tenancy.directory().ect(&receiver("sprinkle")).unwrap().name, "sprinkle");
}

#[tokio::test]
async fn another_node_may_be_faster() {
    let (store, tenancy) = with(acme()).await;
    let other = load(&store).await;
    let more = json!({ "client": [{ "client_id": "globex", "sac": true, "business": [{ "business_id": 1 }] }] });
    other.apply(declare(more), NOW, None).await.unwrap();
    let register =
        tenancy.register_hook(hook(Topic::MessageReceive, "https://ect.example/hook", 1), None).await.unwrap();
    assert!(register.1.is_some());
    assert!(tenancy.directory().client(&client("globex")).is_some(), "taken over before writing");
    assert!(!policy(&other).healthy(&receiver("sprinkle")));
    assert!(other.refresh().await.unwrap());
    assert!(policy(&other).healthy(&receiver("sprinkle")));
    assert!(!other.refresh().await.unwrap());
}

#[tokio::test]
async fn a_write_without_an_answer_is_looked_for_and_its_secrets_are_told() {
    for applied in [true, false] {
        let store = Arc::new(FakeStore::default());
        let tenancy = load(&store).await;
        store.lose_next_answer(applied);
        let made = tenancy.apply(declare(acme()), NOW, None).await.unwrap();
        assert_eq!(made.len(), 4);
        assert!(tenancy.directory().api_token_matches(&client("acme"), &made[1].value));
        let reloaded = load(&store).await;
        assert!(reloaded.directory().api_token_matches(&client("acme"), &made[1].value));
        assert_eq!(reloaded.directory().revision, 1);
    }
    let store = Arc::new(FakeStore::default());
    let tenancy = load(&store).await;
    store.lose_next_answer(true);
    store.go_down();
    assert!(matches!(
        tenancy.apply(declare(acme()), NOW, None).await,
        Err(TenancyError::Store(StoreError::OutcomeUnknown))
    ));
}

#[tokio::test]
async fn the_ladders_of_receivers() {
    let ect = |id: &str| json!({ "ect_id": id, "fqdn": format!("{id}.example") });
    let bot = json!({ "url": "https://bot.example/" });
    for (settings, default, handoff) in [
        (json!({ "iva": bot, "sac": true, "ects": ["a", "b"] }), "iva", Some("sac")),
        (json!({ "iva": bot, "ects": ["a", "b"] }), "iva", None),
        (json!({ "iva": bot, "ects": ["a"] }), "iva", Some("a")),
        (json!({ "iva": bot, "ects": ["off", "a"] }), "iva", Some("a")),
        (json!({ "iva": bot, "ects": ["a", "b"], "handoff_receiver": "b" }), "iva", Some("b")),
        (json!({ "iva": bot, "ects": ["off", "a"], "default_receiver": "off" }), "iva", Some("a")),
        (json!({ "sac": true, "ects": ["a", "b"] }), "sac", Some("sac")),
        (json!({ "ects": ["b"] }), "b", Some("b")),
        (json!({ "ects": ["a", "b"], "default_receiver": "b" }), "b", None),
        (json!({ "ects": ["a", "b"], "business": [{ "business_id": 343, "default_receiver": "a" }] }), "a", None),
        (
            json!({ "iva": bot, "default_receiver": "iva", "sac": true, "business": [{ "business_id": 343, "default_receiver": "sac" }] }),
            "sac",
            Some("sac"),
        ),
    ] {
        let mut off = ect("off");
        off["enabled"] = json!(false);
        let mut acme = json!({ "client_id": "acme", "business": [{ "business_id": 343 }] });
        acme.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let (_, tenancy) = with(json!({ "ect": [ect("a"), ect("b"), off], "client": [acme] })).await;
        let policy = policy(&tenancy);
        assert_eq!(policy.default_receiver.as_str(), default, "{settings}");
        assert_eq!(policy.handoff_receiver.as_ref().map(ReceiverId::as_str), handoff, "{settings}");
        assert!(policy.receiver(&receiver("off")).is_none());
        assert!(!tenancy.directory().is_receiver(&client("acme"), &receiver("off")));
    }
}

#[tokio::test]
async fn the_policy_has_the_settings() {
    let mut declaration = acme();
    declaration["ect"][0]["may_take"] = json!(true);
    declaration["ect"][0]["receive"] = json!("active");
    declaration["ect"][0]["may_pass_to"] = json!("any");
    declaration["ect"][0]["requires_received"] = json!(true);
    declaration["client"][0]["fallback"] = json!(["sprinkle"]);
    declaration["client"][0]["bot_break_message"] = json!("Say \"it\" again.");
    declaration["client"][0]["handoff_timeout"] = json!(0);
    let (_, tenancy) = with(declaration).await;
    let policy = policy(&tenancy);
    let ect = policy.receiver(&receiver("sprinkle")).unwrap();
    assert!(ect.may_take && !ect.may_request && ect.only_while_active && ect.may_pass_to_any && ect.requires_received);
    assert!(!ect.healthy && policy.healthy(&ReceiverId::iva()));
    assert_eq!(policy.fallback, [receiver("sprinkle")]);
    assert_eq!(policy.handoff_timeout_ms, 0);
    let body: Value = serde_json::from_str(&policy.bot_break_message.0).unwrap();
    assert_eq!(body, json!({ "text": "Say \"it\" again.", "type": "TEXT", "data": { "quick_replies": [] } }));
    assert!(tenancy.policy(&client("acme"), 1).is_none() && tenancy.policy(&client("other"), 343).is_none());
}

#[tokio::test]
async fn hooks_come_and_go_and_their_secret_stays() {
    let (store, tenancy) = with(acme()).await;
    let (acme, sprinkle) = (client("acme"), receiver("sprinkle"));
    let (first, secret) =
        tenancy.register_hook(hook(Topic::MessageReceive, "https://e.example/1", 10), None).await.unwrap();
    let secret = secret.unwrap();
    assert!(first.registered_at == Timestamp(10) && policy(&tenancy).healthy(&sprinkle));
    let (_, none) = tenancy.register_hook(hook(Topic::CreateUser, "https://e.example/2", 20), None).await.unwrap();
    assert!(none.is_none());
    let (again, _) = tenancy.register_hook(hook(Topic::MessageReceive, "https://e.example/3", 30), None).await.unwrap();
    assert_eq!((again.url.as_str(), again.registered_at), ("https://e.example/3", Timestamp(10)));
    let topics: Vec<_> = tenancy.directory().hooks_of(&acme, &sprinkle).iter().map(|h| h.topic).collect();
    assert_eq!(topics, [Topic::MessageReceive, Topic::CreateUser]);
    let endpoint = Endpoint::hook(&acme, &sprinkle, Topic::MessageReceive);
    assert_eq!(Tenants::hook(&*tenancy, &acme, &sprinkle, Topic::MessageReceive), Some(endpoint.clone()));

    tenancy.unregister_hook(&acme, &sprinkle, Topic::MessageReceive, None).await.unwrap();
    assert_eq!(store.take_forgotten(), [endpoint]);
    assert!(!policy(&tenancy).healthy(&sprinkle));
    let gone = tenancy.unregister_hook(&acme, &sprinkle, Topic::MessageReceive, None).await;
    assert!(matches!(gone, Err(TenancyError::Unknown("hook"))));
    let reloaded = load(&store).await;
    assert_eq!(reloaded.directory().hook_secret(&acme, &sprinkle), Some(&secret));

    for (url, key) in [("http://e.example/", "url: must be an https URL"), ("/x", "url: must be an absolute URL")] {
        let refused = tenancy.register_hook(hook(Topic::StateBot, url, 1), None).await.unwrap_err();
        assert!(matches!(&refused, TenancyError::Invalid(lines) if lines[0].starts_with(key)), "{refused}");
    }
    let key = IdempotencyKey { home: KeyHome::Configuration, key: [1; 32], request: [2; 32], expires_at: Timestamp(1) };
    let render: fn(&Hook) -> Json = |hook| Json(format!("{{\"url\":\"{}\"}}", hook.url).into());
    let unchanged = hook(Topic::CreateUser, "https://e.example/2", 20);
    tenancy.register_hook(unchanged, Some((key.clone(), render))).await.unwrap();
    let kept = Some((key, Json(r#"{"url":"https://e.example/2"}"#.into())));
    assert_eq!(store.last_kept(), kept, "a key is kept even when nothing changes");
}

#[tokio::test]
async fn what_goes_takes_its_endpoints_along() {
    let (store, tenancy) = with(acme()).await;
    let acme_id = client("acme");
    assert_eq!(tenancy.iva(&acme_id), Some(Endpoint::iva(&acme_id)));
    assert_eq!(tenancy.channel(&acme_id, 343), Some(Endpoint::channel(&acme_id, 343)));
    assert_eq!(tenancy.channel(&acme_id, 7), None);
    let partly =
        json!({ "client": [{ "client_id": "acme", "ects": ["sprinkle"], "business": [{ "business_id": 343 }] }] });
    tenancy.apply(declare(partly), NOW, None).await.unwrap();
    assert_eq!(store.take_forgotten(), [Endpoint::channel(&acme_id, 343), Endpoint::iva(&acme_id)]);
    assert_eq!((tenancy.iva(&acme_id), tenancy.channel(&acme_id, 343)), (None, None));
}

#[tokio::test]
async fn deleting_asks_the_threads_first() {
    let (store, tenancy) = with(acme()).await;
    let (acme, sprinkle) = (client("acme"), receiver("sprinkle"));
    tenancy.register_hook(hook(Topic::MessageReceive, "https://e.example/1", 10), None).await.unwrap();
    store.set_threads(3);
    assert!(matches!(tenancy.delete_ect(&sprinkle, false).await, Err(TenancyError::InUse(3))));
    assert!(matches!(tenancy.delete_client(&acme, false).await, Err(TenancyError::InUse(3))));
    assert!(matches!(tenancy.delete_business(&acme, 343, false).await, Err(TenancyError::InUse(3))));
    assert!(matches!(tenancy.delete_business(&acme, 1, true).await, Err(TenancyError::Unknown("business"))));

    tenancy.delete_ect(&sprinkle, true).await.unwrap();
    let directory = tenancy.directory();
    assert!(directory.ect(&sprinkle).is_none() && directory.client(&acme).unwrap().ects.is_empty());
    assert!(directory.hooks_of(&acme, &sprinkle).is_empty() && directory.hook_secret(&acme, &sprinkle).is_none());
    assert!(policy(&tenancy).receiver(&sprinkle).is_none());
    assert_eq!(store.take_forgotten(), [Endpoint::hook(&acme, &sprinkle, Topic::MessageReceive)]);
    assert!(!store.text().contains("sprinkle"), "{}", store.text());

    tenancy.delete_business(&acme, 343, true).await.unwrap();
    assert!(tenancy.policy(&acme, 343).is_none());
    tenancy.delete_client(&acme, true).await.unwrap();
    assert_eq!(store.text(), "");
    assert_eq!(load(&store).await.directory().clients(), tenancy.directory().clients());
}

#[tokio::test]
async fn nobody_is_left_without_a_default_receiver() {
    let declaration = json!({
        "ect": [{ "ect_id": "sprinkle", "fqdn": "s.example" }],
        "client": [{ "client_id": "acme", "ects": ["sprinkle"], "business": [{ "business_id": 343 }] }],
    });
    let (_, tenancy) = with(declaration).await;
    let names_acme =
        |e: &TenancyError| matches!(e, TenancyError::Invalid(lines) if lines[0].contains("client \"acme\""));
    let deleted = tenancy.delete_ect(&receiver("sprinkle"), true).await.unwrap_err();
    assert!(names_acme(&deleted), "{deleted}");
    let off = json!({ "ect": [{ "ect_id": "sprinkle", "fqdn": "s.example", "enabled": false }] });
    let disabled = tenancy.apply(declare(off), NOW, None).await.unwrap_err();
    assert!(names_acme(&disabled), "{disabled}");
}

#[tokio::test]
async fn a_secret_of_the_deployment_is_made_once() {
    let store = Arc::new(FakeStore::default());
    let make = || secrets::make_webhook_secret().expose().to_owned();
    let first = load(&store).await.deployment_secret("jwt", make).await.unwrap();
    assert_eq!(load(&store).await.deployment_secret("jwt", make).await.unwrap(), first);
    assert_ne!(load(&store).await.deployment_secret("other", make).await.unwrap(), first);
}

#[tokio::test]
async fn who_is_disabled_is_nobody() {
    let (_, tenancy) = with(acme()).await;
    let (acme_id, directory) = (client("acme"), tenancy.directory());
    for (id, is) in [("iva", true), ("sac", false), ("sprinkle", true), ("other", false)] {
        assert_eq!(directory.is_receiver(&acme_id, &receiver(id)), is, "{id}");
        assert!(!directory.is_receiver(&client("other"), &receiver(id)));
    }
    let mut declaration = acme();
    declaration["client"][0]["enabled"] = json!(false);
    declaration["client"][0]["api_token"] = json!("a-token");
    tenancy.apply(declare(declaration), NOW, None).await.unwrap();
    assert!(!tenancy.directory().is_receiver(&acme_id, &ReceiverId::iva()));
    assert!(!tenancy.directory().api_token_matches(&acme_id, "a-token"));
    assert!(!tenancy.directory().api_token_matches(&client("other"), ""));
}

#[tokio::test]
async fn no_secret_is_seen_in_debug() {
    let mut declaration = acme();
    declaration["client"][0]["api_token"] = json!("hush-1");
    declaration["client"][0]["iva"]["secret"] = json!("hush-2");
    declaration["client"][0]["business"][0]["webhook"]["secret"] = json!("hush-3");
    assert!(!format!("{:?}", declare(declaration.clone())).contains("hush"));
    let (_, tenancy) = with(declaration).await;
    assert!(!format!("{:?}", tenancy.directory()).contains("hush"));
}

#[test]
fn futures_can_be_spawned() {
    fn sendable<T: Send>(_: impl FnOnce(&'static Tenancy) -> T) {}
    sendable(|t| t.apply(Declaration::default(), NOW, None));
    sendable(|t| t.refresh());
    sendable(|t| t.deployment_secret("x", String::new));
    sendable(|t| t.register_hook(hook(Topic::CreateUser, "", 0), None));
}

#[test]
fn a_declaration_survives_its_own_json() {
    let declaration = declare(acme());
    let text = serde_json::to_string(&declaration).unwrap();
    assert_eq!(serde_json::from_str::<Declaration>(&text).unwrap(), declaration);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9:/.]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map("[a-z_]{1,8}", inner, 0..4).prop_map(|m| m.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_change_to_a_declaration_makes_reading_panic(at in 0usize..40, put in any_json()) {
        let mut declaration = acme();
        let mut n = 0;
        replace(&mut declaration, at, &mut n, &put);
        let _ = Declaration::check(&declaration, EgressRules::default());
    }
}

fn replace(value: &mut Value, at: usize, n: &mut usize, put: &Value) {
    *n += 1;
    if *n == at + 1 {
        *value = put.clone();
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|v| replace(v, at, n, put)),
        Value::Object(map) => map.values_mut().for_each(|v| replace(v, at, n, put)),
        _ => {}
    }
}
