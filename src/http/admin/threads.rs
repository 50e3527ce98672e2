//! Threads as the operator sees them.

use crate::http::auth::Admin;
use crate::http::request::{InPath, Params};
use crate::http::threads::{FeedPage, ThreadView, page};
use crate::http::{Edge, Problem};
use axum::Json as Answered;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;
use tract_actors::ports::{StoredThread, ThreadQuery};
use tract_domain::{ReceiverId, UserId};
use utoipa::ToSchema;

/// A page of threads.
#[derive(Debug, Serialize, ToSchema)]
pub struct Threads {
    /// In the order of their creation.
    threads: Vec<ThreadLine>,
    /// The cursor of the next page, if there is one.
    next: Option<String>,
}

/// A thread in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct ThreadLine {
    user_id: String,
    client_id: String,
    business_id: u64,
    /// The client's own id of the user.
    auth_id: String,
    state: &'static str,
    conversation_number: String,
    active: String,
    control_epoch: u64,
    last_sequence: u64,
}

impl ThreadLine {
    fn new(stored: &StoredThread) -> Self {
        let (key, thread) = (&stored.key, &stored.thread);
        Self {
            user_id: key.user_id.to_string(),
            client_id: key.client.to_string(),
            business_id: key.business,
            auth_id: key.auth_id.to_string(),
            state: thread.state().as_str(),
            conversation_number: thread.conversation().to_string(),
            active: thread.control().active.to_string(),
            control_epoch: thread.control().epoch,
            last_sequence: thread.sequence(),
        }
    }
}

/// The state of this name.
pub(super) fn state(name: &str) -> Result<tract_domain::State, Problem> {
    let found = tract_domain::State::ALL.into_iter().find(|state| state.as_str() == name);
    found.ok_or_else(|| {
        let known: Vec<_> = tract_domain::State::ALL.iter().map(|state| state.as_str()).collect();
        Problem::invalid("state", format_args!("must be one of {}", known.join(", ")))
    })
}

/// `GET /admin/v1/threads`
pub async fn list(State(edge): State<Arc<Edge>>, _: Admin, params: Params) -> Result<Answered<Threads>, Problem> {
    let limit = params.integer("limit", 1, 500, 100)?;
    let query = ThreadQuery {
        client: params.parse("client_id")?,
        state: params.get("state").map(state).transpose()?,
        active: params.parse::<ReceiverId>("active")?,
        q: params.get("q").map(str::to_owned),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        cursor: params.cursor()?,
    };
    let found = edge.store.threads(query).await?;
    Ok(Answered(Threads { threads: found.threads.iter().map(ThreadLine::new).collect(), next: found.next }))
}

/// A thread with a page of its feed.
#[derive(Serialize, ToSchema)]
pub struct ThreadWithFeed {
    client_id: String,
    business_id: u64,
    /// The client's own id of the user.
    auth_id: String,
    thread: ThreadView,
    feed: FeedPage,
}

/// `GET /admin/v1/threads/{user_id}`
pub async fn show(
    State(edge): State<Arc<Edge>>,
    _: Admin,
    InPath(user_id): InPath<UserId>,
    params: Params,
) -> Result<Answered<ThreadWithFeed>, Problem> {
    let (after, limit) = page(&params)?;
    let stored = edge.store.thread(&user_id).await?.ok_or_else(Problem::unknown_user)?;
    let feed = edge.feed_page(&user_id, after, limit, None).await?;
    Ok(Answered(ThreadWithFeed {
        client_id: stored.key.client.to_string(),
        business_id: stored.key.business,
        auth_id: stored.key.auth_id.to_string(),
        thread: edge.view(&stored),
        feed,
    }))
}
