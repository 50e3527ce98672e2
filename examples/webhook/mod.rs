//! What every receiver of the router's webhooks needs: is it genuine, is it new, and what was said.
//!
//! Copy this file; it knows nothing but the contract (section 8) and needs `hmac`, `sha1`, `sha2`, `base64` and
//! `serde_json`. Any Standard Webhooks library does the first half of [`verify`] as well.

use axum::http::HeaderMap;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha1::Sha1;
use sha2::Sha256;
use std::{
    collections::{HashMap, VecDeque},
    time::{SystemTime, UNIX_EPOCH},
};

/// How far a webhook's timestamp may be off, in seconds; older ones may be somebody's recording.
pub const TOLERANCE_SECONDS: u64 = 300;

/// Why a webhook is not believed. Answer 401 and do nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A header is missing or is not what it should be.
    #[error("the header {0} is missing or malformed")]
    Header(&'static str),
    /// The timestamp is too far from now.
    #[error("webhook-timestamp is more than {TOLERANCE_SECONDS} s from now")]
    Timestamp,
    /// No signature matches: another secret, or another body.
    #[error("{0} does not match the body")]
    Mismatch(&'static str),
    /// What comes after `whsec_` in our own secret is not base64.
    #[error("the secret is not of the form whsec_<base64>")]
    Secret,
}

/// Checks both signatures of a webhook and returns its `webhook-id`.
///
/// Always over the body's **raw bytes**: parsing and serialising again may change them. `now` is in seconds since 1970.
///
/// # Errors
/// A [`Fault`] that says what is wrong with it.
pub fn verify(secret: &str, headers: &HeaderMap, body: &[u8], now: u64) -> Result<String, Fault> {
    let id = header(headers, "webhook-id")?;
    let timestamp = header(headers, "webhook-timestamp")?;
    let sent_at: u64 = timestamp.parse().map_err(|_| Fault::Header("webhook-timestamp"))?;
    if now.abs_diff(sent_at) > TOLERANCE_SECONDS {
        return Err(Fault::Timestamp);
    }

    // Standard Webhooks: HMAC-SHA256 over "id.timestamp.body", keyed with the *decoded* bytes after `whsec_`. While a
    // secret is being rotated there are several signatures; one that matches is enough.
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => BASE64.decode(encoded).map_err(|_| Fault::Secret)?,
        None => secret.as_bytes().to_vec(),
    };
    let mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| Fault::Secret)?;
    let mac = mac.chain_update(id).chain_update(".").chain_update(timestamp).chain_update(".").chain_update(body);
    let matches = header(headers, "webhook-signature")?
        .split(' ')
        .filter_map(|signature| BASE64.decode(signature.strip_prefix("v1,")?).ok())
        .any(|signature| mac.clone().verify_slice(&signature).is_ok());
    if !matches {
        return Err(Fault::Mismatch("webhook-signature"));
    }

    // The published scheme: HMAC-SHA1 over the body alone, keyed with the secret *as shown*, prefix included. A tool
    // that checks the signature above may skip this one; it proves neither the id nor the time.
    let mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(|_| Fault::Secret)?.chain_update(body);
    let hub = header(headers, "x-hub-signature")?.strip_prefix("sha1=").and_then(unhex);
    let previous = headers.get("x-hub-signature-previous").and_then(|v| v.to_str().ok());
    let previous = previous.and_then(|v| v.strip_prefix("sha1=")).and_then(unhex);
    if ![hub, previous].into_iter().flatten().any(|signature| mac.clone().verify_slice(&signature).is_ok()) {
        return Err(Fault::Mismatch("x-hub-signature"));
    }
    Ok(id.to_owned())
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Fault> {
    headers.get(name).and_then(|value| value.to_str().ok()).ok_or(Fault::Header(name))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    text.len().is_multiple_of(2).then(|| (0..text.len()).step_by(2).map(pair).collect())?
}

/// What became of the last few thousand webhooks, by `webhook-id`.
///
/// Delivery is at least once, so a webhook may come again (our answer got lost, the router restarted). A real receiver
/// keeps this in its database, in the same transaction as what it did about the webhook.
pub struct Recent<T> {
    outcomes: HashMap<String, T>,
    oldest_first: VecDeque<String>,
}

impl<T> Recent<T> {
    /// Retries go on for an hour; this bounds the memory, not the time.
    const KEPT: usize = 10_000;

    /// What became of it, if it was here before.
    pub fn get(&self, id: &str) -> Option<&T> {
        self.outcomes.get(id)
    }

    /// Remembers what became of it.
    pub fn put(&mut self, id: String, outcome: T) {
        if self.outcomes.insert(id.clone(), outcome).is_none() {
            self.oldest_first.push_back(id);
        }
        if self.oldest_first.len() > Self::KEPT
            && let Some(id) = self.oldest_first.pop_front()
        {
            self.outcomes.remove(&id);
        }
    }
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { outcomes: HashMap::new(), oldest_first: VecDeque::new() }
    }
}

/// The words of a message: its `text` if it is an HSL object or a serialised one, else the string itself.
pub fn words(message_body: &Value) -> String {
    let text = |object: &Value| object.get("text").and_then(Value::as_str).map(str::to_owned);
    match message_body {
        Value::String(string) => {
            serde_json::from_str::<Value>(string).ok().as_ref().and_then(text).unwrap_or_else(|| string.clone())
        }
        object => text(object).unwrap_or_default(),
    }
}
