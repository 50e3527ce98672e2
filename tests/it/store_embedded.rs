//! The embedded store: the contract, and what only a directory on a disk can do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use crate::store_contract::{Place, *};
use async_trait::async_trait;
use std::{path::Path, sync::Arc};
use tempfile::TempDir;
use tract::store::{OpenError, SqliteOptions, SqliteStore};
use tract_actors::ports::{Commit, Committed, Outbox, Store, StoreError};

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
}

#[async_trait]
impl Place for Directory {
    async fn open(&self) -> Arc<dyn Store> {
        open(self.path())
    }
}

fn open(path: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(path, SqliteOptions::default()).unwrap()
}

store_contract!(contract, Directory::new());

#[tokio::test]
async fn a_second_open_is_refused() {
    let place = Directory::new();
    let path = place.path().join("made").join("on the way");
    let store = open(&path);
    let refused = SqliteStore::open(&path, SqliteOptions::default()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }));
    assert!(refused.to_string().contains("on the way"), "{refused}");
    store.close().await;
    open(&path).ping().await.unwrap();
}

#[tokio::test]
async fn the_number_of_partitions_is_fixed() {
    let place = Directory::new();
    let with = |partitions| SqliteStore::open(place.path(), SqliteOptions { partitions, ..SqliteOptions::default() });
    assert!(matches!(with(0), Err(OpenError::PartitionCount(0))));
    assert!(matches!(with(1025), Err(OpenError::PartitionCount(1025))));
    drop(with(8).unwrap());
    assert!(matches!(with(16), Err(OpenError::Partitions { stored: 8, asked: 16, .. })));
    drop(with(8).unwrap());
}

#[test]
fn a_newer_schema_is_refused() {
    let place = Directory::new();
    drop(open(place.path()));
    let file = place.path().join("tract.db");
    rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = SqliteStore::open(place.path(), SqliteOptions::default()).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused}");
}

#[test]
fn what_is_no_store_is_left_alone() {
    let place = Directory::new();
    let file = place.path().join("tract.db");
    rusqlite::Connection::open(&file).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = std::fs::read(&file).unwrap();
    let refused = SqliteStore::open(place.path(), SqliteOptions::default()).unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
    assert!(std::fs::read(&file).unwrap() == before);
    std::fs::write(&file, "certainly no database, and long enough to be looked at as one").unwrap();
    let refused = SqliteStore::open(place.path(), SqliteOptions::default()).unwrap_err();
    assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
    let refused = SqliteStore::open(&file, SqliteOptions::default()).unwrap_err();
    assert!(matches!(refused, OpenError::Directory { .. }), "{refused}");
}

/// What a `kill -9` leaves behind: the files as they are at some moment, and no farewell.
#[tokio::test]
async fn what_was_answered_is_in_the_files() {
    let place = Directory::new();
    let store = open(place.path());
    let user_id = open_thread(&*store, 1, "walter").await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let commit = next_step(&*store, &user_id, 1).await;
        ids.extend(applied(&*store, commit).await);
    }
    let copy = Directory::new();
    for file in ["tract.db", "tract.db-wal"] {
        std::fs::copy(place.path().join(file), copy.path().join(file)).unwrap();
    }
    let revived = open(copy.path());
    let feed = revived.feed(&user_id, 0, 100).await.unwrap();
    assert_eq!(feed.iter().map(|e| e.message_id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let place = Directory::new();
    let options = SqliteOptions { max_pages: Some(64), ..SqliteOptions::default() };
    let store = SqliteStore::open(place.path(), options).unwrap();
    let user_id = open_thread(&*store, 1, "walter").await;
    let hook = hook("sprinkle");
    let (mut ids, mut waiting) = (Vec::new(), 0);
    let refused = loop {
        let commit = next_step(&*store, &user_id, 5).await;
        let commit = Commit { outbox: vec![delivery(&hook, commit.thread.sequence())], ..commit };
        match store.commit(commit.clone()).await {
            Ok(Committed::Applied { message_ids, .. }) => ids.extend(message_ids),
            Ok(Committed::Conflict) => panic!("a conflict with nobody"),
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                break commit;
            }
        }
        waiting += 1;
    };
    for _ in 0..3 {
        assert!(matches!(store.commit(refused.clone()).await, Err(StoreError::Unavailable(_))));
        assert_eq!(store.feed(&user_id, 0, 10_000).await.unwrap().len(), ids.len(), "reading goes on");
    }
    store.set_max_pages(100_000).await.unwrap();
    ids.extend(applied(&*store, refused).await);
    let commit = next_step(&*store, &user_id, 1).await;
    ids.extend(applied(&*store, Commit { outbox: vec![delivery(&hook, 0)], ..commit }).await);
    store.close().await;
    let store = open(place.path());
    let feed = store.feed(&user_id, 0, 10_000).await.unwrap();
    assert_eq!(feed.iter().map(|e| e.message_id).collect::<Vec<_>>(), ids);
    assert!(ids.is_sorted_by(|a, b| a < b));
    let deliveries = pending(&*store, &hook, 0, 10_000).await;
    assert_eq!(deliveries.len(), waiting + 2);
    assert!(deliveries.is_sorted_by(|a, b| a.id < b.id));
}

/// Steps that wait together are committed together; one that is at fault must not take the others with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faulty_commit_harms_nobody_else() {
    let place = Directory::new();
    let store = open(place.path());
    let mut commits = Vec::new();
    for n in 0..100 {
        let user_id = open_thread(&*store, 1, &format!("user {n}")).await;
        let mut commit = next_step(&*store, &user_id, 1).await;
        if n % 10 == 3 {
            commit.entries[0].sequence = 9;
        }
        commits.push((n, commit));
    }
    let answers = commits.into_iter().map(|(n, commit)| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { (n, store.commit(commit).await) })
    });
    for answer in futures_util::future::join_all(answers).await {
        let (n, answer) = answer.unwrap();
        assert_eq!(answer.is_ok(), n % 10 != 3, "{n}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_short() {
    let place = Directory::new();
    let store = open(place.path());
    let tasks = (0..32).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let user_id = open_thread(&*store, 1, &format!("user {n}")).await;
            let mut on = store.thread(&user_id).await.unwrap().unwrap();
            let long = "x".repeat(200_000);
            for _ in 0..18 {
                let mut commit = step(&on, 1);
                commit.entries[0] = message(commit.thread.sequence(), &long);
                on.thread = (*commit.thread).clone();
                applied(&*store, commit).await;
                on.version += 1;
            }
        })
    });
    for task in futures_util::future::join_all(tasks).await {
        task.unwrap();
    }
    let written = std::fs::metadata(place.path().join("tract.db")).unwrap().len();
    let log = std::fs::metadata(place.path().join("tract.db-wal")).unwrap().len();
    assert!(written > 72 << 20, "{written} bytes were copied into the database while it was in use");
    assert!(log < 64 << 20, "{log} bytes of log");
    store.close().await;
    assert!(!place.path().join("tract.db-wal").exists(), "a store that was closed is one file");
}

/// What an older version of this program left is read, and goes on.
#[tokio::test]
async fn a_store_from_before_dead_letters_is_taken_over() {
    const BACK: &str = "DROP TABLE files; DROP VIEW entries; DROP VIEW thread_heads; \
        ALTER TABLE threads ADD COLUMN version INTEGER NOT NULL DEFAULT 0; ALTER TABLE threads ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0; \
        ALTER TABLE threads ADD COLUMN commit_id BLOB; ALTER TABLE threads ADD COLUMN snapshot TEXT NOT NULL DEFAULT ''; \
        UPDATE threads SET (version, sequence, commit_id, snapshot) = \
          (SELECT number, at, commit_id, snapshot FROM log l WHERE l.id = (threads.id << 32) | 0xffffffff); \
        CREATE TABLE entries (id INTEGER PRIMARY KEY, thread INTEGER AS (id >> 32) VIRTUAL, \
          sequence INTEGER AS (id & 0xffffffff) VIRTUAL, message_id INTEGER NOT NULL, commit_id BLOB, entry TEXT NOT NULL) STRICT; \
        INSERT INTO entries SELECT l.id, number, commit_id, entry FROM log l JOIN bodies b ON b.id = l.at WHERE l.snapshot IS NULL; \
        DROP TABLE log; DROP TABLE bodies; \
        DROP INDEX outbox_replayed; DROP TABLE origins; DROP TABLE received; DROP TABLE dead_letters; ALTER TABLE endpoints DROP COLUMN dead; \
        ALTER TABLE endpoints DROP COLUMN received; ALTER TABLE outbox DROP COLUMN log; \
        ALTER TABLE outbox DROP COLUMN replayed; CREATE INDEX outbox_thread ON outbox (endpoint, thread, id); PRAGMA user_version = 2;";
    let place = Directory::new();
    let (one, store) = (hook("one"), open(place.path()));
    let user_id = open_thread(&*store, 1, "walter").await;
    let commit = next_step(&*store, &user_id, 2).await;
    applied(&*store, Commit { outbox: vec![delivery(&one, 1), delivery(&one, 2)], ..commit }).await;
    store.close().await;
    drop(store);
    rusqlite::Connection::open(place.path().join("tract.db")).unwrap().execute_batch(BACK).unwrap();

    let store = open(place.path());
    let waiting = pending(&*store, &one, 0, 10).await;
    assert_eq!(waiting.iter().map(|d| (d.sequence, d.replayed)).collect::<Vec<_>>(), [(1, false), (2, false)]);
    let end = crate::store_contract::outbox::over(&one, waiting[0].id, tract_actors::ports::End::Dead, NOW);
    write_outcomes(&*store, vec![end]).await;
    let status = store.endpoint_status(&one).await.unwrap();
    assert_eq!((status.pending, status.dead), (1, 1));
    let token = crate::store_contract::files::put(&*store, &user_id, NOW, b"bytes").await;
    assert_eq!(crate::store_contract::files::read(&*store, &token).await.as_deref(), Some(&b"bytes"[..]));
}
