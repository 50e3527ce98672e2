//! What a URL shows by itself (section 4): the rest is judged when connecting, by the address really connected to.

use url::Url;

/// What the configuration allows of the URLs that tenants give us (`[egress]` in `tract.toml`). The default is strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EgressRules {
    /// Addresses that are not public may be connected to. For development only.
    pub allow_private: bool,
    /// Plain http may be spoken. For development only.
    pub allow_http: bool,
}

/// The longest URL that is taken, in characters.
pub const MAX_URL: usize = 2048;

/// Why a URL is not taken. Never shows the URL: its query may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// It has no characters.
    #[error("must not be empty")]
    Empty,
    /// It is longer than [`MAX_URL`].
    #[error("must be at most {MAX_URL} characters long")]
    TooLong,
    /// It does not begin with a scheme and `//`, or is no URL at all.
    #[error("must be an absolute URL such as https://host/path")]
    NotAbsolute,
    /// It names no host.
    #[error("must name a host")]
    NoHost,
    /// It is neither https nor http.
    #[error("must be an https URL")]
    Scheme,
    /// It is http, which the configuration does not allow.
    #[error("must be an https URL; http needs egress.allow_http in tract.toml")]
    Http,
    /// It carries a user name or password.
    #[error("must not contain a user name or password")]
    Credentials,
}

/// Checks what a URL shows by itself.
pub fn check_url(text: &str, rules: EgressRules) -> Result<Url, UrlFault> {
    if text.is_empty() {
        return Err(UrlFault::Empty);
    }
    if text.chars().count() > MAX_URL {
        return Err(UrlFault::TooLong);
    }
    // The parser is a browser's: it drops white space and mends `https:host` and `https:///host`. We do not:
    // what somebody else reads in a URL must be what we read in it.
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(UrlFault::NotAbsolute);
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Err(UrlFault::NotAbsolute) };
    let http = match scheme.to_ascii_lowercase().as_str() {
        "https" => false,
        "http" => true,
        "" => return Err(UrlFault::NotAbsolute),
        _ => return Err(UrlFault::Scheme),
    };
    if http && !rules.allow_http {
        return Err(UrlFault::Http);
    }
    if rest.is_empty() || rest.starts_with(['/', '?', '#', ':']) {
        return Err(UrlFault::NoHost);
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(UrlFault::Credentials);
    }
    let url = Url::parse(text).map_err(|_| UrlFault::NotAbsolute)?;
    if url.host_str().is_none_or(str::is_empty) { Err(UrlFault::NoHost) } else { Ok(url) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_in_a_url_is_judged() {
        let long = format!("https://h.example/{}", "a".repeat(MAX_URL));
        for (text, strict, lax) in [
            ("https://bot.example/turn?x=1", Ok(()), Ok(())),
            ("HTTPS://bot.example:8443", Ok(()), Ok(())),
            ("https://[2001:db8::1]/x", Ok(()), Ok(())),
            ("https://h.example/a@b", Ok(()), Ok(())),
            ("http://bot.example/turn", Err(UrlFault::Http), Ok(())),
            ("http://127.0.0.1:9000/turn", Err(UrlFault::Http), Ok(())),
            ("", Err(UrlFault::Empty), Err(UrlFault::Empty)),
            ("/turn", Err(UrlFault::NotAbsolute), Err(UrlFault::NotAbsolute)),
            ("bot.example/turn", Err(UrlFault::NotAbsolute), Err(UrlFault::NotAbsolute)),
            ("https:bot.example", Err(UrlFault::NotAbsolute), Err(UrlFault::NotAbsolute)),
            ("https://bot.example/a b", Err(UrlFault::NotAbsolute), Err(UrlFault::NotAbsolute)),
            ("https:\\\\bot.example", Err(UrlFault::NotAbsolute), Err(UrlFault::NotAbsolute)),
            ("https://bot.example:99999/", Err(UrlFault::NotAbsolute), Err(UrlFault::NotAbsolute)),
            ("https://", Err(UrlFault::NoHost), Err(UrlFault::NoHost)),
            ("https:///turn", Err(UrlFault::NoHost), Err(UrlFault::NoHost)),
            ("https://:443/", Err(UrlFault::NoHost), Err(UrlFault::NoHost)),
            ("ftp://bot.example/", Err(UrlFault::Scheme), Err(UrlFault::Scheme)),
            ("file:///etc/passwd", Err(UrlFault::Scheme), Err(UrlFault::Scheme)),
            ("https://me:secret@bot.example/", Err(UrlFault::Credentials), Err(UrlFault::Credentials)),
            ("data:text/plain,x", Err(UrlFault::NotAbsolute), Err(UrlFault::NotAbsolute)),
            ("https://bot.exam\tple/", Err(UrlFault::NotAbsolute), Err(UrlFault::NotAbsolute)),
            ("https://@bot.example/", Err(UrlFault::Credentials), Err(UrlFault::Credentials)),
            (&long, Err(UrlFault::TooLong), Err(UrlFault::TooLong)),
        ] {
            assert_eq!(check_url(text, EgressRules::default()).map(drop), strict, "{text}");
            assert_eq!(check_url(text, EgressRules { allow_private: true, allow_http: true }).map(drop), lax, "{text}");
        }
    }
}
