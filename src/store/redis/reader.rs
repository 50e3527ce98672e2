//! Reads: each takes a connection of the pool for a pipeline or a few.

use super::{
    fault::{Fault, read},
    script::{Call, load_all},
    writer::{CONNECT_WITHIN, connection_config},
};
use ::redis::{FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value, aio::ConnectionLike};
use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime};
use std::collections::VecDeque;

/// Connections for reads: a read is short, and each of them takes many at once.
pub(super) const CONNECTIONS: usize = 16;

/// Commands in one pipeline, so that neither side holds too much of it at once.
const TOGETHER: usize = 4096;

/// A pool that makes so many connections as they are needed.
pub(super) fn pool(url: &str, connections: usize) -> Result<Pool, Fault> {
    let manager = Manager::new_with_config(url, connection_config())?;
    let pool = Pool::builder(manager)
        .max_size(connections)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(CONNECT_WITHIN))
        .create_timeout(Some(CONNECT_WITHIN))
        .recycle_timeout(Some(CONNECT_WITHIN))
        .build();
    pool.map_err(|_| Fault::Unreadable("the pool cannot be made"))
}

/// A connection for one read.
pub(super) struct Reader(Connection);

impl Reader {
    pub(super) async fn take(pool: &Pool) -> Result<Self, PoolError> {
        Ok(Self(pool.get().await?))
    }

    /// The replies to all of these, in order.
    pub(super) async fn all<T: FromRedisValue>(&mut self, commands: Vec<::redis::Cmd>) -> Result<Vec<T>, Fault> {
        let mut replies = Vec::with_capacity(commands.len());
        let mut commands = VecDeque::from(commands);
        while !commands.is_empty() {
            let mut pipeline = Pipeline::new();
            let count = commands.len().min(TOGETHER);
            for command in commands.drain(..count) {
                pipeline.add_command(command);
            }
            for reply in self.0.req_packed_commands(&pipeline, 0, count).await? {
                if let Value::ServerError(error) = reply {
                    return Err(RedisError::from(error).into());
                }
                replies.push(read(reply)?);
            }
        }
        Ok(replies)
    }

    /// Carries out all of these, which only a migration does: an entry that is there already stays.
    pub(super) async fn write(&mut self, commands: Vec<::redis::Cmd>) -> Result<(), Fault> {
        for commands in commands.chunks(TOGETHER) {
            let mut pipeline = Pipeline::new();
            for command in commands {
                pipeline.add_command(command.clone());
            }
            for reply in self.0.req_packed_commands(&pipeline, 0, commands.len()).await? {
                if let Value::ServerError(error) = reply
                    && !error.details().is_some_and(|why| why.contains("equal or smaller"))
                {
                    return Err(RedisError::from(error).into());
                }
            }
        }
        Ok(())
    }

    /// The replies to these, in order; the server is told the scripts if it does not know them.
    pub(super) async fn carry_out(&mut self, calls: &[Call]) -> Result<Vec<Value>, Fault> {
        let mut told = false;
        loop {
            let replies: Vec<Value> = match self.all(calls.iter().map(Call::command).collect()).await {
                Err(Fault::Redis(error)) if error.kind() == ServerErrorKind::NoScript.into() && !told => {
                    told = true;
                    load_all().query_async::<()>(&mut self.0).await?;
                    continue;
                }
                other => other?,
            };
            return Ok(replies);
        }
    }

    /// The reply to this.
    pub(super) async fn one<T: FromRedisValue>(&mut self, command: ::redis::Cmd) -> Result<T, Fault> {
        let reply = self.0.req_packed_command(&command).await?;
        if let Value::ServerError(error) = reply {
            return Err(RedisError::from(error).into());
        }
        read(reply)
    }
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
