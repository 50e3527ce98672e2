//! Stores with many threads, written through the `Store` trait in this process: some ten thousand messages a second and
//! more, where HTTP would take hours.

use super::{
    API, Server, post,
    scene::{self, CLIENT, RECEIVER},
    threads::{NOW, commit, conversation, policy},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::{fs, path::Path, sync::Arc};
use tract::store::{SqliteOptions, SqliteStore};
use tract_actors::ports::{Committed, OpenThread, Store, UserWrite, Written};
use tract_domain::{ClientId, Entry, Json, Thread, UserId};
use uuid::Uuid;

/// Messages of each thread.
pub(crate) const MESSAGES: usize = 10;

/// Steps under way at once in each of as many tasks as keep the writer busy.
const AT_ONCE: usize = 128;
const TASKS: usize = 4;

/// The user whose thread is long.
const LONG: &str = "long";

/// A store that grows.
pub(crate) struct Growing {
    store: Arc<SqliteStore>,
    client: ClientId,
    profile: Json,
    /// What every thread holds.
    thread: Thread,
    entries: Vec<Entry>,
    threads: usize,
    /// Messages of the long thread.
    pub(crate) long: u64,
}

impl Growing {
    /// A fresh store in this directory, with the tenant, and the token of the agent tool that holds all threads. The
    /// router itself makes both, and one user, whose record is the model for all others.
    pub(crate) async fn new(dir: &Path, http: &reqwest::Client) -> (Self, String) {
        let router = Server::router(dir, http).await;
        let token = scene::tenant(&router, http, None).await;
        let user = json!({"auth_id": "model", "business_id": 1});
        post(http, format!("{}/v1.0/user", router.url), API, CLIENT, user).await;
        router.stop();
        let (store, client) = (open(dir), ClientId::new(CLIENT).unwrap());
        let model = store.user(&client, "model").await.unwrap().unwrap();
        let policy = policy(RECEIVER);
        let (thread, entries) = conversation(Thread::open(&policy), &policy, MESSAGES);
        let mut growing = Self { store, client, profile: model.profile, thread, entries, threads: 0, long: 0 };
        let done = growing.store.write_user(growing.user(LONG.into())).await;
        assert_eq!(done, Ok(Written::Applied));
        growing.lengthen(MESSAGES as u64).await;
        (growing, token)
    }

    /// So many threads in all, and a tenth as many messages in the long one, but at least a thousand.
    pub(crate) async fn grow(&mut self, threads: usize) {
        let style = ProgressStyle::with_template("{bar:30} {msg}: {pos} of {len} ({per_sec}, {eta} left)").unwrap();
        let bar = ProgressBar::new((threads - self.threads) as u64).with_style(style).with_message("making threads");
        let share = (threads - self.threads).div_ceil(TASKS);
        let mut tasks = tokio::task::JoinSet::new();
        for first in (self.threads..threads).step_by(share.max(1)) {
            let (store, client, bar) = (Arc::clone(&self.store), self.client.clone(), bar.clone());
            let model = self.user("".into());
            let (thread, entries) = (self.thread.clone(), self.entries.clone());
            let last = (first + share).min(threads);
            tasks.spawn(async move {
                for from in (first..last).step_by(AT_ONCE) {
                    let some = (from..(from + AT_ONCE).min(last)).map(|n| {
                        let auth_id = auth_id(n);
                        let user_id = store.user_id(&client, 1, &auth_id);
                        let write = UserWrite { commit_id: Uuid::new_v4(), auth_id, ..model.clone() };
                        let commit = commit(&user_id, 0, thread.clone(), entries.clone());
                        // Steps are taken in the order in which they were asked for: the second finds what the first made.
                        let (opened, said) = (store.write_user(write), store.commit(commit));
                        async move {
                            let (opened, said) = tokio::join!(opened, said);
                            assert_eq!(opened, Ok(Written::Applied));
                            assert!(matches!(said, Ok(Committed::Applied { .. })), "{said:?}");
                        }
                    });
                    bar.inc(futures_util::future::join_all(some).await.len() as u64);
                }
            });
        }
        tasks.join_all().await;
        bar.finish_and_clear();
        self.threads = threads;
        self.lengthen((threads as u64 / 10).max(1_000)).await;
    }

    /// Closes it, and copies it to this directory; it can go on growing.
    pub(crate) async fn copy_to(&mut self, from: &Path, to: &Path) {
        self.store.close().await;
        fs::create_dir_all(to).unwrap();
        let (from, to) = (from.join("tract-data"), to.join("tract-data"));
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(&from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        self.store = SqliteStore::open(&from, SqliteOptions::default()).unwrap();
    }

    /// The handle of a thread by its number.
    pub(crate) fn handle(&self, number: usize) -> UserId {
        self.store.user_id(&self.client, 1, &auth_id(number))
    }

    /// The handle of the long thread.
    pub(crate) fn long_handle(&self) -> UserId {
        self.store.user_id(&self.client, 1, LONG)
    }

    pub(crate) async fn close(self) {
        self.store.close().await;
    }

    /// Messages to the long thread until it has so many entries.
    async fn lengthen(&mut self, entries: u64) {
        let policy = policy(RECEIVER);
        let user_id = self.long_handle();
        while self.long < entries {
            let at = self.store.thread(&user_id).await.unwrap().unwrap();
            let more = usize::try_from(entries - self.long).unwrap().min(500);
            let (thread, made) = conversation(at.thread, &policy, more);
            self.long = thread.sequence();
            let done = self.store.commit(commit(&user_id, at.version, thread, made)).await;
            assert!(matches!(done, Ok(Committed::Applied { .. })), "{done:?}");
        }
    }

    fn user(&self, auth_id: Arc<str>) -> UserWrite {
        let thread = Thread::open(&policy(RECEIVER));
        UserWrite {
            commit_id: Uuid::new_v4(),
            client: self.client.clone(),
            auth_id,
            expected_version: 0,
            profile: Some(self.profile.clone()),
            open: Some(OpenThread { business: 1, thread, outbox: Vec::new() }),
            idempotency: None,
            now: NOW,
        }
    }
}

fn auth_id(number: usize) -> Arc<str> {
    format!("user-{number}").into()
}

fn open(dir: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(&dir.join("tract-data"), SqliteOptions::default()).unwrap()
}
