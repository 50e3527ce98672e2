//! `tract conformance` against endpoints that are right, and against one for each way of being wrong: the report names
//! what is wrong, and nothing else.

use crate::support::{Fixture, Peer, Received};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tract::demo::samples::{
    ect::{self, SampleEct},
    webhook,
};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// One delivery, as an endpoint sees it.
struct Delivery {
    headers: HeaderMap,
    raw: Bytes,
    body: Value,
}

impl Delivery {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
    fn genuine(&self) -> bool {
        webhook::verify(SECRET, &self.headers, &self.raw, webhook::unix_now()).is_ok()
    }
}

/// What an endpoint answers; none: it never does.
type Behaviour = dyn Fn(&Delivery) -> Option<Response> + Send + Sync;

/// Somebody's endpoint. Stops when dropped.
struct Endpoint {
    url: String,
    server: JoinHandle<()>,
}

impl Endpoint {
    /// It answers as this says.
    async fn that(behaves: impl Fn(&Delivery) -> Option<Response> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks?key=in-the-query", listener.local_addr().unwrap());
        let behaviour: Arc<Behaviour> = Arc::new(behaves);
        let routes = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(behaviour);
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, server }
    }

    /// It verifies as the sample does; what is genuine is answered as this says, else with 200.
    async fn verifying(behaves: impl Fn(&Delivery) -> Option<Response> + Send + Sync + 'static) -> Self {
        Self::that(
            move |delivery| {
                if delivery.genuine() { behaves(delivery).or_else(fine) } else { status(StatusCode::UNAUTHORIZED) }
            },
        )
        .await
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(behaviour): State<Arc<Behaviour>>, headers: HeaderMap, raw: Bytes) -> Response {
    let body = serde_json::from_slice(&raw).unwrap_or_default();
    match behaviour(&Delivery { headers, raw, body }) {
        Some(answer) => answer,
        None => std::future::pending().await,
    }
}

fn fine() -> Option<Response> {
    Some(Json(json!({})).into_response())
}

fn status(status: StatusCode) -> Option<Response> {
    Some(status.into_response())
}

/// Runs the program, as an integrator does.
async fn tract(url: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tract"));
    command.args(["conformance", "--url", url]).args(more).env_remove("TRACT_CONFORMANCE_SECRET");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// A report, and the error line if there was one.
struct Checked {
    report: Value,
    error: Option<String>,
}

impl Checked {
    async fn with(url: &str, more: &[&str]) -> Self {
        let output = tract(url, &[&["--json"], more].concat()).await;
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("not JSON:\n{out}\n{err}"));
        assert!(!out.contains(SECRET) && !err.contains(SECRET) && !out.contains("in-the-query"));
        let errors: Vec<_> = err.lines().filter(|line| line.starts_with("tract: ")).collect();
        assert_eq!(errors.len(), usize::from(!output.status.success()), "{err}");
        assert_eq!(report["passed"], output.status.success());
        Self { report, error: errors.first().map(|line| (*line).to_owned()) }
    }

    /// With the endpoint's secret.
    async fn of(endpoint: &Endpoint) -> Self {
        Self::with(&endpoint.url, &["--secret", SECRET]).await
    }

    fn checks(&self, result: &str) -> Vec<&str> {
        let checks = self.report["checks"].as_array().unwrap().iter().filter(|check| check["result"] == result);
        checks.map(|check| check["check"].as_str().unwrap()).collect()
    }

    /// What failed, by check and kind of problem.
    fn failures(&self) -> BTreeSet<(&str, &str)> {
        self.findings(true)
    }

    /// Warnings, without those of a machine that has much else to do.
    fn warnings(&self) -> BTreeSet<(&str, &str)> {
        self.findings(false).into_iter().filter(|(check, _)| *check != "latency").collect()
    }

    fn findings(&self, fails: bool) -> BTreeSet<(&str, &str)> {
        let checks = self.report["checks"].as_array().unwrap();
        let found = checks.iter().flat_map(|check| {
            let findings = check["findings"].as_array().unwrap().iter().filter(move |f| f["fails"] == fails);
            findings.map(|f| (check["check"].as_str().unwrap(), f["problem"].as_str().unwrap()))
        });
        found.collect()
    }

    fn assert_fails(&self, expected: &[(&str, &str)]) {
        assert_eq!(self.failures(), expected.iter().copied().collect(), "{:#}", self.report);
        assert!(self.warnings().is_empty(), "{:#}", self.report);
        let named: BTreeSet<_> = expected.iter().map(|(check, _)| *check).collect();
        let error = self.error.as_deref().expect("an error line");
        let told: BTreeSet<_> =
            error.strip_prefix("tract: the endpoint does not handle: ").expect(error).split(", ").collect();
        assert_eq!(told, named);
    }

    fn assert_passes(&self) {
        assert_eq!((self.failures(), self.error.as_deref()), (BTreeSet::new(), None), "{:#}", self.report);
    }
}

#[tokio::test]
async fn the_sample_tool_handles_everything() {
    // The sample asks a router for its hooks, which tells it the secret, and later for feeds, which there are not.
    let router = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let router_url = format!("http://{}", router.local_addr().unwrap());
    let routes = Router::new().fallback(|uri: Uri| async move {
        match uri.path() {
            "/tract/hooks/register/" => Json(json!({"secret": SECRET})).into_response(),
            _ => (StatusCode::NOT_FOUND, Json(json!({"code": "unknown_user"}))).into_response(),
        }
    });
    let server = tokio::spawn(async move { axum::serve(router, routes).await.unwrap() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let public_url = format!("http://{}", listener.local_addr().unwrap());
    let url = format!("{public_url}/tract");
    let settings = ect::Settings {
        router: router_url,
        token: "token".into(),
        receiver: "sprinkle".into(),
        public_url,
        secret: None,
    };
    let tool = SampleEct::start(settings, listener, drop).await.unwrap();

    let checked = Checked::with(&url, &["--secret", SECRET]).await;
    checked.assert_passes();
    assert!(checked.warnings().is_empty() && checked.checks("not_checked").is_empty(), "{:#}", checked.report);
    assert!(checked.report["deliveries"].as_u64().is_some_and(|n| n > 80), "{:#}", checked.report);
    let signatures = &checked.report["checks"][10];
    assert_eq!(signatures["notes"], json!(["it verifies webhook-signature and X-Hub-Signature, both"]));

    let text = tract(&url, &["--secret", SECRET]).await;
    let out = String::from_utf8(text.stdout).unwrap();
    assert!(text.status.success() && out.contains("  ok    duplicates: takes the same delivery twice\n"), "{out}");
    drop(tool);
    server.abort();
}

/// What a delivery looks like: names of headers, and of fields, its metadata's included.
fn shape(delivery: &Received) -> (BTreeSet<String>, BTreeSet<String>) {
    let headers = delivery.headers.keys().map(ToString::to_string);
    let names = |value: &Value| value.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let of_metadata = names(&delivery.metadata()).into_iter().map(|name| format!("metadata.{name}"));
    (headers.collect(), names(&delivery.body).into_iter().chain(of_metadata).collect())
}

#[tokio::test]
async fn what_is_sent_looks_as_what_a_router_sends() {
    let router = Fixture::start().await;
    router.customer("+49 170 3").await;
    router.channel.say("+49 170 3", "hello").await;
    let endpoint = Peer::start("endpoint").await;
    Checked::with(&endpoint.url(), &[]).await.assert_passes();
    let sent = endpoint.seen();
    for topic in ["message.receive", "conversation_state.bot", "user_events.create_user"] {
        let genuine = router.desk.wait_for(topic, |_| true).await;
        let same = sent.iter().any(|played| played.topic == topic && shape(played) == shape(&genuine));
        let first = sent.iter().find(|played| played.topic == topic).map(shape);
        assert!(same, "{topic}: {first:?} is not {:?}", shape(&genuine));
    }
    router.stop().await;
}

#[tokio::test]
async fn who_does_not_verify_is_told_so() {
    let endpoint = Endpoint::that(|_| fine()).await;
    Checked::of(&endpoint).await.assert_fails(&[("signatures", "not_verified")]);

    let without = Checked::with(&endpoint.url, &[]).await;
    without.assert_passes();
    assert_eq!(without.checks("not_checked"), ["signatures", "rotation"]);
    assert_eq!(without.report["checks"][10]["because"], "no --secret");
}

#[tokio::test]
async fn who_refuses_everything_is_asked_for_its_secret() {
    let endpoint = Endpoint::verifying(|_| fine()).await;
    let checked = Checked::with(&endpoint.url, &[]).await;
    checked.assert_fails(&[("answers", "bad_status")]);
    assert!(checked.report["checks"][1]["notes"][0].as_str().unwrap().contains("give its secret with --secret"));
    assert_eq!(checked.checks("not_checked").len(), 12, "the rest cannot be judged");
    let other = Checked::with(&endpoint.url, &["--secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).await;
    assert!(other.report["checks"][1]["notes"][0].as_str().unwrap().contains("is that the one"), "{:#}", other.report);
}

#[tokio::test]
async fn who_verifies_the_published_signature_only_is_warned_of_recordings() {
    let hub = |delivery: &Delivery, name: &str| {
        use hmac::{Hmac, KeyInit, Mac};
        let mac = Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(&delivery.raw);
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        delivery.header(name) == format!("sha1={hex}")
    };
    let both = Endpoint::that(move |delivery| {
        let genuine = hub(delivery, "x-hub-signature") || hub(delivery, "x-hub-signature-previous");
        if genuine { fine() } else { status(StatusCode::FORBIDDEN) }
    });
    let checked = Checked::of(&both.await).await;
    checked.assert_passes();
    assert_eq!(checked.warnings(), BTreeSet::from([("signatures", "old_taken")]));

    // Who does not know of the second secret loses a day of webhooks, or verifies nothing meanwhile.
    let newest = Endpoint::that(
        move |delivery| {
            if hub(delivery, "x-hub-signature") { fine() } else { status(StatusCode::FORBIDDEN) }
        },
    );
    let checked = Checked::of(&newest.await).await;
    assert_eq!(checked.failures(), BTreeSet::from([("rotation", "bad_status")]), "{:#}", checked.report);
}

#[tokio::test]
async fn a_conflict_about_what_was_there_before_is_told() {
    let seen = Mutex::new(BTreeSet::new());
    let endpoint = Endpoint::verifying(move |delivery| {
        let new = seen.lock().unwrap().insert(delivery.header("webhook-id").to_owned());
        if new { None } else { status(StatusCode::CONFLICT) }
    });
    // A retry of what was received after all is a duplicate too.
    let checked = Checked::of(&endpoint.await).await;
    checked.assert_fails(&[("duplicates", "bad_status"), ("retries", "bad_status")]);
    let finding = &checked.report["checks"][3]["findings"][0];
    assert_eq!(finding["case"], "message.receive, the second time");
    assert_eq!(finding["detail"], "answered 409");
}

#[tokio::test]
async fn who_never_answers_is_told_so_at_once() {
    let endpoint = Endpoint::that(|_| None).await;
    let checked = Checked::with(&endpoint.url, &["--secret", SECRET, "--timeout", "300ms"]).await;
    checked.assert_fails(&[("answers", "too_slow")]);
    assert_eq!(checked.report["checks"][1]["findings"][0]["detail"], "no answer within 300 ms");
    assert_eq!((checked.report["deliveries"].clone(), checked.checks("not_checked").len()), (json!(1), 12));
}

#[tokio::test]
async fn who_is_slow_with_something_is_told_with_what() {
    let slow = |delivery: &Delivery| delivery.raw.len() > 200 * 1024;
    let endpoint = Endpoint::that(move |delivery| {
        if !delivery.genuine() {
            status(StatusCode::UNAUTHORIZED)
        } else if slow(delivery) {
            None
        } else {
            fine()
        }
    });
    let checked = Checked::with(&endpoint.await.url, &["--secret", SECRET, "--timeout", "2s"]).await;
    checked.assert_fails(&[("contents", "too_slow")]);
    assert_eq!(checked.checks("not_checked"), Vec::<&str>::new(), "it goes on");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let moved = || (StatusCode::FOUND, [("location", "/elsewhere")]).into_response();
    let endpoint = Endpoint::that(move |_| Some(moved())).await;
    let checked = Checked::of(&endpoint).await;
    checked.assert_fails(&[("answers", "redirect")]);
    assert_eq!(checked.report["deliveries"], 1);
}

#[tokio::test]
async fn gone_is_gone() {
    let endpoint = Endpoint::that(|_| status(StatusCode::GONE)).await;
    let checked = Checked::of(&endpoint).await;
    checked.assert_fails(&[("answers", "gone")]);
    assert!(checked.report["checks"][1]["findings"][0]["detail"].as_str().unwrap().contains("disabled at once"));
}

#[tokio::test]
async fn what_breaks_on_an_unknown_subcategory_is_named() {
    let known = |subcategory: &str| ect::HOOKS.iter().any(|(_, known)| *known == subcategory);
    let endpoint = Endpoint::verifying(move |delivery| {
        let subcategory = delivery.body["subcategory"].as_str().unwrap_or("receive");
        let trace = || (StatusCode::INTERNAL_SERVER_ERROR, "\u{1b}[31mKeyError\n".repeat(1000)).into_response();
        (!known(subcategory)).then(trace)
    });
    let checked = Checked::of(&endpoint.await).await;
    checked.assert_fails(&[("unknown", "bad_status")]);
    let findings = checked.report["checks"][7]["findings"].as_array().unwrap();
    assert_eq!((findings.len(), &findings[0]["case"]), (1, &json!("an event of an unknown subcategory")));
    let detail = findings[0]["detail"].as_str().unwrap();
    assert!(detail.starts_with("answered 500, saying: [31mKeyError") && detail.len() < 250, "{detail}");
}

#[tokio::test]
async fn what_is_not_there_is_one_clear_line() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let checked = Checked::with(&format!("http://{nobody}/"), &["--secret", SECRET]).await;
    assert_eq!(checked.failures(), BTreeSet::from([("answers", "unreachable")]));
    let line = checked.error.unwrap();
    assert!(line.starts_with("tract: cannot reach the endpoint: could not connect"), "{line}");
}

/// A request that is being worked on; also one whose sender hung up ends some day.
struct UnderWay(Arc<AtomicU32>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn who_has_not_enough_hands_is_told() {
    let under_way = Arc::new(AtomicU32::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let routes = Router::new().fallback(move |headers: HeaderMap, raw: Bytes| {
        let under_way = Arc::clone(&under_way);
        async move {
            if webhook::verify(SECRET, &headers, &raw, webhook::unix_now()).is_err() {
                return StatusCode::UNAUTHORIZED;
            }
            let mut crowd = under_way.fetch_add(1, Ordering::SeqCst);
            let this = UnderWay(under_way);
            // Others that are there already come to their turn before this goes on.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
                crowd = crowd.max(this.0.load(Ordering::SeqCst) - 1);
            }
            if crowd > 0 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
        }
    });
    let routes = routes.layer(DefaultBodyLimit::disable());
    let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let checked = Checked::with(&url, &["--secret", SECRET]).await;
    checked.assert_fails(&[("concurrency", "bad_status")]);
    server.abort();
}

#[tokio::test]
async fn asking_for_time_and_rejecting_are_warnings() {
    let asked = Mutex::new(false);
    let busy = (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]);
    let endpoint = Endpoint::verifying(move |delivery| {
        if !std::mem::replace(&mut *asked.lock().unwrap(), true) {
            return Some(busy.into_response());
        }
        let created = delivery.body.get("details_available").is_some();
        created.then(|| Json(json!({"error": "no such\nqueue"})).into_response())
    });
    let checked = Checked::of(&endpoint.await).await;
    checked.assert_passes();
    assert_eq!(checked.warnings(), BTreeSet::from([("answers", "busy"), ("rejections", "rejected")]));
    let rejected = &checked.report["checks"][12]["findings"][0];
    assert_eq!(rejected["detail"], "received, but rejected with the error: no such queue");
}

#[tokio::test]
async fn a_url_for_some_hooks_is_sent_no_others() {
    let endpoint = Endpoint::verifying(|delivery| {
        let message = delivery.body["message_id"].is_u64();
        if message { None } else { status(StatusCode::NOT_FOUND) }
    });
    let endpoint = endpoint.await;
    Checked::with(&endpoint.url, &["--secret", SECRET, "--topic", "message.receive"]).await.assert_passes();
    let all = Checked::of(&endpoint).await;
    assert!(all.failures().contains(&("topics", "bad_status")));
}

#[tokio::test]
async fn what_cannot_be_run_is_one_line() {
    for (url, more, expected) in [
        ("nowhere", &[][..], "--url must be an absolute URL"),
        ("https://me:hush@ect.example/", &[], "--url must not contain a user name or password"),
        ("http://127.0.0.1:9/", &["--secret", "whsec_hush!"], "--secret after whsec_ there must be base64"),
        ("http://127.0.0.1:9/", &["--topic", "message.sent"], "must be one of message.receive, "),
        ("http://127.0.0.1:9/", &["--timeout", "soon"], "must be a duration such as"),
    ] {
        let output = tract(url, more).await;
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{url} {more:?}");
        assert!(line.starts_with("tract: ") && line.lines().count() == 1 && line.contains(expected), "{line}");
        assert!(!line.contains("hush"), "{line}");
    }
}
