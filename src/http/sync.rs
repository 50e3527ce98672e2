//! The synchronous variant of a customer's message (section 10): the answer has what the IVA replied.

use super::auth::ChannelSide;
use super::channel::{LogMessage, TakenIn};
use super::idempotency::mark;
use super::request::Posted;
use super::{Edge, Problem};
use crate::channel::BOT;
use crate::webhook::embedded;
use crate::wire;
use axum::Json as Answered;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tract_actors::ports::StoredEntry;
use tract_domain::{ClientId, Entry, Fact, Message, Phase, Policy, ReceiverKind, Sender, Thread, Timestamp};
use utoipa::ToSchema;

/// How many callers wait for the IVA at a time.
pub const WAITING: usize = 256;
/// What is added to the IVA's own time: its turn may have to wait for the one before.
const MARGIN: Duration = Duration::from_secs(5);
/// The longest that anybody waits.
const LONGEST: Duration = Duration::from_secs(60);
/// Between two looks at the thread, at first; each further one is half as long again, up to `SELDOM`. Looks at the store,
/// because any node may have the turn.
const OFTEN: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_millis(250);
/// Entries read at a time.
const PAGE: usize = 100;

/// What the IVA replied.
#[derive(Serialize, ToSchema)]
pub struct SyncReply {
    /// Always `1.0`.
    version: &'static str,
    timestamp: String,
    /// Who replied: the bot; without a reply, who has the conversation.
    agent: SyncAgent,
    /// In order; none if the bot said nothing in time, or an agent has the conversation.
    message: Vec<SyncMessage>,
}

/// Who replies.
#[derive(Serialize, ToSchema)]
pub struct SyncAgent {
    id: Option<String>,
    name: String,
    profile_image: Option<String>,
    is_automated: bool,
}

/// A reply.
#[derive(Serialize, ToSchema)]
pub struct SyncMessage {
    /// The one that the channel webhook tells, too.
    id: u64,
    /// An HSL object.
    #[schema(value_type = Object)]
    body: Box<RawValue>,
    #[serde(skip)]
    at: Timestamp,
}

/// `POST /v1.0/sync_message_from_user/`
pub async fn sync_message(
    State(edge): State<Arc<Edge>>,
    side: ChannelSide,
    Posted { body, key }: Posted<LogMessage>,
) -> Result<Response, Problem> {
    let overloaded = |_| Problem::unavailable("overloaded", "too many callers wait for replies; nothing was done");
    let _place = edge.waiting.try_acquire().map_err(overloaded)?;
    let taken = edge.take_in(&side.client, &body, key, "sync_message_from_user").await?;
    let (thread, message) = edge.replies(&side.client, &taken).await?;
    let agent = if message.is_empty() { holder(&thread, &taken.policy) } else { SyncAgent::bot() };
    // That of the last thing said, so that the same request again gets the same answer.
    let timestamp = wire::time(message.last().map_or(taken.answer.at, |last| last.at));
    let reply = SyncReply { version: "1.0", timestamp, agent, message };
    Ok(mark(Answered(reply).into_response(), taken.answer.replayed))
}

impl Edge {
    /// Waits until the message's turn with the IVA is over, or nothing more is to be waited for.
    async fn replies(&self, client: &ClientId, taken: &TakenIn) -> Result<(Thread, Vec<SyncMessage>), Problem> {
        let ends = Instant::now() + self.patience(client);
        let mut pause = OFTEN;
        loop {
            let thread = self.thread(client, &taken.user_id).await?.thread;
            let said = self.said_to(taken, thread.answered() >= taken.turn.message).await?;
            let awaited = thread.awaits(taken.turn, &taken.policy) && matches!(thread.phase(), Phase::Bot { .. });
            if !said.is_empty() || !awaited || Instant::now() >= ends || self.readiness.is_draining() {
                return Ok((thread, said));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(SELDOM);
        }
    }

    /// How long to wait for a client's IVA.
    fn patience(&self, client: &ClientId) -> Duration {
        let directory = self.tenancy.directory();
        let iva = directory.client(client).and_then(|client| client.iva.as_ref());
        iva.map_or(Duration::ZERO, |iva| (Duration::from_millis(iva.timeout_ms) + MARGIN).min(LONGEST))
    }

    /// What the turn brought; once it is `over` without a word, as when the IVA answers later through its token, what the
    /// IVA said before the customer wrote again.
    async fn said_to(&self, taken: &TakenIn, over: bool) -> Result<Vec<SyncMessage>, Problem> {
        let (mut direct, mut later, mut wrote_again) = (Vec::new(), Vec::new(), false);
        let mut after = taken.turn.message;
        loop {
            let page = self.store.feed(&taken.user_id, after, PAGE).await?;
            // Whatever a turn brings is of its own moment.
            let of_turn = |e: &Entry| (e.conversation, e.control_epoch) == (taken.turn.conversation, taken.turn.epoch);
            let theirs = page.iter().take_while(|stored| of_turn(&stored.entry));
            for stored in theirs.clone() {
                let Fact::Message(message) = &stored.entry.fact else { continue };
                match (message.sender, message.answers) {
                    (Sender::Ceu, _) => wrote_again = true,
                    (_, Some(answered)) if answered == taken.turn.message => direct.push(shown(stored, message)),
                    (Sender::Iva, None) if over && !wrote_again => later.push(shown(stored, message)),
                    _ => {}
                }
            }
            match page.last() {
                Some(last) if theirs.count() == PAGE => after = last.entry.sequence,
                _ => return Ok(if direct.is_empty() { later } else { direct }),
            }
        }
    }
}

fn shown(stored: &StoredEntry, message: &Message) -> SyncMessage {
    SyncMessage { id: stored.message_id, body: embedded(&message.body.0), at: stored.entry.at }
}

impl SyncAgent {
    fn bot() -> Self {
        Self { id: None, name: BOT.to_owned(), profile_image: None, is_automated: true }
    }
}

/// Who has the conversation.
fn holder(thread: &Thread, policy: &Policy) -> SyncAgent {
    match policy.receiver(&thread.control().active) {
        Some(tool) if tool.kind != ReceiverKind::Iva => {
            let known = thread.phase().agent().cloned().unwrap_or_default();
            let name = known.name.unwrap_or_else(|| tool.name.clone());
            SyncAgent { id: known.id, name, profile_image: known.profile_image, is_automated: false }
        }
        _ => SyncAgent::bot(),
    }
}
