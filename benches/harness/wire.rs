//! One HTTP/1.1 connection that stays open: as little of a client as there can be, since it shares the machine with
//! what it measures.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode, Uri,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::{io, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server and how to speak to it.
#[derive(Clone)]
pub(crate) struct Place {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    headers: HeaderMap,
}

/// A request, ready to be sent as often as wanted.
#[derive(Clone)]
pub(crate) struct Call {
    method: Method,
    path: Uri,
    body: Bytes,
}

impl Call {
    pub(crate) fn get(path: &str) -> Self {
        Self { method: Method::GET, path: path.parse().unwrap(), body: Bytes::new() }
    }

    pub(crate) fn post(path: &str, body: &serde_json::Value) -> Self {
        Self { method: Method::POST, path: path.parse().unwrap(), body: body.to_string().into() }
    }
}

impl Place {
    /// The server at this URL, `http` or `https` (with the system's roots of trust), for the holder of this token.
    pub(crate) fn new(url: &str, bearer: &str) -> Self {
        let url = url::Url::parse(url).expect("an absolute URL");
        let host = url.host_str().expect("a URL with a host").to_owned();
        let port = url.port_or_known_default().expect("http or https");
        let mut headers = HeaderMap::new();
        let mut set = |name, value: String| headers.insert(name, HeaderValue::from_str(&value).unwrap());
        set(HOST, url.port().map_or(host.clone(), |port| format!("{host}:{port}")));
        set(AUTHORIZATION, format!("Bearer {bearer}"));
        set(CONTENT_TYPE, "application/json".to_owned());
        let tls = (url.scheme() == "https").then(connector);
        Self { host, port, tls, headers }
    }
}

fn connector() -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// See the module.
pub(crate) struct Connection {
    place: Place,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(crate) async fn open(place: &Place) -> io::Result<Self> {
        Ok(Self { place: place.clone(), sender: connect(place).await? })
    }

    /// Sends a request and reads its answer to the end. After an error, the next call connects anew.
    pub(crate) async fn call(&mut self, call: &Call) -> io::Result<(StatusCode, Bytes)> {
        if self.sender.is_closed() {
            self.sender = connect(&self.place).await?;
        }
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.clone();
        *request.headers_mut() = self.place.headers.clone();
        let exchange = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((head.status, body.collect().await?.to_bytes()))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answer) => answer.map_err(io::Error::other),
            Err(late) => {
                self.sender = connect(&self.place).await?;
                Err(late.into())
            }
        }
    }
}

async fn connect(place: &Place) -> io::Result<SendRequest<Full<Bytes>>> {
    let host = place.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream = TcpStream::connect((host.as_str(), place.port)).await?;
    stream.set_nodelay(true)?;
    match &place.tls {
        None => shake(TokioIo::new(stream)).await,
        Some(tls) => {
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            shake(TokioIo::new(tls.connect(name, stream).await?)).await
        }
    }
}

async fn shake<T>(stream: T) -> io::Result<SendRequest<Full<Bytes>>>
where
    T: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    // Its end shows in the sender.
    tokio::spawn(connection);
    Ok(sender)
}
