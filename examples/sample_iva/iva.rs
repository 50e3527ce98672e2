//! A sample IVA: a bot as the router calls it (section 9 of the contract).
//!
//! The router posts each customer message here while the bot is in control, one at a time for each thread, and turns the
//! answer into messages, a hand-off, or the end of the conversation. What the contract asks of a bot:
//!
//! - check the signature before anything else;
//! - answer 200 within the configured time (30 s unless set otherwise), or 202 and answer later through `/tract/*` with
//!   a token of receiver `iva`; anything else, and an empty answer, is a *bot break*: the customer goes to an agent;
//! - give the same answer to the same `webhook-id`: after a crash the router asks again.

use super::webhook::{self, Fault, Recent, words};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// What the bot needs to know.
#[derive(Clone)]
pub struct Settings {
    /// `client.iva.secret` of the tenants file: what turns are signed with.
    pub secret: String,
    /// Who gets the customers that ask for a person: a receiver id. An unknown one would mean the client's hand-off receiver.
    pub colleague: String,
}

/// What happened, for whoever watches.
#[derive(Debug, Clone)]
pub enum Report {
    /// A turn came, genuine, and was answered.
    Turn {
        /// The thread.
        user_id: String,
        /// Names this turn for ever.
        webhook_id: String,
        /// It had been answered before, and got the same answer.
        again: bool,
        /// How many messages the answer holds.
        messages: usize,
        /// Whom it hands the customer to.
        handoff: Option<String>,
        /// It ends the conversation.
        complete: bool,
    },
    /// Something came that was not believed.
    Refused(Fault),
}

/// The bot's only route, `POST /turn`; serve it with `axum::serve`.
pub fn routes(settings: Settings, report: impl Fn(Report) + Send + Sync + 'static) -> Router {
    let bot = Bot { settings, report: Box::new(report), answers: Mutex::default() };
    Router::new().route("/turn", post(turn)).with_state(Arc::new(bot))
}

struct Bot {
    settings: Settings,
    report: Box<dyn Fn(Report) + Send + Sync>,
    answers: Mutex<Recent<Value>>,
}

async fn turn(State(bot): State<Arc<Bot>>, headers: HeaderMap, body: Bytes) -> Response {
    let webhook_id = match webhook::verify(&bot.settings.secret, &headers, &body, webhook::unix_now()) {
        Ok(id) => id,
        Err(fault) => {
            (bot.report)(Report::Refused(fault));
            return (StatusCode::UNAUTHORIZED, fault.to_string()).into_response();
        }
    };
    let Ok(turn) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };

    let mut answers = bot.answers.lock().unwrap_or_else(PoisonError::into_inner);
    let known = answers.get(&webhook_id).cloned();
    let again = known.is_some();
    let answer = known.unwrap_or_else(|| bot.answer(&turn));
    answers.put(webhook_id.clone(), answer.clone());
    drop(answers);

    (bot.report)(Report::Turn {
        user_id: turn["user"]["user_id"].as_str().unwrap_or_default().to_owned(),
        webhook_id,
        again,
        messages: answer["response"].as_array().map_or(0, Vec::len),
        handoff: answer["callback_ops"]["tract_atc"]["receiver"].as_str().map(str::to_owned),
        complete: answer["complete"] == true,
    });
    Json(answer).into_response()
}

impl Bot {
    /// The bot's whole wit. A real one asks its language model here.
    fn answer(&self, turn: &Value) -> Value {
        let said = words(&turn["message"]["body"]).to_lowercase();
        let heard = |candidates: &[&str]| candidates.iter().any(|word| said.contains(word));

        // `conversation_details` come back with each turn of the same conversation, so the bot itself can be stateless.
        // They are flat, and at most 500 characters together with `user_details`.
        let turns = turn["conversation_details"]["turns"].as_u64().unwrap_or(0) + 1;
        let mut answer = json!({"status": true, "conversation_details": {"turns": turns}});

        if heard(&["break"]) {
            // An empty response without a hand-off: a bot break. The router does what the client's settings say.
            answer["status"] = false.into();
            answer["response"] = json!([]);
        } else if heard(&["person", "human", "agent", "someone"]) {
            answer["response"] = json!(["Of course. I will get you a colleague, one moment please."]);
            // The words above reach the customer first; then the thread belongs to that receiver.
            answer["callback_ops"] = json!({"tract_atc": {"receiver": self.settings.colleague}});
        } else if heard(&["bye", "that is all"]) {
            answer["response"] = json!(["Thank you for talking to me. Goodbye!"]);
            answer["complete"] = true.into();
        } else if heard(&["open", "hours"]) {
            answer["response"] = json!(["We are open every day from 9 to 18."]);
        } else {
            // Several messages, in this order; text or HSL objects as each of them needs.
            answer["response"] = json!([
                "Hello! I am the bot of Acme Shop.",
                {
                    "text": "Ask me for our opening hours, or for a person.",
                    "type": "TEXT",
                    "data": {"quick_replies": [quick_reply("Opening hours"), quick_reply("A person, please")]}
                }
            ]);
        }
        answer
    }
}

fn quick_reply(text: &str) -> Value {
    json!({"actionable_text": text, "type": "TEXT_ONLY", "is_default": false, "payload": {"message": text}})
}
