//! The stored forms of what the domain and the ports know as values: JSON, each with a format version.
//!
//! An old form is read, for ever; a form from a newer version of this program is refused with its number. Fields that are
//! added later carry serde defaults. Errors never quote what is stored.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::error::Category;
use std::collections::BTreeMap;
use tract_actors::ports::{AttemptRecord, KeptAnswer, What};
use tract_domain::{Entry, Fact, Json, ReceiverId, Reply, Thread, Timestamp};

/// What this version writes.
const FORMAT: u16 = 1;

/// Why a stored form cannot be read, or a value not be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is not what it ought to be.
    #[error("{what}: {fault} at column {column}")]
    Json {
        /// Which form.
        what: &'static str,
        /// In which way.
        fault: &'static str,
        /// Where.
        column: usize,
    },
    /// A newer version of this program wrote it.
    #[error("{what}: format {found} is newer than this program, which knows {FORMAT}")]
    Newer {
        /// Which form.
        what: &'static str,
        /// Its format.
        found: u16,
    },
}

fn json_error(what: &'static str, error: &serde_json::Error) -> RecordError {
    // Not the error's own text: it quotes the offending value, which may be what somebody said.
    let fault = match error.classify() {
        Category::Io => "input or output failed",
        Category::Syntax => "not JSON",
        Category::Data => "not of the expected form",
        Category::Eof => "cut off",
    };
    RecordError::Json { what, fault, column: error.column() }
}

fn write<T: Serialize>(what: &'static str, value: &T) -> Result<String, RecordError> {
    serde_json::to_string(value).map_err(|e| json_error(what, &e))
}

fn read<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, RecordError> {
    serde_json::from_str(text).map_err(|e| json_error(what, &e))
}

fn known(what: &'static str, found: u16) -> Result<(), RecordError> {
    if found > FORMAT { Err(RecordError::Newer { what, found }) } else { Ok(()) }
}

/// A thread's snapshot; the domain's own serde form, which carries its own format version.
pub fn write_thread(thread: &Thread) -> Result<String, RecordError> {
    write("thread", thread)
}

/// Reads a thread's snapshot.
pub fn read_thread(text: &str) -> Result<Thread, RecordError> {
    read("thread", text)
}

#[derive(Serialize)]
struct EntryOut<'a> {
    format: u16,
    sequence: u64,
    conversation: u64,
    at: Timestamp,
    control_epoch: u64,
    active: &'a ReceiverId,
    fact: &'a Fact,
}

#[derive(Deserialize)]
struct EntryIn {
    format: u16,
    sequence: u64,
    conversation: u64,
    at: Timestamp,
    control_epoch: u64,
    active: ReceiverId,
    fact: Fact,
}

/// An entry.
pub fn write_entry(entry: &Entry) -> Result<String, RecordError> {
    let Entry { sequence, conversation, at, control_epoch, active, fact } = entry;
    let (sequence, conversation, at, control_epoch) = (*sequence, *conversation, *at, *control_epoch);
    write("entry", &EntryOut { format: FORMAT, sequence, conversation, at, control_epoch, active, fact })
}

/// Reads an entry.
pub fn read_entry(text: &str) -> Result<Entry, RecordError> {
    let EntryIn { format, sequence, conversation, at, control_epoch, active, fact } = read("entry", text)?;
    known("entry", format)?;
    Ok(Entry { sequence, conversation, at, control_epoch, active, fact })
}

#[derive(Serialize, Deserialize)]
struct KeptRecord {
    format: u16,
    #[serde(flatten)]
    answer: AnswerRecord,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
enum AnswerRecord {
    Thread { reply: Reply, message_ids: Vec<u64>, at: Timestamp },
    Body { body: Json },
}

/// An answer that is kept for an idempotency key.
pub fn write_kept(answer: &KeptAnswer) -> Result<String, RecordError> {
    let answer = match answer.clone() {
        KeptAnswer::Thread { reply, message_ids, at } => AnswerRecord::Thread { reply, message_ids, at },
        KeptAnswer::Body(body) => AnswerRecord::Body { body },
    };
    write("kept answer", &KeptRecord { format: FORMAT, answer })
}

/// Reads an answer that was kept for an idempotency key.
pub fn read_kept(text: &str) -> Result<KeptAnswer, RecordError> {
    let KeptRecord { format, answer } = read("kept answer", text)?;
    known("kept answer", format)?;
    Ok(match answer {
        AnswerRecord::Thread { reply, message_ids, at } => KeptAnswer::Thread { reply, message_ids, at },
        AnswerRecord::Body { body } => KeptAnswer::Body(body),
    })
}

/// What a delivery carries. It lives for hours, not years, and its tag names its form: there is no format number.
pub fn write_what(what: &What) -> Result<String, RecordError> {
    write("delivery", what)
}

/// Reads what a delivery carries.
pub fn read_what(text: &str) -> Result<What, RecordError> {
    read("delivery", text)
}

/// How many attempts at a delivery are kept, the last ones.
pub const ATTEMPTS_KEPT: usize = 16;

/// One attempt, for a store that keeps the list by itself.
pub fn write_attempt(attempt: &AttemptRecord) -> Result<String, RecordError> {
    write("attempt", attempt)
}

/// A delivery's attempts, with one more.
pub fn add_attempt(log: Option<&str>, attempt: &AttemptRecord) -> Result<String, RecordError> {
    let mut attempts = read_attempts(log)?;
    attempts.push(attempt.clone());
    let extra = attempts.len().saturating_sub(ATTEMPTS_KEPT);
    write("attempts", &&attempts[extra..])
}

/// Reads a delivery's attempts, oldest first.
pub fn read_attempts(log: Option<&str>) -> Result<Vec<AttemptRecord>, RecordError> {
    log.map_or_else(|| Ok(Vec::new()), |log| read("attempts", log))
}

/// What ECTs call a user: an object, receiver to name.
pub fn write_ect_user_ids(names: &BTreeMap<ReceiverId, String>) -> Result<String, RecordError> {
    write("ECT user ids", names)
}

/// Reads what ECTs call a user.
pub fn read_ect_user_ids(text: &str) -> Result<BTreeMap<ReceiverId, String>, RecordError> {
    read("ECT user ids", text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// The first format, byte for byte as it was first written: it must be read for ever.
    #[test]
    fn the_first_formats_are_read() {
        let thread = r#"{"format":1,"sequence":3,"conversation":1,"control":{"active":"iva","epoch":1},
            "phase":{"state":"bot","since":1763800000000},"last_entry_at":1763800000000,"last_message_at":1763800000000}"#;
        let thread = read_thread(thread).unwrap();
        assert_eq!((thread.sequence(), thread.conversation(), thread.control().epoch), (3, 1, 1));

        let entry = r#"{"format":1,"sequence":1,"conversation":1,"at":1763800000000,"control_epoch":1,"active":"iva",
            "fact":{"message":{"sender":"ceu","body":"{\"text\":\"hi\"}"}}}"#;
        let entry = read_entry(entry).unwrap();
        let Fact::Message(message) = &entry.fact else { unreachable!("a message") };
        assert_eq!(&*message.body.0, r#"{"text":"hi"}"#);

        let kept = r#"{"format":1,"of":"thread","reply":{"reply":"done"},"message_ids":[7],"at":5}"#;
        let kept = read_kept(kept).unwrap();
        assert_eq!(kept, KeptAnswer::Thread { reply: Reply::Done, message_ids: vec![7], at: Timestamp(5) });
        let kept = read_kept(r#"{"format":1,"of":"body","body":"{}"}"#).unwrap();
        assert_eq!(kept, KeptAnswer::Body(Json("{}".into())));
        assert_eq!(
            read_what(r#"{"what":"history","after":1,"through":4}"#).unwrap(),
            What::History { after: 1, through: 4 }
        );
    }

    #[test]
    fn a_newer_format_is_named() {
        let kept = r#"{"format":2,"of":"body","body":"{}"}"#;
        assert_eq!(read_kept(kept), Err(RecordError::Newer { what: "kept answer", found: 2 }));
    }

    #[test]
    fn errors_do_not_quote_what_is_stored() {
        let error = read_entry(r#"{"format":1,"sequence":"my secret"}"#).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
