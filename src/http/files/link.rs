//! Where files are read: absolute links, for whoever gets the message.

use axum::http::{HeaderMap, Uri, header, uri::Authority};
use std::{fmt, net::SocketAddr};
use tract_actors::ports::FileToken;
use url::Url;

/// Longest host with its port.
const MAX_HOST: usize = 261;

/// Where the router is found from outside: the beginning of links, without a `/` at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Reads `public_url` of the settings.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "must be an absolute URL such as https://tract.example")?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err("must begin with https:// or http:// and a host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user or password: everybody who gets a link sees it");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must not hold a query or fragment: links go on behind it");
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes links.
#[derive(Debug, Clone)]
pub struct Links {
    public_url: Option<PublicUrl>,
    /// Whether this router ends TLS itself.
    tls: bool,
    listen: SocketAddr,
}

impl Links {
    /// Without a `public_url` links lead to the host that the uploading request named, else to where this router listens.
    pub fn new(public_url: Option<PublicUrl>, tls: bool, listen: SocketAddr) -> Self {
        Self { public_url, tls, listen }
    }

    /// The link to a file that came with a request like this.
    pub(super) fn to(&self, token: &FileToken, uri: &Uri, headers: &HeaderMap) -> String {
        let token = token.expose();
        if let Some(public_url) = &self.public_url {
            return format!("{public_url}/files/{token}");
        }
        let scheme = if self.tls { "https" } else { "http" };
        match named_host(uri, headers) {
            Some(host) => format!("{scheme}://{host}/files/{token}"),
            None => format!("{scheme}://{}/files/{token}", self.listen),
        }
    }
}

/// The host that a request names, in its target (HTTP/2) or its header.
fn named_host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let in_header = || headers.get(header::HOST)?.to_str().ok()?.parse().ok();
    let host: Authority = uri.authority().cloned().or_else(in_header)?;
    let plain = (1..=MAX_HOST).contains(&host.as_str().len()) && !host.as_str().contains('@');
    (plain && !host.host().is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn what_can_begin_a_link() {
        let read = |text: &str| PublicUrl::parse(text).map(|url| url.to_string());
        assert_eq!(read("https://Tract.example").as_deref(), Ok("https://tract.example"));
        assert_eq!(read("http://127.0.0.1:8080/").as_deref(), Ok("http://127.0.0.1:8080"));
        assert_eq!(read("https://a.example/router/").as_deref(), Ok("https://a.example/router"));
        for (bad, names) in [
            ("", "absolute"),
            ("tract.example", "absolute"),
            ("ftp://tract.example", "https://"),
            ("file:///etc", "https://"),
            ("https://u:p@tract.example", "password"),
            ("https://tract.example/?a=b", "query"),
            ("https://tract.example/#a", "fragment"),
        ] {
            assert!(read(bad).unwrap_err().contains(names), "{bad}");
        }
    }

    #[test]
    fn links_lead_where_the_caller_found_us() {
        let token = FileToken::new(&"t".repeat(FileToken::LENGTH)).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        let link = |tls, public: Option<&str>, target: &str, host: Option<&'static [u8]>| {
            let host = host.map(|host| (header::HOST, HeaderValue::from_bytes(host).unwrap()));
            let links = Links::new(public.map(|text| PublicUrl::parse(text).unwrap()), tls, listen);
            let link = links.to(&token, &target.parse().unwrap(), &host.into_iter().collect());
            link.strip_suffix(&format!("/files/{}", token.expose())).unwrap().to_owned()
        };
        let public = Some("https://p.example/a");
        assert_eq!(link(false, public, "/x", Some(b"h.example")), "https://p.example/a");
        assert_eq!(link(false, None, "/x", Some(b"h.example:81")), "http://h.example:81");
        assert_eq!(link(true, None, "/x", Some(b"[::1]:81")), "https://[::1]:81");
        assert_eq!(link(true, None, "https://two.example/x", None), "https://two.example");
        for bad in [&b""[..], b"a b", b"a/b", b"u@h.example", b"\xff", b"a\"b", b"h?x", &[b'a'; 300]] {
            assert_eq!(
                link(false, None, "/x", Some(Box::leak(bad.to_vec().into_boxed_slice()))),
                "http://127.0.0.1:8080"
            );
        }
        assert_eq!(link(false, None, "/x", None), "http://127.0.0.1:8080");
    }
}
