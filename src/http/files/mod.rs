//! Files that customers send: taken in over the channel side (section 10), and read by whoever has the link.

pub mod form;
pub mod kind;
pub mod link;
pub mod package;
mod read;
mod receive;

pub use link::{Links, PublicUrl};
pub use read::read_file;
pub use receive::FileFields;

use super::auth::ChannelSide;
use super::channel::{Customer, NotTaken};
use super::idempotency::{RequestKey, Scope, mark};
use super::messages::unexpected;
use super::{Edge, Problem};
use crate::hsl;
use crate::wire;
use axum::Json as Answered;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tract_actors::ports::{FileInfo, FileToken, IdempotencyKey, Kept, KeptAnswer, KeyHome};
use tract_actors::router::Answer;
use tract_domain::{Command, Fact, Json, MessageType, Reply, Timestamp, UserId};
use utoipa::ToSchema;

/// Where files are sent.
pub(super) const ROUTE: &str = "/v1.0/log_file_from_user";
/// Largest file, in bytes.
pub const MAX_FILE: usize = 10 * 1024 * 1024;
/// Uploads at a time: each holds a whole file in memory, and what is sent on of it.
const UPLOADS: usize = 16;
/// Downloads at a time: each holds a piece of a file, for as long as its reader takes.
const DOWNLOADS: usize = 256;

/// What handlers of files work with, besides the store.
#[derive(Debug)]
pub struct FileDesk {
    links: Links,
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
}

impl FileDesk {
    /// That makes such links.
    pub fn new(links: Links) -> Self {
        let [uploads, downloads] = [UPLOADS, DOWNLOADS].map(|places| Arc::new(Semaphore::new(places)));
        Self { links, uploads, downloads }
    }
}

fn place(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
    let full = |_| Problem::unavailable("overloaded", "too many files are being moved; nothing was done");
    Arc::clone(of).try_acquire_owned().map_err(full)
}

/// The file as it was taken.
#[derive(Serialize, ToSchema)]
pub struct FileLogged {
    message_id: u64,
    /// What was said with it; empty if nothing was.
    message_body: String,
    #[schema(example = "2026-07-25T17:20:00.007Z")]
    created_at: String,
    #[schema(example = 1)]
    message_type: u64,
    /// Where to read it. Whoever has the link may.
    #[schema(example = "https://tract.example/files/AAf3kq0hvJ7nQWm2xTz8cLr5YpBd9sEu")]
    file_url: String,
}

/// `POST /v1.0/log_file_from_user/`
pub async fn log_file(State(edge): State<Arc<Edge>>, side: ChannelSide, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    // What can be refused unread is.
    RequestKey::read(&parts.headers, b"")?;
    let boundary = receive::boundary(&parts.headers)?;
    let _place = place(&edge.files.uploads)?;
    let received = receive::form(body, boundary, &parts.headers).await?;

    let (business, policy) = edge.business(&side.client, Some(received.business_id))?;
    let auth_id = &*received.auth_id;
    let user_id = edge.store.user_id(&side.client, business, auth_id);
    let scope =
        Scope { client: Some(&side.client), receiver: "", route: "log_file_from_user", thread: user_id.as_str() };
    let key = received.key.as_ref().map(|key| key.scoped(scope, KeyHome::Thread(user_id.clone()), edge.now()));
    let customer = Customer { client: &side.client, auth_id, business, policy: &policy, user_id: &user_id };
    let kind = received.kind;
    let about = About {
        user_id: &user_id,
        message_body: received.message_body.clone(),
        message_type: kind.message_type().number(),
    };
    // The first answer again, before its file is kept once more.
    if let Some(key) = &key
        && let Some(answer) = edge.kept_file(&about, key).await?
    {
        return Ok(mark(Answered(answer).into_response(), true));
    }
    // Nothing is kept for whom nobody knows.
    if edge.store.thread(&user_id).await?.is_none() {
        edge.open(&customer).await?;
    }

    let (name, size) = (received.name.clone(), received.content.len() as u64);
    let content_type = kind.content_type().to_owned();
    let info = FileInfo { user_id: user_id.clone(), content_type, name, size, at: edge.now() };
    let token = edge.store.put_file(info, received.content.clone()).await?;
    let file_url = edge.files.links.to(&token, &parts.uri, &parts.headers);
    let said = match kind.message_type() {
        MessageType::Image => hsl::image_element(&about.message_body, &file_url),
        _ => hsl::document_element(&about.message_body, &received.name, &file_url),
    };
    let metadata = json!({"file_url": file_url, "message_type": about.message_type});
    let command = Command::Ceu { body: said, metadata: Some(Json(metadata.to_string().into())) };
    match edge.ask_of(&customer, command, key).await {
        Ok(Answer { reply, message_ids, at, replayed: false }) => {
            edge.name(&user_id, &token, &reply).await;
            let labels = [("kind", kind.extensions()[0])];
            metrics::counter!("tract_files_total", &labels).increment(1);
            metrics::counter!("tract_file_bytes_total", &labels).increment(size);
            Ok(Answered(edge.file_logged(&about, &reply, &message_ids, at, Some(file_url)).await?).into_response())
        }
        // Perhaps a message names it: the sweep finds out.
        Err(why @ NotTaken::Perhaps) => Err(why.into()),
        Err(NotTaken::Surely(problem)) => {
            edge.drop_unnamed(&user_id, &token).await;
            Err(problem)
        }
        // Another request with the same key was faster, with a file of its own.
        Ok(Answer { reply, message_ids, at, replayed: true }) => {
            edge.drop_unnamed(&user_id, &token).await;
            let first = edge.file_logged(&about, &reply, &message_ids, at, None).await?;
            Ok(mark(Answered(first).into_response(), true))
        }
    }
}

/// What an answer says besides what came of the message.
struct About<'a> {
    user_id: &'a UserId,
    message_body: String,
    message_type: u64,
}

impl Edge {
    /// The answer that was kept for this key, if any; a 422 if it was for another request.
    async fn kept_file(&self, about: &About<'_>, key: &IdempotencyKey) -> Result<Option<FileLogged>, Problem> {
        match self.store.kept(key, self.now()).await? {
            None => Ok(None),
            Some(kept) if kept.request != key.request => Err(Problem::key_reused()),
            Some(Kept { answer: KeptAnswer::Thread { reply, message_ids, at }, .. }) => {
                self.file_logged(about, &reply, &message_ids, at, None).await.map(Some)
            }
            // Bodies are kept in other scopes; the record is not one of ours.
            Some(Kept { answer: KeptAnswer::Body(_), .. }) => Err(Problem::internal()),
        }
    }

    /// The answer. Where the link is not at hand, it is the one that the message gave.
    async fn file_logged(
        &self,
        about: &About<'_>,
        reply: &Reply,
        message_ids: &[u64],
        at: Timestamp,
        file_url: Option<String>,
    ) -> Result<FileLogged, Problem> {
        let Reply::Message { entry, sequence, .. } = reply else { return Err(unexpected(reply)) };
        let file_url = match file_url {
            Some(file_url) => file_url,
            None => self.file_url_of(about.user_id, *sequence).await?,
        };
        Ok(FileLogged {
            message_id: message_ids.get(*entry).copied().ok_or_else(Problem::internal)?,
            message_body: about.message_body.clone(),
            created_at: wire::time(at),
            message_type: about.message_type,
            file_url,
        })
    }

    /// The link that a message gave.
    async fn file_url_of(&self, user_id: &UserId, sequence: u64) -> Result<String, Problem> {
        let found = self.store.feed(user_id, sequence.saturating_sub(1), 1).await?;
        let Some(Fact::Message(message)) = found.first().map(|stored| &stored.entry.fact) else {
            return Err(Problem::internal());
        };
        let url = wire::fields(message.metadata.as_ref()).remove("file_url");
        url.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(Problem::internal)
    }

    /// Tells the store which message names a file. What cannot be told now is found out by the sweep.
    async fn name(&self, user_id: &UserId, token: &FileToken, reply: &Reply) {
        let Reply::Message { sequence, .. } = reply else { return };
        if let Err(error) = self.store.name_file(user_id, token, *sequence).await {
            tracing::warn!(%error, "the store was not told which message names a file");
        }
    }

    /// Forgets a file that no message names. What cannot be forgotten now is swept up.
    async fn drop_unnamed(&self, user_id: &UserId, token: &FileToken) {
        if let Err(error) = self.store.drop_file(user_id, token).await {
            tracing::warn!(%error, "a file that no message names is still there");
        }
    }
}
