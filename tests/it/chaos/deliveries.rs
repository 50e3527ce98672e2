//! Whether every webhook came that was to come, first deliveries in order (section 8).

use super::{
    desk::{Desk, Noted, TOPICS},
    history::{Call, Entry, Fact},
    scene::{Scene, Thread},
};
use std::collections::HashMap;

/// The sequences that a desk is to hear of, by topic.
fn expected<'f>(desk: &str, feed: &'f [Entry], calls: &[Call]) -> HashMap<&'f str, Vec<u64>> {
    let callers: HashMap<&str, Option<&str>> = calls.iter().map(|call| (&*call.id, call.by.as_deref())).collect();
    let mut expected: HashMap<&str, Vec<u64>> = HashMap::new();
    for entry in feed {
        let topic = match &entry.fact {
            // Whoever sent it does not hear of it.
            Fact::Message { .. } => {
                let by = entry.call.as_deref().and_then(|call| callers.get(call).copied().flatten());
                (by != Some(desk)).then_some("message.receive")
            }
            Fact::Control { action, from, to, .. } => match &**action {
                "pass" => Some("thread_control.pass"),
                "take" => Some("thread_control.take"),
                "offer" => (to == desk).then_some("thread_control.offer"),
                "decline" => (from == desk).then_some("thread_control.decline"),
                "expire" => (from == desk || to == desk).then_some("thread_control.expire"),
                _ => None,
            },
            Fact::State { .. } | Fact::Event => None,
        };
        if let Some(topic) = topic {
            expected.entry(topic).or_default().push(entry.sequence);
        }
    }
    expected
}

/// How many webhooks a desk is to get for this thread.
pub(super) fn count(desk: &Desk, feed: &[Entry], calls: &[Call]) -> usize {
    expected(desk.name, feed, calls).values().map(Vec::len).sum()
}

/// What a desk was to hear of this thread and did not: topics and sequences.
pub(super) fn missing(desk: &str, noted: &Noted, thread: &Thread, feed: &[Entry], calls: &[Call]) -> Vec<String> {
    let mut missing = Vec::new();
    for (topic, due) in expected(desk, feed, calls) {
        let came = noted.firsts.get(&(topic.to_owned(), thread.user_id.clone()));
        let absent = due.iter().filter(|sequence| !came.is_some_and(|came| came.contains(sequence)));
        missing.extend(absent.map(|sequence| format!("{desk} misses {topic} {sequence} of {}", thread.auth_id)));
    }
    missing
}

/// What is wrong with what came of a thread.
pub(super) fn faults(scene: &Scene, thread: &Thread, feed: &[Entry], calls: &[Call]) -> Vec<String> {
    let mut faults = Vec::new();
    for desk in &scene.desks {
        let expected = expected(desk.name, feed, calls);
        let noted = desk.noted();
        for topic in TOPICS {
            let came = noted.firsts.get(&(topic.to_owned(), thread.user_id.clone()));
            let (came, due) = (came.cloned().unwrap_or_default(), expected.get(topic).cloned().unwrap_or_default());
            if came == due {
                continue;
            }
            let missing: Vec<_> = due.iter().filter(|sequence| !came.contains(sequence)).collect();
            let surplus: Vec<_> = came.iter().filter(|sequence| !due.contains(sequence)).collect();
            let late = came.windows(2).filter(|pair| pair[0] >= pair[1]).collect::<Vec<_>>();
            let what = format!("missing {missing:?}, surplus {surplus:?}, out of order {late:?}");
            faults.push(format!("{}, {topic}, {}: {what}", desk.name, thread.auth_id));
        }
    }
    faults
}
