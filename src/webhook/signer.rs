//! How a delivery proves where it comes from (section 8): the published `X-Hub-Signature` and Standard Webhooks.

use crate::tenancy::{Secret, Secrets};
use base64::{Engine, engine::GeneralPurpose, engine::general_purpose};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use sha1::Sha1;
use sha2::Sha256;
use tract_domain::Timestamp;

/// The prefix of a secret whose rest is base64.
const PREFIX: &str = "whsec_";

const BASE64: GeneralPurpose = general_purpose::STANDARD;

/// Secrets written by hand come with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    base64::engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// Signs with one secret, or with several while they rotate, the newest first.
pub struct Signer<'a> {
    secrets: Vec<&'a Secret>,
}

impl<'a> Signer<'a> {
    /// Signs with one secret.
    pub fn new(secret: &'a Secret) -> Self {
        Self { secrets: vec![secret] }
    }
    /// Signs with the secrets that are valid at this time.
    pub fn at(secrets: Secrets<'a>, now: Timestamp) -> Self {
        let signer = Self::new(secrets.current);
        match secrets.previous.filter(|previous| now < previous.until) {
            Some(previous) => signer.and(&previous.secret),
            None => signer,
        }
    }
    /// Signs with this older secret too: in `webhook-signature` beside the others, and in
    /// `X-Hub-Signature-Previous`, which has room for the first such only.
    #[must_use]
    pub fn and(mut self, older: &'a Secret) -> Self {
        self.secrets.push(older);
        self
    }
    /// All headers of a signed request with a JSON body. Fails only for an id that no header can carry.
    pub fn headers(&self, webhook_id: &str, at: Timestamp, body: &[u8]) -> Result<HeaderMap, InvalidHeaderValue> {
        let seconds = at.0.div_euclid(1000);
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: String| {
            HeaderValue::try_from(value).map(|value| headers.insert(HeaderName::from_static(name), value))
        };
        for (name, secret) in ["x-hub-signature", "x-hub-signature-previous"].into_iter().zip(&self.secrets) {
            put(name, hub_signature(secret, body))?;
        }
        put("webhook-id", webhook_id.to_owned())?;
        put("webhook-timestamp", seconds.to_string())?;
        let signatures = self.secrets.iter().map(|secret| standard_signature(secret, webhook_id, seconds, body));
        put("webhook-signature", signatures.collect::<Vec<_>>().join(" "))?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(headers)
    }
}

/// `sha1=<hex>`, keyed with the secret as it is shown.
fn hub_signature(secret: &Secret, body: &[u8]) -> String {
    let digest = mac::<Hmac<Sha1>>(secret.expose().as_bytes(), &[body]);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha1={hex}")
}

/// `v1,<base64>`, keyed with the bytes that the secret stands for.
fn standard_signature(secret: &Secret, webhook_id: &str, seconds: i64, body: &[u8]) -> String {
    let shown = secret.expose();
    let decoded = shown.strip_prefix(PREFIX).and_then(|rest| LENIENT.decode(rest).ok());
    let key = decoded.unwrap_or_else(|| shown.as_bytes().to_vec());
    let head = format!("{webhook_id}.{seconds}.");
    let digest = mac::<Hmac<Sha256>>(&key, &[head.as_bytes(), body]);
    format!("v1,{}", BASE64.encode(digest))
}

#[allow(clippy::expect_used, reason = "HMAC takes keys of any length; the error is the trait's, not the algorithm's")]
fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = M::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::Previous;
    use standardwebhooks::Webhook;

    const BODY: &[u8] = br#"{"user_id":"u-1","message_body":"{\"text\":\"\u00fc\"}"}"#;
    const SHOWN: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn headers(signer: &Signer<'_>) -> HeaderMap {
        signer.headers("msg-1", Timestamp(1_700_000_000_999), BODY).unwrap()
    }

    fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
        headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The oracle's own `verify` wants the present time; its `sign` is as good.
    fn verified(oracle: &Webhook, headers: &HeaderMap, body: &[u8]) -> bool {
        let seconds = text(headers, "webhook-timestamp").parse().unwrap();
        let expected = oracle.sign(text(headers, "webhook-id"), seconds, body).unwrap();
        text(headers, "webhook-signature").split(' ').any(|s| s == expected)
    }

    #[test]
    fn the_standard_library_accepts_it() {
        let secret = Secret::new(SHOWN);
        let now = jiff::Timestamp::now().as_millisecond();
        let signed = Signer::new(&secret).headers("msg-1", Timestamp(now), BODY).unwrap();
        let oracle = Webhook::new(SHOWN).unwrap();
        assert!(oracle.verify(BODY, &signed).is_ok());
        assert!(oracle.verify(b"{}", &signed).is_err());
        let earlier = headers(&Signer::new(&secret));
        assert!(verified(&oracle, &earlier, BODY));
        assert_eq!(text(&earlier, "webhook-timestamp"), "1700000000");
        assert_eq!(text(&earlier, "webhook-id"), "msg-1");
        assert_eq!(text(&earlier, "content-type"), "application/json");
    }

    #[test]
    fn a_secret_without_the_prefix_is_taken_as_it_is() {
        let secret = Secret::new("plain secret, ünïcode");
        let signed = headers(&Signer::new(&secret));
        let oracle = Webhook::from_bytes("plain secret, ünïcode".as_bytes().to_vec()).unwrap();
        assert!(verified(&oracle, &signed, BODY));
    }

    #[test]
    fn padding_of_a_secret_does_not_matter() {
        let (padded, bare) = (Secret::new("whsec_c2VjcmV0IQ=="), Secret::new("whsec_c2VjcmV0IQ"));
        let signature = |s| text(&headers(&Signer::new(s)), "webhook-signature").to_owned();
        assert_eq!(signature(&padded), signature(&bare));
        assert_eq!(signature(&padded), signature(&Secret::new("secret!")));
    }

    #[test]
    fn while_secrets_rotate_both_sign() {
        let (new, old) = (Secret::new(SHOWN), Secret::new("whsec_b2xk"));
        let signed = headers(&Signer::new(&new).and(&old));
        assert!(verified(&Webhook::new(SHOWN).unwrap(), &signed, BODY));
        assert!(verified(&Webhook::new("whsec_b2xk").unwrap(), &signed, BODY));
        assert_eq!(text(&signed, "x-hub-signature"), hub_signature(&new, BODY));
        assert_eq!(text(&signed, "x-hub-signature-previous"), hub_signature(&old, BODY));
        assert!(!headers(&Signer::new(&new)).contains_key("x-hub-signature-previous"));
    }

    #[test]
    fn the_previous_secret_signs_until_its_end() {
        let current = Secret::new(SHOWN);
        let previous = Previous { secret: Secret::new("whsec_b2xk"), until: Timestamp(100) };
        let signed_at = |at| {
            let secrets = Secrets { current: &current, previous: Some(&previous) };
            Signer::at(secrets, Timestamp(at)).headers("msg-1", Timestamp(at), BODY).unwrap()
        };
        assert!(signed_at(99).contains_key("x-hub-signature-previous"));
        assert!(!signed_at(100).contains_key("x-hub-signature-previous"));
        assert!(!text(&signed_at(100), "webhook-signature").contains(' '));
    }

    #[test]
    fn the_published_signature_is_hmac_sha1() {
        // RFC 2202, test cases 1 and 2.
        let first = mac::<Hmac<Sha1>>(&[0x0b; 20], &[b"Hi There"]);
        assert_eq!(first[..4], [0xb6, 0x17, 0x31, 0x86]);
        let signature = hub_signature(&Secret::new("Jefe"), b"what do ya want for nothing?");
        assert_eq!(signature, "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    }

    #[test]
    fn the_standard_signature_is_hmac_sha256() {
        // RFC 4231, test case 2, cut in pieces.
        let digest = mac::<Hmac<Sha256>>(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(digest[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
    }

    #[test]
    fn an_id_that_no_header_can_carry_is_an_error() {
        let secret = Secret::new("s");
        assert!(Signer::new(&secret).headers("a\nb", Timestamp(0), b"").is_err());
    }
}
