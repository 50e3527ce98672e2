//! Endpoints that are disabled and enabled, and secrets that are replaced.

use super::*;
use crate::webhook::Signer;
use tract_actors::ports::Standing;

fn at(standing: Standing) -> Option<Timestamp> {
    match standing {
        Standing::Enabled { since } => Some(since),
        Standing::Disabled { .. } => None,
    }
}

#[tokio::test]
async fn a_hook_is_disabled_and_enabled_again() {
    let (store, tenancy) = with(acme()).await;
    let (acme, sprinkle) = (client("acme"), receiver("sprinkle"));
    tenancy.register_hook(hook(Topic::MessageReceive, "https://e.example/1", 10), None).await.unwrap();
    let endpoint = Endpoint::hook(&acme, &sprinkle, Topic::MessageReceive);
    assert_eq!(tenancy.standing(&endpoint), Standing::Enabled { since: Timestamp(0) });

    let mut changes = tenancy.changes();
    tenancy.disable(&endpoint, Timestamp(0), Timestamp(50), "status 500, after 7 attempts").await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(tenancy.standing(&endpoint), Standing::Disabled { at: Timestamp(50) });
    assert!(!policy(&tenancy).healthy(&sprinkle), "nobody is handed to a tool that hears nothing");
    let reloaded = load(&store).await;
    let disabled = reloaded.directory().disabled(&endpoint).cloned().unwrap();
    assert_eq!((disabled.at, disabled.reason.as_str()), (Timestamp(50), "status 500, after 7 attempts"));
    assert!(!policy(&reloaded).healthy(&sprinkle));

    tenancy.enable(&endpoint, Timestamp(60), None).await.unwrap();
    assert!(changes.has_changed().unwrap() && policy(&tenancy).healthy(&sprinkle));
    assert_eq!(at(tenancy.standing(&endpoint)), Some(Timestamp(60)));
    // A courier that decided before it was enabled comes too late.
    let writes = store.writes();
    tenancy.disable(&endpoint, Timestamp(0), Timestamp(61), "late").await.unwrap();
    tenancy.enable(&endpoint, Timestamp(62), None).await.unwrap();
    assert_eq!((at(tenancy.standing(&endpoint)), store.writes()), (Some(Timestamp(60)), writes), "nothing changed");
    tenancy.disable(&endpoint, Timestamp(60), Timestamp(70), "410 Gone").await.unwrap();

    // What another node does is told, too.
    let mut changes = reloaded.changes();
    changes.mark_unchanged();
    assert!(reloaded.refresh().await.unwrap() && changes.has_changed().unwrap());
    assert_eq!(reloaded.standing(&endpoint), Standing::Disabled { at: Timestamp(70) });

    // Registering enables, and the state goes with the hook.
    tenancy.register_hook(hook(Topic::MessageReceive, "https://e.example/1", 80), None).await.unwrap();
    assert_eq!(at(tenancy.standing(&endpoint)), Some(Timestamp(80)));
    tenancy.register_hook(hook(Topic::MessageReceive, "https://e.example/2", 90), None).await.unwrap();
    assert_eq!(at(tenancy.standing(&endpoint)), Some(Timestamp(90)), "the new place has the whole schedule");
    assert!(store.text().contains("endpoint hook:acme:sprinkle:message:receive {\"since\":90}"), "{}", store.text());
    tenancy.unregister_hook(&acme, &sprinkle, Topic::MessageReceive, None).await.unwrap();
    assert!(!store.text().contains("endpoint hook:"), "{}", store.text());
    assert_eq!(tenancy.standing(&endpoint), Standing::Enabled { since: Timestamp(0) });
    let gone = tenancy.enable(&endpoint, Timestamp(91), None).await;
    assert!(matches!(gone, Err(TenancyError::Unknown("hook"))), "{gone:?}");
    tenancy.disable(&endpoint, Timestamp(0), Timestamp(92), "late").await.unwrap();
    assert!(!store.text().contains("endpoint hook:"));
}

#[tokio::test]
async fn a_channel_webhook_is_enabled_by_moving_it_and_a_bot_is_never_disabled() {
    let (store, tenancy) = with(acme()).await;
    let acme_id = client("acme");
    let (channel, iva) = (Endpoint::channel(&acme_id, 343), Endpoint::iva(&acme_id));
    tenancy.disable(&iva, Timestamp(0), Timestamp(50), "x").await.unwrap();
    assert_eq!(at(tenancy.standing(&iva)), Some(Timestamp(0)));
    tenancy.disable(&channel, Timestamp(0), Timestamp(50), "x").await.unwrap();
    tenancy.apply(declare(acme()), NOW, None).await.unwrap();
    assert_eq!(tenancy.standing(&channel), Standing::Disabled { at: Timestamp(50) }, "the same again changes nothing");
    let mut moved = acme();
    moved["client"][0]["business"][0]["webhook"]["url"] = json!("https://acme.example/elsewhere");
    tenancy.apply(declare(moved), NOW, None).await.unwrap();
    assert_eq!(at(tenancy.standing(&channel)), Some(NOW));
    tenancy.disable(&channel, NOW, Timestamp(NOW.0 + 1), "x").await.unwrap();
    tenancy.delete_business(&acme_id, 343, true).await.unwrap();
    assert!(!store.text().contains("endpoint channel:"), "{}", store.text());
}

#[tokio::test]
async fn a_replaced_secret_signs_for_a_day() {
    let (store, tenancy) = with(acme()).await;
    let (acme_id, sprinkle) = (client("acme"), receiver("sprinkle"));
    let none = tenancy.rotate_hook_secret(&acme_id, &sprinkle, NOW, None).await;
    assert!(matches!(none, Err(TenancyError::Unknown("hook"))), "{none:?}");
    let registered = tenancy.register_hook(hook(Topic::MessageReceive, "https://e.example/1", 10), None).await.unwrap();
    let first = registered.1.unwrap();
    let key = IdempotencyKey { home: KeyHome::Configuration, key: [1; 32], request: [2; 32], expires_at: Timestamp(1) };
    let render: fn(Timestamp) -> Json = |until| Json(until.0.to_string().into());
    let (second, until) = tenancy.rotate_hook_secret(&acme_id, &sprinkle, NOW, Some((key, render))).await.unwrap();
    assert_eq!(until, NOW.plus(24 * 3_600_000));
    assert_eq!(store.last_kept().unwrap().1.0.as_ref(), until.0.to_string(), "what is kept has no secret");
    let signatures = |tenancy: &Tenancy, at: Timestamp| {
        let directory = tenancy.directory();
        let secrets = directory.hook_secrets(&acme_id, &sprinkle).unwrap();
        let headers = Signer::at(secrets, at).headers("id", at, b"{}").unwrap();
        headers["webhook-signature"].to_str().unwrap().split(' ').count()
    };
    assert_eq!((signatures(&tenancy, NOW), signatures(&tenancy, until)), (2, 1));
    let reloaded = load(&store).await;
    let directory = reloaded.directory();
    let secrets = directory.hook_secrets(&acme_id, &sprinkle).unwrap();
    assert_eq!((secrets.current, &secrets.previous.unwrap().secret), (&second, &first));
    assert!(!format!("{directory:?}").contains("whsec_"));
    // Again within the day: only the latest goes on.
    let (third, _) = tenancy.rotate_hook_secret(&acme_id, &sprinkle, NOW.plus(5), None).await.unwrap();
    let directory = tenancy.directory();
    let secrets = directory.hook_secrets(&acme_id, &sprinkle).unwrap();
    assert_eq!((secrets.current, &secrets.previous.unwrap().secret), (&third, &second));
}

#[tokio::test]
async fn a_declared_secret_replaces_the_one_before() {
    let (_, tenancy) = with(acme()).await;
    let mut declared = acme();
    declared["client"][0]["iva"]["secret"] = json!("whsec_bmV3IGJvdA==");
    declared["client"][0]["business"][0]["webhook"]["secret"] = json!("whsec_bmV3IGNoYW5uZWw=");
    let before = tenancy.directory();
    let before = before.client(&client("acme")).unwrap();
    for _ in 0..2 {
        tenancy.apply(declare(declared.clone()), NOW, None).await.unwrap();
        let directory = tenancy.directory();
        let after = directory.client(&client("acme")).unwrap();
        let (was, is) = (before.iva.as_ref().unwrap(), after.iva.as_ref().unwrap());
        assert_eq!(is.previous.as_ref().unwrap().secret, was.secret);
        assert_eq!(is.previous.as_ref().unwrap().until, NOW.plus(24 * 3_600_000));
        let webhook = |client: &Client| client.business(343).unwrap().webhook.clone().unwrap();
        assert_eq!(webhook(after).previous.unwrap().secret, webhook(before).secret);
    }
}
