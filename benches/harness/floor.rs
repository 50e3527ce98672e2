//! What keeping a message costs at least: axum as in [`super::bare`], and the three rows of a message in SQLite, committed in
//! groups; with nothing between them, or with an actor for each conversation, which its registry passes messages on to.
//!
//! No routes, tokens, thread control, ids, checks or metrics: what a router of this make can come near to, not reach.

use super::bare;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, WrapFuture};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use rusqlite::Connection;
use serde_json::Value;
use std::{collections::HashMap, path::Path};
use tokio::sync::{mpsc, oneshot};

/// With this option, an address, a directory and a way, a bench is this server.
pub(crate) const OPTION: &str = "--floor-server";

/// The way of messages with actors; any other is without.
pub(crate) const WITH_ACTORS: &str = "with-actors";

/// Steps in one transaction, and steps that may wait: as many as the router's store takes.
const BATCH: usize = 512;
const QUEUE: usize = 8192;

/// What a thread is, which the router keeps anew with every message; as long as that of a thread with one conversation.
const SNAPSHOT: [u8; 300] = [b'x'; 300];

/// A message, and who waits until it is kept.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Said {
    user: String,
    body: String,
    caller: oneshot::Sender<u64>,
}

/// Where handlers leave messages.
#[derive(Clone)]
enum Way {
    Writer(mpsc::Sender<Said>),
    Registry(Addr<Registry>),
}

/// Does nothing and returns unless this process was started to be it.
pub(crate) fn serve_if_asked(runtime: &tokio::runtime::Runtime) -> bool {
    let mut args = std::env::args().skip_while(|a| a != OPTION).skip(1);
    let (Some(addr), Some(dir), Some(way)) = (args.next(), args.next(), args.next()) else { return false };
    let (writer, messages) = mpsc::channel(QUEUE);
    std::thread::spawn(move || write(&dir, messages));
    let way = if way == WITH_ACTORS { Way::Registry(registry(writer)) } else { Way::Writer(writer) };
    let app = Router::new()
        .route("/readyz", get(|| async { "ready" }))
        .route("/tract/message/send", post(send))
        .with_state(way);
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
        axum::serve(listener, app).await.unwrap();
    });
    true
}

async fn send(State(way): State<Way>, Json(body): Json<Value>) -> Result<Json<Value>, StatusCode> {
    let user = body.get("user_id").and_then(Value::as_str).map(str::to_owned).ok_or(StatusCode::BAD_REQUEST)?;
    let (caller, kept) = oneshot::channel();
    let said = Said { user, body: body.to_string(), caller };
    match way {
        Way::Writer(writer) => writer.try_send(said).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?,
        Way::Registry(registry) => registry.do_send(said),
    }
    let sequence = kept.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(bare::answer(sequence, true))
}

/// All actors, on a thread of their own.
fn registry(writer: mpsc::Sender<Said>) -> Addr<Registry> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix::System::new().block_on(async {
            tell.send(Registry { writer, conversations: HashMap::new() }.start()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    told.recv().unwrap()
}

struct Registry {
    writer: mpsc::Sender<Said>,
    conversations: HashMap<String, Addr<Conversation>>,
}

impl Actor for Registry {
    type Context = Context<Self>;
}

impl Handler<Said> for Registry {
    type Result = ();
    fn handle(&mut self, said: Said, _: &mut Context<Self>) {
        let start = || Conversation { writer: self.writer.clone(), sequence: 0 }.start();
        self.conversations.entry(said.user.clone()).or_insert_with(start).do_send(said);
    }
}

/// Keeps one message after the other, and answers when each is kept.
struct Conversation {
    writer: mpsc::Sender<Said>,
    sequence: u64,
}

impl Actor for Conversation {
    type Context = Context<Self>;
}

impl Handler<Said> for Conversation {
    type Result = ();
    fn handle(&mut self, said: Said, ctx: &mut Context<Self>) {
        let (kept, answer) = oneshot::channel();
        // One that finds no place is not answered, and the run says so.
        let _ = self.writer.try_send(Said { caller: kept, ..said });
        ctx.wait(answer.into_actor(self).map(|kept, me, _| {
            me.sequence = kept.unwrap_or(me.sequence);
            let _ = said.caller.send(me.sequence);
        }));
    }
}

/// Takes all that waits, one transaction, one sync, answers all.
fn write(dir: &str, mut messages: mpsc::Receiver<Said>) {
    let conn = Connection::open(Path::new(dir).join("floor.db")).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8192;
         CREATE TABLE threads (id INTEGER PRIMARY KEY, snapshot BLOB NOT NULL);
         CREATE TABLE log (id INTEGER PRIMARY KEY, body INTEGER NOT NULL);
         CREATE TABLE bodies (id INTEGER PRIMARY KEY, entry TEXT NOT NULL);",
    )
    .unwrap();
    let mut threads: HashMap<String, (i64, u64)> = HashMap::new();
    let mut batch = Vec::new();
    while messages.blocking_recv_many(&mut batch, BATCH) > 0 {
        let sql = |sql| conn.prepare_cached(sql).unwrap();
        sql("BEGIN IMMEDIATE").execute([]).unwrap();
        let mut answers = Vec::with_capacity(batch.len());
        for said in batch.drain(..) {
            let next = i64::try_from(threads.len()).unwrap() + 1;
            let (thread, sequence) = threads.entry(said.user).or_insert((next, 0));
            *sequence += 1;
            let body = sql("INSERT INTO bodies (entry) VALUES (?1)").insert([&said.body]).unwrap();
            let key = (*thread << 32) | i64::try_from(*sequence).unwrap();
            sql("INSERT INTO log (id, body) VALUES (?1, ?2)").execute((key, body)).unwrap();
            sql("INSERT OR REPLACE INTO threads (id, snapshot) VALUES (?1, ?2)").execute((*thread, SNAPSHOT)).unwrap();
            answers.push((said.caller, *sequence));
        }
        sql("COMMIT").execute([]).unwrap();
        for (caller, sequence) in answers {
            let _ = caller.send(sequence);
        }
    }
}
