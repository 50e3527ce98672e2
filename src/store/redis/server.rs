//! What a server is, and what it does to keep what it acknowledged.

use super::{fault::Fault, target::Kind};
use ::redis::aio::MultiplexedConnection;
use std::{collections::HashMap, fmt};

/// The oldest server that has what the scripts need.
const OLDEST: u64 = 7;

/// What the servers do to keep what they acknowledged; of several, what the worst of them does. From good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeping {
    /// Each answer comes after an fsync: what is acknowledged survives a power cut.
    EveryAnswer,
    /// A power cut can cost what was acknowledged in the last second or two.
    EverySecond,
    /// A power cut can cost what the system had not written by itself, typically half a minute.
    Whenever,
    /// The server does not tell.
    Unknown,
    /// Nothing is written but snapshots: a crash of the server costs everything since the last one.
    SnapshotsOnly,
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

/// What stands by when a server is lost; of several, what the worst off of them has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redundancy {
    /// Replicas that were connected when the store was opened.
    pub replicas: u64,
    /// With fewer connected replicas it refuses to write (`min-replicas-to-write`). None: it does not tell.
    pub replicas_to_write: Option<u64>,
}

impl Redundancy {
    fn worse(self, other: Self) -> Self {
        Self {
            replicas: self.replicas.min(other.replicas),
            replicas_to_write: self.replicas_to_write.zip(other.replicas_to_write).map(|(one, two)| one.min(two)),
        }
    }
}

impl fmt::Display for Redundancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.replicas, self.replicas_to_write) {
            (0, _) => f.write_str("there is no replica: while a server is away, what it has is not served"),
            (n, Some(0)) => write!(
                f,
                "{n} replicas, but writes do not need one (min-replicas-to-write 0): a failover can cost what was not \
                 replicated yet, and a server that was cut off goes on writing what is lost then; set it to 1"
            ),
            (n, Some(least)) => write!(
                f,
                "{n} replicas, of which {least} must be connected to write: a failover can cost what was not replicated yet"
            ),
            (n, None) => write!(f, "{n} replicas; a failover can cost what was not replicated yet"),
        }
    }
}

/// What the servers promise together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) keeping: Keeping,
    pub(super) redundancy: Redundancy,
}

impl Promise {
    /// What is left of it when something depends on both.
    pub(super) fn worse(self, other: Self) -> Self {
        let keeping = self.keeping.max(other.keeping);
        Self { keeping, redundancy: self.redundancy.worse(other.redundancy) }
    }
}

/// Looks at a server that has keys: what it promises, or why it cannot be used.
pub(super) async fn look(
    connection: &mut MultiplexedConnection,
    kind: &Kind,
) -> Result<Result<Promise, String>, Fault> {
    let info: String = ::redis::cmd("INFO").query_async(connection).await?;
    let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
    let told = |name: &str| info.get(name).copied().unwrap_or_default();
    if let Some(why) = unfit(told, kind) {
        return Ok(Err(why));
    }
    let mut ask = ::redis::cmd("CONFIG");
    ask.arg("GET").arg("appendfsync").arg("min-replicas-to-write");
    // An operator may not be allowed to ask; then that is said.
    let config: Result<HashMap<String, String>, _> = ask.query_async(connection).await;
    let config = config.unwrap_or_default();
    let keeping = match config.get("appendfsync").map(String::as_str) {
        _ if told("aof_enabled") == "0" => Keeping::SnapshotsOnly,
        Some("always") => Keeping::EveryAnswer,
        Some("everysec") => Keeping::EverySecond,
        Some("no") => Keeping::Whenever,
        _ => Keeping::Unknown,
    };
    let redundancy = Redundancy {
        replicas: told("connected_slaves").parse().unwrap_or(0),
        replicas_to_write: config.get("min-replicas-to-write").and_then(|count| count.parse().ok()),
    };
    Ok(Ok(Promise { keeping, redundancy }))
}

fn unfit<'a>(told: impl Fn(&str) -> &'a str, kind: &Kind) -> Option<String> {
    let version = told("redis_version");
    if version.split('.').next().and_then(|major| major.parse::<u64>().ok()).is_none_or(|major| major < OLDEST) {
        return Some(format!("it is version {version}; version {OLDEST}.0 or later is needed"));
    }
    if told("cluster_enabled") == "1" && *kind != Kind::Cluster {
        return Some(
            "it is a node of a cluster; begin store.url with redis+cluster://, or rediss+cluster:// for TLS".into(),
        );
    }
    if told("role") != "master" {
        return Some("it is a replica; the router writes".into());
    }
    let policy = told("maxmemory_policy");
    if told("maxmemory") != "0" && policy != "noeviction" {
        return Some(format!("its maxmemory-policy {policy} may drop conversations; set maxmemory-policy noeviction"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(keeping: Keeping, replicas: u64, replicas_to_write: Option<u64>) -> Promise {
        Promise { keeping, redundancy: Redundancy { replicas, replicas_to_write } }
    }

    #[test]
    fn of_several_the_worst_counts() {
        let good = promise(Keeping::EveryAnswer, 2, Some(1));
        let bad = promise(Keeping::EverySecond, 0, Some(3));
        let expected = promise(Keeping::EverySecond, 0, Some(1));
        assert_eq!((good.worse(bad), bad.worse(good)), (expected, expected));
        assert_eq!(good.worse(promise(Keeping::EveryAnswer, 2, None)).redundancy.replicas_to_write, None);
        assert!(bad.redundancy.to_string().contains("there is no replica"));
        assert!(good.redundancy.to_string().contains("1 must be connected"));
    }
}
