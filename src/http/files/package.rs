//! What is in a package of Office Open XML, which is a ZIP archive: its names are read, and nothing is unpacked.

use memchr::memmem;

/// The end of the central directory, without its comment.
const END: usize = 22;
/// The longest comment.
const COMMENT: usize = u16::MAX as usize;
/// An entry of the central directory, without its name and what follows that.
const ENTRY: usize = 46;
/// What every such package lists its parts in.
const TYPES: &[u8] = b"[Content_Types].xml";

/// Whether the bytes are a package that holds something in this directory.
pub fn holds(bytes: &[u8], directory: &str) -> bool {
    let (mut types, mut something) = (false, false);
    for name in Names::of(bytes).into_iter().flatten() {
        types |= name == TYPES;
        something |= name.starts_with(directory.as_bytes());
    }
    types && something
}

/// The names in an archive's central directory, up to the first that is broken.
struct Names<'a>(&'a [u8]);

impl<'a> Names<'a> {
    /// None if it is no archive.
    fn of(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(b"PK\x03\x04") {
            return None;
        }
        let tail = bytes.len().saturating_sub(END + COMMENT);
        let end = tail + memmem::rfind(&bytes[tail..], b"PK\x05\x06")?;
        let end = bytes.get(end..end + END)?;
        let (size, offset) = (number::<4>(end, 12)?, number::<4>(end, 16)?);
        bytes.get(offset..offset.checked_add(size)?).map(Self)
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let entry = self.0;
        if !entry.starts_with(b"PK\x01\x02") {
            return None;
        }
        let (name, extra, comment) = (number::<2>(entry, 28)?, number::<2>(entry, 30)?, number::<2>(entry, 32)?);
        let found = entry.get(ENTRY..ENTRY + name)?;
        self.0 = entry.get(ENTRY + name + extra + comment..).unwrap_or_default();
        Some(found)
    }
}

/// A number of so many bytes, the lowest first.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + N)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An archive of empty files.
    pub(in crate::http::files) fn package(names: &[&str]) -> Vec<u8> {
        let (mut archive, mut directory) = (Vec::new(), Vec::new());
        for name in names {
            let length = u16::try_from(name.len()).unwrap().to_le_bytes();
            let offset = u32::try_from(archive.len()).unwrap().to_le_bytes();
            archive.extend(b"PK\x03\x04");
            archive.extend([0; 22]);
            archive.extend([length.as_slice(), &[0; 2], name.as_bytes()].concat());
            directory.extend(b"PK\x01\x02");
            directory.extend([0; 24]);
            directory.extend([length.as_slice(), &[0; 12], &offset, name.as_bytes()].concat());
        }
        let (size, offset) = (u32::try_from(directory.len()).unwrap(), u32::try_from(archive.len()).unwrap());
        archive.extend(directory);
        archive.extend(b"PK\x05\x06");
        archive.extend([0; 8]);
        archive.extend([&size.to_le_bytes()[..], &offset.to_le_bytes(), &[0; 2]].concat());
        archive
    }

    #[test]
    fn names_are_found_and_broken_archives_have_none() {
        let whole = package(&["[Content_Types].xml", "word/document.xml"]);
        assert!(holds(&whole, "word/") && !holds(&whole, "xl/"));
        for length in 0..whole.len() {
            assert!(!holds(&whole[..length], "word/"), "{length}");
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[at] = byte;
                let _ = holds(&broken, "word/");
            }
        }
        let with_comment = [&whole[..whole.len() - 2], b"\x04\0PK!!"].concat();
        assert!(holds(&with_comment, "word/"));
    }
}
