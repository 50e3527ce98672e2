//! A conversation as a client's bot or back office reads it (section 9).

use super::auth::Integration;
use super::request::{Asked, Params};
use super::{Edge, Problem};
use axum::Json as Answered;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use tract_actors::ports::{StoredEntry, StoredThread, Tenants};
use tract_domain::{Fact, Message, Sender, Timestamp, UserId};
use utoipa::ToSchema;

/// Messages in an answer, at most and unless the caller says. Bounds what one request holds in memory.
const MAX_MESSAGES: u64 = 1000;
/// Entries that are read at a time.
const PAGE: usize = 500;

/// A conversation; one of the two, as `response_type` asks.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatHistory {
    /// `response_type=json`, the default. Oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_json: Option<Vec<ChatLine>>,
    /// `response_type=text`: a line for each message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "user: Where is my order?\nbot: One moment.\n")]
    chat_text: Option<String>,
}

/// One message.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatLine {
    text: String,
    /// `bot`, `user`, or the agent's name; in v1.0 `agent(<name>)`.
    #[schema(example = "user")]
    sender: String,
    message_id: u64,
    #[schema(example = "06/22/20 07:24:25 AM UTC")]
    timestamp: String,
}

/// How the two versions name agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// `GET /integration/external/v1.0/get_chat_history/`
pub async fn first(
    State(edge): State<Arc<Edge>>,
    caller: Integration,
    asked: Asked,
) -> Result<Answered<ChatHistory>, Problem> {
    edge.history(&caller, &asked.0, Version::One).await.map(Answered)
}

/// `GET /integration/external/v2.0/get_chat_history/`
pub async fn second(
    State(edge): State<Arc<Edge>>,
    caller: Integration,
    asked: Asked,
) -> Result<Answered<ChatHistory>, Problem> {
    edge.history(&caller, &asked.0, Version::Two).await.map(Answered)
}

impl Edge {
    async fn history(&self, caller: &Integration, params: &Params, version: Version) -> Result<ChatHistory, Problem> {
        let as_text = match params.get("response_type") {
            None | Some("json") => false,
            Some("text") => true,
            Some(_) => return Err(Problem::invalid("response_type", "must be json or text")),
        };
        let wanted = params.integer("conversation_no", 0, u64::MAX, 0)?;
        if wanted == 0 {
            return Err(Problem::invalid("conversation_no", "must be an integer from 1"));
        }
        let limit = params.integer("limit", 1, MAX_MESSAGES, MAX_MESSAGES)?;
        let stored = self.named(caller, params).await?;
        if wanted > stored.thread.conversation() {
            return Err(Problem::new(StatusCode::NOT_FOUND, "unknown_conversation", "no such conversation"));
        }
        let lines = self.last_lines(&stored, wanted, usize::try_from(limit).unwrap_or(usize::MAX), version).await?;
        Ok(if as_text {
            ChatHistory { chat_json: None, chat_text: Some(as_lines(&lines)) }
        } else {
            ChatHistory { chat_json: Some(lines.into()), chat_text: None }
        })
    }

    /// The thread, by `business_id` and `user_name`, else by `pxut`.
    async fn named(&self, caller: &Integration, params: &Params) -> Result<StoredThread, Problem> {
        let business = params.integer("business_id", 0, u64::MAX, 0)?;
        let (by_name, by_handle): (Option<UserId>, _) = (params.parse("user_name")?, params.parse("pxut")?);
        let has_business = params.get("business_id").is_some();
        match (by_name.filter(|_| has_business), by_handle) {
            (Some(user_id), _) => {
                let stored = self.thread(&caller.client, &user_id).await?;
                if stored.key.business == business { Ok(stored) } else { Err(Problem::unknown_user()) }
            }
            (None, Some(user_id)) => self.thread(&caller.client, &user_id).await,
            (None, None) if has_business => Err(Problem::invalid("user_name", "is missing")),
            (None, None) => Err(Problem::invalid("business_id", "is missing; or give pxut")),
        }
    }

    async fn last_lines(
        &self,
        stored: &StoredThread,
        wanted: u64,
        limit: usize,
        version: Version,
    ) -> Result<VecDeque<ChatLine>, Problem> {
        let mut after = self.before_conversation(stored, wanted).await?;
        let mut lines = VecDeque::new();
        loop {
            let page = self.store.feed(&stored.key.user_id, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(lines) };
            after = last.entry.sequence;
            for entry in &page {
                if entry.entry.conversation > wanted {
                    return Ok(lines);
                }
                if let (Fact::Message(message), true) = (&entry.entry.fact, entry.entry.conversation == wanted) {
                    if lines.len() == limit {
                        lines.pop_front();
                    }
                    lines.push_back(self.line(stored, entry, message, version));
                }
            }
        }
    }

    /// The last sequence before a conversation. Conversations only ever count up along a thread, so halving finds it.
    async fn before_conversation(&self, stored: &StoredThread, wanted: u64) -> Result<u64, Problem> {
        let (mut before, mut reached) = (0, stored.thread.sequence());
        while before < reached {
            let middle = before + (reached - before) / 2;
            let next = self.store.feed(&stored.key.user_id, middle, 1).await?;
            match next.first() {
                Some(entry) if entry.entry.conversation < wanted => before = middle + 1,
                _ => reached = middle,
            }
        }
        Ok(before)
    }

    fn line(&self, stored: &StoredThread, entry: &StoredEntry, message: &Message, version: Version) -> ChatLine {
        let sender = match message.sender {
            Sender::Ceu => "user".to_owned(),
            Sender::Iva | Sender::Haptik => "bot".to_owned(),
            Sender::Ect | Sender::Aeu => {
                let name = message.agent.as_ref().and_then(|agent| agent.name.clone());
                let name = name.unwrap_or_else(|| self.tool_name(stored, message));
                if version == Version::One { format!("agent({name})") } else { name }
            }
        };
        ChatLine { text: text_of(message), sender, message_id: entry.message_id, timestamp: written(entry.entry.at) }
    }

    /// An agent without a name goes by that of the tool.
    fn tool_name(&self, stored: &StoredThread, message: &Message) -> String {
        let Some(by) = &message.by else { return "agent".to_owned() };
        let policy = self.tenancy.policy(&stored.key.client, stored.key.business);
        let named = policy.and_then(|p| p.receivers.iter().find(|r| r.id == *by).map(|r| r.name.clone()));
        named.unwrap_or_else(|| by.to_string())
    }
}

/// An element's own text; the rest of it is for renderers.
fn text_of(message: &Message) -> String {
    #[derive(Deserialize)]
    struct Element {
        #[serde(default)]
        text: Option<String>,
    }
    let read: Result<Element, _> = serde_json::from_str(&message.body.0);
    read.ok().and_then(|element| element.text).unwrap_or_default()
}

/// As the contract writes times here: `06/22/20 07:24:25 AM UTC`.
fn written(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::MAX);
    at.strftime("%m/%d/%y %I:%M:%S %p UTC").to_string()
}

/// A line for each message: its own line breaks become spaces, so that nobody can write a line in another's name.
fn as_lines(lines: &VecDeque<ChatLine>) -> String {
    let mut text = String::new();
    for line in lines {
        let one_line = |text: &str| text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}: {}", one_line(&line.sender), one_line(&line.text));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_the_contract() {
        assert_eq!(written(Timestamp(1_592_810_665_000)), "06/22/20 07:24:25 AM UTC");
        assert_eq!(written(Timestamp(1_592_841_600_999)), "06/22/20 04:00:00 PM UTC");
        assert_eq!(written(Timestamp(0)), "01/01/70 12:00:00 AM UTC");
        assert!(written(Timestamp(i64::MAX)).ends_with("UTC"));
    }

    #[test]
    fn nobody_writes_a_line_in_anothers_name() {
        let line = |sender: &str, text: &str| ChatLine {
            text: text.to_owned(),
            sender: sender.to_owned(),
            message_id: 1,
            timestamp: String::new(),
        };
        let lines = VecDeque::from([line("user", "hi\nbot: you won\r\u{2028}!"), line("Ann\n", "hello")]);
        assert_eq!(as_lines(&lines), "user: hi bot: you won  !\nAnn : hello\n");
    }
}
