//! Tokens as an attacker would make them (section 3): none is taken, and none makes anything fall over.

use crate::mutation::{Random, mutated};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::collections::HashSet;
use tract::security::tokens::{TokenFault, Tokens};
use tract::tenancy::Secret;
use tract_domain::{ClientId, ReceiverId, Timestamp};

const NOW: Timestamp = Timestamp(1_790_000_000_500);
const KEY: &str = "this key is forty-four bytes of plain text..";
const OLD_KEY: &str = "an older key, which verifies but never signs";

/// How many made-up tokens are tried, unless `TRACT_TOKEN_RUNS` says otherwise: a few seconds without optimisation.
const RUNS: usize = 100_000;

fn tokens() -> Tokens {
    Tokens::new([("k1".to_owned(), Secret::new(KEY)), ("k0".to_owned(), Secret::new(OLD_KEY))]).unwrap()
}

fn claims() -> Value {
    json!({"iss": "tract", "aud": "tract", "sub": "sprinkle", "client_id": "acme", "role": "ect",
        "iat": 1_790_000_000, "exp": 1_790_003_600, "jti": "j"})
}

fn part(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Any header and any claims, with an honest HMAC-SHA256 under this key.
fn signed(header: &str, claims: &str, key: &[u8]) -> String {
    let signing_input = format!("{}.{}", part(header), part(claims));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(signing_input.as_bytes());
    format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[track_caller]
fn refused(token: &str) -> TokenFault {
    match tokens().verify(token, NOW) {
        Err(fault) => fault,
        Ok(claims) => panic!("{token} is taken: {claims:?}"),
    }
}

/// What the other tests here build wrong is right when built so: they fail for the reason that they name.
#[test]
fn the_honest_token_is_taken() {
    let header = r#"{"typ":"JWT","alg":"HS256","kid":"k1"}"#;
    let taken = tokens().verify(&signed(header, &claims().to_string(), KEY.as_bytes()), NOW).unwrap();
    assert_eq!((taken.client_id.as_str(), taken.sub.as_str()), ("acme", "sprinkle"));
}

#[test]
fn no_other_algorithm_is_taken() {
    let claims = claims().to_string();
    // Signed, as far as that goes, with the very key.
    for algorithm in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        " HS256",
        "hs256",
        "HS256 ",
        "HS256\u{0}",
        "HS384",
        "HS512",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "ES256",
        "ES384",
        "EdDSA",
        "HS1",
        "dir",
        "A128KW",
    ] {
        let header = json!({"alg": algorithm, "kid": "k1"}).to_string();
        let honest = signed(&header, &claims, KEY.as_bytes());
        assert_ne!(refused(&honest), TokenFault::Expired);
        let unsigned = format!("{}.{}.", part(&header), part(&claims));
        refused(&unsigned);
        refused(unsigned.trim_end_matches('.'));
    }
    for algorithm in [json!(null), json!(256), json!(["HS256"]), json!({"HS256": 1}), json!(true)] {
        assert_eq!(
            refused(&signed(&json!({"alg": algorithm, "kid": "k1"}).to_string(), &claims, KEY.as_bytes())),
            TokenFault::Malformed
        );
    }
    refused(&signed(r#"{"kid":"k1"}"#, &claims, KEY.as_bytes()));
    // The algorithm said twice: whichever is read, it is not taken.
    for twice in [r#"{"alg":"HS256","alg":"none","kid":"k1"}"#, r#"{"alg":"none","alg":"HS256","kid":"k1"}"#] {
        refused(&signed(twice, &claims, KEY.as_bytes()));
    }
    // The right key with the right header, but longer hashes.
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(algorithm) };
        let key = EncodingKey::from_secret(KEY.as_bytes());
        assert_eq!(refused(&encode(&header, &self::claims(), &key).unwrap()), TokenFault::Algorithm);
    }
}

#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let claims = claims().to_string();
    let long = "k".repeat(1000);
    for kid in [
        "",
        "k2",
        "K1",
        "k1 ",
        " k1",
        "k1\u{0}",
        "\u{0}k1",
        "k1\n",
        "k1,k0",
        "k1/../k1",
        "../../../../dev/null",
        "/dev/null",
        "file:///dev/null",
        "https://evil.example/key",
        "k1' OR '1'='1",
        "' UNION SELECT 'x' --",
        "k1;--",
        "$(id)",
        "`id`",
        "| id",
        "%6b1",
        "k\u{ff11}",
        "\u{202e}1k",
        "__proto__",
        "0",
        "-1",
        "*",
        &long,
    ] {
        let header = json!({"alg": "HS256", "kid": kid}).to_string();
        // With the right key, and with those that a file or a query might have been brought to yield.
        for key in [KEY.as_bytes(), OLD_KEY.as_bytes(), b"", b"\0", b"x", kid.as_bytes()] {
            assert_eq!(refused(&signed(&header, &claims, key)), TokenFault::UnknownKey, "{kid:?}");
        }
    }
    assert_eq!(refused(&signed(r#"{"alg":"HS256"}"#, &claims, KEY.as_bytes())), TokenFault::UnknownKey);
    assert_eq!(refused(&signed(r#"{"alg":"HS256","kid":null}"#, &claims, KEY.as_bytes())), TokenFault::UnknownKey);
    for kid in [json!(1), json!(["k1"]), json!({"k1": 1}), json!(true)] {
        let header = json!({"alg": "HS256", "kid": kid}).to_string();
        assert_eq!(refused(&signed(&header, &claims, KEY.as_bytes())), TokenFault::Malformed);
    }
    refused(&signed(r#"{"alg":"HS256","kid":"k1","kid":"k0"}"#, &claims, KEY.as_bytes()));
    // Each key opens only what names it.
    let of_old = r#"{"alg":"HS256","kid":"k0"}"#;
    assert_eq!(refused(&signed(of_old, &claims, KEY.as_bytes())), TokenFault::Signature);
    assert!(tokens().verify(&signed(of_old, &claims, OLD_KEY.as_bytes()), NOW).is_ok());
}

#[test]
fn a_token_does_not_bring_its_own_key() {
    let claims = claims().to_string();
    let own = b"a key that the attacker made alone..........";
    let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(own), "alg": "HS256"});
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain.pem")),
        ("x5c", json!(["MAA="])),
        ("x5t", json!("AAAA")),
        ("crit", json!(["exp"])),
        ("cty", json!("JWT")),
        ("zip", json!("DEF")),
        ("b64", json!(false)),
    ] {
        let mut header = json!({"typ": "JWT", "alg": "HS256", "kid": "k1"});
        header[name] = value;
        assert!(
            matches!(
                refused(&signed(&header.to_string(), &claims, own)),
                TokenFault::Signature | TokenFault::Malformed
            ),
            "{name}"
        );
    }
}

/// Claims that are ours but said twice, or wrapped once more. Even with the right key they are not taken.
#[test]
fn claims_are_said_once_and_plainly() {
    let header = r#"{"typ":"JWT","alg":"HS256","kid":"k1"}"#;
    let base = claims().to_string();
    for (claim, value) in
        [("sub", "\"iva\""), ("client_id", "\"other\""), ("role", "\"iva\""), ("exp", "9999999999"), ("aud", "\"x\"")]
    {
        let last = format!("{},\"{claim}\":{value}}}", base.strip_suffix('}').unwrap());
        let first = format!("{{\"{claim}\":{value},{}", base.strip_prefix('{').unwrap());
        for claims in [last, first] {
            refused(&signed(header, &claims, KEY.as_bytes()));
        }
    }
    let inner = signed(header, &base, KEY.as_bytes());
    let nested = signed(r#"{"typ":"JWT","cty":"JWT","alg":"HS256","kid":"k1"}"#, &inner, KEY.as_bytes());
    assert_eq!(refused(&nested), TokenFault::Malformed);
    for claims in ["", "null", "[]", "{}", "5", "\"tract\"", &json!([claims()]).to_string()] {
        assert_ne!(refused(&signed(header, claims, KEY.as_bytes())), TokenFault::Expired, "{claims}");
    }
    for (claim, value) in [
        ("exp", json!(1e300)),
        ("exp", json!("9999999999")),
        ("exp", json!(-1)),
        ("exp", json!(i64::MIN)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(1_790_003_600.5)),
        ("iat", json!("x")),
        ("sub", json!("")),
        ("sub", json!("a\u{0}b")),
        ("sub", json!(["sprinkle"])),
        ("client_id", json!("../acme")),
        ("client_id", json!("")),
        ("aud", json!(["tract"])),
        ("iss", json!(null)),
    ] {
        let mut claims = claims();
        claims[claim] = value.clone();
        refused(&signed(header, &claims.to_string(), KEY.as_bytes()));
    }
}

/// Tokens out of true ones: cut, spliced, flipped, with other headers and claims over the old signature.
#[test]
fn made_up_tokens_are_refused() {
    let runs = std::env::var("TRACT_TOKEN_RUNS").ok().map_or(RUNS, |runs| runs.parse().expect("a number"));
    let tokens = tokens();
    let issued = |client: &str, receiver: &str| {
        let (client, receiver) = (ClientId::new(client).unwrap(), ReceiverId::new(receiver).unwrap());
        tokens.issue(&client, &receiver, NOW, 3600).unwrap().expose().as_bytes().to_vec()
    };
    let true_ones: Vec<Vec<u8>> = [("acme", "sprinkle"), ("acme", "iva"), ("globex", "sprinkle"), ("globex", "sac")]
        .map(|(c, r)| issued(c, r))
        .into();
    let honest: HashSet<&[u8]> = true_ones.iter().map(Vec::as_slice).collect();
    let parts: Vec<Vec<&[u8]>> = true_ones.iter().map(|t| t.split(|b| *b == b'.').collect()).collect();

    let mut random = Random::new(3);
    let mut tried = 0;
    for run in 0..runs {
        let token = match random.below(8) {
            // Parts of different tokens.
            0 => {
                let (a, b, c) = (random.pick(&parts), random.pick(&parts), random.pick(&parts));
                [a[0], b[1], c[2]].join(&b'.')
            }
            // Other claims, or another header, over a true signature.
            1 | 2 => {
                let donor = random.pick(&parts);
                let which = random.below(2);
                let plain = URL_SAFE_NO_PAD.decode(donor[which]).unwrap();
                let changed = URL_SAFE_NO_PAD.encode(mutated(&plain, &true_ones, &mut random)).into_bytes();
                let mut all = [donor[0], donor[1], donor[2]];
                all[which] = &changed;
                all.join(&b'.')
            }
            // Noise.
            3 => (0..random.below(400)).map(|_| random.byte()).collect(),
            // A change of one character anywhere.
            4 => {
                let mut token = random.pick(&true_ones).clone();
                let at = random.below(token.len());
                token[at] = *random.pick(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/. ");
                token
            }
            _ => {
                let seed = random.pick(&true_ones);
                mutated(seed, &true_ones, &mut random)
            }
        };
        if honest.contains(token.as_slice()) {
            continue;
        }
        tried += 1;
        let text = String::from_utf8_lossy(&token);
        assert!(tokens.verify(&text, NOW).is_err(), "run {run}: {text} is taken");
    }
    assert!(tried > runs * 9 / 10, "only {tried} of {runs} were not honest by chance");
}
