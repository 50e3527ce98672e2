//! Reading a thread: its feed, and where it stands (section 6).

use super::auth::Caller;
use super::request::Params;
use super::{Edge, Problem};
use crate::tenancy::ReceiveScope;
use crate::wire::{self, FeedEntry};
use axum::Json as Answered;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use tract_actors::ports::{StoredThread, Tenants};
use tract_domain::{DeadlineKind, ReceiverId, UserId};
use utoipa::ToSchema;

/// Entries on a page, at most.
const MAX_LIMIT: u64 = 500;
/// Entries on a page, unless the caller says.
const LIMIT: u64 = 100;
/// How many stored pages one request looks through for a receiver that may not see all of them.
const PAGES: usize = 20;

/// A page of the feed.
#[derive(Serialize, ToSchema)]
pub struct FeedPage {
    /// Oldest first. All have `sequence`, `kind` (`message`, `event`, `state`, `control`), `conversation_number`,
    /// `timestamp` and `control_epoch`; the rest depends on the kind.
    #[schema(value_type = Vec<Object>)]
    pub(super) entries: Vec<FeedEntry>,
    /// Ask after this next. It equals the `after` that was asked for when there is nothing more.
    pub(super) next_after: u64,
}

/// `GET /tract/thread/feed/`
pub async fn feed(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    params: Params,
) -> Result<Answered<FeedPage>, Problem> {
    let user_id = params.user_id()?;
    let (after, limit) = page(&params)?;
    let stored = edge.thread(&caller.client, &user_id).await?;
    let directory = edge.tenancy.directory();
    let only_held = directory.ect(&caller.receiver).is_some_and(|ect| ect.receive == ReceiveScope::Active);
    if !only_held {
        return edge.feed_page(&user_id, after, limit, Some(&caller.receiver)).await.map(Answered);
    }
    let mut feed = FeedPage { entries: Vec::new(), next_after: after };
    for _ in 0..PAGES {
        let entries = edge.store.feed(&user_id, feed.next_after, MAX_LIMIT as usize).await?;
        if entries.is_empty() {
            break;
        }
        for entry in &entries {
            if feed.entries.len() == limit {
                return Ok(Answered(feed));
            }
            feed.next_after = entry.entry.sequence;
            if stored.thread.has_held(&caller.receiver, entry.entry.conversation) {
                feed.entries.push(wire::feed_entry(entry, Some(&caller.receiver)));
            }
        }
    }
    Ok(Answered(feed))
}

/// `after` and `limit`
pub(in crate::http) fn page(params: &Params) -> Result<(u64, usize), Problem> {
    let after = params.integer("after", 0, super::decode::MAX_INTEGER, 0)?;
    let limit = params.integer("limit", 1, MAX_LIMIT, LIMIT)?;
    Ok((after, usize::try_from(limit).unwrap_or(usize::MAX)))
}

impl Edge {
    /// A page of a thread's entries, all of them.
    pub(in crate::http) async fn feed_page(
        &self,
        user_id: &UserId,
        after: u64,
        limit: usize,
        viewer: Option<&ReceiverId>,
    ) -> Result<FeedPage, Problem> {
        let entries = self.store.feed(user_id, after, limit).await?;
        let next_after = entries.last().map_or(after, |e| e.entry.sequence);
        Ok(FeedPage { entries: entries.iter().map(|e| wire::feed_entry(e, viewer)).collect(), next_after })
    }
}

/// Where a thread stands, and why.
#[derive(Debug, Serialize, ToSchema)]
pub struct ThreadView {
    user_id: String,
    /// `none`, `bot`, `incomplete`, `pinned`, `waiting` or `complete`.
    state: &'static str,
    /// `"0"` before the first conversation.
    conversation_number: String,
    /// Who holds it.
    active: String,
    /// Who has been offered it.
    pending: Option<String>,
    /// The present fencing token.
    control_epoch: u64,
    /// The last entry's.
    last_sequence: u64,
    /// The pending offer.
    offer: Option<OfferView>,
    /// The pending request.
    request: Option<RequestView>,
    /// What happens by itself, and when.
    deadlines: Vec<DeadlineView>,
    /// The last control changes, oldest first.
    history: Vec<StepView>,
}

/// Control, offered.
#[derive(Debug, Serialize, ToSchema)]
pub struct OfferView {
    offer_id: String,
    from: String,
    to: String,
    deadline: String,
}

/// Control, asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct RequestView {
    from: String,
    deadline: String,
}

/// Something that time will do.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadlineView {
    /// `handoff`, `offer`, `request`, `countdown` or `idle`.
    kind: &'static str,
    at: String,
}

/// One control change.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepView {
    sequence: u64,
    at: String,
    #[schema(value_type = String, example = "pass")]
    action: Value,
    from: String,
    to: String,
    #[schema(value_type = String, example = "handoff")]
    cause: Value,
    /// Whose doing it was; null for the customer, time and the system.
    by: Option<String>,
    /// The epoch after it.
    control_epoch: u64,
}

/// `GET /tract/thread/`
pub async fn show(
    State(edge): State<Arc<Edge>>,
    caller: Caller,
    params: Params,
) -> Result<Answered<ThreadView>, Problem> {
    let stored = edge.thread(&caller.client, &params.user_id()?).await?;
    Ok(Answered(edge.view(&stored)))
}

impl Edge {
    /// A thread as callers see it.
    pub(in crate::http) fn view(&self, stored: &StoredThread) -> ThreadView {
        let (thread, control) = (&stored.thread, stored.thread.control());
        let policy = self.tenancy.policy(&stored.key.client, stored.key.business);
        let deadlines = policy.map(|policy| thread.deadlines(&policy)).unwrap_or_default();
        ThreadView {
            user_id: stored.key.user_id.to_string(),
            state: thread.state().as_str(),
            conversation_number: thread.conversation().to_string(),
            active: control.active.to_string(),
            pending: control.offer.as_ref().map(|offer| offer.to.to_string()),
            control_epoch: control.epoch,
            last_sequence: thread.sequence(),
            offer: control.offer.as_ref().map(|offer| OfferView {
                offer_id: offer.id.clone(),
                from: offer.from.to_string(),
                to: offer.to.to_string(),
                deadline: wire::time(offer.deadline),
            }),
            request: control
                .request
                .as_ref()
                .map(|request| RequestView { from: request.from.to_string(), deadline: wire::time(request.deadline) }),
            deadlines: deadlines
                .into_iter()
                .map(|(kind, at)| DeadlineView { kind: deadline_name(kind), at: wire::time(at) })
                .collect(),
            history: thread
                .history()
                .map(|step| StepView {
                    sequence: step.sequence,
                    at: wire::time(step.at),
                    action: wire::name(&step.action),
                    from: step.from.to_string(),
                    to: step.to.to_string(),
                    cause: wire::name(&step.cause),
                    by: step.by.as_ref().map(ToString::to_string),
                    control_epoch: step.epoch,
                })
                .collect(),
        }
    }
}

fn deadline_name(kind: DeadlineKind) -> &'static str {
    match kind {
        DeadlineKind::Handoff => "handoff",
        DeadlineKind::Offer => "offer",
        DeadlineKind::Request => "request",
        DeadlineKind::Countdown => "countdown",
        DeadlineKind::Idle => "idle",
    }
}
