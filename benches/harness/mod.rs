//! What the benches share: the real binary as a process of its own, a generator of load, and how figures are shown.

#![allow(dead_code, reason = "each bench is a crate of its own and uses a part")]

pub(crate) mod bare;
pub(crate) mod chart;
pub(crate) mod drive;
pub(crate) mod figures;
pub(crate) mod floor;
pub(crate) mod machine;
pub(crate) mod redis;
pub(crate) mod scene;
pub(crate) mod seed;
pub(crate) mod server;
pub(crate) mod targets;
pub(crate) mod threads;
pub(crate) mod wire;

pub(crate) use server::Server;

use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// The operator's token of every bench.
pub(crate) const ADMIN: &str = "bench-admin-token-of-this-run-only";

/// The channel side's token of every client of a bench.
pub(crate) const API: &str = "bench-channel-token-of-this-run-only";

/// The number after an option, or its default.
pub(crate) fn number(args: &[String], name: &str, default: usize) -> usize {
    let at = args.iter().position(|a| a == name);
    at.map_or(default, |at| args.get(at + 1).and_then(|v| v.parse().ok()).expect("a number after the option"))
}

/// How often a request that was refused before anything was done is repeated, 100 ms apart.
const TRIES: usize = 50;

/// Posts JSON; the answer of a success.
pub(crate) async fn post(http: &reqwest::Client, url: String, bearer: &str, client: &str, body: Value) -> Value {
    for left in (0..TRIES).rev() {
        let request = http.post(&url).bearer_auth(bearer).header("client-id", client).json(&body);
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        if status.is_success() {
            return serde_json::from_str(&text).unwrap();
        }
        assert!(status == 503 && left > 0, "{url}: {status} {text}");
        eprintln!("{url}: {status} {text}; once more");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!("the last try has been judged")
}

/// A receiver's token.
pub(crate) async fn token(router: &Server, http: &reqwest::Client, client: &str, receiver: &str) -> String {
    let wanted = json!({"client_id": client, "receiver": receiver, "ttl_seconds": 86_400});
    let made = post(http, format!("{}/admin/v1/tokens", router.url), ADMIN, client, wanted).await;
    made["token"].as_str().unwrap().to_owned()
}

/// The middle one; of an even number, the upper of the two.
pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Writes a file whose directory may be missing.
pub(crate) fn write(path: &Path, text: &str) {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).unwrap();
    }
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    eprintln!("wrote {}", path.display());
}
