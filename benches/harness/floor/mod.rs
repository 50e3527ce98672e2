//! What keeping a message, and telling one webhook of it, costs at least: axum as in [`super::bare`]; SQLite or Redis, with the
//! three rows of a message; an HTTP client. With nothing between them, or with an actor for each conversation, which its
//! registry passes messages on to.
//!
//! No routes, tokens, thread control, ids, checks, signatures, order, retries, metrics or logs: what a router of this make can
//! come near to, not reach.

mod hook;
mod redis;
mod sqlite;

use super::bare;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, WrapFuture};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use serde_json::Value;
use std::collections::HashMap;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

/// With this option and a [`Way`], a bench is this server.
pub(crate) const OPTION: &str = "--floor-server";

/// Steps in one transaction, and steps that may wait: as many as the router's store takes.
const BATCH: usize = 512;
const QUEUE: usize = 8192;

/// What a thread is, which the router keeps anew with every message; as long as that of a thread with one conversation.
const SNAPSHOT: [u8; 300] = [b'x'; 300];

/// The way of a message through this server.
pub(crate) struct Way {
    /// Whether there are actors in it.
    pub(crate) actors: bool,
    /// Where it is kept: Redis at this URL, else SQLite in this directory.
    pub(crate) store: String,
    /// Who is told of it, if anybody.
    pub(crate) hook: Option<String>,
}

impl Way {
    /// As arguments, behind an address.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = String> {
        let (actors, store) = (if self.actors { "actors" } else { "direct" }, self.store.clone());
        [actors.to_owned(), store].into_iter().chain(self.hook.clone())
    }

    fn read(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        Some(Self { actors: arguments.next()? == "actors", store: arguments.next()?, hook: arguments.next() })
    }
}

/// What is kept.
enum Step {
    Said(Said),
    /// The webhook of this number was received, and waits no more.
    Received(i64),
}

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
enum Desk {
    Keeper(mpsc::Sender<Step>),
    Registry(Addr<Registry>),
}

/// Does nothing and returns unless this process was started to be it.
pub(crate) fn serve_if_asked(runtime: &Runtime) -> bool {
    let mut args = std::env::args().skip_while(|a| a != OPTION).skip(1);
    let Some(addr) = args.next() else { return false };
    let way = Way::read(args).unwrap();
    let (keeper, steps) = mpsc::channel(QUEUE);
    let courier = way.hook.map(|url| hook::courier(runtime, url, keeper.clone()));
    if way.store.starts_with("redis://") {
        runtime.spawn(redis::keep(way.store, steps, courier));
    } else {
        std::thread::spawn(move || sqlite::keep(&way.store, steps, courier));
    }
    let desk = if way.actors { Desk::Registry(registry(keeper)) } else { Desk::Keeper(keeper) };
    let app = Router::new()
        .route("/readyz", get(|| async { "ready" }))
        .route("/tract/message/send", post(send))
        .with_state(desk);
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
        axum::serve(listener, app).await.unwrap();
    });
    true
}

async fn send(State(desk): State<Desk>, Json(body): Json<Value>) -> Result<Json<Value>, StatusCode> {
    let user = body.get("user_id").and_then(Value::as_str).map(str::to_owned).ok_or(StatusCode::BAD_REQUEST)?;
    let (caller, kept) = oneshot::channel();
    let said = Said { user, body: body.to_string(), caller };
    match desk {
        Desk::Keeper(keeper) => keeper.try_send(Step::Said(said)).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?,
        Desk::Registry(registry) => registry.do_send(said),
    }
    let sequence = kept.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(bare::answer(sequence, true))
}

/// All actors, on a thread of their own.
fn registry(keeper: mpsc::Sender<Step>) -> Addr<Registry> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix::System::new().block_on(async {
            tell.send(Registry { keeper, conversations: HashMap::new() }.start()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    told.recv().unwrap()
}

struct Registry {
    keeper: mpsc::Sender<Step>,
    conversations: HashMap<String, Addr<Conversation>>,
}

impl Actor for Registry {
    type Context = Context<Self>;
}

impl Handler<Said> for Registry {
    type Result = ();
    fn handle(&mut self, said: Said, _: &mut Context<Self>) {
        let start = || Conversation { keeper: self.keeper.clone(), sequence: 0 }.start();
        self.conversations.entry(said.user.clone()).or_insert_with(start).do_send(said);
    }
}

/// Keeps one message after the other, and answers when each is kept.
struct Conversation {
    keeper: mpsc::Sender<Step>,
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
        let _ = self.keeper.try_send(Step::Said(Said { caller: kept, ..said }));
        ctx.wait(answer.into_actor(self).map(|kept, me, _| {
            me.sequence = kept.unwrap_or(me.sequence);
            let _ = said.caller.send(me.sequence);
        }));
    }
}
