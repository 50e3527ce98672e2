//! What is read of threads, users and the configuration.

use super::{
    fault::Fault,
    keys::{self, Partition},
    other_step::SEPARATOR,
    reader::{Reader, command},
    thread_step::{Place, hex},
};
use crate::store::record;
use std::collections::{BTreeMap, HashMap};
use tract_actors::ports::{
    Document, Documents, IdempotencyKey, Kept, KeptAnswer, StoredEntry, StoredThread, StoredUser, ThreadKey,
    ThreadPage, ThreadQuery,
};
use tract_domain::{BusinessId, ClientId, Json, ReceiverId, State, Timestamp, UserId};
use uuid::Uuid;

const UNREADABLE: Fault = Fault::Unreadable("an identifier is not one");

/// Threads that are looked at together when they are searched.
const CHUNK: usize = 500;

type ThreadFields =
    (Option<String>, Option<String>, Option<String>, Option<u64>, Option<String>, Option<i64>, Option<String>);

fn thread_command(partition: Partition, user_id: &UserId) -> ::redis::Cmd {
    let key = partition.thread(user_id);
    command!("HMGET", key, "client", "business", "auth_id", "version", "commit_id", "deadline", "snapshot")
}

fn stored_thread(user_id: &UserId, fields: ThreadFields) -> Result<Option<StoredThread>, Fault> {
    let (Some(client), Some(business), Some(auth_id), Some(version), commit_id, deadline, Some(snapshot)) = fields
    else {
        return Ok(None);
    };
    Ok(Some(StoredThread {
        key: ThreadKey {
            user_id: user_id.clone(),
            client: ClientId::new(&client).map_err(|_| UNREADABLE)?,
            business: business.parse().map_err(|_| UNREADABLE)?,
            auth_id: auth_id.into(),
        },
        version,
        commit_id: commit_id.as_deref().and_then(uuid),
        deadline: deadline.map(Timestamp),
        thread: record::read_thread(&snapshot)?,
    }))
}

/// A commit id as it is stored; what is no UUID is nobody's.
fn uuid(text: &str) -> Option<Uuid> {
    Uuid::parse_str(text).ok()
}

pub(super) async fn thread(
    reader: &mut Reader,
    partition: Partition,
    user_id: &UserId,
) -> Result<Option<StoredThread>, Fault> {
    stored_thread(user_id, reader.one(thread_command(partition, user_id)).await?)
}

/// Whose thread it is, which never changes.
pub(super) async fn user_of(
    reader: &mut Reader,
    partition: Partition,
    user_id: &UserId,
) -> Result<Option<String>, Fault> {
    let fields = reader.one(command!("HMGET", partition.thread(user_id), "client", "auth_id")).await?;
    let (Some(client), Some(auth_id)): (Option<String>, Option<String>) = fields else { return Ok(None) };
    Ok(Some(partition.user(&ClientId::new(&client).map_err(|_| UNREADABLE)?, &auth_id)))
}

pub(super) async fn feed(
    reader: &mut Reader,
    partition: Partition,
    user_id: &UserId,
    after: u64,
    limit: usize,
) -> Result<Vec<StoredEntry>, Fault> {
    // Sequences are below 2^32, and a stream's own ids end at 2^64.
    let Some(first) = after.checked_add(1).filter(|_| limit > 0) else { return Ok(Vec::new()) };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let range = command!("XRANGE", partition.entries(user_id), first, "+", "COUNT", limit);
    let found: Vec<(String, Vec<String>)> = reader.one(range).await?;
    let mut entries = Vec::with_capacity(found.len());
    for (_, fields) in found {
        let (Some(id), Some(form)) = (fields.get(1), fields.get(3)) else {
            return Err(Fault::Unreadable("an entry is not of its form"));
        };
        let message_id = id.parse().map_err(|_| UNREADABLE)?;
        entries.push(StoredEntry { message_id, entry: record::read_entry(form)? });
    }
    Ok(entries)
}

/// A page of threads: partition by partition, within each in the order of their creation. The cursor is the last one's
/// partition and number.
pub(super) async fn threads(reader: &mut Reader, place: Place, query: &ThreadQuery) -> Result<ThreadPage, Fault> {
    let mut page = ThreadPage::default();
    let begin = match query.cursor.as_deref() {
        None => Some((0, 0)),
        Some(cursor) => cursor.split_once('.').and_then(|(p, n)| Some((p.parse().ok()?, n.parse().ok()?))),
    };
    // No cursor of ours: nothing comes after it.
    let Some((begin, mut after)) = begin else { return Ok(page) };
    let counts = (begin..place.partitions).map(|n| command!("ZCARD", Partition(n).threads())).collect();
    let counts: Vec<u64> = reader.all(counts).await?;
    let mut last = (begin, after);
    for (n, count) in (begin..place.partitions).zip(counts) {
        let partition = Partition(n);
        let mut more = count > 0;
        while more {
            let range = command!(
                "ZRANGE",
                partition.threads(),
                format!("({after}"),
                "+inf",
                "BYSCORE",
                "LIMIT",
                0,
                CHUNK,
                "WITHSCORES"
            );
            let found: Vec<(String, u64)> = reader.one(range).await?;
            more = found.len() == CHUNK;
            let user_ids: Vec<_> =
                found.iter().map(|(id, _)| UserId::new(id)).collect::<Result<_, _>>().map_err(|_| UNREADABLE)?;
            let commands = user_ids.iter().map(|id| thread_command(partition, id)).collect();
            let fields: Vec<ThreadFields> = reader.all(commands).await?;
            for ((user_id, (_, number)), fields) in user_ids.iter().zip(&found).zip(fields) {
                after = *number;
                let Some(thread) = stored_thread(user_id, fields)? else { continue };
                if !is_asked_for(query, &thread) {
                    continue;
                }
                if page.threads.len() == query.limit {
                    page.next = Some(format!("{}.{}", last.0, last.1));
                    return Ok(page);
                }
                page.threads.push(thread);
                last = (n, *number);
            }
        }
        after = 0;
    }
    Ok(page)
}

fn is_asked_for(query: &ThreadQuery, thread: &StoredThread) -> bool {
    let ThreadQuery { client, state, active, q, .. } = query;
    client.as_ref().is_none_or(|client| thread.key.client == *client)
        && state.is_none_or(|state| thread.thread.state() == state)
        && active.as_ref().is_none_or(|active| thread.thread.control().active == *active)
        && q.as_deref().is_none_or(|q| *thread.key.auth_id == *q || thread.key.user_id.as_str().starts_with(q))
}

/// How many threads there are of each client, business, state and receiver.
async fn counts(reader: &mut Reader, place: Place) -> Result<Vec<(String, u64)>, Fault> {
    let commands = (0..place.partitions).map(|n| command!("HGETALL", Partition(n).counts())).collect();
    let all: Vec<HashMap<String, u64>> = reader.all(commands).await?;
    Ok(all.into_iter().flatten().collect())
}

pub(super) async fn states(reader: &mut Reader, place: Place) -> Result<BTreeMap<State, u64>, Fault> {
    let mut states: BTreeMap<State, u64> = State::ALL.into_iter().map(|state| (state, 0)).collect();
    for (kind, count) in counts(reader, place).await? {
        let name = kind.split(':').nth(2);
        if let Some((_, sum)) = states.iter_mut().find(|(state, _)| Some(state.as_str()) == name) {
            *sum += count;
        }
    }
    Ok(states)
}

pub(super) async fn count_threads(
    reader: &mut Reader,
    place: Place,
    client: Option<&ClientId>,
    business: Option<BusinessId>,
    active: Option<&ReceiverId>,
) -> Result<u64, Fault> {
    let business = business.map(|business| business.to_string());
    let asked = [client.map(ClientId::as_str), business.as_deref(), None, active.map(ReceiverId::as_str)];
    let of_kind = |kind: &str| kind.split(':').zip(asked).all(|(is, asked)| asked.is_none_or(|asked| asked == is));
    let all = counts(reader, place).await?;
    Ok(all.into_iter().filter(|(kind, _)| of_kind(kind)).map(|(_, count)| count).sum())
}

/// The earliest timers of these partitions, at or before a time.
async fn timers(reader: &mut Reader, strands: &[u16], until: &str, limit: usize) -> Result<Vec<(i64, String)>, Fault> {
    let limit = limit.min(1_000_000);
    let range = |n: &u16| {
        let key = Partition(*n).deadlines();
        command!("ZRANGE", key, "-inf", until, "BYSCORE", "LIMIT", 0, limit, "WITHSCORES")
    };
    // Those of servers that are away come later.
    let found: Vec<Option<Vec<(String, i64)>>> = reader.partly(strands.iter().map(range).collect()).await?;
    let mut timers: Vec<_> = found.into_iter().flatten().flatten().map(|(user_id, at)| (at, user_id)).collect();
    timers.sort_unstable();
    timers.truncate(limit);
    Ok(timers)
}

pub(super) async fn due(
    reader: &mut Reader,
    strands: &[u16],
    now: Timestamp,
    limit: usize,
) -> Result<Vec<UserId>, Fault> {
    let timers = timers(reader, strands, &now.0.to_string(), limit).await?;
    timers.into_iter().map(|(_, user_id)| UserId::new(&user_id).map_err(|_| UNREADABLE)).collect()
}

pub(super) async fn next_due(reader: &mut Reader, strands: &[u16]) -> Result<Option<Timestamp>, Fault> {
    Ok(timers(reader, strands, "+inf", 1).await?.first().map(|(at, _)| Timestamp(*at)))
}

pub(super) async fn kept(
    reader: &mut Reader,
    place: Place,
    key: &IdempotencyKey,
    now: Timestamp,
) -> Result<Option<Kept>, Fault> {
    let homes = std::iter::once(place.home_of_key(key)).chain(place.other_home_of_key(key));
    let commands = homes.map(|home| command!("HGET", home.answers(), hex(&key.key))).collect();
    for value in reader.all::<Option<String>>(commands).await?.into_iter().flatten() {
        if let Some(kept) = read_kept(&value, now)? {
            return Ok(Some(kept));
        }
    }
    Ok(None)
}

fn read_kept(value: &str, now: Timestamp) -> Result<Option<Kept>, Fault> {
    const FORM: Fault = Fault::Unreadable("a kept answer is not of its form");
    let mut parts = value.splitn(4, ' ');
    let (Some(expires_at), Some(request), Some(ids), Some(answer)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(FORM);
    };
    if expires_at.parse::<i64>().map_err(|_| FORM)? <= now.0 {
        return Ok(None);
    }
    let mut answer = record::read_kept(answer)?;
    if let KeptAnswer::Thread { message_ids, .. } = &mut answer {
        let ids = ids.split(',').filter(|id| !id.is_empty()).map(|id| id.parse().map_err(|_| FORM));
        *message_ids = ids.collect::<Result<_, _>>()?;
    }
    Ok(Some(Kept { request: unhex(request).ok_or(FORM)?, answer }))
}

pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(bytes)
}

pub(super) async fn user(
    reader: &mut Reader,
    partition: Partition,
    client: &ClientId,
    auth_id: &str,
) -> Result<Option<StoredUser>, Fault> {
    let mut fields: HashMap<String, String> = reader.one(command!("HGETALL", partition.user(client, auth_id))).await?;
    let (Some(version), Some(profile)) = (fields.remove("version"), fields.remove("profile")) else { return Ok(None) };
    let user_details = fields.remove("user_details").map(|details| Json(details.into()));
    let mut ect_user_ids = BTreeMap::new();
    for (field, name) in fields {
        if let Some(ect) = field.strip_prefix("ect:") {
            ect_user_ids.insert(ReceiverId::new(ect).map_err(|_| UNREADABLE)?, name);
        }
    }
    let version = version.parse().map_err(|_| UNREADABLE)?;
    Ok(Some(StoredUser { version, profile: Json(profile.into()), user_details, ect_user_ids }))
}

pub(super) async fn version(
    reader: &mut Reader,
    partition: Partition,
    user_id: &UserId,
) -> Result<Option<(u64, Option<Uuid>)>, Fault> {
    let fields = reader.one(command!("HMGET", partition.thread(user_id), "version", "commit_id")).await?;
    let (version, commit_id): (Option<u64>, Option<String>) = fields;
    Ok(version.map(|version| (version, commit_id.as_deref().and_then(uuid))))
}

pub(super) async fn revision(reader: &mut Reader) -> Result<(u64, Option<Uuid>), Fault> {
    let fields = reader.one(command!("HMGET", keys::CONFIG_HEAD, "revision", "write_id")).await?;
    let (revision, write_id): (Option<u64>, Option<String>) = fields;
    Ok((revision.unwrap_or(0), write_id.as_deref().and_then(uuid)))
}

pub(super) async fn documents(reader: &mut Reader) -> Result<Documents, Fault> {
    loop {
        // Not one step: when the revision has changed meanwhile, read again.
        let before = revision(reader).await?;
        let fields: BTreeMap<String, String> = reader.one(command!("HGETALL", keys::DOCUMENTS)).await?;
        if before != revision(reader).await? {
            continue;
        }
        let document = |(name, body): (String, String)| {
            let (kind, id) = name.split_once(SEPARATOR).ok_or(UNREADABLE)?;
            Ok::<_, Fault>(Document { kind: kind.to_owned(), id: id.to_owned(), body })
        };
        let documents = fields.into_iter().map(document).collect::<Result<_, _>>()?;
        let (revision, write_id) = before;
        return Ok(Documents { revision, write_id, documents });
    }
}
