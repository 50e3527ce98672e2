//! What an endpoint made of one delivery, as the router judges it.

use crate::security::egress::{Answer, SendFault};
use crate::webhook;
use serde::Serialize;
use std::time::Duration;
use tract_actors::ports::Attempt;
use tract_domain::Timestamp;

/// How much of an endpoint's own words is shown, in characters.
const MAX_SHOWN: usize = 200;

/// What kind of thing is wrong. The report's machine-readable half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// No connection.
    Unreachable,
    /// The connection broke before there was an answer.
    ConnectionBroke,
    /// No answer in time.
    TooSlow,
    /// A 3xx.
    Redirect,
    /// A 410.
    Gone,
    /// Another status that is no 2xx.
    BadStatus,
    /// Something forged was taken.
    NotVerified,
    /// A recording was taken.
    OldTaken,
    /// Something forged was refused, but not with a 4xx.
    OddRefusal,
    /// It asked to be left alone for a while.
    Busy,
    /// A 2xx with an `error`.
    Rejected,
    /// An answer in time, but slow.
    Slow,
    /// The URL is one that routers refuse.
    InsecureUrl,
}

/// What came of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How the router judges it.
    pub verdict: Verdict,
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
    /// How long it took.
    pub took: Duration,
    /// What the endpoint said, made fit to be shown.
    pub said: Option<String>,
    /// How often it had asked to be left alone before.
    pub busy: u32,
}

/// How the router judges an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was received.
    Received,
    /// It was received, and this was said against it.
    Rejected(String),
    /// It was not received.
    Failed(Problem),
}

impl Outcome {
    /// Judges as the deliveries of the router are judged. Also: the wait that `Retry-After` asks for, in milliseconds.
    pub(super) fn judge(sent: &Result<Answer, SendFault>, now: Timestamp, took: Duration) -> (Self, Option<u64>) {
        let (verdict, wait) = match webhook::judge(sent, now) {
            Attempt::Accepted => (Verdict::Received, None),
            Attempt::Rejected(error) => (Verdict::Rejected(error), None),
            Attempt::Failed { retry_after_ms, .. } => (Verdict::Failed(problem(sent)), retry_after_ms),
            _ => (Verdict::Failed(problem(sent)), None),
        };
        let answer = sent.as_ref().ok();
        let said = answer.and_then(|answer| answer.body.as_deref()).and_then(shown);
        (Self { verdict, status: answer.map(|answer| answer.status), took, said, busy: 0 }, wait)
    }

    /// Whether it was received.
    pub fn received(&self) -> bool {
        !matches!(self.verdict, Verdict::Failed(_))
    }

    /// Whether the endpoint answered at all.
    pub fn answered(&self) -> bool {
        self.status.is_some()
    }

    /// What happened, in plain words. The endpoint's own words come last.
    pub fn told(&self) -> String {
        let mut told = match (&self.verdict, self.status) {
            (Verdict::Failed(Problem::TooSlow), _) => format!("no answer within {}", brief(self.took)),
            (Verdict::Failed(Problem::Unreachable), _) => {
                "could not connect (nobody listens there, the name leads nowhere, or TLS failed)".to_owned()
            }
            (Verdict::Failed(Problem::Redirect), Some(status)) => {
                format!("answered {status}, a redirect: the router does not follow it. Register the URL it leads to")
            }
            (Verdict::Failed(Problem::Gone), _) => {
                "answered 410: for the router the endpoint is gone for good, and the hook is disabled at once"
                    .to_owned()
            }
            (_, Some(status)) => format!("answered {status}"),
            (_, None) => "the connection broke before an answer came".to_owned(),
        };
        if let Some(said) = &self.said {
            told.push_str(", saying: ");
            told.push_str(said);
        }
        told
    }
}

fn problem(sent: &Result<Answer, SendFault>) -> Problem {
    match sent {
        Err(SendFault::TimedOut | SendFault::HeldUp) => Problem::TooSlow,
        Err(SendFault::Broken) => Problem::ConnectionBroke,
        Err(_) => Problem::Unreachable,
        Ok(answer) => match answer.status {
            300..=399 => Problem::Redirect,
            410 => Problem::Gone,
            _ => Problem::BadStatus,
        },
    }
}

/// A duration for people: `12 ms`, `5 s`, `1.5 s`.
pub(super) fn brief(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..=999 => format!("{ms} ms"),
        _ if (ms + 50) % 1000 < 100 => format!("{} s", (ms + 50) / 1000),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// Whether a character moves a cursor, or turns the direction in which the others are read.
fn moves(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most [`MAX_SHOWN`] characters, all of which stand where they were written. None for a body that says nothing.
fn shown(body: &[u8]) -> Option<String> {
    let text: String = String::from_utf8_lossy(body).replace(moves, " ");
    let text = text.trim();
    let mut shown: String = text.chars().take(MAX_SHOWN).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.pop();
        shown.push('…');
    }
    (!matches!(&*shown, "" | "{}")).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u16, body: &str) -> Outcome {
        let answer = Answer { status, retry_after: None, body: Some(body.to_owned().into()) };
        Outcome::judge(&Ok(answer), Timestamp(0), Duration::from_millis(3)).0
    }

    #[test]
    fn answers_are_judged_as_the_router_judges_them() {
        assert_eq!(outcome(204, "").verdict, Verdict::Received);
        assert_eq!(outcome(200, r#"{"error": "no"}"#).verdict, Verdict::Rejected("no".to_owned()));
        for (status, problem) in [
            (301, Problem::Redirect),
            (308, Problem::Redirect),
            (401, Problem::BadStatus),
            (410, Problem::Gone),
            (500, Problem::BadStatus),
        ] {
            assert_eq!(outcome(status, "").verdict, Verdict::Failed(problem), "{status}");
        }
        for (fault, problem) in [
            (SendFault::TimedOut, Problem::TooSlow),
            (SendFault::Connect, Problem::Unreachable),
            (SendFault::Unresolvable, Problem::Unreachable),
            (SendFault::Broken, Problem::ConnectionBroke),
        ] {
            let judged = Outcome::judge(&Err(fault), Timestamp(0), Duration::from_secs(5)).0;
            assert_eq!(judged.verdict, Verdict::Failed(problem));
        }
    }

    #[test]
    fn no_more_than_200_harmless_characters_of_a_body_are_shown() {
        let told = outcome(500, &format!("\u{1b}[2J\r\n{}", "ü".repeat(5000))).told();
        assert!(told.starts_with("answered 500, saying: [2J  üü"), "{told}");
        assert!(told.ends_with("ü…") && told.matches('ü').count() == MAX_SHOWN - 6, "{told}");
        assert!(told.chars().all(|c| !c.is_control()));
        for nothing in [" \n", "{}", ""] {
            assert_eq!(outcome(500, nothing).told(), "answered 500");
        }
    }

    #[test]
    fn durations_are_brief() {
        for (ms, text) in [(0, "0 ms"), (999, "999 ms"), (1_540, "1.5 s"), (4_980, "5 s"), (5_003, "5 s")] {
            assert_eq!(brief(Duration::from_millis(ms)), text);
        }
    }
}
