//! `tract conformance`

use super::{Failure, block_on, print};
use crate::clock::SystemClock;
use crate::conformance::{self, Check, ConformanceError, Registered, Report, Target};
use crate::reading::milliseconds;
use crate::tenancy::Secret;
use crate::tenancy::secrets::{SecretFault, webhook_secret};
use std::{convert::Infallible, time::Duration};

#[derive(Debug, clap::Args)]
pub(super) struct Conformance {
    /// The endpoint. Plain http and private addresses are fine here: you choose what is called
    #[arg(long, value_name = "URL")]
    url: String,
    /// The hooks' secret that the endpoint verifies with; without it, signatures are not checked
    #[arg(long, env = "TRACT_CONFORMANCE_SECRET", hide_env_values = true, value_parser = secret)]
    secret: Option<Secret>,
    /// A hook that this URL is registered for, such as message.receive; may be repeated [default: all of them]
    #[arg(long = "topic", value_name = "TOPIC", value_parser = topic)]
    topics: Vec<Registered>,
    /// How long the endpoint may take to answer; the router waits for 5s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = timeout)]
    timeout: Duration,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConformanceFailure {
    #[error(transparent)]
    NotRun(#[from] ConformanceError),
    #[error("--secret {0}")]
    Secret(#[from] SecretFault),
    #[error("cannot reach the endpoint: {0}")]
    Unreachable(String),
    #[error("the endpoint does not handle: {0}")]
    Failed(String),
}

/// Taken over as it is: what clap refuses, it shows.
fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

fn topic(text: &str) -> Result<Registered, String> {
    let known = || Registered::all().iter().map(Registered::name).collect::<Vec<_>>().join(", ");
    Registered::parse(text).ok_or_else(|| format!("must be one of {}", known()))
}

fn timeout(text: &str) -> Result<Duration, &'static str> {
    match milliseconds(text) {
        Ok(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("must be a duration such as 500ms or 5s"),
    }
}

impl Conformance {
    pub(super) fn run(self) -> Result<(), Failure> {
        let json = self.json;
        let target = self.target()?;
        let report = block_on(conformance::run(&target, &SystemClock, |title| eprintln!("checking that it {title}")))?;
        let report = report.map_err(ConformanceFailure::from)?;
        if json {
            print([serde_json::to_string_pretty(&report).map_err(|error| Failure::Output(error.into()))?])?;
        } else {
            print([&report])?;
        }
        Ok(judged(&report)?)
    }

    fn target(self) -> Result<Target, ConformanceFailure> {
        let secret = self.secret.map(|secret| webhook_secret(secret.expose())).transpose()?;
        let hooks = if self.topics.is_empty() { Registered::all() } else { self.topics };
        Ok(Target { url: self.url, secret, timeout: self.timeout, hooks })
    }
}

fn judged(report: &Report) -> Result<(), ConformanceFailure> {
    if report.passed {
        return Ok(());
    }
    if let Some(why) = report.unreachable() {
        return Err(ConformanceFailure::Unreachable(why.to_owned()));
    }
    let failed: Vec<_> = report.failed().into_iter().map(Check::name).collect();
    Err(ConformanceFailure::Failed(failed.join(", ")))
}
