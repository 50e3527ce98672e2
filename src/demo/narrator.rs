//! Tells what happens. Everything it prints was received by one of the samples or stands in the thread's feed; nothing is
//! taken for granted because somebody asked for it.

use super::{
    api::Api,
    channel,
    samples::{ect, iva, webhook::words},
    screen::{Kind, Line, Screen},
};
use serde_json::Value;
use std::{collections::HashMap, io, time::Instant};
use tokio::sync::{mpsc, oneshot};

/// What the narrator is told.
pub(super) enum News {
    /// From the agent tool.
    Ect(ect::Report),
    /// From the bot.
    Iva(iva::Report),
    /// From the channel.
    Channel(channel::Report),
    /// The script called the router as the channel side.
    Called { route: &'static str },
    /// The script begins a step.
    Heading(String),
    /// To be printed as it is.
    Text(String),
    /// Says when everything before it is printed.
    Flush(oneshot::Sender<()>),
}

/// What has demonstrably happened, for the script to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// The agent tool got this webhook.
    Hook { topic: String },
    /// The bot answered a turn.
    Turn { handoff: bool },
    /// The channel got this event.
    Channel { event: String },
    /// A message stands in the feed.
    Message { sender: String },
    /// The feed says that the conversation entered a state.
    State { to: String, conversation: String },
    /// The feed says that control moved.
    Control { to: String },
}

/// Where the narrator is in a thread.
struct Place {
    sequence: u64,
    active: String,
}

/// Prints news in the order in which it comes, each preceded by the thread's entries up to there.
pub(super) struct Narrator {
    pub(super) screen: Screen,
    pub(super) api: Api,
    /// For reading feeds.
    pub(super) token: String,
    /// The agent tool's receiver id.
    pub(super) ect: String,
    pub(super) since: Instant,
    pub(super) facts: mpsc::UnboundedSender<Fact>,
    places: HashMap<String, Place>,
}

impl Narrator {
    pub(super) fn new(
        screen: Screen,
        api: Api,
        token: String,
        ect: String,
        facts: mpsc::UnboundedSender<Fact>,
    ) -> Self {
        Self { screen, api, token, ect, since: Instant::now(), facts, places: HashMap::new() }
    }

    /// Tells until there is nobody left to hear from, or nobody to read.
    pub(super) async fn tell(mut self, mut news: mpsc::UnboundedReceiver<News>) -> io::Result<()> {
        while let Some(news) = news.recv().await {
            match news {
                News::Ect(report) => self.ect(report).await?,
                News::Iva(report) => self.iva(report).await?,
                News::Channel(report) => self.channel(report).await?,
                News::Called { route } => {
                    self.line(Kind::Call, None, ["channel", "router"], &format!("POST {route}"))?
                }
                News::Heading(text) => self.screen.heading(&text)?,
                News::Text(text) => self.screen.text(&text)?,
                News::Flush(done) => {
                    let _ = done.send(());
                }
            }
        }
        Ok(())
    }

    async fn ect(&mut self, report: ect::Report) -> io::Result<()> {
        let ect = self.ect.clone();
        match report {
            ect::Report::Registered { hooks } => {
                self.line(Kind::Call, None, [&ect, "router"], &format!("POST /tract/hooks/register/ ({hooks} hooks)"))
            }
            ect::Report::Webhook { topic, webhook_id, user_id, sequence, epoch, again } => {
                self.catch_up(&user_id, sequence).await?;
                let text = format!("{topic:<32}{}", signed(&webhook_id, again));
                let numbers = Some((sequence, epoch));
                self.line(Kind::Webhook, numbers, ["router", &ect], &text)?;
                self.fact(Fact::Hook { topic });
                Ok(())
            }
            ect::Report::Called { user_id, what, status } => {
                self.line(Kind::Call, None, [&ect, "router"], &format!("POST {what}: {status}"))?;
                self.catch_up(&user_id, None).await
            }
            ect::Report::CaughtUp { after, through, .. } => {
                let text = format!("GET thread/feed: entries {} to {through}", after + 1);
                self.line(Kind::Call, None, [&ect, "router"], &text)
            }
            ect::Report::Refused(fault) => self.line(Kind::Fault, None, ["router", &ect], &fault.to_string()),
            ect::Report::Failed { what, reason } => {
                self.line(Kind::Fault, None, [&ect, "router"], &format!("{what}: {reason}"))
            }
        }
    }

    async fn iva(&mut self, report: iva::Report) -> io::Result<()> {
        match report {
            iva::Report::Turn { user_id, webhook_id, again, messages, handoff, complete } => {
                self.catch_up(&user_id, None).await?;
                let s = if messages == 1 { "" } else { "s" };
                let and = match (&handoff, complete) {
                    (Some(to), _) => format!(", hand-off to {to}"),
                    (None, true) => ", complete".to_owned(),
                    (None, false) => String::new(),
                };
                let answer = format!("{messages} message{s}{and}");
                let text = format!("{answer:<32}{}", signed(&webhook_id, again));
                self.line(Kind::Turn, None, ["router", "iva"], &text)?;
                self.fact(Fact::Turn { handoff: handoff.is_some() });
                Ok(())
            }
            iva::Report::Refused(fault) => self.line(Kind::Fault, None, ["router", "iva"], &fault.to_string()),
        }
    }

    async fn channel(&mut self, report: channel::Report) -> io::Result<()> {
        match report {
            channel::Report::Arrived { event, webhook_id, user_id, text, again } => {
                self.catch_up(&user_id, None).await?;
                // What the customer's screen shows, from the delivery itself.
                let read = if text.is_empty() { text } else { format!("  \"{text}\"") };
                let text = format!("{event:<32}{}{read}", signed(&webhook_id, again));
                self.line(Kind::Webhook, None, ["router", "channel"], &text)?;
                self.fact(Fact::Channel { event });
                Ok(())
            }
            channel::Report::Refused(fault) => self.line(Kind::Fault, None, ["router", "channel"], &fault.to_string()),
        }
    }

    /// Prints what the feed has since the last time, through this entry or to its end.
    async fn catch_up(&mut self, user_id: &str, through: Option<u64>) -> io::Result<()> {
        loop {
            let after = self.places.get(user_id).map_or(0, |place| place.sequence);
            if user_id.is_empty() || through.is_some_and(|through| through <= after) {
                return Ok(());
            }
            let entries = match self.api.feed(&self.token, user_id, after).await {
                Ok(entries) => entries,
                Err(error) => return self.line(Kind::Fault, None, ["demo", "router"], &error.to_string()),
            };
            let wanted = |entry: &&Value| through.is_none_or(|through| entry["sequence"].as_u64() <= Some(through));
            for entry in entries.iter().take_while(wanted) {
                self.entry(user_id, entry)?;
            }
            // A page that does not get on would be read for ever.
            if self.places.get(user_id).is_none_or(|place| place.sequence <= after) {
                return Ok(());
            }
        }
    }

    fn entry(&mut self, user_id: &str, entry: &Value) -> io::Result<()> {
        let field = |name: &str| entry[name].as_str().unwrap_or_default();
        let place = self.places.entry(user_id.to_owned()).or_insert(Place { sequence: 0, active: "iva".to_owned() });
        let (sequence, epoch) = (entry["sequence"].as_u64(), entry["control_epoch"].as_u64());
        place.sequence = sequence.unwrap_or(place.sequence);
        let (from, to, cause) = (field("from"), field("to"), field("cause"));
        let numbers = Some((sequence, epoch));
        match field("kind") {
            "message" => {
                if let Some(active) = entry["metadata"]["active"].as_str() {
                    active.clone_into(&mut place.active);
                }
                let text = format!("\"{}\"", words(&entry["message_body"]));
                let route = match field("sender") {
                    "ceu" => ["customer".to_owned(), place.active.clone()],
                    "aeu" => ["agent".to_owned(), "customer".to_owned()],
                    sender => [sender.to_owned(), "customer".to_owned()],
                };
                self.line(Kind::Message, numbers, [&route[0], &route[1]], &text)?;
                self.fact(Fact::Message { sender: field("sender").to_owned() });
            }
            "state" => {
                let conversation = field("conversation_number");
                let text = format!("conversation {conversation}: {from} -> {to} ({cause})");
                self.line(Kind::State, numbers, ["thread", "all"], &text)?;
                self.fact(Fact::State { to: to.to_owned(), conversation: conversation.to_owned() });
            }
            "control" => {
                let action = field("action");
                let moves = matches!(action, "pass" | "take");
                let text = match (moves, epoch) {
                    (true, Some(epoch)) => {
                        format!("control {action} ({cause}), epoch {} -> {epoch}", epoch.saturating_sub(1))
                    }
                    _ => format!("control {action} ({cause})"),
                };
                if moves {
                    to.clone_into(&mut place.active);
                }
                self.line(Kind::Control, numbers, [from, to], &text)?;
                if moves {
                    self.fact(Fact::Control { to: to.to_owned() });
                }
            }
            kind => {
                let names = ["category", "subcategory", "event", "topic", "note"].map(field);
                let text = names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".");
                let by = if field("by").is_empty() { "thread" } else { field("by") };
                let text = if text.is_empty() { kind.to_owned() } else { text };
                self.line(Kind::Event, numbers, [by, "all"], &text)?;
            }
        }
        Ok(())
    }

    fn line(
        &mut self,
        kind: Kind,
        numbers: Option<(Option<u64>, Option<u64>)>,
        [from, to]: [&str; 2],
        text: &str,
    ) -> io::Result<()> {
        let (sequence, epoch) = numbers.unwrap_or_default();
        let line = Line { kind, sequence, epoch, from: from.to_owned(), to: to.to_owned(), text: text.to_owned() };
        self.screen.line(self.since.elapsed(), &line)
    }

    /// Once the script is over nobody waits for facts any more.
    fn fact(&self, fact: Fact) {
        let _ = self.facts.send(fact);
    }
}

/// The end of a webhook's id, which is where ids differ, and that its signature was checked.
fn signed(webhook_id: &str, again: bool) -> String {
    let skip = webhook_id.chars().count().saturating_sub(8);
    let short: String = webhook_id.chars().skip(skip).collect();
    format!("id ..{short}, signature ok{}", if again { ", seen before" } else { "" })
}
