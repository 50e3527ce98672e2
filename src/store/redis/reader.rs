//! Reads: each takes a connection of a pool, or one of each pool whose server has some of what it asks for, and asks all of
//! them at the same time.

use super::{
    fault::{Fault, Redirect, read, redirect},
    script::load_all,
    target::{Address, CONNECT_WITHIN, Kind, connection_config},
    topology::{Map, Topology},
};
use ::redis::{Arg, Cmd, FromRedisValue, Pipeline, RedisError, Value, aio::ConnectionLike};
use deadpool_redis::{Connection, Hook, HookError, Manager, Pool, Runtime};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};

/// Connections for reads to each server: a read is short, and each of them takes many at once.
pub(super) const CONNECTIONS: usize = 16;

/// Commands in one pipeline, so that neither side holds too much of it at once.
const TOGETHER: usize = 4096;

/// How long a read may take, also while keys move or their server is being replaced.
const FOUND_WITHIN: Duration = Duration::from_secs(4);

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(20);

/// The pools, one for each server.
pub(super) struct Pools {
    topology: Arc<Topology>,
    connections: usize,
    pools: Mutex<HashMap<Address, Pool>>,
}

impl Pools {
    /// With so many connections to each server.
    pub(super) fn new(topology: Arc<Topology>, connections: usize) -> Self {
        Self { topology, connections, pools: Mutex::default() }
    }

    /// For one read.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        self.reader_within(FOUND_WITHIN)
    }

    /// For one read that takes no longer.
    pub(super) fn reader_within(self: &Arc<Self>, within: Duration) -> Reader {
        Reader { pools: Arc::clone(self), held: None, within }
    }

    /// Ends all connections that nobody uses.
    pub(super) fn close(&self) {
        self.lock().drain().for_each(|(_, pool)| pool.close());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool of this server; it makes its connections as they are needed. Pools of servers that are gone go.
    fn pool(&self, address: &Address) -> Result<Pool, Fault> {
        let mut pools = self.lock();
        if let Some(pool) = pools.get(address) {
            return Ok(pool.clone());
        }
        let map = self.topology.map();
        pools.retain(|known, _| map.primaries().contains(known));
        let manager = Manager::new_with_config(self.topology.target().info(address), connection_config())?;
        let topology = Arc::clone(&self.topology);
        let check = Hook::async_fn(move |connection, _| {
            let topology = Arc::clone(&topology);
            Box::pin(async move {
                match topology.is_primary(connection).await {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(HookError::message("the server is a replica now")),
                    Err(error) => Err(HookError::Backend(error)),
                }
            })
        });
        let pool = Pool::builder(manager)
            .max_size(self.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_WITHIN))
            .create_timeout(Some(CONNECT_WITHIN))
            .recycle_timeout(Some(CONNECT_WITHIN))
            .post_create(check)
            .build();
        let pool = pool.map_err(|_| Fault::Unreadable("the pool cannot be made"))?;
        pools.insert(address.clone(), pool.clone());
        Ok(pool)
    }
}

/// The key that a command begins with, if it has any.
fn key_of(command: &Cmd) -> Option<&[u8]> {
    let mut arguments = command.args_iter().filter_map(|argument| match argument {
        Arg::Simple(argument) => Some(argument),
        _ => None,
    });
    match arguments.next()? {
        b"EVALSHA" => arguments.nth(2),
        _ => arguments.next(),
    }
}

/// One read, of one command or many.
pub(super) struct Reader {
    pools: Arc<Pools>,
    /// The connection that it used last, if it was one.
    held: Option<(Address, Connection)>,
    within: Duration,
}

/// A command on its way.
struct Asked {
    command: Cmd,
    reply: Option<Value>,
    /// Who has its key for the moment, while it moves.
    moving_to: Option<Address>,
}

/// Why there is no reply yet, although there may be one soon.
struct Open {
    why: Fault,
    /// Somebody else may have the keys now.
    is_elsewhere: bool,
}

impl Reader {
    /// The replies to all of these, in order.
    pub(super) async fn all<T: FromRedisValue>(&mut self, commands: Vec<Cmd>) -> Result<Vec<T>, Fault> {
        let (replies, missing) = self.ask(commands).await;
        if let Some(fault) = missing {
            return Err(fault);
        }
        let reply = |reply: Option<Value>| match reply {
            Some(Value::ServerError(error)) => Err(RedisError::from(error).into()),
            reply => read(reply.unwrap_or(Value::Nil)),
        };
        replies.into_iter().map(reply).collect()
    }

    /// Carries out all of these, which only a migration does: an entry that is there already stays.
    pub(super) async fn write(&mut self, commands: Vec<Cmd>) -> Result<(), Fault> {
        for part in commands.chunks(TOGETHER) {
            let (replies, missing) = self.ask(part.to_vec()).await;
            if let Some(fault) = missing {
                return Err(fault);
            }
            for reply in replies {
                if let Some(Value::ServerError(error)) = reply
                    && !error.details().is_some_and(|why| why.contains("equal or smaller"))
                {
                    return Err(RedisError::from(error).into());
                }
            }
        }
        Ok(())
    }

    /// The reply to this.
    pub(super) async fn one<T: FromRedisValue>(&mut self, command: Cmd) -> Result<T, Fault> {
        self.all(vec![command]).await?.pop().ok_or(Fault::Unreadable("no reply"))
    }

    /// The replies to all of these that came in time, in order; if there is none at all, why.
    pub(super) async fn partly<T: FromRedisValue>(&mut self, commands: Vec<Cmd>) -> Result<Vec<Option<T>>, Fault> {
        let (replies, missing) = self.ask(commands).await;
        if let Some(fault) = missing
            && replies.iter().all(Option::is_none)
        {
            return Err(fault);
        }
        let reply = |reply: Option<Value>| match reply {
            Some(Value::ServerError(error)) => Err(RedisError::from(error).into()),
            reply => reply.map(read).transpose(),
        };
        replies.into_iter().map(reply).collect()
    }

    /// The replies to all of these that came in time, in order; an error is none.
    pub(super) async fn some(&mut self, commands: Vec<Cmd>) -> Vec<Option<Value>> {
        let (replies, _) = self.ask(commands).await;
        replies.into_iter().map(|reply| reply.filter(|reply| !matches!(reply, Value::ServerError(_)))).collect()
    }

    /// Asks until there is a reply to everything, or no time left; why not, then.
    async fn ask(&mut self, commands: Vec<Cmd>) -> (Vec<Option<Value>>, Option<Fault>) {
        let asked = |command| Asked { command, reply: None, moving_to: None };
        let mut asked: Vec<Asked> = commands.into_iter().map(asked).collect();
        let give_up = Instant::now() + self.within;
        let mut missing = None;
        loop {
            let map = self.pools.topology.map();
            let Some(open) = self.ask_once(&map, &mut asked, give_up).await else { break };
            // A single server that is not there is not waited for.
            let is_gone = matches!(open.why, Fault::Pool(_)) && self.pools.topology.target().kind == Kind::Standalone;
            if is_gone || Instant::now() + PAUSE > give_up {
                missing = Some(open.why);
                break;
            }
            if open.is_elsewhere {
                let _ = timeout_at(give_up, self.pools.topology.look_again(&map)).await;
            }
            sleep(PAUSE).await;
        }
        (asked.into_iter().map(|asked| asked.reply).collect(), missing)
    }

    /// Asks everyone who has something that has no reply yet. Answers why some of it still has none.
    async fn ask_once(&mut self, map: &Map, asked: &mut [Asked], give_up: Instant) -> Option<Open> {
        let mut groups: BTreeMap<Address, Vec<&mut Asked>> = BTreeMap::new();
        let mut open: Option<Open> = None;
        for asked in asked.iter_mut().filter(|asked| asked.reply.is_none()) {
            let known = match (&asked.moving_to, key_of(&asked.command)) {
                (Some(address), _) => Some(address),
                (None, Some(key)) => map.primary_of(key),
                (None, None) => map.primaries().first(),
            };
            match known.cloned() {
                Some(address) => groups.entry(address).or_default().push(asked),
                None => {
                    let why = Fault::Nobody("no Redis server has these keys at the moment".into());
                    open = Some(Open { why, is_elsewhere: true });
                }
            }
        }
        let alone = groups.len() == 1;
        // What is not used again goes back before others are waited for.
        let mut held = self.held.take().filter(|(of, _)| alone && groups.contains_key(of));
        let asking = groups.iter_mut().map(|(address, group)| {
            let held = held.take().map(|(_, connection)| connection);
            let pools = &self.pools;
            async move {
                let mut connection = held;
                let sent = timeout_at(give_up, ask_server(pools, address, &mut connection, group)).await;
                let sent = sent.unwrap_or_else(|_| Err(Fault::Nobody(format!("{address} does not answer in time"))));
                if sent.is_err()
                    && let Some(connection) = connection.take()
                {
                    // Not back to the pool: whatever is under way there is for nobody.
                    drop(Connection::take(connection));
                }
                // Of several it is given back at once: nobody waits for a server with another one's connection in hand.
                (sent, connection.filter(|_| alone).map(|connection| (address.clone(), connection)))
            }
        });
        for (sent, connection) in join_all(asking).await {
            self.held = connection.or(self.held.take());
            if let Err(why) = sent {
                open = Some(Open { why, is_elsewhere: true });
            }
        }
        for (address, group) in groups {
            for asked in group {
                let Some(Value::ServerError(error)) = &asked.reply else { continue };
                let Some(redirect) = redirect(error, &address) else { continue };
                asked.moving_to = None;
                let is_elsewhere =
                    redirect == Redirect::Elsewhere || open.as_ref().is_some_and(|open| open.is_elsewhere);
                if let Redirect::Moving(to) = redirect {
                    asked.moving_to = to;
                }
                open = Some(Open { why: RedisError::from(error.clone()).into(), is_elsewhere });
                asked.reply = None;
            }
        }
        open
    }
}

/// Asks one server, on this connection or a new one; has it know the scripts, if it turns out not to.
async fn ask_server(
    pools: &Pools,
    address: &Address,
    connection: &mut Option<Connection>,
    group: &mut [&mut Asked],
) -> Result<(), Fault> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(pools.pool(address)?.get().await?),
    };
    send(connection, group).await?;
    let unknown = |asked: &&mut Asked| matches!(&asked.reply, Some(Value::ServerError(error)) if redirect(error, address) == Some(Redirect::Unknown));
    if group.iter().any(unknown) {
        load_all().query_async::<()>(connection).await?;
    }
    Ok(())
}

/// Sends these to one server, and writes down its replies.
async fn send(connection: &mut Connection, group: &mut [&mut Asked]) -> Result<(), RedisError> {
    for part in group.chunks_mut(TOGETHER) {
        let mut pipeline = Pipeline::new();
        for asked in part.iter() {
            if asked.moving_to.is_some() {
                pipeline.cmd("ASKING");
            }
            pipeline.add_command(asked.command.clone());
        }
        let count = pipeline.len();
        let mut replies = connection.req_packed_commands(&pipeline, 0, count).await?.into_iter();
        for asked in part.iter_mut() {
            if asked.moving_to.is_some() {
                replies.next();
            }
            asked.reply = replies.next();
        }
    }
    Ok(())
}

/// A command with its arguments.
macro_rules! command {
    ($name:expr $(, $argument:expr)* $(,)?) => {{
        let mut command = ::redis::cmd($name);
        $(command.arg($argument);)*
        command
    }};
}
pub(super) use command;
