//! Secrets that we make, and the forms in which secrets are accepted.

use super::model::{Secret, hex};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use sha2::{Digest, Sha256};

/// What a webhook secret of ours begins with (Standard Webhooks).
pub const WEBHOOK_PREFIX: &str = "whsec_";

/// 32 unguessable bytes. Three random UUIDs hold 366 bits of a cryptographic generator that the operating system seeds; the
/// hash makes them even.
fn random() -> [u8; 32] {
    let mut hash = Sha256::new();
    for _ in 0..3 {
        hash.update(uuid::Uuid::new_v4().as_bytes());
    }
    hash.finalize().into()
}

/// Makes a bearer token: the prefix, then 32 random bytes in base64url.
pub fn make_token(prefix: &str) -> Secret {
    Secret::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random())))
}

/// Makes a webhook secret (section 4): `whsec_`, then 32 random bytes in base64.
pub fn make_webhook_secret() -> Secret {
    Secret::new(format!("{WEBHOOK_PREFIX}{}", STANDARD.encode(random())))
}

/// SHA-256 of a text, hex: how a token is kept that is only ever compared.
pub fn sha256_hex(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Why a text is no use as a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    /// It has no characters.
    #[error("must not be empty")]
    Empty,
    /// It is far longer than any secret.
    #[error("must be at most 1024 characters long")]
    TooLong,
    /// It could not travel in a header.
    #[error("may only contain visible ASCII characters")]
    Character,
    /// After `whsec_` there must be what to sign with.
    #[error("after whsec_ there must be base64")]
    NotBase64,
}

/// Reads a token that callers will show in a header.
pub fn token(text: &str) -> Result<Secret, SecretFault> {
    match text {
        "" => Err(SecretFault::Empty),
        _ if text.len() > 1024 => Err(SecretFault::TooLong),
        _ if !text.bytes().all(|c| c.is_ascii_graphic()) => Err(SecretFault::Character),
        _ => Ok(Secret::new(text)),
    }
}

/// Reads a secret that webhooks are signed with (section 8): any text, but base64 after `whsec_`.
pub fn webhook_secret(text: &str) -> Result<Secret, SecretFault> {
    let secret = token(text)?;
    match text.strip_prefix(WEBHOOK_PREFIX).map(|key| STANDARD.decode(key)) {
        Some(Ok(key)) if key.is_empty() => Err(SecretFault::NotBase64),
        Some(Err(_)) => Err(SecretFault::NotBase64),
        _ => Ok(secret),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_we_make_we_take() {
        let made = make_webhook_secret();
        assert_eq!(webhook_secret(made.expose()).unwrap(), made);
        assert_eq!(STANDARD.decode(made.expose().strip_prefix(WEBHOOK_PREFIX).unwrap()).unwrap().len(), 32);
        let made = make_token("tract_");
        assert_eq!(token(made.expose()).unwrap(), made);
        assert_ne!(make_token("tract_"), made);
    }

    #[test]
    fn useless_secrets_are_refused() {
        for (text, fault) in [
            ("", SecretFault::Empty),
            ("two words", SecretFault::Character),
            ("schlüssel", SecretFault::Character),
            ("whsec_", SecretFault::NotBase64),
            ("whsec_!", SecretFault::NotBase64),
            (&*"x".repeat(1025), SecretFault::TooLong),
        ] {
            assert_eq!(webhook_secret(text).unwrap_err(), fault, "{text}");
        }
        assert!(webhook_secret("plain-text").is_ok());
    }
}
