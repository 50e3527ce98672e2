//! The log: what is in it, and that nobody waits for whoever reads it.

use crate::support::{BUSINESS, CLIENT, Process};
use reqwest::Method;
use serde_json::json;
use std::fs::{self, File};
use std::process::Stdio;

const API_TOKEN: &str = "channel-token-0123456789";

/// Without any settings for the log.
#[tokio::test]
async fn what_a_request_changed_is_in_the_log_by_its_id() {
    let data = tempfile::tempdir().unwrap();
    let log = data.path().join("log");
    let stderr = File::create(&log).unwrap();
    let set = |command: &mut std::process::Command| {
        command.env_remove("RUST_LOG").stderr(Stdio::from(stderr));
    };
    let process = Process::start_with(data.path(), set).await;
    let api = process.api();
    let declaration = json!({"client": [{"client_id": CLIENT, "api_token": API_TOKEN, "sac": true,
        "business": [{"business_id": BUSINESS}]}]});
    api.apply(process.admin_token, &declaration).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let put = api.request(Method::POST, "/v1.0/user").bearer_auth(API_TOKEN).header("client-id", CLIENT);
    let put = put.header("x-request-id", "a-change").header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    api.send(put.json(&json!({"auth_id": "kim"}))).await.ok();
    api.send(api.request(Method::GET, "/healthz").header("x-request-id", "a-look")).await.ok();
    process.terminate();
    assert!(process.wait().success());
    let logged = fs::read_to_string(&log).unwrap();
    let line: serde_json::Value =
        logged.lines().find(|line| line.contains("a-change")).map(|line| serde_json::from_str(line).unwrap()).unwrap();
    let span = &line["span"];
    assert_eq!((&line["message"], &line["status"]), (&json!("answered"), &json!(200)));
    assert_eq!(
        (&span["route"], &span["client"], &span["trace_id"]),
        (&json!("/v1.0/user"), &json!(CLIENT), &json!(trace))
    );
    assert!(!logged.contains("a-look"), "what only looks is told of at debug");
}

/// A collector that stands still must not stop conversations; what it does not take is lost, and counted.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start_with(data.path(), |command| {
        command.env("RUST_LOG", "trace").stderr(Stdio::piped());
    })
    .await;
    let api = process.api();
    let lost = "\ntract_log_lines_lost_total ";
    let lines_lost = async || {
        let scrape = api.request(Method::GET, "/metrics").bearer_auth(process.admin_token);
        let metrics = scrape.send().await.unwrap().text().await.unwrap();
        metrics.split(lost).nth(1).unwrap().lines().next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(lines_lost().await, 0, "a line that waits is not lost");
    // Each is a dozen lines; some ten thousand wait before one is lost.
    while lines_lost().await == 0 {
        let looks = (0..100).map(|_| async { api.send(api.request(Method::GET, "/healthz")).await.ok() });
        futures_util::future::join_all(looks).await;
    }
    process.terminate();
    assert!(process.wait().success());
}
