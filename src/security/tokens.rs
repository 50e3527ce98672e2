//! The JWTs of Part A (section 3): HS256 with a `kid`, so that keys can be rotated.

use super::rates::mark;
use super::verified::Verified;
use crate::tenancy::Secret;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use tract_domain::{ClientId, ReceiverId, Timestamp};
use uuid::Uuid;

/// Who issues: this router.
pub const ISSUER: &str = "tract";
/// Who is meant: this router.
pub const AUDIENCE: &str = "tract";
/// How long a token lives unless somebody says otherwise, in seconds.
pub const DEFAULT_TTL_S: u64 = 3600;
/// Shortest key, in bytes.
pub const MIN_KEY: usize = 32;

/// Good tokens that are remembered; each takes some 400 bytes.
const REMEMBERED: usize = 20_000;
/// Longest token that is looked at, in bytes; ours have about 350.
const MAX_TOKEN: usize = 4096;

/// What kind of receiver a token speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// An external chat tool.
    Ect,
    /// The bot.
    Iva,
    /// The built-in agent inbox.
    Sac,
}

impl Role {
    /// The role of this receiver; its id tells.
    pub fn of(receiver: &ReceiverId) -> Self {
        match receiver.as_str() {
            "iva" => Self::Iva,
            "sac" => Self::Sac,
            _ => Self::Ect,
        }
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// [`ISSUER`]
    pub iss: String,
    /// [`AUDIENCE`]
    pub aud: String,
    /// The receiver.
    pub sub: ReceiverId,
    /// The client that it acts for.
    pub client_id: ClientId,
    /// What kind of receiver it is.
    pub role: Role,
    /// When it was issued, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// Names this token.
    pub jti: String,
}

/// Why a token is not taken. What the caller is told never says more than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It is no JWT, or its claims are not ours.
    #[error("the token is malformed")]
    Malformed,
    /// It wants another algorithm than HS256.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// It names no key, or none that there is (any more).
    #[error("the token's key is not known")]
    UnknownKey,
    /// Its signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// It was made by or for somebody else.
    #[error("the token is not meant for this service")]
    Audience,
    /// It has ended.
    #[error("the token has expired")]
    Expired,
}

/// Why there are no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// At least one is needed.
    #[error("no key is given")]
    None,
    /// A secret is shorter than [`MIN_KEY`] bytes.
    #[error("the secret of key {0} is shorter than {MIN_KEY} bytes")]
    TooShort(String),
    /// Two keys have the same name.
    #[error("key {0} is given twice")]
    Twice(String),
}

struct Key {
    kid: String,
    signs: EncodingKey,
    verifies: DecodingKey,
}

/// The keys: the first signs, all of them verify. They stay the same as long as this lives, so what it remembers of
/// good tokens can never outlive the key that made them good.
pub struct Tokens {
    signing: Header,
    keys: Vec<Key>,
    validation: Validation,
    verified: Verified,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids: Vec<_> = self.keys.iter().map(|k| &k.kid).collect();
        f.debug_struct("Tokens").field("kids", &kids).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Takes keys over, each with its `kid`; a secret counts as its UTF-8 bytes.
    pub fn new(keys: impl IntoIterator<Item = (String, Secret)>) -> Result<Self, KeyFault> {
        let mut known: Vec<Key> = Vec::new();
        for (kid, secret) in keys {
            let secret = secret.expose().as_bytes();
            if secret.len() < MIN_KEY {
                return Err(KeyFault::TooShort(kid));
            }
            if known.iter().any(|k| k.kid == kid) {
                return Err(KeyFault::Twice(kid));
            }
            let (signs, verifies) = (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret));
            known.push(Key { kid, signs, verifies });
        }
        let first = known.first().ok_or(KeyFault::None)?;
        let signing = Header { kid: Some(first.kid.clone()), ..Header::new(Algorithm::HS256) };
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Time is judged below, by the clock that everything else goes by, and without leeway.
        validation.validate_exp = false;
        validation.leeway = 0;
        Ok(Self { signing, keys: known, validation, verified: Verified::new(REMEMBERED) })
    }

    /// Issues a token. None only if signing itself fails.
    pub fn issue(&self, client: &ClientId, receiver: &ReceiverId, now: Timestamp, ttl_s: u64) -> Option<Secret> {
        let iat = now.0.div_euclid(1000);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: receiver.clone(),
            client_id: client.clone(),
            role: Role::of(receiver),
            iat,
            exp: iat.saturating_add_unsigned(ttl_s),
            jti: Uuid::new_v4().to_string(),
        };
        let key = self.keys.first()?;
        encode(&self.signing, &claims, &key.signs).ok().map(Secret::new)
    }

    /// Checks a token at this time. Whether its receiver may (still) act is for the caller to ask.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Claims>, TokenFault> {
        if token.len() > MAX_TOKEN {
            return Err(TokenFault::Malformed);
        }
        let mark = mark(token);
        let (claims, known) = match self.verified.find(&mark) {
            Some(claims) => (claims, true),
            None => (Arc::new(self.read(token)?), false),
        };
        if now.0 >= claims.exp.saturating_mul(1000) {
            return Err(TokenFault::Expired);
        }
        if !known {
            self.verified.keep(mark, Arc::clone(&claims));
        }
        Ok(claims)
    }

    /// Checks everything but the time.
    fn read(&self, token: &str) -> Result<Claims, TokenFault> {
        use jsonwebtoken::errors::ErrorKind;
        let header = decode_header(token).map_err(|e| match e.kind() {
            ErrorKind::InvalidAlgorithmName | ErrorKind::InvalidAlgorithm => TokenFault::Algorithm,
            _ => TokenFault::Malformed,
        })?;
        if header.alg != Algorithm::HS256 {
            return Err(TokenFault::Algorithm);
        }
        let kid = header.kid.ok_or(TokenFault::UnknownKey)?;
        let key = self.keys.iter().find(|k| k.kid == kid).ok_or(TokenFault::UnknownKey)?;
        let claims = decode::<Claims>(token, &key.verifies, &self.validation)
            .map_err(|e| match e.kind() {
                ErrorKind::InvalidSignature => TokenFault::Signature,
                ErrorKind::InvalidAudience | ErrorKind::InvalidIssuer => TokenFault::Audience,
                ErrorKind::InvalidAlgorithm => TokenFault::Algorithm,
                _ => TokenFault::Malformed,
            })?
            .claims;
        if claims.role != Role::of(&claims.sub) {
            return Err(TokenFault::Malformed);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    const NOW: Timestamp = Timestamp(1_790_000_000_500);

    fn secret(c: char) -> Secret {
        Secret::new(c.to_string().repeat(MIN_KEY))
    }
    fn tokens(kids: &[(&str, char)]) -> Tokens {
        Tokens::new(kids.iter().map(|(k, c)| ((*k).to_owned(), secret(*c)))).unwrap()
    }
    fn issue(tokens: &Tokens) -> Secret {
        let (client, ect) = (ClientId::new("acme").unwrap(), ReceiverId::new("sprinkle").unwrap());
        tokens.issue(&client, &ect, NOW, 60).unwrap()
    }
    fn signed(c: char, kid: &str, claims: serde_json::Value) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
        encode(&header, &claims, &EncodingKey::from_secret(secret(c).expose().as_bytes())).unwrap()
    }
    fn claims() -> serde_json::Value {
        serde_json::json!({"iss": "tract", "aud": "tract", "sub": "sprinkle", "client_id": "acme", "role": "ect",
            "iat": 1_790_000_000, "exp": 1_790_000_060, "jti": "j"})
    }

    #[test]
    fn a_token_says_who_for_whom_and_until_when() {
        let tokens = tokens(&[("k1", 'a')]);
        let claims = tokens.verify(issue(&tokens).expose(), NOW).unwrap();
        assert_eq!((claims.sub.as_str(), claims.client_id.as_str(), claims.role), ("sprinkle", "acme", Role::Ect));
        assert_eq!(claims.exp - claims.iat, 60);
    }

    #[test]
    fn it_ends_to_the_second_without_leeway() {
        let tokens = tokens(&[("k1", 'a')]);
        let token = issue(&tokens);
        assert!(tokens.verify(token.expose(), Timestamp(1_790_000_059_999)).is_ok());
        assert_eq!(tokens.verify(token.expose(), Timestamp(1_790_000_060_000)), Err(TokenFault::Expired));
    }

    #[test]
    fn a_good_token_is_verified_once_and_still_ends() {
        let mut tokens = tokens(&[("k1", 'a')]);
        let token = issue(&tokens);
        let first = tokens.verify(token.expose(), NOW).unwrap();
        // Without keys nothing can be verified any more: what is still taken was remembered.
        tokens.keys.clear();
        assert_eq!(tokens.verify(token.expose(), NOW), Ok(first));
        assert_eq!(tokens.verify(token.expose(), Timestamp(1_790_000_060_000)), Err(TokenFault::Expired));
        let (head, _) = token.expose().rsplit_once('.').unwrap();
        assert_eq!(tokens.verify(head, NOW), Err(TokenFault::Malformed));
        assert_eq!(tokens.verify(&format!("{head}.AAAA"), NOW), Err(TokenFault::UnknownKey));
        assert_eq!(tokens.verify(&"x".repeat(MAX_TOKEN + 1), NOW), Err(TokenFault::Malformed));
    }

    #[test]
    fn keys_rotate() {
        let old = tokens(&[("k1", 'a')]);
        let token = issue(&old);
        let both = tokens(&[("k2", 'b'), ("k1", 'a')]);
        assert!(both.verify(token.expose(), NOW).is_ok());
        assert_eq!(old.verify(issue(&both).expose(), NOW), Err(TokenFault::UnknownKey));
        assert_eq!(tokens(&[("k2", 'b')]).verify(token.expose(), NOW), Err(TokenFault::UnknownKey));
        assert_eq!(tokens(&[("k1", 'c')]).verify(token.expose(), NOW), Err(TokenFault::Signature));
    }

    #[test]
    fn anything_wrong_is_refused() {
        let tokens = tokens(&[("k1", 'a')]);
        let with = |field: &str, value: serde_json::Value| {
            let mut claims = claims();
            claims[field] = value;
            tokens.verify(&signed('a', "k1", claims), NOW).err()
        };
        let json = |text: &str| serde_json::Value::from(text);
        assert_eq!(with("jti", json("other")), None);
        assert_eq!(with("aud", json("others")), Some(TokenFault::Audience));
        assert_eq!(with("iss", json("others")), Some(TokenFault::Audience));
        assert_eq!(with("aud", serde_json::json!(["tract", "others"])), Some(TokenFault::Malformed));
        assert_eq!(with("sub", json("a b")), Some(TokenFault::Malformed));
        assert_eq!(with("role", json("iva")), Some(TokenFault::Malformed));
        assert_eq!(with("role", json("admin")), Some(TokenFault::Malformed));
        assert_eq!(with("exp", serde_json::Value::Null), Some(TokenFault::Malformed));
        assert_eq!(with("exp", serde_json::json!(1_790_000_000)), Some(TokenFault::Expired));
        for text in ["", "a", "a.b.c", "....", "eyJhbGciOiJIUzI1NiJ9.e30."] {
            assert!(tokens.verify(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn only_hs256_is_accepted() {
        let tokens = tokens(&[("k1", 'a')]);
        let parts = |header: &str| {
            let body = URL_SAFE_NO_PAD.encode(claims().to_string());
            format!("{}.{body}.", URL_SAFE_NO_PAD.encode(header))
        };
        for header in [r#"{"alg":"none","kid":"k1"}"#, r#"{"alg":"None","kid":"k1"}"#] {
            assert!(tokens.verify(&parts(header), NOW).is_err(), "{header}");
        }
        let key = EncodingKey::from_secret(secret('a').expose().as_bytes());
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            let header = Header { kid: Some("k1".to_owned()), ..Header::new(algorithm) };
            let token = encode(&header, &claims(), &key).unwrap();
            assert_eq!(tokens.verify(&token, NOW), Err(TokenFault::Algorithm));
        }
        let token = encode(&Header::new(Algorithm::HS256), &claims(), &key).unwrap();
        assert_eq!(tokens.verify(&token, NOW), Err(TokenFault::UnknownKey));
    }

    #[test]
    fn poor_keys_are_refused() {
        let new =
            |keys: Vec<(&str, &str)>| Tokens::new(keys.into_iter().map(|(k, s)| (k.to_owned(), Secret::new(s)))).err();
        let long = "x".repeat(32);
        assert_eq!(new(vec![]), Some(KeyFault::None));
        assert_eq!(new(vec![("k", "short")]), Some(KeyFault::TooShort("k".to_owned())));
        assert_eq!(new(vec![("k", &long), ("k", &long)]), Some(KeyFault::Twice("k".to_owned())));
        assert!(!format!("{:?}", tokens(&[("k1", 'a')])).contains("aaa"));
    }
}
