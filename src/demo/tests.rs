//! The samples against a router of paper: it records what it is told and reads out a prepared feed.

use super::{
    DemoError, Options, play,
    samples::{
        ect::{self, Report, SampleEct},
        iva,
        webhook::{self, Fault, Recent, words},
    },
    screen::Screen,
};
use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::State,
    http::{HeaderMap, Request, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc};
use tower::ServiceExt;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Headers as the contract has them; the first signature is made by somebody else's library.
fn signed(secret: &str, id: &str, at: u64, body: &[u8]) -> HeaderMap {
    let oracle = standardwebhooks::Webhook::new(secret).unwrap();
    let signature = oracle.sign(id, at as i64, body).unwrap();
    let hub = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body).finalize();
    let hub: String = hub.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", id.parse().unwrap());
    headers.insert("webhook-timestamp", at.to_string().parse().unwrap());
    headers.insert("webhook-signature", signature.parse().unwrap());
    headers.insert("x-hub-signature", format!("sha1={hub}").parse().unwrap());
    headers
}

#[test]
fn a_genuine_webhook_is_believed_and_nothing_else_is() {
    let body = br#"{"user_id":"u"}"#;
    let good = signed(SECRET, "msg_1", 1_700_000_000, body);
    let verify = |secret: &str, headers: &HeaderMap, body: &[u8], now| webhook::verify(secret, headers, body, now);
    assert_eq!(verify(SECRET, &good, body, 1_700_000_300), Ok("msg_1".to_owned()));

    assert_eq!(verify(SECRET, &good, body, 1_700_000_301), Err(Fault::Timestamp));
    assert_eq!(verify(SECRET, &good, body, 1_699_999_699), Err(Fault::Timestamp));
    assert_eq!(verify(SECRET, &good, b"{}", 1_700_000_000), Err(Fault::Mismatch("webhook-signature")));
    let other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert_eq!(verify(other, &good, body, 1_700_000_000), Err(Fault::Mismatch("webhook-signature")));

    for name in ["webhook-id", "webhook-timestamp", "webhook-signature", "x-hub-signature"] {
        let mut headers = good.clone();
        headers.remove(name);
        assert_eq!(verify(SECRET, &headers, body, 1_700_000_000), Err(Fault::Header(name)));
    }
    let with = |name: &'static str, value: &str| {
        let mut headers = good.clone();
        headers.insert(name, value.parse().unwrap());
        verify(SECRET, &headers, body, 1_700_000_000)
    };
    // The id and the timestamp are signed too.
    assert_eq!(with("webhook-id", "msg_2"), Err(Fault::Mismatch("webhook-signature")));
    assert_eq!(with("webhook-timestamp", "1700000001"), Err(Fault::Mismatch("webhook-signature")));
    for hub in ["sha1=00", "sha1=xyz", "00", "sha1=\u{e9}"] {
        let Err(_) = with("x-hub-signature", hub) else { panic!("{hub} was believed") };
    }
}

#[test]
fn while_a_secret_rotates_either_signature_is_enough() {
    let body = b"{}";
    let (old, new) = (signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "m", 100, body), signed(SECRET, "m", 100, body));
    let mut headers = new.clone();
    let both = [&old, &new].map(|headers| headers["webhook-signature"].to_str().unwrap()).join(" ");
    headers.insert("webhook-signature", both.parse().unwrap());
    headers.insert("x-hub-signature-previous", old["x-hub-signature"].clone());
    assert!(webhook::verify(SECRET, &headers, body, 100).is_ok());
    assert!(webhook::verify("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &headers, body, 100).is_ok());
}

#[test]
fn what_was_seen_is_remembered_within_bounds() {
    let mut recent = Recent::default();
    for id in 0..20_000 {
        recent.put(id.to_string(), id);
    }
    assert_eq!(recent.get("19999"), Some(&19_999));
    assert_eq!(recent.get("0"), None);
}

#[test]
fn words_are_found_in_text_and_in_hsl_however_it_travels() {
    assert_eq!(words(&json!("{not json")), "{not json");
    assert_eq!(words(&json!(r#"{"text":"a","type":"TEXT","data":{}}"#)), "a");
    assert_eq!(words(&json!({"text": "b"})), "b");
    assert_eq!(words(&Value::Null), "");
}

async fn turn(routes: &Router, id: &str, said: &str) -> (StatusCode, Value) {
    let body = json!({
        "event": "API_INTEGRATION", "user": {"user_id": "u"}, "conversation_details": {"turns": 1},
        "message": {"id": 1, "body": said, "type": 0}
    });
    let body = body.to_string();
    let mut request = Request::post("/turn");
    *request.headers_mut().unwrap() = signed(SECRET, id, webhook::unix_now(), body.as_bytes());
    let answer = routes.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = answer.status();
    (status, serde_json::from_slice(&to_bytes(answer.into_body(), 10_000).await.unwrap()).unwrap())
}

#[tokio::test]
async fn the_sample_bot_answers_hands_off_completes_and_repeats_itself_when_asked_again() {
    let settings = iva::Settings { secret: SECRET.into(), colleague: "sprinkle".into() };
    let routes = iva::routes(settings, |_| {});
    let (status, answer) = turn(&routes, "t1", "Hello!").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["response"].as_array().unwrap().len(), 2);
    assert_eq!(answer["conversation_details"]["turns"], 2);
    assert_eq!(turn(&routes, "t1", "a person").await.1, answer, "the same webhook-id gets the same answer");
    assert_eq!(turn(&routes, "t2", "a person").await.1["callback_ops"]["tract_atc"]["receiver"], "sprinkle");
    assert_eq!(turn(&routes, "t3", "bye").await.1["complete"], true);
    assert_eq!(turn(&routes, "t4", "break").await.1["response"], json!([]));

    let unsigned = Request::post("/turn").body(Body::from("{}")).unwrap();
    assert_eq!(routes.oneshot(unsigned).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

/// A call as the paper router saw it.
struct Call {
    path: String,
    key: String,
    body: Value,
}

/// A router that is made of paper.
struct Paper {
    url: String,
    calls: mpsc::UnboundedReceiver<Call>,
}

impl Paper {
    /// Reads out `feed`; the first `event` of each kind is refused with 503 so that it must be repeated.
    async fn start(feed: Value) -> Self {
        #[derive(Clone)]
        struct Desk {
            feed: Arc<Value>,
            told: mpsc::UnboundedSender<Call>,
            refused: Arc<Mutex<bool>>,
        }
        async fn any(State(desk): State<Desk>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
            assert_eq!(headers["authorization"], "Bearer token");
            let answer = match uri.path() {
                "/tract/hooks/register/" => json!({"enabled": true, "secret": SECRET}),
                "/tract/thread/feed/" => json!({"entries": *desk.feed, "next_after": 3}),
                "/tract/message/send/" => json!({"sequence": 6, "control_epoch": 2}),
                "/tract/user/" => json!({"user_id": "u", "user_name": "Priya"}),
                _ => json!({}),
            };
            let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap().to_owned()).unwrap_or_default();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let path = uri.path_and_query().unwrap().to_string();
            desk.told.send(Call { path, key, body }).unwrap();
            if uri.path() == "/tract/events/send" && !std::mem::replace(&mut *desk.refused.lock().unwrap(), true) {
                return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], "{}").into_response();
            }
            Json(answer).into_response()
        }
        let (told, calls) = mpsc::unbounded_channel();
        let desk = Desk { feed: Arc::new(feed), told, refused: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(any).with_state(desk);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, calls }
    }

    /// The next call to this path; the ones before it are skipped.
    async fn next(&mut self, path: &str) -> Call {
        let next = async {
            loop {
                let call = self.calls.recv().await.unwrap();
                if call.path.starts_with(path) {
                    return call;
                }
            }
        };
        let next = tokio::time::timeout(Duration::from_secs(10), next).await;
        next.unwrap_or_else(|_| panic!("no call to {path}"))
    }
}

#[tokio::test]
async fn the_sample_tool_fills_gaps_from_the_feed_and_picks_up_once() {
    let feed = json!([
        {"sequence": 1, "kind": "message", "control_epoch": 1, "conversation_number": "1", "sender": "ceu",
         "message_body": "a person, please", "metadata": {"active": "iva"}},
        {"sequence": 2, "kind": "control", "control_epoch": 2, "conversation_number": "1", "action": "pass",
         "from": "iva", "to": "sprinkle", "cause": "handoff"},
        {"sequence": 3, "kind": "state", "control_epoch": 2, "conversation_number": "1", "from": "bot",
         "to": "incomplete", "cause": "handoff"},
    ]);
    let mut paper = Paper::start(feed).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let public_url = format!("http://{}", listener.local_addr().unwrap());
    let hook = format!("{public_url}/tract");
    let (reported, mut reports) = mpsc::unbounded_channel();
    let settings = ect::Settings {
        router: paper.url.clone(),
        token: "token".into(),
        receiver: "sprinkle".into(),
        public_url,
        secret: None,
    };
    let tool = SampleEct::start(settings, listener, move |report| drop(reported.send(report))).await.unwrap();
    assert_eq!(tool.secret(), SECRET);
    let first = paper.next("/tract/hooks/register/").await;
    assert_eq!(first.body, json!({"category": "message", "subcategory": "receive", "url": hook}));

    // The state arrives first; the message and the hand-off before it are still under way.
    let metadata = json!({"sequence": 3, "control_epoch": 2, "from": "bot", "to": "incomplete"}).to_string();
    let body = json!({"user_id": "u", "conversation_number": "1", "category": "conversation_state",
        "subcategory": "incomplete", "metadata": metadata})
    .to_string();
    let http = reqwest::Client::new();
    let send = |headers: HeaderMap| http.post(&hook).headers(headers).body(body.clone()).send();
    let forged = signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "w1", webhook::unix_now(), body.as_bytes());
    assert_eq!(send(forged).await.unwrap().status(), 401);
    for _ in 0..2 {
        let genuine = signed(SECRET, "w1", webhook::unix_now(), body.as_bytes());
        assert_eq!(send(genuine).await.unwrap().status(), 200);
    }

    assert_eq!(paper.next("/tract/thread/feed/").await.path, "/tract/thread/feed/?user_id=u&after=0&limit=500");
    let refused = paper.next("/tract/events/send").await;
    let received = paper.next("/tract/events/send").await;
    assert_eq!(received.body["subcategory"], "received");
    assert_eq!((received.body, received.key.as_str()), (refused.body, refused.key.as_str()), "repeated as it was");
    let allocated = paper.next("/tract/events/send").await;
    assert_eq!(allocated.body["subcategory"], "allocated");
    assert_eq!(allocated.body["metadata"]["agent_name"], "Asha");
    assert_ne!(allocated.key, received.key);
    let greeting = paper.next("/tract/message/send/").await;
    assert_eq!(greeting.body["control_epoch"], 2, "the fencing token goes along");
    assert_eq!(greeting.body["sender"], "aeu");
    assert!(words(&greeting.body["message_body"]).contains("Priya"));
    assert_eq!(paper.next("/tract/events/send").await.body["subcategory"], "waiting");

    let mut webhooks = Vec::new();
    while let Ok(report) = reports.try_recv() {
        match report {
            Report::Webhook { topic, again, sequence, .. } => webhooks.push((topic, again, sequence)),
            Report::Refused(fault) => assert_eq!(fault, Fault::Mismatch("webhook-signature")),
            _ => {}
        }
    }
    let incomplete = "conversation_state.incomplete".to_owned();
    assert_eq!(webhooks, [(incomplete.clone(), false, Some(3)), (incomplete, true, Some(3))]);
}

#[tokio::test]
async fn a_router_that_cannot_be_used_is_named() {
    let stay = Options { stay: false, ..Options::default() };
    let nowhere = || Screen::new(Box::new(std::io::sink()), false);
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = play(&format!("http://{refused}"), "token", stay.clone(), nowhere()).await.unwrap_err();
    assert!(matches!(&error, DemoError::SetUp(_)), "{error}");
    assert!(error.to_string().starts_with("setting up: /admin/v1/apply: "), "{error}");

    let paper = Paper::start(json!([])).await;
    let error = play(&paper.url, "token", stay, nowhere()).await.unwrap_err();
    assert!(matches!(error, DemoError::NotFresh("api_token")), "{error}");
}
