//! The form that a file comes in: received within bounds, and judged.

use super::MAX_FILE;
use super::form::{self, FormFault, Part};
use super::kind::FileKind;
use crate::hsl;
use crate::http::Problem;
use crate::http::decode::{self, Int, Name};
use crate::http::idempotency::{HEADER, RequestKey};
use crate::http::request::MAX_BODY;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tract_domain::MessageType;
use utoipa::ToSchema;

/// Largest form: the file, and as much as any other body may have.
const MAX_FORM: usize = MAX_FILE + MAX_BODY;
/// How slowly a form may arrive: ten megabytes at less than a megabit a second, but never nothing for long.
const BOUNDS: Bounds = Bounds { all: Duration::from_secs(120), idle: Duration::from_secs(20) };
/// Longest name of a file that is kept, in characters, without what follows its last dot.
const MAX_STEM: usize = 100;

/// The part that is the file.
const FILE: &str = "file";
/// The parts that mean something; others are ignored, as unknown fields are.
const FIELDS: [&str; 5] = ["auth_id", "business_id", "message_type", "message_body", FILE];

/// How long a form may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// To arrive as a whole.
    all: Duration,
    /// Until more of it arrives.
    idle: Duration,
}

/// A file that a customer sent, in a form.
#[derive(Deserialize, ToSchema)]
pub struct FileFields {
    /// The client's own id of the user.
    #[schema(value_type = String, max_length = 256)]
    auth_id: Name<256>,
    /// To which business.
    #[schema(value_type = u64, example = 343)]
    business_id: Int,
    /// 1, image: jpg, jpeg, png, gif. 52, document: docx, doc, pdf, xls, xlsx, csv.
    #[schema(value_type = u64, example = 1)]
    message_type: Int,
    /// What the customer says with it. Never parsed. At most 64 KiB.
    #[serde(default)]
    message_body: Option<String>,
    /// At most 10 MiB. What is in it says what it is, whatever its name ends with; only text must be called `.csv` to be one.
    // Of the file as of a field only the name is read.
    #[schema(value_type = String, format = Binary)]
    file: String,
}

/// A form that is good.
pub(super) struct Received {
    pub(super) auth_id: Name<256>,
    pub(super) business_id: Int,
    /// Empty if nothing was said.
    pub(super) message_body: String,
    pub(super) kind: FileKind,
    /// What the file may be called when it is saved.
    pub(super) name: String,
    pub(super) content: Bytes,
    /// With what the form says, whatever separates its parts.
    pub(super) key: Option<RequestKey>,
}

/// The boundary of a form's parts; a 415 for what is no form.
pub(super) fn boundary(headers: &HeaderMap) -> Result<String, Problem> {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(form::boundary);
    named.ok_or_else(|| {
        let text = "the body must be a form: send Content-Type: multipart/form-data with its boundary";
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text)
    })
}

/// Receives a form and judges it, off the threads that serve others: it may hold megabytes.
pub(super) async fn form(body: Body, boundary: String, headers: &HeaderMap) -> Result<Received, Problem> {
    let (bytes, headers) = (collect(body, BOUNDS).await?, headers.clone());
    let judged = tokio::task::spawn_blocking(move || judge(&bytes, &boundary, &headers));
    judged.await.map_err(|_| Problem::internal())?
}

async fn collect(body: Body, bounds: Bounds) -> Result<Bytes, Problem> {
    let too_large = || {
        let text = format!(
            "the form is too large: its file must be at most {MAX_FILE} bytes long, and all the rest {MAX_BODY}"
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", text)
    };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_FORM {
        return Err(too_large());
    }
    let mut bytes = BytesMut::with_capacity(announced);
    let mut body = Limited::new(body, MAX_FORM);
    let end = Instant::now() + bounds.all;
    loop {
        match timeout_at(end.min(Instant::now() + bounds.idle), body.frame()).await {
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(Ok(frame))) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Ok(Some(Err(error))) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Some(Err(_))) => {
                let text = "the body did not arrive whole";
                return Err(Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", text));
            }
            Err(_) => {
                let text = "the body took too long to arrive";
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", text));
            }
        }
    }
}

fn judge(body: &Bytes, boundary: &str, headers: &HeaderMap) -> Result<Received, Problem> {
    let malformed =
        |fault: FormFault| Problem::new(StatusCode::BAD_REQUEST, "malformed_form", format!("the body {fault}"));
    let mut parts = form::parts(body, boundary).map_err(malformed)?;
    parts.retain(|part| FIELDS.contains(&&*part.name));
    // In whatever order they come they are one request.
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    let key = if headers.contains_key(HEADER) { RequestKey::read(headers, &digest(&parts))? } else { None };
    let (mut fields, mut content) = (Map::new(), Bytes::new());
    for part in parts {
        let value = if part.name == FILE { named_file(&part)? } else { text(&part)? };
        if fields.contains_key(&part.name) {
            return Err(Problem::invalid(&part.name, "is there more than once"));
        }
        fields.insert(part.name.clone(), Value::String(value));
        if part.name == FILE {
            content = part.content;
        }
    }
    let fields = serde_json::to_vec(&fields).map_err(|_| Problem::internal())?;
    let FileFields { auth_id, business_id, message_type, message_body, file } = decode::json(&fields)?;
    let message_body = message_body.unwrap_or_default();
    if !message_body.is_empty() {
        hsl::customer_text(&message_body).map_err(|fault| Problem::invalid("message_body", fault))?;
    }
    let kind = kind_of(&file, message_type, &content)?;
    Ok(Received { auth_id, business_id, message_body, kind, name: safe_name(&file, kind), content, key })
}

/// What these parts say, whatever boundary stood between them. Each piece behind its length, so that none run together.
fn digest(parts: &[Part]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        for bytes in [part.name.as_bytes(), part.file_name.as_deref().unwrap_or_default().as_bytes(), &part.content] {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        }
    }
    digest.finalize().into()
}

fn text(part: &Part) -> Result<String, Problem> {
    let text = std::str::from_utf8(&part.content).map_err(|_| Problem::invalid(&part.name, "is not UTF-8"))?;
    Ok(text.to_owned())
}

/// What the file is called, which may be nothing, if it is one that can be.
fn named_file(part: &Part) -> Result<String, Problem> {
    if part.content.len() > MAX_FILE {
        let text = format!("file: must be at most {MAX_FILE} bytes long");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "file_too_large", text));
    }
    if part.content.is_empty() {
        return Err(Problem::invalid("file", "must not be empty"));
    }
    Ok(part.file_name.clone().unwrap_or_default())
}

/// What the file is, by what is in it, if that goes with this type of message.
fn kind_of(name: &str, Int(message_type): Int, content: &[u8]) -> Result<FileKind, Problem> {
    let message_type = match MessageType::try_from(message_type) {
        Ok(message_type @ (MessageType::Image | MessageType::Document)) => message_type,
        _ => return Err(Problem::invalid("message_type", "must be 1, image, or 52, document")),
    };
    FileKind::of(content, name).filter(|kind| kind.message_type() == message_type).ok_or_else(|| {
        let allowed = FileKind::ALL.into_iter().filter(|kind| kind.message_type() == message_type);
        let allowed = allowed.flat_map(FileKind::extensions).copied().collect::<Vec<_>>().join(", ");
        let number = message_type.number();
        Problem::invalid("file", format_args!("with message_type {number} what is in it must be one of {allowed}"))
    })
}

/// What a file may be called on anybody's disk: no directories, nothing that cannot be seen, nothing that reorders text.
fn safe_name(name: &str, kind: FileKind) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
    let unsafe_in_names = |c: &char| {
        c.is_control()
            || matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*' | '%')
            || matches!(u32::from(*c), 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff)
    };
    // How browsers write a quotation mark.
    let stem = stem.replace("%22", "\"");
    let kept: String = stem.chars().filter(|c| !unsafe_in_names(c)).take(MAX_STEM).collect();
    let kept = kept.trim_matches(['.', ' ']);
    format!("{}.{}", if kept.is_empty() { "file" } else { kept }, kind.extensions()[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use std::io;

    #[test]
    fn names_are_made_safe() {
        for (name, expected) in [
            ("Holiday photo.PNG", "Holiday photo.png"),
            ("../../etc/passwd.png", "passwd.png"),
            ("C:\\Users\\kim\\a.b.png", "a.b.png"),
            ("x\r\nSet-Cookie: a=b.png", "xSet-Cookie a=b.png"),
            ("a\u{202e}gnp.exe.png", "agnp.exe.png"),
            ("käthe \"1\".png", "käthe 1.png"),
            ("käthe %221%22.png", "käthe 1.png"),
            (".png", "file.png"),
            ("", "file.png"),
            ("..", "file.png"),
            ("photo", "photo.png"),
            ("photo.exe", "photo.png"),
            ("...png", "file.png"),
            (&format!("{}.png", "ü".repeat(300)), &format!("{}.png", "ü".repeat(MAX_STEM))),
        ] {
            assert_eq!(safe_name(name, FileKind::Png), expected);
        }
    }

    async fn status(body: Body, bounds: Bounds) -> Result<usize, u16> {
        collect(body, bounds).await.map(|bytes| bytes.len()).map_err(|problem| problem.status().as_u16())
    }

    #[tokio::test]
    async fn slow_forms_end() {
        let (soon, late) = (Duration::from_millis(1), Duration::from_secs(60));
        for bounds in [Bounds { idle: soon, all: late }, Bounds { idle: late, all: soon }] {
            let begun = stream::iter([Ok::<_, io::Error>(vec![b'a'])]).chain(stream::pending());
            assert_eq!(status(Body::from_stream(begun), bounds).await, Err(408));
        }
    }

    #[tokio::test]
    async fn forms_are_bounded() {
        let bounds = BOUNDS;
        assert_eq!(status(Body::from(vec![0; MAX_FORM]), bounds).await, Ok(MAX_FORM));
        assert_eq!(status(Body::from(vec![0; MAX_FORM + 1]), bounds).await, Err(413));
        let pieces = (0..12).map(|_| Ok::<_, io::Error>(vec![0; 1024 * 1024]));
        assert_eq!(status(Body::from_stream(stream::iter(pieces)), bounds).await, Err(413));
        let broken = [Ok(vec![b'a']), Err(io::Error::other("gone"))];
        assert_eq!(status(Body::from_stream(stream::iter(broken)), bounds).await, Err(400));
    }
}
