//! A `multipart/form-data` body (RFC 7578), which is here as a whole: found by one walk through it, nothing is copied.
//!
//! Written for this router because the usual library looks for the end of a part's headers anew, in all that it has, with each
//! packet that arrives, which a slow sender of megabytes can turn into minutes of a core; and because what is pure can be fuzzed.

use bytes::Bytes;
use memchr::memmem;

/// Parts of a form; ours has five.
const MAX_PARTS: usize = 32;

/// Bytes of a part's headers.
const MAX_HEAD: usize = 8 * 1024;

/// A part of a form.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is called.
    pub name: String,
    /// What the file was called where it came from.
    pub file_name: Option<String>,
    /// What it holds.
    pub content: Bytes,
}

/// Why a body is no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormFault {
    /// Nothing of it is a boundary.
    #[error("does not begin with the boundary that Content-Type names")]
    NoBoundary,
    /// It is cut off.
    #[error("does not end with the boundary that Content-Type names")]
    NoEnd,
    /// A part has no name, or headers that cannot be read.
    #[error("has a part whose Content-Disposition cannot be read")]
    Head,
    /// It has more parts than anybody needs.
    #[error("has more than {MAX_PARTS} parts")]
    TooMany,
}

/// The boundary that a `Content-Type` names; none if it is no form's.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let found = parameter(parameters, "boundary")?;
    let visible = found.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    (visible && (1..=70).contains(&found.len()) && !found.ends_with(' ')).then_some(found)
}

/// The parts of a form, in their order.
pub fn parts(body: &Bytes, boundary: &str) -> Result<Vec<Part>, FormFault> {
    let line = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(line.as_bytes());
    // The first boundary needs no line before it.
    let mut at = match begins_part(body, 0, &line.as_bytes()[2..]) {
        Some(Next::Part(at)) => at,
        Some(Next::End) => return Ok(Vec::new()),
        None => match next(body, 0, &finder).ok_or(FormFault::NoBoundary)? {
            (_, Next::Part(at)) => at,
            (_, Next::End) => return Ok(Vec::new()),
        },
    };
    let mut parts = Vec::new();
    loop {
        if parts.len() == MAX_PARTS {
            return Err(FormFault::TooMany);
        }
        let (head, content) = head(body, at)?;
        let (end, then) = next(body, content, &finder).ok_or(FormFault::NoEnd)?;
        let (name, file_name) = disposition(head).ok_or(FormFault::Head)?;
        parts.push(Part { name, file_name, content: body.slice(content..end) });
        match then {
            Next::Part(next) => at = next,
            Next::End => return Ok(parts),
        }
    }
}

/// What follows a boundary.
enum Next {
    /// A part, whose headers begin there.
    Part(usize),
    End,
}

/// The next boundary from there: where its line break is, and what follows.
fn next(body: &[u8], from: usize, finder: &memmem::Finder<'_>) -> Option<(usize, Next)> {
    let mut from = from;
    loop {
        let found = from + finder.find(body.get(from..)?)?;
        if let Some(next) = begins_part(body, found, finder.needle()) {
            return Some((found, next));
        }
        // Something that only begins like it.
        from = found + 2;
    }
}

/// What follows a boundary that stands there, if one does.
fn begins_part(body: &[u8], at: usize, line: &[u8]) -> Option<Next> {
    let rest = body.get(at..)?.strip_prefix(line)?;
    if rest.starts_with(b"--") {
        return Some(Next::End);
    }
    let blanks = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    rest.get(blanks..)?.starts_with(b"\r\n").then_some(Next::Part(at + line.len() + blanks + 2))
}

/// A part's headers, and where its content begins.
fn head(body: &[u8], at: usize) -> Result<(&[u8], usize), FormFault> {
    let all = body.get(at..).unwrap_or_default();
    let all = all.get(..all.len().min(MAX_HEAD)).unwrap_or_default();
    let length = memmem::find(all, b"\r\n\r\n").ok_or(FormFault::Head)?;
    Ok((&all[..length], at + length + 4))
}

/// The names that a part's headers give it.
fn disposition(head: &[u8]) -> Option<(String, Option<String>)> {
    let head = String::from_utf8_lossy(head);
    let value = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let (kind, parameters) = value.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    let extended = || parameter(parameters, "filename*").and_then(|text| percent_decoded(&text));
    Some((parameter(parameters, "name")?, parameter(parameters, "filename").or_else(extended)))
}

/// A parameter such as `name="value"`; within quotes `\"` and `\\` are as in older clients.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_start_matches(|c: char| c == ';' || c.is_whitespace()).trim_end();
        let after = after.trim_start();
        let (value, behind) = match after.strip_prefix('"') {
            Some(quoted) => quoted_text(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim_end().to_owned(), &after[end..])
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = behind;
    }
}

/// A text up to its closing quote, and what stands behind.
fn quoted_text(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push(c),
            },
            _ => value.push(c),
        }
    }
    None
}

/// Reads `UTF-8''na%C3%AFve.pdf` (RFC 8187).
fn percent_decoded(text: &str) -> Option<String> {
    let (charset, rest) = text.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        let digit = |digit: Option<u8>| char::from(digit?).to_digit(16).and_then(|d| u8::try_from(d).ok());
        bytes.push(if byte == b'%' { digit(rest.next())? << 4 | digit(rest.next())? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = Vec<(String, Option<String>, Vec<u8>)>;

    fn read(body: &[u8]) -> Result<Found, FormFault> {
        let parts = parts(&Bytes::copy_from_slice(body), "X")?;
        Ok(parts.into_iter().map(|p| (p.name, p.file_name, p.content.to_vec())).collect())
    }
    fn part(name: &str, file_name: Option<&str>, content: &[u8]) -> (String, Option<String>, Vec<u8>) {
        (name.to_owned(), file_name.map(str::to_owned), content.to_vec())
    }

    #[test]
    fn boundaries() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=X", Some("X")),
            ("Multipart/Form-Data;charset=utf-8; Boundary=\"a b\"", Some("a b")),
            ("multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxk", Some("----WebKitFormBoundary7MA4YWxk")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=\"a", None),
            ("multipart/form-data; boundary=\"\u{e4}\"", None),
            ("multipart/mixed; boundary=X", None),
            ("application/json; boundary=X", None),
            ("", None),
        ] {
            assert_eq!(boundary(content_type).as_deref(), expected, "{content_type}");
        }
        assert_eq!(boundary(&format!("multipart/form-data; boundary={}", "x".repeat(71))), None);
    }

    #[test]
    fn forms_are_read() {
        let body = b"--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X \t\r\ncontent-type: image/png\r\n\
            CONTENT-DISPOSITION:form-data;filename=\"x\\\"y.png\";name=f\r\n\r\n\r\n--\r\n--Xy\r\n--\r\n--X--\r\nepilogue";
        let found = vec![part("a", None, b"1"), part("f", Some("x\"y.png"), b"\r\n--\r\n--Xy\r\n--")];
        assert_eq!(read(body), Ok(found));
        assert_eq!(read(b"preamble\r\n--X--"), Ok(Vec::new()));
        assert_eq!(read(b"--X--\r\n"), Ok(Vec::new()));
        let empty = b"preamble\r\n--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--X--";
        assert_eq!(read(empty), Ok(vec![part("a", None, b"")]));
    }

    #[test]
    fn names_of_files() {
        let name = |parameters: &str| {
            let body = format!("--X\r\nContent-Disposition: form-data; {parameters}\r\n\r\n1\r\n--X--");
            read(body.as_bytes()).map(|parts| parts[0].1.clone())
        };
        for (parameters, expected) in [
            ("name=a", None),
            ("name=a; filename=b.pdf", Some("b.pdf")),
            ("name=a; filename=\"C:\\dir\\b.pdf\"", Some("C:\\dir\\b.pdf")),
            ("filename*=UTF-8''na%C3%AFve.pdf; name=a", Some("naïve.pdf")),
            ("name=a; filename=\"naïve; name=b.pdf\"", Some("naïve; name=b.pdf")),
            ("name=a; filename*=latin1''x", None),
            ("name=a; filename*=UTF-8''%f", None),
        ] {
            assert_eq!(name(parameters), Ok(expected.map(str::to_owned)), "{parameters}");
        }
    }

    #[test]
    fn what_is_no_form_says_why() {
        let head = "Content-Disposition: form-data; name=a\r\n\r\n";
        for (body, fault) in [
            (String::new(), FormFault::NoBoundary),
            ("{}".to_owned(), FormFault::NoBoundary),
            (format!("--Y\r\n{head}1\r\n--Y--"), FormFault::NoBoundary),
            (format!("--X\n{head}1\r\n--X"), FormFault::NoBoundary),
            (format!("--X\r\n{head}1"), FormFault::NoEnd),
            (format!("--X\r\n{head}1\r\n--X"), FormFault::NoEnd),
            (format!("--X\r\n{head}1\n--X--"), FormFault::NoEnd),
            ("--X\r\n\r\n1\r\n--X--".to_owned(), FormFault::Head),
            ("--X\r\nContent-Disposition: form-data\r\n\r\n1\r\n--X--".to_owned(), FormFault::Head),
            ("--X\r\nContent-Disposition: form-data; name=\"a\r\n\r\n1\r\n--X--".to_owned(), FormFault::Head),
            ("--X\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n--X--".to_owned(), FormFault::Head),
            (format!("--X\r\n{}{head}1\r\n--X--", "x".repeat(MAX_HEAD)), FormFault::Head),
            (format!("--X\r\n{head}\r\n").repeat(MAX_PARTS + 1) + "--X--", FormFault::TooMany),
        ] {
            assert_eq!(read(body.as_bytes()), Err(fault), "{body}");
        }
    }
}
