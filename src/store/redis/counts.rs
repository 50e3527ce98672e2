//! How many deliveries this node was told of in each partition that it acts for: when the server has counted more, a notice
//! was lost.

use super::writer::lock;
use std::{collections::HashMap, sync::Mutex};

/// See the module.
#[derive(Default)]
pub(super) struct Counts(Mutex<HashMap<u16, u64>>);

impl Counts {
    /// So many more.
    pub(super) fn add(&self, partition: u16, count: u64) {
        if let Some(told) = lock(&self.0).get_mut(&partition) {
            *told += count;
        }
    }
    /// As many as the server has counted: from here on it is known.
    pub(super) fn set(&self, partition: u16, count: u64) {
        lock(&self.0).insert(partition, count);
    }
    /// How many there were in this partition.
    pub(super) fn of(&self, partition: u16) -> u64 {
        lock(&self.0).get(&partition).copied().unwrap_or(0)
    }
    /// This partition is another node's now.
    pub(super) fn forget(&self, partition: u16) {
        lock(&self.0).remove(&partition);
    }
}
