//! JSON that passes through: bounds that hold for everything we take in, so that whoever gets it can read it.

/// How deep JSON may be nested. Many readers stop at 128 levels, and what passes through is nested deeper on its way out.
pub const MAX_DEPTH: usize = 64;

/// Whether this text, read as JSON, is nested deeper than [`MAX_DEPTH`]. Needs neither stack nor memory, whatever comes.
pub fn too_deep(json: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_levels_outside_of_texts_only() {
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(!too_deep(nested(MAX_DEPTH).as_bytes()));
        assert!(too_deep(nested(MAX_DEPTH + 1).as_bytes()));
        assert!(!too_deep(format!("{{\"a\":\"{}\"}}", "[\\\"".repeat(1000)).as_bytes()));
        assert!(!too_deep("[],".repeat(1000).as_bytes()));
        assert!(too_deep("{\"a\":".repeat(100_000).as_bytes()));
    }
}
