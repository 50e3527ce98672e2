//! Signed requests (section 3): who signed this body, by which certificate, and whether for the first time.

use super::chain::{Chain, ChainFault, MAX_CHAIN, Roots};
use super::chain_url::{self, ChainUrlFault};
use super::egress::EgressClient;
use super::kept_chains::KeptChains;
use super::shares::Shares;
use super::signature::{Hash, PublicKey};
use super::x509::{Facts, KeyFault};
use crate::tenancy::{Ect, Tenancy, certificate, host::host_name};
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tract_actors::ports::{Clock, Store, StoreError};
use tract_domain::{ClientId, ReceiverId, Timestamp};

/// How far a timestamp may be from now, in milliseconds.
pub const WINDOW_MS: u64 = 150_000;
/// How long fetching a chain may take, waiting included.
const FETCH_TIME: Duration = Duration::from_secs(5);
/// A kept chain that fails is fetched anew, in case its owner has replaced it, but not more often than this, in milliseconds.
const RETRY_MS: u64 = 60_000;
/// Chains that are fetched at once: whoever asks for them has not shown who they are.
const FETCHES: usize = 32;
/// Of these, for one FQDN: a slow host holds up its own chat tool only.
const FETCHES_OF_FQDN: usize = 4;
/// The longest signature, in base64: that of the largest RSA key.
const MAX_SIGNATURE: usize = 2048;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a signed request is refused. Its text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedFault {
    /// Not signed by that certificate's key, or not signed at all.
    #[error("Signature: {0}")]
    Signature(&'static str),
    /// Another hash than those that this ECT may use.
    #[error("Signature-Algorithm: {0}")]
    Algorithm(&'static str),
    /// No header says by which certificate.
    #[error("send SignatureCertUUID or SignatureCertChainUrl")]
    NoCertificate,
    /// Both say it.
    #[error("send either SignatureCertUUID or SignatureCertChainUrl, not both")]
    TwoCertificates,
    /// A field of the body is wrong: which, and how.
    #[error("{0}: {1}")]
    Field(&'static str, &'static str),
    /// Too old, or from the future.
    #[error("timestamp: is more than 150 s from now")]
    Timestamp,
    /// We do not hold it for the ECT with that FQDN.
    #[error("SignatureCertUUID: there is no such certificate of this fqdn")]
    UnknownCertificate,
    /// There is no ECT with that FQDN.
    #[error("fqdn: no chat tool with this fqdn is known")]
    UnknownEct,
    /// Not within its validity.
    #[error("the certificate is not within its validity")]
    Expired,
    /// It does not name the FQDN.
    #[error("the certificate does not name the fqdn")]
    Name,
    /// Its key is not taken.
    #[error("the certificate cannot be used: {0}")]
    Key(#[from] KeyFault),
    /// It is not to be believed.
    #[error("the certificate is not trusted: {0}")]
    Untrusted(ChainFault),
    /// The URL may not be fetched from.
    #[error("SignatureCertChainUrl: {0}")]
    Url(#[from] ChainUrlFault),
    /// It could not be fetched.
    #[error("SignatureCertChainUrl: could not be fetched: {0}")]
    Unavailable(String),
    /// The ECT is not enabled for that client, or there is no such client.
    #[error("this chat tool is not enabled for this client")]
    ClientNotEnabled,
    /// It was accepted before.
    #[error("this request was sent before; sign a new one with a new timestamp")]
    Replayed,
    /// Whether it is new is not known.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SignedFault {
    /// The code in the answer.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Signature(_) => "signature_invalid",
            Self::Algorithm(_) => "signature_algorithm_not_allowed",
            Self::NoCertificate => "certificate_missing",
            Self::TwoCertificates => "certificate_ambiguous",
            Self::Field(..) => "invalid_field",
            Self::Timestamp => "timestamp_out_of_range",
            Self::UnknownCertificate => "certificate_unknown",
            Self::UnknownEct => "ect_unknown",
            Self::Expired => "certificate_expired",
            Self::Name => "certificate_name_mismatch",
            Self::Key(_) => "certificate_key_not_allowed",
            Self::Untrusted(_) => "certificate_untrusted",
            Self::Url(_) => "certificate_url_invalid",
            Self::Unavailable(_) => "certificate_unavailable",
            Self::ClientNotEnabled => "client_not_enabled",
            Self::Replayed => "replayed_request",
            Self::Store(_) => "store_unavailable",
        }
    }
}

impl From<ChainFault> for SignedFault {
    fn from(fault: ChainFault) -> Self {
        match fault {
            ChainFault::Expired => Self::Expired,
            ChainFault::Name => Self::Name,
            ChainFault::NotPem | ChainFault::Untrusted => Self::Untrusted(fault),
        }
    }
}

/// The headers of a signed request, as they came.
#[derive(Debug, Clone, Copy, Default)]
pub struct SignedHeaders<'a> {
    /// `Signature`
    pub signature: Option<&'a str>,
    /// `Signature-Algorithm`
    pub algorithm: Option<&'a str>,
    /// `SignatureCertUUID`
    pub uuid: Option<&'a str>,
    /// `SignatureCertChainUrl`
    pub chain_url: Option<&'a str>,
}

/// A signed request: its headers, its body as it came, and what the body says.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// The headers.
    pub headers: SignedHeaders<'a>,
    /// The bytes that were signed.
    pub body: &'a [u8],
    /// `fqdn`
    pub fqdn: &'a str,
    /// `timestamp`
    pub timestamp: &'a str,
    /// `client_id`, where the call has one: the ECT must be enabled for it.
    pub client: Option<&'a ClientId>,
}

/// Which certificate the headers name.
enum Named<'a> {
    Uuid(&'a str),
    Chain(&'a str),
}

/// Judges signed requests.
pub struct SignedRequests {
    store: Arc<dyn Store>,
    tenancy: Arc<Tenancy>,
    clock: Arc<dyn Clock>,
    http: EgressClient,
    roots: Roots,
    chains: KeptChains,
    fetches: Shares,
}

impl std::fmt::Debug for SignedRequests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedRequests").field("roots", &self.roots).finish_non_exhaustive()
    }
}

impl SignedRequests {
    /// Fetches chains through this client, and trusts them up to these roots.
    pub fn new(
        store: Arc<dyn Store>,
        tenancy: Arc<Tenancy>,
        clock: Arc<dyn Clock>,
        http: EgressClient,
        roots: Roots,
    ) -> Self {
        let (chains, fetches) = (KeptChains::default(), Shares::new(FETCHES, FETCHES_OF_FQDN));
        Self { store, tenancy, clock, http, roots, chains, fetches }
    }

    /// Makes every check, in the end that it is new. Says who signed.
    pub async fn accept(&self, request: SignedRequest<'_>) -> Result<Arc<Ect>, SignedFault> {
        let now = self.clock.now();
        let hash = match request.headers.algorithm {
            None => Hash::Sha1,
            Some(name) if name.eq_ignore_ascii_case("sha1") => Hash::Sha1,
            Some(name) if name.eq_ignore_ascii_case("sha256") => Hash::Sha256,
            Some(_) => return Err(SignedFault::Algorithm("must be sha256, or absent for SHA-1")),
        };
        let named = match (request.headers.uuid, request.headers.chain_url) {
            (Some(_), Some(_)) => return Err(SignedFault::TwoCertificates),
            (None, None) => return Err(SignedFault::NoCertificate),
            (Some(uuid), None) => Named::Uuid(uuid),
            (None, Some(url)) => Named::Chain(url),
        };
        let signature = read_signature(request.headers.signature)?;
        let fqdn = host_name(request.fqdn).map_err(|_| SignedFault::Field("fqdn", "must be a host name"))?;
        let signed_at = read_timestamp(request.timestamp)?;
        if now.0.abs_diff(signed_at.0) > WINDOW_MS {
            return Err(SignedFault::Timestamp);
        }
        let check = |ect: &Ect, key: &PublicKey| {
            if ect.require_sha256 && hash != Hash::Sha256 {
                return Err(SignedFault::Algorithm("this chat tool must sign with sha256"));
            }
            if !key.verifies(hash, request.body, &signature) {
                return Err(SignedFault::Signature("is not this certificate's signature of the body as it was sent"));
            }
            Ok(())
        };
        let ect = match named {
            Named::Uuid(uuid) => {
                let (ect, facts) = self.pinned(uuid, &fqdn)?;
                if !facts.is_valid_at(now) {
                    return Err(SignedFault::Expired);
                }
                if !facts.names(&fqdn) {
                    return Err(SignedFault::Name);
                }
                check(&ect, &facts.key?)?;
                ect
            }
            Named::Chain(text) => {
                let url = chain_url::judge(text, &fqdn)?;
                let ect = self.ect_of(&fqdn, request.client).ok_or(SignedFault::UnknownEct)?;
                let judge = |chain: &Chain| {
                    self.roots.judge(chain, &fqdn, now)?;
                    check(&ect, chain.leaf().key.as_ref().map_err(|fault| *fault)?)
                };
                self.with_chain(url.as_str(), &fqdn, now, judge).await?;
                ect
            }
        };
        if let Some(client) = request.client
            && !self.tenancy.directory().is_receiver(client, &ect.ect_id)
        {
            return Err(SignedFault::ClientNotEnabled);
        }
        self.first_time(&ect, request.body, signed_at, now).await?;
        Ok(ect)
    }

    /// The certificate that we hold under this id, if it is of an ECT with that FQDN.
    fn pinned(&self, uuid: &str, fqdn: &str) -> Result<(Arc<Ect>, Facts), SignedFault> {
        let of_fqdn = |ect: &&Arc<Ect>| ect.enabled && ect.fqdn == fqdn;
        let ects = self.tenancy.directory().ects();
        let found = ects.iter().filter(of_fqdn).find_map(|ect| {
            let held = ect.certificates.iter().find(|held| held.uuid.eq_ignore_ascii_case(uuid))?;
            Some((Arc::clone(ect), held))
        });
        let (ect, held) = found.ok_or(SignedFault::UnknownCertificate)?;
        // What was taken by an earlier version may not be readable to this one.
        let facts = certificate::facts(&held.pem).map_err(|_| SignedFault::UnknownCertificate)?;
        Ok((ect, facts))
    }

    /// The ECT with this FQDN; where several share it, the one that is enabled for the client.
    fn ect_of(&self, fqdn: &str, client: Option<&ClientId>) -> Option<Arc<Ect>> {
        let directory = self.tenancy.directory();
        let ects = directory.ects();
        let mut all = ects.iter().filter(|ect| ect.enabled && ect.fqdn == fqdn);
        let meant = |id: &ReceiverId| client.is_some_and(|client| directory.is_receiver(client, id));
        all.clone().find(|ect| meant(&ect.ect_id)).or_else(|| all.next()).cloned()
    }

    /// Judges the chain at this URL: one that was kept, else one that is fetched. Only a chain that passes is kept, so
    /// that nobody but the ECT itself can fill its room.
    async fn with_chain(
        &self,
        url: &str,
        fqdn: &str,
        now: Timestamp,
        judge: impl Fn(&Chain) -> Result<(), SignedFault>,
    ) -> Result<(), SignedFault> {
        if let Some((chain, age_ms)) = self.chains.find(url, now) {
            match judge(&chain) {
                Ok(()) => return Ok(()),
                Err(fault) if age_ms < RETRY_MS => return Err(fault),
                Err(_) => {}
            }
        }
        let chain = tokio::time::timeout(FETCH_TIME, self.fetch(url, fqdn))
            .await
            .map_err(|_| SignedFault::Unavailable("timed out".to_owned()))??;
        judge(&chain)?;
        self.chains.keep(url, fqdn, chain, now);
        Ok(())
    }

    async fn fetch(&self, url: &str, fqdn: &str) -> Result<Chain, SignedFault> {
        let _turn = self.fetches.turn(fqdn).await;
        let answer = self.http.get(url, FETCH_TIME, MAX_CHAIN).await;
        let answer = answer.map_err(|fault| SignedFault::Unavailable(fault.to_string()))?;
        if answer.status != 200 {
            return Err(SignedFault::Unavailable(format!("status {}", answer.status)));
        }
        let body = answer.body.ok_or_else(|| SignedFault::Unavailable("too large, or too slow".to_owned()))?;
        Ok(Chain::read(&body)?)
    }

    async fn first_time(
        &self,
        ect: &Ect,
        body: &[u8],
        signed_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), SignedFault> {
        if !ect.refuse_replays {
            return Ok(());
        }
        let mut key = Sha256::new();
        key.update(ect.ect_id.as_str().as_bytes());
        key.update([0]);
        key.update(Sha256::digest(body));
        let new = self.store.remember_request(key.finalize().into(), signed_at.plus(WINDOW_MS), now).await?;
        if new { Ok(()) } else { Err(SignedFault::Replayed) }
    }
}

fn read_signature(header: Option<&str>) -> Result<Vec<u8>, SignedFault> {
    let text = header.ok_or(SignedFault::Signature("is missing"))?.trim();
    if text.is_empty() || text.len() > MAX_SIGNATURE {
        return Err(SignedFault::Signature("must be the signature in base64"));
    }
    BASE64.decode(text).map_err(|_| SignedFault::Signature("is not base64"))
}

/// ISO 8601 with `Z`, to the millisecond.
fn read_timestamp(text: &str) -> Result<Timestamp, SignedFault> {
    let wrong = || SignedFault::Field("timestamp", "must be an ISO 8601 time with Z, such as 2026-01-31T12:00:00.000Z");
    if text.len() > 40 || !text.ends_with('Z') {
        return Err(wrong());
    }
    let read: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    Ok(Timestamp(read.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        assert_eq!(read_timestamp("1970-01-01T00:00:01.5Z"), Ok(Timestamp(1500)));
        assert_eq!(read_timestamp("1970-01-01T00:00:01.500999Z"), Ok(Timestamp(1500)));
        for bad in
            ["", "Z", "now", "1970-01-01T00:00:01", "1970-01-01T00:00:01+00:00", "1700000000", "1970-13-01T00:00:00Z"]
        {
            assert!(matches!(read_timestamp(bad), Err(SignedFault::Field("timestamp", _))), "{bad}");
        }
        assert!(read_timestamp(&format!("1970-01-01T00:00:01.{}Z", "0".repeat(99))).is_err());
    }

    #[test]
    fn signatures_in_base64() {
        assert_eq!(read_signature(Some(" AQI= ")), Ok(vec![1, 2]));
        assert_eq!(read_signature(Some("AQI")), Ok(vec![1, 2]));
        let long = "A".repeat(MAX_SIGNATURE + 1);
        for bad in [None, Some(""), Some("%%"), Some("A"), Some(long.as_str())] {
            assert!(matches!(read_signature(bad), Err(SignedFault::Signature(_))), "{bad:?}");
        }
    }
}
