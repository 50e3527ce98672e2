//! What a store holds, in a form that no store has to itself; and what a part of a store adds up to.

use crate::store::handle::partition_in;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use tract_actors::ports::{AttemptRecord, KeptAnswer, What};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

/// A part of a store, in the order in which parts are moved: what others refer to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Documents, endpoints, and the counter of deliveries.
    Config,
    /// One partition's threads, each followed by its entries; their users; the counters; files.
    Partition(u16),
    /// Deliveries that wait.
    Waiting,
    /// Dead letters.
    Letters,
    /// What was received last.
    Received,
    /// Answers for idempotency keys.
    Answers,
    /// Signed requests.
    Requests,
}

impl Part {
    /// All parts of a store with so many partitions.
    pub fn all(partitions: u16) -> Vec<Self> {
        let rest = [Self::Waiting, Self::Letters, Self::Received, Self::Answers, Self::Requests];
        std::iter::once(Self::Config).chain((0..partitions).map(Self::Partition)).chain(rest).collect()
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config => f.write_str("configuration"),
            Self::Partition(n) => write!(f, "partition {n}"),
            Self::Waiting => f.write_str("waiting deliveries"),
            Self::Letters => f.write_str("dead letters"),
            Self::Received => f.write_str("received deliveries"),
            Self::Answers => f.write_str("kept answers"),
            Self::Requests => f.write_str("signed requests"),
        }
    }
}

/// One thing that a store holds.
#[derive(Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A document of the configuration.
    Document {
        /// What it is.
        of: String,
        /// Which one.
        id: String,
        /// JSON.
        body: String,
    },
    /// The configuration's revision.
    Revision {
        /// One more with each write.
        revision: u64,
    },
    /// The last delivery's rank.
    Deliveries {
        /// Ranks go on above it.
        #[serde(skip)]
        last: u64,
    },
    /// An endpoint; how much waits for it follows from its deliveries.
    Endpoint {
        /// Its name.
        name: String,
        /// In milliseconds.
        last_success_at: Option<i64>,
        /// For a person.
        last_error: Option<String>,
    },
    /// A thread.
    Thread(ThreadRecord),
    /// An entry of a thread that came before it.
    Entry {
        /// Of which thread.
        user_id: String,
        /// Its sequence.
        sequence: u64,
        /// Its message id.
        message_id: u64,
        /// Of a commit's first entry: the commit.
        commit_id: Option<Uuid>,
        /// Its stored form.
        entry: String,
    },
    /// A user.
    User {
        /// Whose.
        client: String,
        /// The client's own id.
        auth_id: String,
        /// One more with each write.
        version: u64,
        /// The last write.
        commit_id: Option<Uuid>,
        /// JSON.
        profile: String,
        /// JSON.
        user_details: Option<String>,
        /// What ECTs call the user.
        ect_user_ids: BTreeMap<String, String>,
    },
    /// The last value of a partition's counter of message ids.
    Counter {
        /// Which partition.
        partition: u16,
        /// The value.
        last: u64,
    },
    /// How far the threads had counted that left a partition.
    Origin {
        /// Which partition.
        partition: u16,
        /// Versions begin here.
        version: u64,
        /// The last sequence.
        sequence: u64,
        /// The last epoch.
        control_epoch: u64,
        /// The last conversation.
        conversation: u64,
    },
    /// A file that a customer sent; its pieces follow.
    File {
        /// Its token.
        token: String,
        /// Of which thread.
        user_id: String,
        /// The entry that names it, if that is known.
        sequence: Option<u64>,
        /// What it was found to be.
        content_type: String,
        /// What it is to be called.
        name: String,
        /// In bytes.
        size: u64,
        /// In milliseconds.
        at: i64,
    },
    /// A piece of a file.
    Piece {
        /// The file's token.
        token: String,
        /// Which piece, from 0.
        number: u64,
        /// What it holds.
        #[serde(serialize_with = "as_digest")]
        bytes: Vec<u8>,
    },
    /// A delivery that waits, was received, or is a dead letter, as its part says.
    Delivery(DeliveryRecord),
    /// An answer that is kept for an idempotency key.
    Answer {
        /// The key.
        key: [u8; 32],
        /// What it was used for.
        request: [u8; 32],
        /// In milliseconds.
        expires_at: i64,
        /// The answer, with its message ids.
        #[serde(serialize_with = "as_stored")]
        answer: KeptAnswer,
    },
    /// A signed request.
    Request {
        /// Its key.
        key: [u8; 32],
        /// In milliseconds.
        until: i64,
    },
}

/// A thread.
#[derive(Clone, Serialize)]
pub struct ThreadRecord {
    /// Its place in the order of creation within its partition. Stores number in their own ways.
    #[serde(skip)]
    pub number: u64,
    /// The public handle.
    pub user_id: String,
    /// The client.
    pub client: String,
    /// The business.
    pub business: u64,
    /// The client's own id of the user.
    pub auth_id: String,
    /// One more with each commit.
    pub version: u64,
    /// The last entry's.
    pub sequence: u64,
    /// The state's name.
    pub state: String,
    /// Who holds it.
    pub active: String,
    /// When its timer fires, in milliseconds.
    pub deadline: Option<i64>,
    /// The last commit.
    pub commit_id: Option<Uuid>,
    /// Its stored form.
    pub snapshot: String,
}

/// A delivery.
#[derive(Clone, Serialize)]
pub struct DeliveryRecord {
    /// Where to.
    pub endpoint: String,
    /// Its place in the order of deliveries to this endpoint within its thread's partition: increases. Stores number in
    /// their own ways.
    #[serde(skip)]
    pub rank: u64,
    /// Of a message of a range: which.
    pub of: u64,
    /// Of which thread.
    pub user_id: String,
    /// The same for every attempt.
    pub webhook_id: String,
    /// What.
    pub what: What,
    /// Of which entry.
    pub sequence: u64,
    /// The epoch of the hand-off that a 2xx answers.
    pub answers_handoff: Option<u64>,
    /// In milliseconds, as all times here.
    pub created_at: i64,
    /// Failed attempts.
    pub attempts: u32,
    /// The first of them.
    pub first_attempt_at: Option<i64>,
    /// Not before this.
    pub due_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// It was received, and the endpoint said an error about it.
    pub rejected: bool,
    /// It was a dead letter once.
    pub replayed: bool,
    /// The last attempts.
    pub log: Vec<AttemptRecord>,
}

impl DeliveryRecord {
    /// A dead letter without what it had to do with its schedule, which nobody keeps.
    pub fn into_letter(self) -> Self {
        let due_at = self.created_at;
        Self { answers_handoff: None, attempts: 0, first_attempt_at: None, due_at, replayed: false, ..self }
    }
    /// What was received, likewise.
    pub fn into_received(self) -> Self {
        let due_at = self.created_at;
        Self { answers_handoff: None, attempts: 0, first_attempt_at: None, due_at, ..self }
    }
}

fn as_stored<S: serde::Serializer>(answer: &KeptAnswer, serializer: S) -> Result<S::Ok, S::Error> {
    let form = crate::store::record::write_kept(answer).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(&form)
}

fn as_digest<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{} {:032x}", bytes.len(), xxh3_128(bytes)))
}

/// Pieces of files on one page: a page is held in memory as a whole, and so are a few that are read ahead.
const PIECES: usize = 4;

/// Whether there is enough on a page, which may hold so many records.
pub fn is_full(page: &[Record], most: usize) -> bool {
    let is_piece = |record: &&Record| matches!(record, Record::Piece { .. });
    page.len() >= most || page.iter().rev().take_while(is_piece).count() >= PIECES
}

impl Record {
    /// What it is, in the plural, for a person.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Document { .. } => "documents",
            Self::Revision { .. } => "revisions",
            Self::Deliveries { .. } | Self::Counter { .. } => "counters",
            Self::Endpoint { .. } => "endpoints",
            Self::Thread(_) => "threads",
            Self::Entry { .. } => "entries",
            Self::User { .. } => "users",
            Self::Origin { .. } => "origins",
            Self::File { .. } => "files",
            Self::Piece { .. } => "pieces of files",
            Self::Delivery(_) => "deliveries",
            Self::Answer { .. } => "answers",
            Self::Request { .. } => "requests",
        }
    }
}

/// What a part of a store adds up to, in whatever order it is read: for each kind how many there are, and the sum of their
/// digests. Deliveries to one endpoint within a partition have to come in their order, which is part of it.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    sums: BTreeMap<&'static str, (u64, u128)>,
    /// Of each endpoint and partition: the last rank, and how many ranks there were.
    places: HashMap<(String, Option<u16>), (u64, u64)>,
}

impl Survey {
    /// Adds a record.
    pub fn add(&mut self, record: &Record) {
        let mut place = 0;
        if let Record::Delivery(delivery) = record {
            let home = (delivery.endpoint.clone(), partition_in(&delivery.user_id));
            let (last, count) = self.places.entry(home).or_default();
            if *last != delivery.rank {
                (*last, *count) = (delivery.rank, *count + 1);
            }
            place = *count;
        }
        // What cannot be written as JSON there is not: all keys are texts.
        let form = serde_json::to_vec(&(place, record)).unwrap_or_default();
        let (count, sum) = self.sums.entry(record.kind()).or_default();
        *count += 1;
        *sum = sum.wrapping_add(xxh3_128(&form));
    }

    /// How many records there are.
    pub fn count(&self) -> u64 {
        self.sums.values().map(|(count, _)| count).sum()
    }

    /// Where the two differ, for a person.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let kinds: std::collections::BTreeSet<_> = self.sums.keys().chain(other.sums.keys()).collect();
        let mut differences = Vec::new();
        for kind in kinds {
            let of = |survey: &Self| survey.sums.get(kind).copied().unwrap_or_default();
            let ((here, sum), (there, other_sum)) = (of(self), of(other));
            if here != there {
                differences.push(format!("{here} {kind} in the source and {there} in the destination"));
            } else if sum != other_sum {
                differences.push(format!("{here} {kind} that are not the same in both"));
            }
        }
        differences
    }
}
