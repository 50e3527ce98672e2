//! What every route has in common: who may call, what is refused, and how it says so.

use super::*;
use crate::http::auth::Auth;
use crate::http::routes::{Route, table};

fn concrete(path: &str) -> String {
    path.replace("{ect_id}", "sprinkle")
        .replace("{client_id}", "acme")
        .replace("{business_id}", "343")
        .replace("{user_id}", "u")
        .replace("{token}", "t")
        .replace("{uuid}", "00000000-0000-4000-8000-000000000000")
}

fn guarded() -> impl Iterator<Item = Route> {
    table().into_iter().filter(|route| !matches!(route.auth, Auth::Open | Auth::Signed))
}

#[tokio::test]
async fn without_credentials_every_guarded_route_answers_401_in_its_own_shape() {
    let fixture = Fixture::start().await;
    for route in guarded() {
        for path in route.paths().flat_map(|p| [concrete(p), format!("{}/", concrete(p))]) {
            for authorization in ["", "Bearer x.y.z", "Basic abc", "Bearer "] {
                let headers = [("authorization", authorization), ("client-id", "acme")];
                let headers = if authorization.is_empty() { &headers[1..] } else { &headers[..] };
                let body = route.takes.is_some().then(|| json!({}));
                let reply = fixture.call(route.method.clone(), &path, headers, body.as_ref()).await;
                assert_eq!(reply.status, 401, "{path} {authorization}: {}", reply.text);
                let external = path.starts_with("/v1.0/") || path.starts_with("/integration/");
                assert_eq!(reply.body.get("error_message").is_some(), external, "{path}: {}", reply.text);
                assert_eq!(reply.body.get("error").is_some(), !external, "{path}: {}", reply.text);
                if external {
                    assert_eq!(reply.body["error_message"], "invalid authorization details");
                }
                let control = path.starts_with("/tract/thread_control/request");
                assert_eq!(reply.body.get("success") == Some(&json!(false)), control, "{path}: {}", reply.text);
                reply.refused();
                assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer"), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn tokens_of_the_wrong_kind_are_of_no_use() {
    let fixture = Fixture::start().await;
    let receiver = fixture.token("acme", "sprinkle");
    for route in guarded() {
        for (token, opens) in [(receiver.as_str(), Auth::Receiver), (API_TOKEN, Auth::Channel), (ADMIN, Auth::Admin)] {
            let same = route.auth == opens || (route.auth == Auth::Integration && opens == Auth::Channel);
            if same {
                continue;
            }
            let authorization = format!("Bearer {token}");
            let headers = [("authorization", authorization.as_str()), ("client-id", "acme")];
            let reply = fixture.call(route.method.clone(), &concrete(route.path), &headers, Some(&json!({}))).await;
            assert_eq!(reply.status, 401, "{} {}", route.path, reply.text);
        }
    }
}

#[tokio::test]
async fn a_token_is_judged_by_time_client_and_configuration() {
    let fixture = Fixture::start().await;
    let path = "/tract/hooks/list";
    let get = async |token: &str, client: Option<&str>| {
        let authorization = format!("Bearer {token}");
        let mut headers = vec![("authorization", authorization.as_str())];
        headers.extend(client.map(|client| ("client-id", client)));
        let reply = fixture.call(Method::GET, path, &headers, None).await;
        (reply.status, reply.body["code"].as_str().unwrap_or_default().to_owned())
    };
    let refused = |code: &str| (401, code.to_owned());
    let token = fixture.token("acme", "sprinkle");
    assert_eq!(get(&token, None).await.0, 200);
    assert_eq!(get(&token, Some("acme")).await.0, 200);
    assert_eq!(get(&token, Some("other")).await, refused("client_mismatch"));
    assert_eq!(get(&fixture.token("other", "held"), None).await, refused("receiver_not_enabled"));
    assert_eq!(get(&fixture.token("nobody", "sprinkle"), None).await, refused("receiver_not_enabled"));
    let (head, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    assert_eq!(get(&forged, None).await, refused("token_invalid"));
    fixture.advance(3_599_000);
    assert_eq!(get(&token, None).await.0, 200);
    fixture.advance(1_000);
    assert_eq!(get(&token, None).await, refused("token_expired"));
}

#[tokio::test]
async fn wrong_methods_and_paths() {
    let fixture = Fixture::start().await;
    let reply = fixture.call(Method::GET, "/tract/message/send/", &[], None).await;
    assert_eq!(reply.refused().0, 405);
    assert_eq!((reply.refused().1, reply.header("allow")), ("method_not_allowed", Some("POST")));
    let reply = fixture.call(Method::DELETE, "/v1.0/user", &[], None).await;
    assert!(reply.header("allow").is_some_and(|allow| allow.contains("POST") && allow.contains("PUT")));
    assert!(reply.body["error_message"].is_string());
    for path in ["/", "/tract", "/tract/nothing", "/admin/v1/nothing/", "/v1.0/nothing", "/%FF"] {
        assert_eq!(fixture.call(Method::GET, path, &[], None).await.refused().0, 404, "{path}");
    }
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be() {
    let fixture = Fixture::start().await;
    let authorization = format!("Bearer {}", fixture.token("acme", "sprinkle"));
    let send = async |content_type: Option<&str>, body: Vec<u8>| {
        let mut request = Request::post("/tract/message/send/").header("authorization", &authorization);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let reply = fixture.send(request.body(Body::from(body)).unwrap()).await;
        let (status, code, text) = reply.refused();
        (status, code.to_owned(), text.to_owned())
    };
    let json = Some("application/json");
    let is = |(status, code, _): (u16, String, String), expected: (u16, &str)| {
        assert_eq!((status, code.as_str()), expected);
    };
    is(send(None, b"{}".to_vec()).await, (415, "unsupported_media_type"));
    is(send(Some("text/plain"), b"{}".to_vec()).await, (415, "unsupported_media_type"));
    is(send(json, vec![b' '; 256 * 1024 + 1]).await, (413, "body_too_large"));
    is(send(json, b"not json".to_vec()).await, (400, "malformed_json"));
    is(send(json, b"\xff\xfe".to_vec()).await, (400, "malformed_json"));
    is(send(json, "{\"a\":".repeat(40_000).into_bytes()).await, (400, "malformed_json"));
    let (_, code, text) = send(json, b"{}".to_vec()).await;
    assert_eq!((code.as_str(), text.as_str()), ("invalid_field", "user_id: is missing"));
    let body = json!({"user_id": "u", "message_body": "x".repeat(65_537), "sender": "aeu"});
    let (_, _, text) = send(json, body.to_string().into_bytes()).await;
    assert_eq!(text, "message_body: must be at most 65536 bytes long");
}

#[tokio::test]
async fn request_ids_are_taken_over_or_made() {
    let fixture = Fixture::start().await;
    let id = async |given: &str| {
        let reply = fixture.call(Method::GET, "/healthz", &[("x-request-id", given)], None).await;
        reply.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id("my-request").await, "my-request");
    assert_ne!(id("not visible").await, "not visible");
    let reply = fixture.call(Method::GET, "/nothing", &[("x-request-id", "r-9")], None).await;
    assert_eq!(reply.body["request_id"], "r-9");
}

#[tokio::test]
async fn the_pages_of_operation_and_documentation() {
    let fixture = Fixture::start().await;
    let get = async |path: &str| fixture.call(Method::GET, path, &[], None).await;
    assert_eq!(get("/healthz/").await.ok()["status"], "ok");
    assert_eq!(get("/readyz").await.ok()["status"], "ok");
    let metrics = get("/metrics").await;
    assert_eq!((metrics.status, metrics.header("content-type").unwrap().starts_with("text/plain")), (200, true));
    assert_eq!(get("/openapi.json").await.ok()["openapi"], "3.1.0");
    let redirect = get("/docs").await;
    assert_eq!((redirect.status, redirect.header("location")), (308, Some("/docs/")));
    let page = get("/docs/").await;
    assert!(page.text.contains("swagger-ui"), "{}", page.text);
    assert!(get("/docs/swagger-initializer.js").await.text.contains("/openapi.json"));
    assert_eq!(get("/docs/nothing").await.status, 404);
    fixture.edge.readiness.drain();
    let reply = get("/readyz").await;
    assert_eq!(reply.refused(), (503, "not_ready", "not ready: it is shutting down"));
    assert_eq!(get("/healthz").await.status, 200);
}

/// Whoever answers for threads may panic; the caller gets a 500 and the next one is served.
#[tokio::test]
async fn a_panic_is_a_500() {
    struct Panics;
    #[async_trait]
    impl Threads for Panics {
        async fn ask(&self, _: Ask) -> Result<Answer, Failure> {
            panic!("on purpose")
        }
    }
    let mut fixture = Fixture::start().await;
    let edge = Edge {
        deliverer: Arc::clone(&fixture.edge.deliverer),
        breakers: Arc::clone(&fixture.edge.breakers),
        threads: Arc::new(Panics),
        store: Arc::clone(&fixture.edge.store),
        tenancy: Arc::clone(&fixture.edge.tenancy),
        tokens: Arc::clone(&fixture.edge.tokens),
        signed: Arc::clone(&fixture.edge.signed),
        files: desk(),
        rates: crate::security::rates::Rates::new(0),
        clock: Arc::clone(&fixture.edge.clock),
        admin_token: Secret::new(ADMIN),
        egress: EgressRules::default(),
        metrics: telemetry::detached().unwrap(),
        readiness: Readiness::default(),
        node_id: "n1".to_owned(),
        waiting: tokio::sync::Semaphore::new(crate::http::sync::WAITING),
        started_at: tract_domain::Timestamp(0),
    };
    fixture.service = service(Arc::new(edge));
    let body = json!({"user_id": "u", "message_body": "hi", "sender": "aeu"});
    let reply = fixture.tool("sprinkle", "/tract/message/send", body).await;
    assert_eq!((reply.refused().0, reply.refused().1), (500, "internal"));
    assert!(!reply.text.contains("on purpose"));
    assert_eq!(fixture.call(Method::GET, "/healthz", &[], None).await.status, StatusCode::OK.as_u16());
}
