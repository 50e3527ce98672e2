//! The calls of agent tools, the channel and the bot.

use super::*;

#[tokio::test]
async fn users_come_from_the_channel_and_show_to_tools() {
    let fixture = Fixture::start().await;
    let missing = fixture.channel(Method::PUT, "/v1.0/user", json!({"auth_id": "kim"})).await;
    assert_eq!((missing.refused().0, missing.refused().1), (404, "unknown_user"));
    let user = fixture.user().await;
    let updated = fixture.channel(Method::PUT, "/v1.0/user", json!({"auth_id": "kim", "mobile_no": "+49"})).await.ok();
    assert_eq!(
        updated,
        json!({"auth_id": "kim", "mobile_no": "+49", "email": "kim@example.org", "name": "Kim", "user_id": user})
    );
    let shown = fixture.tool("sprinkle", "/tract/user/", json!({"user_id": user})).await.ok();
    assert_eq!((&shown["third_party_user_id"], &shown["user_name"]), (&json!("kim"), &json!("Kim")));
    assert_eq!(shown["device_platform"], "Webhook");
    let names = shown["details_available"].as_array().unwrap();
    assert!(names.contains(&json!("plan")) && names.contains(&json!("mobile_no")), "{names:?}");
    let wanted = json!({"user_id": user, "details_requested": ["plan", "email", "shoe_size"]});
    let details = fixture.tool("sprinkle", "/tract/user/details", wanted).await.ok();
    assert_eq!(details["details"], json!({"plan": "gold", "email": "kim@example.org"}));
    let unknown = fixture.channel(Method::POST, "/v1.0/user", json!({"auth_id": "kim", "business_id": 9})).await;
    assert_eq!(unknown.refused(), (404, "unknown_business", "business_id: 9 is not a business of this client"));
}

#[tokio::test]
async fn another_clients_user_is_as_unknown_as_none() {
    let fixture = Fixture::start().await;
    let user = fixture.user().await;
    let token = format!("Bearer {}", fixture.token("other", "sprinkle"));
    let headers = [("authorization", token.as_str()), ("x-request-id", "same")];
    for (path, body) in [
        ("/tract/user", json!({})),
        ("/tract/user/details", json!({"details_requested": []})),
        ("/tract/message/send", json!({"message_body": "hi", "sender": "aeu"})),
        ("/tract/events/send", json!({"category": "aeu_events", "subcategory": "received"})),
        ("/tract/thread_control/listeners", json!({})),
        ("/tract/thread_control/request", json!({"type": "take", "requester": "sprinkle"})),
    ] {
        let with = |id: &str| {
            let mut body = body.clone();
            body["user_id"] = json!(id);
            body
        };
        let theirs = fixture.call(Method::POST, path, &headers, Some(&with(&user))).await;
        let nobodys = fixture.call(Method::POST, path, &headers, Some(&with("never-was"))).await;
        assert_eq!((theirs.refused().0, theirs.refused().1), (404, "unknown_user"), "{path}");
        assert_eq!(theirs.text, nobodys.text, "{path}");
    }
    for path in ["/tract/thread/feed", "/tract/thread"] {
        let theirs = fixture.call(Method::GET, &format!("{path}?user_id={user}"), &headers, None).await;
        assert_eq!((theirs.refused().0, theirs.refused().1), (404, "unknown_user"), "{path}");
    }
}

#[tokio::test]
async fn messages_go_in_and_show_in_the_feed() {
    let fixture = Fixture::start().await;
    let unknown = json!({"user": {"auth_id": "nobody"}, "message_body": "hi", "message_type": 0, "business_id": 343});
    let refused = fixture.channel(Method::POST, "/v1.0/log_message_from_user", unknown).await;
    assert_eq!(refused.refused(), (403, "user_not_registered", "user is not registered"));

    let user = fixture.user().await;
    let logged = fixture.says("{\"text\":5}").await;
    assert_eq!((&logged["message_body"], &logged["message_type"]), (&json!("{\"text\":5}"), &json!(0)));
    assert!(logged["created_at"].as_str().unwrap().ends_with('Z'));

    // To another business of the same client: its thread opens by itself.
    let body = json!({"user": {"auth_id": "kim"}, "message_body": "hi", "message_type": "0", "business_id": "344"});
    fixture.channel(Method::POST, "/v1.0/log_message_from_user", body).await.ok();

    let hsl = r#"{"text":"Hello","type":"TEXT","data":{"quick_replies":[]}}"#;
    let send = json!({"user_id": user, "message_body": hsl, "sender": "iva", "metadata": {"n": 1}});
    let sent = fixture.tool("iva", "/tract/message/send/", send).await.ok();
    let feed = fixture.read("sprinkle", &format!("/tract/thread/feed/?user_id={user}")).await.ok();
    let entries = feed["entries"].as_array().unwrap();
    let sequences: Vec<_> = entries.iter().map(|e| e["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=entries.len() as u64).collect::<Vec<_>>());
    assert_eq!(feed["next_after"], sent["sequence"]);
    let last = entries.last().unwrap();
    assert_eq!(
        (&last["kind"], &last["sender"], &last["message_body"]),
        (&json!("message"), &json!("iva"), &json!(hsl))
    );
    assert_eq!(last["message_id"], sent["message_id"]);
    assert_eq!((&last["metadata"]["n"], &last["metadata"]["standby"]), (&json!(1), &json!(true)));
    let said = entries.iter().find(|e| e["sender"] == "ceu").unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(said["message_body"].as_str().unwrap()).unwrap()["text"],
        "{\"text\":5}",
        "what a customer writes is never parsed"
    );

    let page = fixture.read("iva", &format!("/tract/thread/feed?user_id={user}&after=1&limit=1")).await.ok();
    assert_eq!((page["entries"].as_array().unwrap().len(), &page["next_after"]), (1, &json!(2)));
    for query in ["", "user_id=a%20b", "user_id=u&limit=0", "user_id=u&limit=501", "user_id=u&after=x"] {
        assert_eq!(fixture.read("iva", &format!("/tract/thread/feed?{query}")).await.refused().0, 400, "{query}");
    }
}

#[tokio::test]
async fn who_is_not_active_may_not_speak() {
    let fixture = Fixture::start().await;
    let user = fixture.user().await;
    fixture.says("hi").await;
    let send = |sender: &str| json!({"user_id": user, "message_body": "hi", "sender": sender});
    let reply = fixture.tool("sprinkle", "/tract/message/send", send("aeu")).await;
    assert_eq!((reply.refused().0, reply.refused().1), (409, "not_active"));
    assert_eq!((&reply.body["active"], &reply.body["control_epoch"]), (&json!("iva"), &json!(1)));
    for sender in ["ceu", "haptik", "aeu", "robot", ""] {
        let reply = fixture.tool("iva", "/tract/message/send", send(sender)).await;
        assert_eq!((reply.refused().0, reply.refused().1), (403, "sender_not_allowed"), "{sender}");
    }
    let stale = json!({"user_id": user, "message_body": "hi", "sender": "iva", "control_epoch": "7"});
    let reply = fixture.tool("iva", "/tract/message/send", stale).await;
    assert_eq!((reply.refused().0, reply.refused().1), (409, "stale_epoch"));
    let broken = json!({"user_id": user, "sender": "iva",
        "message_body": r#"{"text":"a","type":"BUTTON","data":{"items":[{"uri":"LINK","type":2}]}}"#});
    let reply = fixture.tool("iva", "/tract/message/send", broken).await;
    assert_eq!(reply.refused(), (400, "invalid_field", "message_body.data.items[0].type: must be a string"));
}

#[tokio::test]
async fn control_moves_and_says_why_not() {
    let fixture = Fixture::start().await;
    let user = fixture.user().await;
    fixture.says("hi").await;
    let control = async |by: &str, body: Value| {
        let mut body = body;
        body["user_id"] = json!(user);
        body["requester"] = json!(by);
        fixture.tool(by, "/tract/thread_control/request/", body).await
    };
    let refused = |reply: &Reply, status: u16, code: &str| {
        assert_eq!(reply.refused().0, status, "{}", reply.text);
        assert_eq!(reply.body["success"], false);
        assert_eq!((&reply.body["reason"]["code"], &reply.body["code"]), (&json!(code), &json!(code)));
        assert_eq!(reply.body["reason"]["message"], reply.body["error"]);
    };
    refused(&control("sprinkle", json!({"type": "take"})).await, 403, "not_permitted");
    refused(&control("iva", json!({"type": "grab"})).await, 400, "invalid_field");
    refused(&control("iva", json!({"type": "pass"})).await, 400, "invalid_field");
    let reply = control("iva", json!({"type": "pass", "receiver": "sprinkle"})).await;
    refused(&reply, 409, "receiver_unavailable");
    assert_eq!((&reply.body["reason"]["active"], &reply.body["reason"]["control_epoch"]), (&json!("iva"), &json!(1)));
    refused(&control("iva", json!({"type": "pass", "receiver": "stranger"})).await, 404, "unknown_receiver");
    let body = json!({"user_id": user, "requester": "iva", "type": "take"});
    refused(&fixture.tool("sprinkle", "/tract/thread_control/request", body).await, 403, "requester_mismatch");

    fixture.healthy("sprinkle").await;
    let granted = control("iva", json!({"type": "pass", "receiver": "sprinkle"})).await.ok();
    assert_eq!(granted, json!({"success": true, "active": "sprinkle", "control_epoch": 2}));

    let body = json!({"user_id": user});
    let listeners = fixture.tool("iva", "/tract/thread_control/listeners/", body).await.ok();
    let find = |id: &str| listeners["listeners"].as_array().unwrap().iter().find(|l| l["id"] == id).unwrap().clone();
    let (iva, sprinkle) = (find("iva"), find("sprinkle"));
    assert_eq!((&iva["is_default"], &iva["is_primary"], &iva["active"]), (&json!(true), &json!(true), &json!(false)));
    assert_eq!(
        (&sprinkle["type"], &sprinkle["active"], &sprinkle["healthy"]),
        (&json!("ect"), &json!(true), &json!(true))
    );

    let thread = fixture.read("sprinkle", &format!("/tract/thread/?user_id={user}")).await.ok();
    assert_eq!(
        (&thread["state"], &thread["active"], &thread["control_epoch"]),
        (&json!("incomplete"), &json!("sprinkle"), &json!(2))
    );
    assert_eq!((&thread["conversation_number"], &thread["pending"]), (&json!("1"), &json!(null)));
    let why = thread["history"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&why["from"], &why["to"], &why["cause"], &why["by"]),
        (&json!("iva"), &json!("sprinkle"), &json!("pass"), &json!("iva"))
    );
}

#[tokio::test]
async fn events_are_taken_under_all_their_names() {
    let fixture = Fixture::start().await;
    let user = fixture.user().await;
    fixture.says("hi").await;
    fixture.healthy("sprinkle").await;
    fixture.pass(&user, "iva", "sprinkle").await;
    for (path, category, subcategory, metadata) in [
        ("/tract/events/send", "aeu_events", "received", json!(null)),
        ("/tract/event/send/", "message", "allocated", json!("{\"agent_name\":\"Ann\"}")),
        ("/tract/events/send/", "collection_state", "waiting", json!("gone for lunch")),
        ("/tract/event/send", "conversation_state", "complete", json!({"reason": "solved"})),
    ] {
        let body = json!({"user_id": user, "category": category, "subcategory": subcategory, "metadata": metadata});
        let sent = fixture.tool("sprinkle", path, body).await.ok();
        assert_eq!((&sent["success"], &sent["conversation_number"]), (&json!(true), &json!("1")));
    }
    let body = json!({"user_id": user, "category": "aeu_events", "subcategory": "received"});
    let reply = fixture.tool("sprinkle", "/tract/events/send", body).await;
    assert_eq!(reply.refused().0, 409);
    let body = json!({"user_id": user, "category": "user_events", "subcategory": "create_user"});
    assert_eq!(fixture.tool("sprinkle", "/tract/events/send", body).await.refused().0, 400);
}

#[tokio::test]
async fn a_tool_for_its_own_conversations_sees_only_those() {
    let fixture = Fixture::start().await;
    let user = fixture.user().await;
    let feed = async || fixture.read("held", &format!("/tract/thread/feed?user_id={user}")).await.ok();
    fixture.says("first").await;
    assert_eq!(feed().await["entries"], json!([]));
    let body = json!({"user_id": user, "type": "release", "requester": "iva"});
    fixture.tool("iva", "/tract/thread_control/request", body).await;
    fixture.healthy("held").await;
    fixture.pass(&user, "iva", "held").await;
    let shown = feed().await;
    assert_eq!(shown["entries"][0]["sequence"], 1, "the whole conversation, from before it had it");
    let last = shown["next_after"].clone();
    let more = fixture.read("held", &format!("/tract/thread/feed?user_id={user}&after={last}")).await.ok();
    assert_eq!((&more["entries"], &more["next_after"]), (&json!([]), &last));
}

#[tokio::test]
async fn hooks_are_registered_listed_and_removed() {
    let fixture = Fixture::start().await;
    let first = fixture.healthy("sprinkle").await;
    let secret = first["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"));
    assert!(fixture.healthy("sprinkle").await.get("secret").is_none(), "shown once");
    for (category, subcategory) in [("conversation_state", "bot"), ("collection_state", "bot")] {
        let body = json!({"category": category, "subcategory": subcategory, "url": "https://chat.example/s"});
        assert_eq!(fixture.tool("sprinkle", "/tract/hooks/register", body).await.ok()["category"], category);
    }
    let list = fixture.read("sprinkle", "/tract/hooks/list/").await.ok();
    let names: Vec<_> = list["hooks"].as_array().unwrap().iter().map(|h| (&h["category"], &h["pending"])).collect();
    assert_eq!(
        names,
        [(&json!("message"), &json!(0)), (&json!("collection_state"), &json!(0))],
        "one hook, by its last name"
    );
    assert!(!list.to_string().contains(secret));
    assert_eq!(fixture.read("held", "/tract/hooks/list").await.ok()["hooks"], json!([]));

    let register = async |category: &str, url: &str| {
        let body = json!({"category": category, "subcategory": "receive", "url": url});
        let reply = fixture.tool("sprinkle", "/tract/hooks/register", body).await;
        (reply.refused().0, reply.refused().2.to_owned())
    };
    for url in [
        "chat.example",
        "http://chat.example",
        "https://",
        "https://u:p@chat.example",
        &format!("https://x.example/{}", "a".repeat(2048)),
    ] {
        let (status, text) = register("message", url).await;
        assert!(status == 400 && text.starts_with("url: "), "{url}: {text}");
    }
    assert!(register("mesage", "https://x.example").await.1.contains("known are message, conversation_state"));

    let which = json!({"category": "message", "subcategory": "receive"});
    fixture.tool("sprinkle", "/tract/hooks/unregister", which.clone()).await.ok();
    let reply = fixture.tool("sprinkle", "/tract/hooks/unregister", which).await;
    assert_eq!((reply.refused().0, reply.refused().1), (404, "unknown_hook"));
}

#[tokio::test]
async fn a_key_gets_the_first_answer_again() {
    let fixture = Fixture::start().await;
    let user = fixture.user().await;
    fixture.says("hi").await;
    let iva = format!("Bearer {}", fixture.token("acme", "iva"));
    let channel = format!("Bearer {API_TOKEN}");
    let hook = |url: &str| json!({"category": "message", "subcategory": "receive", "url": url});
    let send = |text: &str| json!({"user_id": user, "message_body": text, "sender": "iva"});
    let log =
        |text: &str| json!({"user": {"auth_id": "kim"}, "message_body": text, "message_type": 0, "business_id": 343});
    for (path, authorization, body, other) in [
        ("/tract/message/send", &iva, send("once"), send("other")),
        ("/tract/hooks/register", &iva, hook("https://a.example"), hook("https://b.example")),
        ("/v1.0/user", &channel, json!({"auth_id": "pat"}), json!({"auth_id": "sam"})),
        ("/v1.0/log_message_from_user", &channel, log("once"), log("other")),
    ] {
        let call = async |body: &Value| {
            let headers =
                [("authorization", authorization.as_str()), ("client-id", "acme"), ("idempotency-key", "key-1")];
            fixture.call(Method::POST, path, &headers, Some(body)).await
        };
        let first = call(&body).await;
        assert_eq!((first.status, first.header("idempotent-replayed")), (200, None), "{path}: {}", first.text);
        let mut answer = first.ok();
        let again = call(&body).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "{path}");
        if let Some(fields) = answer.as_object_mut() {
            assert_eq!(fields.remove("secret").is_some(), path.contains("hooks"));
        }
        assert_eq!(again.ok(), answer, "{path}");
        let reused = call(&other).await;
        assert_eq!((reused.refused().0, reused.refused().1), (422, "idempotency_key_reused"), "{path}");
        let headers = [("authorization", authorization.as_str()), ("client-id", "acme"), ("idempotency-key", "a b")];
        let bad = fixture.call(Method::POST, path, &headers, Some(&body)).await;
        assert!(bad.refused().0 == 400 && bad.refused().2.starts_with("Idempotency-Key"), "{}", bad.text);
    }
    let feed = fixture.read("iva", &format!("/tract/thread/feed?user_id={user}")).await.text;
    assert_eq!(feed.matches("once").count(), 2, "one of the bot, one of the customer");
}

#[tokio::test]
async fn a_chat_is_sent_to_an_agent_after_a_countdown() {
    let fixture = Fixture::start().await;
    let user = fixture.user().await;
    fixture.says("hi").await;
    let path = "/integration/external/v1.0/send_chat_to_agent/";
    let call = async |authorization: &str, body: Value| {
        fixture.call(Method::POST, path, &[("authorization", authorization), ("client-id", "acme")], Some(&body)).await
    };
    let body = json!({"user_name": user, "business_id": 343, "team_name": "billing"});
    assert_eq!(call(API_TOKEN, body.clone()).await.ok(), json!({"success": true}), "without Bearer too");
    let with = |name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        body
    };
    let bearer = format!("Bearer {API_TOKEN}");
    assert_eq!(
        call(&bearer, with("countdown", json!(11))).await.refused().2,
        "countdown: must be an integer from 5 to 10"
    );
    assert_eq!(call(&bearer, with("business_id", json!(344))).await.refused().1, "unknown_user");
}
