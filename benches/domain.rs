//! What a command costs in the state machine alone: no store, no JSON, no network.
//!
//! `cargo bench --bench domain`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on ends")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod harness;

use criterion::{Criterion, criterion_group, criterion_main};
use harness::threads::{NOW, answers, asks, conversation, policy};
use std::hint::black_box;
use tract::store::record;
use tract_domain::{Command, Context, ControlOp, ControlRequest, Policy, Receiver, ReceiverId, Thread};

fn benches(criterion: &mut Criterion) {
    let policy = two_tools();
    let ctx = Context { now: NOW, policy: &policy };
    let fresh = Thread::open(&policy);
    let (open, _) = conversation(fresh.clone(), &policy, 10);
    // Control has moved often enough that all of the history is there.
    let mut moved = open.clone();
    for n in 0..40 {
        let by = if n % 2 == 0 { "bench" } else { "other" };
        let to = if n % 2 == 0 { "other" } else { "bench" };
        moved = moved.decide(&pass(by, to), ctx).unwrap().thread;
    }

    let mut group = criterion.benchmark_group("decide");
    for (name, thread, command) in [
        ("a customer's first message", &fresh, asks()),
        ("a customer's message", &open, asks()),
        ("message/send", &open, answers("bench")),
        ("message/send after 40 passes", &moved, answers("bench")),
        ("pass", &open, pass("bench", "other")),
        ("message/send refused", &open, answers("other")),
    ] {
        assert_eq!(thread.decide(&command, ctx).is_ok(), !name.ends_with("refused"), "{name}");
        group.bench_function(name, |b| b.iter(|| black_box(thread).decide(black_box(&command), ctx)));
    }
    group.bench_function("settle, nothing due", |b| b.iter(|| black_box(&open).settle(ctx)));
    group.finish();

    let mut group = criterion.benchmark_group("snapshot");
    for (name, thread) in [("10 messages", &open), ("after 40 passes", &moved)] {
        let text = record::write_thread(thread).unwrap();
        group.bench_function(format!("write, {name}, {} bytes", text.len()), |b| {
            b.iter(|| record::write_thread(black_box(thread)));
        });
        group.bench_function(format!("read, {name}"), |b| b.iter(|| record::read_thread(black_box(&text))));
    }
    group.finish();
}

/// A client with a second agent tool.
fn two_tools() -> Policy {
    let mut policy = policy("bench");
    let other = Receiver { id: ReceiverId::new("other").unwrap(), ..policy.receivers[0].clone() };
    policy.receivers.push(other);
    policy
}

fn pass(by: &str, to: &str) -> Command {
    Command::Control(ControlRequest {
        by: ReceiverId::new(by).unwrap(),
        op: ControlOp::Pass,
        receiver: Some(ReceiverId::new(to).unwrap()),
        control_epoch: None,
        deadline_ms: None,
        offer_id: None,
        metadata: None,
    })
}

criterion_group!(domain, benches);
criterion_main!(domain);
