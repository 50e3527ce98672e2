//! Callers without the right to call.

use super::{Call, Case, OTHER, Stage};
use crate::support::{CLIENT, JWT_KEY};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Method;
use serde_json::{Value, json};
use tract::http::auth::Auth;
use tract::http::routes::table;
use tract_actors::ports::Clock;

/// Claims that are right, now.
fn claims(stage: &Stage) -> Value {
    let now = stage.router.clock.now().0 / 1000;
    json!({"iss": "tract", "aud": "tract", "sub": "sprinkle", "client_id": CLIENT, "role": "ect", "iat": now,
        "exp": now + 60, "jti": "j"})
}

fn with(stage: &Stage, name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims(stage);
    claims[name] = value.into();
    claims
}

fn without(stage: &Stage, name: &str) -> Value {
    let mut claims = claims(stage);
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn signed(claims: &Value, algorithm: Algorithm, kid: Option<&str>, secret: &str) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// As the router signs it.
fn issued(claims: &Value) -> String {
    signed(claims, Algorithm::HS256, Some(JWT_KEY.0), JWT_KEY.1)
}

fn parts(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

/// A read and a write with these headers.
fn calls(stage: &Stage, headers: &[(&str, Vec<u8>)]) -> [Call; 2] {
    let body = json!({"user_id": stage.user_id, "sender": "aeu", "message_body": "not from me"});
    let read = format!("/tract/thread/?user_id={}", stage.user_id);
    let calls = [stage.nobody(Method::GET, &read), stage.nobody(Method::POST, "/tract/message/send/").json(&body)];
    calls.map(|call| headers.iter().fold(call, |call, (name, value)| call.header(name, value)))
}

#[tokio::test]
async fn tokens_that_are_not_good() {
    let stage = Stage::set().await;
    let (kid, secret) = JWT_KEY;
    let right = claims(&stage);
    let good = issued(&right);
    let bearer = |token: &str| vec![("authorization", format!("Bearer {token}").into_bytes())];
    for call in calls(&stage, &bearer(&good)).into_iter().take(1) {
        stage.router.api.send(call.request).await.ok();
    }

    let now = stage.router.clock.now().0 / 1000;
    let (head, signature) = good.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{head}.{other}{}", &signature[1..]);
    let hs256 = json!({"alg": "HS256", "typ": "JWT", "kid": kid});
    let none = |alg: &str, signature: &str| parts(&json!({"alg": alg, "typ": "JWT", "kid": kid}), &right, signature);
    let bad = "token_invalid";
    let off = "receiver_not_enabled";
    let tokens: Vec<(&str, String, &'static str, &str)> = vec![
        ("no JWT", "abc".to_owned(), bad, "malformed"),
        ("three empty parts", "..".to_owned(), bad, "malformed"),
        ("two parts", head.to_owned(), bad, "malformed"),
        ("four parts", format!("{good}.x"), bad, "token"),
        ("two words", format!("{good} {good}"), bad, "token"),
        ("another's signature", forged, bad, "signature"),
        ("no signature", format!("{head}."), bad, "signature"),
        (
            "other claims under the signature",
            parts(&hs256, &with(&stage, "sub", "helper"), signature),
            bad,
            "signature",
        ),
        ("another secret", signed(&right, Algorithm::HS256, Some(kid), &secret.to_uppercase()), bad, "signature"),
        ("an empty secret", signed(&right, Algorithm::HS256, Some(kid), ""), bad, "signature"),
        ("another key", signed(&right, Algorithm::HS256, Some("k2"), secret), bad, "key"),
        ("no key", signed(&right, Algorithm::HS256, None, secret), bad, "key"),
        ("HS384", signed(&right, Algorithm::HS384, Some(kid), secret), bad, "algorithm"),
        ("HS512", signed(&right, Algorithm::HS512, Some(kid), secret), bad, "algorithm"),
        ("alg none", none("none", ""), bad, "token"),
        ("alg None", none("None", ""), bad, "token"),
        ("alg none, signed", none("none", signature), bad, "token"),
        ("alg RS256", none("RS256", signature), bad, "algorithm"),
        ("another audience", issued(&with(&stage, "aud", "others")), bad, "not meant for this service"),
        ("no audience", issued(&without(&stage, "aud")), bad, "token"),
        ("another issuer", issued(&with(&stage, "iss", "others")), bad, "not meant for this service"),
        ("expired", issued(&with(&stage, "exp", now - 1)), "token_expired", "expired"),
        ("expires now", issued(&with(&stage, "exp", now)), "token_expired", "expired"),
        ("expired long ago", issued(&with(&stage, "exp", 0)), "token_expired", "expired"),
        ("no end", issued(&without(&stage, "exp")), bad, "malformed"),
        ("an end that is no time", issued(&with(&stage, "exp", "tomorrow")), bad, "malformed"),
        ("no receiver", issued(&without(&stage, "sub")), bad, "malformed"),
        ("an impossible receiver", issued(&with(&stage, "sub", "a b")), bad, "malformed"),
        ("no client", issued(&without(&stage, "client_id")), bad, "malformed"),
        ("an impossible client", issued(&with(&stage, "client_id", "\u{0}")), bad, "malformed"),
        ("another role", issued(&with(&stage, "role", "iva")), bad, "malformed"),
        ("an unknown role", issued(&with(&stage, "role", "admin")), bad, "malformed"),
        ("an unknown receiver", issued(&with(&stage, "sub", "nobody")), off, "not enabled"),
        ("an unknown client", issued(&with(&stage, "client_id", "nobody")), off, "not enabled"),
        (
            "a receiver of another client",
            {
                let mut claims = with(&stage, "client_id", OTHER);
                claims["sub"] = "helper".into();
                issued(&claims)
            },
            off,
            "not enabled",
        ),
        ("the admin token", "the-operator-of-this-test".to_owned(), bad, "malformed"),
    ];
    let mut cases: Vec<Case> = Vec::new();
    let mut case = |what: &str, headers: &[(&str, Vec<u8>)], code, names: &str| {
        for call in calls(&stage, headers) {
            cases.push(call.refused(what, 401, code, names));
        }
    };
    for (what, token, code, names) in tokens {
        case(what, &bearer(&token), code, names);
    }
    case("no token", &[], "token_missing", "Authorization");
    for value in ["", "Bearer", "Bearer ", &good, "Basic YTpi", &format!("Token {good}")] {
        case(value, &[("authorization", value.into())], "token_invalid", "Bearer <token>");
    }
    case("not ASCII", &[("authorization", b"Bearer \xff\xfe".to_vec())], "token_invalid", "Bearer <token>");
    for client in [OTHER, "nobody", "", "ACME", "acme "] {
        let mut headers = bearer(&good);
        headers.push(("client-id", client.into()));
        // A header's value has no blanks at its end.
        if client != "acme " {
            case(&format!("client-id {client:?}"), &headers, "client_mismatch", "client-id");
        }
    }
    let two = [bearer(&good), vec![("client-id", CLIENT.into()), ("client-id", OTHER.into())]].concat();
    case("two client-ids", &two, "client_mismatch", "client-id");
    stage.check(cases).await;
}

#[tokio::test]
async fn a_receiver_that_is_switched_off_has_no_token() {
    let stage = Stage::set().await;
    let router = &stage.router;
    let thread = format!("/tract/thread/?user_id={}", stage.user_id);
    router.helper.get(&thread).await.ok();
    let ect = |enabled: bool| json!({"ect": [{"ect_id": "helper", "fqdn": "helper.example", "enabled": enabled}]});
    router.apply(&ect(false)).await;
    router.helper.get(&thread).await.refused(401, "receiver_not_enabled");
    router.helper.send(&stage.user_id, "aeu", "x").await.refused(401, "receiver_not_enabled");
    router.sprinkle.get(&thread).await.ok();
    router.apply(&ect(true)).await;
    router.helper.get(&thread).await.ok();

    // A client that is switched off, with everybody who acts for it.
    let elsewhere = &stage.elsewhere;
    let there = format!("/tract/thread/?user_id={}", elsewhere.user_id);
    elsewhere.sprinkle.get(&there).await.ok();
    let client = |enabled: bool| {
        json!({"client": [{"client_id": OTHER, "ects": ["sprinkle"], "enabled": enabled,
            "business": [{"business_id": super::OTHER_BUSINESS}]}]})
    };
    router.apply(&client(false)).await;
    elsewhere.sprinkle.get(&there).await.refused(401, "receiver_not_enabled");
    let refusal =
        elsewhere.channel.post("/v1.0/user/", &json!({"auth_id": "x"})).await.refused(401, "authorization_invalid");
    assert_eq!(refusal["error_message"], "invalid authorization details");
    router.sprinkle.get(&thread).await.ok();
    router.apply(&client(true)).await;
    elsewhere.sprinkle.get(&there).await.ok();
}

#[tokio::test]
async fn a_channel_side_with_bad_credentials() {
    let stage = Stage::set().await;
    let token_of = |channel: &crate::support::Channel| {
        let request = channel.request(Method::GET, "/").build().unwrap();
        request.headers()["authorization"].to_str().unwrap().to_owned()
    };
    let (own, others) = (token_of(&stage.router.channel), token_of(&stage.elsewhere.channel));
    let bare = own.strip_prefix("Bearer ").unwrap();
    let external = ["/v1.0/user/", "/v1.0/log_message_from_user/", "/integration/external/v1.0/send_chat_to_agent/"];
    let mut cases = Vec::new();
    for (path, body) in stage.good().into_iter().filter(|(path, _)| external.contains(path)) {
        let mut case = |what: &str, authorization: Option<&str>, client: Option<&str>| {
            let mut call = stage.nobody(Method::POST, path).json(&body);
            for (name, value) in [("authorization", authorization), ("client-id", client)] {
                if let Some(value) = value {
                    call = call.header(name, value);
                }
            }
            cases.push(call.refused(what, 401, "authorization_invalid", "invalid authorization details"));
        };
        case("nothing", None, None);
        case("no token", None, Some(CLIENT));
        case("no client", Some(&own), None);
        case("an empty client", Some(&own), Some(""));
        case("another client", Some(&own), Some(OTHER));
        case("another client's token", Some(&others), Some(CLIENT));
        case("an unknown client", Some(&own), Some("nobody"));
        case("an impossible client", Some(&own), Some("a b"));
        case("a wrong token", Some("Bearer tract_wrong"), Some(CLIENT));
        case("a token too long", Some(&format!("{own}x")), Some(CLIENT));
        case("no token behind Bearer", Some("Bearer "), Some(CLIENT));
        case("another scheme", Some(&format!("Basic {bare}")), Some(CLIENT));
        if path.starts_with("/v1.0/") {
            case("without Bearer", Some(bare), Some(CLIENT));
        }
        let two = stage.nobody(Method::POST, path).json(&body).header("authorization", &own);
        let two = two.header("client-id", CLIENT).header("client-id", OTHER);
        cases.push(two.refused("two clients", 401, "authorization_invalid", "invalid authorization details"));
    }
    stage.check(cases).await;
}

#[tokio::test]
async fn the_admin_api_is_the_operators() {
    let stage = Stage::set().await;
    let receiver = issued(&claims(&stage));
    let mut cases = Vec::new();
    for route in table().into_iter().filter(|route| route.auth == Auth::Admin) {
        let path =
            route.path.replace("{ect_id}", "helper").replace("{client_id}", CLIENT).replace("{business_id}", "343");
        let path = path.replace("{user_id}", &stage.user_id);
        let mut case = |what: &str, authorization: Option<&str>, code| {
            let mut call = stage.nobody(route.method.clone(), &path).json(&json!({}));
            if let Some(value) = authorization {
                call = call.header("authorization", value);
            }
            cases.push(call.refused(format!("{} {what}", route.method), 401, code, ""));
        };
        case("no token", None, "token_missing");
        case("a wrong token", Some("Bearer wrong"), "token_invalid");
        case("a longer token", Some("Bearer the-operator-of-this-test!"), "token_invalid");
        case("a shorter token", Some("Bearer the-operator-of-this-tes"), "token_invalid");
        case("no scheme", Some("the-operator-of-this-test"), "token_invalid");
        case("a receiver's token", Some(&format!("Bearer {receiver}")), "token_invalid");
    }
    stage.check(cases).await;
}
