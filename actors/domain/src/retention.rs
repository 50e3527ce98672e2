//! What of a thread is old enough to be forgotten.

use crate::{Entry, Fact, State, Thread, Timestamp};

impl Thread {
    /// Whether its last conversation is over and nothing has happened since, or at that time: then all of it may leave.
    pub fn rests_since(&self, before: Timestamp) -> bool {
        let pending = self.control.offer.is_some() || self.control.request.is_some() || self.control.handoff.is_some();
        self.state() == State::Complete && self.last_entry_at <= before && !pending && self.countdown.is_none()
    }

    /// Whether that conversation of this thread is over.
    fn is_over(&self, conversation: u64) -> bool {
        conversation < self.conversation || self.state() == State::Complete
    }
}

/// How far the first entries of a thread belong to conversations that were over at a time. Take the entries one by one, in
/// sequence.
#[derive(Debug)]
pub struct Past<'a> {
    thread: &'a Thread,
    before: Timestamp,
    /// Everything is.
    rests: bool,
    /// The conversation of the last entry, and whether its end was among the entries.
    conversation: Option<(u64, bool)>,
    last: u64,
    through: u64,
}

impl<'a> Past<'a> {
    /// Of this thread, at this time.
    pub fn new(thread: &'a Thread, before: Timestamp) -> Self {
        let rests = thread.rests_since(before);
        Self { thread, before, rests, conversation: None, last: 0, through: 0 }
    }

    /// Takes the next entry. False if neither it nor anything after it is past.
    pub fn take(&mut self, entry: &Entry) -> bool {
        let Entry { sequence, conversation, at, .. } = entry;
        if *at > self.before {
            return false;
        }
        // When the next one began, the one before was over.
        if self.conversation.is_some_and(|(before, _)| before < *conversation) {
            self.through = self.last;
        }
        if !self.thread.is_over(*conversation) {
            return false;
        }
        let ended = self.rests
            || self.conversation.is_some_and(|(same, ended)| ended && same == *conversation)
            || matches!(&entry.fact, Fact::State(change) if change.to == State::Complete);
        self.conversation = Some((*conversation, ended));
        self.last = *sequence;
        if ended {
            self.through = *sequence;
        }
        true
    }

    /// The last sequence of what is past; 0 if nothing is.
    pub fn through(&self) -> u64 {
        self.through
    }
}
