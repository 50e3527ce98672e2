//! The steps on threads and users.

use super::{
    fault::{Fault, read},
    form::DeliveryForm,
    keys::{Home, Partition},
    script::{Call, Script},
    writer::{Step, Told, Turn},
};
use crate::store::{
    handle::{counter_end, next_counter, partition},
    record,
};
use ::redis::Value;
use std::sync::Arc;
use tract_actors::ports::{
    Commit, Committed, DeadlineChange, Endpoint, IdempotencyKey, KeptAnswer, KeyHome, NewDelivery, Settled, StoreError,
    StoredEntry, ThreadKey, UserWrite, Written,
};
use tract_domain::{ClientId, Json, Timestamp, UserId};
use uuid::Uuid;

/// What every step knows of the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) partitions: u16,
    /// Which process this is.
    pub(super) instance: Uuid,
}

impl Place {
    /// Where something is kept that is looked for by nothing but its key.
    pub(super) fn home_of_hash(self, key: &[u8; 32]) -> Partition {
        Partition(u16::from_be_bytes([key[0], key[1]]) % self.partitions)
    }
    /// Where the answer for a key is kept.
    pub(super) fn home_of_key(self, key: &IdempotencyKey) -> Home {
        match &key.home {
            KeyHome::Configuration => Home::Configuration,
            KeyHome::Thread(user_id) | KeyHome::User(user_id) => {
                let partition = partition(user_id, self.partitions).map(Partition);
                Home::Partition(partition.unwrap_or_else(|| self.home_of_hash(&key.key)))
            }
        }
    }
    /// Where else the answer for a key may be. A key of a user's request is noted where it is found from another user's
    /// request, too; and older versions, and migrations, keep all answers there.
    pub(super) fn other_home_of_key(self, key: &IdempotencyKey) -> Option<Home> {
        let other = Home::Partition(self.home_of_hash(&key.key));
        (other != self.home_of_key(key)).then_some(other)
    }
    /// Where a delivery is.
    pub(super) fn home_of_delivery(self, id: u64) -> Partition {
        #[allow(clippy::cast_possible_truncation, reason = "a remainder of a u16")]
        let partition = (id % u64::from(self.partitions)) as u16;
        Partition(partition)
    }
    /// Begins a call of a script that gives out ids: with the partition's head, and what `place()` takes.
    pub(super) fn call(self, script: Script, partition: Partition, now: Timestamp) -> Result<Call, Fault> {
        let mut call = Call::new(script);
        call.key(partition.head());
        self.add_to(&mut call, partition, now)?;
        Ok(call)
    }
    /// Adds what `place()` takes.
    pub(super) fn add_to(self, call: &mut Call, partition: Partition, now: Timestamp) -> Result<(), Fault> {
        let floor = next_counter(0, now, self.partitions).ok_or(Fault::Unreadable("the ids are used up"))?;
        call.text(self.name()).number(partition.0).number(self.partitions);
        call.number(floor).number(counter_end(self.partitions));
        Ok(())
    }
    /// What this process is called in leases.
    pub(super) fn name(self) -> String {
        self.instance.simple().to_string()
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Adds an idempotency key with its answer to a call, as the scripts' `idempotency()` takes it.
pub(super) fn add_kept(call: &mut Call, place: Place, key: &IdempotencyKey, answer: &str) {
    add_kept_at(call, place.home_of_key(key), key, answer);
}

pub(super) fn add_kept_at(call: &mut Call, home: Home, key: &IdempotencyKey, answer: &str) {
    call.key(home.answers()).key(home.answer_expiries());
    call.text(hex(&key.key)).text(hex(&key.request)).number(key.expires_at.0).text(answer);
}

fn add_optional_kept(call: &mut Call, place: Place, kept: Option<&(IdempotencyKey, String)>) {
    match kept {
        Some((key, answer)) => {
            call.text("idempotency");
            add_kept(call, place, key, answer);
        }
        None => {
            call.text("");
        }
    }
}

/// New deliveries with their forms.
struct Outbox {
    partition: Partition,
    endpoints: Vec<Endpoint>,
    deliveries: Vec<(NewDelivery, DeliveryForm)>,
}

impl Outbox {
    fn new(new: Vec<NewDelivery>, partition: Partition, user_id: &UserId, now: Timestamp) -> Result<Self, Fault> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut deliveries = Vec::with_capacity(new.len());
        for delivery in new {
            if !endpoints.contains(&delivery.endpoint) {
                endpoints.push(delivery.endpoint.clone());
            }
            let form = DeliveryForm::new(&delivery, user_id, now)?;
            deliveries.push((delivery, form));
        }
        Ok(Self { partition, endpoints, deliveries })
    }
    fn number_of(&self, endpoint: &Endpoint) -> usize {
        self.endpoints.iter().position(|e| e == endpoint).map_or(0, |n| n + 1)
    }
    fn add_endpoints(&self, call: &mut Call) {
        call.number(self.endpoints.len());
        for endpoint in &self.endpoints {
            call.keys(self.partition.endpoint(endpoint)).text(endpoint.name());
        }
    }
    fn add_deliveries(&self, call: &mut Call) -> Result<(), Fault> {
        call.number(self.deliveries.len());
        for (new, form) in &self.deliveries {
            call.number(self.number_of(&new.endpoint)).text(form.write()?);
        }
        Ok(())
    }
    /// What sinks are told, by who acts for the partition, and the ids with what waited before each.
    fn told(&self, owner: &str, ids: &[u64], entries: &[Arc<StoredEntry>]) -> Result<Told, Fault> {
        if owner != "here" {
            return Ok(Told::default());
        }
        let entry = |sequence| entries.iter().find(|e| e.entry.sequence == sequence).cloned();
        let committed = self.deliveries.iter().zip(ids.chunks_exact(2)).map(|((new, form), ids)| {
            let place = (self.partition, ids[0], ids[1]);
            form.delivery(place, &new.endpoint, entry(new.sequence))
        });
        Ok(Told { committed: committed.collect::<Result<_, _>>()?, ..Told::default() })
    }
    /// What sinks are told when it was committed and the answer lost.
    fn lost(&self) -> Told {
        let missed = (!self.deliveries.is_empty()).then(|| (self.partition.0, self.endpoints.clone()));
        Told { missed: missed.into_iter().collect(), ..Told::default() }
    }
}

fn numbers(words: &[String]) -> Result<Vec<u64>, Fault> {
    words.iter().map(|id| id.parse().map_err(|_| Fault::Unreadable("an id is not one"))).collect()
}

/// A commit with its stored forms, made by the caller: the writer's time is everybody's.
pub(super) struct CommitThread {
    place: Place,
    partition: Partition,
    commit: Commit,
    snapshot: String,
    entries: Vec<String>,
    kept: Option<(IdempotencyKey, String)>,
    outbox: Outbox,
    /// Whose details are written.
    user: Option<(String, Json)>,
}

impl CommitThread {
    /// `user` is the key of the thread's user, needed only when its details are written.
    pub(super) fn new(
        mut commit: Commit,
        place: Place,
        partition: Partition,
        user: Option<String>,
    ) -> Result<Self, Fault> {
        const UNCONTINUOUS: Fault = Fault::Unreadable("the entries do not continue the thread's sequence");
        let first = commit.entries.first().map_or(1, |entry| entry.sequence);
        if first == 0 || !commit.entries.iter().zip(first..).all(|(entry, next)| entry.sequence == next) {
            return Err(UNCONTINUOUS);
        }
        let snapshot = record::write_thread(&commit.thread)?;
        let entries = commit.entries.iter().map(record::write_entry).collect::<Result<_, _>>()?;
        let kept = commit.idempotency.take().map(|(key, reply)| {
            // The ids are the script's to add.
            let answer = KeptAnswer::Thread { reply, message_ids: Vec::new(), at: commit.now };
            Ok::<_, Fault>((key, record::write_kept(&answer)?))
        });
        let mut outbox = Outbox::new(std::mem::take(&mut commit.outbox), partition, &commit.user_id, commit.now)?;
        if let Some(Settled { endpoint, .. }) = &commit.settles
            && !outbox.endpoints.contains(endpoint)
        {
            outbox.endpoints.push(endpoint.clone());
        }
        let user = user.zip(commit.user_details.take());
        Ok(Self { place, partition, snapshot, entries, kept: kept.transpose()?, outbox, user, commit })
    }
}

impl CommitThread {
    fn call(&self) -> Result<Call, Fault> {
        let (commit, partition) = (&self.commit, self.partition);
        let mut call = self.place.call(Script::Commit, partition, commit.now)?;
        call.key(partition.thread(&commit.user_id)).key(partition.entries(&commit.user_id));
        call.key(partition.deadlines()).key(partition.counts()).key(partition.endpoints());
        call.id(commit.commit_id).text(commit.user_id.as_str());
        call.number(commit.expected_version).id(commit.expected_commit).number(commit.now.0);
        call.text(self.snapshot.as_str()).text(commit.thread.state().as_str());
        call.text(commit.thread.control().active.as_str());
        match commit.deadline {
            DeadlineChange::Keep => call.text("keep"),
            DeadlineChange::Set(None) => call.text("none"),
            DeadlineChange::Set(Some(at)) => call.number(at.0),
        };
        call.number(commit.entries.first().map_or(0, |entry| entry.sequence)).number(self.entries.len());
        for entry in &self.entries {
            call.text(entry.as_str());
        }
        match &self.user {
            Some((key, details)) => call.text("details").key(key.as_str()).text(details.0.as_bytes()),
            None => call.text(""),
        };
        add_optional_kept(&mut call, self.place, self.kept.as_ref());
        self.outbox.add_endpoints(&mut call);
        match &commit.settles {
            Some(Settled { endpoint, id, epoch }) => {
                call.number(self.outbox.number_of(endpoint)).number(id).number(epoch)
            }
            None => call.number(0).text("").text(""),
        };
        self.outbox.add_deliveries(&mut call)?;
        Ok(call)
    }
}

impl Step for CommitThread {
    type Outcome = Result<Committed, StoreError>;

    fn calls(&mut self) -> Result<Vec<Call>, Fault> {
        Ok(vec![self.call()?])
    }

    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<Self::Outcome>, Fault> {
        let answer = words(replies)?;
        let (ids, told) = match answer.first().map(String::as_str) {
            Some("superseded") => return Ok(Turn::Done(Err(StoreError::Superseded), Told::default())),
            Some("applied") => {
                let (owner, ids) = (answer.get(1).map_or("", String::as_str), answer.get(2..).unwrap_or_default());
                let mut ids = numbers(ids)?;
                let outbox = ids.split_off(self.entries.len().min(ids.len()));
                let entries: Vec<_> = std::mem::take(&mut self.commit.entries)
                    .into_iter()
                    .zip(&ids)
                    .map(|(entry, id)| Arc::new(StoredEntry { message_id: *id, entry }))
                    .collect();
                let told = self.outbox.told(owner, &outbox, &entries)?;
                (ids, told)
            }
            Some("again") => (numbers(answer.get(1..).unwrap_or_default())?, self.outbox.lost()),
            _ => return Ok(Turn::Done(Ok(Committed::Conflict), Told::default())),
        };
        let version = self.commit.expected_version + 1;
        Ok(Turn::Done(Ok(Committed::Applied { version, message_ids: ids }), told))
    }
}

/// The words of the only reply.
fn words(replies: Vec<Value>) -> Result<Vec<String>, Fault> {
    read(replies.into_iter().next().ok_or(Fault::Unreadable("a step could not be written"))?)
}

/// A write to a user's record, which may open a thread.
pub(super) struct WriteUser {
    place: Place,
    partition: Partition,
    write: UserWrite,
    kept: Option<(IdempotencyKey, String)>,
    /// The thread to open and its snapshot.
    thread: Option<(ThreadKey, String)>,
    outbox: Outbox,
}

impl WriteUser {
    /// `user_id` is the handle of the thread to open, if there is one.
    pub(super) fn new(
        mut write: UserWrite,
        user_id: Option<UserId>,
        place: Place,
        partition: Partition,
    ) -> Result<Self, Fault> {
        let kept = write.idempotency.take();
        let kept = kept.map(|(key, body)| Ok::<_, Fault>((key, record::write_kept(&KeptAnswer::Body(body))?)));
        let kept = kept.transpose()?;
        let mut outbox = Outbox { partition, endpoints: Vec::new(), deliveries: Vec::new() };
        let mut thread = None;
        if let (Some(open), Some(user_id)) = (&mut write.open, user_id) {
            outbox = Outbox::new(std::mem::take(&mut open.outbox), partition, &user_id, write.now)?;
            let (client, auth_id) = (write.client.clone(), Arc::clone(&write.auth_id));
            let key = ThreadKey { user_id, client, business: open.business, auth_id };
            thread = Some((key, record::write_thread(&open.thread)?));
        }
        Ok(Self { place, partition, write, kept, thread, outbox })
    }
}

impl Step for WriteUser {
    type Outcome = Written;

    fn calls(&mut self) -> Result<Vec<Call>, Fault> {
        let (write, partition) = (&self.write, self.partition);
        let mut call = self.place.call(Script::WriteUser, partition, write.now)?;
        call.key(partition.user(&write.client, &write.auth_id));
        call.key(partition.threads()).key(partition.counts()).key(partition.endpoints());
        call.id(write.commit_id).number(write.expected_version).number(write.now.0);
        match &write.profile {
            Some(profile) => call.text("profile").text(profile.0.as_bytes()),
            None => call.text(""),
        };
        match (&write.open, &self.thread) {
            (Some(open), Some((key, snapshot))) => {
                call.text("open").key(partition.thread(&key.user_id)).text(key.user_id.as_str());
                call.text(key.client.as_str()).number(key.business).text(key.auth_id.as_bytes());
                call.text(snapshot.as_str()).number(open.thread.sequence());
                call.number(open.thread.control().epoch).number(open.thread.conversation());
                call.text(open.thread.state().as_str()).text(open.thread.control().active.as_str());
            }
            _ => {
                call.text("");
            }
        }
        add_optional_kept(&mut call, self.place, self.kept.as_ref());
        self.outbox.add_endpoints(&mut call);
        self.outbox.add_deliveries(&mut call)?;
        Ok(vec![call])
    }

    fn answered(&mut self, replies: Vec<Value>) -> Result<Turn<Written>, Fault> {
        let answer = words(replies)?;
        Ok(match answer.first().map(String::as_str) {
            Some("applied") => {
                let ids = numbers(answer.get(2..).unwrap_or_default())?;
                Turn::Done(Written::Applied, self.outbox.told(answer.get(1).map_or("", String::as_str), &ids, &[])?)
            }
            Some("again") => Turn::Done(Written::Applied, self.outbox.lost()),
            _ => Turn::Done(Written::Conflict, Told::default()),
        })
    }
}

/// What an ECT calls a user.
pub(super) fn keep_ect_user_id(
    partition: Partition,
    (client, auth_id): (&ClientId, &str),
    (ect, ect_user_id): (&str, &str),
) -> Call {
    let mut call = Call::new(Script::KeepEctUserId);
    call.key(partition.user(client, auth_id)).text(ect).text(ect_user_id);
    call
}
