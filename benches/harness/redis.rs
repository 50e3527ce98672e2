//! A Redis server of the bench's own.

use super::server::{cpu, free_addr};
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// `redis-server` on a port and in a directory of its own; it ends with this, by its process id.
pub(crate) struct Redis {
    process: Child,
    addr: String,
    // Removed last, once nothing is written there any more.
    _directory: tempfile::TempDir,
}

impl Redis {
    /// One with an append-only file that is synced `always` (before each answer) or `everysec`.
    pub(crate) fn start(appendfsync: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let addr = free_addr();
        let (_, port) = addr.rsplit_once(':').unwrap();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", port, "--daemonize", "no", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", appendfsync])
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let mut server = Self { process, addr, _directory: directory };
        let begun = Instant::now();
        while std::net::TcpStream::connect(&server.addr).is_err() {
            let ended = server.process.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < Duration::from_secs(20), "redis-server does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/0", self.addr)
    }

    /// CPU time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(self.process.id())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
