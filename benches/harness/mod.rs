//! What the benches share: the real binary as a process of its own, and a little HTTP.

#![allow(dead_code, reason = "each bench is a crate of its own and uses a part")]

use serde_json::{Value, json};
use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The operator's token of every bench.
pub(crate) const ADMIN: &str = "bench-admin-token-of-this-run-only";

/// The number after an option, or its default.
pub(crate) fn number(args: &[String], name: &str, default: usize) -> usize {
    let at = args.iter().position(|a| a == name);
    at.map_or(default, |at| args.get(at + 1).and_then(|v| v.parse().ok()).expect("a number after the option"))
}

/// Posts JSON; the answer of a success.
pub(crate) async fn post(http: &reqwest::Client, url: String, bearer: &str, client: &str, body: Value) -> Value {
    let request = http.post(&url).bearer_auth(bearer).header("client-id", client).json(&body);
    let answer = request.send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{url}: {status} {text}");
    serde_json::from_str(&text).unwrap()
}

/// A receiver's token.
pub(crate) async fn token(router: &Server, http: &reqwest::Client, client: &str, receiver: &str) -> String {
    let wanted = json!({"client_id": client, "receiver": receiver, "ttl_seconds": 86_400});
    let made = post(http, format!("{}/admin/v1/tokens", router.url), ADMIN, client, wanted).await;
    made["token"].as_str().unwrap().to_owned()
}

/// A server as a process of its own; it ends with this.
pub(crate) struct Server {
    process: Child,
    /// Where it listens.
    pub(crate) url: String,
    /// How long it took to be ready.
    pub(crate) started_in: Duration,
}

impl Server {
    /// `tract serve` on a store in this directory, allowed to call this machine.
    pub(crate) async fn router(dir: &Path, http: &reqwest::Client) -> Self {
        let addr = free_addr();
        let process = Command::new(env!("CARGO_BIN_EXE_tract"))
            .args(["serve", "--listen", &addr])
            .current_dir(dir)
            .env("TRACT_SECURITY__ADMIN_TOKEN", ADMIN)
            .env("TRACT_EGRESS__ALLOW_PRIVATE", "true")
            .env("TRACT_EGRESS__ALLOW_HTTP", "true")
            .env("RUST_LOG", "error")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { process, url: format!("http://{addr}"), started_in: Duration::ZERO }.up(http, "/readyz").await
    }

    /// This very bench, as the server that does what any must.
    pub(crate) async fn bare(http: &reqwest::Client) -> Self {
        let addr = free_addr();
        let process = Command::new(std::env::current_exe().unwrap()).args(["--bare-server", &addr]).spawn().unwrap();
        Self { process, url: format!("http://{addr}"), started_in: Duration::ZERO }.up(http, "/").await
    }

    /// Ends it in order, and starts the router anew on the same directory, at another address.
    pub(crate) async fn restarted(mut self, dir: &Path, http: &reqwest::Client) -> Self {
        let told = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(told.success());
        self.process.wait().unwrap();
        Self::router(dir, http).await
    }

    async fn up(mut self, http: &reqwest::Client, path: &str) -> Self {
        let begun = Instant::now();
        while http.get(format!("{}{path}", self.url)).send().await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the server does not come up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.started_in = begun.elapsed();
        self
    }

    /// CPU time that the process has used, user and system.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_addr() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The middle one.
pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
