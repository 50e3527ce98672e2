//! The steps of deliveries: what became of them, dead letters, and sending those again.

use super::{
    fault::{Fault, read},
    form::DeliveryForm,
    keys::{self, Partition},
    script::{Call, Script},
    thread_step::Place,
    writer::{Ids, Step, Turn},
};
use crate::store::record::{self, ATTEMPTS_KEPT};
use ::redis::Value;
use std::collections::BTreeMap;
use tract_actors::ports::{AttemptRecord, Delivery, End, Endpoint, OutboxChange, OutboxUpdate};
use tract_domain::Timestamp;

/// How many of an endpoint's received deliveries are kept at least; at twice as many the older half goes.
const RECEIVED_KEPT: usize = 1_000;

/// The arguments that say one change.
type Arguments = Vec<Vec<u8>>;

/// What became of deliveries. What was received is noted in a second step, so that a crash in between costs a line of what
/// is shown, nothing else.
pub(super) struct UpdateOutbox {
    place: Place,
    /// By endpoint and partition, each with its changes in order.
    groups: Vec<((Endpoint, Partition), Vec<Arguments>)>,
    noting: bool,
}

impl UpdateOutbox {
    pub(super) fn new(place: Place, updates: Vec<OutboxUpdate>) -> Result<Self, Fault> {
        let mut groups: BTreeMap<(Endpoint, Partition), Vec<Arguments>> = BTreeMap::new();
        for OutboxUpdate { endpoint, id, change } in updates {
            let group = groups.entry((endpoint, place.home_of_delivery(id))).or_default();
            group.push(change_arguments(id, &change)?);
        }
        Ok(Self { place, groups: groups.into_iter().collect(), noting: false })
    }
}

/// A change as `update_outbox.lua` takes it.
fn change_arguments(id: u64, change: &OutboxChange) -> Result<Arguments, Fault> {
    let mut arguments = Arguments::new();
    let mut text = |text: &str| arguments.push(text.as_bytes().to_vec());
    let number = |n: u64| n.to_string();
    let attempt = |attempt: &AttemptRecord, of: Option<u64>, text: &mut dyn FnMut(&str)| {
        text(&attempt.ended_at().0.to_string());
        text(attempt.error.as_deref().unwrap_or_default());
        text(&record::write_attempt(attempt)?);
        text(&number(of.unwrap_or(0)));
        Ok::<_, Fault>(())
    };
    match change {
        OutboxChange::Void => {
            text("void");
            text(&number(id));
        }
        OutboxChange::Over { end, attempt: last, of } => {
            text("over");
            text(&number(id));
            text(match end {
                End::Delivered => "delivered",
                End::Rejected => "rejected",
                End::Dead => "dead",
            });
            attempt(last, *of, &mut text)?;
        }
        OutboxChange::Retry { attempts, first_attempt_at, due_at, attempt: last, of } => {
            text("retry");
            text(&number(id));
            text(&attempts.to_string());
            text(&first_attempt_at.0.to_string());
            text(&due_at.0.to_string());
            attempt(last, *of, &mut text)?;
        }
    }
    Ok(arguments)
}

impl Step for UpdateOutbox {
    type Outcome = ();

    fn calls(&mut self, _: &mut Ids) -> Vec<Call> {
        let groups = self.groups.iter().map(|((endpoint, partition), changes)| {
            let mut call = self.place.call(Script::UpdateOutbox, *partition);
            call.keys(partition.endpoint(endpoint)).number(ATTEMPTS_KEPT).number(changes.len());
            for argument in changes.iter().flatten() {
                call.text(argument.as_slice());
            }
            call
        });
        groups.collect()
    }

    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<()>, Fault> {
        if self.noting {
            return Ok(Turn::Done((), Vec::new()));
        }
        self.noting = true;
        let mut calls = Vec::new();
        for (((endpoint, _), _), reply) in self.groups.iter().zip(replies) {
            let received: Vec<Vec<u8>> = read(reply)?;
            if received.is_empty() {
                continue;
            }
            let mut call = Call::new(Script::NoteReceived);
            call.key(keys::received(endpoint)).number(RECEIVED_KEPT).number(received.len() / 2);
            for word in &received {
                call.text(word.as_slice());
            }
            calls.push(call);
        }
        Ok(if calls.is_empty() { Turn::Done((), Vec::new()) } else { Turn::More(calls) })
    }
}

/// Makes dead letters of these.
pub(super) struct Bury {
    pub(super) place: Place,
    pub(super) endpoint: Endpoint,
    pub(super) ids: Vec<u64>,
    pub(super) now: Timestamp,
}

impl Step for Bury {
    type Outcome = u64;

    fn calls(&mut self, _: &mut Ids) -> Vec<Call> {
        let mut groups: BTreeMap<Partition, Vec<u64>> = BTreeMap::new();
        for id in &self.ids {
            groups.entry(self.place.home_of_delivery(*id)).or_default().push(*id);
        }
        let calls = groups.into_iter().map(|(partition, ids)| {
            let mut call = self.place.call(Script::Bury, partition);
            call.keys(partition.endpoint(&self.endpoint)).number(self.now.0).number(ids.len());
            for id in ids {
                call.number(id);
            }
            call
        });
        calls.collect()
    }

    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<u64>, Fault> {
        let counts = replies.into_iter().map(read::<u64>).collect::<Result<Vec<_>, _>>()?;
        Ok(Turn::Done(counts.into_iter().sum(), Vec::new()))
    }
}

/// A dead letter that is to be sent again.
pub(super) struct Letter {
    pub(super) endpoint: Endpoint,
    pub(super) partition: Partition,
    pub(super) webhook_id: String,
}

/// Sends these dead letters again, in this order.
pub(super) struct SendAgain {
    place: Place,
    now: Timestamp,
    letters: Vec<Letter>,
    asked: Vec<Endpoint>,
}

impl SendAgain {
    pub(super) fn new(place: Place, letters: Vec<Letter>, now: Timestamp) -> Self {
        Self { place, now, letters, asked: Vec::new() }
    }
}

impl Step for SendAgain {
    type Outcome = u64;

    fn calls(&mut self, ids: &mut Ids) -> Vec<Call> {
        let mut groups: BTreeMap<(Endpoint, Partition), Vec<(String, u64)>> = BTreeMap::new();
        for Letter { endpoint, partition, webhook_id } in self.letters.drain(..) {
            groups.entry((endpoint, partition)).or_default().push((webhook_id, ids.next(partition.0)));
        }
        let mut calls = Vec::with_capacity(groups.len());
        for ((endpoint, partition), letters) in groups {
            let mut call = self.place.call(Script::Replay, partition);
            call.keys(partition.endpoint(&endpoint)).number(self.now.0).number(letters.len());
            for (webhook_id, id) in letters {
                call.text(webhook_id).number(id);
            }
            self.asked.push(endpoint);
            calls.push(call);
        }
        calls
    }

    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<u64>, Fault> {
        let mut told: Vec<Delivery> = Vec::new();
        for (endpoint, reply) in self.asked.iter().zip(replies) {
            let words: Vec<Vec<u8>> = read(reply)?;
            for words in words.chunks_exact(2) {
                let id = std::str::from_utf8(&words[0]).ok().and_then(|id| id.parse().ok());
                let id = id.ok_or(Fault::Unreadable("an id is not one"))?;
                told.push(DeliveryForm::read(&words[1])?.delivery(id, endpoint, None)?);
            }
        }
        // In the order in which ids were given, whichever partition was asked first.
        told.sort_unstable_by_key(|delivery| delivery.id / u64::from(self.place.partitions));
        Ok(Turn::Done(told.len() as u64, told))
    }
}
