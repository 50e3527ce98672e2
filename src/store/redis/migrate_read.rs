//! Reads all that a store in Redis holds, for a migration. Nobody writes meanwhile, so that pages by rank are whole.

use super::{
    fault::Fault,
    files,
    form::DeliveryForm,
    keys::{self, Home, Partition},
    migrate::EMBEDDED_RANKS,
    other_step::SEPARATOR,
    query::unhex,
    reader::{Reader, command},
    thread_step::Place,
};
use crate::store::{
    migrate::{DeliveryRecord, Part, Record, ThreadRecord, is_full},
    record,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tokio::sync::mpsc;
use tract_actors::ports::{Endpoint, FileInfo, FileToken, KeptAnswer, StoreError};
use tract_domain::{ClientId, UserId};
use xxhash_rust::xxh3::xxh3_128;

/// Records that are asked for together.
const CHUNK: usize = 256;

/// Threads whose first entries are asked for together.
const THREADS: usize = 32;

const FORM: Fault = Fault::Unreadable("something is not of its form");

type Fields = HashMap<String, String>;

/// A part on its way to whoever reads it.
pub(super) struct Reading {
    pub(super) reader: Reader,
    pub(super) place: Place,
    pub(super) pages: mpsc::Sender<Result<Vec<Record>, StoreError>>,
    /// What is not sent yet.
    pub(super) page: Vec<Record>,
}

impl Reading {
    /// Reads a part and sends it on.
    pub(super) async fn read(mut self, part: Part) {
        let read = match self.part(part).await {
            Ok(()) => self.flush().await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = read {
            // Whoever has gone away needs no answer.
            let _ = self.pages.send(Err(fault.told())).await;
        }
    }

    /// Sends these on, with others if they are few.
    async fn send(&mut self, mut records: Vec<Record>) -> Result<(), Fault> {
        self.page.append(&mut records);
        if is_full(&self.page, CHUNK) { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        if self.page.is_empty() {
            return Ok(());
        }
        self.pages.send(Ok(std::mem::take(&mut self.page))).await.map_err(|_| Fault::Closed)
    }

    async fn part(&mut self, part: Part) -> Result<(), Fault> {
        match part {
            Part::Config => self.config().await,
            Part::Partition(n) => self.partition(Partition(n)).await,
            Part::Waiting | Part::Letters => {
                for n in 0..self.place.partitions {
                    for endpoint in self.known(Partition(n)).await? {
                        self.deliveries(part, Partition(n), &endpoint).await?;
                    }
                }
                Ok(())
            }
            Part::Received => self.received().await,
            Part::Answers => self.answers().await,
            Part::Requests => self.requests().await,
        }
    }

    /// The endpoints that a partition knows.
    async fn known(&mut self, partition: Partition) -> Result<BTreeSet<Endpoint>, Fault> {
        let names: Vec<String> = self.reader.one(command!("SMEMBERS", partition.endpoints())).await?;
        Ok(names.iter().map(|name| Endpoint::from_name(name)).collect())
    }

    async fn config(&mut self) -> Result<(), Fault> {
        let revision: Option<u64> = self.reader.one(command!("HGET", keys::CONFIG_HEAD, "revision")).await?;
        let heads = (0..self.place.partitions).map(|n| command!("HGET", Partition(n).head(), "outbox")).collect();
        let heads: Vec<Option<u64>> = self.reader.all(heads).await?;
        let last = rank_of(heads.into_iter().flatten().max().unwrap_or(0), self.place);
        let mut page = vec![Record::Revision { revision: revision.unwrap_or(0) }, Record::Deliveries { last }];
        let documents: BTreeMap<String, String> = self.reader.one(command!("HGETALL", keys::DOCUMENTS)).await?;
        for (name, body) in documents {
            let (of, id) = name.split_once(SEPARATOR).ok_or(FORM)?;
            page.push(Record::Document { of: of.to_owned(), id: id.to_owned(), body });
        }
        for (endpoint, status) in super::delivery_query::endpoints(&mut self.reader, self.place).await? {
            page.push(Record::Endpoint {
                name: endpoint.name().to_owned(),
                last_success_at: status.last_success_at.map(|at| at.0),
                last_error: status.last_error,
            });
        }
        self.send(page).await
    }

    async fn partition(&mut self, partition: Partition) -> Result<(), Fault> {
        const HEAD: [&str; 5] = ["counter", "left_version", "left_sequence", "left_epoch", "left_conversation"];
        let head: Vec<Option<u64>> = self.reader.one(command!("HMGET", partition.head(), &HEAD)).await?;
        let head = |n: usize| head.get(n).copied().flatten().unwrap_or(0);
        let n = partition.0;
        let counter = Record::Counter { partition: n, last: head(0) };
        let (version, sequence, control_epoch, conversation) = (head(1), head(2), head(3), head(4));
        let origin = Record::Origin { partition: n, version, sequence, control_epoch, conversation };
        self.send(vec![counter, origin]).await?;

        let (mut after, mut users) = ("-inf".to_owned(), HashSet::new());
        loop {
            let range =
                command!("ZRANGE", partition.threads(), &after, "+inf", "BYSCORE", "LIMIT", 0, THREADS, "WITHSCORES");
            let found: Vec<(String, u64)> = self.reader.one(range).await?;
            let Some((_, last)) = found.last() else { return self.unnamed_files(partition).await };
            after = format!("({last}");
            self.threads(partition, &found, &mut users).await?;
        }
    }

    /// Files that these threads' entries name.
    async fn files(&mut self, partition: Partition, user_ids: &[UserId]) -> Result<(), Fault> {
        let all = |id: &UserId| command!("ZRANGE", partition.files(id), 0, -1, "WITHSCORES");
        let found: Vec<Vec<(String, u64)>> = self.reader.all(user_ids.iter().map(all).collect()).await?;
        for (token, sequence) in found.into_iter().flatten() {
            self.file(partition, &files::read_token(&token)?, Some(sequence)).await?;
        }
        Ok(())
    }

    /// Files that no entry names as far as is known. The one list is written before the other.
    async fn unnamed_files(&mut self, partition: Partition) -> Result<(), Fault> {
        let listed: Vec<String> = self.reader.one(command!("ZRANGE", partition.unnamed(), 0, -1)).await?;
        for text in listed {
            let (user_id, token) = files::read_listed(&text)?;
            let named = command!("ZSCORE", partition.files(&user_id), token.expose());
            if self.reader.one::<Option<u64>>(named).await?.is_none() {
                self.file(partition, &token, None).await?;
            }
        }
        Ok(())
    }

    /// A file with its pieces, if it is there.
    async fn file(&mut self, partition: Partition, token: &FileToken, sequence: Option<u64>) -> Result<(), Fault> {
        let key = partition.file(token);
        let form = self.reader.one(command!("HMGET", &key, &files::FIELDS)).await?;
        let Some(FileInfo { user_id, content_type, name, size, at }) = files::read_info(form)? else { return Ok(()) };
        let (token, user_id) = (token.expose().to_owned(), user_id.to_string());
        let file = Record::File { token: token.clone(), user_id, sequence, content_type, name, size, at: at.0 };
        self.send(vec![file]).await?;
        for number in 0.. {
            let piece: Option<Vec<u8>> = self.reader.one(command!("HGET", &key, number)).await?;
            let Some(bytes) = piece else { break };
            self.send(vec![Record::Piece { token: token.clone(), number, bytes }]).await?;
        }
        Ok(())
    }

    async fn threads(
        &mut self,
        partition: Partition,
        found: &[(String, u64)],
        users: &mut HashSet<u128>,
    ) -> Result<(), Fault> {
        let user_ids: Vec<UserId> =
            found.iter().map(|(id, _)| UserId::new(id)).collect::<Result<_, _>>().map_err(|_| FORM)?;
        let get = user_ids.iter().map(|id| command!("HGETALL", partition.thread(id))).collect();
        let fields: Vec<Fields> = self.reader.all(get).await?;
        let (mut page, mut new) = (Vec::new(), Vec::new());
        for ((user_id, number), fields) in found.iter().zip(fields) {
            let thread = thread(user_id, *number, fields)?;
            if users.insert(xxh3_128(format!("{}:{}", thread.client, thread.auth_id).as_bytes())) {
                new.push((thread.client.clone(), thread.auth_id.clone()));
            }
            page.push(Record::Thread(thread));
        }
        let mut get = Vec::with_capacity(new.len());
        for (client, auth_id) in &new {
            let client = ClientId::new(client).map_err(|_| FORM)?;
            get.push(command!("HGETALL", partition.user(&client, auth_id)));
        }
        let fields: Vec<Fields> = self.reader.all(get).await?;
        for ((client, auth_id), fields) in new.into_iter().zip(fields) {
            page.extend(user(client, auth_id, fields)?);
        }
        self.send(page).await?;
        self.entries(partition, &user_ids).await?;
        self.files(partition, &user_ids).await
    }

    async fn entries(&mut self, partition: Partition, user_ids: &[UserId]) -> Result<(), Fault> {
        type Found = Vec<(String, Vec<String>)>;
        let range = |id: &UserId, from: &str| command!("XRANGE", partition.entries(id), from, "+", "COUNT", CHUNK);
        let first: Vec<Found> = self.reader.all(user_ids.iter().map(|id| range(id, "-")).collect()).await?;
        for (user_id, mut found) in user_ids.iter().zip(first) {
            loop {
                let full = found.len() == CHUNK;
                let last = found.last().map(|(id, _)| format!("({id}"));
                let entry = |(id, fields): (String, Vec<String>)| entry(user_id, &id, fields);
                self.send(found.into_iter().map(entry).collect::<Result<_, _>>()?).await?;
                match last.filter(|_| full) {
                    Some(last) => found = self.reader.one(range(user_id, &last)).await?,
                    None => break,
                }
            }
        }
        Ok(())
    }

    async fn deliveries(&mut self, part: Part, partition: Partition, endpoint: &Endpoint) -> Result<(), Fault> {
        let (set, hash) = match part {
            Part::Letters => (partition.dead(endpoint), partition.letters(endpoint)),
            _ => (partition.waiting(endpoint), partition.outbox(endpoint)),
        };
        let mut offset = 0;
        loop {
            let range = command!("ZRANGE", &set, offset, offset + CHUNK - 1, "WITHSCORES");
            let members: Vec<(String, u64)> = self.reader.one(range).await?;
            if members.is_empty() {
                return Ok(());
            }
            let names: Vec<&String> = members.iter().map(|(name, _)| name).collect();
            let forms: Vec<Option<Vec<u8>>> = self.reader.one(command!("HMGET", &hash, names)).await?;
            let mut page = Vec::with_capacity(members.len());
            for ((_, id), form) in members.iter().zip(forms) {
                let delivery = self.record(endpoint, *id, &form.ok_or(FORM)?)?;
                page.push(Record::Delivery(if part == Part::Letters { delivery.into_letter() } else { delivery }));
            }
            self.send(page).await?;
            offset += CHUNK;
        }
    }

    fn record(&self, endpoint: &Endpoint, id: u64, form: &[u8]) -> Result<DeliveryRecord, Fault> {
        DeliveryForm::read(form)?.record(endpoint, rank_of(id, self.place))
    }

    /// What was received of threads that are there.
    async fn received(&mut self) -> Result<(), Fault> {
        let mut endpoints = BTreeSet::new();
        for n in 0..self.place.partitions {
            endpoints.extend(self.known(Partition(n)).await?);
        }
        for endpoint in endpoints {
            let set = keys::received(&endpoint);
            let mut offset = 0;
            loop {
                let range = command!("ZRANGE", &set, offset, offset + CHUNK - 1, "WITHSCORES");
                let members: Vec<(Vec<u8>, u64)> = self.reader.one(range).await?;
                if members.is_empty() {
                    break;
                }
                let (mut page, mut exist) = (Vec::new(), Vec::new());
                for (form, id) in &members {
                    let delivery = self.record(&endpoint, *id, form)?;
                    let user_id = UserId::new(&delivery.user_id).map_err(|_| FORM)?;
                    exist.push(command!("EXISTS", self.place.home_of_delivery(*id).thread(&user_id)));
                    page.push(Record::Delivery(delivery.into_received()));
                }
                let mut exist = self.reader.all::<bool>(exist).await?.into_iter();
                page.retain(|_| exist.next().unwrap_or(false));
                self.send(page).await?;
                offset += CHUNK;
            }
        }
        Ok(())
    }

    async fn answers(&mut self) -> Result<(), Fault> {
        let all = (0..self.place.partitions).map(|n| Home::Partition(Partition(n)));
        for home in all.chain([Home::Configuration]) {
            let mut offset = 0;
            loop {
                let range = command!("ZRANGE", home.answer_expiries(), offset, offset + CHUNK - 1);
                let keys: Vec<String> = self.reader.one(range).await?;
                if keys.is_empty() {
                    break;
                }
                let found: Vec<Option<String>> = self.reader.one(command!("HMGET", home.answers(), &keys)).await?;
                // One that is kept in two places is moved from where it is going to be.
                let mut elsewhere = Vec::with_capacity(keys.len());
                for key in &keys {
                    let other = Home::Partition(self.place.home_of_hash(&unhex(key).ok_or(FORM)?));
                    elsewhere.push((other != home, command!("HEXISTS", other.answers(), key)));
                }
                let (differs, asked): (Vec<bool>, Vec<_>) = elsewhere.into_iter().unzip();
                let known: Vec<bool> = self.reader.all(asked).await?;
                let mut page = Vec::with_capacity(keys.len());
                for (((key, value), differs), known) in keys.iter().zip(found).zip(differs).zip(known) {
                    if !(differs && known) {
                        page.push(answer(key, &value.ok_or(FORM)?)?);
                    }
                }
                self.send(page).await?;
                offset += CHUNK;
            }
        }
        Ok(())
    }

    async fn requests(&mut self) -> Result<(), Fault> {
        for n in 0..self.place.partitions {
            let mut offset = 0;
            loop {
                let set = Home::Partition(Partition(n)).request_expiries();
                let range = command!("ZRANGE", set, offset, offset + CHUNK - 1, "WITHSCORES");
                let found: Vec<(String, i64)> = self.reader.one(range).await?;
                if found.is_empty() {
                    break;
                }
                let request = |(key, until): (String, i64)| {
                    Ok::<_, Fault>(Record::Request { key: unhex(&key).ok_or(FORM)?, until })
                };
                self.send(found.into_iter().map(request).collect::<Result<_, _>>()?).await?;
                offset += CHUNK;
            }
        }
        Ok(())
    }
}

/// The rank of a delivery: its id, or what it had in an embedded store that it was moved from.
fn rank_of(id: u64, place: Place) -> u64 {
    let counter = id / u64::from(place.partitions);
    if counter < EMBEDDED_RANKS { counter } else { id }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|_| FORM)
}

fn uuid(text: &str) -> Result<uuid::Uuid, Fault> {
    uuid::Uuid::parse_str(text).map_err(|_| FORM)
}

fn thread(user_id: &str, at: u64, mut fields: Fields) -> Result<ThreadRecord, Fault> {
    let mut take = |name: &str| fields.remove(name);
    Ok(ThreadRecord {
        number: at,
        user_id: user_id.to_owned(),
        deadline: take("deadline").as_deref().map(number).transpose()?,
        commit_id: take("commit_id").as_deref().map(uuid).transpose()?,
        client: take("client").ok_or(FORM)?,
        business: number(&take("business").ok_or(FORM)?)?,
        auth_id: take("auth_id").ok_or(FORM)?,
        version: number(&take("version").ok_or(FORM)?)?,
        sequence: number(&take("sequence").ok_or(FORM)?)?,
        state: take("state").ok_or(FORM)?,
        active: take("active").ok_or(FORM)?,
        snapshot: take("snapshot").ok_or(FORM)?,
    })
}

/// A user, if it is there.
fn user(client: String, auth_id: String, mut fields: Fields) -> Result<Option<Record>, Fault> {
    let Some(version) = fields.remove("version") else { return Ok(None) };
    let commit_id = fields.remove("commit_id").as_deref().map(uuid).transpose()?;
    let profile = fields.remove("profile").ok_or(FORM)?;
    let user_details = fields.remove("user_details");
    let names = fields.into_iter().filter_map(|(field, name)| Some((field.strip_prefix("ect:")?.to_owned(), name)));
    let (version, ect_user_ids) = (number(&version)?, names.collect());
    Ok(Some(Record::User { client, auth_id, version, commit_id, profile, user_details, ect_user_ids }))
}

fn entry(user_id: &UserId, id: &str, fields: Vec<String>) -> Result<Record, Fault> {
    let sequence = number(id.strip_suffix("-0").ok_or(FORM)?)?;
    let mut fields: Fields = fields.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    Ok(Record::Entry {
        user_id: user_id.as_str().to_owned(),
        sequence,
        message_id: number(&fields.remove("id").ok_or(FORM)?)?,
        commit_id: fields.remove("commit_id").as_deref().map(uuid).transpose()?,
        entry: fields.remove("entry").ok_or(FORM)?,
    })
}

fn answer(key: &str, value: &str) -> Result<Record, Fault> {
    let mut parts = value.splitn(4, ' ');
    let mut next = || parts.next().ok_or(FORM);
    let (expires_at, request, ids, form) = (next()?, next()?, next()?, next()?);
    let mut answer = record::read_kept(form)?;
    if let KeptAnswer::Thread { message_ids, .. } = &mut answer {
        *message_ids = ids.split(',').filter(|id| !id.is_empty()).map(number).collect::<Result<_, _>>()?;
    }
    let (key, request) = (unhex(key).ok_or(FORM)?, unhex(request).ok_or(FORM)?);
    Ok(Record::Answer { key, request, expires_at: number(expires_at)?, answer })
}
