//! The real binary, for what only a process of its own can show: crashes, signals, exit codes.

use super::api::{Api, Channel, Token};
use super::fixture::{BUSINESS, CLIENT};
use super::peer::Peer;
use serde_json::json;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long the process may take to answer. Real time: only a failing test ever takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// `tract serve` on a port and a data directory of its own.
pub(crate) struct Process {
    child: Child,
    pub(crate) base: String,
    pub(crate) admin_token: &'static str,
}

impl Process {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(data: &Path) -> Self {
        Self::start_with(data, |_| ()).await
    }

    /// Starts it with settings of the test's own, and waits until it is ready.
    pub(crate) async fn start_with(data: &Path, set: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tract"));
        let started = Self::spawn_with(command.stderr(Stdio::inherit()), data, set).ready().await;
        started.unwrap_or_else(|status| panic!("`tract serve` ended: {status}"))
    }

    /// The same, but starts it again when it ends by itself, as a supervisor would: what it needs may not be there yet.
    pub(crate) async fn start_persistently(data: &Path, set: impl Fn(&mut Command)) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tract"));
            let started = Self::spawn_with(command.stderr(Stdio::inherit()), data, &set).ready().await;
            match started {
                Ok(process) => return process,
                Err(status) => assert!(Instant::now() < deadline, "`tract serve` ends again and again: {status}"),
            }
        }
    }

    /// Starts it by this command line, which is to put itself in the place of the one that follows it, and waits until it
    /// is ready. Its log goes nowhere: whatever it writes there fails.
    pub(crate) async fn start_by(launcher: &[&str], data: &Path) -> Self {
        let (program, arguments) = launcher.split_first().expect("a launcher is a command");
        let mut command = Command::new(program);
        command.args(arguments).arg(env!("CARGO_BIN_EXE_tract"));
        let full = std::fs::File::options().write(true).open("/dev/full").expect("there is /dev/full");
        let started = Self::spawn_with(command.stderr(full), data, |_| ()).ready().await;
        started.unwrap_or_else(|status| panic!("`tract serve` ended: {status}"))
    }

    /// Waits until it is ready; how it ended, if it did.
    async fn ready(mut self) -> Result<Self, ExitStatus> {
        let process = &mut self;
        let api = Api::new(process.base.clone());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = api.request(reqwest::Method::GET, "/readyz").send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(self);
            }
            if let Ok(Some(status)) = process.child.try_wait() {
                return Err(status);
            }
            assert!(Instant::now() < deadline, "`tract serve` is not ready after {PATIENCE:?}");
            tokio::task::yield_now().await;
        }
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(data: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tract"));
        Self::spawn_with(command.stderr(Stdio::inherit()), data, |_| ())
    }

    fn spawn_with(command: &mut Command, data: &Path, set: impl FnOnce(&mut Command)) -> Self {
        let admin_token = "the-operator-of-this-test";
        let address = free_address();
        command
            .args(["serve", "--listen", &address])
            .current_dir(data)
            .env("TRACT_STORE__PATH", data.join("store"))
            .env("TRACT_SECURITY__ADMIN_TOKEN", admin_token)
            .env("TRACT_EGRESS__ALLOW_PRIVATE", "true")
            .env("TRACT_EGRESS__ALLOW_HTTP", "true")
            // What happens at a crash is said by the tests; the log would only bury it.
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        set(command);
        let child = command.spawn().expect("the binary starts");
        Self { child, base: format!("http://{address}"), admin_token }
    }

    /// Its id, to look at it from the outside.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn api(&self) -> Api {
        Api::new(self.base.clone())
    }

    /// `kill -9`: no destructor runs, nothing is flushed.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process ends");
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// SIGSTOP: it stands still, and does not know it.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let told = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(told.is_ok_and(|status| status.success()), "the process can be signalled");
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("the process ends")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already dead after `kill` and `wait`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A tenant of a process: a client whose only receiver is the agent tool `sprinkle`, which hears every message.
pub(crate) struct Tenant {
    pub(crate) desk: Peer,
    pub(crate) sprinkle: Token,
    pub(crate) channel: Channel,
}

impl Process {
    /// Declares the tenant, and registers its hook.
    pub(crate) async fn tenant(&self) -> Tenant {
        let api = self.api();
        let desk = Peer::start("desk").await;
        let declaration = json!({
            "ect": [{"ect_id": "sprinkle", "fqdn": "sprinkle.example"}],
            "client": [{"client_id": CLIENT, "ects": ["sprinkle"], "business": [{"business_id": BUSINESS}]}],
        });
        let made = api.apply(self.admin_token, &declaration).await;
        let api_token = made.iter().find(|made| made["kind"] == "api_token").unwrap()["value"].as_str().unwrap();
        let channel = Channel::new(api.clone(), CLIENT, api_token, BUSINESS);
        let sprinkle = api.token(self.admin_token, CLIENT, "sprinkle").await;
        let secret =
            sprinkle.register("message.receive", &desk.url()).await.expect("the first registration shows the secret");
        desk.expect_signed_with(&secret);
        Tenant { desk, sprinkle, channel }
    }
}

/// A port that was free a moment ago: `--listen` with port 0 would not tell us which it took.
fn free_address() -> String {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    probe.local_addr().unwrap().to_string()
}
