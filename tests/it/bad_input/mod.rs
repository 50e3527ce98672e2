//! Bad input over HTTP: every refusal has its status and code, names what is wrong, changes nothing and reaches nobody.

mod anything;
mod bodies;
mod callers;
mod fields;
mod files;
mod repeats;
mod strangers;

use crate::support::{CLIENT, Channel, Fixture, Received, Reply, Tenants, Token};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tract::http::{
    auth::Auth,
    routes::{Route, table},
};

/// The customer whose thread the bad input is about.
const AUTH: &str = "+49 170 5";

/// Another client, with the same agent tool.
const OTHER: &str = "globex";
const OTHER_BUSINESS: u64 = 7;

/// Everybody, with a conversation that `sprinkle` holds.
struct Stage {
    router: Fixture,
    user_id: String,
    epoch: u64,
    /// The other client's side of it.
    elsewhere: Elsewhere,
}

struct Elsewhere {
    sprinkle: Token,
    channel: Channel,
    user_id: String,
}

/// Everything that bad input must leave as it is.
#[derive(Debug, PartialEq)]
struct State {
    tenants: Vec<Value>,
    threads: Value,
    feed: Vec<Value>,
    hooks: Vec<Value>,
    seen: [usize; 4],
}

/// A request with its path, which the shape of a refusal depends on.
struct Call {
    path: String,
    request: RequestBuilder,
}

/// A request that must be refused.
struct Case {
    what: String,
    call: Call,
    status: u16,
    code: &'static str,
    names: String,
}

impl Call {
    fn json(self, body: &Value) -> Self {
        Self { request: self.request.json(body), ..self }
    }
    /// This body, as it is, as JSON.
    fn raw(self, body: impl Into<reqwest::Body>) -> Self {
        self.header("content-type", "application/json").body(body)
    }
    fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self { request: self.request.body(body), ..self }
    }
    fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        Self { request: self.request.header(name, value.as_ref()), ..self }
    }
    /// It must be refused so, with a text that names this.
    fn refused(self, what: impl Into<String>, status: u16, code: &'static str, names: impl Into<String>) -> Case {
        Case { what: format!("{} {}", self.path, what.into()), call: self, status, code, names: names.into() }
    }
}

impl Stage {
    async fn set() -> Self {
        let router = Fixture::with(Tenants { client: json!({"sac": true}), ..Tenants::default() }).await;
        let business = json!([{"business_id": OTHER_BUSINESS, "name": "Globex"}]);
        let other = json!({"client_id": OTHER, "ects": ["sprinkle"], "business": business});
        let made = router.apply(&json!({"client": [other]})).await;
        let api_token = made.iter().find(|made| made["kind"] == "api_token").unwrap()["value"].as_str().unwrap();
        let channel = Channel::new(router.api.clone(), OTHER, api_token, OTHER_BUSINESS);
        let there = channel.user(&json!({"auth_id": AUTH})).await;
        channel.say(AUTH, "hello, globex").await;
        let elsewhere = Elsewhere { sprinkle: router.token_for(OTHER, "sprinkle").await, channel, user_id: there };

        let user_id = router.handed_off(AUTH).await;
        let epoch = router.sprinkle.thread(&user_id).await["control_epoch"].as_u64().unwrap();
        let stage = Self { router, user_id, epoch, elsewhere };
        stage.mark("before").await;
        stage
    }

    /// Sends words to the customer and waits until they are everywhere. What was caused before came before them.
    async fn mark(&self, words: &str) {
        self.router.sprinkle.send(&self.user_id, "aeu", words).await.ok();
        self.router.phone.hear("message", words).await;
        let idle = |hooks: &Value| hooks["hooks"].as_array().is_some_and(|all| all.iter().all(|h| h["pending"] == 0));
        self.router.until_get("/tract/hooks/list/", idle).await;
        self.router.second_desk.hear("message.receive", words).await;
    }

    async fn state(&self) -> State {
        let router = &self.router;
        let read = async |path: &str| router.api.send(router.operator(Method::GET, path)).await.ok();
        let hooks = [router.sprinkle.get("/tract/hooks/list/").await, router.iva.get("/tract/hooks/list/").await];
        State {
            tenants: vec![read("/admin/v1/clients").await, read("/admin/v1/ects").await],
            threads: read("/admin/v1/threads").await,
            feed: router.sprinkle.feed(&self.user_id).await,
            hooks: hooks.into_iter().map(Reply::ok).collect(),
            seen: [&router.bot, &router.phone, &router.desk, &router.second_desk].map(|peer| peer.seen().len()),
        }
    }

    /// Sends all of it; each must be refused as it says, and nothing may come of any.
    async fn check(self, cases: Vec<Case>) {
        let before = self.state().await;
        for (number, case) in cases.into_iter().enumerate() {
            self.check_one(&format!("case-{number}"), case).await;
        }
        assert_eq!(self.state().await, before, "nothing changed and nobody was told");
        self.mark("after").await;
        let seen = self.router.phone.seen();
        let words: Vec<_> = seen.iter().filter(|r| r.topic == "message").map(Received::text).collect();
        assert_eq!(words, ["before", "after"], "nothing else reaches the customer");
        assert_eq!(self.router.phone.seen().len(), before.seen[1] + 1);
        self.router.stop().await;
    }

    async fn check_one(&self, request_id: &str, case: Case) {
        let Case { what, call, status, code, names } = case;
        let path = call.path.clone();
        let reply = self.router.api.send(call.header("x-request-id", request_id).request).await;
        assert_eq!((reply.status, reply.body["code"].as_str()), (status, Some(code)), "{what}: {}", reply.body);
        check_shape(&path, request_id, &reply, &what);
        let text = text_of(&path, &reply.body);
        assert!(text.contains(&names), "{what}: {text:?} does not name {names}");
    }

    /// A POST of the agent tool's.
    fn tool(&self, path: &str) -> Call {
        self.tool_call(Method::POST, path)
    }
    fn tool_call(&self, method: Method, path: &str) -> Call {
        Call { path: path.to_owned(), request: self.router.sprinkle.request(method, path) }
    }
    /// A POST of the channel side's.
    fn channel(&self, path: &str) -> Call {
        Call { path: path.to_owned(), request: self.router.channel.request(Method::POST, path) }
    }
    /// A request of the operator's.
    fn operator(&self, method: Method, path: &str) -> Call {
        Call { path: path.to_owned(), request: self.router.operator(method, path) }
    }
    /// A request of nobody's.
    fn nobody(&self, method: Method, path: &str) -> Call {
        Call { path: path.to_owned(), request: self.router.api.request(method, path) }
    }
    /// A POST with the credentials that its path wants.
    fn by_path(&self, path: &str) -> Call {
        match path {
            _ if path.starts_with("/tract/") => self.tool(path),
            _ if path.starts_with("/admin/") => self.operator(Method::POST, path),
            _ => self.channel(path),
        }
    }

    /// A good body for every POST that takes one.
    fn good(&self) -> Vec<(&'static str, Value)> {
        let user_id = &self.user_id;
        let hook = json!({"category": "message", "subcategory": "receive"});
        let mut register = hook.clone();
        register["url"] = "http://127.0.0.1:9/hook".into();
        vec![
            ("/tract/hooks/register/", register),
            ("/tract/hooks/enable/", hook.clone()),
            ("/tract/hooks/test/", json!({"category": "conversation_state", "subcategory": "incomplete"})),
            ("/tract/hooks/secret/rotate/", json!({})),
            (
                "/tract/hooks/replay/",
                json!({"since": "2026-01-01T00:00:00Z", "category": "message", "subcategory": "receive"}),
            ),
            ("/tract/hooks/unregister/", hook),
            ("/tract/user/", json!({"user_id": user_id})),
            ("/tract/user/details/", json!({"user_id": user_id, "details_requested": ["email"]})),
            (
                "/tract/message/send/",
                json!({"user_id": user_id, "message_body": "hello", "sender": "aeu", "metadata": {"agent_name": "Ann"},
                    "control_epoch": self.epoch}),
            ),
            (
                "/tract/events/send/",
                json!({"user_id": user_id, "category": "aeu_events", "subcategory": "allocated",
                    "metadata": {"agent_name": "Ann"}}),
            ),
            ("/tract/thread_control/listeners/", json!({"user_id": user_id})),
            (
                "/tract/thread_control/request/",
                json!({"user_id": user_id, "type": "pass", "requester": "sprinkle", "receiver": "sac",
                    "metadata": {"why": "billing"}, "deadline_seconds": 60, "control_epoch": self.epoch,
                    "offer_id": "an-offer"}),
            ),
            (
                "/v1.0/user/",
                json!({"auth_id": "somebody", "auth_code": "c", "mobile_no": "1", "email": "a@b.example", "name": "Kim",
                    "language_code": "en", "phone_model": "m", "os_version": "1", "package_name": "p",
                    "device_platform": 14, "business_id": 343, "custom_data": {"plan": "gold"}}),
            ),
            (
                "/v1.0/log_message_from_user/",
                json!({"user": {"auth_id": AUTH}, "message_body": "hi", "message_type": 0, "business_id": 343}),
            ),
            (
                "/v1.0/sync_message_from_user/",
                json!({"user": {"auth_id": AUTH}, "message_body": "hi", "message_type": 0, "business_id": 343}),
            ),
            (
                "/v1.0/log_feedback_from_user/",
                json!({"auth_id": AUTH, "business_id": 343, "query_resolved": true, "query_rating": 4,
                    "feedback": "slow"}),
            ),
            (
                "/integration/external/v1.0/send_chat_to_agent/",
                json!({"user_name": user_id, "business_id": 343, "team_name": "billing", "countdown": 5}),
            ),
            ("/v1.0/webhook/", json!({"enabled": true, "business_id": 343, "device_platform": 13})),
            ("/admin/v1/hooks/enable", json!({"endpoint": "channel:acme:343"})),
            ("/admin/v1/dead_letters/replay", json!({"since": "2026-01-01T00:00:00Z", "client_id": "acme"})),
            (
                "/admin/v1/drain",
                json!({"client_id": CLIENT, "receiver": "helper", "to": "sprinkle", "state": "pinned", "q": "u",
                    "dry_run": true}),
            ),
            ("/admin/v1/apply", json!({"client": [{"client_id": "fuzz", "ects": ["helper"]}]})),
            ("/admin/v1/tokens", json!({"client_id": CLIENT, "receiver": "sprinkle", "ttl_seconds": 60})),
        ]
    }
}

/// The sentence of a refusal, where its path has it.
fn text_of<'a>(path: &str, body: &'a Value) -> &'a str {
    let external = path.starts_with("/v1.0/") || path.starts_with("/integration/");
    let (here, elsewhere) = if external { ("error_message", "error") } else { ("error", "error_message") };
    assert!(body.get(elsewhere).is_none(), "{path}: {body}");
    body[here].as_str().unwrap_or_else(|| panic!("{path}: {body} has no {here}"))
}

/// What every refusal has in common.
fn check_shape(path: &str, request_id: &str, reply: &Reply, what: &str) {
    let body = &reply.body;
    assert_eq!(reply.header("content-type"), "application/json", "{what}");
    assert_eq!((reply.header("x-request-id"), body["request_id"].as_str()), (request_id, Some(request_id)), "{what}");
    assert!(!text_of(path, body).is_empty(), "{what}");
    if path.trim_end_matches('/') == "/tract/thread_control/request" {
        assert_eq!((&body["success"], &body["reason"]["code"]), (&json!(false), &body["code"]), "{what}");
        assert_eq!(body["reason"]["message"], body["error"], "{what}");
    } else {
        assert!(body.get("success").is_none(), "{what}: {body}");
    }
    match reply.status {
        401 => assert!(reply.header("www-authenticate").starts_with("Bearer"), "{what}"),
        405 => assert!(!reply.header("allow").is_empty(), "{what}"),
        _ => {}
    }
}

#[tokio::test]
async fn what_is_called_good_here_is_accepted() {
    let stage = Stage::set().await;
    let goods = stage.good();
    // What is signed, and certificates, have bodies that must be made: `signed_requests.rs` has them.
    // So are forms: `files.rs`.
    let made = |route: &Route| route.auth == Auth::Signed || route.path.ends_with("/certificates") || route.is_form;
    for route in table().iter().filter(|route| route.method == Method::POST && !made(route)) {
        let known = goods.iter().any(|(path, _)| path.trim_end_matches('/') == route.path);
        assert!(known, "there is no good body for {}", route.path);
    }
    for (path, body) in goods {
        let reply = stage.router.api.send(stage.by_path(path).json(&body).request).await;
        // The last of the thread's, and it comes after the pass to the other tool: it is no longer the bot's to give away.
        if path.contains("send_chat_to_agent") {
            assert!(matches!(reply.status, 200 | 409), "{path} {}", reply.body);
        } else {
            reply.ok();
        }
    }
}
