//! What a file is, by what is in it.
//!
//! A name is only somebody's word. It decides only whether text, which has no marks of its kind, is meant as a table.

use super::package;
use memchr::memmem;
use tract_domain::MessageType;

/// The kinds of files that a customer may send (section 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `.jpg`, `.jpeg`
    Jpeg,
    /// `.png`
    Png,
    /// `.gif`
    Gif,
    /// `.docx`: a package with a `word/` in it.
    Docx,
    /// `.doc`: an OLE 2 file with a stream `WordDocument`.
    Doc,
    /// `.pdf`
    Pdf,
    /// `.xls`: an OLE 2 file with a stream `Workbook`, or `Book` before 1997.
    Xls,
    /// `.xlsx`: a package with an `xl/` in it.
    Xlsx,
    /// `.csv`: text, in UTF-8 or in an encoding of single bytes, as spreadsheets write it.
    Csv,
}

use FileKind::{Csv, Doc, Docx, Gif, Jpeg, Pdf, Png, Xls, Xlsx};

const OLE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

/// The length of an entry in an OLE 2 file's directory. Sectors are multiples of it.
const OLE_ENTRY: usize = 128;

impl FileKind {
    /// All of them.
    pub const ALL: [Self; 9] = [Jpeg, Png, Gif, Docx, Doc, Pdf, Xls, Xlsx, Csv];

    /// What this is. `name` is what it was called.
    pub fn of(content: &[u8], name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.is_in(content))?;
        (found != Csv || Self::of_name(name) == Some(Csv)).then_some(found)
    }

    /// The kind that a name ends with, in any case.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        let extension = extension.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| kind.extensions().contains(&&*extension))
    }

    /// How names of this kind end; the first one is the usual one.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Jpeg => &["jpg", "jpeg"],
            Png => &["png"],
            Gif => &["gif"],
            Docx => &["docx"],
            Doc => &["doc"],
            Pdf => &["pdf"],
            Xls => &["xls"],
            Xlsx => &["xlsx"],
            Csv => &["csv"],
        }
    }

    /// What it is served as.
    pub fn content_type(self) -> &'static str {
        match self {
            Jpeg => "image/jpeg",
            Png => "image/png",
            Gif => "image/gif",
            Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Doc => "application/msword",
            Pdf => "application/pdf",
            Xls => "application/vnd.ms-excel",
            Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            Csv => "text/csv",
        }
    }

    /// With which type of message it comes.
    pub fn message_type(self) -> MessageType {
        match self {
            Jpeg | Png | Gif => MessageType::Image,
            Docx | Doc | Pdf | Xls | Xlsx | Csv => MessageType::Document,
        }
    }

    /// Whether this is what is in the file.
    pub fn is_in(self, bytes: &[u8]) -> bool {
        match self {
            Jpeg => bytes.starts_with(b"\xff\xd8\xff"),
            Png => bytes.starts_with(b"\x89PNG\r\n\x1a\n"),
            Gif => bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a"),
            Pdf => bytes.starts_with(b"%PDF-"),
            Docx => package::holds(bytes, "word/"),
            Xlsx => package::holds(bytes, "xl/"),
            Doc => bytes.starts_with(OLE) && has_stream(bytes, "WordDocument"),
            Xls => bytes.starts_with(OLE) && (has_stream(bytes, "Workbook") || has_stream(bytes, "Book")),
            // Text has no control characters but those of its lines. Nothing else here is text, but these may be.
            Csv => !bytes.iter().any(is_control) && ![Jpeg, Gif, Pdf].iter().any(|kind| kind.is_in(bytes)),
        }
    }
}

fn is_control(byte: &u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n' | b'\x0c')
}

/// Whether an OLE 2 file's directory names this stream: as UTF-16, at the beginning of an entry, and ended.
fn has_stream(bytes: &[u8], name: &str) -> bool {
    let entry: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    memmem::find_iter(bytes, &entry).any(|at| at % OLE_ENTRY == 0)
}

#[cfg(test)]
mod tests {
    use super::super::package::tests::package;
    use super::*;

    fn ole(stream: &str) -> Vec<u8> {
        let mut bytes = OLE.to_vec();
        bytes.resize(1024, 0);
        bytes.extend(stream.encode_utf16().flat_map(u16::to_le_bytes));
        bytes.resize(2048, 0);
        bytes
    }

    fn samples() -> Vec<(FileKind, Vec<u8>)> {
        vec![
            (Jpeg, b"\xff\xd8\xff\xe0\0\x10JFIF".to_vec()),
            (Png, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec()),
            (Gif, b"GIF89a\x01\0".to_vec()),
            (Docx, package(&["[Content_Types].xml", "word/document.xml"])),
            (Doc, ole("WordDocument")),
            (Pdf, b"%PDF-1.7\n".to_vec()),
            (Xls, ole("Workbook")),
            (Xlsx, package(&["[Content_Types].xml", "xl/workbook.xml"])),
            (Csv, "name,plan\nKäthe,gold\n".as_bytes().to_vec()),
        ]
    }

    #[test]
    fn each_kind_is_itself_and_no_other() {
        for (kind, bytes) in samples() {
            let found: Vec<_> = FileKind::ALL.into_iter().filter(|kind| kind.is_in(&bytes)).collect();
            assert_eq!(found, [kind]);
        }
    }

    /// Made by other programs.
    #[test]
    fn packages_of_others_are_found() {
        assert!(Docx.is_in(include_bytes!("../../../fuzz/corpus/file_kind/docx")));
        assert!(Xlsx.is_in(include_bytes!("../../../fuzz/corpus/file_kind/xlsx")));
        assert!(FileKind::ALL.iter().all(|kind| !kind.is_in(include_bytes!("../../../fuzz/corpus/file_kind/zip"))));
    }

    #[test]
    fn what_is_nothing_of_it() {
        for bytes in [
            &b"PK\x03\x04"[..],
            b"\x89PNG\r\n\x1a",
            b"MZ\x90\0",
            b"a,b\0",
            b"\xff\xfea\0,\0",
            &package(&["word/document.xml"]),
            &package(&["[Content_Types].xml", "ppt/presentation.xml"]),
            &ole("PowerPoint Document"),
            &ole("WordDocumentary"),
            b"\x7fELF\x02\x01\x01\0",
        ] {
            let found: Vec<_> = FileKind::ALL.into_iter().filter(|kind| kind.is_in(bytes)).collect();
            assert_eq!(found, [], "{bytes:?}");
        }
    }

    #[test]
    fn names_decide_only_whether_text_is_a_table() {
        for (kind, bytes) in samples() {
            for name in ["", "a", "a.exe", "a.png", "a.pdf"] {
                assert_eq!(
                    FileKind::of(&bytes, name),
                    Some(kind).filter(|kind| *kind != Csv),
                    "{kind:?} called {name:?}"
                );
            }
            assert_eq!(FileKind::of(&bytes, "a.CSV"), Some(kind));
        }
        assert_eq!(FileKind::of(b"caf\xe9,1\n", "a.csv"), Some(Csv));
        assert_eq!(FileKind::of(b"MZ\x90\0", "a.csv"), None);
    }

    #[test]
    fn names_end_as_the_contract_lists() {
        for (name, kind) in [
            ("a.JPG", Some(Jpeg)),
            ("a.b.jpeg", Some(Jpeg)),
            (".csv", Some(Csv)),
            ("a.pdf.exe", None),
            ("pdf", None),
            ("a.", None),
            ("", None),
        ] {
            assert_eq!(FileKind::of_name(name), kind, "{name}");
        }
    }
}
