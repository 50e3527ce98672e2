//! Opening: what the server is and promises, and whether the store is this one.

use super::{
    fault::{Fault, read},
    keys,
    leases::{LASTS, Leases, Office},
    notices::Listener,
    other_step::forget_endpoint,
    reader,
    script::{Call, Script, load_all},
    thread_step::Place,
    writer::{Sinks, Standing, Writer, connection_config},
};
use crate::store::handle::{Handles, MAX_PARTITIONS};
use ::redis::{
    Client, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use deadpool_redis::Pool;
use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tract_actors::ports::Endpoint;
use uuid::Uuid;

/// The format of what is stored.
const FORMAT: u64 = 1;

/// The oldest server that has what the scripts need.
const OLDEST: u64 = 7;

/// How often a migration looks whether the store is free.
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
    /// A migration wants it for itself, and somebody else has it open.
    #[error("the store in Redis at {at} is in use by a router or another migration")]
    InUse {
        /// Host and port.
        at: String,
    },
    /// It is being moved.
    #[error("the store in Redis at {at} is being moved by `tract migrate`")]
    Moving {
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
pub enum Keeping {
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

impl fmt::Display for Keeping {
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
    pub(super) sinks: Arc<Sinks>,
    pub(super) writer: Writer,
    pub(super) leases: Leases,
    pub(super) pool: Pool,
    pub(super) keeping: Keeping,
}

/// What a store is opened for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// To be served, or read.
    Use,
    /// To be filled by a migration: a new store gets this key.
    Fill([u8; 32]),
}

/// How many partitions the store at this URL has, if there is one.
pub(super) async fn partitions(url: &str) -> Result<Option<u16>, RedisOpenError> {
    let (_, mut opening) = connect(url).await?;
    let mut pipeline = ::redis::pipe();
    pipeline.cmd("HGET").arg(keys::STORE).arg("partitions");
    let mut replies = opening.query(pipeline).await?;
    read(replies.pop().unwrap_or(Value::Nil)).map_err(|fault| opening.unreadable(&fault))
}

/// Connects to this URL.
async fn connect(url: &str) -> Result<(Client, Opening), RedisOpenError> {
    if let Some(fault) = url_fault(url) {
        return Err(RedisOpenError::Url(fault));
    }
    let client = Client::open(url).map_err(|_| RedisOpenError::Url("is no Redis URL"))?;
    // Without user and password.
    let at = client.get_connection_info().addr().to_string();
    let connection = client.get_multiplexed_async_connection_with_config(&connection_config()).await;
    let connection = connection.map_err(|e| RedisOpenError::Unreachable { at: at.clone(), why: e.to_string() })?;
    Ok((client, Opening { at, connection }))
}

/// A store that a migration has to itself.
pub(super) struct Alone {
    pub(super) handles: Handles,
    pub(super) place: Place,
    pub(super) pool: Pool,
    /// The key of the handles.
    pub(super) key: [u8; 32],
    /// Of an unfinished migration: how many parts are done.
    pub(super) parts_done: Option<u64>,
    pub(super) hold: Hold,
}

/// Says for as long as it lives that a migration has the store.
pub(super) struct Hold {
    renewing: tokio::task::JoinHandle<()>,
    connection: MultiplexedConnection,
}

impl Hold {
    /// Says so no longer. What is not given back expires.
    pub(super) async fn give_back(mut self) {
        self.renewing.abort();
        let _ = ::redis::cmd("DEL").arg(keys::MIGRATION).query_async::<()>(&mut self.connection).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Opens the store for a migration. One that a router had which died is waited for: some seconds.
pub(super) async fn open_alone(url: &str, partitions: u16, purpose: Purpose) -> Result<Alone, RedisOpenError> {
    if !(1..=MAX_PARTITIONS).contains(&partitions) {
        return Err(RedisOpenError::PartitionCount(partitions));
    }
    let (_, mut opening) = connect(url).await?;
    opening.look_at_server().await?;
    opening.query(load_all()).await?;
    let hold = opening.hold().await?;
    let looked = async {
        opening.await_silence().await?;
        let looked = opening.look_at_store(partitions, purpose).await?;
        opening.finish(partitions).await?;
        Ok(looked)
    };
    match looked.await {
        Ok((key, parts_done)) => {
            let place = Place { partitions, instance: Uuid::new_v4() };
            let pool = reader::pool(url, reader::CONNECTIONS).map_err(|fault| opening.unreadable(&fault))?;
            Ok(Alone { handles: Handles::new(&key, partitions), place, pool, key, parts_done, hold })
        }
        Err(error) => {
            hold.give_back().await;
            Err(error)
        }
    }
}

struct Opening {
    at: String,
    connection: MultiplexedConnection,
}

/// Opens the store.
pub(super) async fn open(url: &str, partitions: u16, node_id: &str) -> Result<Opened, RedisOpenError> {
    if !(1..=MAX_PARTITIONS).contains(&partitions) {
        return Err(RedisOpenError::PartitionCount(partitions));
    }
    let (client, mut opening) = connect(url).await?;
    let keeping = opening.look_at_server().await?;
    opening.query(load_all()).await?;
    let (handle_key, unfinished) = opening.look_at_store(partitions, Purpose::Use).await?;
    if unfinished.is_some() {
        return Err(RedisOpenError::Unfinished { at: opening.at });
    }
    opening.finish(partitions).await?;
    let place = Place { partitions, instance: Uuid::new_v4() };
    let pool = reader::pool(url, reader::CONNECTIONS).map_err(|fault| opening.unreadable(&fault))?;
    let (sinks, standing) = (Arc::<Sinks>::default(), Arc::<Standing>::default());
    let resubscribe = Arc::<Notify>::default();
    let office = Office {
        place,
        node_id: node_id.to_owned(),
        pool: reader::pool(url, 1).map_err(|fault| opening.unreadable(&fault))?,
        handle_key,
        sinks: Arc::clone(&sinks),
        standing: Arc::clone(&standing),
        resubscribe: Arc::clone(&resubscribe),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started_at = now.as_millis().try_into().unwrap_or(u64::MAX);
    let leases = Leases::start(office, started_at).await.map_err(|fault| opening.unreachable(&fault))?;
    // Only now that a migration would see this node: of the two, one sees the other.
    if opening.is_moving().await? {
        leases.close().await;
        return Err(RedisOpenError::Moving { at: opening.at });
    }
    let listener = Listener {
        client: client.clone(),
        instance: place.name(),
        sinks: Arc::clone(&sinks),
        held: leases.held(),
        poke: leases.poke(),
        resubscribe,
    };
    tokio::spawn(listener.run());
    let writer = Writer::start(client, opening.connection, Arc::clone(&sinks), standing);
    let handles = Handles::new(&handle_key, partitions);
    Ok(Opened { handles, place, sinks, writer, leases, pool, keeping })
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
    async fn look_at_server(&mut self) -> Result<Keeping, RedisOpenError> {
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
            return Ok(Keeping::SnapshotsOnly);
        }
        let mut config = ::redis::cmd("CONFIG");
        config.arg("GET").arg("appendfsync");
        // An operator may not be allowed to ask; then that is said.
        let config: Result<Vec<String>, _> = config.query_async(&mut self.connection).await;
        Ok(match config.ok().as_deref().and_then(|pair| pair.get(1)).map(String::as_str) {
            Some("always") => Keeping::EveryAnswer,
            Some("everysec") => Keeping::EverySecond,
            Some("no") => Keeping::Whenever,
            _ => Keeping::Unknown,
        })
    }

    /// Takes the store for a migration. A hold that nobody renews is waited for: whoever had it may have died.
    async fn hold(&mut self) -> Result<Hold, RedisOpenError> {
        let give_up = Instant::now() + 2 * LASTS;
        let mut left_before = u64::MAX;
        loop {
            let mut pipeline = ::redis::pipe();
            let lasts = LASTS.as_millis().to_string();
            pipeline.cmd("SET").arg(keys::MIGRATION).arg(1).arg("NX").arg("PX").arg(&lasts);
            pipeline.cmd("PTTL").arg(keys::MIGRATION);
            let replies = self.query(pipeline).await?;
            let (taken, left) = (replies.first() == Some(&Value::Okay), replies.into_iter().nth(1));
            if taken {
                let mut connection = self.connection.clone();
                let renewing = tokio::spawn(async move {
                    loop {
                        sleep(Duration::from_secs(1)).await;
                        let mut renew = ::redis::cmd("SET");
                        renew.arg(keys::MIGRATION).arg(1).arg("PX").arg(&lasts);
                        if let Err(error) = renew.query_async::<()>(&mut connection).await {
                            tracing::warn!(%error, "the hold on the store could not be renewed");
                        }
                    }
                });
                return Ok(Hold { renewing, connection: self.connection.clone() });
            }
            let left: i64 = read(left.unwrap_or(Value::Nil)).map_err(|fault| self.unreadable(&fault))?;
            let left = left.unsigned_abs();
            // It lasts longer than it did: somebody renews it.
            if left > left_before || Instant::now() > give_up {
                return Err(RedisOpenError::InUse { at: self.at.clone() });
            }
            left_before = left;
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until no router has been heard of for as long as a lease lasts; one that is heard of meanwhile lives.
    async fn await_silence(&mut self) -> Result<(), RedisOpenError> {
        let mut heard_before = u64::MAX;
        let mut first = true;
        loop {
            let mut pipeline = ::redis::pipe();
            let mut call = Call::new(Script::Beat);
            call.key(keys::NODES).text("").text("").add_to(&mut pipeline);
            let mut replies = self.query(pipeline).await?;
            let words: Vec<String> =
                read(replies.pop().unwrap_or(Value::Nil)).map_err(|fault| self.unreadable(&fault))?;
            let ago = words.chunks_exact(3).filter_map(|words| words[1].parse::<u64>().ok()).min();
            match ago {
                Some(ago) if u128::from(ago) <= LASTS.as_millis() => {
                    if !first && ago < heard_before {
                        return Err(RedisOpenError::InUse { at: self.at.clone() });
                    }
                    (first, heard_before) = (false, ago);
                    sleep(LOOK_EVERY).await;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Whether a migration has the store.
    async fn is_moving(&mut self) -> Result<bool, RedisOpenError> {
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("EXISTS").arg(keys::MIGRATION);
        let mut replies = self.query(pipeline).await?;
        read(replies.pop().unwrap_or(Value::Nil)).map_err(|fault| self.unreadable(&fault))
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
        Ok((key.try_into().map_err(|_| self.unreadable(&DAMAGED))?, parts_done))
    }

    /// Ends what a crash left undone: unless there are other nodes, which may be about to do just that.
    async fn finish(&mut self, partitions: u16) -> Result<(), RedisOpenError> {
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("SMEMBERS").arg(keys::FORGETTING).cmd("HLEN").arg(keys::NODES);
        let mut replies = self.query(pipeline).await?;
        let others: u64 = read(replies.pop().unwrap_or(Value::Nil)).map_err(|fault| self.unreadable(&fault))?;
        let names: Vec<String> = read(replies.pop().unwrap_or(Value::Nil)).map_err(|fault| self.unreadable(&fault))?;
        if others > 0 {
            return Ok(());
        }
        for name in names {
            let mut pipeline = ::redis::pipe();
            let calls = forget_endpoint(partitions, &Endpoint::from_name(&name));
            calls.iter().for_each(|call| call.add_to(&mut pipeline));
            self.query(pipeline).await?;
        }
        Ok(())
    }
}
