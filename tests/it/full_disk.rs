//! The real process on a disk that is full: it refuses what it cannot keep, keeps what it acknowledged, and goes on when
//! there is space.

use crate::support::{Api, Channel, Peer, Process, Received, Reply, Tenant, Token};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CUSTOMERS: usize = 4;

/// How long it may take until the disk is full, and until there is space again. Real time: only a failing test takes it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the agent tool's own words are made of.
const OWN: &str = "z";

/// Everybody around a router.
struct World {
    api: Api,
    channel: Channel,
    sprinkle: Token,
    desk: Peer,
    user_ids: Vec<String>,
}

impl World {
    async fn around(process: &Process) -> Self {
        let api = process.api();
        let Tenant { desk, sprinkle, channel } = process.tenant().await;
        let mut user_ids = Vec::new();
        for customer in 0..CUSTOMERS {
            user_ids.push(channel.user(&json!({"auth_id": customer.to_string()})).await);
        }
        Self { api, channel, sprinkle, desk, user_ids }
    }

    /// All customers write at the same time until each of them was refused; what was acknowledged, of each in order.
    async fn fill_up(&self) -> Vec<Vec<String>> {
        let mut writers = JoinSet::new();
        for customer in 0..CUSTOMERS {
            let (api, channel) = (self.api.clone(), self.channel.clone());
            writers.spawn(async move { (customer, write_until_refused(&api, &channel, customer, 0).await) });
        }
        let mut acknowledged = vec![Vec::new(); CUSTOMERS];
        for (customer, words) in writers.join_all().await {
            acknowledged[customer] = words;
        }
        acknowledged
    }

    async fn check_feeds(&self, acknowledged: &[Vec<String>]) {
        for (user_id, words) in self.user_ids.iter().zip(acknowledged) {
            assert!(said(&self.sprinkle.feed(user_id).await) == *words, "the feed is what was acknowledged, once");
        }
    }

    /// Once the disk is full: everything that takes more than a scrap of space is refused, and reading goes on.
    async fn check_full(&self, acknowledged: &mut [Vec<String>]) {
        // Those that were refused together may fit one by one; those that do are acknowledged.
        for (customer, acknowledged) in acknowledged.iter_mut().enumerate() {
            acknowledged.extend(write_until_refused(&self.api, &self.channel, customer, acknowledged.len()).await);
        }
        // When a checkpoint has caught up, the log starts over and has room again, until the database may not grow either.
        let (long, own) = ("y".repeat(60_000), OWN.repeat(60_000));
        for ((customer, user_id), acknowledged) in self.user_ids.iter().enumerate().zip(acknowledged.iter_mut()) {
            let says = customer.to_string();
            let taken = until_refused(|_| self.api.send(self.channel.saying(&says, &long))).await;
            acknowledged.extend(std::iter::repeat_n(long.clone(), taken));
            let taken = until_refused(|_| self.sprinkle.send(user_id, "ect", &own)).await;
            acknowledged.extend(std::iter::repeat_n(own.clone(), taken));
        }
        let somebody = json!({"auth_id": "new", "custom_data": {"long": long}});
        until_refused(|_| self.channel.post("/v1.0/user/", &somebody)).await;
        self.api.send(self.api.request(Method::GET, "/healthz")).await.ok();
        self.check_feeds(acknowledged).await;
    }

    /// Customers write again, as soon as they can.
    async fn go_on(&self, acknowledged: &mut [Vec<String>]) {
        let deadline = Instant::now() + PATIENCE;
        for (customer, acknowledged) in acknowledged.iter_mut().enumerate() {
            for words in ["there is space", "and more"] {
                loop {
                    let reply = self.api.send(self.channel.saying(&customer.to_string(), words)).await;
                    if reply.status == 200 {
                        break;
                    }
                    assert_refused(reply);
                    assert!(Instant::now() < deadline, "it does not go on");
                }
                acknowledged.push(words.to_owned());
            }
        }
    }

    /// Everything that was acknowledged was told to the agent tool, first deliveries in order, and nothing else was.
    async fn check_deliveries(&self, acknowledged: &[Vec<String>]) {
        for (user_id, words) in self.user_ids.iter().zip(acknowledged) {
            // A tool is not told what it said itself.
            let words: Vec<_> = words.iter().filter(|words| !words.starts_with(OWN)).cloned().collect();
            let all = |seen: &[Received]| {
                let mut ids = BTreeSet::new();
                let of_thread = seen.iter().filter(|r| r.topic == "message.receive" && r.body["user_id"] == **user_id);
                let first = of_thread.filter(|r| ids.insert(r.header("webhook-id").to_owned()));
                let first: Vec<_> = first.map(Received::text).collect();
                (first.len() >= words.len()).then_some(first)
            };
            assert!(self.desk.find("every message", all).await == words, "told in order");
        }
        self.desk.assert_sound();
    }
}

/// Writes until it is refused; what was acknowledged.
async fn write_until_refused(api: &Api, channel: &Channel, customer: usize, first: usize) -> Vec<String> {
    let (customer, words) = (customer.to_string(), |n| format!("{} {}", first + n, "x".repeat(20_000)));
    let taken = until_refused(|n| api.send(channel.saying(&customer, &words(n)))).await;
    (0..taken).map(words).collect()
}

/// Tries until it is refused; how often it was taken before. `attempt` is told how often that was so far.
async fn until_refused<F: Future<Output = Reply>>(attempt: impl Fn(usize) -> F) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let mut taken = 0;
    loop {
        assert!(Instant::now() < deadline, "the disk does not fill up");
        let reply = attempt(taken).await;
        if reply.status != 200 {
            assert_refused(reply);
            return taken;
        }
        taken += 1;
    }
}

#[track_caller]
fn assert_refused(reply: Reply) {
    assert!(reply.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{reply:?}");
    reply.refused(503, "store_unavailable");
}

fn said(feed: &[Value]) -> Vec<String> {
    let messages = feed.iter().filter(|entry| entry["kind"] == "message");
    let texts = messages.map(|entry| serde_json::from_str::<Value>(entry["message_body"].as_str().unwrap()).unwrap());
    texts.map(|element| element["text"].as_str().unwrap().to_owned()).collect()
}

/// What starts a process with a file system of a few MiB at this place, which nobody else sees. It takes the right to make
/// a user namespace, or that to mount; some containers give neither.
fn with_small_disk(at: &Path) -> Option<Vec<String>> {
    let launcher = |namespaces: &[&str], then: &str| {
        let script = format!("mount -t tmpfs -o size=8m tmpfs '{}' && {then}", at.display());
        let words = [&["unshare"], namespaces, &["sh", "-c", &script, "sh"]].concat();
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut ways = [&["--user", "--map-root-user", "--mount"][..], &["--mount"]].into_iter();
    let works = |namespaces: &&[&str]| {
        let attempt = launcher(namespaces, "exit 0");
        let attempt = Command::new(&attempt[0]).args(&attempt[1..]).stderr(Stdio::null()).status();
        attempt.is_ok_and(|status| status.success())
    };
    ways.find(works).map(|namespaces| launcher(namespaces, "exec \"$@\""))
}

/// Takes space, up to so many bytes or all there is.
fn take_space(ballast: &Path, bytes: usize) {
    let mut file = File::create(ballast).unwrap();
    let mut taken = 0;
    for size in [1 << 16, 1 << 8, 1] {
        while taken + size <= bytes {
            match file.write_all(&vec![0; size]) {
                Ok(()) => taken += size,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_the_router_goes_on_when_there_is_space() {
    let data = tempfile::tempdir().unwrap();
    let Some(launcher) = with_small_disk(data.path()) else {
        println!("no file system can be mounted here: only the bound on the size of files shows it, in the test below");
        return;
    };
    let launcher: Vec<_> = launcher.iter().map(String::as_str).collect();
    let process = Process::start_by(&launcher, data.path()).await;
    let world = World::around(&process).await;
    // As the process sees the directory.
    let ballast =
        |name: &str| -> PathBuf { format!("/proc/{}/root{}/{name}", process.id(), data.path().display()).into() };
    take_space(&ballast("much"), 3 << 20);
    let mut acknowledged = world.fill_up().await;
    take_space(&ballast("the rest"), usize::MAX);
    world.check_full(&mut acknowledged).await;

    for name in ["much", "the rest"] {
        fs::remove_file(ballast(name)).unwrap();
    }
    world.go_on(&mut acknowledged).await;
    world.check_feeds(&acknowledged).await;
    world.check_deliveries(&acknowledged).await;
}

/// Sets the size up to which a process may let files grow.
fn bound_files_of(process: &Process, bytes: &str) -> bool {
    let pid = process.id().to_string();
    let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
    set.is_ok_and(|status| status.success())
}

/// What a quota does, or a file system that takes no larger files: writing fails, but not for want of space. This needs no
/// rights at all.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_may_not_grow_are_like_a_full_disk() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start_by(&["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"], data.path()).await;
    let world = World::around(&process).await;
    let log = fs::metadata(data.path().join("store/tract.db-wal")).unwrap().len();
    assert!(bound_files_of(&process, &(log + (1 << 20)).to_string()), "prlimit (of util-linux) bounds a process");
    let mut acknowledged = world.fill_up().await;
    world.check_full(&mut acknowledged).await;

    assert!(bound_files_of(&process, "unlimited"));
    world.go_on(&mut acknowledged).await;
    world.check_feeds(&acknowledged).await;
    world.check_deliveries(&acknowledged).await;

    process.kill();
    let process = Process::start(data.path()).await;
    let world = World { sprinkle: world.sprinkle.at(&process.api()), ..world };
    world.check_feeds(&acknowledged).await;
}
