//! The script: what the customer does, and what must be seen to happen before the next step.

use super::{
    DemoError,
    api::{Api, CallError, Channel},
    narrator::{Fact, News},
};
use serde_json::json;
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// The demo's customer, by the client's own id.
pub(super) const CUSTOMER: &str = "priya-27";

/// Plays the customer. Bot and agent are the samples, which play themselves.
pub(super) struct Story<'a> {
    pub(super) api: &'a Api,
    pub(super) channel: &'a Channel,
    /// The agent tool's receiver id.
    pub(super) ect: &'a str,
    pub(super) news: &'a mpsc::UnboundedSender<News>,
    pub(super) facts: mpsc::UnboundedReceiver<Fact>,
    /// How long each step may take.
    pub(super) patience: Duration,
}

impl Story<'_> {
    /// Plays to the end; returns the thread's handle.
    pub(super) async fn play(mut self) -> Result<String, DemoError> {
        let step = self.step("1. A customer is created");
        let customer = json!({
            "auth_id": CUSTOMER, "name": "Priya", "device_platform": 5, "language_code": "en",
            "business_id": self.channel.business_id, "custom_data": {"loyalty": "gold"}
        });
        let user_id = self.called(step, "/v1.0/user/", self.api.create_user(self.channel, &customer).await)?;
        self.until(step, vec![("user_events.create_user at the agent tool", hook("user_events.create_user"))]).await?;

        let step = self.step("2. The customer says hello; the bot answers");
        self.customer_says(step, "Hello!").await?;
        self.until(
            step,
            vec![
                ("conversation 1 in state bot", state("bot", "1")),
                ("the bot's turn", turn(false)),
                ("the customer's words", said("ceu")),
                ("the bot's first words", said("iva")),
                ("the bot's second words", said("iva")),
                ("the bot's first message at the channel", channel("message")),
                ("the bot's second message at the channel", channel("message")),
                // The agent tool stands by and hears everything.
                ("conversation_state.bot at the agent tool", hook("conversation_state.bot")),
                ("the customer's message at the agent tool", hook("message.receive")),
                ("the bot's first message at the agent tool", hook("message.receive")),
                ("the bot's second message at the agent tool", hook("message.receive")),
            ],
        )
        .await?;

        let step = self.step("3. The customer asks for a person; the bot hands off; an agent picks up");
        self.customer_says(step, "Could I talk to a person, please?").await?;
        let ect = self.ect.to_owned();
        self.until(
            step,
            vec![
                ("a hand-off by the bot", turn(true)),
                ("the customer's wish", said("ceu")),
                ("the bot's farewell", said("iva")),
                ("the bot's message at the channel", channel("message")),
                ("the customer's message at the agent tool", hook("message.receive")),
                ("the bot's message at the agent tool", hook("message.receive")),
                ("control with the agent tool", Box::new(move |fact| *fact == Fact::Control { to: ect.clone() })),
                ("thread_control.pass at the agent tool", hook("thread_control.pass")),
                ("conversation 1 incomplete", state("incomplete", "1")),
                ("conversation_state.incomplete at the agent tool", hook("conversation_state.incomplete")),
                ("conversation 1 pinned", state("pinned", "1")),
                ("conversation_state.pinned at the agent tool", hook("conversation_state.pinned")),
                ("chat_pinned at the channel", channel("chat_pinned")),
                ("the agent's greeting", said("aeu")),
                ("the agent's greeting at the channel", channel("message")),
                ("conversation 1 waiting for the customer", state("waiting", "1")),
                ("conversation_state.waiting at the agent tool", hook("conversation_state.waiting")),
            ],
        )
        .await?;

        let step = self.step("4. The customer answers; the agent solves it and ends the conversation");
        self.customer_says(step, "It is order 4711.").await?;
        self.until(
            step,
            vec![
                ("the customer's answer", said("ceu")),
                ("the customer's answer at the agent tool", hook("message.receive")),
                ("conversation_state.pinned at the agent tool", hook("conversation_state.pinned")),
                ("the agent's answer", said("aeu")),
                ("the agent's answer at the channel", channel("message")),
                ("conversation 1 complete", state("complete", "1")),
                ("conversation_state.complete at the agent tool", hook("conversation_state.complete")),
                ("control back with the bot", Box::new(|fact| *fact == Fact::Control { to: "iva".to_owned() })),
                ("thread_control.pass at the agent tool", hook("thread_control.pass")),
                ("chat_complete at the channel", channel("chat_complete")),
                ("webhook_conversation_complete at the channel", channel("webhook_conversation_complete")),
            ],
        )
        .await?;

        let step = self.step("5. The customer comes back: conversation 2, with the bot again");
        self.customer_says(step, "One more thing: when do you open?").await?;
        self.until(
            step,
            vec![
                ("conversation 2 in state bot", state("bot", "2")),
                ("conversation_state.bot at the agent tool", hook("conversation_state.bot")),
                ("the bot's turn", turn(false)),
                ("the customer's question", said("ceu")),
                ("the bot's answer", said("iva")),
                ("the bot's answer at the channel", channel("message")),
                ("the customer's message at the agent tool", hook("message.receive")),
                ("the bot's answer at the agent tool", hook("message.receive")),
            ],
        )
        .await?;
        Ok(user_id)
    }

    /// Begins a step. Each step waits for all that it brings about, so nothing of it can be taken for the next one's; what
    /// is left (an event at the channel or in the feed that the story does not turn on) is dropped here.
    fn step(&mut self, title: &'static str) -> &'static str {
        while self.facts.try_recv().is_ok() {}
        let _ = self.news.send(News::Heading(title.to_owned()));
        title
    }

    async fn customer_says(&mut self, step: &'static str, text: &str) -> Result<(), DemoError> {
        let answer = self.api.log_message(self.channel, CUSTOMER, text).await;
        self.called(step, "/v1.0/log_message_from_user/", answer)
    }

    fn called<T>(&self, step: &'static str, route: &'static str, answer: Result<T, CallError>) -> Result<T, DemoError> {
        let answer = answer.map_err(|source| DemoError::Step { step, source })?;
        let _ = self.news.send(News::Called { route });
        Ok(answer)
    }

    /// Waits until all of this has happened, each by a fact of its own, in any order.
    async fn until(&mut self, step: &'static str, mut awaited: Vec<Awaited>) -> Result<(), DemoError> {
        let deadline = Instant::now() + self.patience;
        while !awaited.is_empty() {
            let Ok(Some(fact)) = timeout_at(deadline, self.facts.recv()).await else {
                let missing = awaited.into_iter().map(|(what, _)| what).collect();
                return Err(DemoError::Missing { step, patience: self.patience, missing });
            };
            if let Some(found) = awaited.iter().position(|(_, is_it)| is_it(&fact)) {
                drop(awaited.remove(found));
            }
        }
        Ok(())
    }
}

/// What is awaited, in words and as a test.
type Awaited = (&'static str, Box<dyn Fn(&Fact) -> bool + Send>);

fn turn(with_handoff: bool) -> Box<dyn Fn(&Fact) -> bool + Send> {
    Box::new(move |fact| *fact == Fact::Turn { handoff: with_handoff })
}

fn hook(awaited: &'static str) -> Box<dyn Fn(&Fact) -> bool + Send> {
    Box::new(move |fact| matches!(fact, Fact::Hook { topic } if topic == awaited))
}

fn channel(awaited: &'static str) -> Box<dyn Fn(&Fact) -> bool + Send> {
    Box::new(move |fact| matches!(fact, Fact::Channel { event } if event == awaited))
}

fn said(awaited: &'static str) -> Box<dyn Fn(&Fact) -> bool + Send> {
    Box::new(move |fact| matches!(fact, Fact::Message { sender } if sender == awaited))
}

fn state(awaited: &'static str, number: &'static str) -> Box<dyn Fn(&Fact) -> bool + Send> {
    Box::new(move |fact| matches!(fact, Fact::State { to, conversation } if to == awaited && conversation == number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_step_that_does_not_happen_is_named_with_what_is_missing() {
        let (api, (news, _reader), (told, facts)) =
            (Api::new("http://127.0.0.1:1"), mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let channel_side = Channel { client_id: "acme".into(), api_token: String::new(), business_id: 1 };
        let patience = Duration::from_millis(20);
        let mut story = Story { api: &api, channel: &channel_side, ect: "sprinkle", news: &news, facts, patience };

        told.send(Fact::Channel { event: "message".into() }).unwrap();
        told.send(Fact::Message { sender: "aeu".into() }).unwrap();
        let awaited = vec![
            ("one message", channel("message")),
            ("another message", channel("message")),
            ("the agent's words", said("aeu")),
        ];
        let error = story.until("4. The end", awaited).await.unwrap_err();
        assert_eq!(error.to_string(), "step \"4. The end\": not seen within 20ms: another message");
    }
}
