//! The scripts, and calls of them.

use redis::{Cmd, Pipeline};
use std::sync::LazyLock;
use uuid::Uuid;

/// The scripts: one for each atomic step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    Commit,
    WriteUser,
    KeepEctUserId,
    Keep,
    RememberRequest,
    Forget,
    ForgetLetters,
    ForgetEndpoint,
    TrimFeed,
    Leave,
    UpdateOutbox,
    NoteReceived,
    Bury,
    Replay,
    WriteDocuments,
    ForgetReceived,
    EndForgetting,
    Ping,
    Lease,
    Release,
    Beat,
}

const SHARED: &str = include_str!("scripts/shared.lua");

const SOURCES: [&str; 21] = [
    include_str!("scripts/commit.lua"),
    include_str!("scripts/write_user.lua"),
    include_str!("scripts/keep_ect_user_id.lua"),
    include_str!("scripts/keep.lua"),
    include_str!("scripts/remember_request.lua"),
    include_str!("scripts/forget.lua"),
    include_str!("scripts/forget_letters.lua"),
    include_str!("scripts/forget_endpoint.lua"),
    include_str!("scripts/trim_feed.lua"),
    include_str!("scripts/leave.lua"),
    include_str!("scripts/update_outbox.lua"),
    include_str!("scripts/note_received.lua"),
    include_str!("scripts/bury.lua"),
    include_str!("scripts/replay.lua"),
    include_str!("scripts/write_documents.lua"),
    include_str!("scripts/forget_received.lua"),
    include_str!("scripts/end_forgetting.lua"),
    include_str!("scripts/ping.lua"),
    include_str!("scripts/lease.lua"),
    include_str!("scripts/release.lua"),
    include_str!("scripts/beat.lua"),
];

/// The first line makes Redis refuse a script as a whole when there is no memory for what it would write, instead of
/// stopping it halfway.
static SCRIPTS: LazyLock<Vec<redis::Script>> =
    LazyLock::new(|| SOURCES.iter().map(|source| redis::Script::new(&format!("#!lua\n{SHARED}\n{source}"))).collect());

/// A call of a script.
#[derive(Debug, Clone)]
pub(super) struct Call {
    script: Script,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn new(script: Script) -> Self {
        Self { script, keys: Vec::new(), arguments: Vec::new() }
    }
    /// Adds a key.
    pub(super) fn key(&mut self, key: impl Into<String>) -> &mut Self {
        self.keys.push(key.into());
        self
    }
    /// Adds keys.
    pub(super) fn keys(&mut self, keys: impl IntoIterator<Item = String>) -> &mut Self {
        self.keys.extend(keys);
        self
    }
    /// Adds an argument.
    pub(super) fn text(&mut self, text: impl Into<Vec<u8>>) -> &mut Self {
        self.arguments.push(text.into());
        self
    }
    /// Adds a number as an argument.
    pub(super) fn number(&mut self, number: impl ToString) -> &mut Self {
        self.text(number.to_string())
    }
    /// Adds the id of a step as an argument; empty if there is none.
    pub(super) fn id(&mut self, id: impl Into<Option<Uuid>>) -> &mut Self {
        self.text(id.into().map_or_else(String::new, |id| id.simple().to_string()))
    }
    /// The key that says which server carries it out; all others are in the same slot.
    pub(super) fn first_key(&self) -> Option<&str> {
        self.keys.first().map(String::as_str)
    }
    /// Adds it to what is sent together.
    pub(super) fn add_to(&self, pipeline: &mut Pipeline) {
        pipeline.add_command(self.command());
    }
    pub(super) fn command(&self) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        let hash = SCRIPTS.get(self.script as usize).map_or("", redis::Script::get_hash);
        command.arg(hash).arg(self.keys.len()).arg(&self.keys).arg(&self.arguments);
        command
    }
}

/// What makes the server know all scripts.
pub(super) fn load_all() -> Pipeline {
    let mut pipeline = redis::pipe();
    for source in SOURCES {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(format!("#!lua\n{SHARED}\n{source}"));
    }
    pipeline
}
