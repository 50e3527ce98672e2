//! Certificate chains (section 3): read from PEM, trusted up to a root of the system or of `egress.extra_roots`.

use super::x509::Facts;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::time::Duration;
use tract_domain::Timestamp;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// The largest chain that is fetched, in bytes.
pub const MAX_CHAIN: usize = 64 * 1024;

/// Certificates in a chain; real ones have three or four.
const MAX_CERTIFICATES: usize = 16;

/// Why a chain is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// It is no list of certificates in PEM.
    #[error("it is not a PEM chain")]
    NotPem,
    /// One of its certificates is not valid now.
    #[error("a certificate is not within its validity")]
    Expired,
    /// The leaf does not name the host.
    #[error("the certificate does not name the fqdn")]
    Name,
    /// No way leads to a root that is trusted.
    #[error("no chain leads to a trusted root")]
    Untrusted,
}

/// A chain as it was fetched, leaf first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    facts: Facts,
}

impl Chain {
    /// Reads it. Other sections, such as keys, are passed over.
    pub fn read(pem: &[u8]) -> Result<Self, ChainFault> {
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            certificates.push(certificate.map_err(|_| ChainFault::NotPem)?);
            if certificates.len() > MAX_CERTIFICATES {
                return Err(ChainFault::NotPem);
            }
        }
        let mut certificates = certificates.into_iter();
        let leaf = certificates.next().ok_or(ChainFault::NotPem)?;
        let facts = Facts::read(&leaf).map_err(|_| ChainFault::NotPem)?;
        Ok(Self { leaf, intermediates: certificates.collect(), facts })
    }

    /// What the leaf says.
    pub fn leaf(&self) -> &Facts {
        &self.facts
    }
}

/// Roots of trust.
pub struct Roots(Vec<TrustAnchor<'static>>);

impl std::fmt::Debug for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

impl Roots {
    /// The system's roots and those of these PEM bundles. What cannot be read of the system's is logged and passed over;
    /// `extra` was checked when the settings were read.
    pub fn load(extra: &[Vec<u8>]) -> Self {
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(%error, "a root certificate of the system cannot be read");
        }
        let extra = extra.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
        let all = system.certs.into_iter().chain(extra);
        Self(all.filter_map(|der| anchor_from_trusted_cert(&der).ok().map(|anchor| anchor.to_owned())).collect())
    }

    /// Whether a chain speaks for this host, in lower case, at this time.
    pub fn judge(&self, chain: &Chain, host: &str, now: Timestamp) -> Result<(), ChainFault> {
        if !chain.facts.is_valid_at(now) {
            return Err(ChainFault::Expired);
        }
        if !chain.facts.names(host) {
            return Err(ChainFault::Name);
        }
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.0).unwrap_or(0) / 1000));
        let leaf = EndEntityCert::try_from(&chain.leaf).map_err(|_| ChainFault::Untrusted)?;
        let verify = |usage| {
            leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &self.0, &chain.intermediates, time, usage, None, None)
                .map(drop)
        };
        // Public authorities issue for servers; a private one may have issued for clients.
        let verified = match verify(KeyUsage::server_auth()) {
            Err(webpki::Error::RequiredEkuNotFoundContext(_)) => verify(KeyUsage::client_auth()),
            verified => verified,
        };
        verified.map_err(|fault| match fault {
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => ChainFault::Expired,
            _ => ChainFault::Untrusted,
        })
    }
}
