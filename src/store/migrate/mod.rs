//! Moves a whole store into another one: embedded or Redis on either side.
//!
//! Part by part: what is read from the source in pages is written to the destination, whose note of the parts that are done
//! makes it possible to go on after a crash. A part that was begun is moved again from its start, and everything written
//! can be written twice. Then both are read again, and must add up to the same.
//!
//! Until then the destination says that it is unfinished, and no router opens it.

mod record;

pub use record::{DeliveryRecord, Part, Record, Survey, ThreadRecord, is_full};

use super::{
    redis::{RedisOpenError, RedisSide},
    sqlite::{OpenError, SqliteSide},
};
use crate::tenancy::Secret;
use async_trait::async_trait;
use std::{fmt, path::PathBuf};
use tokio::sync::mpsc;
use tract_actors::ports::StoreError;

/// Pages that are read ahead.
const AHEAD: usize = 4;

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory of the embedded store's.
    Directory(PathBuf),
    /// A Redis server, by its URL. Secret for the password in it.
    Redis(Secret),
}

impl Location {
    /// Reads what an operator writes: a URL with a scheme, else a directory.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match super::redis::url_fault(text, false) {
            None => Ok(Self::Redis(Secret::new(text))),
            Some(fault) if text.contains("://") => Err(fault),
            Some(_) if text.is_empty() => Err("must be a directory or a redis:// URL"),
            Some(_) => Ok(Self::Directory(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for Location {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Redis(url) => match url::Url::parse(url.expose()) {
                Ok(url) => {
                    write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
                    url.port().map_or(Ok(()), |port| write!(f, ":{port}"))?;
                    f.write_str(url.path())
                }
                Err(_) => f.write_str("Redis"),
            },
        }
    }
}

/// What makes a store this one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// How many partitions it has.
    pub partitions: u16,
    /// The key of its handles.
    pub handle_key: [u8; 32],
}

/// Why a store could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Both are the same.
    #[error("{0} cannot be moved into itself")]
    Same(Location),
    /// The source is not there.
    #[error("there is no store in {0}")]
    NoStore(Location),
    /// The destination cannot take it.
    #[error("{0} holds a store already; nothing was changed there")]
    Occupied(Location),
    /// The source is half of a store.
    #[error("{0} is half of a migration itself; finish that one first")]
    Unfinished(Location),
    /// The destination is half of another store.
    #[error("{0} holds an unfinished migration of another store; empty it first")]
    Another(Location),
    /// The embedded store could not be opened.
    #[error(transparent)]
    Embedded(#[from] OpenError),
    /// The store in Redis could not be opened.
    #[error(transparent)]
    Redis(#[from] RedisOpenError),
    /// A store failed.
    #[error("{at}: {error}")]
    Store {
        /// Which.
        at: &'static str,
        /// How.
        error: StoreError,
    },
    /// What was written is not what was read.
    #[error("the two stores differ in {0}; the destination is left unfinished: empty it and start again")]
    Differs(String),
}

/// What is read of a part, page by page, or why it could not be.
pub type Pages = mpsc::Receiver<Result<Vec<Record>, StoreError>>;

/// The two ends of a channel of pages.
pub(super) fn pages() -> (mpsc::Sender<Result<Vec<Record>, StoreError>>, Pages) {
    mpsc::channel(AHEAD)
}

/// One store of a migration: nobody else has it open meanwhile.
#[async_trait]
pub trait Side: Send + Sync {
    /// What it is.
    fn identity(&self) -> Identity;
    /// Reads a part.
    fn read(&self, part: Part) -> Pages;
    /// How many parts an earlier run has written.
    async fn done(&mut self) -> Result<usize, StoreError>;
    /// Writes a page of a part; what is there already is replaced.
    async fn write(&mut self, part: Part, page: Vec<Record>) -> Result<(), StoreError>;
    /// A part is whole: what follows from it is counted, and so many parts are noted as done.
    async fn finish(&mut self, part: Part, done: usize) -> Result<(), StoreError>;
    /// The store is whole: routers may open it.
    async fn complete(&mut self) -> Result<(), StoreError>;
    /// Gives it back.
    async fn close(&mut self);
}

/// Is told how a migration goes on.
pub trait Progress {
    /// So many of all steps are taken, each part once to move it and once to compare it; `records` have been read.
    fn step(&self, taken: usize, of: usize, doing: &str, records: u64);
}

/// What was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Records in each of the two stores.
    pub records: u64,
    /// Parts that an earlier run had moved.
    pub resumed_after: usize,
}

/// Moves everything.
pub async fn migrate(from: &Location, to: &Location, progress: &dyn Progress) -> Result<Moved, MigrateError> {
    if from == to {
        return Err(MigrateError::Same(from.clone()));
    }
    let mut source: Box<dyn Side> = match from {
        Location::Directory(path) => Box::new(SqliteSide::source(path, from)?),
        Location::Redis(url) => Box::new(RedisSide::source(url.expose(), from).await?),
    };
    let identity = source.identity();
    let destination: Result<Box<dyn Side>, MigrateError> = match to {
        Location::Directory(path) => SqliteSide::destination(path, to, identity).map(|side| Box::new(side) as _),
        Location::Redis(url) => {
            RedisSide::destination(url.expose(), to, identity).await.map(|side| Box::new(side) as _)
        }
    };
    let moved = match destination {
        Ok(mut destination) => {
            let moved = carry(&mut *source, &mut *destination, progress).await;
            destination.close().await;
            moved
        }
        Err(error) => Err(error),
    };
    source.close().await;
    moved
}

async fn carry(
    source: &mut dyn Side,
    destination: &mut dyn Side,
    progress: &dyn Progress,
) -> Result<Moved, MigrateError> {
    let here = |error| MigrateError::Store { at: "the source", error };
    let there = |error| MigrateError::Store { at: "the destination", error };
    let parts = Part::all(source.identity().partitions);
    let steps = 2 * parts.len();
    let resumed_after = destination.done().await.map_err(there)?;
    let mut records = 0;
    for (n, part) in parts.iter().enumerate().skip(resumed_after) {
        progress.step(n, steps, &format!("moving {part}"), records);
        let mut pages = source.read(*part);
        while let Some(page) = pages.recv().await {
            let page = page.map_err(here)?;
            records += page.len() as u64;
            destination.write(*part, page).await.map_err(there)?;
        }
        destination.finish(*part, n + 1).await.map_err(there)?;
    }
    let mut compared = 0;
    for (n, part) in parts.iter().enumerate() {
        progress.step(parts.len() + n, steps, &format!("comparing {part}"), records + compared);
        let (read, written) = tokio::join!(survey(source.read(*part)), survey(destination.read(*part)));
        let (read, written) = (read.map_err(here)?, written.map_err(there)?);
        let differences = read.differences(&written);
        if !differences.is_empty() {
            return Err(MigrateError::Differs(format!("{part}: {}", differences.join(", "))));
        }
        compared += read.count();
    }
    progress.step(steps, steps, "done", records + compared);
    destination.complete().await.map_err(there)?;
    Ok(Moved { records: compared, resumed_after })
}

async fn survey(mut pages: Pages) -> Result<Survey, StoreError> {
    let mut survey = Survey::default();
    while let Some(page) = pages.recv().await {
        page?.iter().for_each(|record| survey.add(record));
    }
    Ok(survey)
}
