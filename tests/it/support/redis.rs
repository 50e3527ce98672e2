//! A Redis server of the test's own. A cluster, sentinels and replicas are made of several (`redis_cluster`).

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// `redis-server` on a port and in a directory of its own. Goes with the test, by its process id.
pub(crate) struct RedisServer {
    port: u16,
    settings: Vec<String>,
    tls: Option<TestCa>,
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
        Self::start_each(None, || settings.iter().map(|&s| s.to_owned()).collect())
    }

    /// One that speaks TLS and nothing else, with a certificate of this authority.
    pub(crate) fn start_tls(ca: &TestCa, settings: &[&str]) -> Self {
        Self::start_each(Some(ca), || settings.iter().map(|&s| s.to_owned()).collect())
    }

    /// One with the settings that are made for each attempt: somebody else may take a port between the looking and the
    /// taking.
    pub(crate) fn start_each(tls: Option<&TestCa>, settings: impl Fn() -> Vec<String>) -> Self {
        for _ in 0..20 {
            let directory = TempDir::new().unwrap();
            let (port, settings, child) = (free_port(), settings(), Mutex::new(None));
            let server = Self { port, settings, tls: tls.cloned(), child, directory };
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server does not start; is it installed?");
    }

    fn launch(&self) -> bool {
        let mut command = command();
        command.args(["--bind", "127.0.0.1", "--daemonize", "no", "--save", ""]);
        let port = self.port.to_string();
        match &self.tls {
            None => command.args(["--port", &port]),
            Some(ca) => {
                command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]).args(ca.arguments())
            }
        };
        command.arg("--dir").arg(self.directory.path()).args(&self.settings);
        self.spawn(command, "Ready to accept connections")
    }

    /// One that watches over the primary there, under the name of `mymaster`.
    pub(crate) fn start_sentinel(of: &Self) -> Self {
        for _ in 0..20 {
            let (directory, port) = (TempDir::new().unwrap(), free_port());
            let tls = match &of.tls {
                None => format!("port {port}\n"),
                Some(ca) => {
                    let files = ca.arguments();
                    let files = files.chunks_exact(2).map(|pair| format!("{} {}\n", &pair[0][2..], pair[1]));
                    let files: String = files.collect();
                    format!("port 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients no\n{files}")
                }
            };
            let watched = format!(
                "sentinel monitor mymaster 127.0.0.1 {} 1\nsentinel down-after-milliseconds mymaster 500\n\
                 sentinel failover-timeout mymaster 2000\n",
                of.port
            );
            let file = directory.path().join("sentinel.conf");
            std::fs::write(&file, format!("bind 127.0.0.1\n{tls}dir {}\n{watched}", directory.path().display()))
                .unwrap();
            let sentinel = Self { port, settings: Vec::new(), tls: of.tls.clone(), child: Mutex::new(None), directory };
            let mut command = command();
            command.arg(file).arg("--sentinel");
            if sentinel.spawn(command, "+monitor master") {
                return sentinel;
            }
        }
        panic!("redis-server --sentinel does not start");
    }

    /// Whether it has come as far as this line of its log.
    fn spawn(&self, mut command: Command, until: &str) -> bool {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("there is a shell");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains(until));
        if !ready {
            end(child);
            return false;
        }
        // What nobody reads would stop it in the end.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        *self.child.lock().unwrap() = Some(child);
        true
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}/0", self.port)
    }

    /// A connection of the test's own, which blocks.
    pub(crate) fn connection(&self) -> redis::Connection {
        let client = match &self.tls {
            None => redis::Client::open(self.url()),
            Some(ca) => {
                let root_cert = Some(std::fs::read(ca.file()).unwrap());
                redis::Client::build_with_tls(self.url(), redis::TlsCertificates { client_tls: None, root_cert })
            }
        };
        client.unwrap().get_connection().unwrap()
    }

    /// What it answers.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut self.connection()).unwrap()
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// SIGSTOP: it keeps its connections and answers nobody.
    pub(crate) fn pause(&self) -> Paused {
        let info: String = self.ask(&["INFO", "server"]);
        let id = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().to_owned();
        signal("-STOP", &id);
        Paused(id)
    }

    /// Adds the user `router`, with the rights that docs/operations.md tells operators to give.
    pub(crate) fn add_router(&self, password: &str) {
        let guide = include_str!("../../../docs/operations.md");
        let lines = guide.lines().skip_while(|line| !line.starts_with("ACL SETUSER router"));
        let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("```")).collect();
        let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
        assert!(words.contains(&"~tract:*") && !words.iter().any(|word| word.starts_with("+@")), "{words:?}");
        let password = format!(">{password}");
        let words: Vec<&str> = words.iter().map(|word| if word.starts_with('>') { &*password } else { word }).collect();
        self.ask::<()>(&words);
    }

    /// Whether it has not been killed.
    pub(crate) fn is_there(&self) -> bool {
        self.child.lock().unwrap().is_some()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&self) {
        if let Some(child) = self.child.lock().unwrap().take() {
            end(child);
        }
        assert!(TcpStream::connect(self.address()).is_err());
    }

    /// Starts it again where it was, with what it has kept.
    pub(crate) fn revive(&self) {
        assert!(self.launch(), "redis-server does not start again");
    }
}

/// `redis-server`, which is killed when the standard input ends: with the test's process, whatever that dies of.
fn command() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\" </dev/null & server=$!; exec >&-; read -r _; kill -9 $server; wait", "sh"]);
    command.arg("redis-server");
    command
}

/// Kills the server, and waits until it is gone.
fn end(mut child: Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}

/// A server that answers nobody until it is resumed.
pub(crate) struct Paused(String);

impl Paused {
    pub(crate) fn resume(self) {}
}

impl Drop for Paused {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(name: &str, id: &str) {
    assert!(Command::new("kill").args([name, id]).status().unwrap().success());
}

/// A port that is free at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// An authority, and a certificate of it for 127.0.0.1, in files.
#[derive(Clone)]
pub(crate) struct TestCa(Arc<TempDir>);

impl TestCa {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut of_ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        // Else both would have the same name, and OpenSSL takes a certificate that its own name vouches for for self-signed.
        of_ca.distinguished_name.push(rcgen::DnType::CommonName, "the authority of this test");
        of_ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = of_ca.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(of_ca, key);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &issuer).unwrap();
        for (name, pem) in [("ca.pem", ca.pem()), ("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())] {
            std::fs::write(directory.path().join(name), pem).unwrap();
        }
        Self(Arc::new(directory))
    }

    /// The authority's certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }

    fn arguments(&self) -> Vec<String> {
        let file = |name: &str| self.0.path().join(name).to_str().unwrap().to_owned();
        let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        ["--tls-ca-cert-file".to_owned(), ca, "--tls-cert-file".to_owned(), cert, "--tls-key-file".to_owned(), key]
            .into()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(child) = self.child.lock().unwrap().take() {
            end(child);
        }
    }
}
