//! A chat tool with three certificates, whose owner signed one body: what anybody else makes of that is no signature.

use async_trait::async_trait;
use futures_util::FutureExt;
use serde_json::{Map, Value};
use std::sync::{Arc, LazyLock};
use tract::http::decode;
use tract::security::chain::Roots;
use tract::security::egress::{EgressClient, EgressRules};
use tract::security::signed_request::{SignedFault, SignedHeaders, SignedRequest, SignedRequests};
use tract::store::{SqliteOptions, SqliteStore};
use tract::tenancy::{Certificate, Ect, Tenancy};
use tract_actors::ports::{Clock, Document, DocumentWrite, Store};
use tract_domain::Timestamp;

/// When it was signed, and when everything here is judged.
pub(crate) const NOW: Timestamp = Timestamp(1_790_000_000_500);
/// The tool's host name.
pub(crate) const FQDN: &str = "chat.sprinkle.example";
/// What was signed.
pub(crate) const BODY: &str =
    r#"{"fqdn":"chat.sprinkle.example","client_id":"acme","timestamp":"2026-09-21T14:13:20.000Z"}"#;
/// Signed requests that are taken, each by another kind of key.
pub(crate) const TRUE: &[&[u8]] = &[
    include_bytes!("corpus/signed_request/p256"),
    include_bytes!("corpus/signed_request/p384"),
    include_bytes!("corpus/signed_request/rsa"),
];
/// Which certificate's key signed [`BODY`] with SHA-256 (or else SHA-1).
const SIGNED: &[(&str, bool)] = &[(P256, true), (P384, false), (RSA, false)];

const P256: &str = "10000000-0000-4000-8000-000000000001";
const P384: &str = "20000000-0000-4000-8000-000000000002";
const RSA: &str = "30000000-0000-4000-8000-000000000003";

struct Still;

#[async_trait]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW
    }
    async fn sleep_until(&self, _: Timestamp) {
        std::future::pending().await
    }
}

static JUDGE: LazyLock<SignedRequests> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(judge())
});

async fn judge() -> SignedRequests {
    let held = |(uuid, pem): (&str, &str)| Certificate {
        uuid: uuid.to_owned(),
        fingerprint: String::new(),
        pem: pem.to_owned(),
    };
    let certificates = [
        (P256, include_str!("certificates/p256.pem")),
        (P384, include_str!("certificates/p384.pem")),
        (RSA, include_str!("certificates/rsa.pem")),
    ];
    // Replays are not refused here, so that a true request is taken as often as it comes, and the store is not asked.
    let ect = serde_json::json!({"ect_id": "sprinkle", "fqdn": FQDN, "refuse_replays": false});
    let mut ect: Ect = serde_json::from_value(ect).expect("an ECT");
    ect.certificates = certificates.map(held).into();
    let body = serde_json::to_string(&ect).expect("JSON");
    let document = Document { kind: "ect".to_owned(), id: ect.ect_id.to_string(), body };
    let directory = tempfile::tempdir().expect("a directory");
    let options = SqliteOptions { partitions: 1, ..SqliteOptions::default() };
    let store: Arc<dyn Store> = SqliteStore::open(directory.path(), options).expect("a store");
    store.write_documents(DocumentWrite { put: vec![document], ..DocumentWrite::default() }).await.expect("written");
    let rules = EgressRules::default();
    let tenancy = Tenancy::load(Arc::clone(&store), rules).await.expect("tenants");
    store.close().await;
    let http = EgressClient::new(rules, &[]).expect("a client");
    SignedRequests::new(store, tenancy, Arc::new(Still), http, Roots::load(&[]))
}

/// A signed request as the corpus has it: lines of headers, an empty line, the body.
pub(crate) fn read(bytes: &[u8]) -> Option<(SignedHeaders<'_>, &[u8])> {
    let end = bytes.windows(2).position(|two| two == b"\n\n")?;
    let mut headers = SignedHeaders::default();
    for line in std::str::from_utf8(&bytes[..end]).ok()?.split('\n') {
        let (name, value) = line.split_once(": ")?;
        let place = match name {
            "Signature" => &mut headers.signature,
            "Signature-Algorithm" => &mut headers.algorithm,
            "SignatureCertUUID" => &mut headers.uuid,
            "SignatureCertChainUrl" => &mut headers.chain_url,
            _ => return None,
        };
        *place = Some(value);
    }
    Some((headers, &bytes[end + 2..]))
}

/// What the body says, or else the signed one: a body that cannot be read must not hide what becomes of its signature.
pub(crate) fn fields(body: &[u8]) -> (String, String) {
    let said = decode::json::<Map<String, Value>>(body).unwrap_or_default();
    let text = |name, signed: &str| said.get(name).and_then(Value::as_str).unwrap_or(signed).to_owned();
    (text("fqdn", FQDN), text("timestamp", "2026-09-21T14:13:20.000Z"))
}

/// Whether it is taken. Whatever it is, only what was signed is, by the key that signed it, with the hash that it used.
/// A chain would have to be fetched, so one without a `SignatureCertUUID` is not judged.
pub(crate) fn judged(headers: SignedHeaders<'_>, body: &[u8]) -> Option<Result<(), SignedFault>> {
    if headers.uuid.is_none() && headers.chain_url.is_some() {
        return None;
    }
    let (fqdn, timestamp) = fields(body);
    let request = SignedRequest { headers, body, fqdn: &fqdn, timestamp: &timestamp, client: None };
    let verdict = JUDGE.accept(request).now_or_never().expect("nothing to wait for").map(drop);
    match &verdict {
        Ok(()) => {
            let by = headers.uuid.unwrap_or_default().to_ascii_lowercase();
            let sha256 = headers.algorithm.is_some_and(|name| name.eq_ignore_ascii_case("sha256"));
            assert_eq!(String::from_utf8_lossy(body), BODY, "nobody signed this body");
            assert!(SIGNED.contains(&(by.as_str(), sha256)), "{by} did not sign so (SHA-256: {sha256})");
        }
        Err(fault) => assert!(!fault.code().is_empty() && !fault.to_string().is_empty()),
    }
    Some(verdict)
}
