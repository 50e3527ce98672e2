//! Which server has which keys: in a cluster a primary for each hash slot, else one for all of them.
//!
//! What a server answers, or that it does not, says when this must be looked at again; the servers are asked then, one after
//! the other until one knows. Looking is the same for all who want to know at the time, and not done too often.

use super::{
    fault::{Fault, read},
    target::{Address, CONNECT_WITHIN, Kind, Target},
};
use ::redis::{Client, RedisError, Value, aio::MultiplexedConnection, aio::PubSub};
use arc_swap::ArcSwap;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until, timeout},
};

/// How many slots the keys of a cluster fall into.
const SLOTS: usize = 16_384;

/// How often to look at the most.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The slot of a key: of its hash tag, if it has one.
pub(super) fn slot_of(key: &[u8]) -> usize {
    let begin = key.iter().position(|byte| *byte == b'{').map(|at| at + 1);
    let tag = begin.and_then(|begin| {
        let end = key[begin..].iter().position(|byte| *byte == b'}')?;
        (end > 0).then(|| &key[begin..begin + end])
    });
    usize::from(crc16(tag.unwrap_or(key))) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 },
        )
    })
}

/// Who has which keys, as it was seen last.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Map {
    /// How often it had been looked at.
    seen: u64,
    primaries: Vec<Address>,
    /// All servers that were told of, replicas too.
    servers: Vec<Address>,
    /// For each slot the number of its primary; empty when the first has them all.
    slots: Vec<Option<u16>>,
}

impl Map {
    /// All keys are there.
    fn of_one(address: Address) -> Self {
        Self { seen: 0, primaries: vec![address.clone()], servers: vec![address], slots: Vec::new() }
    }
    /// Every server that has keys.
    pub(super) fn primaries(&self) -> &[Address] {
        &self.primaries
    }
    /// Who has this key. None: nobody does at the moment.
    pub(super) fn primary_of(&self, key: &[u8]) -> Option<&Address> {
        if self.slots.is_empty() {
            return self.primaries.first();
        }
        let number = self.slots.get(slot_of(key)).copied().flatten()?;
        self.primaries.get(usize::from(number))
    }
    /// Whether somebody has every key.
    pub(super) fn is_whole(&self) -> bool {
        !self.primaries.is_empty() && self.slots.iter().all(Option::is_some)
    }
}

/// A server in `CLUSTER SLOTS`: its address, its port, and more.
type Server = Vec<Value>;

/// Reads `CLUSTER SLOTS`, as `asked` answers it.
fn read_slots(reply: Value, asked: &Address) -> Result<Map, Fault> {
    const FORM: Fault = Fault::Unreadable("CLUSTER SLOTS is not of its form");
    let address = |server: Value| {
        let mut server = read::<Server>(server)?.into_iter();
        let (host, port) = (server.next().ok_or(FORM)?, server.next().ok_or(FORM)?);
        let host: Option<String> = read(host)?;
        // A server that does not know its own name is where it was asked.
        let host = host.filter(|host| !host.is_empty() && host != "?");
        Ok::<_, Fault>(Address::new(host.as_deref().unwrap_or(&asked.host), read(port)?))
    };
    let mut ranges: BTreeMap<Address, Vec<(usize, usize)>> = BTreeMap::new();
    let mut servers = BTreeSet::new();
    for range in read::<Vec<Vec<Value>>>(reply)? {
        let mut range = range.into_iter();
        let (Some(first), Some(last), Some(primary)) = (range.next(), range.next(), range.next()) else {
            return Err(FORM);
        };
        let (first, last): (usize, usize) = (read(first)?, read(last)?);
        if first > last || last >= SLOTS {
            return Err(FORM);
        }
        let primary = address(primary)?;
        servers.insert(primary.clone());
        for replica in range {
            servers.insert(address(replica)?);
        }
        ranges.entry(primary).or_default().push((first, last));
    }
    let mut map = Map { servers: servers.into_iter().collect(), slots: vec![None; SLOTS], ..Map::default() };
    for (number, (primary, ranges)) in ranges.into_iter().enumerate() {
        map.primaries.push(primary);
        for (first, last) in ranges {
            map.slots[first..=last].fill(u16::try_from(number).ok());
        }
    }
    Ok(map)
}

/// Who has which keys, and connections to them.
pub(super) struct Topology {
    target: Target,
    map: ArcSwap<Map>,
    /// When it was looked at last.
    looked: Mutex<Option<Instant>>,
    /// Whom to ask first: not the same one each time, for it may know less than others.
    turn: AtomicUsize,
}

impl Topology {
    /// Looks who has which keys.
    pub(super) async fn find(target: Target) -> Result<Self, Fault> {
        let map = match (&target.kind, target.seeds.first()) {
            (Kind::Standalone, Some(address)) => Map::of_one(address.clone()),
            _ => Map::default(),
        };
        let topology =
            Self { target, map: ArcSwap::from_pointee(map), looked: Mutex::default(), turn: AtomicUsize::default() };
        if topology.target.kind != Kind::Standalone {
            let map = topology.look().await?;
            topology.map.store(Arc::new(Map { seen: 1, ..map }));
        }
        Ok(topology)
    }

    /// Who has which keys, as far as is known.
    pub(super) fn map(&self) -> Arc<Map> {
        self.map.load_full()
    }

    /// What the URL says.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Looks again, unless somebody did since this was seen. When nobody can be asked, all stays as it was.
    pub(super) async fn look_again(&self, seen: &Map) {
        if self.target.kind == Kind::Standalone {
            return;
        }
        let mut looked = self.looked.lock().await;
        if self.map.load().seen > seen.seen {
            return;
        }
        if let Some(last) = *looked {
            sleep_until(last + LOOK_EVERY).await;
        }
        match self.look().await {
            Ok(map) => {
                let before = self.map();
                if map.primaries != before.primaries || map.slots != before.slots {
                    tracing::info!(primaries = map.primaries.len(), "other Redis servers have the keys now");
                }
                self.map.store(Arc::new(Map { seen: before.seen + 1, ..map }));
            }
            Err(fault) => tracing::debug!(%fault, "no Redis server says who has the keys"),
        }
        *looked = Some(Instant::now());
    }

    /// Those to ask, each once, the next one first.
    fn to_ask(&self) -> Vec<Address> {
        let known = match self.target.kind {
            Kind::Cluster => self.map.load().servers.clone(),
            Kind::Standalone | Kind::Sentinel(_) => Vec::new(),
        };
        let mut all: Vec<Address> = known;
        let seeds = self.target.seeds.iter().filter(|seed| !all.contains(seed)).cloned().collect::<Vec<_>>();
        all.extend(seeds);
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % all.len().max(1);
        all.rotate_left(first);
        all
    }

    async fn look(&self) -> Result<Map, Fault> {
        let (mut second_best, mut last) = (None, Fault::Nobody("no server is named".into()));
        for address in self.to_ask() {
            let asked = match &self.target.kind {
                Kind::Standalone => Ok((true, Map::of_one(address.clone()))),
                Kind::Cluster => self.ask_server(&address).await,
                Kind::Sentinel(name) => self.ask_sentinel(&address, name).await.map(|map| (true, map)),
            };
            match asked {
                Ok((true, map)) => return Ok(map),
                Ok((false, map)) => second_best = Some(map),
                Err(Fault::Redis(error)) => last = Fault::Nobody(format!("{address}: {error}")),
                Err(fault) => last = fault,
            }
        }
        second_best.ok_or(last)
    }

    /// What a server of the cluster knows, and whether the cluster is in order as it sees it: one that is cut off from the
    /// others says that it is not.
    async fn ask_server(&self, address: &Address) -> Result<(bool, Map), Fault> {
        let mut connection = self.target.connect(address).await?;
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
        let answer: Result<(String, Value), _> = pipeline.query_async(&mut connection).await;
        if answer.as_ref().is_err_and(|error| error.to_string().contains("cluster support disabled")) {
            return Err(Fault::Nobody(format!(
                "{address} is no node of a cluster; begin store.url with redis://, or rediss:// for TLS"
            )));
        }
        let (info, slots) = answer?;
        let map = read_slots(slots, address)?;
        Ok((info.contains("cluster_state:ok") && map.is_whole(), map))
    }

    /// Where the primary of this name is, as a sentinel says and as it says itself.
    async fn ask_sentinel(&self, address: &Address, name: &str) -> Result<Map, Fault> {
        let mut ask = ::redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let mut connection = self.target.connect_sentinel(address, false).await?;
        let mut found: Result<Option<(String, u16)>, RedisError> = ask.query_async(&mut connection).await;
        if found.as_ref().is_err_and(|error| error.code() == Some("NOAUTH")) && self.target.has_password() {
            found = ask.query_async(&mut self.target.connect_sentinel(address, true).await?).await;
        }
        let Some((host, port)) = found? else {
            return Err(Fault::Nobody(format!("the sentinel at {address} knows no primary of the name {name}")));
        };
        let primary = Address::new(&host, port);
        self.connect(&primary).await?;
        Ok(Map::of_one(primary))
    }

    /// A connection to a primary. One that sentinels name is asked whether it is one: it may have been another's replica
    /// for a while before they say so.
    pub(super) async fn connect(&self, address: &Address) -> Result<MultiplexedConnection, Fault> {
        let mut connection = self.target.connect(address).await?;
        if !self.is_primary(&mut connection).await? {
            return Err(Fault::Nobody(format!("the server at {address} is a replica now")));
        }
        Ok(connection)
    }

    /// Whether what sentinels named as the primary is one; others tell in their answers.
    pub(super) async fn is_primary(&self, connection: &mut MultiplexedConnection) -> Result<bool, RedisError> {
        if !matches!(self.target.kind, Kind::Sentinel(_)) {
            return Ok(true);
        }
        let info: String = ::redis::cmd("INFO").arg("replication").query_async(connection).await?;
        Ok(info.contains("role:master"))
    }

    /// A connection to subscribe with. What is published on any server of a cluster arrives at each of them. Made anew when
    /// it ends: what was published meanwhile is lost.
    pub(super) async fn subscriber(&self) -> Result<PubSub, Fault> {
        let map = self.map();
        let mut last = Fault::Nobody("no server has the keys".into());
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for n in 0..map.primaries.len() {
            let address = &map.primaries[(first + n) % map.primaries.len()];
            let client = Client::open(self.target.info(address))?;
            last = match timeout(CONNECT_WITHIN, client.get_async_pubsub()).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error.into(),
                Err(_) => Fault::Nobody(format!("{address}: no answer")),
            };
        }
        self.look_again(&map).await;
        Err(last)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// The slots that `CLUSTER KEYSLOT` answers.
    #[test]
    fn keys_of_one_tag_share_a_slot() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"{foo}:bar"), 12_182);
        assert_eq!(slot_of(b"a{foo}{bar}"), 12_182);
        assert_eq!(slot_of(b"{}foo"), usize::from(crc16(b"{}foo")) % SLOTS, "an empty tag is none");
        assert_eq!(slot_of(b"{foo"), usize::from(crc16(b"{foo")) % SLOTS);
    }

    fn server(host: &str, port: i64) -> Value {
        let host = if host.is_empty() { Value::Nil } else { Value::BulkString(host.into()) };
        Value::Array(vec![host, Value::Int(port), Value::BulkString("id".into())])
    }

    #[test]
    fn slots_have_primaries() {
        let range = |first, last, servers: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], servers].concat())
        };
        let asked = Address::new("asked", 1);
        let reply = Value::Array(vec![
            range(0, 9_999, vec![server("b", 7), server("r", 7)]),
            range(10_000, 12_181, vec![server("", 8)]),
            range(12_182, 12_182, vec![server("b", 7)]),
        ]);
        let map = read_slots(reply, &asked).unwrap();
        assert_eq!(map.primaries(), [Address::new("asked", 8), Address::new("b", 7)]);
        assert_eq!(map.primary_of(b"{foo}:x"), Some(&Address::new("b", 7)));
        assert_eq!(map.primary_of(b"hello"), Some(&Address::new("b", 7)), "slot 866");
        assert_eq!(map.slots[10_000], Some(0));
        assert_eq!(map.primary_of(b"{bar}").is_none(), slot_of(b"bar") > 12_182);
        assert!(!map.is_whole());
        assert!(map.servers.contains(&Address::new("r", 7)));
        assert!(read_slots(Value::Array(vec![range(5, 16_384, vec![server("b", 7)])]), &asked).is_err());
    }
}
