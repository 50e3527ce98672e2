//! Signatures that are right, and those that somebody else would make.

use crate::tenancy::Secret;
use crate::webhook::Signer;
use reqwest::header::{HeaderMap, InvalidHeaderValue};
use tract_domain::Timestamp;

const HUB: &str = "x-hub-signature";
const STANDARD: &str = "webhook-signature";

/// The body that [`Signing::OfAnotherBody`] signs.
const ANOTHER_BODY: &[u8] = b"{}";

/// How a delivery is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    /// As the router does.
    Genuine,
    /// As the router does while a secret rotates and the endpoint still has the old one.
    RotatingFromOurs,
    /// As the router does while a secret rotates and the endpoint has the new one already.
    RotatingToOurs,
    /// With a secret that somebody made up.
    OfAStranger,
    /// Not at all.
    Missing,
    /// Rightly, but another body: this one was altered afterwards.
    OfAnotherBody,
    /// `webhook-signature` is right, `X-Hub-Signature` is not.
    StandardOnly,
    /// `X-Hub-Signature` is right, `webhook-signature` is not.
    HubOnly,
}

/// The secrets of a run: the endpoint's, and one that it does not have.
#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) ours: Secret,
    pub(super) strangers: Secret,
}

impl Secrets {
    /// All headers of one delivery.
    pub(super) fn headers(
        &self,
        signing: Signing,
        webhook_id: &str,
        at: Timestamp,
        body: &[u8],
    ) -> Result<HeaderMap, InvalidHeaderValue> {
        let signed = |secret, body| Signer::new(secret).headers(webhook_id, at, body);
        // One of the two signatures in the other's place.
        let strangers = |name: &'static str| {
            let mut headers = signed(&self.ours, body)?;
            if let Some(value) = signed(&self.strangers, body)?.remove(name) {
                headers.insert(name, value);
            }
            Ok(headers)
        };
        match signing {
            Signing::Genuine => signed(&self.ours, body),
            Signing::RotatingFromOurs => Signer::new(&self.strangers).and(&self.ours).headers(webhook_id, at, body),
            Signing::RotatingToOurs => Signer::new(&self.ours).and(&self.strangers).headers(webhook_id, at, body),
            Signing::OfAStranger => signed(&self.strangers, body),
            Signing::OfAnotherBody => signed(&self.ours, ANOTHER_BODY),
            Signing::StandardOnly => strangers(HUB),
            Signing::HubOnly => strangers(STANDARD),
            Signing::Missing => {
                let mut headers = signed(&self.ours, body)?;
                headers.remove(HUB);
                headers.remove(STANDARD);
                Ok(headers)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::samples::webhook::{Fault, verify};

    const BODY: &[u8] = br#"{"user_id":"u"}"#;

    /// The sample's verification, which knows nothing of how we sign.
    fn verified(signing: Signing) -> Result<String, Fault> {
        let secrets = Secrets {
            ours: Secret::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
            strangers: Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        };
        let headers = secrets.headers(signing, "id", Timestamp(100_000), BODY).unwrap();
        verify(secrets.ours.expose(), &headers, BODY, 100)
    }

    #[test]
    fn what_is_genuine_is_believed_and_nothing_else() {
        for signing in [Signing::Genuine, Signing::RotatingFromOurs, Signing::RotatingToOurs] {
            assert_eq!(verified(signing), Ok("id".to_owned()), "{signing:?}");
        }
        for (signing, fault) in [
            (Signing::OfAStranger, Fault::Mismatch("webhook-signature")),
            (Signing::Missing, Fault::Header("webhook-signature")),
            (Signing::OfAnotherBody, Fault::Mismatch("webhook-signature")),
            (Signing::HubOnly, Fault::Mismatch("webhook-signature")),
            (Signing::StandardOnly, Fault::Mismatch("x-hub-signature")),
        ] {
            assert_eq!(verified(signing), Err(fault), "{signing:?}");
        }
    }
}
