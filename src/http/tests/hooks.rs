//! Hooks and channel webhooks that are disabled, tried and enabled, by whom it concerns.

use super::*;
use tract_domain::Topic;

impl Fixture {
    async fn disable(&self, endpoint: &Endpoint) {
        let tract_actors::ports::Standing::Enabled { since } = self.edge.tenancy.standing(endpoint) else { panic!() };
        self.edge.tenancy.disable(endpoint, since, self.clock.now(), "status 500, after 7 attempts").await.unwrap();
    }
}

fn acme() -> ClientId {
    ClientId::new("acme").unwrap()
}
fn receive() -> Endpoint {
    Endpoint::hook(&acme(), &ReceiverId::new("sprinkle").unwrap(), Topic::MessageReceive)
}
const WHICH: fn() -> Value = || json!({"category": "message", "subcategory": "receive"});

#[tokio::test]
async fn a_disabled_hook_shows_and_is_enabled_by_its_tool() {
    let fixture = Fixture::start().await;
    let unknown = fixture.tool("sprinkle", "/tract/hooks/enable/", WHICH()).await;
    assert_eq!(unknown.refused(), (404, "unknown_hook", "no such hook"));
    fixture.healthy("sprinkle").await;
    fixture.disable(&receive()).await;
    let listed = fixture.read("sprinkle", "/tract/hooks/list/").await.ok();
    let hook = &listed["hooks"][0];
    assert_eq!((&hook["enabled"], &hook["dead_letters"]), (&json!(false), &json!(0)));
    assert_eq!(hook["disabled_reason"], "status 500, after 7 attempts");
    assert!(hook["disabled_at"].as_str().unwrap().ends_with('Z'));
    let enabled = fixture.tool("sprinkle", "/tract/hooks/enable/", WHICH()).await.ok();
    assert_eq!(
        enabled,
        json!({"category": "message", "subcategory": "receive", "url": "https://chat.example/hook", "enabled": true})
    );
    let listed = fixture.read("sprinkle", "/tract/hooks/list/").await.ok();
    assert_eq!((&listed["hooks"][0]["enabled"], listed["hooks"][0].get("disabled_at")), (&json!(true), None));
    let bad =
        fixture.tool("sprinkle", "/tract/hooks/enable/", json!({"category": "message", "subcategory": "x"})).await;
    assert_eq!(bad.refused().1, "invalid_field");
}

#[tokio::test]
async fn a_secret_is_rotated_and_shown_once() {
    let fixture = Fixture::start().await;
    let none = fixture.tool("sprinkle", "/tract/hooks/secret/rotate/", json!({})).await;
    assert_eq!(none.refused().1, "unknown_hook");
    let first = fixture.healthy("sprinkle").await["secret"].as_str().unwrap().to_owned();
    let token = format!("Bearer {}", fixture.token("acme", "sprinkle"));
    let headers = [("authorization", token.as_str()), ("idempotency-key", "k")];
    let rotate = || fixture.call(Method::POST, "/tract/hooks/secret/rotate", &headers, Some(&const { Value::Null }));
    assert_eq!(rotate().await.refused().1, "malformed_json");
    let body = json!({});
    let rotate = || fixture.call(Method::POST, "/tract/hooks/secret/rotate", &headers, Some(&body));
    let answer = rotate().await.ok();
    let second = answer["secret"].as_str().unwrap();
    assert!(second.starts_with("whsec_") && second != first);
    let again = rotate().await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.ok(), json!({"previous_valid_until": answer["previous_valid_until"]}));
}

#[tokio::test]
async fn a_ping_that_fails_is_told_and_changes_nothing() {
    let fixture = Fixture::start().await;
    let body = json!({"category": "message", "subcategory": "receive", "url": "https://127.0.0.1/hook"});
    fixture.tool("sprinkle", "/tract/hooks/register/", body).await.ok();
    fixture.disable(&receive()).await;
    let tried = fixture.tool("sprinkle", "/tract/hooks/test/", WHICH()).await;
    assert_eq!(tried.status, 200, "{}", tried.text);
    assert_eq!(tried.body, json!({"success": false, "latency_ms": 0, "reason": "the address is not public"}));
    assert!(fixture.edge.tenancy.directory().disabled(&receive()).is_some());
    let none = fixture.tool("held", "/tract/hooks/test/", WHICH()).await;
    assert_eq!(none.refused().1, "unknown_hook");
}

#[tokio::test]
async fn deliveries_and_replays_are_asked_for_by_field() {
    let fixture = Fixture::start().await;
    fixture.healthy("sprinkle").await;
    let page = fixture.read("sprinkle", "/tract/hooks/deliveries/").await.ok();
    assert_eq!(page, json!({"deliveries": [], "next": null}));
    for (query, says) in [
        ("state=lost", "state: must be one of pending, delivered, rejected, dead"),
        ("limit=0", "limit: must be an integer from 1 to 500"),
        ("limit=501", "limit: must be an integer from 1 to 500"),
        ("category=message", "subcategory: is missing; category alone names no hook"),
        ("subcategory=receive", "category: is missing; subcategory alone names no hook"),
        ("category=message&subcategory=sent", "subcategory: is not known in message; known are receive"),
    ] {
        let refused = fixture.read("sprinkle", &format!("/tract/hooks/deliveries?{query}")).await;
        assert_eq!(refused.refused(), (400, "invalid_field", says), "{query}");
    }
    for (body, status, code) in [
        (json!({}), 400, "invalid_field"),
        (json!({"webhook_id": "x", "since": "2026-01-01T00:00:00Z"}), 400, "invalid_field"),
        (json!({"since": "soon"}), 400, "invalid_field"),
        (json!({"webhook_id": ""}), 400, "invalid_field"),
        (json!({"webhook_id": "msg_never"}), 404, "unknown_delivery"),
    ] {
        let refused = fixture.tool("sprinkle", "/tract/hooks/replay/", body.clone()).await;
        assert_eq!((refused.refused().0, refused.refused().1), (status, code), "{body}");
    }
    let none = fixture.tool("sprinkle", "/tract/hooks/replay/", json!({"since": "2026-01-01T00:00:00Z"})).await.ok();
    assert_eq!(none, json!({"success": true, "replayed": 0}));
}

#[tokio::test]
async fn a_channel_webhook_is_enabled_by_its_client() {
    let fixture = Fixture::start().await;
    let ask = |body: Value| fixture.channel(Method::POST, "/v1.0/webhook/", body);
    let without = ask(json!({"enabled": true})).await;
    assert_eq!(without.refused(), (404, "unknown_webhook", "business_id: business 343 has no channel webhook"));
    let webhook = json!({"webhook": {"url": "https://acme.example/channel"}});
    fixture.admin(Method::PUT, "/admin/v1/clients/acme/businesses/343", Some(webhook)).await.ok();
    let endpoint = Endpoint::channel(&acme(), 343);
    fixture.disable(&endpoint).await;
    for (body, status, says) in [
        (json!({}), 400, "enabled"),
        (json!({"enabled": false}), 400, "enabled: must be true"),
        (json!({"enabled": "yes"}), 400, "enabled"),
        (json!({"enabled": true, "business_id": 9}), 404, "business_id: 9 is not"),
        (json!({"enabled": true, "business_id": -1}), 400, "business_id"),
        (json!({"enabled": true, "device_platform": 99}), 400, "device_platform"),
        (json!({"enabled": true, "business_id": 344}), 404, "business_id: business 344 has no"),
    ] {
        let refused = ask(body.clone()).await;
        let (found, _, text) = refused.refused();
        assert!(found == status && text.starts_with(says), "{body}: {text}");
    }
    assert!(fixture.edge.tenancy.directory().disabled(&endpoint).is_some());
    assert_eq!(ask(json!({"enabled": true, "device_platform": 14})).await.ok(), json!({"enabled": true}));
    assert!(fixture.edge.tenancy.directory().disabled(&endpoint).is_none());
    assert_eq!(ask(json!({"enabled": true, "business_id": "343"})).await.ok(), json!({"enabled": true}));
}

#[tokio::test]
async fn the_operator_sees_and_enables_every_endpoint() {
    let fixture = Fixture::start().await;
    fixture.healthy("sprinkle").await;
    fixture.disable(&receive()).await;
    let all = fixture.admin(Method::GET, "/admin/v1/hooks", None).await.ok();
    let names: Vec<_> = all["hooks"].as_array().unwrap().iter().map(|h| h["endpoint"].as_str().unwrap()).collect();
    assert_eq!(names, ["hook:acme:sprinkle:message:receive", "iva:acme"]);
    let hook = &all["hooks"][0];
    assert_eq!((&hook["kind"], &hook["breaker"], &hook["enabled"]), (&json!("hook"), &json!("closed"), &json!(false)));
    assert_eq!((&hook["receiver"], &hook["client_id"]), (&json!("sprinkle"), &json!("acme")));
    let other = fixture.admin(Method::GET, "/admin/v1/hooks?client_id=other", None).await.ok();
    assert_eq!(other, json!({"hooks": []}));
    let nobody = fixture.admin(Method::GET, "/admin/v1/hooks?client_id=nobody", None).await;
    assert_eq!(nobody.refused().1, "unknown_client");
    let enable =
        |endpoint: &str| fixture.admin(Method::POST, "/admin/v1/hooks/enable", Some(json!({"endpoint": endpoint})));
    let name = "hook:acme:sprinkle:message:receive";
    assert_eq!(enable(name).await.ok(), json!({"endpoint": name, "enabled": true}));
    assert!(fixture.edge.tenancy.directory().disabled(&receive()).is_none());
    assert_eq!(enable("hook:acme:held:message:receive").await.refused().1, "unknown_hook");
    assert_eq!(enable("channel:acme:343").await.refused().1, "unknown_webhook");
    assert_eq!(enable("nonsense").await.refused().1, "unknown_webhook");

    let letters = fixture.admin(Method::GET, &format!("/admin/v1/dead_letters?endpoint={name}"), None).await.ok();
    assert_eq!(letters, json!({"dead_letters": [], "next": null}));
    let both =
        fixture.admin(Method::GET, &format!("/admin/v1/dead_letters?endpoint={name}&client_id=acme"), None).await;
    assert!(both.refused().2.starts_with("endpoint: "));
    let replay = |body: Value| fixture.admin(Method::POST, "/admin/v1/dead_letters/replay", Some(body));
    assert_eq!(replay(json!({"client_id": "acme"})).await.refused().1, "invalid_field");
    assert_eq!(replay(json!({"endpoint": name, "webhook_id": "x"})).await.refused().1, "unknown_delivery");
    let none = replay(json!({"client_id": "acme", "since": "2026-01-01T00:00:00Z"})).await.ok();
    assert_eq!(none, json!({"success": true, "replayed": 0}));
}
