//! Two tenants, and every route there is, called by the one with the other's ids: the answer is the one that nobody's
//! ids get, and nothing of the other's changes.
//!
//! [`probe`] says how each route of the router's own table is called. A route without an entry fails the test.

use crate::support::{Api, CLIENT, Channel, Fixture, Form, Peer, Token, hand_off_to};
use axum::http::{HeaderMap, Method};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tract::http::auth::Auth;
use tract::http::routes;

/// The other tenant.
const THEM: &str = "globex";
/// Its business.
const THEIR_BUSINESS: u64 = 770_077_007;
/// A customer of both: each client has its own `auth_id`s, so both may well use this one.
const SHARED_AUTH: &str = "+49 170 3";
/// The `Idempotency-Key` under which they sent the very message that [`probe`] sends.
const THEIR_KEY: &str = "their-key";

/// What a request can name of a tenant.
#[derive(Clone, PartialEq, Debug)]
struct Ids {
    client: &'static str,
    user_id: String,
    auth_id: String,
    business: u64,
}

/// A request but for its method, path and credentials.
#[derive(Clone, PartialEq, Debug, Default)]
struct Call {
    query: String,
    body: Option<Value>,
    /// The fields of the body are sent as a form, with a file beside them.
    form: bool,
}

impl Call {
    fn body(body: Value) -> Self {
        Self { body: Some(body), ..Self::default() }
    }
    fn form(body: Value) -> Self {
        Self { form: true, ..Self::body(body) }
    }
    fn query(query: String) -> Self {
        Self { query, ..Self::default() }
    }
}

/// How a route is put to the test.
enum Probe {
    /// It names things of a tenant: what it names that is not the caller's is as unknown as what never was.
    Names(fn(&Ids) -> Call),
    /// It names nothing: it is about what is the caller's.
    Own(fn() -> Call),
    /// It is not for tenants at all.
    Operator,
    /// It is for everybody, and so tells nothing of anybody.
    Everybody,
    /// What it names is a secret that opens it; every other opens nothing.
    Secret(&'static str),
}

/// The entry of a route.
fn probe(method: &Method, path: &str) -> Option<Probe> {
    use Probe::{Everybody, Names, Operator, Own, Secret};
    if path.starts_with("/admin/") {
        return Some(Operator);
    }
    Some(match (method.as_str(), path) {
        // Signed, not opened by a token. Here nobody signs: what is told before that must not depend on the client.
        ("POST", "/tract/management/token/issue" | "/tract/management/client/list") => Names(|ids| {
            let (fqdn, timestamp) = ("sprinkle.example", "2026-01-01T00:00:00.000Z");
            Call::body(json!({"fqdn": fqdn, "client_id": ids.client, "timestamp": timestamp}))
        }),
        ("POST", "/tract/hooks/register") => Own(|| {
            Call::body(json!({"category": "message", "subcategory": "receive", "url": "http://127.0.0.1:9/elsewhere"}))
        }),
        ("GET", "/tract/hooks/list" | "/tract/hooks/deliveries") => Own(Call::default),
        ("POST", "/tract/hooks/enable" | "/tract/hooks/test") => {
            Own(|| Call::body(json!({"category": "message", "subcategory": "receive"})))
        }
        ("POST", "/tract/hooks/secret/rotate") => Own(|| Call::body(json!({}))),
        ("POST", "/tract/hooks/replay") => Own(|| Call::body(json!({"since": "2026-01-01T00:00:00Z"}))),
        ("POST", "/v1.0/webhook") => Names(|ids| Call::body(json!({"enabled": true, "business_id": ids.business}))),
        ("POST", "/tract/hooks/unregister") => {
            Own(|| Call::body(json!({"category": "user_events", "subcategory": "create_user"})))
        }
        ("POST", "/tract/user" | "/tract/thread_control/listeners") => {
            Names(|ids| Call::body(json!({"user_id": ids.user_id})))
        }
        ("POST", "/tract/user/details") => {
            Names(|ids| Call::body(json!({"user_id": ids.user_id, "details_requested": ["name", "email"]})))
        }
        ("POST", "/tract/message/send") => {
            Names(|ids| Call::body(json!({"user_id": ids.user_id, "message_body": "hi", "sender": "aeu"})))
        }
        ("POST", "/tract/events/send") => Names(|ids| {
            Call::body(json!({"user_id": ids.user_id, "category": "conversation_state", "subcategory": "complete"}))
        }),
        ("POST", "/tract/thread_control/request") => Names(|ids| {
            let body = json!({"user_id": ids.user_id, "type": "take", "requester": "sprinkle", "receiver": "sprinkle"});
            Call::body(body)
        }),
        ("GET", "/tract/thread") => Names(|ids| Call::query(format!("?user_id={}", ids.user_id))),
        ("GET", "/tract/thread/feed") => Names(|ids| Call::query(format!("?user_id={}&limit=500", ids.user_id))),
        // Any `auth_id` may be created: a client's own are its own. So only the business can be another's.
        ("POST", "/v1.0/user") => {
            Names(|ids| Call::body(json!({"auth_id": SHARED_AUTH, "name": "Eve", "business_id": ids.business})))
        }
        ("PUT", "/v1.0/user") => Names(|ids| {
            Call::body(json!({"auth_id": ids.auth_id, "name": "Eve", "business_id": ids.business, "custom_data": {}}))
        }),
        ("POST", "/v1.0/log_message_from_user") => Names(|ids| {
            Call::body(json!({"user": {"auth_id": ids.auth_id}, "message_body": "hi", "message_type": 0,
                "business_id": ids.business}))
        }),
        ("POST", "/v1.0/sync_message_from_user") => Names(|ids| {
            Call::body(json!({"user": {"auth_id": ids.auth_id}, "message_body": "hi", "message_type": 0,
                "business_id": ids.business}))
        }),
        ("POST", "/v1.0/log_feedback_from_user") => Names(|ids| {
            Call::body(json!({"auth_id": ids.auth_id, "business_id": ids.business, "query_resolved": true,
                "query_rating": 1}))
        }),
        ("POST", "/v1.0/log_file_from_user") => Names(|ids| {
            Call::form(json!({"auth_id": ids.auth_id, "message_type": "1", "business_id": ids.business.to_string()}))
        }),
        ("GET", "/files/{token}") => Secret("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("POST", "/integration/external/v1.0/send_chat_to_agent") => Names(|ids| {
            Call::body(json!({"user_name": ids.user_id, "business_id": ids.business, "team_name": "billing"}))
        }),
        ("GET", "/integration/external/v1.0/get_chat_history") => Names(|ids| {
            Call::query(format!("?user_name={}&business_id={}&conversation_no=1", ids.user_id, ids.business))
        }),
        ("GET", "/integration/external/v2.0/get_chat_history") => {
            Names(|ids| Call::query(format!("?pxut={}&conversation_no=1", ids.user_id)))
        }
        ("GET", "/healthz" | "/readyz" | "/metrics") => Everybody,
        _ => return None,
    })
}

/// An answer, with everything that a caller could tell two answers apart by.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    status: u16,
    headers: Vec<(String, String)>,
    text: String,
}

/// `authorization` and, where there is one, `client-id`.
#[derive(Clone, Copy)]
struct Credentials<'a> {
    authorization: Option<&'a str>,
    client: Option<&'a str>,
}

/// These fields, and a small image.
fn form(fields: &Value) -> Form {
    let fields = fields.as_object().unwrap().iter();
    let form = fields.fold(Form::default(), |form, (name, value)| form.text(name, value.as_str().unwrap()));
    form.file("file", "a.png", crate::files::PNG)
}

async fn ask(api: &Api, method: &Method, path: &str, who: Credentials<'_>, call: &Call, key: Option<&str>) -> Seen {
    let mut request = api.request(method.clone(), &format!("{path}{}", call.query)).header("x-request-id", "the-same");
    if let Some(token) = who.authorization {
        request = request.bearer_auth(token);
    }
    if let Some(client) = who.client {
        request = request.header("client-id", client);
    }
    if let Some(body) = &call.body {
        request = if call.form { form(body).in_request(request) } else { request.json(body) };
    }
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let answer = request.send().await.unwrap();
    let told = |headers: &HeaderMap| {
        let mut told: Vec<_> = headers
            .iter()
            .filter(|(name, _)| !["date", "content-length"].contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        told.sort();
        told
    };
    Seen { status: answer.status().as_u16(), headers: told(answer.headers()), text: answer.text().await.unwrap() }
}

/// Us (the fixture's `acme`, whose tokens are in the wrong hands) and them.
struct Stage {
    router: Fixture,
    ours: Ids,
    theirs: Ids,
    nobodys: Ids,
    channel: Channel,
    sprinkle: Token,
    gadget: Token,
    bot: Peer,
    phone: Peer,
    desk: Peer,
}

impl Stage {
    async fn set() -> Self {
        let router = Fixture::start().await;
        let (bot, phone, desk) = (Peer::start("bot").await, Peer::start("phone").await, Peer::start("desk").await);
        let made = router.api.apply(&router.admin_token, &declaration(&bot, &phone)).await;
        let api_token = made.iter().find(|made| made["kind"] == "api_token").unwrap()["value"].as_str().unwrap();
        let channel = Channel::new(router.api.clone(), THEM, api_token, THEIR_BUSINESS);
        let sprinkle = router.api.token(&router.admin_token, THEM, "sprinkle").await;
        let gadget = router.api.token(&router.admin_token, THEM, "gadget").await;
        for token in [&sprinkle, &gadget] {
            for topic in ["message.receive", "conversation_state.incomplete", "user_events.create_user"] {
                token.register(topic, &desk.url()).await;
            }
        }

        // Only they know this customer; the other is known to both.
        let profile = json!({"auth_id": "theirs alone", "name": "Grace", "email": "grace@globex.example",
            "custom_data": {"plan": "platinum"}});
        let user_id = channel.user(&profile).await;
        channel.user(&json!({"auth_id": SHARED_AUTH, "name": "Grace too"})).await;
        bot.reply_to("agent, please", hand_off_to("sprinkle"));
        channel.say("theirs alone", "agent, please").await;
        desk.hear("message.receive", "agent, please").await;
        desk.wait_for("conversation_state.incomplete", |_| true).await;
        sprinkle.event(&user_id, "aeu_events.allocated", &json!({"agent_name": "Greta"})).await.ok();
        sprinkle.send(&user_id, "aeu", "how can I help?").await.ok();
        sprinkle.control_with(&user_id, "offer", Some("gadget"), json!({"deadline_seconds": 3600})).await.ok();
        phone.hear("message", "how can I help?").await;
        let Some(Probe::Names(send)) = probe(&Method::POST, "/tract/message/send") else { panic!("it names a thread") };
        let them = Credentials { authorization: Some(&sprinkle.token), client: None };
        let ids = Ids { client: THEM, user_id: user_id.clone(), auth_id: String::new(), business: 0 };
        let sent = ask(&router.api, &Method::POST, "/tract/message/send", them, &send(&ids), Some(THEIR_KEY)).await;
        assert_eq!(sent.status, 200, "{sent:?}");

        let ours = router.handed_off(SHARED_AUTH).await;
        let never = never_given_out(&user_id);
        let theirs = Ids { client: THEM, user_id, auth_id: "theirs alone".to_owned(), business: THEIR_BUSINESS };
        let nobodys = Ids { client: "nobody", user_id: never, auth_id: "never there".to_owned(), business: 778 };
        let ours =
            Ids { client: CLIENT, user_id: ours, auth_id: SHARED_AUTH.to_owned(), business: crate::support::BUSINESS };
        Self { router, ours, theirs, nobodys, channel, sprinkle, gadget, bot, phone, desk }
    }

    /// Everything of theirs that anybody can read and that does not move by itself.
    async fn everything_of_theirs(&self) -> Value {
        let user_id = &self.theirs.user_id;
        let wanted = json!({"user_id": user_id, "details_requested": ["name", "email", "plan"]});
        let operator = |path: String| {
            let request = self.router.api.request(Method::GET, &path).bearer_auth(&self.router.admin_token);
            async { self.router.api.send(request).await.ok() }
        };
        json!([
            self.sprinkle.thread(user_id).await,
            self.sprinkle.feed(user_id).await,
            self.sprinkle.post("/tract/user/", &json!({"user_id": user_id})).await.ok(),
            self.sprinkle.post("/tract/user/details/", &wanted).await.ok(),
            hooks(&self.sprinkle).await,
            hooks(&self.gadget).await,
            operator(format!("/admin/v1/clients/{THEM}")).await,
            operator(format!("/admin/v1/threads?client_id={THEM}")).await,
        ])
    }

    /// What of theirs must show in no answer to us.
    fn telling(&self) -> Vec<String> {
        let texts = ["globex", "Globex", "Grace", "Greta", "gadget", "platinum", "agent, please", "770077007"];
        let mut telling: Vec<String> = texts.map(str::to_owned).into();
        telling.extend([self.bot.url(), self.phone.url(), self.desk.url()]);
        telling
    }

    async fn end(self) {
        for peer in [&self.bot, &self.phone, &self.desk] {
            peer.assert_sound();
        }
        self.router.stop().await;
    }
}

/// A handle as well made as this one, but no thread's.
fn never_given_out(user_id: &str) -> String {
    let mut never: Vec<char> = user_id.chars().collect();
    let at = never.len() - 8;
    never[at] = if never[at] == 'A' { 'B' } else { 'A' };
    never.into_iter().collect()
}

/// A receiver's hooks, without how they fare, which moves by itself.
async fn hooks(token: &Token) -> Value {
    let mut hooks = token.get("/tract/hooks/list/").await.ok();
    for hook in hooks["hooks"].as_array_mut().unwrap() {
        hook.as_object_mut()
            .unwrap()
            .retain(|name, _| ["category", "subcategory", "url", "enabled"].contains(&&**name));
    }
    hooks
}

/// `sprinkle` works for both; `gadget` for them alone.
fn declaration(bot: &Peer, phone: &Peer) -> Value {
    json!({
        "ect": [{"ect_id": "gadget", "name": "Gadget", "fqdn": "gadget.example"},
            {"ect_id": "sprinkle", "name": "sprinkle", "fqdn": "sprinkle.example", "may_pass_to": "any", "may_take": true}],
        "client": [{"client_id": THEM, "name": "Globex", "ects": ["sprinkle", "gadget"], "handoff_receiver": "sprinkle",
            "iva": {"url": bot.url()},
            "business": [{"business_id": THEIR_BUSINESS, "name": "Globex Shop", "webhook": {"url": phone.url()}}]}],
    })
}

/// Ids that are ours but for one, or for all: `from` says whose that one is.
fn mixed(ours: &Ids, from: &Ids) -> [Ids; 5] {
    [
        from.clone(),
        Ids { client: from.client, ..ours.clone() },
        Ids { user_id: from.user_id.clone(), ..ours.clone() },
        Ids { auth_id: from.auth_id.clone(), ..ours.clone() },
        Ids { business: from.business, ..ours.clone() },
    ]
}

/// The answer, with the ids that the caller itself named blotted out.
fn blotted(seen: &Seen, ids: &Ids) -> Seen {
    let blot = |text: &str| {
        let text = text.replace(&ids.user_id, "<user_id>").replace(&ids.auth_id, "<auth_id>");
        text.replace(&ids.business.to_string(), "<business>").replace(ids.client, "<client>")
    };
    Seen { text: blot(&seen.text), ..seen.clone() }
}

#[tokio::test]
async fn what_is_anothers_is_as_unknown_as_what_never_was() {
    let stage = Stage::set().await;
    let api = &stage.router.api;
    let before = stage.everything_of_theirs().await;
    let telling = stage.telling();
    let receivers = [&stage.router.sprinkle, &stage.router.helper, &stage.router.iva];
    let mut compared = 0;

    for route in routes::table() {
        let (method, auth) = (&route.method, route.auth);
        let Some(probe) = probe(method, route.path) else {
            panic!("{method} {} has no entry here: say in `probe` what it names of a tenant", route.path);
        };
        let callers: Vec<Credentials<'_>> = if auth == Auth::Receiver {
            receivers.iter().map(|token| Credentials { authorization: Some(&token.token), client: None }).collect()
        } else if auth == Auth::Channel || auth == Auth::Integration {
            vec![Credentials { authorization: Some(&stage.router.channel.token), client: Some(CLIENT) }]
        } else {
            vec![Credentials { authorization: None, client: None }]
        };
        for path in route.paths() {
            let case = format!("{method} {path}");
            match &probe {
                Probe::Names(make) => {
                    for who in &callers {
                        for (theirs, nobodys) in
                            mixed(&stage.ours, &stage.theirs).iter().zip(&mixed(&stage.ours, &stage.nobodys))
                        {
                            let (to_theirs, to_nobodys) = (make(theirs), make(nobodys));
                            if to_theirs == to_nobodys {
                                continue; // It does not name that.
                            }
                            // With a key and without; the one that they have used, too.
                            for key in [None, Some(THEIR_KEY)].into_iter().take(1 + usize::from(route.idempotent)) {
                                let foreign = ask(api, method, path, *who, &to_theirs, key).await;
                                let unknown = ask(api, method, path, *who, &to_nobodys, key).await;
                                assert!((400..500).contains(&foreign.status), "{case} {to_theirs:?}: {foreign:?}");
                                assert_eq!(
                                    blotted(&foreign, theirs),
                                    blotted(&unknown, nobodys),
                                    "{case} {to_theirs:?}"
                                );
                                compared += 1;
                            }
                        }
                    }
                }
                Probe::Own(make) => {
                    for (n, who) in callers.iter().enumerate() {
                        let seen = ask(api, method, path, *who, &make(), None).await;
                        // The bot has no hook to remove; `sprinkle` has them all.
                        assert!(seen.status == 200 || (n > 0 && seen.status == 404), "{case}: {seen:?}");
                        for told in &telling {
                            assert!(!seen.text.contains(told), "{case} tells {told}: {}", seen.text);
                        }
                    }
                }
                Probe::Operator => assert_eq!(auth, Auth::Admin, "{case}"),
                Probe::Secret(nobodys) => {
                    let nobody = Credentials { authorization: None, client: None };
                    let path = path.replace("{token}", nobodys);
                    let seen = ask(api, method, &path, nobody, &Call::default(), None).await;
                    assert_eq!((auth, seen.status), (Auth::Open, 404), "{case}");
                }
                Probe::Everybody => {
                    let nobody = Credentials { authorization: None, client: None };
                    let seen = ask(api, method, path, nobody, &Call::default(), None).await;
                    assert_eq!((auth, seen.status), (Auth::Open, 200), "{case}");
                    for told in &telling {
                        // A number may be anything's count.
                        assert!(told == "770077007" || !seen.text.contains(told), "{case} tells {told}");
                    }
                }
            }
            assert_eq!(stage.everything_of_theirs().await, before, "{case} changed something of theirs");
        }
    }
    assert!(compared > 60, "only {compared} pairs of answers were compared");

    // Nothing went out in their name: the next message to their customer is their own next one.
    stage.sprinkle.send(&stage.theirs.user_id, "aeu", "and that was all").await.ok();
    stage.phone.hear("message", "and that was all").await;
    let read: Vec<_> = stage.phone.seen_on("message").iter().map(crate::support::Received::text).collect();
    assert_eq!(read, ["how can I help?", "hi", "and that was all"]);
    stage.end().await;
}

/// Credentials open their own door only; which tenants there are cannot be learned at another's.
#[tokio::test]
async fn credentials_open_one_tenants_door_only() {
    let stage = Stage::set().await;
    let router = &stage.router;
    let before = stage.everything_of_theirs().await;
    let (jwt, theirs) = (router.sprinkle.token.as_str(), stage.sprinkle.token.as_str());
    let (api_token, their_api_token) = (router.channel.token.as_str(), stage.channel.token.as_str());
    let with = |authorization, client| Credentials { authorization: Some(authorization), client };
    for route in routes::table() {
        // Each group of credentials gets one and the same answer.
        let groups: Vec<Vec<Credentials<'_>>> = if route.auth == Auth::Receiver {
            vec![
                // Our token at their door, and at nobody's. Theirs at ours.
                vec![with(jwt, Some(THEM)), with(jwt, Some("nobody")), with(theirs, Some(CLIENT)), with(jwt, Some(""))],
                // Secrets of other kinds.
                vec![
                    with("x", None),
                    with(api_token, None),
                    with(their_api_token, Some(THEM)),
                    with(&router.admin_token, None),
                ],
            ]
        } else if route.auth == Auth::Channel || route.auth == Auth::Integration {
            vec![vec![
                with(api_token, Some(THEM)),
                with(api_token, Some("nobody")),
                with(api_token, Some("no such/name")),
                with(api_token, None),
                with(their_api_token, Some(CLIENT)),
                with("x", Some(THEM)),
                with(jwt, Some(CLIENT)),
                with(theirs, Some(THEM)),
                with(&router.admin_token, Some(THEM)),
                Credentials { authorization: None, client: Some(THEM) },
            ]]
        } else if route.auth == Auth::Admin {
            vec![vec![with("x", None), with(jwt, None), with(api_token, Some(CLIENT)), with(their_api_token, None)]]
        } else {
            continue;
        };
        let path = route
            .path
            .replace("{client_id}", THEM)
            .replace("{ect_id}", "gadget")
            .replace("{business_id}", &THEIR_BUSINESS.to_string())
            .replace("{user_id}", &stage.theirs.user_id);
        let call = match probe(&route.method, route.path) {
            Some(Probe::Names(make)) => make(&stage.theirs),
            Some(Probe::Own(make)) => make(),
            _ if route.takes.is_some() => Call::body(json!({})),
            _ => Call::default(),
        };
        for group in groups {
            let mut first: Option<Seen> = None;
            for (n, who) in group.into_iter().enumerate() {
                let seen = ask(&router.api, &route.method, &path, who, &call, None).await;
                assert_eq!(seen.status, 401, "{} {path} ({n}): {seen:?}", route.method);
                let first = first.get_or_insert_with(|| seen.clone());
                assert_eq!(*first, seen, "{} {path} ({n})", route.method);
            }
        }
    }
    assert_eq!(stage.everything_of_theirs().await, before);
    stage.end().await;
}

/// An ECT of two clients has two tokens, two sets of hooks and two secrets; and another ECT's hooks are not its own.
#[tokio::test]
async fn hooks_belong_to_one_ect_for_one_client() {
    let stage = Stage::set().await;
    let router = &stage.router;
    let untouched = [hooks(&stage.sprinkle).await, hooks(&stage.gadget).await, hooks(&router.helper).await];
    let elsewhere = Peer::start("elsewhere").await;
    let body = json!({"category": "message", "subcategory": "receive", "url": elsewhere.url()});
    let key = Some("one-key-of-two-tenants");
    let call = Call::body(body);
    let register = |token: &Token| {
        let token = token.token.clone();
        let (api, call) = (router.api.clone(), call.clone());
        async move {
            let who = Credentials { authorization: Some(&token), client: None };
            ask(&api, &Method::POST, "/tract/hooks/register/", who, &call, key).await
        }
    };
    let replayed = |seen: &Seen| seen.headers.iter().any(|(name, _)| name == "idempotent-replayed");
    let first = register(&router.sprinkle).await;
    assert!(first.status == 200 && !replayed(&first), "{first:?}");
    assert!(replayed(&register(&router.sprinkle).await), "the same caller gets its own answer again");
    assert_eq!([hooks(&stage.sprinkle).await, hooks(&stage.gadget).await, hooks(&router.helper).await], untouched);
    for other in [&router.iva, &stage.sprinkle] {
        let seen = register(other).await;
        assert!(seen.status == 200 && !replayed(&seen), "a key means nothing to another caller: {seen:?}");
    }
    router.iva.post("/tract/hooks/unregister/", &call.body.clone().unwrap()).await.ok();
    stage.sprinkle.register("message.receive", &stage.desk.url()).await;
    assert_eq!([hooks(&stage.sprinkle).await, hooks(&stage.gadget).await, hooks(&router.helper).await], untouched);

    // What is said at the one client's goes to that client's hook and no other.
    router.channel.say(SHARED_AUTH, "to us").await;
    elsewhere.hear("message.receive", "to us").await;
    stage.channel.say("theirs alone", "to them").await;
    stage.desk.hear("message.receive", "to them").await;
    assert!(elsewhere.seen().iter().all(|received| received.text() != "to them"));
    assert!(stage.desk.seen().iter().all(|received| received.text() != "to us"));

    // Unregistering at the one leaves the other's.
    let which = json!({"category": "message", "subcategory": "receive"});
    router.sprinkle.post("/tract/hooks/unregister/", &which).await.ok();
    assert_eq!([hooks(&stage.sprinkle).await, hooks(&stage.gadget).await, hooks(&router.helper).await], untouched);
    stage.end().await;
}

/// How long an answer takes does not tell either. What would show is more work on the one side, in every round; what must
/// not show is what else the machine is doing. So the quick answers of both sides are compared (slow ones tell of the
/// machine), asked for in turn, and one round within the bound is enough.
#[tokio::test]
async fn unknown_and_foreign_take_about_as_long() {
    const ROUNDS: usize = 40;
    const SAMPLES: usize = 100;
    const TIMES: f64 = 3.0;
    let stage = Stage::set().await;
    // Several threads each, since a thread's place in memory, too, makes it faster or slower.
    let (mut theirs, mut nobodys) = (vec![stage.theirs.clone()], vec![stage.nobodys.clone()]);
    for n in 0..7 {
        let user_id = stage.channel.user(&json!({"auth_id": format!("theirs {n}"), "name": "Grace"})).await;
        nobodys.push(Ids { user_id: never_given_out(&user_id), ..stage.nobodys.clone() });
        theirs.push(Ids { user_id, ..stage.theirs.clone() });
    }
    let who = Credentials { authorization: Some(&stage.router.helper.token), client: None };
    let quick = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 4].as_secs_f64()
    };
    for (method, path) in [
        (Method::GET, "/tract/thread"),
        (Method::GET, "/tract/thread/feed"),
        (Method::POST, "/tract/user"),
        (Method::POST, "/tract/message/send"),
    ] {
        let Some(Probe::Names(make)) = probe(&method, path) else { panic!("{path} names a thread") };
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let mut times = [Vec::new(), Vec::new()];
            for n in 0..SAMPLES {
                // Now the one first, now the other.
                for side in [n % 2, 1 - n % 2] {
                    let call = make(&[&theirs, &nobodys][side][n / 2 % theirs.len()]);
                    let started = Instant::now();
                    let seen = ask(&stage.router.api, &method, path, who, &call, None).await;
                    times[side].push(started.elapsed());
                    assert_eq!(seen.status, 404, "{seen:?}");
                }
            }
            let [foreign, unknown] = times.map(quick);
            rounds.push(foreign / unknown);
            if (1.0 / TIMES..TIMES).contains(&(foreign / unknown)) {
                println!("{path}: {:.0} µs for another's, {:.0} µs for nobody's", foreign * 1e6, unknown * 1e6);
                break;
            }
        }
        assert!(rounds.len() < ROUNDS, "{path}: another's takes so many times as long as nobody's: {rounds:.2?}");
    }
    stage.end().await;
}
