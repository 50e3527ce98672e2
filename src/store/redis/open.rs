//! Opening: what the server is and promises, and whether the store is this one.

use super::{
    fault::Fault,
    keys,
    leases::{Leases, Office},
    notices::Listener,
    other_step::{end_forgetting, forget_endpoint},
    reader::{CONNECTIONS, Pools, Reader, command},
    script::Call,
    server::{self, Promise},
    sinks::{Sinks, Standing},
    target::Target,
    thread_step::Place,
    topology::Topology,
    writer::Writer,
};
use crate::store::handle::{Handles, MAX_PARTITIONS};
use ::redis::Cmd;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::Notify;
use tract_actors::ports::Endpoint;
use uuid::Uuid;

/// The format of what is stored.
const FORMAT: u64 = 1;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    /// The URL is none that can be used.
    #[error("store.url: {0}")]
    Url(&'static str),
    /// The file of `store.ca` cannot be read.
    #[error("store.ca: {}: {why}", .path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// No store can have so many partitions.
    #[error("a store has 1 to {MAX_PARTITIONS} partitions, not {0}")]
    PartitionCount(u16),
    /// Nobody answers there, or not as Redis does; or no server of them all is known to have the keys.
    #[error("cannot use Redis at {at}: {why}")]
    Unreachable {
        /// Host and port, of each that was named.
        at: String,
        /// Why.
        why: String,
    },
    /// The server is not one that the store can live on.
    #[error("Redis at {at} cannot be used: {why}")]
    Unfit {
        /// Host and port, of each that was named.
        at: String,
        /// Why, and what to do.
        why: String,
    },
    /// It was created with another number of partitions, and that is fixed.
    #[error("the store in Redis at {at} was created with {stored} partitions, not {asked}")]
    Partitions {
        /// Host and port, of each that was named.
        at: String,
        /// How many it has.
        stored: u16,
        /// How many were asked for.
        asked: u16,
    },
    /// A newer version of this program wrote it.
    #[error("the store in Redis at {at} has format {found}; this program knows formats up to {FORMAT}")]
    Newer {
        /// Host and port, of each that was named.
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
        /// Host and port, of each that was named.
        at: String,
        /// Why.
        why: String,
    },
    /// The system gives no randomness for the store's key.
    #[error("the system gives no randomness: {0}")]
    Random(String),
}

/// What opening yields.
pub(super) struct Opened {
    pub(super) handles: Handles,
    pub(super) place: Place,
    pub(super) sinks: Arc<Sinks>,
    pub(super) writer: Writer,
    pub(super) leases: Leases,
    pub(super) pools: Arc<Pools>,
    pub(super) promise: Promise,
}

/// What a store is opened for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// To be served, or read.
    Use,
    /// To be filled by a migration: a new store gets this key.
    Fill([u8; 32]),
}

pub(super) struct Opening {
    pub(super) at: String,
    topology: Arc<Topology>,
    pub(super) pools: Arc<Pools>,
}

/// Opens the store.
pub(super) async fn open(
    url: &str,
    ca: Option<&Path>,
    partitions: u16,
    node_id: &str,
) -> Result<Opened, RedisOpenError> {
    if !(1..=MAX_PARTITIONS).contains(&partitions) {
        return Err(RedisOpenError::PartitionCount(partitions));
    }
    let opening = Opening::at(url, ca).await?;
    let promise = opening.look_at_servers().await?;
    let (handle_key, unfinished) = opening.look_at_store(partitions, Purpose::Use).await?;
    if unfinished.is_some() {
        return Err(RedisOpenError::Unfinished { at: opening.at });
    }
    opening.finish(partitions).await?;
    let place = Place { partitions, instance: Uuid::new_v4() };
    let (sinks, standing) = (Arc::<Sinks>::default(), Arc::<Standing>::default());
    let resubscribe = Arc::<Notify>::default();
    let office = Office {
        place,
        node_id: node_id.to_owned(),
        pools: Arc::new(Pools::new(Arc::clone(&opening.topology), 1)),
        handle_key,
        sinks: Arc::clone(&sinks),
        standing: Arc::clone(&standing),
        resubscribe: Arc::clone(&resubscribe),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started_at = now.as_millis().try_into().unwrap_or(u64::MAX);
    let leases = Leases::start(office, started_at).await.map_err(|fault| opening.failed(&fault))?;
    // Only now that a migration would see this node: of the two, one sees the other.
    if opening.is_moving().await? {
        leases.close().await;
        return Err(RedisOpenError::Moving { at: opening.at });
    }
    let listener = Listener {
        topology: Arc::clone(&opening.topology),
        instance: place.name(),
        sinks: Arc::clone(&sinks),
        held: leases.held(),
        poke: leases.poke(),
        resubscribe,
    };
    tokio::spawn(listener.run());
    let writer = Writer::start(&opening.topology, &sinks, standing);
    let handles = Handles::new(&handle_key, partitions);
    Ok(Opened { handles, place, sinks, writer, leases, pools: opening.pools, promise })
}

/// What is wrong with a store's URL, if anything is. `has_ca` is whether there is a `store.ca`.
pub fn url_fault(url: &str, has_ca: bool) -> Option<&'static str> {
    Target::check(url, has_ca).err()
}

impl Opening {
    /// Finds the servers.
    pub(super) async fn at(url: &str, ca: Option<&Path>) -> Result<Self, RedisOpenError> {
        let read_ca =
            |path: &Path| std::fs::read(path).map_err(|why| RedisOpenError::Ca { path: path.to_owned(), why });
        let ca = ca.map(read_ca).transpose()?;
        let target = Target::read(url, ca.as_deref()).map_err(RedisOpenError::Url)?;
        let at = target.shown();
        let topology = Topology::find(target).await;
        let topology = topology.map_err(|e| RedisOpenError::Unreachable { at: at.clone(), why: e.to_string() })?;
        let topology = Arc::new(topology);
        Ok(Self { at, pools: Arc::new(Pools::new(Arc::clone(&topology), CONNECTIONS)), topology })
    }
    fn unfit(&self, why: impl Into<String>) -> RedisOpenError {
        RedisOpenError::Unfit { at: self.at.clone(), why: why.into() }
    }
    fn unreadable(&self, why: &dyn fmt::Display) -> RedisOpenError {
        RedisOpenError::Unreadable { at: self.at.clone(), why: why.to_string() }
    }
    pub(super) fn failed(&self, why: &Fault) -> RedisOpenError {
        match why {
            Fault::Unreadable(_) | Fault::Record(_) => self.unreadable(why),
            _ => RedisOpenError::Unreachable { at: self.at.clone(), why: why.to_string() },
        }
    }
    pub(super) fn reader(&self) -> Reader {
        self.pools.reader()
    }

    /// Whether all servers that have keys keep what they are given, and how well.
    pub(super) async fn look_at_servers(&self) -> Result<Promise, RedisOpenError> {
        let map = self.topology.map();
        let target = self.topology.target();
        let mut promise: Option<Promise> = None;
        for address in map.primaries() {
            let looked = async { server::look(&mut self.topology.connect(address).await?, &target.kind).await };
            let looked = looked.await.map_err(|fault| self.failed(&fault))?;
            let of_one = looked.map_err(|why| RedisOpenError::Unfit { at: address.to_string(), why })?;
            promise = Some(promise.map_or(of_one, |promise| promise.worse(of_one)));
        }
        if !map.is_whole() {
            return Err(self.unfit("no server has some of the slots; see CLUSTER INFO"));
        }
        promise.ok_or_else(|| self.unfit("no server has any keys"))
    }

    /// Whether a migration has the store.
    async fn is_moving(&self) -> Result<bool, RedisOpenError> {
        self.reader().one(command!("EXISTS", keys::MIGRATION)).await.map_err(|fault| self.failed(&fault))
    }

    /// Reads what the store is, or creates it; the key of its handles, and how far an unfinished migration into it is.
    pub(super) async fn look_at_store(
        &self,
        asked: u16,
        purpose: Purpose,
    ) -> Result<([u8; 32], Option<u64>), RedisOpenError> {
        const DAMAGED: Fault = Fault::Unreadable("it does not say what it is");
        type Fields = (Option<u64>, Option<u16>, Option<Vec<u8>>, Option<u64>);
        let mut made = [0; 32];
        getrandom::fill(&mut made).map_err(|e| RedisOpenError::Random(e.to_string()))?;
        let ask = async {
            let mut reader = self.reader();
            if let Purpose::Fill(key) = purpose {
                made = key;
                if !reader.one::<bool>(command!("HEXISTS", keys::STORE, "handle_key")).await? {
                    // Before the key: what is there from now on is not whole.
                    reader.one::<u64>(command!("HSET", keys::STORE, keys::PARTS_DONE, 0)).await?;
                }
            }
            // The key last: a store that has it is whole.
            let mut commands: Vec<Cmd> = [("format", FORMAT.to_string()), ("partitions", asked.to_string())]
                .into_iter()
                .map(|(name, value)| command!("HSETNX", keys::STORE, name, value))
                .collect();
            commands.push(command!("HSETNX", keys::STORE, "handle_key", &made[..]));
            reader.all::<u64>(commands).await?;
            let fields = command!("HMGET", keys::STORE, "format", "partitions", "handle_key", keys::PARTS_DONE);
            reader.one::<Fields>(fields).await
        };
        let fields = ask.await.map_err(|fault| self.failed(&fault))?;
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
    pub(super) async fn finish(&self, partitions: u16) -> Result<(), RedisOpenError> {
        let finish = async {
            let mut reader = self.reader();
            let names: Vec<String> = reader.one(command!("SMEMBERS", keys::FORGETTING)).await?;
            let others: u64 = reader.one(command!("HLEN", keys::NODES)).await?;
            if others > 0 || names.is_empty() {
                return Ok(());
            }
            let endpoints: Vec<Endpoint> = names.iter().map(|name| Endpoint::from_name(name)).collect();
            for endpoint in &endpoints {
                let calls = forget_endpoint(partitions, endpoint);
                reader.all::<::redis::Value>(calls.iter().map(Call::command).collect()).await?;
            }
            reader.one::<::redis::Value>(end_forgetting(&endpoints).command()).await?;
            Ok(())
        };
        finish.await.map_err(|fault: Fault| self.failed(&fault))
    }
}
