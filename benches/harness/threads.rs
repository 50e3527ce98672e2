//! Threads for benches below the edge: made by the domain itself, committed as the shell would.

use std::sync::Arc;
use tract_actors::ports::{Commit, DeadlineChange};
use tract_domain::{
    Body, Command, Context, Entry, Policy, Receiver, ReceiverId, ReceiverKind, Sender, Thread, Timestamp, UserId,
};
use uuid::Uuid;

/// 2025-11-22.
pub(crate) const NOW: Timestamp = Timestamp(1_763_800_000_000);

/// A client whose only receiver is the agent tool that holds all threads.
pub(crate) fn policy(receiver: &str) -> Policy {
    let id = ReceiverId::new(receiver).unwrap();
    Policy {
        receivers: vec![Receiver {
            id: id.clone(),
            kind: ReceiverKind::Ect,
            name: receiver.to_owned(),
            healthy: true,
            may_take: false,
            may_request: false,
            may_pass_to_any: true,
            requires_received: false,
            only_while_active: false,
        }],
        default_receiver: id.clone(),
        handoff_receiver: Some(id),
        fallback: Vec::new(),
        handoff_timeout_ms: 0,
        idle_timeout_ms: 480_000,
        human_assistance: true,
        bot_break_message: tract::hsl::text_element("Sorry, I did not get that."),
    }
}

/// What the customer says.
pub(crate) fn asks() -> Command {
    Command::Ceu { body: text("Hello, where is my parcel?"), metadata: None }
}

/// What the agent tool says.
pub(crate) fn answers(receiver: &str) -> Command {
    Command::Send {
        by: ReceiverId::new(receiver).unwrap(),
        sender: Sender::Ect,
        body: text("Your parcel left the depot this morning and arrives tomorrow."),
        metadata: None,
        agent: None,
        control_epoch: None,
    }
}

fn text(text: &str) -> Body {
    tract::hsl::text_element(text)
}

/// The customer's question and `messages - 1` answers: the thread and its entries.
pub(crate) fn conversation(mut thread: Thread, policy: &Policy, messages: usize) -> (Thread, Vec<Entry>) {
    let (asks, answers) = (asks(), answers(policy.default_receiver.as_str()));
    let mut entries = Vec::new();
    for n in 0..messages {
        let command = if n == 0 { &asks } else { &answers };
        let done = thread.decide(command, Context { now: NOW, policy }).unwrap();
        entries.extend(done.entries);
        thread = done.thread;
    }
    (thread, entries)
}

/// The commit of what a thread has become.
pub(crate) fn commit(user_id: &UserId, expected_version: u64, thread: Thread, entries: Vec<Entry>) -> Commit {
    Commit {
        commit_id: Uuid::new_v4(),
        user_id: user_id.clone(),
        expected_version,
        expected_commit: None,
        thread: Arc::new(thread),
        entries,
        outbox: Vec::new(),
        settles: None,
        deadline: DeadlineChange::Keep,
        user_details: None,
        idempotency: None,
        now: NOW,
    }
}
