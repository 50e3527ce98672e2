//! Files that customers send: taken in, told of, read again, and gone when their time has come.

mod lasting;
mod repeated;
mod taken;

use crate::support::{BUSINESS, Fixture, Form, Reply, Tenants};
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

/// An image of so many bytes; what is in it looks like anything, also like the end of a form's part.
pub(crate) fn image(bytes: usize) -> Vec<u8> {
    let mut image = [PNG, b"\r\n--boundary\r\n--boundary-"].concat();
    let mut random = 1_u64;
    while image.len() < bytes {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        image.extend_from_slice(&random.to_le_bytes());
    }
    image.truncate(bytes);
    image
}

/// An image that Kim sends.
pub(crate) fn from(auth_id: &str, image: &[u8]) -> Form {
    Form::of_file(auth_id, BUSINESS, 1, "photo.png", image)
}

/// What is read at a link.
pub(crate) struct Read {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Read {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Follows a link, as a browser does: without any credentials.
pub(crate) async fn read(url: &str) -> Read {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Read { status, headers, bytes: answer.bytes().await.unwrap().to_vec() }
}

/// Whether there is something at a link; it may be on its way out.
pub(crate) async fn leads_somewhere(url: &str) -> bool {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = client.get(url).send().await.unwrap().status().as_u16();
    assert!(matches!(status, 200 | 404), "{status}");
    status == 200
}

/// The link in an answer.
pub(crate) fn link(logged: &Value) -> &str {
    logged["file_url"].as_str().expect("an answer has a link")
}

/// The link in an answer, at another address of the same router.
pub(crate) fn link_at(base: &str, logged: &Value) -> String {
    format!("{base}/files/{}", token(logged))
}

/// What of a link nobody can guess.
pub(crate) fn token(logged: &Value) -> &str {
    link(logged).rsplit_once("/files/").expect("a link leads to a file").1
}

/// A router on either store.
async fn router_on(redis: bool) -> Fixture {
    if redis { Fixture::on_redis(Tenants::default()).await } else { Fixture::start().await }
}

/// How many files a router's store holds: what is listed, and what is there. Each is known to be named by a message.
fn kept(router: &Fixture, redis: bool) -> usize {
    let unnamed: u32 = if redis {
        let lists = "return #redis.call('KEYS', '{tract:*}:unnamed-files')";
        let mut conn = redis::Client::open(router.redis_url()).unwrap().get_connection().unwrap();
        redis::cmd("EVAL").arg(lists).arg(0).query(&mut conn).unwrap()
    } else {
        let conn = rusqlite::Connection::open(router.directory().join("tract.db")).unwrap();
        conn.query_row("SELECT count(*) FROM files WHERE sequence IS NULL", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(unnamed, 0, "the store is told at once which message names a file");
    if redis { kept_in_redis(&router.redis_url()) } else { kept_in(router.directory()) }
}

/// The same of an embedded store in this directory.
pub(crate) fn kept_in(store: &Path) -> usize {
    agreed(|| {
        let conn = rusqlite::Connection::open(store.join("tract.db")).unwrap();
        let rows: u32 = conn.query_row("SELECT count(*) FROM files", [], |row| row.get(0)).unwrap();
        let partitions = std::fs::read_dir(store.join("files")).into_iter().flatten();
        let found = partitions.flat_map(|partition| std::fs::read_dir(partition.unwrap().path()).unwrap()).count();
        (usize::try_from(rows).unwrap(), found)
    })
}

/// The same of a store in Redis.
pub(crate) fn kept_in_redis(url: &str) -> usize {
    let mut conn = redis::Client::open(url).unwrap().get_connection().unwrap();
    agreed(|| {
        let mut keys = |pattern| redis::cmd("KEYS").arg(pattern).query::<Vec<String>>(&mut conn).unwrap();
        let (found, lists) =
            (keys("{tract:*}:file:*").len(), [keys("{tract:*}:files:*"), keys("{tract:*}:unnamed-files")]);
        let mut listed = |key: &String| redis::cmd("ZCARD").arg(key).query::<usize>(&mut conn).unwrap();
        (lists.iter().flatten().map(&mut listed).sum(), found)
    })
}

/// What is listed is there, and nothing else, once nobody is in the middle of removing something.
fn agreed(mut count: impl FnMut() -> (usize, usize)) -> usize {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (listed, found) = count();
        if listed == found {
            return found;
        }
        assert!(Instant::now() < deadline, "{listed} files are listed and {found} are there");
    }
}

/// An answer's body, and whether it is the first one again.
fn first_or_again(reply: Reply) -> (Value, bool) {
    let again = reply.header("idempotent-replayed") == "true";
    (reply.ok(), again)
}
