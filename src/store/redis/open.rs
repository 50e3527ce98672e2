//! Opening: what the server is and promises, whether the store is this one, and that nobody else has it open.

use super::{
    fault::{Fault, read},
    keys::{self, Partition},
    other_step::forget_endpoint,
    reader,
    script::{Call, Script, load_all},
    thread_step::Place,
    writer::{Ids, LEASE_LASTS, Writer, connection_config, lease},
};
use crate::store::handle::{Handles, MAX_PARTITIONS};
use ::redis::{
    Client, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use deadpool_redis::Pool;
use std::{collections::HashMap, fmt, time::Duration};
use tokio::time::{Instant, sleep};
use tract_actors::ports::Endpoint;
use uuid::Uuid;

/// The format of what is stored.
const FORMAT: u64 = 1;

/// The oldest server that has what the scripts need.
const OLDEST: u64 = 7;

/// How often to look whether the lease is free.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    /// The URL is none that can be used.
    #[error("store.url: {0}")]
    Url(&'static str),
    /// No store can have so many partitions.
    #[error("a store has 1 to {MAX_PARTITIONS} partitions, not {0}")]
    PartitionCount(u16),
    /// Nobody answers there, or not as Redis does.
    #[error("cannot use Redis at {at}: {why}")]
    Unreachable {
        /// Host and port.
        at: String,
        /// Why.
        why: String,
    },
    /// The server is not one that the store can live on.
    #[error("Redis at {at} cannot be used: {why}")]
    Unfit {
        /// Host and port.
        at: String,
        /// Why, and what to do.
        why: String,
    },
    /// It was created with another number of partitions, and that is fixed.
    #[error("the store in Redis at {at} was created with {stored} partitions, not {asked}")]
    Partitions {
        /// Host and port.
        at: String,
        /// How many it has.
        stored: u16,
        /// How many were asked for.
        asked: u16,
    },
    /// A newer version of this program wrote it.
    #[error("the store in Redis at {at} has format {found}; this program knows formats up to {FORMAT}")]
    Newer {
        /// Host and port.
        at: String,
        /// Its format.
        found: u64,
    },
    /// Another router has it open.
    #[error("the store in Redis at {at} is in use by another router; several nodes on one store are not built yet")]
    InUse {
        /// Host and port.
        at: String,
    },
    /// A migration into it was begun and not finished.
    #[error("the store in Redis at {at} is half of a migration; run `tract migrate` again to finish it")]
    Unfinished {
        /// Host and port.
        at: String,
    },
    /// What is stored is not what it ought to be.
    #[error("the store in Redis at {at} cannot be read: {why}")]
    Unreadable {
        /// Host and port.
        at: String,
        /// Why.
        why: String,
    },
    /// The system gives no randomness for the store's key.
    #[error("the system gives no randomness: {0}")]
    Random(String),
}

/// What the server does to keep what it acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durability {
    /// Each answer comes after an fsync: what is acknowledged survives a power cut.
    EveryAnswer,
    /// A power cut can cost what was acknowledged in the last second or two.
    EverySecond,
    /// A power cut can cost what the system had not written by itself, typically half a minute.
    Whenever,
    /// Nothing is written but snapshots: a crash of the server costs everything since the last one.
    SnapshotsOnly,
    /// The server does not tell.
    Unknown,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EveryAnswer => "what is acknowledged survives a power cut (appendonly yes, appendfsync always)",
            Self::EverySecond => {
                "a power cut can cost about a second of what was acknowledged (appendfsync everysec); \
                 set appendfsync always to keep it"
            }
            Self::Whenever => {
                "a power cut can cost half a minute of what was acknowledged (appendfsync no); \
                 set appendfsync always to keep it"
            }
            Self::SnapshotsOnly => {
                "a crash of Redis costs everything since its last snapshot (appendonly no); \
                 set appendonly yes and appendfsync always to keep it"
            }
            Self::Unknown => "Redis does not tell how it keeps what it acknowledged (CONFIG GET is not allowed)",
        })
    }
}

/// What opening yields.
pub(super) struct Opened {
    pub(super) handles: Handles,
    pub(super) place: Place,
    pub(super) writer: Writer,
    pub(super) pool: Pool,
    pub(super) durability: Durability,
    /// The key of the handles.
    pub(super) key: [u8; 32],
    /// Of an unfinished migration: how many parts are done.
    pub(super) parts_done: Option<u64>,
}

/// What a store is opened for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// For a router.
    Serve,
    /// To be filled by a migration: a new store gets this key.
    Fill([u8; 32]),
}

/// How many partitions the store at this URL has, if there is one.
pub(super) async fn partitions(url: &str) -> Result<Option<u16>, RedisOpenError> {
    let (client, at) = client(url)?;
    let connection = client.get_multiplexed_async_connection_with_config(&connection_config()).await;
    let unreachable = |e: ::redis::RedisError| RedisOpenError::Unreachable { at, why: e.to_string() };
    let mut connection = match connection {
        Ok(connection) => connection,
        Err(error) => return Err(unreachable(error)),
    };
    ::redis::cmd("HGET").arg(keys::STORE).arg("partitions").query_async(&mut connection).await.map_err(unreachable)
}

/// A client for this URL, and where it leads, without user and password.
fn client(url: &str) -> Result<(Client, String), RedisOpenError> {
    if let Some(fault) = url_fault(url) {
        return Err(RedisOpenError::Url(fault));
    }
    let client = Client::open(url).map_err(|_| RedisOpenError::Url("is no Redis URL"))?;
    let at = client.get_connection_info().addr().to_string();
    Ok((client, at))
}

struct Opening {
    at: String,
    connection: MultiplexedConnection,
}

/// Opens the store.
pub(super) async fn open_for(url: &str, partitions: u16, purpose: Purpose) -> Result<Opened, RedisOpenError> {
    if !(1..=MAX_PARTITIONS).contains(&partitions) {
        return Err(RedisOpenError::PartitionCount(partitions));
    }
    let (client, at) = client(url)?;
    let connection = client.get_multiplexed_async_connection_with_config(&connection_config()).await;
    let connection = connection.map_err(|e| RedisOpenError::Unreachable { at: at.clone(), why: e.to_string() })?;
    let mut opening = Opening { at, connection };
    let durability = opening.look_at_server().await?;
    opening.query(load_all()).await?;
    let holder = Uuid::new_v4().simple().to_string();
    opening.take_lease(&holder).await?;
    let looked = opening.look_at_store(partitions, purpose).await;
    if looked.is_err() {
        opening.give_back(&holder).await;
    }
    let (key, parts_done) = looked?;
    let (place, ids) = opening.begin_epoch(partitions).await?;
    let pool = reader::pool(url).map_err(|fault| opening.unreadable(&fault))?;
    let writer = Writer::start(client, opening.connection, ids, holder);
    let handles = Handles::new(&key, partitions);
    Ok(Opened { handles, place, writer, pool, durability, key, parts_done })
}

/// What is wrong with a store's URL, if anything is.
pub fn url_fault(url: &str) -> Option<&'static str> {
    let Ok(parsed) = url::Url::parse(url) else { return Some("must be like redis://user:password@host:6379/0") };
    match parsed.scheme() {
        "redis" if parsed.has_host() => None,
        "redis" => Some("must be like redis://user:password@host:6379/0"),
        "rediss" | "redis+cluster" | "rediss+cluster" | "redis+sentinel" | "rediss+sentinel" => {
            Some("TLS, Sentinel and Cluster are not built yet in this version; use redis://")
        }
        _ => Some("must begin with redis://"),
    }
}

impl Opening {
    fn unreachable(&self, why: &dyn fmt::Display) -> RedisOpenError {
        RedisOpenError::Unreachable { at: self.at.clone(), why: why.to_string() }
    }
    fn unfit(&self, why: impl Into<String>) -> RedisOpenError {
        RedisOpenError::Unfit { at: self.at.clone(), why: why.into() }
    }
    fn unreadable(&self, why: &Fault) -> RedisOpenError {
        RedisOpenError::Unreadable { at: self.at.clone(), why: why.to_string() }
    }

    /// The replies to these, none of them an error.
    async fn query(&mut self, pipeline: ::redis::Pipeline) -> Result<Vec<Value>, RedisOpenError> {
        let count = pipeline.len();
        let replies = self.connection.req_packed_commands(&pipeline, 0, count).await;
        let replies = replies.map_err(|e| self.unreachable(&e))?;
        for reply in &replies {
            if let Value::ServerError(error) = reply {
                return Err(self.unreachable(error));
            }
        }
        Ok(replies)
    }

    /// Whether the server is one that keeps what it is given, and how well.
    async fn look_at_server(&mut self) -> Result<Durability, RedisOpenError> {
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("INFO");
        let mut replies = self.query(pipeline).await?;
        let info: String = read(replies.pop().unwrap_or(Value::Nil)).map_err(|fault| self.unreadable(&fault))?;
        let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
        let told = |name: &str| info.get(name).copied().unwrap_or_default();
        let version = told("redis_version");
        if version.split('.').next().and_then(|major| major.parse::<u64>().ok()).is_none_or(|major| major < OLDEST) {
            return Err(self.unfit(format!("it is version {version}; version {OLDEST}.0 or later is needed")));
        }
        if told("cluster_enabled") == "1" {
            return Err(self.unfit("it is a node of a cluster, which this version cannot use yet"));
        }
        if told("role") != "master" {
            return Err(self.unfit("it is a replica; the router writes"));
        }
        if told("maxmemory") != "0" && told("maxmemory_policy") != "noeviction" {
            let policy = told("maxmemory_policy");
            return Err(self.unfit(format!(
                "its maxmemory-policy {policy} may drop conversations; set maxmemory-policy noeviction"
            )));
        }
        if told("aof_enabled") == "0" {
            return Ok(Durability::SnapshotsOnly);
        }
        let mut config = ::redis::cmd("CONFIG");
        config.arg("GET").arg("appendfsync");
        // An operator may not be allowed to ask; then that is said.
        let config: Result<Vec<String>, _> = config.query_async(&mut self.connection).await;
        Ok(match config.ok().as_deref().and_then(|pair| pair.get(1)).map(String::as_str) {
            Some("always") => Durability::EveryAnswer,
            Some("everysec") => Durability::EverySecond,
            Some("no") => Durability::Whenever,
            _ => Durability::Unknown,
        })
    }

    /// Takes the lease. One that nobody renews is waited for: its holder may have died.
    async fn take_lease(&mut self, holder: &str) -> Result<(), RedisOpenError> {
        let give_up = Instant::now() + LEASE_LASTS + Duration::from_secs(1);
        let mut left_before = u64::MAX;
        loop {
            let mut pipeline = ::redis::pipe();
            lease(holder).add_to(&mut pipeline);
            let mut replies = self.query(pipeline).await?;
            let left: u64 = read(replies.pop().unwrap_or(Value::Nil)).map_err(|fault| self.unreadable(&fault))?;
            if left == 0 {
                return Ok(());
            }
            // It lasts longer than it did: somebody renews it.
            if left > left_before || Instant::now() > give_up {
                return Err(RedisOpenError::InUse { at: self.at.clone() });
            }
            left_before = left;
            sleep(LOOK_EVERY).await;
        }
    }

    /// Gives the lease back when nothing came of opening, so that whoever tries again need not wait. Else it expires.
    async fn give_back(&mut self, holder: &str) {
        let mut pipeline = ::redis::pipe();
        let mut call = Call::new(Script::Release);
        call.key(keys::LEASE).text(holder).add_to(&mut pipeline);
        let _ = self.query(pipeline).await;
    }

    /// Reads what the store is, or creates it; the key of its handles, and whether a migration into it is unfinished.
    async fn look_at_store(&mut self, asked: u16, purpose: Purpose) -> Result<([u8; 32], Option<u64>), RedisOpenError> {
        const DAMAGED: Fault = Fault::Unreadable("it does not say what it is");
        let mut made = [0; 32];
        getrandom::fill(&mut made).map_err(|e| RedisOpenError::Random(e.to_string()))?;
        if let Purpose::Fill(key) = purpose {
            made = key;
            let mut pipeline = ::redis::pipe();
            pipeline.cmd("HEXISTS").arg(keys::STORE).arg("handle_key");
            let mut replies = self.query(pipeline).await?;
            if !read::<bool>(replies.pop().unwrap_or(Value::Nil)).map_err(|fault| self.unreadable(&fault))? {
                // Before the key: what is there from now on is not whole.
                let mut pipeline = ::redis::pipe();
                pipeline.cmd("HSET").arg(keys::STORE).arg(keys::PARTS_DONE).arg(0);
                self.query(pipeline).await?;
            }
        }
        let mut pipeline = ::redis::pipe();
        // The key last: a store that has it is whole.
        for (name, value) in [("format", FORMAT.to_string()), ("partitions", asked.to_string())] {
            pipeline.cmd("HSETNX").arg(keys::STORE).arg(name).arg(value).ignore();
        }
        pipeline.cmd("HSETNX").arg(keys::STORE).arg("handle_key").arg(&made[..]).ignore();
        pipeline.cmd("HMGET").arg(keys::STORE).arg("format").arg("partitions").arg("handle_key").arg(keys::PARTS_DONE);
        let mut replies = self.query(pipeline).await?;
        type Fields = (Option<u64>, Option<u16>, Option<Vec<u8>>, Option<u64>);
        let fields: Fields = read(replies.pop().unwrap_or(Value::Nil)).map_err(|fault| self.unreadable(&fault))?;
        let (Some(format), Some(stored), Some(key), parts_done) = fields else { return Err(self.unreadable(&DAMAGED)) };
        if format > FORMAT {
            return Err(RedisOpenError::Newer { at: self.at.clone(), found: format });
        }
        if stored != asked {
            return Err(RedisOpenError::Partitions { at: self.at.clone(), stored, asked });
        }
        if parts_done.is_some() && matches!(purpose, Purpose::Serve) {
            return Err(RedisOpenError::Unfinished { at: self.at.clone() });
        }
        Ok((key.try_into().map_err(|_| self.unreadable(&DAMAGED))?, parts_done))
    }

    /// Puts up the fence in every partition, so that nothing counts that whoever had the store before still sends; finds
    /// where the ids of deliveries go on; ends what a crash left undone.
    async fn begin_epoch(&mut self, partitions: u16) -> Result<(Place, Ids), RedisOpenError> {
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("HINCRBY").arg(keys::STORE).arg("epoch").arg(1);
        let mut replies = self.query(pipeline).await?;
        let epoch: u64 = read(replies.pop().unwrap_or(Value::Nil)).map_err(|fault| self.unreadable(&fault))?;
        let place = Place { partitions, epoch };

        let mut pipeline = ::redis::pipe();
        pipeline.cmd("HSET").arg(keys::CONFIG_HEAD).arg("epoch").arg(epoch);
        for n in 0..partitions {
            pipeline.cmd("HSET").arg(Partition(n).head()).arg("epoch").arg(epoch);
        }
        self.query(pipeline).await?;

        let mut pipeline = ::redis::pipe();
        for n in 0..partitions {
            pipeline.cmd("HGET").arg(Partition(n).head()).arg("outbox");
        }
        let last = self.query(pipeline).await?.into_iter().map(read::<Option<u64>>);
        let last = last.collect::<Result<Vec<_>, _>>().map_err(|fault| self.unreadable(&fault))?;
        let last = last.into_iter().flatten().max().unwrap_or(0) / u64::from(partitions);

        let mut pipeline = ::redis::pipe();
        pipeline.cmd("SMEMBERS").arg(keys::FORGETTING);
        let mut replies = self.query(pipeline).await?;
        let names: Vec<String> = read(replies.pop().unwrap_or(Value::Nil)).map_err(|fault| self.unreadable(&fault))?;
        for name in names {
            let mut pipeline = ::redis::pipe();
            forget_endpoint(place, &Endpoint::from_name(&name)).iter().for_each(|call| call.add_to(&mut pipeline));
            self.query(pipeline).await?;
        }
        Ok((place, Ids { last, partitions }))
    }
}
