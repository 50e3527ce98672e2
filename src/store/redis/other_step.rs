//! All other steps: answers, signed requests, documents, and housekeeping.

use super::{
    fault::{Fault, read},
    keys::{self, Home, Partition},
    script::{Call, Script},
    thread_step::{Place, add_kept, add_kept_at, hex},
    writer::{Step, Told, Turn},
};
use crate::store::record;
use ::redis::Value;
use tract_actors::ports::{DocumentWrite, Endpoint, IdempotencyKey, KeptAnswer, Written};
use tract_domain::{Json, Timestamp};
use uuid::Uuid;

/// A step that is its calls, and what their replies come to.
pub(super) struct Plain<T> {
    calls: Vec<Call>,
    read: fn(Vec<Value>) -> Result<T, Fault>,
}

impl<T: Send + 'static> Step for Plain<T> {
    type Outcome = T;
    fn calls(&mut self) -> Result<Vec<Call>, Fault> {
        Ok(std::mem::take(&mut self.calls))
    }
    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<T>, Fault> {
        Ok(Turn::Done((self.read)(replies)?, Told::default()))
    }
}

/// A call of which nothing needs to be known but that it was done.
pub(super) fn done(call: Call) -> Plain<()> {
    Plain { calls: vec![call], read: |_| Ok(()) }
}

/// What calls add up to.
pub(super) fn counted(calls: Vec<Call>) -> Plain<Vec<u64>> {
    Plain { calls, read: |replies| replies.into_iter().map(read::<u64>).collect() }
}

/// Keeps an answer by itself.
pub(super) fn keep(home: Home, key: &IdempotencyKey, body: Json, now: Timestamp) -> Result<Plain<()>, Fault> {
    let mut call = Call::new(Script::Keep);
    call.number(now.0);
    add_kept_at(&mut call, home, key, &record::write_kept(&KeptAnswer::Body(body))?);
    Ok(done(call))
}

/// A signed request that must be the first of its kind.
pub(super) fn remember_request(place: Place, key: &[u8; 32], until: Timestamp, now: Timestamp) -> Plain<bool> {
    let home = Home::Partition(place.home_of_hash(key));
    let mut call = Call::new(Script::RememberRequest);
    call.key(home.requests()).key(home.request_expiries());
    call.text(hex(key)).id(Uuid::new_v4()).number(until.0).number(now.0);
    Plain {
        calls: vec![call],
        read: |mut replies| replies.pop().map_or(Err(Fault::Unreadable("no reply")), read::<bool>),
    }
}

/// Forgets some of the answers and signed requests that are kept there.
pub(super) fn forget(home: Home, now: Timestamp, most: u64) -> Call {
    let mut call = Call::new(Script::Forget);
    call.key(home.answers()).key(home.answer_expiries());
    call.key(home.requests()).key(home.request_expiries()).number(now.0).number(most);
    call
}

/// Forgets some of an endpoint's dead letters.
pub(super) fn forget_letters(partition: Partition, endpoint: &Endpoint, before: Timestamp, most: u64) -> Call {
    let mut call = Call::new(Script::ForgetLetters);
    call.keys(partition.endpoint(endpoint)).number(before.0).number(most);
    call
}

/// What separates a document's kind and id; neither holds it.
pub(super) const SEPARATOR: char = '\u{0}';

/// How far a write to the configuration has come.
enum Stage {
    Writing,
    Forgetting,
    Ending,
}

/// A write to the configuration; then, if it was applied, endpoints that are gone are forgotten partition by partition.
pub(super) struct WriteDocuments {
    place: Place,
    write: DocumentWrite,
    kept: Option<(IdempotencyKey, String)>,
    stage: Stage,
}

impl WriteDocuments {
    pub(super) fn new(place: Place, mut write: DocumentWrite) -> Result<Self, Fault> {
        let kept = write.idempotency.take();
        let kept = kept.map(|(key, body)| Ok::<_, Fault>((key, record::write_kept(&KeptAnswer::Body(body))?)));
        Ok(Self { place, write, kept: kept.transpose()?, stage: Stage::Writing })
    }
}

impl Step for WriteDocuments {
    type Outcome = Written;

    fn calls(&mut self) -> Result<Vec<Call>, Fault> {
        let write = &self.write;
        let mut call = Call::new(Script::WriteDocuments);
        call.key(keys::CONFIG_HEAD).key(keys::DOCUMENTS).key(keys::FORGETTING);
        call.id(write.write_id).number(write.expected_revision).id(write.expected_write);
        call.number(write.delete.len());
        for (kind, id) in &write.delete {
            call.text(format!("{kind}{SEPARATOR}{id}"));
        }
        call.number(write.put.len());
        for document in &write.put {
            call.text(format!("{}{SEPARATOR}{}", document.kind, document.id)).text(document.body.as_str());
        }
        for endpoints in [&write.forget, &write.welcome] {
            call.number(endpoints.len());
            for endpoint in endpoints {
                call.text(endpoint.name());
            }
        }
        match &self.kept {
            Some((key, answer)) => {
                call.text("idempotency");
                add_kept(&mut call, self.place, key, answer);
            }
            None => {
                call.text("");
            }
        }
        Ok(vec![call])
    }

    fn answered(&mut self, mut replies: Vec<Value>) -> Result<Turn<Written>, Fault> {
        match self.stage {
            Stage::Writing => {
                let answer: String = read(replies.pop().ok_or(Fault::Unreadable("no reply"))?)?;
                if answer == "conflict" {
                    return Ok(Turn::Done(Written::Conflict, Told::default()));
                }
                let forget = |endpoint| forget_endpoint(self.place.partitions, endpoint);
                let calls: Vec<_> = self.write.forget.iter().flat_map(forget).collect();
                if !calls.is_empty() {
                    self.stage = Stage::Forgetting;
                    return Ok(Turn::More(calls));
                }
            }
            Stage::Forgetting => {
                self.stage = Stage::Ending;
                return Ok(Turn::More(vec![end_forgetting(&self.write.forget)]));
            }
            Stage::Ending => {}
        }
        Ok(Turn::Done(Written::Applied, Told::default()))
    }
}

/// Forgets an endpoint everywhere.
pub(super) fn forget_endpoint(partitions: u16, endpoint: &Endpoint) -> Vec<Call> {
    let in_partition = |n| {
        let partition = Partition(n);
        let mut call = Call::new(Script::ForgetEndpoint);
        call.key(partition.endpoints()).keys(partition.endpoint(endpoint)).text(endpoint.name());
        call
    };
    let mut received = Call::new(Script::ForgetReceived);
    received.key(keys::received(endpoint));
    (0..partitions).map(in_partition).chain([received]).collect()
}

/// That these are to be forgotten; asked for when they are.
pub(super) fn end_forgetting(endpoints: &[Endpoint]) -> Call {
    let mut call = Call::new(Script::EndForgetting);
    call.key(keys::FORGETTING).number(endpoints.len());
    for endpoint in endpoints {
        call.text(endpoint.name());
    }
    call
}

/// Writes something, to show that it can be done.
pub(super) fn ping() -> Plain<()> {
    let mut call = Call::new(Script::Ping);
    call.key(keys::CONFIG_HEAD);
    done(call)
}
