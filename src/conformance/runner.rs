//! Sends what is planned, as the router would, and makes the report.

use super::check::Check;
use super::findings::{self, Finding, Found};
use super::outcome::{Outcome, Problem};
use super::plan::{Case, Planned, Planner};
use super::report::{Line, Report};
use super::signing::Secrets;
use super::thread::Registered;
use crate::security::egress::{EgressClient, EgressFault, EgressRules, SendFault, UrlFault, check_url};
use crate::tenancy::{Secret, secrets::make_webhook_secret};
use futures_util::future::join_all;
use std::time::{Duration, Instant};
use tract_actors::ports::Clock;
use tract_domain::Timestamp;
use url::{Host, Url};
use uuid::Uuid;

/// The rules of a router under development. Whoever runs the kit chooses what it calls, so nobody is to be protected.
const OPEN: EgressRules = EgressRules { allow_private: true, allow_http: true };

/// How much of an answer is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A `Retry-After` up to here is waited for, in milliseconds; the router would do so up to an hour.
const MAX_WAIT_MS: u64 = 10_000;

/// How often one delivery is sent again because of `Retry-After`.
const MAX_BUSY: u32 = 3;

/// After so many deliveries without an answer the rest of a check would tell nothing new.
const UNANSWERED: usize = 2;

/// What is to be checked.
#[derive(Debug)]
pub struct Target {
    /// The endpoint.
    pub url: String,
    /// The secret that it verifies with; without it, no signature is judged.
    pub secret: Option<Secret>,
    /// How long it may take to answer; the router waits for 5 s.
    pub timeout: Duration,
    /// The hooks that it is registered for.
    pub hooks: Vec<Registered>,
}

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// The URL cannot be called.
    #[error("--url {0}")]
    Url(#[from] UrlFault),
    /// There is no client to call it with.
    #[error(transparent)]
    Client(#[from] EgressFault),
}

struct Runner<'a> {
    target: &'a Target,
    clock: &'a dyn Clock,
    http: EgressClient,
    secrets: Secrets,
    /// Of the deliveries that were meant to be taken.
    outcomes: Vec<Outcome>,
    deliveries: usize,
}

/// Runs all checks; `progress` is told the title of each as it begins.
pub async fn run(target: &Target, clock: &dyn Clock, progress: impl Fn(&str)) -> Result<Report, ConformanceError> {
    let url = check_url(&target.url, OPEN)?;
    // Without the endpoint's secret it is signed all the same, as the router always signs.
    let ours = target.secret.clone().unwrap_or_else(make_webhook_secret);
    let secrets = Secrets { ours, strangers: make_webhook_secret() };
    let http = EgressClient::new(OPEN, &[])?;
    let mut runner = Runner { target, clock, http, secrets, outcomes: Vec::new(), deliveries: 0 };
    let mut planner = Planner::new(Uuid::now_v7(), clock.now(), target.hooks.clone());
    let mut lines = Vec::new();
    let mut over: Option<String> = None;
    for check in Check::ALL {
        if let Some(because) = &over {
            lines.push(Line::not_checked(check, because.clone()));
            continue;
        }
        match check {
            Check::Url => lines.push(Line::new(check, insecure(&url), Vec::new())),
            Check::Rejections => lines.push(Line::new(check, findings::rejections(&runner.outcomes), Vec::new())),
            Check::Latency => lines.push(Line::new(check, findings::latency(&runner.outcomes).1, Vec::new())),
            Check::Signatures | Check::Rotation if target.secret.is_none() => {
                lines.push(Line::not_checked(check, "no --secret"));
            }
            _ => match planner.plan(check) {
                Some(planned) => {
                    progress(check.title());
                    let (line, end) = runner.check(planned, &mut planner).await;
                    lines.push(line);
                    over = end;
                }
                None => lines.push(Line::not_checked(check, "no --topic names a hook that is sent this")),
            },
        }
    }
    let latency = findings::latency(&runner.outcomes).0;
    Ok(Report::new(shown(&url), runner.deliveries, latency, lines))
}

impl Runner<'_> {
    /// Runs a check. Also: why no further check makes sense, if so.
    async fn check(&mut self, planned: Planned, planner: &mut Planner) -> (Line, Option<String>) {
        let Planned { check, cases, at_once } = planned;
        let mut observed: Vec<(Case, Outcome)> = Vec::new();
        if at_once {
            let outcomes = join_all(cases.iter().map(|case| self.deliver(case))).await;
            observed.extend(cases.into_iter().zip(outcomes));
        } else {
            for case in cases {
                let outcome = self.deliver(&case).await;
                observed.push((case, outcome));
                if unanswered(&observed) >= UNANSWERED {
                    break;
                }
            }
        }
        self.deliveries += observed.len();
        let ordinary = observed.iter().filter(|(case, _)| case.expect == super::plan::Expect::Taken);
        self.outcomes.extend(ordinary.map(|(_, outcome)| outcome.clone()));
        let Found { findings, notes } = findings::judge(check, &observed);
        let failed = findings.iter().any(|finding| finding.fails);
        let mut line = Line::new(check, findings, notes);
        if check == Check::Answers {
            if let Some((_, outcome)) = observed.first()
                && matches!(outcome.status, Some(401 | 403))
            {
                line.notes.push(self.unbelieved().to_owned());
            }
            return (line, failed.then(|| "it does not answer an ordinary delivery".to_owned()));
        }
        // What kept it from answering may have been the delivery, or may be the end of it.
        if unanswered(&observed) > 0 {
            let alive = self.deliver(&planner.ordinary("an ordinary delivery")).await;
            self.deliveries += 1;
            if !alive.answered() {
                return (line, Some(format!("since `{}` it answers nothing any more", check.name())));
            }
        }
        (line, None)
    }

    fn unbelieved(&self) -> &'static str {
        match self.target.secret {
            Some(_) => "It was signed with the secret that --secret gave: is that the one the endpoint verifies with?",
            None => {
                "If it verifies signatures, as it should, give its secret with --secret or TRACT_CONFORMANCE_SECRET."
            }
        }
    }

    /// Sends one delivery; again, if the endpoint asks for a little time, as the router would.
    async fn deliver(&self, case: &Case) -> Outcome {
        let mut busy = 0;
        loop {
            let (outcome, wait) = self.attempt(case).await;
            match wait.filter(|wait| *wait <= MAX_WAIT_MS && busy < MAX_BUSY) {
                Some(wait) => tokio::time::sleep(Duration::from_millis(wait)).await,
                None => return Outcome { busy, ..outcome },
            }
            busy += 1;
        }
    }

    async fn attempt(&self, case: &Case) -> (Outcome, Option<u64>) {
        let delivery = &case.delivery;
        let age = i64::try_from(delivery.age.as_millis()).unwrap_or_default();
        let at = Timestamp(self.clock.now().0 - age);
        let headers = self.secrets.headers(delivery.signing, &delivery.webhook_id, at, &delivery.body);
        let limit = delivery.hang_up.unwrap_or(self.target.timeout);
        let begin = Instant::now();
        let sent = match headers {
            Ok(headers) => self.http.post(&self.target.url, headers, delivery.body.clone(), limit, MAX_ANSWER).await,
            Err(_) => Err(SendFault::Unsignable),
        };
        let took = if matches!(sent, Err(SendFault::TimedOut)) { limit } else { begin.elapsed() };
        Outcome::judge(&sent, self.clock.now(), took)
    }
}

/// How many deliveries got no answer that somebody waited for.
fn unanswered(observed: &[(Case, Outcome)]) -> usize {
    observed.iter().filter(|(case, outcome)| case.delivery.hang_up.is_none() && !outcome.answered()).count()
}

/// What is wrong with the URL: routers refuse plain http, except where somebody develops.
fn insecure(url: &Url) -> Vec<Finding> {
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let detail = "plain http: the kit calls it, and so does a router under development; others refuse to register it";
    let plain = url.scheme() == "http" && !here;
    plain.then(|| Finding::warning(Problem::InsecureUrl, "the URL", detail)).into_iter().collect()
}

/// The URL without what may be secret in it.
fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine() {
        let warned = |url: &str| !insecure(&Url::parse(url).unwrap()).is_empty();
        for url in ["https://ect.example/", "http://localhost:9/", "http://127.0.0.1/", "http://[::1]/"] {
            assert!(!warned(url), "{url}");
        }
        assert!(warned("http://ect.example/") && warned("http://10.0.0.1/"));
    }

    #[test]
    fn a_query_is_not_shown() {
        let url = Url::parse("https://ect.example/hook?key=hush#x").unwrap();
        assert_eq!(shown(&url), "https://ect.example/hook");
    }
}
