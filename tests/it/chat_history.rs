//! What a client's bot or back office reads of a conversation (section 9).

use crate::support::{BUSINESS, CLIENT, Fixture};
use axum::http::Method;
use serde_json::{Value, json};

const AUTH: &str = "+49 170 4";

/// With the client's API token, which here needs no `Bearer`.
async fn history(router: &Fixture, version: &str, query: &str, body: Option<Value>) -> crate::support::Reply {
    let path = format!("/integration/external/{version}/get_chat_history/{query}");
    let request = router.api.request(Method::GET, &path).header("client-id", CLIENT);
    let request = request.header("authorization", &router.channel.token);
    router.api.send(if let Some(body) = body { request.json(&body) } else { request }).await
}

fn lines(answer: &Value) -> Vec<(String, String)> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    answer["chat_json"].as_array().unwrap().iter().map(|l| (text(l, "sender"), text(l, "text"))).collect()
}

fn told(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    lines.iter().map(|(sender, text)| ((*sender).to_owned(), (*text).to_owned())).collect()
}

#[tokio::test]
async fn a_conversation_is_read_by_number() {
    let router = Fixture::start().await;
    let user_id = router.customer(AUTH).await;
    router.channel.say(AUTH, "hello").await;
    router.phone.hear("message", "you said hello").await;
    router.bot.reply_to("agent", crate::support::hand_off_to("sprinkle"));
    router.channel.say(AUTH, "agent").await;
    router.until(&user_id, |thread| thread["active"] == "sprinkle").await;
    router.sprinkle.send(&user_id, "ect", "somebody will be with you").await.ok();
    router.sprinkle.event(&user_id, "aeu_events.allocated", &json!({"agent_name": "Ann"})).await.ok();
    let said = router.sprinkle.send(&user_id, "aeu", "I am Ann").await.ok();
    router.sprinkle.event(&user_id, "conversation_state.complete", &json!({})).await.ok();
    router.channel.say(AUTH, "once more").await;
    router.phone.hear("message", "you said once more").await;

    let first = [
        ("user", "hello"),
        ("bot", "you said hello"),
        ("user", "agent"),
        ("sprinkle", "somebody will be with you"),
        ("Ann", "I am Ann"),
    ];
    let by_handle = format!("?pxut={user_id}&conversation_no=1");
    let answer = history(&router, "v2.0", &by_handle, None).await.ok();
    assert_eq!(lines(&answer), told(&first));
    let last = &answer["chat_json"][4];
    assert_eq!(last["message_id"], said["message_id"]);
    assert!(last["timestamp"].as_str().unwrap().ends_with("M UTC"), "{last}");
    assert!(answer.get("chat_text").is_none());

    let second = history(&router, "v2.0", &format!("?pxut={user_id}&conversation_no=2"), None).await.ok();
    assert_eq!(lines(&second), told(&[("user", "once more"), ("bot", "you said once more")]));
    let last_two = history(&router, "v2.0", &format!("{by_handle}&limit=2"), None).await.ok();
    assert_eq!(lines(&last_two), told(&first[3..]));
    // Version 1 says who is an agent.
    let by_name = format!("?business_id={BUSINESS}&user_name={user_id}&conversation_no=1");
    let old = history(&router, "v1.0", &by_name, None).await.ok();
    let senders: Vec<_> = lines(&old).into_iter().map(|(sender, _)| sender).collect();
    assert_eq!(senders, ["user", "bot", "user", "agent(sprinkle)", "agent(Ann)"]);
    let text = history(&router, "v2.0", &format!("{by_handle}&response_type=text&limit=3"), None).await.ok();
    assert_eq!(text, json!({"chat_text": "user: agent\nsprinkle: somebody will be with you\nAnn: I am Ann\n"}));

    // The parameters as a body; and of the two ways to name a thread, the first wins.
    let body = json!({"pxut": user_id, "conversation_no": "1", "limit": 1, "response_type": "text", "more": [1]});
    assert_eq!(history(&router, "v2.0", "", Some(body)).await.ok(), json!({"chat_text": "Ann: I am Ann\n"}));
    let both = format!("{by_name}&pxut=nobody&limit=1");
    assert_eq!(lines(&history(&router, "v2.0", &both, None).await.ok()), told(&first[4..]));
    router.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_name() {
    let router = Fixture::start().await;
    let user_id = router.handed_off(AUTH).await;
    for (query, status, code, field) in [
        (format!("?pxut={user_id}"), 400, "invalid_field", "conversation_no"),
        (format!("?pxut={user_id}&conversation_no=0"), 400, "invalid_field", "conversation_no"),
        (format!("?pxut={user_id}&conversation_no=x"), 400, "invalid_field", "conversation_no"),
        (format!("?pxut={user_id}&conversation_no=1&limit=0"), 400, "invalid_field", "limit"),
        (format!("?pxut={user_id}&conversation_no=1&response_type=xml"), 400, "invalid_field", "response_type"),
        ("?conversation_no=1".to_owned(), 400, "invalid_field", "business_id"),
        (format!("?business_id={BUSINESS}&conversation_no=1"), 400, "invalid_field", "user_name"),
        (format!("?pxut={user_id}&conversation_no=2"), 404, "unknown_conversation", ""),
        ("?pxut=nobody&conversation_no=1".to_owned(), 404, "unknown_user", ""),
        (format!("?business_id=1&user_name={user_id}&conversation_no=1"), 404, "unknown_user", ""),
    ] {
        for version in ["v1.0", "v2.0"] {
            let refusal = history(&router, version, &query, None).await.refused(status, code);
            assert!(refusal["error_message"].as_str().unwrap().starts_with(field), "{query}: {refusal}");
        }
    }
    let anonymous = router.api.request(Method::GET, "/integration/external/v2.0/get_chat_history/");
    router.api.send(anonymous).await.refused(401, "authorization_invalid");
    router.stop().await;
}
