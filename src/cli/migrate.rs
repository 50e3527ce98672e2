//! `tract migrate`

use super::{Failure, print};
use crate::store::migrate::{Location, MigrateError, Progress, migrate};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{IsTerminal, stderr},
    sync::atomic::{AtomicUsize, Ordering},
};

#[derive(Debug, clap::Args)]
pub(super) struct Migrate {
    /// The store to move: a directory of the embedded store, or a redis:// URL
    #[arg(long, value_name = "STORE", env = "TRACT_MIGRATE_FROM", hide_env_values = true, value_parser = location)]
    from: Location,
    /// Where to: the same; made if it is not there, refused if it holds another store
    #[arg(long, value_name = "STORE", env = "TRACT_MIGRATE_TO", hide_env_values = true, value_parser = location)]
    to: Location,
}

fn location(text: &str) -> Result<Location, &'static str> {
    Location::parse(text)
}

impl Migrate {
    pub(super) fn run(self) -> Result<(), Failure> {
        // The lease on a store in Redis is renewed while the other side writes.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let progress: Box<dyn Progress + Send + Sync> =
            if stderr().is_terminal() { Box::new(Bar::new()) } else { Box::new(Lines::default()) };
        let moving = migrate(&self.from, &self.to, &*progress);
        let moved = runtime.map_err(Failure::Runtime)?.block_on(moving);
        drop(progress);
        let moved = moved?;
        print([format!("{} records moved from {} to {}; both were compared", moved.records, self.from, self.to)])
    }
}

/// On a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}  [{elapsed}, {eta} to go]") {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Progress for Bar {
    fn step(&self, taken: usize, of: usize, doing: &str, records: u64) {
        self.0.set_length(of as u64);
        self.0.set_position(taken as u64);
        self.0.set_message(format!("{doing}, {records} records"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Elsewhere: a line for each tenth of the way.
#[derive(Default)]
struct Lines {
    /// The tenths that were told, and one more.
    told: AtomicUsize,
}

impl Progress for Lines {
    fn step(&self, taken: usize, of: usize, doing: &str, records: u64) {
        let tenths = 10 * taken / of.max(1);
        if self.told.fetch_max(tenths + 1, Ordering::Relaxed) <= tenths {
            eprintln!("{:>3}%  {doing}, {records} records", 10 * tenths);
        }
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        Self::Migrate(Box::new(error))
    }
}
