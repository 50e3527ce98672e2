//! The one way out: every URL that a tenant gives us is fetched through this client and its guard (section 8).
//!
//! What shows in a URL is judged by [`check_url`], when it is registered and again when it is used. Where a name leads
//! is judged at the moment of connecting, in the resolver, so that what was checked is what is connected to. A literal
//! address never reaches a resolver; it is judged just before sending.

use super::address::is_public;
use super::lookups::FairLookups;
use super::resolver::{GuardedResolver, Lookup, SystemLookup};
pub use super::url::{EgressRules, MAX_URL, UrlFault, check_url};
use bytes::Bytes;
use reqwest::Version;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, RETRY_AFTER, TRANSFER_ENCODING};
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::{Host, Url};

/// An idle connection is dropped before the usual servers drop it (the shortest common keep-alive is 5 s): a request
/// that meets a closing connection fails, and a turn of the IVA is not repeated.
const KEEP_IDLE: Duration = Duration::from_secs(4);

/// How much later than its timeout a request may end. Past it, this process has stood still, as when its machine was
/// paused, and what an endpoint did meanwhile is not known.
const HELD_UP: Duration = Duration::from_secs(1);

/// Why there was no answer. Says nothing of the URL, which may carry secrets in its query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendFault {
    /// The URL itself is refused.
    #[error("the URL {0}")]
    Url(#[from] UrlFault),
    /// The delivery's id cannot stand in a header.
    #[error("the request could not be signed")]
    Unsignable,
    /// The name could not be resolved.
    #[error("the host name could not be resolved")]
    Unresolvable,
    /// The address is not a public one.
    #[error("the address is not public")]
    NotPublic,
    /// No connection (refused, unreachable, TLS).
    #[error("could not connect")]
    Connect,
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// The connection broke before an answer came.
    #[error("the connection broke")]
    Broken,
    /// This process stood still while it waited: that says nothing of the endpoint.
    #[error("the router stood still meanwhile")]
    HeldUp,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Retry-After`, as it came.
    pub retry_after: Option<String>,
    /// The body, if all of it came in time and within the bound.
    pub body: Option<Bytes>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum EgressFault {
    /// An extra root is not a PEM certificate.
    #[error("extra root {0} is not a PEM certificate")]
    Root(usize),
    /// TLS could not be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// The HTTP client behind the guard. Cheap to clone; all clones share their connections.
#[derive(Debug, Clone)]
pub struct EgressClient {
    http: reqwest::Client,
    rules: EgressRules,
}

impl EgressClient {
    /// A client with these rules that trusts the system's roots and these PEM bundles.
    pub fn new(rules: EgressRules, extra_roots: &[Vec<u8>]) -> Result<Self, EgressFault> {
        Self::made(rules, extra_roots, Arc::new(SystemLookup), &[])
    }

    /// As [`Self::new`], with the places of some host names, ports included: tests have no name server, nor port 443. The
    /// rules are for these places too.
    #[doc(hidden)]
    pub fn routed(
        rules: EgressRules,
        extra_roots: &[Vec<u8>],
        routes: &[(String, SocketAddr)],
    ) -> Result<Self, EgressFault> {
        Self::made(rules, extra_roots, Arc::new(SystemLookup), routes)
    }

    /// As [`Self::new`], with another resolver, for tests of what resolvers can answer.
    #[doc(hidden)]
    pub fn with_lookup(
        rules: EgressRules,
        extra_roots: &[Vec<u8>],
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, EgressFault> {
        Self::made(rules, extra_roots, lookup, &[])
    }

    fn made(
        rules: EgressRules,
        extra_roots: &[Vec<u8>],
        lookup: Arc<dyn Lookup>,
        routes: &[(String, SocketAddr)],
    ) -> Result<Self, EgressFault> {
        let mut roots = Vec::new();
        for (index, pem) in extra_roots.iter().enumerate() {
            let bundle = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| EgressFault::Root(index))?;
            if bundle.is_empty() {
                return Err(EgressFault::Root(index));
            }
            roots.extend(bundle);
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("tract/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .https_only(!rules.allow_http)
            .pool_idle_timeout(KEEP_IDLE)
            .tls_certs_merge(roots)
            .dns_resolver(GuardedResolver::new(
                rules,
                Arc::new(FairLookups::new(lookup)),
                routes.iter().cloned().collect(),
            ))
            .build()
            .map_err(|e| EgressFault::Tls(chain(&e)))?;
        Ok(Self { http, rules })
    }

    /// The rules that it keeps to.
    pub fn rules(&self) -> EgressRules {
        self.rules
    }

    /// Posts a body, and reads at most `max_answer` bytes of what comes back. All of it takes at most `timeout`; an
    /// answer whose status came in time counts, whatever becomes of its body.
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
        max_answer: usize,
    ) -> Result<Answer, SendFault> {
        let request = self.http.post(self.permitted_url(url)?).headers(headers).body(body);
        Self::exchange(request, timeout, max_answer).await
    }

    /// Fetches at most `max_answer` bytes, within `timeout`.
    pub async fn get(&self, url: &str, timeout: Duration, max_answer: usize) -> Result<Answer, SendFault> {
        Self::exchange(self.http.get(self.permitted_url(url)?), timeout, max_answer).await
    }

    fn permitted_url(&self, url: &str) -> Result<Url, SendFault> {
        let url = check_url(url, self.rules)?;
        if !self.rules.allow_private && literal(&url).is_some_and(|address| !is_public(address)) {
            return Err(SendFault::NotPublic);
        }
        Ok(url)
    }

    async fn exchange(
        request: reqwest::RequestBuilder,
        timeout: Duration,
        max_answer: usize,
    ) -> Result<Answer, SendFault> {
        let begun = Instant::now();
        let sent = request.timeout(timeout).send().await;
        let held_up = begun.elapsed() > timeout + HELD_UP;
        let mut response = sent.map_err(|e| if held_up { SendFault::HeldUp } else { classify(&e) })?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let status = response.status().as_u16();
        Ok(Answer { status, retry_after, body: read(&mut response, max_answer).await })
    }
}

async fn read(response: &mut reqwest::Response, most: usize) -> Option<Bytes> {
    if response.content_length().is_some_and(|n| n > most as u64) {
        return None;
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > most => return None,
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) if ends_with_connection(response) && is_end(&error) => break,
            Err(_) => return None,
        }
    }
    Some(body.into())
}

/// Whether the body goes on until the connection is closed, with no length to tell its end by.
fn ends_with_connection(response: &reqwest::Response) -> bool {
    let headers = response.headers();
    response.version() <= Version::HTTP_11
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
}

/// Whether the connection was closed without TLS's own farewell, which small servers (Python's among them) leave out.
/// Who is between could cut such a body short; but a chain or JSON that is cut short is none.
fn is_end(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let mut ends = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    ends.any(|cause| cause.kind() == io::ErrorKind::UnexpectedEof)
}

fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(v4) => Some(v4.into()),
        Host::Ipv6(v6) => Some(v6.into()),
        Host::Domain(_) => None,
    }
}

fn classify(error: &reqwest::Error) -> SendFault {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(fault) = cause.downcast_ref::<SendFault>() {
            return fault.clone();
        }
        source = cause.source();
    }
    match error {
        e if e.is_timeout() => SendFault::TimedOut,
        e if e.is_connect() => SendFault::Connect,
        _ => SendFault::Broken,
    }
}

/// An error with its causes, for the operator at start-up.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, http::StatusCode, routing::post};
    use std::net::SocketAddr;

    const STRICT: EgressRules = EgressRules { allow_private: false, allow_http: false };
    const HTTP: EgressRules = EgressRules { allow_private: false, allow_http: true };
    const OPEN: EgressRules = EgressRules { allow_private: true, allow_http: true };

    async fn serve(app: Router) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    async fn fetch(rules: EgressRules, url: &str, timeout_ms: u64) -> Result<Answer, SendFault> {
        let client = EgressClient::new(rules, &[]).unwrap();
        client.post(url, HeaderMap::new(), Bytes::new(), Duration::from_millis(timeout_ms), 16).await
    }

    #[tokio::test]
    async fn private_places_are_not_connected_to() {
        let hits = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let seen = Arc::clone(&hits);
        let count = move || {
            seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            std::future::ready("hit")
        };
        let port = serve(Router::new().route("/", post(count))).await.port();
        // Every spelling of the same place: names, literals, and forms that only a URL parser recognises.
        for host in
            ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"]
        {
            let answer = fetch(HTTP, &format!("http://{host}:{port}/"), 5_000).await;
            assert_eq!(answer.unwrap_err(), SendFault::NotPublic, "{host}");
        }
        assert_eq!(hits.load(std::sync::atomic::Ordering::SeqCst), 0);
        assert_eq!(fetch(OPEN, &format!("http://localhost:{port}/"), 5_000).await.unwrap().status, 200);
    }

    #[tokio::test]
    async fn redirects_are_answers_and_bodies_are_bounded() {
        let app = Router::new()
            .route("/moved", post(|| async { (StatusCode::FOUND, [("location", "/ok")]) }))
            .route("/ok", post(|| async { "fine" }))
            .route("/busy", post(|| async { (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "7")]) }))
            .route("/large", post(|| async { "x".repeat(17) }));
        let base = format!("http://{}", serve(app).await);
        let get = |path: &'static str| fetch(OPEN, Box::leak(format!("{base}{path}").into_boxed_str()), 5_000);
        assert_eq!(get("/moved").await.unwrap().status, 302);
        assert_eq!(get("/ok").await.unwrap().body.as_deref(), Some(&b"fine"[..]));
        let large = get("/large").await.unwrap();
        assert_eq!((large.status, large.body), (200, None));
        assert_eq!(get("/busy").await.unwrap().retry_after.as_deref(), Some("7"));
    }

    #[tokio::test]
    async fn faults_are_told_apart() {
        let app = Router::new().route("/never", post(|| async { std::future::pending::<()>().await }));
        let base = format!("http://{}", serve(app).await);
        assert_eq!(fetch(OPEN, &format!("{base}/never"), 50).await.unwrap_err(), SendFault::TimedOut);
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(fetch(OPEN, &format!("http://{closed}/"), 5_000).await.unwrap_err(), SendFault::Connect);
        assert_eq!(fetch(OPEN, "http://no-such.invalid/", 5_000).await.unwrap_err(), SendFault::Unresolvable);
        let url = format!("{base}/never");
        let stand_still = async { std::thread::sleep(HELD_UP + Duration::from_millis(100)) };
        let (held_up, ()) = tokio::join!(fetch(OPEN, &url, 50), stand_still);
        assert_eq!(held_up.unwrap_err(), SendFault::HeldUp);
        let plain = fetch(STRICT, &format!("{base}/never"), 50).await.unwrap_err();
        assert_eq!(plain, SendFault::Url(UrlFault::Http));
    }
}
