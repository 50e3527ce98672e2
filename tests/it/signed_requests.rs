//! Signed requests (section 3), as chat tools make them.

mod forged;
mod scene;

use crate::support::ADMIN_TOKEN;
use futures_util::future::Either;
use reqwest::Method;
use scene::{Authority, FQDN, Host, ISSUE, LIST, Page, Scene, Signer, Validity, trust};
use serde_json::{Value, json};

const UUID: &str = "SignatureCertUUID";
const CHAIN: &str = "SignatureCertChainUrl";

#[tokio::test]
async fn every_key_and_hash_obtains_a_token_that_works() {
    let scene = Scene::start().await;
    for kind in ["RSA:2048", "RSA:4096", "EC:P-256", "EC:P-384"] {
        let signer = Signer::new(kind);
        let uuid = scene.hold("sprinkle", &signer.certificate(FQDN, Validity::Now)).await;
        for (hash, algorithm) in [("sha1", None), ("sha1", Some("SHA1")), ("sha256", Some("sha256"))] {
            for path in [ISSUE, "/tract/management/token/issue", "/jwt/issue", "/jwt/issue/"] {
                let body = scene.body(FQDN);
                let signature = signer.sign(hash, body.as_bytes());
                let mut headers = vec![("Signature", signature.as_str()), (UUID, uuid.as_str())];
                headers.extend(algorithm.map(|name| ("Signature-Algorithm", name)));
                let issued = scene.post(path, &body, &headers).await.ok();
                assert_eq!((&issued["token_type"], &issued["expires_in"]), (&json!("Bearer"), &json!(3600)));
                let request = scene.api.request(Method::GET, "/tract/hooks/list/");
                let request = request.bearer_auth(issued["token"].as_str().unwrap()).header("client-id", "acme");
                assert_eq!(scene.api.send(request).await.ok(), json!({"hooks": []}), "{kind} {hash}");
            }
        }
        let wrong_hash = scene.body(FQDN);
        let signature = signer.sign("sha1", wrong_hash.as_bytes());
        let headers = [("Signature", signature.as_str()), (UUID, &uuid), ("Signature-Algorithm", "sha256")];
        scene.post(ISSUE, &wrong_hash, &headers).await.refused(400, "signature_invalid");
    }
    scene.stop().await;
}

#[tokio::test]
async fn a_tool_sees_the_clients_that_have_it_enabled() {
    let scene = Scene::start().await;
    let signer = Signer::new("EC:P-256");
    let uuid = scene.hold("sprinkle", &signer.certificate(FQDN, Validity::Now)).await;
    let clients = scene.signed(LIST, &scene.body("Chat.Sprinkle.EXAMPLE"), &signer, (UUID, &uuid.to_uppercase())).await;
    let expected = json!({"clients": [{"client_id": "acme", "name": "Acme"}, {"client_id": "beta", "name": "Beta"}]});
    assert_eq!(clients.ok(), expected);
    for client in ["others", "closed", "nobody"] {
        let body = scene.body(FQDN).replace("\"acme\"", &format!("\"{client}\""));
        scene.signed(ISSUE, &body, &signer, (UUID, &uuid)).await.refused(400, "client_not_enabled");
    }
    scene.stop().await;
}

#[tokio::test]
async fn each_refusal_has_its_code() {
    let scene = Scene::start().await;
    let signer = Signer::new("EC:P-256");
    let uuid = scene.hold("sprinkle", &signer.certificate(FQDN, Validity::Now)).await;
    let by = (UUID, uuid.as_str());

    // The body.
    let body = scene.body(FQDN);
    let signature = signer.sign("sha256", body.as_bytes());
    let headers = [("Signature", signature.as_str()), ("Signature-Algorithm", "sha256"), by];
    scene.post(ISSUE, &format!("{body} "), &headers).await.refused(400, "signature_invalid");
    for (field, value) in
        [("timestamp", json!("yesterday")), ("timestamp", json!("2026-01-01T00:00:00")), ("fqdn", json!("a b"))]
    {
        let mut odd: Value = serde_json::from_str(&scene.body(FQDN)).unwrap();
        odd[field] = value;
        scene.signed(ISSUE, &odd.to_string(), &signer, by).await.refused(400, "invalid_field");
    }
    scene.signed(ISSUE, r#"{"fqdn":"x.example"}"#, &signer, by).await.refused(400, "invalid_field");
    scene.signed(ISSUE, "[]", &signer, by).await.refused(400, "malformed_json");

    // Headers.
    scene.post(ISSUE, &body, &[("Signature-Algorithm", "sha256"), by]).await.refused(400, "signature_invalid");
    for signature in ["", "not base64!", "AAAA"] {
        let headers = [("Signature", signature), ("Signature-Algorithm", "sha256"), by];
        scene.post(ISSUE, &body, &headers).await.refused(400, "signature_invalid");
    }
    scene.post(ISSUE, &body, &headers[..2]).await.refused(400, "certificate_missing");
    let url = format!("https://{FQDN}/ect.api/x.pem");
    let both = [headers[0], headers[1], by, (CHAIN, url.as_str())];
    scene.post(ISSUE, &body, &both).await.refused(400, "certificate_ambiguous");
    let odd = [headers[0], ("Signature-Algorithm", "md5"), by];
    scene.post(ISSUE, &body, &odd).await.refused(400, "signature_algorithm_not_allowed");

    // Time: 150 s are within, a millisecond more is not.
    for offset in [150_000, -150_000] {
        scene.signed(ISSUE, &scene.body_at(FQDN, offset), &signer, by).await.ok();
    }
    for offset in [150_001, -150_001] {
        let body = scene.body_at(FQDN, offset);
        scene.signed(ISSUE, &body, &signer, by).await.refused(400, "timestamp_out_of_range");
    }

    // The certificate.
    let unknown = (UUID, "00000000-0000-4000-8000-000000000000");
    scene.signed(ISSUE, &scene.body(FQDN), &signer, unknown).await.refused(400, "certificate_unknown");
    scene.signed(ISSUE, &scene.body("modern.example"), &signer, by).await.refused(400, "certificate_unknown");
    scene.signed(ISSUE, &scene.body("nobody.example"), &signer, by).await.refused(400, "certificate_unknown");
    for (name, validity, code) in [
        (FQDN, Validity::Past, "certificate_expired"),
        (FQDN, Validity::Future, "certificate_expired"),
        ("other.example", Validity::Now, "certificate_name_mismatch"),
        ("*.example", Validity::Now, "certificate_name_mismatch"),
    ] {
        let uuid = scene.hold("sprinkle", &signer.certificate(name, validity)).await;
        scene.signed(ISSUE, &scene.body(FQDN), &signer, (UUID, &uuid)).await.refused(400, code);
    }
    let wild = scene.hold("sprinkle", &signer.certificate("*.sprinkle.example", Validity::Now)).await;
    scene.signed(ISSUE, &scene.body(FQDN), &signer, (UUID, &wild)).await.ok();
    let stranger = Signer::new("EC:P-256");
    scene.signed(ISSUE, &scene.body(FQDN), &stranger, by).await.refused(400, "signature_invalid");

    // The tool's own settings.
    let modern = scene.hold("modern", &signer.certificate("modern.example", Validity::Now)).await;
    let body = scene.body("modern.example");
    let signature = signer.sign("sha1", body.as_bytes());
    let headers = [("Signature", signature.as_str()), (UUID, &modern)];
    scene.post(ISSUE, &body, &headers).await.refused(400, "signature_algorithm_not_allowed");
    scene.signed(ISSUE, &body, &signer, (UUID, &modern)).await.ok();
    let off = scene.hold("off", &signer.certificate("off.example", Validity::Now)).await;
    scene.signed(LIST, &scene.body("off.example"), &signer, (UUID, &off)).await.refused(400, "certificate_unknown");
    scene.stop().await;
}

#[tokio::test]
async fn a_request_is_accepted_once_also_after_a_restart() {
    let scene = Scene::start().await;
    let signer = Signer::new("EC:P-256");
    let uuid = scene.hold("sprinkle", &signer.certificate(FQDN, Validity::Now)).await;
    let by = (UUID, uuid.as_str());
    let body = scene.body(FQDN);
    let signature = signer.sign("sha256", body.as_bytes());
    // What is refused for another reason is not remembered.
    let bad = [("Signature", "AAAA"), ("Signature-Algorithm", "sha256"), by];
    scene.post(ISSUE, &body, &bad).await.refused(400, "signature_invalid");
    let headers = [("Signature", signature.as_str()), ("Signature-Algorithm", "sha256"), by, ("Idempotency-Key", "k")];
    scene.post(ISSUE, &body, &headers).await.ok();
    scene.post(ISSUE, &body, &headers).await.refused(400, "replayed_request");
    scene.post(LIST, &body, &headers).await.refused(400, "replayed_request");
    let mut request = scene.api.request(Method::POST, ISSUE).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = request.body(body.clone()).send().await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "1");
    // An ECDSA signature is another one each time; the body is the same.
    scene.signed(ISSUE, &body, &signer, by).await.refused(400, "replayed_request");
    let scene = scene.restart().await;
    scene.post(ISSUE, &body, &headers).await.refused(400, "replayed_request");
    scene.clock.advance(150_000);
    scene.post(ISSUE, &body, &headers).await.refused(400, "replayed_request");
    scene.clock.advance(1);
    scene.post(ISSUE, &body, &headers).await.refused(400, "timestamp_out_of_range");

    let stuck = scene.hold("stuck", &signer.certificate("stuck.example", Validity::Now)).await;
    let body = scene.body("stuck.example");
    for _ in 0..2 {
        scene.signed(ISSUE, &body, &signer, (UUID, &stuck)).await.ok();
    }
    scene.stop().await;
}

#[tokio::test]
async fn of_the_same_request_many_times_at_once_one_is_accepted() {
    let scene = Scene::start().await;
    let signer = Signer::new("EC:P-256");
    let uuid = scene.hold("sprinkle", &signer.certificate(FQDN, Validity::Now)).await;
    let body = scene.body(FQDN);
    let signature = signer.sign("sha256", body.as_bytes());
    let headers = [("Signature", signature.as_str()), ("Signature-Algorithm", "sha256"), (UUID, &uuid)];
    let answers = futures_util::future::join_all((0..24).map(|_| scene.post(ISSUE, &body, &headers))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    scene.stop().await;
}

#[tokio::test]
async fn chains_are_fetched_and_judged() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("strange"));
    let host = Host::start(&authority).await;
    let scene = Scene::trusting(&authority, &host).await;
    let signer = Signer::new("EC:P-256");
    let key = &signer.pair;
    let good = authority.chain(key, FQDN, Validity::Now);
    let pem = |text: String| Page::Is(200, text);
    for (path, page, code) in [
        ("expired", pem(authority.chain(key, FQDN, Validity::Past)), "certificate_expired"),
        ("early", pem(authority.chain(key, FQDN, Validity::Future)), "certificate_expired"),
        ("name", pem(authority.chain(key, "other.example", Validity::Now)), "certificate_name_mismatch"),
        ("alone", pem(authority.leaf(key, FQDN, Validity::Now)), "certificate_untrusted"),
        ("stranger", pem(stranger.chain(key, FQDN, Validity::Now) + &stranger.root), "certificate_untrusted"),
        ("self", pem(signer.certificate(FQDN, Validity::Now)), "certificate_untrusted"),
        (
            "backwards",
            pem(authority.intermediate.clone() + &authority.leaf(key, FQDN, Validity::Now)),
            "certificate_name_mismatch",
        ),
        ("not", pem("hello".to_owned()), "certificate_untrusted"),
        ("empty", pem(String::new()), "certificate_untrusted"),
        ("cut", pem(good[..good.len() / 2].to_owned()), "certificate_untrusted"),
        ("large", pem(good.clone() + &"#\n".repeat(32 * 1024)), "certificate_unavailable"),
        ("missing", Page::Is(404, good.clone()), "certificate_unavailable"),
        ("moved", Page::Is(302, good.clone()), "certificate_unavailable"),
        ("slow", Page::Never, "certificate_unavailable"),
        ("short", Page::Short(good.clone()), "certificate_unavailable"),
        ("half", Page::Unmeasured(good[..good.len() / 2].to_owned()), "certificate_untrusted"),
    ] {
        let url = host.serve(&format!("/ect.api/{path}.pem"), page);
        let reply = scene.signed(ISSUE, &scene.body(FQDN), &signer, (CHAIN, &url)).await;
        assert_eq!((reply.status, reply.body["code"].as_str()), (400, Some(code)), "{path}: {}", reply.body);
    }
    let url = host.serve("/ect.api/unmeasured.pem", Page::Unmeasured(good.clone()));
    scene.signed(ISSUE, &scene.body(FQDN), &signer, (CHAIN, &url)).await.ok();
    let url = host.serve("/ect.api/good.pem", pem(good));
    scene.signed(ISSUE, &scene.body(FQDN), &signer, (CHAIN, &url)).await.ok();
    scene.signed(LIST, &scene.body(FQDN), &signer, (CHAIN, &url)).await.ok();
    let stranger = Signer::new("EC:P-256");
    scene.signed(ISSUE, &scene.body(FQDN), &stranger, (CHAIN, &url)).await.refused(400, "signature_invalid");
    scene.stop().await;
}

#[tokio::test]
async fn a_host_that_never_answers_holds_up_no_other() {
    let authority = Authority::new("ours");
    let (host, silent) = (Host::start(&authority).await, Host::of("modern.example", &authority).await);
    let scene = Scene::with(|egress| {
        trust(egress, &authority, &host);
        trust(egress, &authority, &silent);
    })
    .await;
    let signer = Signer::new("EC:P-256");
    let waiting = futures_util::future::join_all((0..100).map(async |n| {
        let url = silent.serve(&format!("/ect.api/{n}.pem"), Page::Never);
        scene.signed(ISSUE, &scene.body("modern.example"), &signer, (CHAIN, &url)).await
    }));
    let other = Box::pin(async {
        while silent.hits() < 4 {
            tokio::task::yield_now().await;
        }
        let url = host.serve("/ect.api/x.pem", Page::Is(200, authority.chain(&signer.pair, FQDN, Validity::Now)));
        scene.signed(ISSUE, &scene.body(FQDN), &signer, (CHAIN, &url)).await.ok();
        assert_eq!(silent.hits(), 4);
    });
    // Those that wait are refused in the end, but the other need not wait for that.
    match futures_util::future::select(other, Box::pin(waiting)).await {
        Either::Left(_) => {}
        Either::Right((_, other)) => other.await,
    }
    scene.stop().await;
}

#[tokio::test]
async fn a_chain_is_kept_for_an_hour_and_fetched_anew_when_it_fails() {
    let authority = Authority::new("ours");
    let host = Host::start(&authority).await;
    let scene = Scene::trusting(&authority, &host).await;
    let (signer, next) = (Signer::new("EC:P-256"), Signer::new("RSA:2048"));
    let serve = |signer: &Signer| {
        let chain = authority.chain(&signer.pair, FQDN, Validity::Now);
        host.serve("/ect.api/keys.pem", Page::Is(200, chain))
    };
    let url = serve(&signer);
    for (after_ms, hits) in [(0, 1), (0, 1), (3_599_999, 1), (1, 2), (0, 2)] {
        scene.clock.advance(after_ms);
        scene.signed(ISSUE, &scene.body(FQDN), &signer, (CHAIN, &url)).await.ok();
        assert_eq!(host.hits(), hits, "{after_ms}");
    }
    serve(&next);
    scene.signed(ISSUE, &scene.body(FQDN), &next, (CHAIN, &url)).await.refused(400, "signature_invalid");
    assert_eq!(host.hits(), 2, "not within a minute");
    scene.clock.advance(60_000);
    scene.signed(ISSUE, &scene.body(FQDN), &next, (CHAIN, &url)).await.ok();
    assert_eq!(host.hits(), 3);
    scene.stop().await;
}

#[tokio::test]
async fn what_the_url_shows_is_refused_before_anything_is_fetched() {
    let authority = Authority::new("ours");
    let host = Host::start(&authority).await;
    let scene = Scene::trusting(&authority, &host).await;
    let signer = Signer::new("EC:P-256");
    for url in [
        "http://chat.sprinkle.example/ect.api/x.pem",
        "https://notchat.sprinkle.example/ect.api/x.pem",
        "https://sprinkle.example/ect.api/x.pem",
        "https://chat.sprinkle.example:8443/ect.api/x.pem",
        "https://chat.sprinkle.example/ECT.api/x.pem",
        "https://chat.sprinkle.example/ect.api/../x.pem",
        "https://chat.sprinkle.example/ect.api/..%2fx.pem",
        "https://chat.sprinkle.example@127.0.0.1/ect.api/x.pem",
        "https://127.0.0.1/ect.api/x.pem",
        "x",
    ] {
        let reply = scene.signed(ISSUE, &scene.body(FQDN), &signer, (CHAIN, url)).await;
        reply.refused(400, "certificate_url_invalid");
    }
    let url = "https://nobody.example/ect.api/x.pem";
    scene.signed(ISSUE, &scene.body("nobody.example"), &signer, (CHAIN, url)).await.refused(400, "ect_unknown");
    assert_eq!(host.hits(), 0);
    scene.stop().await;
}

#[tokio::test]
async fn a_private_place_is_not_fetched_from() {
    let authority = Authority::new("ours");
    let host = Host::start(&authority).await;
    let scene = Scene::with(|egress| {
        trust(egress, &authority, &host);
        egress.rules.allow_private = false;
    })
    .await;
    let signer = Signer::new("EC:P-256");
    let chain = authority.chain(&signer.pair, FQDN, Validity::Now);
    let url = host.serve("/ect.api/x.pem", Page::Is(200, chain));
    scene.signed(ISSUE, &scene.body(FQDN), &signer, (CHAIN, &url)).await.refused(400, "certificate_unavailable");
    assert_eq!(host.hits(), 0);
    scene.stop().await;
}

#[tokio::test]
async fn certificates_are_uploaded_listed_and_revoked() {
    let scene = Scene::start().await;
    let signer = Signer::new("EC:P-384");
    let path = "/admin/v1/ects/sprinkle/certificates";
    let pem = signer.certificate(FQDN, Validity::Now);
    let uuid = scene.hold("sprinkle", &pem).await;
    assert_eq!(scene.hold("sprinkle", &pem).await, uuid, "the same one keeps its id");
    let listed = scene.admin(Method::GET, path, None).await.ok();
    let [one] = listed["certificates"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!((&one["uuid"], &one["names"]), (&json!(uuid), &json!([FQDN])));
    assert_eq!(
        (&one["not_before"], &one["not_after"]),
        (&json!("2020-01-01T00:00:00.000Z"), &json!("2090-01-01T00:00:00.000Z"))
    );
    assert_eq!(scene.admin(Method::GET, &format!("{path}/{uuid}"), None).await.ok(), *one);

    let weak = include_str!("../../src/tenancy/tests/rsa-1024.pem");
    for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n", weak] {
        scene.admin(Method::POST, path, Some(json!({"pem": text}))).await.refused(400, "invalid_field");
    }
    let elsewhere = "/admin/v1/ects/nobody/certificates";
    scene.admin(Method::POST, elsewhere, Some(json!({"pem": pem}))).await.refused(404, "unknown_ect");
    scene.admin(Method::GET, elsewhere, None).await.refused(404, "unknown_ect");

    // Those that end within 30 days show in the metrics, until they are revoked.
    let metrics =
        || async { scene.admin(Method::GET, "/metrics", None).await.body.as_str().unwrap_or_default().to_owned() };
    let series = "tract_certificate_expires_seconds{ect=\"sprinkle\"";
    assert!(!metrics().await.contains(series));
    let old = scene.hold("sprinkle", &signer.certificate(FQDN, Validity::Past)).await;
    assert!(metrics().await.contains(&format!("{series},uuid=\"{old}\"}} -")), "{}", metrics().await);
    scene.admin(Method::DELETE, &format!("{path}/{old}"), None).await.ok();
    assert!(!metrics().await.contains(series));

    let by = (UUID, uuid.as_str());
    scene.signed(ISSUE, &scene.body(FQDN), &signer, by).await.ok();
    scene.admin(Method::DELETE, &format!("{path}/{uuid}"), None).await.ok();
    scene.admin(Method::DELETE, &format!("{path}/{uuid}"), None).await.refused(404, "unknown_certificate");
    scene.signed(ISSUE, &scene.body(FQDN), &signer, by).await.refused(400, "certificate_unknown");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_not_ours_obtains_tokens_and_uses_them() {
    let scene = Scene::start().await;
    let python = std::env::var("TRACT_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let url = scene.api.base().to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/clients/signed_request.py");
        std::process::Command::new(python)
            .args([script, "--url", &url, "--admin-token", ADMIN_TOKEN, "--ect", "sprinkle"])
            .args(["--fqdn", FQDN, "--client", "acme"])
            .output()
    });
    let output = ran.await.unwrap().expect("python3 is installed");
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{why}\n(scripts/test installs what is missing)");
    let lines: Vec<_> = said.lines().collect();
    let expected = ["rsa-2048", "ec-p256", "ec-p384"].map(|key| [format!("ok {key} sha1"), format!("ok {key} sha256")]);
    assert_eq!(lines, expected.concat());
    scene.stop().await;
}
