//! What is wrong with a body as a whole, with its headers, its method and its path.

use super::{Case, Stage};
use futures_util::stream;
use reqwest::Method;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use tract::http::{auth::Auth, routes::table};

const MAX_BODY: usize = 256 * 1024;

/// A path with something in place of its parameters.
fn concrete(path: &str) -> String {
    path.replace("{ect_id}", "sprinkle")
        .replace("{client_id}", "acme")
        .replace("{business_id}", "343")
        .replace("{user_id}", "u")
        .replace("{token}", "t")
}

#[tokio::test]
async fn bodies_that_are_not_json_objects() {
    let stage = Stage::set().await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let user_id = &stage.user_id;
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("empty", b"".to_vec()),
        ("blank", b" \n".to_vec()),
        ("not JSON", b"user_id=1&message_body=hi".to_vec()),
        ("cut off", format!("{{\"user_id\":\"{user_id}\",\"mess").into_bytes()),
        ("open", b"{".to_vec()),
        ("a trailing comma", b"{\"a\":1,}".to_vec()),
        ("single quotes", b"{'a':1}".to_vec()),
        ("bare keys", b"{a:1}".to_vec()),
        ("NaN", b"{\"a\":NaN}".to_vec()),
        ("null", b"null".to_vec()),
        ("a list", b"[{\"user_id\":\"u\"}]".to_vec()),
        ("a list of the fields", json!([user_id, "hello", "aeu"]).to_string().into_bytes()),
        ("a string", b"\"{}\"".to_vec()),
        ("a number", b"1".to_vec()),
        ("invalid UTF-8", b"{\"user_id\":\"\xff\xfe\"}".to_vec()),
        ("overlong UTF-8", b"{\"user_id\":\"\xc0\xaf\"}".to_vec()),
        ("UTF-16", "{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("NUL", b"{\"user_id\":\"a\0b\"}".to_vec()),
        ("nothing but NUL", vec![0; 100]),
        ("a raw line break in a string", b"{\"user_id\":\"a\nb\"}".to_vec()),
        ("10 000 objects deep", deep("{\"a\":", "}").into_bytes()),
        ("10 000 lists deep", format!("{{\"metadata\":{}}}", deep("[", "]")).into_bytes()),
        ("10 000 levels and no end", format!("{{\"a\":{}", "[".repeat(10_000)).into_bytes()),
        ("65 levels", format!("{{\"x\":{}{}}}", "[".repeat(64), "]".repeat(64)).into_bytes()),
    ];
    let mut cases = Vec::new();
    for (path, good) in stage.good() {
        // To rotate a secret nothing needs to be said.
        let said = bodies.iter().filter(|(what, _)| *what != "empty" || path != "/tract/hooks/secret/rotate/");
        for (what, body) in said {
            cases.push(stage.by_path(path).raw(body.clone()).refused(*what, 400, "malformed_json", "the body"));
        }
        for behind in ["{}", " x", "// a comment", ",", "\0"] {
            let body = format!("{good}{behind}");
            cases.push(stage.by_path(path).raw(body).refused(behind, 400, "malformed_json", "the body"));
        }
    }
    for field in
        [r#""user_id":"\ud83d""#, r#""message_body":"\udc00\ud800""#, r#""control_epoch":1e999"#, r#""sender":"\x""#]
    {
        let body = format!("{{{field}}}");
        cases.push(stage.tool("/tract/message/send/").raw(body).refused(field, 400, "malformed_json", "the body"));
    }
    stage.check(cases).await;
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let stage = Stage::set().await;
    let padded = |bytes: usize| {
        let start =
            format!("{{\"user_id\":\"{}\",\"message_body\":\"too large\",\"sender\":\"aeu\",\"pad\":\"", stage.user_id);
        let pad = bytes - start.len() - 2;
        format!("{start}{}\"}}", "x".repeat(pad))
    };
    let mut cases = Vec::new();
    for (path, _) in stage.good() {
        for size in [MAX_BODY + 1, 4 * MAX_BODY] {
            let announced = stage.by_path(path).raw(padded(size));
            cases.push(announced.refused("announced", 413, "body_too_large", "262144 bytes"));
            // Without content-length: only reading it shows its size.
            let text = padded(size).into_bytes();
            let pieces: Vec<_> = text.chunks(10_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
            let chunked = stage.by_path(path).raw(reqwest::Body::wrap_stream(stream::iter(pieces)));
            cases.push(chunked.refused("in chunks", 413, "body_too_large", "262144 bytes"));
        }
    }
    let fits = stage.tool("/tract/user/").raw(padded(MAX_BODY));
    stage.router.api.send(fits.request).await.ok();
    stage.check(cases).await;
}

#[tokio::test]
async fn bodies_that_are_something_else_by_their_headers() {
    let stage = Stage::set().await;
    let mut cases = Vec::new();
    for (path, body) in stage.good() {
        let text = || body.to_string();
        let without = stage.by_path(path).body(text().into_bytes());
        cases.push(without.refused("no content-type", 415, "unsupported_media_type", "application/json"));
        for content_type in [
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "application/json; charset=latin1",
            "application/json; charset=utf-16",
            "json",
            "",
        ] {
            let call = stage.by_path(path).header("content-type", content_type).body(text());
            cases.push(call.refused(content_type, 415, "unsupported_media_type", "application/json"));
        }
    }
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=\"UTF-8\""] {
        let call = stage.tool("/tract/user/").header("content-type", content_type);
        stage.router.api.send(call.body(json!({"user_id": stage.user_id}).to_string()).request).await.ok();
    }
    stage.check(cases).await;
}

#[tokio::test]
async fn methods_and_paths_that_there_are_not() {
    let stage = Stage::set().await;
    let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for route in table() {
        for path in route.paths() {
            for path in [concrete(path), format!("{}/", concrete(path))] {
                methods.entry(path).or_default().insert(route.method.to_string());
            }
        }
    }
    let mut cases: Vec<Case> = Vec::new();
    for (path, known) in &methods {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            if known.contains(method.as_str()) {
                continue;
            }
            let reply = stage.router.api.send(stage.nobody(method.clone(), path).request).await;
            let allow: BTreeSet<_> = reply.header("allow").split(',').map(|m| m.trim().to_owned()).collect();
            assert!(known.is_subset(&allow), "{method} {path}: Allow is {allow:?}, there are {known:?}");
            assert!(!allow.contains(method.as_str()), "{method} {path}: {allow:?}");
            let call = stage.nobody(method.clone(), path);
            cases.push(call.refused(method.to_string(), 405, "method_not_allowed", "method"));
        }
    }
    for path in [
        "/",
        "/tract",
        "/tract/",
        "/tract/message",
        "/tract/message/sends/",
        "/tract/message/send/x",
        "/TRACT/message/send/",
        "/v1.0/",
        "/v1.0/nothing/",
        "/v1.0/users",
        "/integration/external/",
        "/integration/external/v1.0/nothing",
        "/admin/v1/",
        "/admin/v2/clients",
        "/%00",
        "/%ff%fe",
        "/tract/..%2f..%2fetc/passwd",
    ] {
        for method in [Method::GET, Method::POST] {
            let call = stage.nobody(method.clone(), path);
            cases.push(call.refused(method.to_string(), 404, "not_found", "path"));
        }
    }
    stage.check(cases).await;
}

#[tokio::test]
async fn every_path_is_the_same_with_and_without_the_trailing_slash() {
    let stage = Stage::set().await;
    // Nobody's request: it gets to the guard, and no further.
    for route in table() {
        for path in route.paths().map(concrete) {
            let ask = async |path: &str| {
                let call = stage.nobody(route.method.clone(), path).raw("{}").header("x-request-id", "r");
                let mut reply = stage.router.api.send(call.request).await;
                if path.starts_with("/metrics") {
                    reply.body = json!(null);
                }
                (reply.status, reply.body)
            };
            let (with, without) = (ask(&format!("{path}/")).await, ask(&path).await);
            assert_eq!(with, without, "{path}");
            // A signed request has no credentials to be missing: what is wrong with it is a 400.
            let guarded = if route.auth == Auth::Signed { 400 } else { 401 };
            // A link is its own right, and this is none.
            let expected = if path == "/files/t" { with.0 == 404 } else { with.0 == guarded || with.0 == 200 };
            assert!(expected, "{path}: {with:?}");
        }
    }
    let send = json!({"user_id": stage.user_id, "sender": "aeu", "message_body": "both ways"});
    for path in ["/tract/message/send", "/tract/message/send/"] {
        stage.router.sprinkle.post(path, &send).await.ok();
    }
    stage.router.customer_reads(&["before", "both ways", "both ways"]).await;
    stage.router.stop().await;
}
