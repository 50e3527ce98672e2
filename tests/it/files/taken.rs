//! What becomes of a file that is taken.

use super::*;
use crate::support::{CLIENT, Channel, start_router_with};
use serde_json::json;
use std::io::{Read as _, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tract::http::files::PublicUrl;

#[tokio::test]
async fn an_image_is_taken_told_of_and_read() {
    image_on(false).await;
}

#[tokio::test]
async fn an_image_is_taken_told_of_and_read_on_redis() {
    image_on(true).await;
}

async fn image_on(redis: bool) {
    let router = router_on(redis).await;
    let user_id = router.customer("kim").await;
    // Two pieces and a bit.
    let photo = image(600_001);
    let form = from("kim", &photo).text("message_body", "look at \"this\"").text("unknown", "ignored");
    let logged = router.channel.send_file(&form).await.ok();
    assert_eq!((&logged["message_body"], &logged["message_type"]), (&json!("look at \"this\""), &json!(1)));
    assert!(logged["created_at"].as_str().unwrap().ends_with('Z'));
    assert!(link(&logged).starts_with(&format!("{}/files/", router.api.base())), "{logged}");
    assert_eq!(token(&logged).len(), 32);

    // The bot gets the words, the type and the link; the agent tool and the feed the element.
    let element = json!({"text": "look at \"this\"", "type": "CAROUSEL", "data": {"width": "MEDIUM",
        "items": [{"thumbnail": {"image": logged["file_url"]}, "actionables": []}]}});
    let turn = router.bot.hear("turn", "look at \"this\"").await;
    assert_eq!((&turn.body["message"]["type"], &turn.body["message"]["id"]), (&json!(1), &logged["message_id"]));
    assert_eq!(turn.body["message"]["file_url"], logged["file_url"]);
    let hook = router.desk.hear("message.receive", "look at \"this\"").await;
    let feed = router.sprinkle.feed(&user_id).await;
    let entry = feed.iter().find(|entry| entry["message_id"] == logged["message_id"]).unwrap();
    for told in [&hook.body, entry] {
        let body: Value = serde_json::from_str(told["message_body"].as_str().unwrap()).unwrap();
        assert_eq!((body, &told["sender"]), (element.clone(), &json!("ceu")));
        assert_eq!(told["metadata"]["file_url"], logged["file_url"]);
        assert_eq!(told["metadata"]["message_type"], json!(1));
    }

    let found = read(link(&logged)).await;
    assert_eq!((found.status, found.header("content-type")), (200, "image/png"));
    assert!(found.bytes == photo, "byte for byte");
    for (name, value) in [
        ("content-length", "600001"),
        ("content-disposition", "inline; filename=\"photo.png\"; filename*=UTF-8''photo.png"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("cache-control", "private, max-age=86400, immutable"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(found.header(name), value, "{name}");
    }
    assert_eq!(kept(&router, redis), 1);
    if redis {
        let second = router.second_node().await;
        let there = format!("http://{}", second.addr());
        assert!(read(&link_at(&there, &logged)).await.bytes == photo, "every node has it");
        second.stop().await.unwrap();
    }
    router.phone.hear("message", "you said look at \"this\"").await;
    router.stop().await;
}

#[tokio::test]
async fn documents_are_buttons_that_lead_to_them() {
    documents_on(false).await;
}

#[tokio::test]
async fn documents_are_buttons_that_lead_to_them_on_redis() {
    documents_on(true).await;
}

async fn documents_on(redis: bool) {
    let router = router_on(redis).await;
    let user_id = router.customer("kim").await;
    let csv = "name,plan\r\nKäthe,gold\r\n".as_bytes().to_vec();
    let pdf = [b"%PDF-1.7\n", &*image(100)].concat();
    for (name, saved, bytes, content_type) in [
        ("Pläne \\\"1\\\".CSV", "Pläne 1.csv", &csv, "text/csv"),
        ("../terms.pdf", "terms.pdf", &pdf, "application/pdf"),
    ] {
        let form = Form::of_file("kim", BUSINESS, 52, name, bytes);
        let logged = router.channel.send_file(&form).await.ok();
        assert_eq!((&logged["message_body"], &logged["message_type"]), (&json!(""), &json!(52)));
        let feed = router.sprinkle.feed(&user_id).await;
        let entry = feed.iter().find(|entry| entry["message_id"] == logged["message_id"]).unwrap();
        let body: Value = serde_json::from_str(entry["message_body"].as_str().unwrap()).unwrap();
        let link_to = json!({"actionable_text": saved, "uri": "LINK", "type": "APP_ACTION",
            "payload": {"url": logged["file_url"]}});
        assert_eq!(body, json!({"text": "", "type": "BUTTON", "data": {"items": [link_to]}}));
        assert_eq!(entry["metadata"]["message_type"], json!(52));
        let found = read(link(&logged)).await;
        assert!(found.bytes == **bytes && found.header("content-type") == content_type);
        assert!(found.header("content-disposition").starts_with("attachment; filename="));
    }
    router.stop().await;
}

/// Names prove nothing, so they need not be right.
#[tokio::test]
async fn what_is_in_a_file_says_what_it_is() {
    let router = router_on(false).await;
    router.customer("kim").await;
    let (picture, table) = (image(100), b"name,plan\r\nK\xe4the,gold\r\n".to_vec());
    for (name, message_type, bytes, content_type, saved) in [
        ("photo", 1, &picture, "image/png", "photo.png"),
        ("photo.exe", 1, &picture, "image/png", "photo.png"),
        ("", 1, &picture, "image/png", "file.png"),
        ("from-excel.csv", 52, &table, "text/csv", "from-excel.csv"),
    ] {
        let form = Form::of_file("kim", BUSINESS, message_type, name, bytes);
        let found = read(link(&router.channel.send_file(&form).await.ok())).await;
        assert!(found.bytes == **bytes, "{name}");
        assert_eq!(found.header("content-type"), content_type);
        assert!(found.header("content-disposition").contains(&format!("filename=\"{saved}\"")), "{name}");
    }
    router.stop().await;
}

/// The largest one, on a thread that is opened for it; and its links are nobody else's.
#[tokio::test]
async fn the_largest_file_fits() {
    largest_on(false).await;
}

#[tokio::test]
async fn the_largest_file_fits_on_redis() {
    largest_on(true).await;
}

async fn largest_on(redis: bool) {
    let router = router_on(redis).await;
    let second = json!([{"business_id": BUSINESS}, {"business_id": 344}]);
    let client = json!({"client_id": CLIENT, "ects": ["sprinkle", "helper"], "sac": true, "business": second});
    router.apply(&json!({"client": [client]})).await;
    router.customer("kim").await;
    let largest = image(10 * 1024 * 1024);
    let logged = router.channel.send_file(&Form::of_file("kim", 344, 1, "a.png", &largest)).await.ok();
    assert!(read(link(&logged)).await.bytes == largest);
    assert_ne!(token(&logged), token(&router.channel.send_file(&from("kim", &largest)).await.ok()));
    for other in ["a", &token(&logged)[1..], &token(&logged).to_lowercase(), &"A".repeat(32), &"_".repeat(32), "%ff"] {
        let found = read(&format!("{}/files/{other}", router.api.base())).await;
        let body: Value = serde_json::from_slice(&found.bytes).unwrap();
        assert_eq!((found.status, &body["code"]), (404, &json!("unknown_file")), "{other}");
        assert_eq!(body["error"], "no such file");
    }
    router.stop().await;
}

/// Links begin as the operator says; else with the host that the request named.
#[tokio::test]
async fn links_lead_where_the_operator_says() {
    let router = Fixture::start().await;
    router.customer("kim").await;
    let request = router.channel.sending(&from("kim", PNG)).header("host", "chat.example:8443");
    let logged = router.api.send(request).await.ok();
    assert_eq!(link(&logged), format!("http://chat.example:8443/files/{}", token(&logged)));
    router.stop().await;

    let (data, clock) = (tempfile::tempdir().unwrap(), Arc::new(crate::support::ManualClock::new()));
    let running = start_router_with(&data, clock, |settings| {
        settings.public_url = Some(PublicUrl::parse("https://files.example/tract/").unwrap());
    })
    .await;
    let api = crate::support::Api::new(format!("http://{}", running.addr()));
    let declared = json!({"client": [{"client_id": CLIENT, "sac": true, "business": [{"business_id": BUSINESS}]}]});
    let made = api.apply(crate::support::ADMIN_TOKEN, &declared).await;
    let secret = made.iter().find(|made| made["kind"] == "api_token").unwrap()["value"].as_str().unwrap();
    let channel = Channel::new(api.clone(), CLIENT, secret, BUSINESS);
    channel.user(&json!({"auth_id": "kim"})).await;
    let logged = channel.send_file(&from("kim", PNG)).await.ok();
    assert_eq!(link(&logged), format!("https://files.example/tract/files/{}", token(&logged)));
    assert_eq!(read(&link_at(api.base(), &logged)).await.bytes, PNG);
    running.stop().await.unwrap();
}

/// Only so many at a time: whoever comes then is told to come again, before anything was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_bounded_in_number() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let router = Fixture::start().await;
    router.customer("kim").await;
    let head = format!(
        "POST /v1.0/log_file_from_user/ HTTP/1.1\r\nhost: a\r\nclient-id: {CLIENT}\r\nauthorization: Bearer {}\r\n\
         content-type: multipart/form-data; boundary=x\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n",
        router.channel.token
    );
    let begun: Vec<TcpStream> = (0..16)
        .map(|_| {
            let mut stream = TcpStream::connect(router.address()).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            // Who is asked to go on has a place.
            let mut line = [0; 12];
            stream.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"HTTP/1.1 100");
            stream
        })
        .collect();
    let refused = router.channel.send_file(&from("kim", PNG)).await;
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1));
    refused.refused(503, "overloaded");
    router.channel.say("kim", "words get through").await;
    drop(begun);
    let deadline = Instant::now() + PATIENCE;
    while router.channel.send_file(&from("kim", PNG)).await.status != 200 {
        assert!(Instant::now() < deadline, "their places are not given back");
    }
    router.stop().await;
}
