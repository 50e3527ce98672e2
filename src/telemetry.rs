//! Logs and metrics (section 11). What is logged and counted never contains bodies, tokens or secrets.

mod lines;

use lines::{Line, SpanFields};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// From half a millisecond to the 30 s of an IVA's turn, so that no histogram becomes a summary.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// From a commit to the webhook's answer: fine where a healthy endpoint is, up to the 5 s that an answer may take, and on to
/// an hour for what waited in a backlog.
const DELIVERY_SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0, 300.0, 1800.0, 3600.0];
/// How often recorded samples are folded into buckets, also when nobody scrapes; until then each takes memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why there are no logs or metrics.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryFault {
    /// Somebody else logs already.
    #[error("logging is set up already")]
    Logging(#[from] tracing_subscriber::util::TryInitError),
    /// Somebody else counts already, or a bucket is no number.
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] BuildError),
}

/// Lines that may wait until they are written; what is logged beyond them is lost. Some megabytes.
const LINES: usize = 16_384;

/// Bytes of lines that are written at once. A pipe takes so many in one piece (`PIPE_BUF`), so that what else is written to
/// stderr stands between lines and not within one.
const AT_ONCE: usize = 4096;

/// How long the thread rests when it has written all there was: it is woken once for all lines that come meanwhile.
const PAUSE: Duration = Duration::from_millis(10);

/// Lines that were lost because too many waited.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Keeps the log going: when it is dropped, what waits is written.
#[derive(Debug)]
#[must_use]
pub struct Logging {
    _worker: WorkerGuard,
}

/// Sends one line for each event to stderr: for people on a terminal, else JSON. `RUST_LOG` chooses what;
/// `usual` is meant without it. A thread of its own writes them, so that nobody waits for whoever reads them.
pub fn log(usual: &str) -> Result<Logging, TelemetryFault> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let stderr = Unfailing(BufWriter::with_capacity(AT_ONCE, io::stderr()));
    let lines = NonBlockingBuilder::default().buffered_lines_limit(LINES).thread_name("log");
    let (writer, worker) = lines.finish(stderr);
    let lost = writer.error_counter();
    if io::stderr().is_terminal() {
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
        lines.log_internal_errors(false).with_target(false).finish().try_init()?;
    } else {
        in_json(writer, filter).try_init()?;
    }
    // Set once: whoever logs already was refused above.
    let _ = LOST.set(lost);
    Ok(Logging { _worker: worker })
}

/// What cannot be written is lost: there is nowhere to complain about it, and the next line may fit again. Rests after each
/// flush, which the log's thread makes when nothing waits any more.
struct Unfailing<W>(W);

impl<W: Write> Write for Unfailing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.0.write(bytes).unwrap_or(bytes.len()))
    }
    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

/// One JSON object on each line.
fn in_json<W>(writer: W, filter: EnvFilter) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    lines.fmt_fields(SpanFields).event_format(Line).finish()
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full("tract_delivery_seconds".to_owned()), &DELIVERY_SECONDS)
}

/// Collects metrics for the whole process; what `/metrics` renders comes out of the handle.
pub fn collect() -> Result<PrometheusHandle, TelemetryFault> {
    let handle = builder()?.install_recorder()?;
    describe();
    begin();
    Ok(handle)
}

/// A handle of its own, which collects nothing by itself: for tests that run several routers in one process.
pub fn detached() -> Result<PrometheusHandle, TelemetryFault> {
    Ok(builder()?.build_recorder().handle())
}

/// Folds samples until it is dropped; without it memory grows when nobody scrapes.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut every = tokio::time::interval(UPKEEP);
    loop {
        every.tick().await;
        handle.run_upkeep();
    }
}

/// Counts the lines of the log that are lost by now.
pub fn count_lost_lines() {
    if let Some(lost) = LOST.get() {
        counter!("tract_log_lines_lost_total").absolute(lost.dropped_lines() as u64);
    }
}

/// What happens seldom is there from the start, at zero: a query for its rate then sees the first time as well.
fn begin() {
    for name in [
        "tract_http_requests_in_flight",
        "tract_http_connections",
        "tract_jobs_in_flight",
        "tract_mailbox_jobs",
        "tract_live_actors",
    ] {
        gauge!(name).increment(0.0);
    }
    for name in [
        "tract_overloaded_total",
        "tract_commit_conflicts_total",
        "tract_delivery_retries_total",
        "tract_endpoints_disabled_total",
        "tract_actor_restarts_total",
        "tract_log_lines_lost_total",
    ] {
        counter!(name).increment(0);
    }
    for result in ["accepted", "rejected", "postponed", "failed", "gone", "dead"] {
        counter!("tract_deliveries_total", "result" => result).increment(0);
    }
    for action in ["pass", "take", "request", "offer", "decline", "expire"] {
        counter!("tract_control_changes_total", "action" => action).increment(0);
    }
}

fn describe() {
    describe_counter!("tract_http_requests_total", "Requests by method, route template and status.");
    describe_histogram!("tract_http_request_seconds", Unit::Seconds, "How long requests took.");
    describe_gauge!("tract_http_requests_in_flight", "Requests being answered now.");
    describe_gauge!("tract_jobs_in_flight", "Commands, turns and timers of threads that are not answered yet.");
    describe_gauge!("tract_mailbox_jobs", "Those of them that still wait in a mailbox.");
    describe_gauge!("tract_live_actors", "Threads that an actor holds in memory.");
    describe_histogram!("tract_commit_seconds", Unit::Seconds, "How long commits on threads took.");
    describe_gauge!("tract_outbox_pending", "Deliveries that wait, by kind of endpoint, at the time of the scrape.");
    describe_gauge!("tract_outbox_oldest_age_seconds", Unit::Seconds, "How long the oldest of them has waited.");
    describe_gauge!("tract_breakers_open", "Endpoints that only get probes from this node, by kind.");
    describe_gauge!("tract_dead_letters", "Dead letters that are kept, by kind of endpoint.");
    describe_histogram!(
        "tract_delivery_seconds",
        Unit::Seconds,
        "From the commit to the end of a successful first attempt."
    );
    describe_counter!("tract_endpoints_disabled_total", "How often an endpoint was disabled.");
    describe_counter!("tract_deliveries_total", "Attempts at deliveries by what came of them.");
    describe_counter!("tract_delivery_retries_total", "Attempts that were not the first.");
    describe_counter!("tract_overloaded_total", "Commands that were refused because too many were in flight.");
    describe_counter!(
        "tract_commit_conflicts_total",
        "Commits that were decided again because another one came first."
    );
    describe_counter!("tract_actor_restarts_total", "Actors that failed and were started afresh.");
    describe_counter!("tract_log_lines_lost_total", "Lines of the log that nobody took in time.");
    describe_counter!("tract_feedback_total", "Feedback of customers by rating and whether they were helped.");
    describe_counter!("tract_control_changes_total", "Control changes by what happened.");
    describe_counter!(
        "tract_signed_requests_total",
        "Signed requests by result: accepted, or the code of the refusal."
    );
    describe_counter!("tract_files_total", "Files of customers that were kept, by kind.");
    describe_counter!("tract_file_bytes_total", Unit::Bytes, "Bytes of them, by kind.");
    describe_counter!("tract_retention_files_total", "Files that left with the messages that name them.");
    describe_gauge!("tract_http_connections", "Connections that are open now.");
    describe_gauge!(
        "tract_conversations",
        "Conversations by state, as counted in the store at the time of the scrape."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::histogram!("tract_http_request_seconds", "route" => "/x").record(0.003);
        });
        let text = handle.render();
        assert!(text.contains("# TYPE tract_http_request_seconds histogram"), "{text}");
        assert!(text.contains(r#"tract_http_request_seconds_bucket{route="/x",le="0.005"} 1"#), "{text}");
    }
}
