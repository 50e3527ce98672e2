//! What a refused caller is still sending. A connection that is closed on it is reset, and the caller sees that instead of
//! why it was refused; so it is read and thrown away, within bounds, before the refusal is sent.

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// The most that is thrown away, in bytes.
pub(super) const MOST: u64 = 4 * 1024 * 1024;
/// The same where files are sent: twice the largest, and something.
pub(super) const MOST_OF_FILES: u64 = 24 * 1024 * 1024;
/// How long that may take.
const WITHIN: Duration = Duration::from_secs(5);

/// The other end of a request's body, whoever reads it.
pub(super) struct Unread {
    body: Arc<Mutex<Body>>,
    /// The caller sends nothing until it is asked to, which reading does.
    waits_to_be_asked: bool,
}

struct Lent(Arc<Mutex<Body>>);

impl Lent {
    fn with<R>(&self, f: impl FnOnce(Pin<&mut Body>) -> R) -> R {
        f(Pin::new(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|body| body.poll_frame(cx))
    }
    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }
    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}

impl Unread {
    /// Lends the body to whoever handles the request.
    pub(super) fn lend(request: Request) -> (Request, Self) {
        let waits_to_be_asked = request.headers().contains_key(header::EXPECT);
        let (parts, body) = request.into_parts();
        let body = Arc::new(Mutex::new(body));
        let lent = Body::new(Lent(Arc::clone(&body)));
        (Request::from_parts(parts, lent), Self { body, waits_to_be_asked })
    }

    /// Throws away what has not been read, once the request is handled.
    pub(super) async fn discard(self, most: u64) {
        // Whoever keeps it still reads it.
        let Some(body) = Arc::into_inner(self.body) else { return };
        let body = body.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.waits_to_be_asked || body.is_end_stream() || body.size_hint().lower() > most {
            return;
        }
        let mut rest = Limited::new(body, usize::try_from(most).unwrap_or(usize::MAX));
        let all = async { while let Some(Ok(_)) = rest.frame().await {} };
        // Who takes longer has had its chance.
        let _ = tokio::time::timeout(WITHIN, all).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use std::sync::atomic::{AtomicUsize, Ordering};

    const PIECE: usize = 64 * 1024;

    /// How many pieces of so many are read.
    async fn taken(pieces: usize, expect: bool) -> usize {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let body = stream::iter(0..pieces).map(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(vec![0; PIECE])
        });
        let mut request = Request::new(Body::from_stream(body));
        if expect {
            request.headers_mut().insert(header::EXPECT, "100-continue".parse().unwrap());
        }
        let (request, unread) = Unread::lend(request);
        drop(request);
        unread.discard(MOST).await;
        taken.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn what_is_unread_is_thrown_away_up_to_a_bound() {
        assert_eq!(taken(3, false).await, 3);
        let most = usize::try_from(MOST).unwrap() / PIECE;
        assert_eq!(taken(2 * most, false).await, most + 1);
        assert_eq!(taken(3, true).await, 0, "it was not asked for");
    }

    #[tokio::test]
    async fn what_is_lent_is_the_body() {
        let (request, unread) = Unread::lend(Request::new(Body::from("hello")));
        assert_eq!(request.body().size_hint().exact(), Some(5));
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "hello");
        unread.discard(MOST).await;
    }
}
