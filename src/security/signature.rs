//! Signatures over bodies (section 3): RSA PKCS#1 v1.5 and ECDSA, with SHA-1 as published or SHA-256.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA1_ASN1, ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use p384::ecdsa::{DerSignature, VerifyingKey, signature::hazmat::PrehashVerifier};
use sha1::{Digest, Sha1};

/// The smallest RSA key that is taken, in bits.
pub const MIN_RSA_BITS: usize = 2048;
/// The largest, in bits: verifying costs the more the larger it is.
pub const MAX_RSA_BITS: usize = 8192;

/// What a body is hashed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// As published.
    Sha1,
    /// When `Signature-Algorithm: sha256` is sent.
    Sha256,
}

/// A public key that signatures are verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA, as a PKCS#1 `RSAPublicKey`.
    Rsa(Vec<u8>),
    /// A point on P-256, as in SEC 1.
    P256(Vec<u8>),
    /// A point on P-384, as in SEC 1.
    P384(Vec<u8>),
}

impl PublicKey {
    /// Whether this is this key's signature of the message. False also for a key that is no key.
    pub fn verifies(&self, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        let (key, algorithm): (_, &'static dyn VerificationAlgorithm) = match (self, hash) {
            (Self::Rsa(key), Hash::Sha1) => (key, &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
            (Self::Rsa(key), Hash::Sha256) => (key, &RSA_PKCS1_2048_8192_SHA256),
            (Self::P256(key), Hash::Sha1) => (key, &ECDSA_P256_SHA1_ASN1),
            (Self::P256(key), Hash::Sha256) => (key, &ECDSA_P256_SHA256_ASN1),
            (Self::P384(key), Hash::Sha256) => (key, &ECDSA_P384_SHA256_ASN1),
            (Self::P384(key), Hash::Sha1) => return p384_sha1(key, message, signature),
        };
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }
}

/// The one combination that aws-lc-rs does not have.
fn p384_sha1(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = VerifyingKey::from_sec1_bytes(key) else { return false };
    let Ok(signature) = DerSignature::from_bytes(signature) else { return false };
    // A hash is a number, and this crate wants short ones filled up: with zeros in front it is the same number.
    let mut prehash = [0; 48];
    let hash = Sha1::digest(message);
    for (place, byte) in prehash.iter_mut().skip(48 - hash.len()).zip(&hash) {
        *place = *byte;
    }
    key.verify_prehash(&prehash, &signature).is_ok()
}
