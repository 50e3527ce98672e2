//! What there is to read in a certificate. Whether to believe it is for whoever asks.

use super::signature::{MAX_RSA_BITS, MIN_RSA_BITS, PublicKey};
use tract_domain::Timestamp;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey as Parsed;

/// Why a certificate's key is of no use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Neither RSA nor EC on one of two curves.
    #[error("its key is neither RSA nor ECDSA on P-256 or P-384")]
    Unsupported,
    /// RSA of a size that is not taken.
    #[error("its RSA key has {0} bits; it must have {MIN_RSA_BITS} to {MAX_RSA_BITS}")]
    Size(usize),
}

/// The bytes are no X.509 certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an X.509 certificate")]
pub struct NotX509;

/// A certificate, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Valid from this second on.
    pub not_before: Timestamp,
    /// Valid through this second.
    pub not_after: Timestamp,
    /// Its SAN DNS names, as they stand there.
    pub names: Vec<String>,
    /// What it speaks for.
    pub key: Result<PublicKey, KeyFault>,
}

impl Facts {
    /// Reads the DER form.
    pub fn read(der: &[u8]) -> Result<Self, NotX509> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NotX509)?;
        if !rest.is_empty() {
            return Err(NotX509);
        }
        let names = match certificate.subject_alternative_name().map_err(|_| NotX509)? {
            None => Vec::new(),
            Some(extension) => {
                let names = extension.value.general_names.iter();
                let dns = |name: &GeneralName<'_>| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    _ => None,
                };
                names.filter_map(dns).collect()
            }
        };
        let at = |seconds: i64| Timestamp(seconds.saturating_mul(1000));
        Ok(Self {
            not_before: at(certificate.validity().not_before.timestamp()),
            not_after: at(certificate.validity().not_after.timestamp()),
            names,
            key: key(&certificate),
        })
    }

    /// Whether it is within its validity.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        let second = now.0.div_euclid(1000).saturating_mul(1000);
        self.not_before.0 <= second && second <= self.not_after.0
    }

    /// Whether this host name, in lower case, is among its names. A wildcard stands for one label.
    pub fn names(&self, host: &str) -> bool {
        self.names.iter().any(|name| {
            let wild = || {
                let suffix = name.strip_prefix("*.")?;
                let (_, parent) = host.split_once('.')?;
                // As browsers have it: nobody may speak for all of `example`.
                Some(suffix.contains('.') && suffix.eq_ignore_ascii_case(parent))
            };
            name.eq_ignore_ascii_case(host) || wild() == Some(true)
        })
    }
}

fn key(certificate: &X509Certificate<'_>) -> Result<PublicKey, KeyFault> {
    let spki = certificate.public_key();
    let bytes = spki.subject_public_key.data.to_vec();
    let kind = &spki.algorithm.algorithm;
    if *kind == OID_PKCS1_RSAENCRYPTION {
        let Ok(Parsed::RSA(rsa)) = spki.parsed() else { return Err(KeyFault::Unsupported) };
        let modulus = rsa.modulus.iter().skip_while(|byte| **byte == 0);
        let (mut bits, mut leading) = (0, 0);
        for (n, byte) in modulus.enumerate() {
            if n == 0 {
                leading = byte.leading_zeros() as usize;
            }
            bits += 8;
        }
        let bits = bits - leading;
        return match bits {
            MIN_RSA_BITS..=MAX_RSA_BITS => Ok(PublicKey::Rsa(bytes)),
            _ => Err(KeyFault::Size(bits)),
        };
    }
    if *kind != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err(KeyFault::Unsupported);
    }
    match spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()) {
        Some(curve) if curve == OID_EC_P256 => Ok(PublicKey::P256(bytes)),
        Some(curve) if curve == OID_NIST_EC_P384 => Ok(PublicKey::P384(bytes)),
        _ => Err(KeyFault::Unsupported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let named = |name: &str, host: &str| {
            let (not_before, not_after) = (Timestamp(0), Timestamp(0));
            let key = Err(KeyFault::Unsupported);
            Facts { not_before, not_after, names: vec![name.to_owned()], key }.names(host)
        };
        for name in ["chat.ect.example", "Chat.ECT.example", "*.ect.example", "*.ECT.example"] {
            assert!(named(name, "chat.ect.example"), "{name}");
        }
        for name in [
            "ect.example",
            "*.example",
            "*",
            "*.",
            "c*.ect.example",
            "*.*.example",
            "*.chat.ect.example",
            "chat.ect.example.",
            "",
        ] {
            assert!(!named(name, "chat.ect.example"), "{name}");
        }
        assert!(!named("*.ect.example", "ect.example"));
        assert!(!named("*.ect.example", "a.b.ect.example"));
        assert!(!named("*.example", "ect.example"));
    }

    #[test]
    fn validity_is_to_the_second_and_inclusive() {
        let key = Err(KeyFault::Unsupported);
        let facts = Facts { not_before: Timestamp(5_000), not_after: Timestamp(9_000), names: Vec::new(), key };
        for (now, valid) in [(4_999, false), (5_000, true), (9_999, true), (10_000, false)] {
            assert_eq!(facts.is_valid_at(Timestamp(now)), valid, "{now}");
        }
    }

    #[test]
    fn any_bytes_get_a_verdict() {
        for bytes in [&b""[..], b"0", b"\x30\x03\x02\x01\x01", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(Facts::read(bytes), Err(NotX509));
        }
    }
}
