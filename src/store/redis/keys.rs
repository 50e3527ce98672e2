//! The names of all keys. Those of a partition share its hash tag, so that one script may change them together.

use tract_actors::ports::{Endpoint, FileToken};
use tract_domain::{ClientId, UserId};

/// The whole store: its format, number of partitions, and the key of the handles. Hash.
pub(super) const STORE: &str = "tract:store";
/// Of a store that a migration has begun and not finished: how many parts are done. A field of it.
pub(super) const PARTS_DONE: &str = "parts_done";
/// Who moves the store at this moment. String with a time to live.
pub(super) const MIGRATION: &str = "tract:migration";
/// Which nodes have the store open, and when each was heard of. Hash; who is not heard of for a minute is forgotten.
pub(super) const NODES: &str = "tract:nodes";
/// The configuration's revision and who wrote it. Hash.
pub(super) const CONFIG_HEAD: &str = "{tract:config}:head";
/// The configuration by kind and id. Hash.
pub(super) const DOCUMENTS: &str = "{tract:config}:documents";
/// Endpoints that are being forgotten. Set.
pub(super) const FORGETTING: &str = "{tract:config}:forgetting";

/// What an endpoint received last, by delivery id. Sorted set; trimmed as it grows.
pub(super) fn received(endpoint: &Endpoint) -> String {
    format!("{{tract:to:{}}}:received", endpoint.name())
}

/// Where the answer for an idempotency key is kept: with what its request changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    Partition(Partition),
    Configuration,
}

impl Home {
    fn named(self, what: &str) -> String {
        match self {
            Self::Partition(partition) => partition.named(what),
            Self::Configuration => format!("{{tract:config}}:{what}"),
        }
    }
    /// Answers by idempotency key. Hash.
    pub(super) fn answers(self) -> String {
        self.named("answers")
    }
    /// When those expire. Sorted set.
    pub(super) fn answer_expiries(self) -> String {
        self.named("answer-expiries")
    }
    /// Signed requests with who asked; none in the configuration. Hash.
    pub(super) fn requests(self) -> String {
        self.named("requests")
    }
    /// When those expire. Sorted set.
    pub(super) fn request_expiries(self) -> String {
        self.named("request-expiries")
    }
}

/// The keys of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Partition(pub(super) u16);

impl Partition {
    fn named(self, what: &str) -> String {
        format!("{{tract:{}}}:{what}", self.0)
    }
    fn about(self, what: &str, of: &str) -> String {
        format!("{{tract:{}}}:{what}:{of}", self.0)
    }
    /// The message ids' counter, the last delivery id, the numbers of threads and of deliveries ever, the lease. Hash.
    pub(super) fn head(self) -> String {
        self.named("head")
    }
    /// All threads by the order of their creation. Sorted set.
    pub(super) fn threads(self) -> String {
        self.named("threads")
    }
    /// Threads with a timer by its time. Sorted set.
    pub(super) fn deadlines(self) -> String {
        self.named("deadlines")
    }
    /// How many threads there are of each client, business, state and receiver. Hash.
    pub(super) fn counts(self) -> String {
        self.named("counts")
    }
    /// The names of endpoints that anything of this partition was ever addressed to. Set.
    pub(super) fn endpoints(self) -> String {
        self.named("endpoints")
    }
    /// A thread. Hash.
    pub(super) fn thread(self, user_id: &UserId) -> String {
        self.about("thread", user_id.as_str())
    }
    /// A thread's entries by sequence. Stream.
    pub(super) fn entries(self, user_id: &UserId) -> String {
        self.about("entries", user_id.as_str())
    }
    /// A file that a customer sent: what is known of it, and its pieces by their numbers. Hash.
    pub(super) fn file(self, token: &FileToken) -> String {
        self.about("file", token.expose())
    }
    /// A thread's files by the sequence of the entry that names them. Sorted set.
    pub(super) fn files(self, user_id: &UserId) -> String {
        self.about("files", user_id.as_str())
    }
    /// Files whose entry is not known, each with its thread, by when they came. Sorted set.
    pub(super) fn unnamed(self) -> String {
        self.named("unnamed-files")
    }
    /// A user. Hash.
    pub(super) fn user(self, client: &ClientId, auth_id: &str) -> String {
        format!("{{tract:{}}}:user:{client}:{auth_id}", self.0)
    }
    /// What waits for an endpoint, by id. Sorted set.
    pub(super) fn waiting(self, endpoint: &Endpoint) -> String {
        self.about("waiting", endpoint.name())
    }
    /// The records of what waits. Hash.
    pub(super) fn outbox(self, endpoint: &Endpoint) -> String {
        self.about("outbox", endpoint.name())
    }
    /// An endpoint's dead letters by id. Sorted set.
    pub(super) fn dead(self, endpoint: &Endpoint) -> String {
        self.about("dead", endpoint.name())
    }
    /// The same by when they were given up. Sorted set.
    pub(super) fn died(self, endpoint: &Endpoint) -> String {
        self.about("died", endpoint.name())
    }
    /// The records of dead letters. Hash.
    pub(super) fn letters(self, endpoint: &Endpoint) -> String {
        self.about("letters", endpoint.name())
    }
    /// How the endpoint fares in this partition. Hash.
    pub(super) fn status(self, endpoint: &Endpoint) -> String {
        self.about("status", endpoint.name())
    }
    /// The keys of an endpoint, in the order in which scripts take them.
    pub(super) fn endpoint(self, endpoint: &Endpoint) -> [String; 6] {
        [
            self.waiting(endpoint),
            self.outbox(endpoint),
            self.dead(endpoint),
            self.died(endpoint),
            self.letters(endpoint),
            self.status(endpoint),
        ]
    }
}
