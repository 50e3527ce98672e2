//! Reading a file: its link is the right to.

use super::kind::FileKind;
use super::place;
use crate::http::{Edge, Problem};
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tract_actors::ports::{FileInfo, FileToken, Store};
use tract_domain::MessageType;

/// `GET /files/{token}`
pub async fn read_file(
    State(edge): State<Arc<Edge>>,
    token: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    // Whatever is wrong with a token, there is nothing to learn from it.
    let nothing = || Problem::new(StatusCode::NOT_FOUND, "unknown_file", "no such file");
    let token = token.ok().and_then(|Path(text)| FileToken::new(&text)).ok_or_else(nothing)?;
    let info = edge.store.file(&token).await?.ok_or_else(nothing)?;
    let place = place(&edge.files.downloads)?;
    let first = edge.store.file_piece(&token, 0).await?.ok_or_else(nothing)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_str(&info.content_type).map_err(|_| Problem::internal())?),
        (header::CONTENT_LENGTH, info.size.into()),
        (header::CONTENT_DISPOSITION, disposition(&info)?),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=86400, immutable")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    let rest =
        Rest { store: Arc::clone(&edge.store), token, number: 0, left: info.size, next: Some(first), _place: place };
    Ok((headers, Body::from_stream(stream::try_unfold(rest, Rest::piece))).into_response())
}

/// Images are shown, documents are saved.
fn disposition(info: &FileInfo) -> Result<HeaderValue, Problem> {
    let image = FileKind::of_name(&info.name).is_some_and(|kind| kind.message_type() == MessageType::Image);
    let kind = if image { "inline" } else { "attachment" };
    // For old clients without what they might misread; for all others as it is (RFC 6266).
    let plain: String = info
        .name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') || c == ' ' { c } else { '_' })
        .collect();
    let mut value = format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''");
    for byte in info.name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            value.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(value, "%{byte:02X}");
        }
    }
    HeaderValue::from_str(&value).map_err(|_| Problem::internal())
}

/// What is still to be sent of a file.
struct Rest {
    store: Arc<dyn Store>,
    token: FileToken,
    number: u64,
    left: u64,
    /// A piece that was read already.
    next: Option<Vec<u8>>,
    _place: OwnedSemaphorePermit,
}

impl Rest {
    /// The next piece. A file that ends too soon ends the connection, so that nobody takes it for whole.
    async fn piece(mut self) -> Result<Option<(Vec<u8>, Self)>, io::Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece = match self.next.take() {
            Some(piece) => Some(piece),
            None => self.store.file_piece(&self.token, self.number).await.map_err(io::Error::other)?,
        };
        let piece = piece.filter(|piece| !piece.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.number += 1;
        Ok(Some((piece, self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_domain::{Timestamp, UserId};

    #[test]
    fn names_travel_in_both_forms() {
        let of = |name: &str| {
            let user_id = UserId::new("u").unwrap();
            let info =
                FileInfo { user_id, content_type: String::new(), name: name.to_owned(), size: 1, at: Timestamp(0) };
            disposition(&info).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(of("a b.png"), "inline; filename=\"a b.png\"; filename*=UTF-8''a%20b.png");
        assert_eq!(of("Käthe\".pdf"), "attachment; filename=\"K_the_.pdf\"; filename*=UTF-8''K%C3%A4the%22.pdf");
        assert_eq!(of("a\r\nb.csv"), "attachment; filename=\"a__b.csv\"; filename*=UTF-8''a%0D%0Ab.csv");
    }
}
