//! Signed requests out of true ones: nothing that was not signed is taken, and nothing makes anything fall over.

use super::scene::{FQDN, ISSUE, LIST, Scene, Signer, Validity};
use super::{CHAIN, UUID};
use crate::fuzz_corpus::targets::signed::{TRUE, judged, read};
use crate::mutation::{Random, mutated};
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{alphabet, engine::DecodePaddingMode};
use reqwest::{Method, header::HeaderValue};
use std::collections::BTreeMap;
use tract::security::signed_request::SignedHeaders;

/// How many are judged without HTTP, unless `TRACT_SIGNED_RUNS` says otherwise: a few seconds without optimisation.
const RUNS: usize = 20_000;
/// How many are sent.
const SENT: usize = 1_500;

/// With all of its padding, some, or none, base64 says the same.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A signed request, to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    signature: Option<String>,
    algorithm: Option<String>,
    uuid: Option<String>,
    chain_url: Option<String>,
    body: Vec<u8>,
}

impl Made {
    fn headers(&self) -> SignedHeaders<'_> {
        SignedHeaders {
            signature: self.signature.as_deref(),
            algorithm: self.algorithm.as_deref(),
            uuid: self.uuid.as_deref(),
            chain_url: self.chain_url.as_deref(),
        }
    }

    /// Whether it is this true one, in another spelling.
    fn is(&self, true_one: &Self) -> bool {
        let bytes = |made: &Self| {
            let text = made.signature.as_deref()?.trim();
            LENIENT.decode(text).ok()
        };
        let hash = |made: &Self| made.algorithm.as_deref().unwrap_or("sha1").to_ascii_lowercase();
        let by = |made: &Self| made.uuid.as_deref().map(str::to_ascii_lowercase);
        self.body == true_one.body
            && self.chain_url == true_one.chain_url
            && bytes(self) == bytes(true_one)
            && hash(self) == hash(true_one)
            && by(self) == by(true_one)
    }
}

/// One of them, changed as somebody would who cannot sign; and in what.
fn forged(true_ones: &[Made], random: &mut Random) -> (&'static str, Made) {
    let mut made = random.pick(true_ones).clone();
    let other = random.pick(true_ones);
    let texts = |pick: fn(&Made) -> &Option<String>| -> Vec<Vec<u8>> {
        true_ones.iter().filter_map(|made| pick(made).clone()).map(String::into_bytes).collect()
    };
    let bodies: Vec<_> = true_ones.iter().map(|made| made.body.clone()).collect();
    let change = |text: &Option<String>, others: &[Vec<u8>], random: &mut Random| {
        let bytes = mutated(text.as_deref().unwrap_or_default().as_bytes(), others, random);
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let what = match random.below(9) {
        0 => {
            let at = random.below(made.body.len());
            made.body[at] ^= 1 << random.below(8);
            "a bit of the body"
        }
        1 => {
            made.body = mutated(&made.body, &bodies, random);
            "the body"
        }
        2 => {
            let said = String::from_utf8(made.body.clone()).unwrap();
            let (from, to) = *random.pick(&[
                (FQDN, "CHAT.sprinkle.example"),
                (FQDN, "sprinkle.example"),
                (FQDN, "modern.example"),
                ("acme", "beta"),
                ("acme", "Acme"),
                ("00Z", "01Z"),
                ("{", "{\"client_id\":\"beta\","),
                ("}", ",\"fqdn\":\"evil.example\"}"),
                ("}", "} "),
                (":", ": "),
            ]);
            made.body = said.replacen(from, to, 1).into_bytes();
            "a field"
        }
        3 => {
            let bytes = STANDARD.decode(made.signature.as_deref().unwrap()).unwrap();
            let mut bytes =
                if random.below(2) == 0 { mutated(&bytes, std::slice::from_ref(&bytes), random) } else { bytes };
            if let Some(last) = bytes.len().checked_sub(1) {
                bytes[random.below(last + 1)] ^= 1 << random.below(8);
            }
            made.signature = Some(STANDARD.encode(bytes));
            "the signature's bytes"
        }
        4 => {
            made.signature = change(&made.signature, &texts(|made| &made.signature), random);
            "the signature's text"
        }
        5 => {
            made.uuid = change(&made.uuid, &texts(|made| &made.uuid), random);
            "the certificate"
        }
        6 => {
            let hash = ["sha1", "SHA1", "sha256", "Sha256", "sha512", "md5", "none", "", "rsa-sha256", "sha1,sha256"];
            made.algorithm = Some((*random.pick(&hash)).to_owned()).filter(|_| random.below(8) > 0);
            "the hash"
        }
        7 => {
            match random.below(4) {
                0 => made.signature.clone_from(&other.signature),
                1 => made.uuid.clone_from(&other.uuid),
                2 => std::mem::swap(&mut made.signature, &mut made.uuid),
                _ => std::mem::swap(&mut made.algorithm, &mut made.signature),
            }
            "headers swapped"
        }
        _ => {
            match random.below(4) {
                0 => made.signature = None,
                1 => made.uuid = None,
                2 => made.algorithm = None,
                _ => made.chain_url = Some(format!("https://{FQDN}/ect.api/x.pem")),
            }
            "headers left out, or one more"
        }
    };
    (what, made)
}

#[test]
fn nothing_but_what_was_signed_is_taken() {
    let runs = std::env::var("TRACT_SIGNED_RUNS").ok().map_or(RUNS, |runs| runs.parse().expect("a number"));
    let made = |bytes: &&[u8]| {
        let (headers, body) = read(bytes).unwrap();
        let text = |text: Option<&str>| text.map(str::to_owned);
        let (signature, algorithm) = (text(headers.signature), text(headers.algorithm));
        Made { signature, algorithm, uuid: text(headers.uuid), chain_url: text(headers.chain_url), body: body.to_vec() }
    };
    let true_ones: Vec<_> = TRUE.iter().map(made).collect();
    for true_one in &true_ones {
        assert_eq!(judged(true_one.headers(), &true_one.body), Some(Ok(())), "{true_one:?}");
    }
    let mut random = Random::new(150);
    let mut met = BTreeMap::<_, usize>::new();
    for run in 0..runs {
        let (what, made) = forged(&true_ones, &mut random);
        let Some(verdict) = judged(made.headers(), &made.body) else { continue };
        let is_true = true_ones.iter().any(|one| made.is(one));
        assert_eq!(verdict.is_ok(), is_true, "run {run}, {what}: {verdict:?}: {made:?}");
        *met.entry(verdict.map_or_else(|fault| fault.code(), |()| "accepted")).or_default() += 1;
    }
    // What is refused for something else shows nothing of signatures: most must have come as far as that.
    assert!(met["signature_invalid"] > runs / 3, "{met:?}");
    eprintln!("{runs} forged requests: {met:?}");
}

#[tokio::test]
async fn none_is_taken_over_http_either() {
    let scene = Scene::start().await;
    let mut true_ones = Vec::new();
    for (kind, hash) in [("EC:P-256", "sha256"), ("RSA:2048", "sha1"), ("EC:P-384", "sha256")] {
        let signer = Signer::new(kind);
        let uuid = scene.hold("sprinkle", &signer.certificate(FQDN, Validity::Now)).await;
        let body = scene.body(FQDN).into_bytes();
        let signature = Some(signer.sign(hash, &body));
        let algorithm = Some(hash.to_owned());
        true_ones.push(Made { signature, algorithm, uuid: Some(uuid), chain_url: None, body });
    }
    let post = async |path: &str, made: &Made| {
        let mut request = scene.api.request(Method::POST, path).header("content-type", "application/json");
        let headers = made.headers();
        for (name, value) in [
            ("Signature", headers.signature),
            ("Signature-Algorithm", headers.algorithm),
            (UUID, headers.uuid),
            (CHAIN, headers.chain_url),
        ] {
            // Not every text can be sent as a header.
            if let Some(value) = value.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok()) {
                request = request.header(name, value);
            }
        }
        scene.api.send(request.body(made.body.clone())).await
    };
    const PATHS: [&str; 2] = [ISSUE, LIST];
    let mut random = Random::new(151);
    for _ in 0..SENT {
        let (what, mut made) = forged(&true_ones, &mut random);
        // HTTP takes away the space around a header.
        made.uuid = made.uuid.map(|uuid| uuid.trim().to_owned());
        if true_ones.iter().any(|one| made.is(one)) {
            continue;
        }
        let reply = post(random.pick::<&str>(&PATHS), &made).await;
        assert!((400..500).contains(&reply.status), "{what}: {} {}: {made:?}", reply.status, reply.body);
        assert!(reply.body["code"].is_string(), "{what}: {}", reply.body);
    }
    // Nothing of that was remembered: the true ones are still new.
    for true_one in &true_ones {
        post(ISSUE, true_one).await.ok();
    }
    scene.stop().await;
}
