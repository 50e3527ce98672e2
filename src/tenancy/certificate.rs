//! Certificates as they are uploaded: PEM in, DER and fingerprint out. Whether one may be trusted is judged when it signs.

use super::model::hex;
use crate::security::x509::{Facts, KeyFault};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use sha2::{Digest, Sha256};

/// Why a text is not a certificate to upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// There is no `BEGIN CERTIFICATE`.
    #[error("holds no PEM certificate (-----BEGIN CERTIFICATE-----)")]
    None,
    /// There are several; each gets an id of its own, so each stands alone.
    #[error("holds {0} certificates; give each its own file")]
    Several(usize),
    /// A private key was about to leave its owner's machine.
    #[error("holds a private key; give the certificate alone, and keep the key where it is")]
    PrivateKey,
    /// What stands between the PEM lines is not a certificate.
    #[error("is not readable as a PEM certificate")]
    Unreadable,
    /// What stands between the PEM lines is no certificate as X.509 has it.
    #[error("is not an X.509 certificate")]
    NotX509,
    /// Nothing could be verified with its key.
    #[error("cannot be used: {0}")]
    Key(#[from] KeyFault),
    /// It is larger than any real certificate.
    #[error("is larger than {MAX_CERTIFICATE} bytes")]
    TooLarge,
}

/// The largest certificate file that is taken, in bytes.
pub const MAX_CERTIFICATE: usize = 64 * 1024;

/// A certificate, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// SHA-256 of the DER form, hex.
    pub fingerprint: String,
    /// The certificate alone, without whatever else was in the file.
    pub pem: String,
}

/// Reads the one certificate in a text.
pub fn parse(text: &str) -> Result<Parsed, CertificateFault> {
    if text.len() > MAX_CERTIFICATE {
        return Err(CertificateFault::TooLarge);
    }
    if text.contains("PRIVATE KEY-----") {
        return Err(CertificateFault::PrivateKey);
    }
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match section {
            Ok((SectionKind::Certificate, der)) => found.push(der),
            Ok(_) => {}
            Err(_) => return Err(CertificateFault::Unreadable),
        }
    }
    let [der] = found.as_slice() else {
        return Err(if found.is_empty() { CertificateFault::None } else { CertificateFault::Several(found.len()) });
    };
    Facts::read(der).map_err(|_| CertificateFault::NotX509)?.key?;
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let encoded = STANDARD.encode(der);
    for (n, c) in encoded.chars().enumerate() {
        if n > 0 && n % 64 == 0 {
            pem.push('\n');
        }
        pem.push(c);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    Ok(Parsed { fingerprint: hex(&Sha256::digest(der)), pem })
}

/// What a certificate says that was taken before.
pub fn facts(pem: &str) -> Result<Facts, CertificateFault> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertificateFault::Unreadable)?;
    Facts::read(&der).map_err(|_| CertificateFault::NotX509)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex};

    static SAMPLES: LazyLock<Mutex<HashMap<u8, String>>> = LazyLock::new(Mutex::default);

    /// A self-signed certificate, the same one for the same seed.
    pub(crate) fn sample(seed: u8) -> String {
        let mut samples = SAMPLES.lock().unwrap();
        let make = || rcgen::generate_simple_self_signed(["chat.sprinkle.example".to_owned()]).unwrap().cert.pem();
        samples.entry(seed).or_insert_with(make).clone()
    }

    fn with_key(key: &rcgen::KeyPair) -> String {
        rcgen::CertificateParams::new(["x.example".to_owned()]).unwrap().self_signed(key).unwrap().pem()
    }

    #[test]
    fn keys_that_nothing_could_be_verified_with_are_refused() {
        let key = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap();
        for good in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            assert!(parse(&with_key(&key(good))).is_ok());
        }
        for bad in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P521_SHA512] {
            assert_eq!(parse(&with_key(&key(bad))), Err(CertificateFault::Key(KeyFault::Unsupported)));
        }
        assert_eq!(parse(include_str!("tests/rsa-1024.pem")), Err(CertificateFault::Key(KeyFault::Size(1024))));
        assert!(parse(include_str!("tests/rsa-2048.pem")).is_ok());
    }

    #[test]
    fn one_certificate_is_read_whatever_stands_around_it() {
        let plain = parse(&sample(1)).unwrap();
        assert_eq!(plain.fingerprint.len(), 64);
        assert_eq!(parse(&format!("subject=CN x\n{}trailing", sample(1))).unwrap(), plain);
        assert_eq!(parse(&plain.pem).unwrap(), plain);
        assert_ne!(parse(&sample(2)).unwrap().fingerprint, plain.fingerprint);
    }

    #[test]
    fn what_is_not_one_certificate_is_refused() {
        let key = "-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n";
        let lines = sample(1).lines().count();
        let cut: Vec<_> =
            sample(1).lines().enumerate().filter(|(n, _)| *n != lines - 2).map(|(_, l)| l.to_owned()).collect();
        let text = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        for (text, fault) in [
            (String::new(), CertificateFault::None),
            ("hello".to_owned(), CertificateFault::None),
            (format!("{}{}", sample(1), sample(2)), CertificateFault::Several(2)),
            (format!("{key}{}", sample(1)), CertificateFault::PrivateKey),
            ("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n".to_owned(), CertificateFault::Unreadable),
            ("-----BEGIN CERTIFICATE-----\nMAAA\n".to_owned(), CertificateFault::Unreadable),
            (cut.join("\n"), CertificateFault::NotX509),
            (text("MAMCAQE="), CertificateFault::NotX509),
            (text(&STANDARD.encode([0x30, 0x84, 0xff, 0xff, 0xff, 0xff])), CertificateFault::NotX509),
            ("x".repeat(MAX_CERTIFICATE + 1), CertificateFault::TooLarge),
        ] {
            assert_eq!(parse(&text).unwrap_err(), fault, "{text:.60}");
        }
    }
}
