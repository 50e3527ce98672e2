//! The steps of deliveries: what became of them, dead letters, and sending those again.

use super::{
    fault::{Fault, read},
    form::DeliveryForm,
    keys::{self, Partition},
    script::{Call, Script},
    thread_step::Place,
    writer::{Step, Told, Turn},
};
use crate::store::record::{self, ATTEMPTS_KEPT};
use ::redis::Value;
use std::collections::BTreeMap;
use tract_actors::ports::{AttemptRecord, End, Endpoint, OutboxChange, OutboxUpdate};
use tract_domain::Timestamp;
use uuid::Uuid;

/// How many of an endpoint's received deliveries are kept at least; at twice as many the older half goes.
const RECEIVED_KEPT: usize = 1_000;

/// The arguments that say one change.
type Arguments = Vec<Vec<u8>>;

/// What became of deliveries. What was received is noted in a second step, so that a crash in between costs a line of what
/// is shown, nothing else.
pub(super) struct UpdateOutbox {
    /// By endpoint, partition and the lease's epoch, each with its changes in order.
    groups: Vec<((Endpoint, Partition, u64), Vec<Arguments>)>,
    noting: bool,
}

impl UpdateOutbox {
    pub(super) fn new(place: Place, updates: Vec<OutboxUpdate>) -> Result<Self, Fault> {
        let mut groups: BTreeMap<(Endpoint, Partition, u64), Vec<Arguments>> = BTreeMap::new();
        for OutboxUpdate { endpoint, id, epoch, change } in updates {
            let group = groups.entry((endpoint, place.home_of_delivery(id), epoch)).or_default();
            group.push(change_arguments(id, &change)?);
        }
        Ok(Self { groups: groups.into_iter().collect(), noting: false })
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

    fn calls(&mut self) -> Result<Vec<Call>, Fault> {
        let groups = self.groups.iter().map(|((endpoint, partition, epoch), changes)| {
            let mut call = Call::new(Script::UpdateOutbox);
            call.key(partition.head()).keys(partition.endpoint(endpoint));
            call.number(epoch).number(ATTEMPTS_KEPT).number(changes.len());
            for argument in changes.iter().flatten() {
                call.text(argument.as_slice());
            }
            call
        });
        Ok(groups.collect())
    }

    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<()>, Fault> {
        if self.noting {
            return Ok(Turn::Done((), Told::default()));
        }
        self.noting = true;
        let mut calls = Vec::new();
        for (((endpoint, ..), changes), reply) in self.groups.iter().zip(replies) {
            let Some(received) = read::<Option<Vec<Vec<u8>>>>(reply)? else {
                metrics::counter!("tract_superseded_outcomes_total").increment(changes.len() as u64);
                continue;
            };
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
        Ok(if calls.is_empty() { Turn::Done((), Told::default()) } else { Turn::More(calls) })
    }
}

/// Makes dead letters of these.
pub(super) struct Bury {
    pub(super) endpoint: Endpoint,
    /// Which, by partition and the lease's epoch.
    pub(super) ids: Vec<(Partition, u64, Vec<u64>)>,
    pub(super) now: Timestamp,
}

impl Step for Bury {
    type Outcome = u64;

    fn calls(&mut self) -> Result<Vec<Call>, Fault> {
        let calls = self.ids.iter().map(|(partition, epoch, ids)| {
            let mut call = Call::new(Script::Bury);
            call.key(partition.head()).keys(partition.endpoint(&self.endpoint));
            call.number(epoch).number(self.now.0).number(ids.len());
            for id in ids {
                call.number(id);
            }
            call
        });
        Ok(calls.collect())
    }

    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<u64>, Fault> {
        let counts = replies.into_iter().map(read::<u64>).collect::<Result<Vec<_>, _>>()?;
        Ok(Turn::Done(counts.into_iter().sum(), Told::default()))
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
    /// By endpoint and partition.
    letters: Vec<((Endpoint, Partition), Vec<String>)>,
    /// Names this step, so that it is known when it is asked for again.
    step: Uuid,
}

impl SendAgain {
    pub(super) fn new(place: Place, letters: Vec<Letter>, now: Timestamp) -> Self {
        let mut groups: BTreeMap<(Endpoint, Partition), Vec<String>> = BTreeMap::new();
        for Letter { endpoint, partition, webhook_id } in letters {
            groups.entry((endpoint, partition)).or_default().push(webhook_id);
        }
        Self { place, now, letters: groups.into_iter().collect(), step: Uuid::new_v4() }
    }
}

impl Step for SendAgain {
    type Outcome = u64;

    fn calls(&mut self) -> Result<Vec<Call>, Fault> {
        let calls = self.letters.iter().enumerate().map(|(n, ((endpoint, partition), letters))| {
            let mut call = Call::new(Script::Replay);
            call.key(partition.head()).keys(partition.endpoint(endpoint));
            self.place.add_to(&mut call, *partition, self.now)?;
            call.text(format!("{}-{n}", self.step.simple())).text(endpoint.name());
            call.number(self.now.0).number(letters.len());
            for webhook_id in letters {
                call.text(webhook_id.as_str());
            }
            Ok(call)
        });
        calls.collect()
    }

    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<u64>, Fault> {
        const FORM: Fault = Fault::Unreadable("a reply is not of its form");
        let (mut told, mut count) = (Told::default(), 0);
        for (((endpoint, partition), _), reply) in self.letters.iter().zip(replies) {
            let words: Vec<Vec<u8>> = read(reply)?;
            let text = |n: usize| words.get(n).and_then(|word| std::str::from_utf8(word).ok()).ok_or(FORM);
            if text(0)? == "again" {
                count += text(1)?.parse::<u64>().map_err(|_| FORM)?;
                told.missed.push((partition.0, vec![endpoint.clone()]));
                continue;
            }
            let here = text(1)? == "here";
            for words in words.get(2..).unwrap_or_default().chunks_exact(3) {
                count += 1;
                if here {
                    let number =
                        |word: &[u8]| std::str::from_utf8(word).ok().and_then(|id| id.parse().ok()).ok_or(FORM);
                    let place = (*partition, number(&words[0])?, number(&words[1])?);
                    told.committed.push(DeliveryForm::read(&words[2])?.delivery(place, endpoint, None)?);
                }
            }
        }
        Ok(Turn::Done(count, told))
    }
}
