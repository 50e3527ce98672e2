//! A Redis server of the test's own.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

/// `redis-server` on a port and in a directory of its own. Goes with the test, by its process id.
pub(crate) struct RedisServer {
    port: u16,
    settings: Vec<String>,
    child: Mutex<Option<Child>>,
    // Removed last, once nothing is written there any more.
    directory: TempDir,
}

impl RedisServer {
    /// One that syncs before each answer.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// One with these settings.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let settings: Vec<String> = settings.iter().map(|&s| s.to_owned()).collect();
        // Somebody else may take a port between the looking and the taking.
        for _ in 0..20 {
            let directory = TempDir::new().unwrap();
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let server = Self { port: free, settings: settings.clone(), child: Mutex::new(None), directory };
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server does not start; is it installed?");
    }

    fn launch(&self) -> bool {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--daemonize", "no", "--save", ""]);
        command.args(["--port", &self.port.to_string()]).arg("--dir").arg(self.directory.path()).args(&self.settings);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("redis-server is installed");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Ready to accept connections"));
        if !ready {
            let _ = child.wait();
            return false;
        }
        // What nobody reads would stop it in the end.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        *self.child.lock().unwrap() = Some(child);
        true
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(TcpStream::connect(self.address()).is_err());
    }

    /// Starts it again where it was, with what it has kept.
    pub(crate) fn revive(&self) {
        assert!(self.launch(), "redis-server does not start again");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
