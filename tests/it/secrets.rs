//! Secrets and what people say are in no log at any level, in no answer of the admin API, in no metric.

use crate::files::{PNG, read, token};
use crate::support::{BUSINESS, CLIENT, Channel, Form, Peer, Process};
use reqwest::Method;
use serde_json::json;
use std::fs::{self, File};
use std::process::Stdio;

const JWT_SECRET: &str = "sesame-jwt-key-0123456789abcdefghij";
const API_TOKEN: &str = "sesame-channel-token-0123456789";
const IVA_SECRET: &str = "whsec_c2VzYW1lLWl2YQ==";
const CHANNEL_SECRET: &str = "whsec_c2VzYW1lLWNoYW5uZWw=";
const WORDS: &str = "my card number is sesame 4111";
const REPLY: &str = "sesame reply of the tool";

#[tokio::test]
async fn no_secret_and_nothing_said_is_logged_or_shown() {
    let data = tempfile::tempdir().unwrap();
    let log = data.path().join("log");
    let stderr = File::create(&log).unwrap();
    let process = Process::start_with(data.path(), |command| {
        command.env("RUST_LOG", "trace").stderr(Stdio::from(stderr));
        command.env("TRACT_SECURITY__JWT_KEYS", format!(r#"[{{ kid = "k", secret = "{JWT_SECRET}" }}]"#));
    })
    .await;
    let api = process.api();
    let (desk, bot, phone) = (Peer::start("desk").await, Peer::start("bot").await, Peer::start("phone").await);
    let declaration = json!({
        "ect": [{"ect_id": "sprinkle", "fqdn": "sprinkle.example"}],
        "client": [{"client_id": CLIENT, "api_token": API_TOKEN, "ects": ["sprinkle"], "default_receiver": "sprinkle",
            "iva": {"url": bot.url(), "secret": IVA_SECRET},
            "business": [{"business_id": BUSINESS, "webhook": {"url": phone.url(), "secret": CHANNEL_SECRET}}]}],
    });
    api.apply(process.admin_token, &declaration).await;
    let sprinkle = api.token(process.admin_token, CLIENT, "sprinkle").await;
    let hook_secret = sprinkle.register("message.receive", &format!("{}?key=sesame", desk.url())).await.unwrap();
    let channel = Channel::new(api.clone(), CLIENT, API_TOKEN, BUSINESS);
    let user_id = channel.user(&json!({"auth_id": "kim", "name": "Sesame Kim"})).await;
    channel.say("kim", WORDS).await;
    // The link is the right to read the file; its name is its sender's affair.
    let form = Form::of_file("kim", BUSINESS, 1, "sesame photo.png", PNG).text("message_body", "sesame words");
    let logged = channel.send_file(&form).await.ok();
    let link_token = token(&logged).to_owned();
    assert_eq!(read(logged["file_url"].as_str().unwrap()).await.status, 200);
    assert_eq!(read(&format!("{}/files/sesame-{}", api.base(), "x".repeat(25))).await.status, 404);
    desk.hear("message.receive", WORDS).await;
    sprinkle.send(&user_id, "ect", REPLY).await.ok();
    phone.hear("message", REPLY).await;
    // Refusals must not repeat what was refused.
    let wrong = api.request(Method::GET, "/admin/v1/clients").bearer_auth("sesame-wrong-admin-token");
    api.send(wrong).await.refused(401, "token_invalid");
    let mistaken = json!({"client": [{"client_id": CLIENT, "api_token": "sesame mistaken token"}]});
    let mistaken = api.request(Method::POST, "/admin/v1/apply").bearer_auth(process.admin_token).json(&mistaken);
    let mistaken = api.send(mistaken).await.refused(400, "invalid_configuration").to_string();
    let bad = json!({"user_id": user_id, "sender": "ect", "message_body": "{\"text\": \"sesame broken"});
    sprinkle.post("/tract/message/send/", &bad).await.refused(400, "invalid_field");

    let mut shown = mistaken;
    for path in [
        "/admin/v1/ects",
        "/admin/v1/ects/sprinkle",
        "/admin/v1/clients",
        "/admin/v1/clients/acme",
        "/admin/v1/clients/acme/businesses",
        "/admin/v1/clients/acme/businesses/343",
        "/admin/v1/threads",
        "/metrics",
    ] {
        shown += &api.send(api.request(Method::GET, path).bearer_auth(process.admin_token)).await.ok().to_string();
    }
    for counted in [r#"tract_files_total{kind=\"png\"} 1"#, r#"route=\"/files/{token}\",status=\"404\"} 1"#] {
        assert!(shown.contains(counted), "{counted}: {shown}");
    }
    let admin = process.admin_token;
    process.terminate();
    assert!(process.wait().success());
    let logged = fs::read_to_string(&log).unwrap();
    assert!(logged.contains("\"level\":\"TRACE\"") || logged.contains("TRACE"), "the log is at its most talkative");
    for secret in [
        JWT_SECRET,
        API_TOKEN,
        IVA_SECRET,
        CHANNEL_SECRET,
        "c2VzYW1l",
        WORDS,
        REPLY,
        "sesame",
        &hook_secret,
        admin,
        &sprinkle.token,
        &link_token,
    ] {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
        let line = logged.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is logged: {line:?}");
    }
}
