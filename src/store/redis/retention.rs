//! Retention: what is old leaves.

use super::{
    RedisStore,
    fault::{Fault, read},
    form::DeliveryForm,
    keys::Partition,
    other_step,
    reader::{Reader, command},
    script::{Call, Script},
    writer::{Step, Told, Turn},
};
use ::redis::Value;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tract_actors::ports::{
    CLOCK_SLACK_MS, Endpoint, EndpointKind, Leave, Owed, Retention, Store, StoreError, ThreadKey, Written,
};
use tract_domain::{BusinessId, ClientId, Origin, Timestamp, UserId};

/// Records that are looked at together.
const CHUNK: usize = 500;

#[async_trait]
impl Retention for RedisStore {
    async fn origin(&self, user_id: &UserId) -> Result<Origin, StoreError> {
        let Some(partition) = self.partition(user_id) else { return Ok(Origin::default()) };
        let command = command!("HMGET", partition.head(), "left_sequence", "left_epoch", "left_conversation");
        let left: (Option<u64>, Option<u64>, Option<u64>) = self.reader().await?.one(command).await?;
        let (sequence, control_epoch, conversation) = (left.0.unwrap_or(0), left.1.unwrap_or(0), left.2.unwrap_or(0));
        Ok(Origin { sequence, control_epoch, conversation })
    }

    async fn owed(&self, threads: &[ThreadKey], before: Timestamp) -> Result<Vec<Owed>, StoreError> {
        let mut reader = self.reader().await?;
        let mut partitions: BTreeMap<Partition, Vec<&ThreadKey>> = BTreeMap::new();
        for key in threads {
            if let Some(partition) = self.partition(&key.user_id) {
                partitions.entry(partition).or_default().push(key);
            }
        }
        let mut found: HashMap<UserId, Owed> = HashMap::new();
        for (partition, keys) in partitions {
            let clients: BTreeSet<&ClientId> = keys.iter().map(|key| &key.client).collect();
            for endpoint in endpoints(&mut reader, partition, &clients).await? {
                let search = Search { partition, endpoint: &endpoint, until: before.plus(CLOCK_SLACK_MS) };
                search.whole(&mut reader, &mut found).await?;
            }
        }
        Ok(threads.iter().map(|key| found.get(&key.user_id).copied().unwrap_or_default()).collect())
    }

    async fn trim_feed(&self, user_id: &UserId, through: u64, most: usize) -> Result<u64, StoreError> {
        let Some(partition) = self.partition(user_id) else { return Ok(0) };
        let mut call = Call::new(Script::TrimFeed);
        call.key(partition.entries(user_id)).number(through).number(most);
        Ok(self.writer.ask(other_step::counted(vec![call])).await?.iter().sum())
    }

    async fn leave(&self, leave: Leave) -> Result<Written, StoreError> {
        let Some(partition) = self.partition(&leave.user_id) else { return Ok(Written::Applied) };
        let mut reader = self.reader().await?;
        let fields = command!("HMGET", partition.thread(&leave.user_id), "client", "auth_id");
        let (client, auth_id): (Option<String>, Option<String>) = reader.one(fields).await?;
        let Some((client, auth_id)) = client.zip(auth_id) else { return Ok(Written::Applied) };
        let client = ClientId::new(&client).map_err(|_| Fault::Unreadable("an identifier is not one"))?;
        let user = partition.user(&client, &auth_id);
        // First the user's version: a thread that is opened after this changes it.
        let user_version: Option<String> = reader.one(command!("HGET", &user, "version")).await?;
        let mut siblings = Vec::new();
        for business in businesses(&mut reader, partition, &client).await? {
            let sibling = self.user_id(&client, business, &auth_id);
            if sibling != leave.user_id {
                siblings.push(partition.thread(&sibling));
            }
        }

        let mut call = Call::new(Script::Leave);
        call.key(partition.head()).key(partition.thread(&leave.user_id)).key(partition.entries(&leave.user_id));
        call.key(partition.threads()).key(partition.deadlines()).key(partition.counts()).key(user);
        call.text(leave.user_id.as_str()).number(leave.expected_version).text(user_version.unwrap_or_default());
        call.number(leave.thread.sequence()).number(leave.thread.control().epoch).number(leave.thread.conversation());
        call.number(siblings.len()).keys(siblings);
        self.writer.ask(Leaving(Some(call))).await
    }
}

/// The step in which a thread leaves.
struct Leaving(Option<Call>);

impl Step for Leaving {
    type Outcome = Written;

    fn calls(&mut self) -> Result<Vec<Call>, Fault> {
        Ok(self.0.take().into_iter().collect())
    }

    fn answered(&mut self, mut replies: Vec<Value>) -> Result<Turn<Written>, Fault> {
        let answer: String = read(replies.pop().ok_or(Fault::Unreadable("no reply"))?)?;
        let written = if answer == "applied" { Written::Applied } else { Written::Conflict };
        Ok(Turn::Done(written, Told::default()))
    }
}

/// The businesses of a client that have threads in a partition.
async fn businesses(
    reader: &mut Reader,
    partition: Partition,
    client: &ClientId,
) -> Result<BTreeSet<BusinessId>, Fault> {
    let kinds: Vec<String> = reader.one(command!("HKEYS", partition.counts())).await?;
    let of_client = |kind: &String| {
        let mut parts = kind.split(':');
        (parts.next() == Some(client.as_str())).then(|| parts.next()?.parse().ok())?
    };
    Ok(kinds.iter().filter_map(of_client).collect())
}

/// The endpoints of these clients that anything of a partition was ever addressed to.
async fn endpoints(
    reader: &mut Reader,
    partition: Partition,
    clients: &BTreeSet<&ClientId>,
) -> Result<Vec<Endpoint>, Fault> {
    let names: Vec<String> = reader.one(command!("SMEMBERS", partition.endpoints())).await?;
    let all = names.iter().map(|name| Endpoint::from_name(name));
    let of_clients = |endpoint: &Endpoint| match endpoint.kind() {
        EndpointKind::Hook { client, .. } | EndpointKind::Channel { client, .. } | EndpointKind::Iva { client } => {
            clients.contains(&client)
        }
        EndpointKind::Unknown => true,
    };
    Ok(all.filter(of_clients).collect())
}

/// How an endpoint fares in a partition: what waits, dead letters, and the last of these that was put back.
type Status = (Option<u64>, Option<u64>, Option<u64>);

/// A search for what is owed to one endpoint in one partition.
struct Search<'a> {
    partition: Partition,
    endpoint: &'a Endpoint,
    until: Timestamp,
}

impl Search<'_> {
    async fn status(&self, reader: &mut Reader) -> Result<Status, Fault> {
        reader.one(command!("HMGET", self.partition.status(self.endpoint), "pending", "dead", "replayed")).await
    }

    /// What waits, then dead letters, so that what becomes one meanwhile is seen; again, if letters were put back meanwhile.
    async fn whole(&self, reader: &mut Reader, found: &mut HashMap<UserId, Owed>) -> Result<(), Fault> {
        let mut status = self.status(reader).await?;
        loop {
            let (pending, _, replayed) = status;
            if pending.unwrap_or(0) > 0 {
                self.waiting(reader, replayed.unwrap_or(0), found).await?;
            }
            self.letters(reader, found).await?;
            let after = self.status(reader).await?;
            if after.2 == replayed {
                return Ok(());
            }
            status = after;
        }
    }

    /// What waits since before that time; and up to the last that was put back, which stands behind what is newer.
    async fn waiting(
        &self,
        reader: &mut Reader,
        replayed: u64,
        found: &mut HashMap<UserId, Owed>,
    ) -> Result<(), Fault> {
        let (set, hash) = (self.partition.waiting(self.endpoint), self.partition.outbox(self.endpoint));
        let mut after = 0;
        loop {
            let range = command!("ZRANGE", &set, format!("({after}"), "+inf", "BYSCORE", "LIMIT", 0, CHUNK);
            let ids: Vec<u64> = reader.one(range).await?;
            let Some(last) = ids.last().copied() else { return Ok(()) };
            let forms = forms(reader, &hash, &ids).await?;
            let young = forms.iter().any(|form| form.created_at() > self.until);
            add(found, &forms)?;
            if ids.len() < CHUNK || (young && last >= replayed) {
                return Ok(());
            }
            after = last;
        }
    }

    async fn letters(&self, reader: &mut Reader, found: &mut HashMap<UserId, Owed>) -> Result<(), Fault> {
        let hash = self.partition.letters(self.endpoint);
        let mut cursor = 0_u64;
        loop {
            let scan = command!("HSCAN", &hash, cursor, "COUNT", CHUNK);
            let (next, fields): (u64, Vec<Vec<u8>>) = reader.one(scan).await?;
            let forms = fields.chunks_exact(2).map(|field| DeliveryForm::read(&field[1]));
            add(found, &forms.collect::<Result<Vec<_>, _>>()?)?;
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

async fn forms(reader: &mut Reader, hash: &str, fields: &[u64]) -> Result<Vec<DeliveryForm>, Fault> {
    let found: Vec<Option<Vec<u8>>> = reader.one(command!("HMGET", hash, fields)).await?;
    found.into_iter().flatten().map(|form| DeliveryForm::read(&form)).collect()
}

fn add(found: &mut HashMap<UserId, Owed>, forms: &[DeliveryForm]) -> Result<(), Fault> {
    for form in forms {
        let (user_id, what, sequence) = form.about()?;
        found.entry(user_id).or_default().add(what, sequence);
    }
    Ok(())
}
