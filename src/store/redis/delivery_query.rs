//! What is read of deliveries, over all partitions.

use super::{
    delivery_step::Letter,
    fault::{Fault, read},
    form::DeliveryForm,
    keys::{self, Partition},
    reader::{Reader, command},
    thread_step::Place,
};
use std::collections::{BTreeMap, BTreeSet};
use tract_actors::ports::{
    Delivery, DeliveryPage, DeliveryQuery, DeliveryRecord, DeliveryState, Endpoint, EndpointStatus, Part, Replay,
    Replayed,
};
use tract_domain::Timestamp;

/// Records that are looked at together.
const CHUNK: usize = 500;

/// More than this is never read at once.
const MOST: usize = 1_000_000;

/// Where a delivery stands among all: in the order of its id's counter, then, of a range, by its message.
type Rank = (u64, u64);

fn all(place: Place) -> impl Iterator<Item = Partition> + Clone {
    (0..place.partitions).map(Partition)
}

/// Partitions in which this many of an endpoint's deliveries wait, and are dead letters.
async fn holding(reader: &mut Reader, place: Place, endpoint: &Endpoint) -> Result<Vec<(Partition, u64, u64)>, Fault> {
    let commands = all(place).map(|p| command!("HMGET", p.status(endpoint), "pending", "dead")).collect();
    let found: Vec<(Option<u64>, Option<u64>)> = reader.all(commands).await?;
    let counts = all(place).zip(found).map(|(p, (pending, dead))| (p, pending.unwrap_or(0), dead.unwrap_or(0)));
    Ok(counts.filter(|(_, pending, dead)| pending + dead > 0).collect())
}

async fn forms<'a>(
    reader: &mut Reader,
    hash: &str,
    fields: impl Iterator<Item = &'a str>,
) -> Result<Vec<Option<DeliveryForm>>, Fault> {
    let mut get = command!("HMGET", hash);
    let mut count = 0;
    for field in fields {
        get.arg(field);
        count += 1;
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let found: Vec<Option<Vec<u8>>> = reader.one(get).await?;
    found.into_iter().map(|form| form.map(|form| DeliveryForm::read(&form)).transpose()).collect()
}

/// Parts of what waits for an endpoint; none of those whose servers are away. A page that is shorter than was asked for is
/// the last: what went between the look at its ids and at its records makes none short.
pub(super) async fn outbox(
    reader: &mut Reader,
    place: Place,
    endpoint: &Endpoint,
    parts: &[Part],
) -> Result<Vec<Option<Vec<Delivery>>>, Fault> {
    let range = |part: &Part| {
        let (key, limit) = (Partition(part.strand).waiting(endpoint), part.limit.min(MOST));
        command!("ZRANGE", key, format!("({}", part.after), "+inf", "BYSCORE", "LIMIT", 0, limit)
    };
    let mut pages: Vec<Option<Vec<Delivery>>> = vec![None; parts.len()];
    let mut open: Vec<(usize, Part)> = parts.iter().copied().enumerate().collect();
    while !open.is_empty() {
        let found: Vec<Option<Vec<u64>>> = reader.partly(open.iter().map(|(_, part)| range(part)).collect()).await?;
        let ids: Vec<u64> = found.iter().flatten().flatten().copied().collect();
        let mut records = records(reader, place, endpoint, &ids).await?.into_iter().peekable();
        let mut rest = Vec::new();
        for ((n, part), ids) in open.into_iter().zip(found) {
            let Some(ids) = ids else {
                pages[n] = None;
                continue;
            };
            let page = pages[n].get_or_insert_default();
            let before = page.len();
            page.extend(std::iter::from_fn(|| records.next_if(|delivery| delivery.strand == part.strand)));
            let missing = ids.len() - (page.len() - before);
            if let Some(last) = ids.last().filter(|_| missing > 0 && ids.len() == part.limit.min(MOST)) {
                rest.push((n, Part { after: *last, limit: missing, ..part }));
            }
        }
        open = rest;
    }
    Ok(pages)
}

/// What waits for an endpoint longest in these strands, and was committed by then, by partition and epoch; and when the
/// oldest of the others was committed.
pub(super) async fn overdue(
    reader: &mut Reader,
    place: Place,
    endpoint: &Endpoint,
    held: &[(u16, u64)],
    before: Timestamp,
    limit: usize,
) -> Result<(Vec<(Partition, u64, Vec<u64>)>, Option<Timestamp>), Fault> {
    let waiting = held.iter().map(|(strand, _)| command!("HGET", Partition(*strand).status(endpoint), "pending"));
    let waiting: Vec<Option<u64>> = reader.all(waiting.collect()).await?;
    let held = held.iter().zip(waiting).filter(|(_, pending)| pending.is_some_and(|pending| pending > 0));
    let held: Vec<(u16, u64)> = held.map(|(held, _)| *held).collect();
    let share = (limit / held.len().max(1)).max(1);
    let part = |(strand, _): &(u16, u64)| Part { strand: *strand, after: 0, limit: share + 1 };
    let parts: Vec<Part> = held.iter().map(part).collect();
    let (mut old, mut oldest, mut room) = (Vec::new(), None::<Timestamp>, limit);
    let pages = outbox(reader, place, endpoint, &parts).await?;
    for ((strand, epoch), page) in held.into_iter().zip(pages) {
        let Some(page) = page else { continue };
        // Ids are given out in the order of creation, so the first that is too young ends it.
        let count = page.iter().take(share.min(room)).take_while(|delivery| delivery.created_at <= before).count();
        room -= count;
        if let Some(next) = page.get(count) {
            oldest = Some(oldest.map_or(next.created_at, |oldest| oldest.min(next.created_at)));
        }
        if count > 0 {
            old.push((Partition(strand), epoch, page[..count].iter().map(|delivery| delivery.id).collect()));
        }
    }
    Ok((old, oldest))
}

/// The deliveries with these ids, in their order; those that are gone meanwhile are left out.
pub(super) async fn records(
    reader: &mut Reader,
    place: Place,
    endpoint: &Endpoint,
    ids: &[u64],
) -> Result<Vec<Delivery>, Fault> {
    let get = |id: &u64| command!("HGET", place.home_of_delivery(*id).outbox(endpoint), id);
    let found: Vec<Option<Vec<u8>>> = reader.all(ids.iter().map(get).collect()).await?;
    let found = ids.iter().zip(found).filter_map(|(id, form)| Some((*id, form?)));
    let delivery =
        |id, form: Vec<u8>| DeliveryForm::read(&form)?.delivery((place.home_of_delivery(id), id, 0), endpoint, None);
    found.map(|(id, form)| delivery(id, form)).collect()
}

/// How endpoints fare, each over the partitions that know it.
async fn statuses(
    reader: &mut Reader,
    known: Vec<(Endpoint, Partition)>,
) -> Result<BTreeMap<Endpoint, EndpointStatus>, Fault> {
    type Fields = (Option<u64>, Option<u64>, Option<i64>, Option<String>, Option<i64>);
    let status = |(endpoint, p): &(Endpoint, Partition)| {
        command!("HMGET", p.status(endpoint), "pending", "dead", "success", "error", "error_at")
    };
    let fields: Vec<Fields> = reader.all(known.iter().map(status).collect()).await?;
    let mut statuses: BTreeMap<Endpoint, (EndpointStatus, i64)> = BTreeMap::new();
    let mut waiting = Vec::new();
    for ((endpoint, partition), (pending, dead, success, error, error_at)) in known.into_iter().zip(fields) {
        let (of_all, last_error_at) = statuses.entry(endpoint.clone()).or_default();
        of_all.pending += pending.unwrap_or(0);
        of_all.dead += dead.unwrap_or(0);
        of_all.last_success_at = of_all.last_success_at.max(success.map(Timestamp));
        if let (Some(error), Some(at)) = (error, error_at)
            && at >= *last_error_at
        {
            (of_all.last_error, *last_error_at) = (Some(error), at);
        }
        if pending.unwrap_or(0) > 0 {
            waiting.push((endpoint, partition));
        }
    }
    let first = |(endpoint, p): &(Endpoint, Partition)| command!("ZRANGE", p.waiting(endpoint), 0, 0);
    let first: Vec<Vec<String>> = reader.all(waiting.iter().map(first).collect()).await?;
    let first: Vec<_> = waiting.into_iter().zip(first).filter_map(|(of, mut id)| Some((of, id.pop()?))).collect();
    let get = |((endpoint, p), id): &((Endpoint, Partition), String)| command!("HGET", p.outbox(endpoint), id);
    let found: Vec<Option<Vec<u8>>> = reader.all(first.iter().map(get).collect()).await?;
    for (((endpoint, _), _), form) in first.into_iter().zip(found) {
        let Some(form) = form else { continue };
        let created_at = DeliveryForm::read(&form)?.created_at();
        if let Some((of_all, _)) = statuses.get_mut(&endpoint) {
            of_all.oldest = Some(of_all.oldest.map_or(created_at, |oldest| oldest.min(created_at)));
        }
    }
    Ok(statuses.into_iter().map(|(endpoint, (status, _))| (endpoint, status)).collect())
}

pub(super) async fn endpoint_status(
    reader: &mut Reader,
    place: Place,
    endpoint: &Endpoint,
) -> Result<EndpointStatus, Fault> {
    let known = all(place).map(|partition| (endpoint.clone(), partition)).collect();
    Ok(statuses(reader, known).await?.remove(endpoint).unwrap_or_default())
}

/// Which endpoints each partition knows.
async fn known(reader: &mut Reader, place: Place) -> Result<Vec<(Endpoint, Partition)>, Fault> {
    let names: Vec<Vec<String>> = reader.all(all(place).map(|p| command!("SMEMBERS", p.endpoints())).collect()).await?;
    let known = all(place).zip(names).flat_map(|(p, names)| names.into_iter().map(move |name| (name, p)));
    Ok(known.map(|(name, p)| (Endpoint::from_name(&name), p)).collect())
}

pub(super) async fn endpoints(reader: &mut Reader, place: Place) -> Result<Vec<(Endpoint, EndpointStatus)>, Fault> {
    let known = known(reader, place).await?;
    Ok(statuses(reader, known).await?.into_iter().collect())
}

/// The endpoints that something waits for in each of these strands, and the strands whose servers are away.
pub(super) async fn waiting(
    reader: &mut Reader,
    strands: &[u16],
) -> Result<(BTreeMap<u16, Vec<Endpoint>>, BTreeSet<u16>), Fault> {
    let names = strands.iter().map(|strand| command!("SMEMBERS", Partition(*strand).endpoints())).collect();
    let (mut known, mut away) = (Vec::new(), BTreeSet::new());
    for (strand, names) in strands.iter().zip(reader.some(names).await) {
        match names {
            Some(names) => {
                let names = read::<Vec<String>>(names)?;
                known.extend(names.iter().map(|name| (*strand, Endpoint::from_name(name))));
            }
            None => drop(away.insert(*strand)),
        }
    }
    let pending =
        known.iter().map(|(strand, endpoint)| command!("HGET", Partition(*strand).status(endpoint), "pending"));
    let pending = reader.some(pending.collect()).await;
    let mut waiting: BTreeMap<u16, Vec<Endpoint>> = BTreeMap::new();
    for ((strand, endpoint), pending) in known.into_iter().zip(pending) {
        match pending.map(read::<Option<u64>>).transpose()? {
            Some(pending) if pending.is_some_and(|pending| pending > 0) => {
                waiting.entry(strand).or_default().push(endpoint);
            }
            Some(_) => {}
            None => drop(away.insert(strand)),
        }
    }
    Ok((waiting, away))
}

/// Where an endpoint has dead letters.
pub(super) async fn letter_places(reader: &mut Reader, place: Place) -> Result<Vec<(Endpoint, Partition)>, Fault> {
    let known = known(reader, place).await?;
    let dead = |(endpoint, p): &(Endpoint, Partition)| command!("HGET", p.status(endpoint), "dead");
    let dead: Vec<Option<u64>> = reader.all(known.iter().map(dead).collect()).await?;
    Ok(known.into_iter().zip(dead).filter(|(_, dead)| dead.is_some_and(|n| n > 0)).map(|(of, _)| of).collect())
}

/// The dead letters that are to be sent again, in the order in which they were first committed.
pub(super) async fn letters(reader: &mut Reader, place: Place, replay: &Replay) -> Result<Vec<Letter>, Fault> {
    let mut letters = Vec::new();
    for endpoint in &replay.endpoints {
        let mut found: Vec<(Rank, Letter)> = Vec::new();
        let room = replay.limit.saturating_sub(letters.len());
        for (partition, _, dead) in holding(reader, place, endpoint).await? {
            if dead == 0 || room == 0 {
                continue;
            }
            let letter = |webhook_id: &str| {
                let webhook_id = webhook_id.to_owned();
                Letter { endpoint: endpoint.clone(), partition, webhook_id }
            };
            match &replay.which {
                Replayed::One(webhook_id) => {
                    let id: Option<u64> = reader.one(command!("ZSCORE", partition.dead(endpoint), webhook_id)).await?;
                    found.extend(id.map(|id| ((id, 0), letter(webhook_id))));
                }
                Replayed::Since(at) => {
                    let of_partition = letters_since(reader, partition, endpoint, *at, room).await?;
                    found.extend(of_partition.into_iter().map(|(rank, webhook_id)| (rank, letter(&webhook_id))));
                }
            }
        }
        found.sort_unstable_by_key(|(rank, _)| *rank);
        letters.extend(found.into_iter().map(|(_, letter)| letter).take(room));
    }
    Ok(letters)
}

/// A partition's first dead letters that were given up since a time.
async fn letters_since(
    reader: &mut Reader,
    partition: Partition,
    endpoint: &Endpoint,
    since: Timestamp,
    limit: usize,
) -> Result<Vec<(Rank, String)>, Fault> {
    let (mut letters, mut offset) = (Vec::new(), 0);
    loop {
        let range = command!("ZRANGE", partition.dead(endpoint), offset, offset + CHUNK - 1, "WITHSCORES");
        let found: Vec<(String, u64)> = reader.one(range).await?;
        let forms = forms(reader, &partition.letters(endpoint), found.iter().map(|(name, _)| name.as_str())).await?;
        for ((webhook_id, id), form) in found.iter().zip(forms) {
            if let Some(form) = form
                && form.ended_at.is_some_and(|at| at >= since.0)
            {
                letters.push(((*id, form.of), webhook_id.clone()));
            }
        }
        offset += CHUNK;
        if found.len() < CHUNK || letters.len() >= limit {
            return Ok(letters);
        }
    }
}

/// A page of deliveries, the newest first. The cursor is the last one's rank.
pub(super) async fn deliveries(
    reader: &mut Reader,
    place: Place,
    query: &DeliveryQuery,
    home: Option<Partition>,
) -> Result<DeliveryPage, Fault> {
    let before: Rank = match &query.cursor {
        None => (u64::MAX, u64::MAX),
        Some(cursor) => {
            let rank = cursor.split_once('.').and_then(|(id, of)| Some((id.parse().ok()?, of.parse().ok()?)));
            // No cursor of ours: nothing comes after it.
            let Some(rank) = rank else { return Ok(DeliveryPage::default()) };
            rank
        }
    };
    if query.user_id.is_some() && home.is_none() {
        return Ok(DeliveryPage::default());
    }
    let mut found: Vec<(Rank, DeliveryRecord)> = Vec::new();
    let may_be = |states: &[DeliveryState]| query.state.is_none_or(|state| states.contains(&state));
    for endpoint in &query.endpoints {
        let mut search = Search { reader, query, endpoint, before, found: &mut found };
        if may_be(&[DeliveryState::Delivered, DeliveryState::Rejected]) {
            search.look(&keys::received(endpoint), None, DeliveryState::Delivered).await?;
        }
        for (partition, pending, dead) in holding(search.reader, place, endpoint).await? {
            if home.is_some_and(|home| home != partition) {
                continue;
            }
            if pending > 0 && may_be(&[DeliveryState::Pending]) {
                let (set, hash) = (partition.waiting(endpoint), partition.outbox(endpoint));
                search.look(&set, Some(&hash), DeliveryState::Pending).await?;
            }
            if dead > 0 && may_be(&[DeliveryState::Dead]) {
                let (set, hash) = (partition.dead(endpoint), partition.letters(endpoint));
                search.look(&set, Some(&hash), DeliveryState::Dead).await?;
            }
        }
    }
    found.sort_unstable_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let next = found.last().filter(|_| more).map(|((id, of), _)| format!("{id}.{of}"));
    Ok(DeliveryPage { deliveries: found.into_iter().map(|(_, record)| record).collect(), next })
}

/// A search for the newest deliveries to one endpoint.
struct Search<'a> {
    reader: &'a mut Reader,
    query: &'a DeliveryQuery,
    endpoint: &'a Endpoint,
    before: Rank,
    found: &'a mut Vec<(Rank, DeliveryRecord)>,
}

impl Search<'_> {
    /// Looks through one sorted set, whose members name records in the hash, or are records.
    async fn look(&mut self, set: &str, hash: Option<&str>, state: DeliveryState) -> Result<(), Fault> {
        let last = if self.before.0 == u64::MAX { "+inf".to_owned() } else { self.before.0.to_string() };
        let (mut offset, mut taken, mut enough) = (0, 0, None);
        let chunk = CHUNK.min(self.query.limit.saturating_add(1)).max(16);
        loop {
            let range = command!("ZRANGE", set, &last, "-inf", "BYSCORE", "REV", "LIMIT", offset, chunk, "WITHSCORES");
            let members: Vec<(String, u64)> = self.reader.one(range).await?;
            let forms = match hash {
                Some(hash) => forms(self.reader, hash, members.iter().map(|(name, _)| name.as_str())).await?,
                None => {
                    let read = members.iter().map(|(form, _)| DeliveryForm::read(form.as_bytes()).map(Some));
                    read.collect::<Result<_, _>>()?
                }
            };
            for ((_, id), form) in members.iter().zip(forms) {
                let Some(form) = form else { continue };
                let rank = (*id, form.of);
                if rank >= self.before || self.query.user_id.as_ref().is_some_and(|user_id| !form.is_of(user_id)) {
                    continue;
                }
                let record = form.shown(self.endpoint, state)?;
                if self.query.state.is_none_or(|state| state == record.state) {
                    self.found.push((rank, record));
                    taken += 1;
                    if taken == self.query.limit.saturating_add(1) {
                        enough = Some(*id);
                    }
                }
            }
            offset += chunk;
            // The messages of one range have the same id, and are in no order of ours: it is read to its end.
            let past = enough.is_some_and(|enough| members.last().is_some_and(|(_, id)| *id < enough));
            if members.len() < chunk || past {
                return Ok(());
            }
        }
    }
}
