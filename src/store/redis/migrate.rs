//! The store in Redis as one side of a migration.

use super::{
    alone::{self, Alone, Hold},
    fault::Fault,
    files,
    form::DeliveryForm,
    keys::{self, Home, Partition},
    migrate_read::Reading,
    open::Purpose,
    other_step::SEPARATOR,
    reader::{Pools, Reader, command},
    thread_step::{Place, hex},
};
use crate::store::{
    handle::{Handles, partition_of_file},
    migrate::{DeliveryRecord, Identity, Location, MigrateError, Pages, Part, Record, Side, ThreadRecord, pages},
    record,
};
use ::redis::Cmd;
use async_trait::async_trait;
use std::{collections::HashMap, sync::Arc};
use tract_actors::ports::{Endpoint, KeptAnswer, StoreError};
use tract_domain::{ClientId, UserId};

const FORM: Fault = Fault::Unreadable("something is not of its form");

/// A delivery's rank below this was given out by an embedded store, which counts from 1. The counters of a store in Redis
/// are never below the milliseconds since 2025, and that many had passed before there was this program.
pub(super) const EMBEDDED_RANKS: u64 = 10_000_000_000;

/// A store in Redis that a migration has to itself.
pub(in crate::store) struct RedisSide {
    handles: Handles,
    place: Place,
    pools: Arc<Pools>,
    identity: Identity,
    /// Gone once the store is given back.
    hold: Option<Hold>,
    /// How many threads there are of each kind, of the partition that is being written.
    counts: HashMap<String, u64>,
    /// The rank and the id of the last delivery, for each endpoint and partition of the part that is being written.
    last_ids: HashMap<(String, u16), (u64, u64)>,
}

impl RedisSide {
    /// A store to read.
    pub(in crate::store) async fn source(url: &str, at: &Location) -> Result<Self, MigrateError> {
        let partitions = alone::partitions(url).await?.ok_or_else(|| MigrateError::NoStore(at.clone()))?;
        let alone = alone::open_alone(url, partitions, Purpose::Use).await?;
        if alone.parts_done.is_some() {
            alone.hold.give_back().await;
            return Err(MigrateError::Unfinished(at.clone()));
        }
        Ok(Self::of(alone))
    }

    /// A store to write: one that is made now, or one that was begun before.
    pub(in crate::store) async fn destination(
        url: &str,
        at: &Location,
        identity: Identity,
    ) -> Result<Self, MigrateError> {
        let alone = alone::open_alone(url, identity.partitions, Purpose::Fill(identity.handle_key)).await?;
        let fault = match alone.parts_done {
            None => MigrateError::Occupied(at.clone()),
            Some(_) if alone.key != identity.handle_key => MigrateError::Another(at.clone()),
            Some(_) => return Ok(Self::of(alone)),
        };
        alone.hold.give_back().await;
        Err(fault)
    }

    fn of(alone: Alone) -> Self {
        let Alone { handles, place, pools, key, hold, .. } = alone;
        let identity = Identity { partitions: place.partitions, handle_key: key };
        let (counts, last_ids) = (HashMap::new(), HashMap::new());
        Self { handles, place, pools, identity, hold: Some(hold), counts, last_ids }
    }

    fn reader(&self) -> Reader {
        self.pools.reader()
    }

    /// The id of a delivery that had this rank: the same again, if it is one of this partition's; else one that keeps the
    /// order.
    fn id_of(&mut self, endpoint: &str, partition: Partition, rank: u64) -> u64 {
        let (partitions, home) = (u64::from(self.identity.partitions), u64::from(partition.0));
        let id = if rank < EMBEDDED_RANKS {
            rank * partitions + home
        } else {
            rank + (home + partitions - rank % partitions) % partitions
        };
        let last = self.last_ids.entry((endpoint.to_owned(), partition.0)).or_default();
        // The messages of one range have one rank.
        if rank != last.0 {
            *last = (rank, if id > last.1 { id } else { last.1 + partitions });
        }
        last.1
    }

    async fn all(&self, commands: Vec<Cmd>) -> Result<(), StoreError> {
        let mut reader = self.reader();
        Ok(reader.write(commands).await?)
    }

    /// The commands that write a record in the place of what is there.
    fn put(&mut self, part: Part, record: Record) -> Result<Vec<Cmd>, Fault> {
        Ok(match record {
            Record::Document { of, id, body } => {
                vec![command!("HSET", keys::DOCUMENTS, format!("{of}{SEPARATOR}{id}"), body)]
            }
            Record::Revision { revision } => vec![command!("HSET", keys::CONFIG_HEAD, "revision", revision)],
            Record::Deliveries { last } => {
                // In whichever partition it may be: it is the highest of all.
                let partitions = u64::from(self.identity.partitions);
                let id = if last < EMBEDDED_RANKS { last * partitions } else { last };
                vec![command!("HSET", self.place.home_of_delivery(id).head(), "outbox", id)]
            }
            Record::Endpoint { name, last_success_at, last_error } => {
                // Anywhere will do: what is told of an endpoint is told over all partitions.
                let (home, endpoint) = (Partition(0), Endpoint::from_name(&name));
                let mut commands = vec![command!("SADD", home.endpoints(), name)];
                if let Some(at) = last_success_at {
                    commands.push(command!("HSET", home.status(&endpoint), "success", at));
                }
                if let Some(error) = last_error {
                    commands.push(command!("HSET", home.status(&endpoint), "error", error, "error_at", 0));
                }
                commands
            }
            Record::Thread(thread) => self.put_thread(thread)?,
            Record::Entry { user_id, sequence, message_id, commit_id, entry } => {
                let user_id = UserId::new(&user_id).map_err(|_| FORM)?;
                let partition = self.home(&user_id)?;
                let mut add = command!("XADD", partition.entries(&user_id), format!("{sequence}-0"));
                add.arg("id").arg(message_id).arg("entry").arg(entry);
                if let Some(commit_id) = commit_id {
                    add.arg("commit_id").arg(commit_id.simple().to_string());
                }
                vec![add]
            }
            Record::User { client, auth_id, version, commit_id, profile, user_details, ect_user_ids } => {
                let client = ClientId::new(&client).map_err(|_| FORM)?;
                let key = Partition(self.handles.home(&client, &auth_id)).user(&client, &auth_id);
                let mut set = command!("HSET", key, "version", version, "profile", profile);
                if let Some(commit_id) = commit_id {
                    set.arg("commit_id").arg(commit_id.simple().to_string());
                }
                if let Some(details) = user_details {
                    set.arg("user_details").arg(details);
                }
                for (ect, name) in ect_user_ids {
                    set.arg(format!("ect:{ect}")).arg(name);
                }
                vec![set]
            }
            Record::Counter { partition, last } => {
                vec![command!("HSET", Partition(partition).head(), "counter", last)]
            }
            Record::Origin { partition, version, sequence, control_epoch, conversation } => {
                let mut set = command!("HSET", Partition(partition).head(), "left_version", version);
                set.arg("left_sequence").arg(sequence).arg("left_epoch").arg(control_epoch);
                set.arg("left_conversation").arg(conversation);
                vec![set]
            }
            Record::File { token, user_id, sequence, content_type, name, size, at } => {
                let user_id = UserId::new(&user_id).map_err(|_| FORM)?;
                let (partition, token) = (self.home(&user_id)?, files::read_token(&token)?);
                let mut set = command!("HSET", partition.file(&token), "user_id", user_id.as_str());
                set.arg("content_type").arg(content_type).arg("name").arg(name);
                set.arg("size").arg(size).arg("at").arg(at);
                let list = match sequence {
                    Some(sequence) => command!("ZADD", partition.files(&user_id), sequence, token.expose()),
                    None => command!("ZADD", partition.unnamed(), at, files::listed(&user_id, &token)),
                };
                vec![list, set]
            }
            Record::Piece { token, number, bytes } => {
                let token = files::read_token(&token)?;
                let home = partition_of_file(&token, self.identity.partitions).map(Partition).ok_or(FORM)?;
                vec![command!("HSET", home.file(&token), number, bytes)]
            }
            Record::Delivery(delivery) => self.put_delivery(part, &delivery)?,
            Record::Answer { key, request, expires_at, mut answer } => {
                let ids = match &mut answer {
                    KeptAnswer::Thread { message_ids, .. } => std::mem::take(message_ids),
                    KeptAnswer::Body(_) => Vec::new(),
                };
                let ids = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
                let value = format!("{expires_at} {} {ids} {}", hex(&request), record::write_kept(&answer)?);
                let (home, key) = (Home::Partition(self.place.home_of_hash(&key)), hex(&key));
                vec![
                    command!("HSET", home.answers(), &key, value),
                    command!("ZADD", home.answer_expiries(), expires_at, key),
                ]
            }
            Record::Request { key, until } => {
                let (home, key) = (Home::Partition(self.place.home_of_hash(&key)), hex(&key));
                vec![
                    command!("HSET", home.requests(), &key, "migrated"),
                    command!("ZADD", home.request_expiries(), until, key),
                ]
            }
        })
    }

    fn home(&self, user_id: &UserId) -> Result<Partition, Fault> {
        self.handles.partition(user_id).map(Partition).ok_or(FORM)
    }

    fn put_thread(&mut self, thread: ThreadRecord) -> Result<Vec<Cmd>, Fault> {
        let user_id = UserId::new(&thread.user_id).map_err(|_| FORM)?;
        let partition = self.home(&user_id)?;
        let kind = format!("{}:{}:{}:{}", thread.client, thread.business, thread.state, thread.active);
        *self.counts.entry(kind).or_default() += 1;
        let mut set = command!("HSET", partition.thread(&user_id), "client", thread.client);
        set.arg("business").arg(thread.business).arg("auth_id").arg(thread.auth_id);
        set.arg("version").arg(thread.version).arg("sequence").arg(thread.sequence);
        set.arg("state").arg(thread.state).arg("active").arg(thread.active).arg("snapshot").arg(thread.snapshot);
        if let Some(commit_id) = thread.commit_id {
            set.arg("commit_id").arg(commit_id.simple().to_string());
        }
        let mut commands = vec![command!("ZADD", partition.threads(), thread.number, user_id.as_str())];
        if let Some(deadline) = thread.deadline {
            set.arg("deadline").arg(deadline);
            commands.push(command!("ZADD", partition.deadlines(), deadline, user_id.as_str()));
        }
        commands.push(set);
        Ok(commands)
    }

    fn put_delivery(&mut self, part: Part, delivery: &DeliveryRecord) -> Result<Vec<Cmd>, Fault> {
        let user_id = UserId::new(&delivery.user_id).map_err(|_| FORM)?;
        let (partition, endpoint) = (self.home(&user_id)?, Endpoint::from_name(&delivery.endpoint));
        let id = self.id_of(&delivery.endpoint, partition, delivery.rank);
        let form = DeliveryForm::restored(delivery)?;
        let known = command!("SADD", partition.endpoints(), endpoint.name());
        Ok(match part {
            Part::Letters => {
                let (name, died_at) = (&delivery.webhook_id, delivery.ended_at.unwrap_or(delivery.created_at));
                vec![
                    known,
                    command!("ZADD", partition.dead(&endpoint), id, name),
                    command!("ZADD", partition.died(&endpoint), died_at, name),
                    command!("HSET", partition.letters(&endpoint), name, form.ended(id, delivery)?),
                ]
            }
            Part::Received => {
                vec![command!("ZADD", keys::received(&endpoint), id, form.ended(id, delivery)?)]
            }
            _ => {
                let mut commands = vec![
                    known,
                    command!("ZADD", partition.waiting(&endpoint), id, id),
                    command!("HSET", partition.outbox(&endpoint), id, form.write()?),
                ];
                if delivery.replayed {
                    // Ids come in their order: the last one stays.
                    commands.push(command!("HSET", partition.status(&endpoint), "replayed", id));
                }
                commands
            }
        })
    }

    /// What follows from what was written.
    async fn count(&mut self, reader: &mut Reader, part: Part) -> Result<Vec<Cmd>, Fault> {
        let mut commands = Vec::new();
        match part {
            Part::Partition(n) => {
                let partition = Partition(n);
                let last = command!("ZRANGE", partition.threads(), 0, 0, "REV", "WITHSCORES");
                let last: Vec<(String, u64)> = reader.one(last).await?;
                let last = last.first().map_or(0, |(_, number)| *number);
                commands.push(command!("HSET", partition.head(), "threads", last));
                commands.push(command!("DEL", partition.counts()));
                for (kind, count) in self.counts.drain() {
                    commands.push(command!("HSET", partition.counts(), kind, count));
                }
            }
            Part::Waiting | Part::Letters => {
                for n in 0..self.identity.partitions {
                    let (partition, mut highest) = (Partition(n), 0);
                    let names: Vec<String> = reader.one(command!("SMEMBERS", partition.endpoints())).await?;
                    for endpoint in names.iter().map(|name| Endpoint::from_name(name)) {
                        let (set, field) = match part {
                            Part::Letters => (partition.dead(&endpoint), "dead"),
                            _ => (partition.waiting(&endpoint), "pending"),
                        };
                        let count: u64 = reader.one(command!("ZCARD", &set)).await?;
                        commands.push(command!("HSET", partition.status(&endpoint), field, count));
                        let last: Vec<(String, u64)> =
                            reader.one(command!("ZRANGE", set, 0, 0, "REV", "WITHSCORES")).await?;
                        highest = highest.max(last.first().map_or(0, |(_, id)| *id));
                    }
                    // New ids go on above all that were moved.
                    let head: Option<u64> = reader.one(command!("HGET", partition.head(), "outbox")).await?;
                    if highest > head.unwrap_or(0) {
                        commands.push(command!("HSET", partition.head(), "outbox", highest));
                    }
                }
            }
            _ => {}
        }
        Ok(commands)
    }
}

#[async_trait]
impl Side for RedisSide {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn read(&self, part: Part) -> Pages {
        let (pages, read) = pages();
        let (reader, place) = (self.pools.reader(), self.place);
        tokio::spawn(Reading { reader, place, pages, page: Vec::new() }.read(part));
        read
    }

    async fn done(&mut self) -> Result<usize, StoreError> {
        let mut reader = self.reader();
        let done: Option<usize> = reader.one(command!("HGET", keys::STORE, keys::PARTS_DONE)).await?;
        Ok(done.unwrap_or(0))
    }

    async fn write(&mut self, part: Part, page: Vec<Record>) -> Result<(), StoreError> {
        let mut commands = Vec::with_capacity(2 * page.len());
        for record in page {
            commands.extend(self.put(part, record)?);
        }
        self.all(commands).await
    }

    async fn finish(&mut self, part: Part, done: usize) -> Result<(), StoreError> {
        let mut reader = self.reader();
        let commands = self.count(&mut reader, part).await?;
        self.last_ids.clear();
        drop(reader);
        self.all(commands).await?;
        self.all(vec![command!("HSET", keys::STORE, keys::PARTS_DONE, done)]).await
    }

    async fn complete(&mut self) -> Result<(), StoreError> {
        self.all(vec![command!("HDEL", keys::STORE, keys::PARTS_DONE)]).await
    }

    async fn close(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.give_back().await;
        }
        self.pools.close();
    }
}
