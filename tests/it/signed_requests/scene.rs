//! A router with chat tools that sign, and the host that serves their chains.

use crate::support::{ADMIN_TOKEN, Api, ManualClock, Reply, start_router_with};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, rustls};
use tract::app::Running;
use tract::config::{EgressSettings, StoreSettings};
use tract_actors::ports::Clock;

/// The host name of the tool that most tests are about.
pub(super) const FQDN: &str = "chat.sprinkle.example";
pub(super) const ISSUE: &str = "/tract/management/token/issue/";
pub(super) const LIST: &str = "/tract/management/client/list/";

/// A key that openssl made and signs with: the same tool that integrators use.
pub(super) struct Signer {
    file: tempfile::NamedTempFile,
    pub(super) pair: KeyPair,
}

impl Signer {
    /// Of a kind such as `RSA:2048` or `EC:P-256`.
    pub(super) fn new(kind: &str) -> Self {
        let (algorithm, size) = kind.split_once(':').unwrap();
        let option = if algorithm == "RSA" { "rsa_keygen_bits" } else { "ec_paramgen_curve" };
        let file = tempfile::NamedTempFile::new().unwrap();
        let made = Command::new("openssl")
            .args(["genpkey", "-quiet", "-algorithm", algorithm, "-pkeyopt", &format!("{option}:{size}"), "-out"])
            .arg(file.path())
            .status();
        assert!(made.expect("openssl is installed").success());
        let pair = KeyPair::from_pem(&std::fs::read_to_string(file.path()).unwrap()).unwrap();
        Self { file, pair }
    }

    pub(super) fn sign(&self, hash: &str, body: &[u8]) -> String {
        let message = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(message.path(), body).unwrap();
        let signed = Command::new("openssl")
            .args(["dgst", &format!("-{hash}"), "-sign"])
            .args([self.file.path(), message.path()])
            .output()
            .unwrap();
        assert!(signed.status.success(), "{signed:?}");
        STANDARD.encode(signed.stdout)
    }

    /// Its self-signed certificate.
    pub(super) fn certificate(&self, name: &str, validity: Validity) -> String {
        params(name, validity).self_signed(&self.pair).unwrap().pem()
    }
}

#[derive(Clone, Copy)]
pub(super) enum Validity {
    Now,
    Past,
    Future,
}

pub(super) fn params(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, format!("leaf {name}"));
    let (from, to) = match validity {
        Validity::Now => (2020, 2090),
        Validity::Past => (2001, 2002),
        Validity::Future => (2089, 2090),
    };
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    params
}

/// A root, and an authority below it that issues.
pub(super) struct Authority {
    pub(super) root: String,
    pub(super) intermediate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let authority = |name: String| {
            let mut params = CertificateParams::new([]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params, KeyPair::generate().unwrap())
        };
        let (params, key) = authority(format!("{name} root"));
        let root = params.self_signed(&key).unwrap().pem();
        let above = Issuer::new(params, key);
        let (params, key) = authority(format!("{name} below"));
        let intermediate = params.signed_by(&key, &above).unwrap().pem();
        Self { root, intermediate, issuer: Issuer::new(params, key) }
    }
    pub(super) fn leaf(&self, key: &KeyPair, name: &str, validity: Validity) -> String {
        params(name, validity).signed_by(key, &self.issuer).unwrap().pem()
    }
    /// Leaf first, without the root.
    pub(super) fn chain(&self, key: &KeyPair, name: &str, validity: Validity) -> String {
        self.leaf(key, name, validity) + &self.intermediate
    }
}

/// What a path of the host answers.
#[derive(Clone)]
pub(super) enum Page {
    Is(u16, String),
    /// Its end is where the connection ends, without a farewell: as small servers do.
    Unmeasured(String),
    /// A byte less than it says.
    Short(String),
    Never,
}

/// A tool's host: HTTPS, as its authority certifies.
pub(super) struct Host {
    name: &'static str,
    pub(super) address: SocketAddr,
    hits: Arc<AtomicUsize>,
    pages: Arc<Mutex<HashMap<String, Page>>>,
    server: JoinHandle<()>,
}

impl Host {
    pub(super) async fn start(authority: &Authority) -> Self {
        Self::of(FQDN, authority).await
    }

    /// The host of this name.
    pub(super) async fn of(name: &'static str, authority: &Authority) -> Self {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let key = KeyPair::generate().unwrap();
        let chain = authority.chain(&key, name, Validity::Now);
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (hits, pages) = (Arc::new(AtomicUsize::new(0)), Arc::<Mutex<HashMap<String, Page>>>::default());
        let (seen, known) = (Arc::clone(&hits), Arc::clone(&pages));
        let server = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                seen.fetch_add(1, Ordering::SeqCst);
                let (acceptor, known) = (acceptor.clone(), Arc::clone(&known));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => request.push(byte),
                            Err(_) => return,
                        }
                    }
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let path = text.split(' ').nth(1).unwrap_or_default();
                    let page = known.lock().unwrap().get(path).cloned();
                    let (status, body, more) = match page.unwrap_or(Page::Is(404, String::new())) {
                        Page::Is(status, body) => (status, body, 0),
                        Page::Short(body) => (200, body, 1),
                        Page::Unmeasured(body) => {
                            let _ = stream.write_all(("HTTP/1.0 200 x\r\n\r\n".to_owned() + &body).as_bytes()).await;
                            let _ = stream.flush().await;
                            return;
                        }
                        Page::Never => return std::future::pending().await,
                    };
                    let head = format!(
                        "HTTP/1.1 {status} x\r\nlocation: /ect.api/good.pem\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                        body.len() + more
                    );
                    let _ = stream.write_all((head + &body).as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { name, address, hits, pages, server }
    }
    /// Serves a page, and says where.
    pub(super) fn serve(&self, path: &str, page: Page) -> String {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
        format!("https://{}{path}", self.name)
    }
    /// How often somebody connected.
    pub(super) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A running router with chat tools that sign.
pub(super) struct Scene {
    pub(super) api: Api,
    pub(super) clock: Arc<ManualClock>,
    running: Running,
    data: tempfile::TempDir,
    made: AtomicUsize,
}

impl Scene {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Trusts this authority, and finds the host.
    pub(super) async fn trusting(authority: &Authority, host: &Host) -> Self {
        Self::with(|egress| trust(egress, authority, host)).await
    }

    pub(super) async fn with(adjust: impl FnOnce(&mut EgressSettings)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new());
        let running = start_router_with(&data, Arc::clone(&clock) as Arc<dyn Clock>, |s| adjust(&mut s.egress)).await;
        let api = Api::new(format!("http://{}", running.addr()));
        let tenants = json!({
            "ect": [
                {"ect_id": "sprinkle", "fqdn": FQDN},
                {"ect_id": "modern", "fqdn": "modern.example", "require_sha256": true},
                {"ect_id": "stuck", "fqdn": "stuck.example", "refuse_replays": false},
                {"ect_id": "off", "fqdn": "off.example", "enabled": false},
            ],
            "client": [
                {"client_id": "acme", "name": "Acme", "ects": ["sprinkle", "modern", "stuck"], "default_receiver": "sprinkle",
                    "handoff_receiver": "sprinkle", "business": [{"business_id": 1}]},
                {"client_id": "beta", "name": "Beta", "ects": ["sprinkle"], "business": [{"business_id": 1}]},
                {"client_id": "closed", "ects": ["sprinkle"], "enabled": false, "business": [{"business_id": 1}]},
                {"client_id": "others", "ects": ["modern"], "business": [{"business_id": 1}]},
            ],
        });
        api.apply(ADMIN_TOKEN, &tenants).await;
        Self { api, clock, running, data, made: AtomicUsize::new(0) }
    }

    /// Stops, and starts again on the same data.
    pub(super) async fn restart(self) -> Self {
        let Self { clock, running, data, made, .. } = self;
        running.stop().await.unwrap();
        let running = start_router_with(&data, Arc::clone(&clock) as Arc<dyn Clock>, |s| {
            assert!(matches!(s.store, StoreSettings::Embedded { .. }));
        })
        .await;
        Self { api: Api::new(format!("http://{}", running.addr())), clock, running, data, made }
    }

    pub(super) async fn stop(self) {
        self.running.stop().await.unwrap();
    }

    pub(super) async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let mut request = self.api.request(method, path).bearer_auth(ADMIN_TOKEN);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.api.send(request).await
    }

    /// Has the router hold a certificate; its id.
    pub(super) async fn hold(&self, ect: &str, pem: &str) -> String {
        let path = format!("/admin/v1/ects/{ect}/certificates");
        let held = self.admin(Method::POST, &path, Some(json!({"pem": pem}))).await.ok();
        held["uuid"].as_str().unwrap().to_owned()
    }

    /// A body of now, unlike any before it.
    pub(super) fn body(&self, fqdn: &str) -> String {
        self.body_at(fqdn, 0)
    }
    /// A body of so many milliseconds from now.
    pub(super) fn body_at(&self, fqdn: &str, offset_ms: i64) -> String {
        let at = jiff::Timestamp::from_millisecond(self.clock.now().0 + offset_ms).unwrap();
        let n = self.made.fetch_add(1, Ordering::SeqCst);
        json!({"fqdn": fqdn, "client_id": "acme", "timestamp": format!("{at:.3}"), "n": n}).to_string()
    }

    pub(super) async fn post(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = self.api.request(Method::POST, path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.api.send(request.body(body.to_owned())).await
    }

    /// Signs with SHA-256 and posts, naming the certificate by this header.
    pub(super) async fn signed(&self, path: &str, body: &str, signer: &Signer, by: (&str, &str)) -> Reply {
        let signature = signer.sign("sha256", body.as_bytes());
        self.post(path, body, &[("Signature", &signature), ("Signature-Algorithm", "sha256"), by]).await
    }
}

pub(super) fn trust(egress: &mut EgressSettings, authority: &Authority, host: &Host) {
    // Read while the router starts; the file need not stay, but the system cleans up after us.
    let root = tempfile::Builder::new().suffix(".pem").tempfile().unwrap();
    std::fs::write(root.path(), &authority.root).unwrap();
    egress.extra_roots.push(root.into_temp_path().keep().unwrap());
    egress.routes.push((host.name.to_owned(), host.address));
}
