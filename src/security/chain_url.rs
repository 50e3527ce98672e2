//! What a `SignatureCertChainUrl` shows by itself (section 3), before anything is fetched.

use super::url::{EgressRules, check_url};
use url::Url;

/// Where an ECT keeps its certificates on its host.
const PLACE: &str = "/ect.api/";

/// The URL may not be fetched from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainUrlFault {
    /// It is no https URL, or one that readers would read differently.
    #[error("must be an absolute https URL without user name and password")]
    Form,
    /// Its host is not the ECT's.
    #[error("its host must be the fqdn, or below it")]
    Host,
    /// It names another port than 443.
    #[error("its port must be 443, or absent")]
    Port,
    /// It does not lie in the place for certificates.
    #[error("its path must begin with {PLACE}")]
    Path,
}

/// Judges the URL for the ECT with this FQDN, which is in lower case.
pub fn judge(text: &str, fqdn: &str) -> Result<Url, ChainUrlFault> {
    // Where it leads is the egress guard's business; plain http is never spoken to fetch a certificate.
    let https_only = EgressRules { allow_private: true, allow_http: false };
    let url = check_url(text, https_only).map_err(|_| ChainUrlFault::Form)?;
    // The parser mends what it can: an escaped or look-alike host name becomes the plain one. Nobody needs that here.
    let after_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    if !authority.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':')) {
        return Err(ChainUrlFault::Host);
    }
    let host = url.host_str().unwrap_or_default();
    let below = || host.strip_suffix(fqdn).is_some_and(|front| front.len() > 1 && front.ends_with('.'));
    if host != fqdn && !below() {
        return Err(ChainUrlFault::Host);
    }
    if url.port().is_some() {
        return Err(ChainUrlFault::Port);
    }
    // An escaped slash or backslash is none to us but may be one to the server, and then `..` beside it climbs out.
    let path = url.path().to_ascii_lowercase();
    if !url.path().starts_with(PLACE) || path.contains("%2f") || path.contains("%5c") {
        return Err(ChainUrlFault::Path);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls() {
        for text in [
            "https://ect.com/ect.api/x.pem",
            "HTTPS://ECT.com/ect.api/x.pem",
            "hTTps://ect.com:443/ect.api/x.pem",
            "https://ect.com:/ect.api/x.pem",
            "https://keys.ect.com/ect.api/x.pem",
            "https://a.b.eCt.cOm/ect.api/x.pem",
            "https://ect.com/ect.api/../ect.api/x.pem",
            "https://ect.com/other/../ect.api/x.pem",
            "https://ect.com/./ect.api/./x.pem?v=2",
            "https://ect.com/%2e%2e/ect.api/x.pem",
            "https://ect.com/ect.api/",
            "https://ect.com/ect.api/x.pem#top",
        ] {
            assert!(judge(text, "ect.com").is_ok(), "{text}");
        }
    }

    #[test]
    fn bad_urls() {
        use ChainUrlFault::{Form, Host, Path, Port};
        for (text, fault) in [
            ("", Form),
            ("http://ect.com/ect.api/x.pem", Form),
            ("ftp://ect.com/ect.api/x.pem", Form),
            ("//ect.com/ect.api/x.pem", Form),
            ("https:ect.com/ect.api/x.pem", Form),
            ("https:/ect.com/ect.api/x.pem", Form),
            ("https:\\\\ect.com\\ect.api\\x.pem", Form),
            ("https:///ect.com/ect.api/x.pem", Form),
            (" https://ect.com/ect.api/x.pem", Form),
            ("https://ect.com/ect.api/x.pem\n", Form),
            ("https://ect.\tcom/ect.api/x.pem", Form),
            ("https://user@ect.com/ect.api/x.pem", Form),
            ("https://ect.com@evil.com/ect.api/x.pem", Form),
            ("https://ect.com:443@evil.com/ect.api/x.pem", Form),
            ("https://ect.com\\@evil.com/ect.api/x.pem", Form),
            ("https://ect.com:99999/ect.api/x.pem", Form),
            ("file:///ect.api/x.pem", Form),
            ("https://notect.com/ect.api/x.pem", Host),
            ("https://ect.com.evil.com/ect.api/x.pem", Host),
            ("https://evil.com/ect.com/ect.api/x.pem", Host),
            ("https://evil.com#ect.com/ect.api/x.pem", Host),
            ("https://evil.com?ect.com/ect.api/x.pem", Host),
            ("https://com/ect.api/x.pem", Host),
            ("https://.ect.com/ect.api/x.pem", Host),
            ("https://ect.com./ect.api/x.pem", Host),
            ("https://%65ct.com/ect.api/x.pem", Host),
            ("https://evil.com%2fect.com/ect.api/x.pem", Form),
            ("https://ｅｃｔ.com/ect.api/x.pem", Host),
            ("https://evil.com。ect.com/ect.api/x.pem", Host),
            ("https://127.0.0.1/ect.api/x.pem", Host),
            ("https://2130706433/ect.api/x.pem", Host),
            ("https://[::1]/ect.api/x.pem", Host),
            ("https://ect.com:8443/ect.api/x.pem", Port),
            ("https://ect.com:80/ect.api/x.pem", Port),
            ("https://ect.com:0/ect.api/x.pem", Port),
            ("https://ect.com", Path),
            ("https://ect.com/", Path),
            ("https://ect.com/ect.api", Path),
            ("https://ect.com/ect.apix/x.pem", Path),
            ("https://ect.com/ECT.api/x.pem", Path),
            ("https://ect.com/Ect.Api/x.pem", Path),
            ("https://ect.com/x/ect.api/x.pem", Path),
            ("https://ect.com//ect.api/x.pem", Path),
            ("https://ect.com/ect.api/../x.pem", Path),
            ("https://ect.com/ect.api/%2e%2e/x.pem", Path),
            ("https://ect.com/ect.api/%2E./x.pem", Path),
            ("https://ect.com/ect.api/..%2fx.pem", Path),
            ("https://ect.com/ect.api/..%5Cx.pem", Path),
            ("https://ect.com/ect.api%2fx.pem", Path),
            ("https://ect.com/?/ect.api/x.pem", Path),
            ("https://ect.com/#/ect.api/x.pem", Path),
        ] {
            assert_eq!(judge(text, "ect.com").map(|u| u.to_string()), Err(fault), "{text}");
        }
    }
}
