//! Retention: conversations that were over long enough ago leave the store, and with them the files that customers sent.
//!
//! A walk through all threads in the order in which the store lists them, again and again. There is no index by the time of
//! completion, which every commit would pay for. Each step is small, so that no commit waits long, and between pages the
//! walk rests.

use crate::{
    ports::{Clock, Owed, Store, StoreError, StoredThread, ThreadQuery},
    router::Router,
    unnamed,
};
use futures_util::{StreamExt, stream};
use std::{sync::Arc, time::Instant};
use tract_domain::{Past, State, Timestamp, UserId};

/// How often a walk begins, in milliseconds.
const EVERY_MS: u64 = 10 * 60 * 1_000;

/// Threads on a page.
const PAGE: usize = 200;

/// Entries that are read, and forgotten, at once.
const ENTRIES: usize = 500;

/// Threads that are looked at, or leave, at the same time.
const ABREAST: usize = 8;

/// After each page the walk rests for so many times as long as the page took: it is to cost a fraction of a core.
const REST: u32 = 3;

/// What has left.
#[derive(Debug, Default, Clone, Copy)]
struct Left {
    threads: u64,
    entries: u64,
}

impl Left {
    fn and(self, other: Self) -> Self {
        Self { threads: self.threads + other.threads, entries: self.entries + other.entries }
    }
}

struct Walk<'a> {
    store: &'a dyn Store,
    router: &'a Router,
    /// What was over at this time is past.
    before: Timestamp,
}

/// Walks for as long as the router runs; through old conversations only where they are not kept for ever.
pub(crate) async fn forget(store: Arc<dyn Store>, clock: Arc<dyn Clock>, router: Router, kept_ms: Option<u64>) {
    let mut next = clock.now();
    loop {
        let now = clock.now();
        // Of several nodes one is enough: whichever acts for the first strand.
        if store.held().borrow().active(0).is_some() {
            match unnamed::sweep(&*store, now).await {
                Ok(0) => {}
                Ok(files) => tracing::info!(files, "files that no message names were removed"),
                Err(error) => tracing::warn!(%error, "files that no message names could not all be removed"),
            }
        }
        if let Some(kept_ms) = kept_ms {
            let before = Timestamp(now.0.saturating_sub_unsigned(kept_ms));
            let walk = Walk { store: &*store, router: &router, before };
            match walk.all().await {
                Ok(Left { threads: 0, entries: 0 }) => {}
                Ok(Left { threads, entries }) => {
                    tracing::info!(threads, entries, "old conversations have left the store");
                }
                Err(error) => tracing::warn!(%error, "old conversations could not all leave the store"),
            }
        }
        next = next.max(now).plus(EVERY_MS);
        clock.sleep_until(next).await;
    }
}

impl Walk<'_> {
    async fn all(&self) -> Result<Left, StoreError> {
        let mut left = Left::default();
        let mut cursor = None;
        loop {
            // It may have become another node's.
            if self.store.held().borrow().active(0).is_none() {
                return Ok(left);
            }
            let begun = Instant::now();
            let page = self.store.threads(ThreadQuery { limit: PAGE, cursor, ..ThreadQuery::default() }).await?;
            left = left.and(self.page(page.threads).await?);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(left);
            }
            tokio::time::sleep(begun.elapsed() * REST).await;
        }
    }

    async fn page(&self, threads: Vec<StoredThread>) -> Result<Left, StoreError> {
        let mut old = Vec::new();
        let mut looked = stream::iter(threads)
            .map(|thread| async move { self.is_old(&thread).await.map(|old| old.then_some(thread)) })
            .buffered(ABREAST);
        while let Some(thread) = looked.next().await {
            old.extend(thread?);
        }
        if old.is_empty() {
            return Ok(Left::default());
        }
        let keys: Vec<_> = old.iter().map(|thread| thread.key.clone()).collect();
        let owed = self.store.owed(&keys, self.before).await?;
        let mut leaving = stream::iter(old.into_iter().zip(owed))
            .map(|(thread, owed)| async move { self.thread(&thread, owed).await })
            .buffer_unordered(ABREAST);
        let mut left = Left::default();
        while let Some(part) = leaving.next().await {
            left = left.and(part?);
        }
        Ok(left)
    }

    /// Whether anything of the thread may be past. Most threads say no at once.
    async fn is_old(&self, thread: &StoredThread) -> Result<bool, StoreError> {
        let state = thread.thread.state();
        if state == State::None || thread.thread.rests_since(self.before) {
            return Ok(state != State::None);
        }
        let first = self.store.feed(&thread.key.user_id, 0, 1).await?;
        Ok(first.first().is_some_and(|first| Past::new(&thread.thread, self.before).take(&first.entry)))
    }

    /// Forgets what is past of a thread, and all of it if it rests and nothing is owed.
    async fn thread(&self, stored: &StoredThread, owed: Owed) -> Result<Left, StoreError> {
        let mut left = Left { threads: 0, entries: self.entries(stored, owed).await? };
        let rests = stored.deadline.is_none() && stored.thread.rests_since(self.before);
        if !rests || owed.any {
            return Ok(left);
        }
        let user_id = &stored.key.user_id;
        self.files(user_id, stored.thread.sequence()).await?;
        match self.router.leave(user_id.clone(), self.before).await {
            Ok(true) => {
                metrics::counter!("tract_retention_threads_total").increment(1);
                left.threads = 1;
            }
            Ok(false) => {}
            // The next walk comes by again.
            Err(failure) => tracing::debug!(%user_id, %failure, "an old thread could not leave the store"),
        }
        Ok(left)
    }

    /// Forgets the files that these entries name. Before the entries: a file without its entry would stay for ever.
    async fn files(&self, user_id: &UserId, through: u64) -> Result<(), StoreError> {
        loop {
            let count = self.store.forget_files(user_id, through, ENTRIES).await?;
            metrics::counter!("tract_retention_files_total").increment(count);
            if count < ENTRIES as u64 {
                return Ok(());
            }
        }
    }

    async fn entries(&self, stored: &StoredThread, owed: Owed) -> Result<u64, StoreError> {
        let user_id = &stored.key.user_id;
        let bound = owed.from.map_or(u64::MAX, |from| from.saturating_sub(1));
        let mut past = Past::new(&stored.thread, self.before);
        let (mut gone, mut after, mut trimmed) = (0, 0, 0);
        loop {
            let page = self.store.feed(user_id, after, ENTRIES).await?;
            let all_past = page.iter().all(|stored| past.take(&stored.entry));
            let through = past.through().min(bound);
            if through > trimmed {
                self.files(user_id, through).await?;
            }
            while through > trimmed {
                let count = self.store.trim_feed(user_id, through, ENTRIES).await?;
                metrics::counter!("tract_retention_entries_total").increment(count);
                gone += count;
                if count < ENTRIES as u64 {
                    trimmed = through;
                }
            }
            match page.last() {
                Some(last) if all_past && page.len() == ENTRIES && last.entry.sequence < bound => {
                    after = last.entry.sequence;
                }
                _ => return Ok(gone),
            }
        }
    }
}
