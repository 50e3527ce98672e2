//! What was asked of one thread, what was answered, and what its feed says happened.

use serde_json::Value;

/// A time in the test: microseconds since it began, by one clock for all callers.
pub(super) type Moment = u64;

/// What a caller wants of the thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// The customer writes.
    Say,
    /// A receiver sends.
    Send,
    /// A control operation, with its target and the offer that it answers, where it has them.
    Control { op: &'static str, to: Option<String>, offer_id: Option<String> },
    /// To know where the thread stands.
    Look,
}

/// What the caller was told in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// The message is in. The channel side is not told its sequence and epoch.
    Said { message_id: u64, sequence: Option<u64>, epoch: Option<u64> },
    /// The control operation was carried out: who holds the thread now.
    Holds { active: String, epoch: u64, offer_id: Option<String> },
    /// Where the thread stands.
    Stands { sequence: u64, state: String, active: String, epoch: u64, pending: Option<String> },
    /// It was refused, with this code; and who holds the thread, if that was said.
    Refused { code: String, holder: Option<(String, u64)> },
    /// Nothing was done.
    NotDone,
    /// It may have been done.
    Unknown,
}

/// One command of one caller, with all its repetitions under the same `Idempotency-Key`.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// Unique in the test, and visible ASCII: the `Idempotency-Key`. It is the words of a message and `metadata.call` of a control operation.
    pub(super) id: String,
    /// The receiver that asks; none for the customer.
    pub(super) by: Option<String>,
    pub(super) wish: Wish,
    /// The fencing token that was given.
    pub(super) epoch: Option<u64>,
    /// When it was first asked.
    pub(super) begun: Moment,
    /// When that was asked which the answer answers.
    pub(super) asked_last: Moment,
    pub(super) ended: Moment,
    /// An earlier asking was never answered: it may have been done, whatever was told in the end.
    pub(super) doubtful: bool,
    pub(super) told: Told,
}

/// One entry of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) conversation: u64,
    /// The fencing token once this entry is in.
    pub(super) epoch: u64,
    /// The call that it tells of, where it tells of one.
    pub(super) call: Option<String>,
    pub(super) fact: Fact,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    Message { id: u64, sender: String, active: String },
    State { from: String, to: String },
    Control { action: String, cause: String, from: String, to: String, by: Option<String>, offer_id: Option<String> },
    Event,
}

impl Entry {
    /// Reads an entry as the feed shows it.
    pub(super) fn read(entry: &Value) -> Self {
        let text = |key: &str| entry[key].as_str().map(str::to_owned);
        let said = |key: &str| text(key).unwrap_or_else(|| panic!("no {key}: {entry}"));
        let number = |key: &str| entry[key].as_u64().unwrap_or_else(|| panic!("no {key}: {entry}"));
        let (fact, call) = match &*said("kind") {
            "message" => {
                let active = entry["metadata"]["active"].as_str().expect("a message says who was active").to_owned();
                (Fact::Message { id: number("message_id"), sender: said("sender"), active }, Some(words(entry)))
            }
            "state" => (Fact::State { from: said("from"), to: said("to") }, None),
            "control" => {
                let (action, cause, from, to) = (said("action"), said("cause"), said("from"), said("to"));
                let fact = Fact::Control { action, cause, from, to, by: text("by"), offer_id: text("offer_id") };
                (fact, entry["metadata"]["call"].as_str().map(str::to_owned))
            }
            _ => (Fact::Event, None),
        };
        let conversation = said("conversation_number").parse().expect("conversations are numbered");
        Self { sequence: number("sequence"), conversation, epoch: number("control_epoch"), call, fact }
    }
}

/// What a message says.
pub(super) fn words(message: &Value) -> String {
    let body: Value = serde_json::from_str(message["message_body"].as_str().unwrap_or("null")).unwrap_or_default();
    body["text"].as_str().unwrap_or_default().to_owned()
}
