//! The egress guard; the developer of deliveries owns this file, and this is only its surface.

use reqwest::Url;

/// Longest URL that is taken, in characters.
pub const MAX_URL: usize = 2048;

/// What the configuration allows beyond public https (`[egress]`, section 11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EgressRules {
    /// Addresses that are not public, for development.
    pub allow_private: bool,
    /// Plain http, for development.
    pub allow_http: bool,
}
/// What is wrong with a URL, as far as it shows in the URL itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// It is too long.
    #[error("must be at most {MAX_URL} characters long")]
    TooLong,
    /// It is not an absolute URL.
    #[error("must be an absolute URL")]
    NotAbsolute,
    /// It has a scheme that is not allowed.
    #[error("must begin with https://")]
    Scheme,
    /// It names no host.
    #[error("must name a host")]
    NoHost,
    /// It carries a user name or a password.
    #[error("must not carry credentials")]
    Credentials,
}

/// Judges what shows in a URL itself (section 4, `hooks/register`).
pub fn check_url(text: &str, rules: EgressRules) -> Result<Url, UrlFault> {
    if text.chars().count() > MAX_URL {
        return Err(UrlFault::TooLong);
    }
    let url = Url::parse(text).map_err(|fault| match fault {
        _ if text == "https://" => UrlFault::NoHost,
        _ => UrlFault::NotAbsolute,
    })?;
    match url.scheme() {
        "https" => {}
        "http" if rules.allow_http => {}
        _ => return Err(UrlFault::Scheme),
    }
    if !url.has_host() || url.host_str().is_none_or(str::is_empty) {
        return Err(UrlFault::NoHost);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlFault::Credentials);
    }
    Ok(url)
}
