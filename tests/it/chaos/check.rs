//! Whether one order of its calls explains a thread's history.
//!
//! The feed gives the order of what was done, so only three things remain to be shown. The feed itself is what the contract
//! allows. Each call that was acknowledged is in it, once and as it was told; what was refused is not; what is doubtful is
//! in it at most once. And time agrees: a call that had ended before another began comes before it, and whatever was told
//! without a change was true at some moment between asking and answer, never of a moment before one that was already told.

use super::{
    history::{Call, Entry, Moment, Told, Wish},
    model::Standing,
};
use std::collections::BTreeMap;

/// A call's place in the order.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// It brought about the entry of this sequence.
    Did(u64),
    /// It was told how things stood.
    Saw,
}

/// A call with its place, from when to when it may have been carried out.
struct Placed<'c> {
    call: &'c Call,
    place: Place,
    begun: Moment,
    ended: Moment,
}

/// What is wrong with the history of a thread; nothing, if one order explains it.
pub(super) fn faults(default_receiver: &str, feed: &[Entry], calls: &[Call]) -> Vec<String> {
    let mut faults = Vec::new();
    let standings = replay(default_receiver, feed, &mut faults);
    if standings.len() <= feed.len() {
        // Nothing can be said of what comes after an entry that cannot be.
        return faults;
    }
    let placed = place(feed, calls, &standings, &mut faults);
    order(placed, &standings, &mut faults);
    faults
}

/// The same of a thread whose newest entries may have been lost, with the acknowledged messages that are missing: what was
/// told of lost entries agrees with no order. There is no gap all the same, nothing is doubled, and nobody is told otherwise.
pub(super) fn faults_but_loss(default_receiver: &str, feed: &[Entry], calls: &[Call]) -> (Vec<String>, Vec<String>) {
    let mut faults = Vec::new();
    let standings = replay(default_receiver, feed, &mut faults);
    if standings.len() > feed.len() {
        place(feed, calls, &standings, &mut faults);
    }
    faults.into_iter().partition(|fault| !fault.starts_with(LOST))
}

/// How the fault begins that an acknowledged message is missing.
const LOST: &str = "acknowledged and lost";

/// How things stood before the first entry and after each.
fn replay(default_receiver: &str, feed: &[Entry], faults: &mut Vec<String>) -> Vec<Standing> {
    let mut standings = vec![Standing::new(default_receiver)];
    for (entry, expected) in feed.iter().zip(1..) {
        let mut next = standings[standings.len() - 1].clone();
        let taken = if entry.sequence == expected { next.take(entry) } else { Err("a gap".to_owned()) };
        if let Err(why) = taken {
            faults.push(format!("entry {expected} cannot be: {why}: {entry:?}"));
            return standings;
        }
        standings.push(next);
    }
    standings
}

/// Finds each call in the feed.
fn place<'c>(feed: &[Entry], calls: &'c [Call], standings: &[Standing], faults: &mut Vec<String>) -> Vec<Placed<'c>> {
    let mut found: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in feed {
        if let Some(call) = &entry.call {
            found.entry(call).or_default().push(entry);
        }
    }
    let mut placed = Vec::new();
    for call in calls {
        let entries = found.remove(&*call.id).unwrap_or_default();
        let mut fault = |what: &str| faults.push(format!("{what}: {call:?}: {entries:?}"));
        let entry = match entries[..] {
            [] => None,
            [entry] => Some(entry),
            _ => {
                fault("doubled");
                continue;
            }
        };
        if let Some(entry) = entry
            && let Err(why) = standings[before(entry)].allows(call, entry)
        {
            fault(&format!("it could not be done there: {why}"));
        }
        let saw = |begun| Placed { call, place: Place::Saw, begun, ended: call.ended };
        let did = |entry: &Entry, ended| Placed { call, place: Place::Did(entry.sequence), begun: call.begun, ended };
        match (&call.told, entry) {
            (Told::Said { .. } | Told::Holds { .. }, Some(entry)) => {
                if !agrees(&call.told, entry, &standings[before(entry) + 1]) {
                    fault("it was told otherwise");
                }
                placed.push(did(entry, call.ended));
            }
            (Told::Said { .. }, None) => fault(LOST),
            // What a repetition is told may have been so when it was first asked.
            (Told::Holds { .. } | Told::Stands { .. }, _) => placed.push(saw(call.begun)),
            (Told::NotDone, Some(_)) if !call.doubtful => fault("done, although it was told that it was not"),
            (Told::Refused { .. }, Some(_)) if !call.doubtful => fault("done, although it was refused"),
            (Told::Refused { .. } | Told::NotDone | Told::Unknown, entry) => {
                placed.extend(entry.map(|entry| did(entry, Moment::MAX)));
                if matches!(call.told, Told::Refused { .. }) {
                    placed.push(saw(call.asked_last));
                }
            }
        }
    }
    faults.extend(found.values().map(|entries| format!("nobody asked for this: {entries:?}")));
    placed
}

/// How many entries there are before this one.
fn before(entry: &Entry) -> usize {
    usize::try_from(entry.sequence - 1).expect("a feed fits into memory")
}

/// Whether the answer to a call is what its entry says.
fn agrees(told: &Told, entry: &Entry, after: &Standing) -> bool {
    use super::history::Fact;
    match (told, &entry.fact) {
        (Told::Said { message_id, sequence, epoch }, Fact::Message { id, .. }) => {
            message_id == id
                && sequence.is_none_or(|sequence| sequence == entry.sequence)
                && epoch.is_none_or(|epoch| epoch == entry.epoch)
        }
        (Told::Holds { active, epoch, offer_id: made }, Fact::Control { action, offer_id, .. }) => {
            let made_there = if action == "offer" { offer_id.as_ref() } else { None };
            *active == after.active && *epoch == after.epoch && made.as_ref() == made_there
        }
        _ => false,
    }
}

/// Gives each call that only saw something the earliest place that fits, and compares all with time.
fn order(mut placed: Vec<Placed<'_>>, standings: &[Standing], faults: &mut Vec<String>) {
    placed.sort_by_key(|placed| placed.begun);
    let last = (standings.len() - 1) as u64;
    // What was begun after an answer comes after it: of all that begin from here on, the first.
    let mut first_after = vec![(Moment::MAX, last + 1)];
    for placed in placed.iter().rev() {
        let Place::Did(sequence) = placed.place else { continue };
        let first = first_after[first_after.len() - 1].1.min(sequence);
        first_after.push((placed.begun, first));
    }
    first_after.reverse();
    let bound = |ended: Moment| {
        first_after[first_after.partition_point(|(begun, _)| *begun <= ended).min(first_after.len() - 1)].1 - 1
    };

    // By when they ended, with the number of entries that were there then.
    let mut ended: BTreeMap<Moment, u64> = BTreeMap::new();
    let mut floor = 0;
    for Placed { call, place, begun, ended: end } in &placed {
        let later = ended.split_off(begun);
        floor = ended.values().copied().max().unwrap_or(0).max(floor);
        ended = later;
        let at = match place {
            Place::Did(sequence) if *sequence > floor => *sequence,
            Place::Did(sequence) => {
                faults
                    .push(format!("{sequence} comes before {floor}, which was answered before it was asked: {call:?}"));
                continue;
            }
            Place::Saw => {
                let ceiling = bound(*end);
                let true_at = |at: &u64| standings[usize::try_from(*at).expect("in memory")].explains(call, *at);
                let Some(at) = (floor..=ceiling).find(true_at) else {
                    faults.push(format!("never true between entries {floor} and {ceiling}: {call:?}"));
                    continue;
                };
                at
            }
        };
        let there = ended.entry(*end).or_default();
        *there = at.max(*there);
    }
}

/// How many calls were carried out, seen, refused, and left in doubt: what a history was made of.
pub(super) fn tally(calls: &[Call]) -> String {
    let count = |of: &dyn Fn(&Call) -> bool| calls.iter().filter(|call| of(call)).count();
    format!(
        "{} calls: {} acknowledged, {} refused, {} reads, {} in doubt at some time, {} never answered",
        calls.len(),
        count(&|call| matches!(call.told, Told::Said { .. } | Told::Holds { .. })),
        count(&|call| matches!(call.told, Told::Refused { .. })),
        count(&|call| call.wish == Wish::Look),
        count(&|call| call.doubtful),
        count(&|call| matches!(call.told, Told::Unknown | Told::NotDone)),
    )
}
