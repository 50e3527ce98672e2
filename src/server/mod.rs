//! Serving: accepts connections, bounds them, ends TLS, and lets slow and idle callers go.
//!
//! Every bound here is on what a stranger can do before any token was seen.

pub mod tls;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use metrics::gauge;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tls::Certificate;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

/// Largest head of a request, in bytes: request line and headers.
pub const MAX_HEAD: usize = 32 * 1024;
/// Most headers of a request.
pub const MAX_HEADERS: usize = 100;
/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 200;
/// After a failed accept (no file descriptors left): give connections time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections that are open at a time; further ones wait in the system's queue.
    pub connections: usize,
    /// How long a new connection may take until its first request is there: TLS handshake and headers.
    pub first_request: Duration,
    /// How long a connection may be without a request, or an answer without anybody who reads it. Longer than the minute
    /// for which load balancers keep their connections to us.
    pub idle: Duration,
}

impl Bounds {
    /// For so many connections, with the time-outs of production.
    pub fn of(connections: usize) -> Self {
        Self { connections, first_request: Duration::from_secs(10), idle: Duration::from_secs(75) }
    }
}

/// Serves until `drain` completes, then takes no more requests and returns once those in flight are answered. Dropping
/// it drops the connections too.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    bounds: Bounds,
    certificate: Option<Arc<Certificate>>,
    drain: impl Future<Output = ()>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(bounds.connections.min(Semaphore::MAX_PERMITS)));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut drain = pin!(drain);
    loop {
        let place = tokio::select! {
            () = &mut drain => break,
            place = place(&places) => place?,
        };
        let stream = tokio::select! {
            () = &mut drain => break,
            // Ended connections are let go of as they end, so that their results do not pile up.
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            stream = accept(&listener) => stream,
        };
        let (app, certificate, stopped) = (app.clone(), certificate.clone(), stopped.clone());
        connections.spawn(async move {
            let _place = place;
            let _open = Open::enter();
            // Small answers go out at once; a socket that refuses the option works all the same.
            let _ = stream.set_nodelay(true);
            connection(stream, app, bounds, certificate, stopped).await;
        });
    }
    drop(listener);
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn place(places: &Arc<Semaphore>) -> io::Result<tokio::sync::OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Ok(place);
    }
    tracing::warn!("as many connections are open as limits.connections allows; further ones wait");
    Arc::clone(places).acquire_owned().await.map_err(io::Error::other)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(e) if matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    app: Router,
    bounds: Bounds,
    certificate: Option<Arc<Certificate>>,
    mut stopped: watch::Receiver<bool>,
) {
    let activity = Activity::new(bounds);
    let Some(certificate) = certificate else {
        return http(Watched { stream, activity: Arc::clone(&activity) }, app, activity, stopped).await;
    };
    let handshake = tokio_rustls::TlsAcceptor::from(certificate.current()).accept(stream);
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(bounds.first_request, handshake) => shaken,
        _ = stopped.wait_for(|stopped| *stopped) => return,
    };
    match shaken {
        Ok(Ok(stream)) => http(Watched { stream, activity: Arc::clone(&activity) }, app, activity, stopped).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    app: Router,
    activity: Arc<Activity>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    // hyper's `u32` of what `MAX_HEAD` says.
    builder.http2().max_header_list_size(32 * 1024).max_concurrent_streams(MAX_STREAMS);
    let seen = Arc::clone(&activity);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (app, request_under_way) = (app.clone(), seen.begin());
        async move {
            let answer = answer(app, request).await;
            drop(request_under_way);
            answer
        }
    });
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "a connection ended badly");
                }
                return;
            }
            () = activity.given_up() => {
                tracing::debug!("a connection was idle for too long");
                return;
            }
            _ = stopped.wait_for(|stopped| *stopped), if !stopping => {
                stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(app: Router, request: Request<Incoming>) -> Result<Response, Infallible> {
    // HTTP/1 counts while it parses; HTTP/2 bounds only the bytes.
    if request.headers().len() > MAX_HEADERS {
        return Ok(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response());
    }
    app.oneshot(request.map(Body::new)).await
}

/// Counts a connection as open.
struct Open;

impl Open {
    fn enter() -> Self {
        gauge!("tract_http_connections").increment(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        gauge!("tract_http_connections").decrement(1.0);
    }
}

/// When something last happened on a connection that speaks for its caller: a request began or was answered, or part of
/// an answer was taken. What merely arrives does not count, or a header sent byte by byte would never end.
struct Activity {
    opened: Instant,
    bounds: Bounds,
    /// Requests that are being answered.
    under_way: AtomicUsize,
    requests: AtomicU64,
    last: Mutex<Instant>,
}

impl Activity {
    fn new(bounds: Bounds) -> Arc<Self> {
        let opened = Instant::now();
        let (under_way, requests) = (AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Self { opened, bounds, under_way, requests, last: Mutex::new(opened) })
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn begin(self: &Arc<Self>) -> UnderWay {
        self.requests.fetch_add(1, Ordering::AcqRel);
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.touch();
        UnderWay(Arc::clone(self))
    }

    /// When it is to be given up if nothing happens until then.
    fn deadline(&self) -> Instant {
        if self.requests.load(Ordering::Acquire) == 0 {
            return self.opened + self.bounds.first_request;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) + self.bounds.idle
    }

    /// Completes when the caller has had its time. A request that is being answered has bounds of its own.
    async fn given_up(&self) {
        loop {
            let (deadline, now) = (self.deadline(), Instant::now());
            if deadline > now {
                // Looked at again by then at the latest: the first request turns a long deadline into a short one.
                tokio::time::sleep_until(deadline.min(now + self.bounds.idle)).await;
            } else if self.under_way.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(self.bounds.idle).await;
            } else {
                return;
            }
        }
    }
}

/// A request that is being answered, also when its caller hangs up.
struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.touch();
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A stream that notes when something was taken from it by the other side.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() {
            self.activity.touch();
        }
        written
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if written.is_ready() {
            self.activity.touch();
        }
        written
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
