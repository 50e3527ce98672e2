//! Users that there are not, and users of another client: nobody can tell which.

use super::{AUTH, Call, OTHER_BUSINESS, Stage};
use crate::support::{BUSINESS, Channel, Token};
use reqwest::Method;
use serde_json::json;

/// Every way to name a user.
fn calls(tool: &Token, channel: &Channel, business: u64, user_id: &str) -> Vec<Call> {
    let post = |path: &str, body: serde_json::Value| {
        Call { path: path.to_owned(), request: tool.request(Method::POST, path) }.json(&body)
    };
    let get = |path: String| Call { request: tool.request(Method::GET, &path), path };
    let to_agent = "/integration/external/v1.0/send_chat_to_agent/";
    let body = json!({"user_name": user_id, "business_id": business, "team_name": "t"});
    let control = |op: &str| json!({"user_id": user_id, "type": op, "requester": "sprinkle", "receiver": "sprinkle"});
    vec![
        get(format!("/tract/thread/?user_id={user_id}")),
        get(format!("/tract/thread/feed/?user_id={user_id}")),
        post("/tract/user/", json!({"user_id": user_id})),
        post("/tract/user/details/", json!({"user_id": user_id, "details_requested": ["name"]})),
        post("/tract/message/send/", json!({"user_id": user_id, "message_body": "a stranger's", "sender": "aeu"})),
        post("/tract/events/send", json!({"user_id": user_id, "category": "aeu_events", "subcategory": "allocated"})),
        post(
            "/tract/event/send/",
            json!({"user_id": user_id, "category": "aeu_events", "subcategory": "user_timeout"}),
        ),
        post("/tract/thread_control/listeners/", json!({"user_id": user_id})),
        post("/tract/thread_control/request", control("take")),
        post("/tract/thread_control/request", control("release")),
        Call { path: to_agent.to_owned(), request: channel.request(Method::POST, to_agent) }.json(&body),
    ]
}

#[tokio::test]
async fn another_clients_user_is_as_unknown_as_none() {
    let stage = Stage::set().await;
    let (router, elsewhere) = (&stage.router, &stage.elsewhere);
    assert_ne!(stage.user_id, elsewhere.user_id, "the same auth_id is another user for another client");
    // Looks like a user's, and is nobody's.
    let mut unheard_of = stage.user_id.clone();
    let last = if unheard_of.pop() == Some('A') { 'B' } else { 'A' };
    unheard_of.push(last);

    let mut cases = Vec::new();
    for (tool, channel, business, others) in [
        (&router.sprinkle, &router.channel, BUSINESS, &elsewhere.user_id),
        (&elsewhere.sprinkle, &elsewhere.channel, OTHER_BUSINESS, &stage.user_id),
    ] {
        let ask = async |user_id: &str| {
            let mut answers = Vec::new();
            for call in calls(tool, channel, business, user_id) {
                let path = call.path.split('?').next().unwrap_or_default().to_owned();
                let reply = router.api.send(call.header("x-request-id", "the-same").request).await;
                let mut headers = reply.headers.clone();
                headers.remove("date");
                answers.push((path, reply.status, headers, reply.body));
            }
            answers
        };
        let unknown = ask("nobody").await;
        assert!(unknown.iter().all(|(_, status, ..)| *status == 404), "{unknown:?}");
        assert_eq!(ask(&unheard_of).await, unknown);
        assert_eq!(ask(others).await, unknown, "nothing tells it from one that there is not");
        for user_id in ["nobody", others.as_str()] {
            for call in calls(tool, channel, business, user_id) {
                cases.push(call.refused(user_id, 404, "unknown_user", "no such user"));
            }
        }
    }
    // All clients' threads are compared.
    stage.check(cases).await;
}

#[tokio::test]
async fn a_clients_user_cannot_be_spoken_for_by_another_client() {
    let stage = Stage::set().await;
    let post = |path: &str, body: &serde_json::Value| {
        let request = stage.elsewhere.channel.request(Method::POST, path);
        Call { path: path.to_owned(), request }.json(body)
    };
    let here = json!({"user": {"auth_id": AUTH}, "message_body": "x", "message_type": 0, "business_id": BUSINESS});
    let unknown =
        json!({"user": {"auth_id": "x"}, "message_body": "x", "message_type": 0, "business_id": OTHER_BUSINESS});
    let user = json!({"auth_id": AUTH, "name": "Eve", "business_id": BUSINESS});
    let cases = vec![
        post("/v1.0/log_message_from_user/", &here).refused("", 404, "unknown_business", "business_id"),
        post("/v1.0/user/", &user).refused("", 404, "unknown_business", "business_id"),
        post("/v1.0/log_message_from_user/", &unknown).refused(
            "",
            403,
            "user_not_registered",
            "user is not registered",
        ),
    ];
    stage.check(cases).await;
}
