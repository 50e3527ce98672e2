//! Host names, as certificates name them.

/// A text is not a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a host name such as chat.example.com")]
pub struct HostFault;

/// Reads a host name (RFC 1123; international names in their `xn--` form), in lower case.
pub fn host_name(text: &str) -> Result<String, HostFault> {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    // A last label of digits only would be an IP address, which no DNS name in a certificate can match.
    let numeric = text.rsplit('.').next().is_some_and(|l| l.bytes().all(|c| c.is_ascii_digit()));
    if text.len() <= 253 && !numeric && text.split('.').all(label) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(HostFault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        for text in ["localhost", "chat.sprinkle.example", "xn--bcher-kva.example", "a1.b2", "1.2.example"] {
            assert_eq!(host_name(text).as_deref(), Ok(text));
        }
        assert_eq!(host_name("Chat.Example").as_deref(), Ok("chat.example"));
        let long = format!("{}.example", "a".repeat(64));
        for text in
            ["", ".", "a..b", "a.", "-a.example", "a-.example", "a_b.example", "a b", "h/x", "h:1", "10.0.0.1", &long]
        {
            assert_eq!(host_name(text), Err(HostFault), "{text}");
        }
    }
}
