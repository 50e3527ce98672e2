//! The router and the bare server as processes of their own, and what they cost.

use super::{ADMIN, bare, drive::Run, figures::Figures, floor};
use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A server as a process of its own; it ends with this.
pub(crate) struct Server {
    process: Child,
    /// Where it listens.
    pub(crate) url: String,
    /// How long it took from its start until it was ready.
    pub(crate) started_in: Duration,
}

impl Server {
    /// `tract serve` on a store in this directory, allowed to call this machine.
    pub(crate) async fn router(dir: &Path, http: &reqwest::Client) -> Self {
        Self::router_with(dir, http, &[]).await
    }

    /// The same with further settings, as environment variables.
    pub(crate) async fn router_with(dir: &Path, http: &reqwest::Client, settings: &[(&str, String)]) -> Self {
        Self::router_of(Path::new(env!("CARGO_BIN_EXE_tract")), dir, http, settings).await
    }

    /// The same, of another build.
    pub(crate) async fn router_of(
        binary: &Path,
        dir: &Path,
        http: &reqwest::Client,
        settings: &[(&str, String)],
    ) -> Self {
        let addr = free_addr();
        let mut command = Command::new(binary);
        command
            .args(["serve", "--listen", &addr])
            .current_dir(dir)
            .env("TRACT_SECURITY__ADMIN_TOKEN", ADMIN)
            .env("TRACT_EGRESS__ALLOW_PRIVATE", "true")
            .env("TRACT_EGRESS__ALLOW_HTTP", "true")
            .env("RUST_LOG", "error")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("log")).unwrap());
        Self::started(command, addr, http).await
    }

    /// This very bench, as the server that does what any must.
    pub(crate) async fn bare(http: &reqwest::Client) -> Self {
        let addr = free_addr();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([bare::OPTION, &addr]);
        Self::started(command, addr, http).await
    }

    /// This very bench, as what takes a message this way at least; see [`floor`].
    pub(crate) async fn floor(way: &floor::Way, http: &reqwest::Client) -> Self {
        let addr = free_addr();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([floor::OPTION, &addr]).args(way.arguments());
        Self::started(command, addr, http).await
    }

    /// Ends it in order, and starts the router anew on the same directory, at another address.
    pub(crate) async fn restarted(self, dir: &Path, http: &reqwest::Client) -> Self {
        self.stop();
        Self::router(dir, http).await
    }

    /// Ends it in order (SIGTERM), and waits for that.
    pub(crate) fn stop(mut self) {
        let told = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(told.success());
        self.process.wait().unwrap();
    }

    async fn started(mut command: Command, addr: String, http: &reqwest::Client) -> Self {
        let begun = Instant::now();
        let mut process = command.spawn().unwrap();
        let url = format!("http://{addr}");
        let ready = format!("{url}/readyz");
        while !http.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success()) {
            if let Some(status) = process.try_wait().unwrap() {
                panic!("the server ended at once: {status}");
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not come up");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Self { process, url, started_in: begun.elapsed() }
    }

    /// CPU time that the process has used, user and system.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(self.process.id())
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
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

/// What a run costs a server.
pub(crate) struct Meter<'a> {
    server: &'a Server,
    before: Duration,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(server: &'a Server) -> Self {
        Self { server, before: server.cpu() }
    }

    /// The run's figures, with CPU time for each answer and resident memory as it is now.
    pub(crate) fn read(self, run: &Run) -> Figures {
        let figures = Figures::of(run).with_cpu("cpu_us", self.server.cpu() - self.before);
        figures.with("resident_mib", self.server.resident_kib() as f64 / 1024.0)
    }
}

/// CPU time of a process, user and system, to 10 ms.
pub(crate) fn cpu(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// A port that was free a moment ago.
pub(crate) fn free_addr() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
