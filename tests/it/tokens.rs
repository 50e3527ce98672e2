//! How tokens live and end (section 3), and how often they may be used (section 11).

use crate::support::{BUSINESS, CLIENT, Process, Token};
use reqwest::Method;
use serde_json::json;

const OLD: &str = r#"{ kid = "old", secret = "oooooooooooooooooooooooooooooooo" }"#;
const NEW: &str = r#"{ kid = "new", secret = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" }"#;
const HOOKS: &str = "/tract/hooks/list/";

async fn serve(data: &std::path::Path, variable: &str, value: &str) -> Process {
    Process::start_with(data, |command| {
        command.env(variable, value);
    })
    .await
}

async fn declare(process: &Process) {
    let declaration = json!({
        "ect": [{"ect_id": "sprinkle", "fqdn": "sprinkle.example"}, {"ect_id": "helper", "fqdn": "helper.example"}],
        "client": [{"client_id": CLIENT, "sac": true, "ects": ["sprinkle", "helper"], "business": [{"business_id": BUSINESS}]}],
    });
    process.api().apply(process.admin_token, &declaration).await;
}

async fn token(process: &Process, receiver: &str) -> Token {
    process.api().token(process.admin_token, CLIENT, receiver).await
}

#[tokio::test]
async fn keys_rotate_without_anybody_being_refused() {
    let data = tempfile::tempdir().unwrap();
    let keys = "TRACT_SECURITY__JWT_KEYS";
    let process = serve(data.path(), keys, &format!("[{OLD}]")).await;
    declare(&process).await;
    let before = token(&process, "sprinkle").await;
    before.get(HOOKS).await.ok();
    process.terminate();
    assert!(process.wait().success());

    let process = serve(data.path(), keys, &format!("[{NEW}, {OLD}]")).await;
    let during = token(&process, "sprinkle").await;
    before.at(&process.api()).get(HOOKS).await.ok();
    during.get(HOOKS).await.ok();
    process.terminate();
    assert!(process.wait().success());

    let process = serve(data.path(), keys, &format!("[{NEW}]")).await;
    during.at(&process.api()).get(HOOKS).await.ok();
    before.at(&process.api()).get(HOOKS).await.refused(401, "token_invalid");
}

#[tokio::test]
async fn disabling_an_ect_or_a_client_ends_its_tokens_at_once() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path()).await;
    declare(&process).await;
    let (sprinkle, helper) = (token(&process, "sprinkle").await, token(&process, "helper").await);
    let api = process.api();
    let put = async |path: &str, body: serde_json::Value| {
        api.send(api.request(Method::PUT, path).bearer_auth(process.admin_token).json(&body)).await.ok();
    };
    let ect = |enabled: bool| json!({"fqdn": "sprinkle.example", "enabled": enabled});
    // Both tokens were found good before, and are remembered.
    sprinkle.get(HOOKS).await.ok();
    helper.get(HOOKS).await.ok();
    put("/admin/v1/ects/sprinkle", ect(false)).await;
    sprinkle.get(HOOKS).await.refused(401, "receiver_not_enabled");
    helper.get(HOOKS).await.ok();
    put("/admin/v1/ects/sprinkle", ect(true)).await;
    sprinkle.get(HOOKS).await.ok();

    let client = |enabled: bool| json!({"sac": true, "ects": ["sprinkle", "helper"], "business": [{"business_id": BUSINESS}], "enabled": enabled});
    put(&format!("/admin/v1/clients/{CLIENT}"), client(false)).await;
    sprinkle.get(HOOKS).await.refused(401, "receiver_not_enabled");
    helper.get(HOOKS).await.refused(401, "receiver_not_enabled");
    put(&format!("/admin/v1/clients/{CLIENT}"), client(true)).await;
    helper.get(HOOKS).await.ok();
    let declaration = json!({"ect": [{"ect_id": "helper", "fqdn": "helper.example", "enabled": false}]});
    api.apply(process.admin_token, &declaration).await;
    helper.get(HOOKS).await.refused(401, "receiver_not_enabled");
}

#[tokio::test]
async fn each_token_has_its_own_rate() {
    let data = tempfile::tempdir().unwrap();
    let process = serve(data.path(), "TRACT_LIMITS__REQUESTS_PER_SECOND_PER_TOKEN", "2").await;
    declare(&process).await;
    let (sprinkle, helper) = (token(&process, "sprinkle").await, token(&process, "helper").await);
    let mut answers = Vec::new();
    // In one burst, so that however slow the machine is, more than two fall into one second.
    let burst = (0..40).map(|_| sprinkle.get(HOOKS));
    answers.extend(futures_util::future::join_all(burst).await);
    let refused: Vec<_> = answers.into_iter().filter(|answer| answer.status != 200).collect();
    assert!((1..=38).contains(&refused.len()), "{}", refused.len());
    for answer in refused {
        assert_eq!(answer.header("retry-after"), "1");
        answer.refused(429, "rate_limited");
    }
    helper.get(HOOKS).await.ok();
}
