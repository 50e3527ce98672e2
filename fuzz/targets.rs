//! What each parser of strangers' bytes must hold to, whatever the bytes.
//!
//! The fuzz targets are these functions, and so is the bounded run over the same corpus in the normal tests
//! (`tests/it/fuzz_corpus.rs`). Each panics when its promise is broken.

pub(crate) mod signed;

use bytes::Bytes;
use serde_json::{Map, Value};
use signed::{FQDN, NOW};
use std::collections::BTreeSet;
use std::str;
use std::sync::LazyLock;
use tract::http::files::{form, kind::FileKind};
use tract::http::signed::{ClientListRequest, SignedTokenRequest};
use tract::http::{channel, control, decode, hooks, integration, messages, users};
use tract::iva::answer::{Kept, MAX_DETAILS, MAX_MESSAGES, judge};
use tract::reading::Source;
use tract::security::chain::{Chain, ChainFault, Roots};
use tract::security::chain_url;
use tract::security::egress::Answer;
use tract::security::tokens::Tokens;
use tract::security::url::{EgressRules, MAX_URL, check_url};
use tract::tenancy::{Declaration, Secret, certificate, host::host_name};
use tract::{hsl, reading::Fault};
use tract_actors::ports::TurnEnd;
use tract_domain::Timestamp;

/// A target's name, which is that of its corpus, and what it does.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: &[Target] = &[
    ("certificate", certificate),
    ("certificate_chain", certificate_chain),
    ("file_kind", file_kind),
    ("form", form),
    ("hsl", hsl),
    ("iva_answer", iva_answer),
    ("request_body", request_body),
    ("signed_request", signed_request),
    ("tenants_file", tenants_file),
    ("token", token),
    ("url", url),
];

/// What a file is: never both an image and a document, so that nobody is shown the one for the other.
pub(crate) fn file_kind(bytes: &[u8]) {
    let found = FileKind::ALL.into_iter().filter(|kind| kind.is_in(bytes));
    let types: BTreeSet<u64> = found.map(|kind| kind.message_type().number()).collect();
    assert!(types.len() <= 1, "it is an image or a document");
}

/// A form: what is read of it is in it, and is read again when it is written anew.
pub(crate) fn form(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let Ok(parts) = form::parts(&body, "x") else { return };
    assert!(parts.iter().map(|part| part.content.len()).sum::<usize>() <= bytes.len());
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut again = Vec::new();
    for part in &parts {
        let file_name = part.file_name.as_ref().map(|name| format!("; filename={}", quoted(name))).unwrap_or_default();
        let head = format!("--x\r\nContent-Disposition: form-data; name={}{file_name}\r\n\r\n", quoted(&part.name));
        again.extend([head.as_bytes(), &part.content, b"\r\n"].concat());
    }
    again.extend(b"--x--");
    assert!(form::parts(&again.into(), "x") == Ok(parts), "a form that was read can be written and read");
}

/// A message's body: what is accepted is a JSON object that any JSON library reads, and is accepted again.
pub(crate) fn hsl(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    for read in [hsl::read_body(text), hsl::customer_text(text)] {
        match read {
            Ok(body) => {
                let value: Value = serde_json::from_str(&body.0).expect("an accepted body is JSON");
                assert!(value.is_object(), "an accepted body is an object");
                if body.0.len() <= hsl::MAX_BODY {
                    assert_eq!(hsl::read_body(&body.0).as_ref(), Ok(&body), "an accepted body stays as it is");
                }
            }
            Err(fault) => assert!(!fault.what().is_empty() && fault.path("f").starts_with('f')),
        }
    }
}

/// A bot's answer: what of it reaches the customer can be shown, and what is kept of it is small and flat.
pub(crate) fn iva_answer(bytes: &[u8]) {
    let answer = Answer { status: 200, retry_after: None, body: Some(bytes.to_vec().into()) };
    match judge(&Ok(answer), Kept::default()) {
        TurnEnd::Deferred => panic!("only a 202 defers"),
        TurnEnd::Broke(reason) => assert!(!reason.is_empty(), "a bot break has a reason"),
        TurnEnd::Answered { answer, user_details } => {
            let something = !answer.messages.is_empty() || answer.handoff.is_some() || answer.complete;
            assert!(something, "an answer that does nothing is a bot break");
            assert!(answer.messages.len() <= MAX_MESSAGES);
            for body in &answer.messages {
                assert!(body.0.len() <= hsl::MAX_BODY);
                assert_eq!(hsl::read_body(&body.0).as_ref(), Ok(body), "what the bot says can be shown");
            }
            let details: Vec<_> = answer.conversation_details.iter().chain(&user_details).collect();
            assert!(details.iter().map(|json| json.0.chars().count()).sum::<usize>() <= MAX_DETAILS);
            for json in details {
                let fields: Map<String, Value> = serde_json::from_str(&json.0).expect("details are an object");
                assert!(fields.values().all(|value| value.is_string() || value.is_number()), "details are flat");
            }
        }
    }
}

/// A token: only the one that was signed with our key is taken, to the byte.
pub(crate) fn token(bytes: &[u8]) {
    const VALID: &str = include_str!("corpus/token/valid");
    static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
        let keys = [("k1", "k"), ("k2", "l")].map(|(kid, c)| (kid.to_owned(), Secret::new(c.repeat(32))));
        Tokens::new(keys).expect("the keys are long enough")
    });
    let Ok(text) = str::from_utf8(bytes) else { return };
    let taken = TOKENS.verify(text, NOW).is_ok();
    assert_eq!(taken, text == VALID, "nobody else's token is taken");
}

/// A tenants file: read or refused, and every fault can be told, with a line that there is.
pub(crate) fn tenants_file(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let lines = text.split('\n').count();
    let told = |located: Vec<tract::reading::Located>| {
        for fault in located {
            assert!(!fault.to_string().is_empty());
            assert!(fault.line.is_none_or(|line| (1..=lines).contains(&line)), "line {:?} of {lines}", fault.line);
        }
    };
    match Source::parse("tenants.toml", text) {
        Err(faults) => {
            assert!(!faults.is_empty(), "what is refused is refused for a reason");
            told(faults);
        }
        Ok(source) => {
            let (_, faults): (_, Vec<Fault>) = Declaration::read(&source.value);
            told(source.locate_all(faults));
            told(source.locate_all(Declaration::check(&source.value, EgressRules::default())));
        }
    }
}

/// A certificate as it is uploaded: what is kept of it is a certificate again, and the same one.
pub(crate) fn certificate(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(parsed) = certificate::parse(text) {
        assert_eq!(certificate::parse(&parsed.pem), Ok(parsed), "it is kept as it was read");
    }
}

/// A chain of certificates: only the leaf that our root's authority issued is believed, for its own name and in its own time.
pub(crate) fn certificate_chain(bytes: &[u8]) {
    const GOOD: &[u8] = include_bytes!("corpus/certificate_chain/good");
    static ROOTS: LazyLock<Roots> = LazyLock::new(|| Roots::load(&[include_bytes!("certificates/root.pem").to_vec()]));
    static TRUE: LazyLock<Chain> = LazyLock::new(|| Chain::read(GOOD).expect("the good chain"));
    match Chain::read(bytes) {
        Err(fault) => assert_eq!(fault, ChainFault::NotPem),
        Ok(chain) => {
            let judged = ROOTS.judge(&chain, FQDN, NOW);
            if judged.is_ok() {
                assert_eq!(chain.leaf(), TRUE.leaf(), "only what was issued is believed");
            }
            assert!(bytes != GOOD || judged.is_ok(), "what was issued is believed: {judged:?}");
            let later = Timestamp(chain.leaf().not_after.0.saturating_add(1000));
            assert_eq!(ROOTS.judge(&chain, FQDN, later), Err(ChainFault::Expired));
            for other in ["", "sprinkle.example", "x.chat.sprinkle.example", "evil.example"] {
                assert!(ROOTS.judge(&chain, other, NOW).is_err(), "nobody speaks for {other:?}");
            }
        }
    }
}

/// A signed request: only what was signed is taken, and a certificate's place is the chat tool's own.
pub(crate) fn signed_request(bytes: &[u8]) {
    let Some((headers, body)) = signed::read(bytes) else { return };
    let read = [decode::json::<SignedTokenRequest>(body).err(), decode::json::<ClientListRequest>(body).err()];
    for problem in read.into_iter().flatten() {
        assert!(problem.status().is_client_error(), "{}", problem.code());
    }
    let (fqdn, _) = signed::fields(body);
    if let (Some(text), Ok(fqdn)) = (headers.chain_url, host_name(&fqdn))
        && let Ok(url) = chain_url::judge(text, &fqdn)
    {
        assert_eq!((url.scheme(), url.port()), ("https", None));
        assert!(url.username().is_empty() && url.password().is_none());
        let host = url.host_str().unwrap_or_default();
        assert!(host == fqdn || host.ends_with(&format!(".{fqdn}")), "{host} is not below {fqdn}");
        assert!(url.path().starts_with("/ect.api/") && !url.path().split('/').any(|part| part == ".."), "{url}");
    }
    let verdict = signed::judged(headers, body);
    assert!(!signed::TRUE.contains(&bytes) || verdict == Some(Ok(())), "a true one is taken: {verdict:?}");
}

/// A URL to call: what is taken is https to a host, without credentials.
pub(crate) fn url(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(url) = check_url(text, EgressRules::default()) {
        assert_eq!(url.scheme(), "https");
        assert!(url.host().is_some() && url.username().is_empty() && url.password().is_none());
        assert!(text.chars().count() <= MAX_URL);
    }
}

/// Bodies of requests: read or refused.
pub(crate) fn request_body(bytes: &[u8]) {
    let read = [
        decode::json::<channel::LogMessage>(bytes).err(),
        decode::json::<channel::PutUser>(bytes).err(),
        decode::json::<control::RequestControl>(bytes).err(),
        decode::json::<hooks::RegisterHook>(bytes).err(),
        decode::json::<integration::SendChatToAgent>(bytes).err(),
        decode::json::<messages::SendEvent>(bytes).err(),
        decode::json::<messages::SendMessage>(bytes).err(),
        decode::json::<users::DetailsRequest>(bytes).err(),
    ];
    for problem in read.into_iter().flatten() {
        assert!(problem.status().is_client_error(), "{}", problem.code());
    }
}
