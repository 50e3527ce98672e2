//! Draining a receiver: what it holds goes to another, thread by thread (section 11).

use super::threads::state;
use crate::http::auth::Admin;
use crate::http::decode::{Flag, Name, Text};
use crate::http::idempotency::{self, rendered};
use crate::http::request::{Posted, cursor};
use crate::http::{Edge, Problem};
use axum::extract::State;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tract_actors::ports::{StoredThread, Tenants, ThreadQuery};
use tract_actors::router::{Ask, Failure};
use tract_domain::{ClientId, Command, Context, ReceiverId, Refusal, UserId};
use utoipa::ToSchema;

/// How long one request goes on; what is left then is for the next.
const TIME: Duration = Duration::from_secs(20);
/// Threads that are read at a time.
const PAGE: usize = 500;
/// Threads that move at a time: the customers' own requests go on beside them.
const AT_ONCE: usize = 16;
/// How many threads, and how many refusals, an answer lists; the counts are of all.
const LISTED: usize = 1_000;

/// Which threads go where. At least one of `receiver`, `state` and `q` must be given; all that are must fit.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"client_id": "acme", "receiver": "sprinkle", "to": "helper", "dry_run": true}))]
pub struct DrainReceiver {
    /// Who is to hold them.
    #[schema(value_type = String, max_length = 64)]
    to: ReceiverId,
    /// Who holds them now. (`active` and `from` mean the same.)
    #[serde(default, alias = "active", alias = "from")]
    #[schema(value_type = Option<String>, max_length = 64)]
    receiver: Option<ReceiverId>,
    /// Of this client; default: of all.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    client_id: Option<ClientId>,
    /// In this state: none, bot, incomplete, pinned, waiting, complete.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    state: Option<Name<16>>,
    /// The beginning of a `user_id`, or a whole `auth_id`.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 256)]
    q: Option<Name<256>>,
    /// Only say what would move.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    dry_run: Option<Flag>,
    /// `next` of the request before.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    cursor: Option<Text<256>>,
}

/// What moved, or would.
#[derive(Default, Serialize, ToSchema)]
pub struct Drained {
    dry_run: bool,
    /// How many moved; none in a dry run.
    moved: u64,
    /// How many would move, in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_move: Option<u64>,
    /// The first thousand of them.
    #[schema(value_type = Vec<String>)]
    threads: Vec<String>,
    /// How many stay, because they cannot move.
    refused: u64,
    /// The first thousand of those, and why.
    refusals: Vec<StaysPut>,
    /// There is more than one request does: the `cursor` of the next one. Null when all is done.
    next: Option<String>,
}

/// A thread that does not move.
#[derive(Serialize, ToSchema)]
pub struct StaysPut {
    user_id: String,
    code: &'static str,
    error: String,
}

/// What became of a thread.
enum Became {
    Moved,
    /// It is where it should be, or no longer where it was.
    Elsewhere,
    Refused(Problem),
}

/// `POST /admin/v1/drain`
pub async fn drain(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    Posted { body, key }: Posted<DrainReceiver>,
) -> Result<Response, Problem> {
    let state = body.state.as_deref().map(state).transpose()?;
    if body.receiver.is_none() && state.is_none() && body.q.is_none() {
        return Err(Problem::invalid("receiver", "is missing; give it, or state or q"));
    }
    if body.receiver.as_ref() == Some(&body.to) {
        return Err(Problem::invalid("to", "must be another receiver than the one that is drained"));
    }
    let cursor = cursor(body.cursor.as_deref())?;
    edge.check_target(&body)?;
    let key = edge.operators(key, "admin/drain", "");
    if let Some(answer) = edge.kept_for(key.as_ref()).await? {
        return Ok(idempotency::body(&answer, true));
    }
    let query = ThreadQuery {
        client: body.client_id.clone(),
        state,
        active: body.receiver.clone(),
        q: body.q.as_deref().map(str::to_owned),
        limit: PAGE,
        cursor,
    };
    let dry_run = body.dry_run.is_some_and(|Flag(dry)| dry);
    let answer = edge.drained(query, &body.to, dry_run).await?;
    tracing::info!(to = %body.to, dry_run, moved = answer.moved, refused = answer.refused, "drained");
    let answer = rendered(&answer);
    if let Some(key) = key {
        edge.keep(key, &answer).await?;
    }
    Ok(idempotency::body(&answer, false))
}

impl Edge {
    /// A slip of the pen moves nothing: the receivers must be known to the client, or to any.
    fn check_target(&self, body: &DrainReceiver) -> Result<(), Problem> {
        let directory = self.tenancy.directory();
        let clients: Vec<_> = match &body.client_id {
            Some(id) => vec![directory.client(id).ok_or_else(|| Problem::unknown("client"))?.client_id.clone()],
            None => directory.clients().iter().map(|client| client.client_id.clone()).collect(),
        };
        let known = clients.iter().any(|client| directory.is_receiver(client, &body.to));
        if known { Ok(()) } else { Err(Refusal::UnknownReceiver(body.to.clone()).into()) }
    }

    async fn drained(&self, mut query: ThreadQuery, to: &ReceiverId, dry_run: bool) -> Result<Drained, Problem> {
        let ends = Instant::now() + TIME;
        let mut answer = Drained { dry_run, would_move: dry_run.then_some(0), ..Drained::default() };
        loop {
            let page = self.store.threads(query.clone()).await?;
            let moves = page.threads.into_iter().map(|stored| async move {
                let became = if stored.thread.control().active == *to {
                    Became::Elsewhere
                } else if dry_run {
                    self.would_move(&stored, to)
                } else {
                    self.moved(&stored, to).await
                };
                (stored.key.user_id, became)
            });
            let mut moves = stream::iter(moves).buffered(AT_ONCE);
            while let Some((user_id, became)) = moves.next().await {
                answer.note(&user_id, became);
            }
            answer.next.clone_from(&page.next);
            query.cursor = page.next;
            if query.cursor.is_none() || Instant::now() >= ends || self.readiness.is_draining() {
                return Ok(answer);
            }
        }
    }

    /// Moves a thread.
    async fn moved(&self, stored: &StoredThread, to: &ReceiverId) -> Became {
        let from = &stored.thread.control().active;
        let command = Command::Drain { from: from.clone(), to: to.clone() };
        let (user_id, client) = (stored.key.user_id.clone(), stored.key.client.clone());
        let asked = self.threads.ask(Ask { user_id, client, command, idempotency: None }).await;
        match asked {
            Ok(_) => Became::Moved,
            // Somebody moved it, or it was let go of, since the page was read.
            Err(Failure::Refused(Refusal::ReceiverNotActive { .. }) | Failure::UnknownUser) => Became::Elsewhere,
            Err(failure) => Became::Refused(failure.into()),
        }
    }

    /// Whether a thread would move, as it stands now.
    fn would_move(&self, stored: &StoredThread, to: &ReceiverId) -> Became {
        let Some(policy) = self.tenancy.policy(&stored.key.client, stored.key.business) else {
            return Became::Refused(Problem::unknown_user());
        };
        let ctx = Context { now: self.now(), policy: &policy };
        let from = stored.thread.control().active.clone();
        let settled = stored.thread.settle(ctx).map(|done| done.thread);
        let command = Command::Drain { from, to: to.clone() };
        match settled.as_ref().unwrap_or(&stored.thread).decide(&command, ctx) {
            Ok(_) => Became::Moved,
            Err(Refusal::ReceiverNotActive { .. }) => Became::Elsewhere,
            Err(refusal) => Became::Refused(refusal.into()),
        }
    }
}

impl Drained {
    fn note(&mut self, user_id: &UserId, became: Became) {
        let user_id = || user_id.to_string();
        match became {
            Became::Elsewhere => {}
            Became::Moved => {
                *self.would_move.as_mut().unwrap_or(&mut self.moved) += 1;
                if self.threads.len() < LISTED {
                    self.threads.push(user_id());
                }
            }
            Became::Refused(problem) => {
                self.refused += 1;
                if self.refusals.len() < LISTED {
                    let (code, error) = (problem.code(), problem.message().to_owned());
                    self.refusals.push(StaysPut { user_id: user_id(), code, error });
                }
            }
        }
    }
}
