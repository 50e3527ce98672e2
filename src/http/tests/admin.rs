//! The operator's calls.

use super::*;

#[tokio::test]
async fn tenants_are_shown_without_secrets_and_can_be_put_back() {
    let fixture = Fixture::start().await;
    let get = async |path: &str| fixture.admin(Method::GET, path, None).await.ok();
    let acme = get("/admin/v1/clients/acme").await;
    assert_eq!((&acme["api_token"], &acme["iva"]["secret"]), (&json!("set"), &json!("set")));
    assert!(!acme.to_string().contains("whsec_"));
    let put = fixture.admin(Method::PUT, "/admin/v1/clients/acme/", Some(acme.clone())).await.ok();
    assert_eq!((&put["client"], &put["made"]), (&acme, &json!([])), "nothing changed, nothing made");
    assert_eq!(fixture.channel(Method::POST, "/v1.0/user", json!({"auth_id": "kim"})).await.status, 200);

    let ect = get("/admin/v1/ects/held").await;
    assert_eq!(ect["receive"], "active");
    assert_eq!(fixture.admin(Method::PUT, "/admin/v1/ects/held", Some(ect.clone())).await.ok()["ect"], ect);
    assert_eq!(get("/admin/v1/ects").await["ects"].as_array().unwrap().len(), 2);
    assert_eq!(get("/admin/v1/clients").await["clients"].as_array().unwrap().len(), 2);

    let business = json!({"name": "New", "webhook": {"url": "https://acme.example/channel"}});
    let put = fixture.admin(Method::PUT, "/admin/v1/clients/acme/businesses/345", Some(business)).await.ok();
    assert_eq!((&put["business"]["name"], &put["made"][0]["kind"]), (&json!("New"), &json!("channel_secret")));
    assert_eq!(get("/admin/v1/clients/acme/businesses").await["businesses"].as_array().unwrap().len(), 3);
    let mut after = get("/admin/v1/clients/acme").await;
    after["business"].as_array_mut().unwrap().pop();
    assert_eq!(after, acme, "the rest of the client is as it was");

    for (path, code) in [
        ("/admin/v1/clients/nobody", "unknown_client"),
        ("/admin/v1/ects/nobody", "unknown_ect"),
        ("/admin/v1/clients/acme/businesses/9", "unknown_business"),
    ] {
        let reply = fixture.admin(Method::GET, path, None).await;
        assert_eq!((reply.refused().0, reply.refused().1), (404, code));
    }
}

#[tokio::test]
async fn numbers_may_come_as_decimal_strings() {
    let fixture = Fixture::start().await;
    let client = json!({"default_receiver": "sprinkle", "ects": ["sprinkle"], "business": [{"business_id": "77"}]});
    let put = fixture.admin(Method::PUT, "/admin/v1/clients/new", Some(client)).await.ok();
    assert_eq!(put["client"]["business"][0]["business_id"], 77);
    for number in ["", "+77", "-1", "7.0", "0x7", "9007199254740992", "99999999999999999999"] {
        let client = json!({"business": [{"business_id": number}]});
        let reply = fixture.admin(Method::PUT, "/admin/v1/clients/new", Some(client)).await;
        assert!(reply.refused().2.contains("client[0].business[0].business_id"), "{number}: {}", reply.refused().2);
    }
}

#[tokio::test]
async fn a_faulty_declaration_is_refused_with_every_fault() {
    let fixture = Fixture::start().await;
    let body = json!({"ect": [{"ect_id": "iva"}], "client": [{"client_id": "a b", "iva": {}}]});
    let reply = fixture.admin(Method::POST, "/admin/v1/apply", Some(body)).await;
    let (status, code, text) = reply.refused();
    assert_eq!((status, code), (400, "invalid_configuration"));
    assert!(text.contains("ect[0].fqdn") && text.contains("client[0].client_id"), "{text}");
    let body = json!({"name": 5});
    let reply = fixture.admin(Method::PUT, "/admin/v1/clients/acme", Some(body)).await;
    assert_eq!(reply.refused().1, "invalid_configuration");
    let body = json!({"client_id": "other"});
    let reply = fixture.admin(Method::PUT, "/admin/v1/clients/acme", Some(body)).await;
    assert_eq!(reply.refused().2, "client_id: is not the one in the path");
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_named() {
    let fixture = Fixture::start().await;
    let before = fixture.admin(Method::GET, "/admin/v1/clients/acme", None).await.ok();
    let mut body = before.clone();
    (body["colour"], body["business"][0]["opening_hours"]) = (json!("red"), json!({"monday": "9-17"}));
    let put = fixture.admin(Method::PUT, "/admin/v1/clients/acme", Some(body)).await.ok();
    assert_eq!((&put["client"], &put["made"]), (&before, &json!([])));
    assert_eq!(put["ignored"], json!(["client[0].business[0].opening_hours", "client[0].colour"]));
    // Not in the twin of a file.
    let body = json!({"ect": [{"ect_id": "new", "fqdn": "new.example", "may_tkae": true}], "etc": []});
    let reply = fixture.admin(Method::POST, "/admin/v1/apply", Some(body)).await;
    assert!(
        reply.refused().2.contains("ect[0].may_tkae") && reply.refused().2.contains("etc"),
        "{:?}",
        reply.refused()
    );
}

#[tokio::test]
async fn what_threads_use_is_removed_only_by_force() {
    let fixture = Fixture::start().await;
    fixture.user().await;
    let delete = async |path: &str| fixture.admin(Method::DELETE, path, None).await;
    for path in ["/admin/v1/clients/acme", "/admin/v1/clients/acme/businesses/343"] {
        let reply = delete(path).await;
        assert_eq!((reply.refused().0, reply.refused().1, &reply.body["count"]), (409, "in_use", &json!(1)));
    }
    assert_eq!(delete("/admin/v1/clients/acme?force=maybe").await.refused().0, 400);
    delete("/admin/v1/ects/held").await.ok();
    delete("/admin/v1/clients/acme/businesses/344").await.ok();
    delete("/admin/v1/clients/acme?force=true").await.ok();
    assert_eq!(delete("/admin/v1/clients/acme").await.refused().0, 404);
}

#[tokio::test]
async fn tokens_are_issued_for_receivers_only() {
    let fixture = Fixture::start().await;
    let issue = async |body: Value| fixture.admin(Method::POST, "/admin/v1/tokens", Some(body)).await;
    let issued = issue(json!({"client_id": "acme", "receiver": "sprinkle", "ttl_seconds": 60})).await.ok();
    assert_eq!((&issued["token_type"], &issued["expires_in"]), (&json!("Bearer"), &json!(60)));
    let authorization = format!("Bearer {}", issued["token"].as_str().unwrap());
    let list =
        async || fixture.call(Method::GET, "/tract/hooks/list", &[("authorization", &authorization)], None).await;
    assert_eq!(list().await.status, 200);
    fixture.advance(60_000);
    assert_eq!(list().await.status, 401);
    assert_eq!(issue(json!({"client_id": "acme", "receiver": "sac"})).await.ok()["expires_in"], 3600);
    assert_eq!(issue(json!({"client_id": "nobody", "receiver": "sac"})).await.refused().1, "unknown_client");
    assert_eq!(issue(json!({"client_id": "other", "receiver": "held"})).await.refused().0, 400);
    assert_eq!(issue(json!({"client_id": "acme", "receiver": "sac", "ttl_seconds": 0})).await.refused().0, 400);
}

#[tokio::test]
async fn threads_are_found_and_shown_with_their_feed() {
    let fixture = Fixture::start().await;
    let user = fixture.user().await;
    fixture.says("hi").await;
    let find = async |query: &str| {
        let found = fixture.admin(Method::GET, &format!("/admin/v1/threads?{query}"), None).await.ok();
        found["threads"].as_array().unwrap().len()
    };
    for (query, count) in [
        ("", 1),
        ("client_id=acme&state=bot&active=iva&limit=5", 1),
        ("q=kim", 1),
        (&*format!("q={}", &user[..user.len() - 1]), 1),
        ("client_id=other", 0),
        ("state=complete", 0),
        ("active=sprinkle", 0),
    ] {
        assert_eq!(find(query).await, count, "{query}");
    }
    for query in ["state=lost", "limit=501", "client_id=a%20b"] {
        assert_eq!(fixture.admin(Method::GET, &format!("/admin/v1/threads?{query}"), None).await.refused().0, 400);
    }
    let shown = fixture.admin(Method::GET, &format!("/admin/v1/threads/{user}?limit=1"), None).await.ok();
    assert_eq!(
        (&shown["client_id"], &shown["auth_id"], &shown["thread"]["state"]),
        (&json!("acme"), &json!("kim"), &json!("bot"))
    );
    assert_eq!(shown["feed"]["entries"].as_array().unwrap().len(), 1);
    assert_eq!(fixture.admin(Method::GET, "/admin/v1/threads/never-was", None).await.refused().1, "unknown_user");
}
