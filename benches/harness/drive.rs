//! The generator of load, open and closed loop.
//!
//! Open loop: every request has a time at which it is due, whatever became of those before it, and its latency counts
//! from then. A server that stalls for a second is charged for every request that was due in that second.

use super::wire::{Call, Connection, Place};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Latencies are kept from 1 µs to this, to three digits.
const LONGEST_US: u64 = 120_000_000;

/// Consecutive requests are so many calls apart, so that all threads are visited, but not one after the other. A prime.
const STRIDE: u64 = 7919;

/// What is asked of whom.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) place: Place,
    pub(crate) calls: Arc<[Call]>,
    /// Connections that are open at a time; each has one request under way.
    pub(crate) connections: usize,
    /// Goes on from run to run, so that a run does not visit what the last one did.
    visited: Arc<AtomicU64>,
}

/// How fast, and for how long.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection sends its next request when it has the answer to the last: as many as the server can take.
    Closed(Duration),
    /// So many a second, evenly, for so long.
    Open(f64, Duration),
    /// Every call once, as in a closed loop.
    EachOnce,
}

/// What came of it.
pub(crate) struct Run {
    /// Latencies of what was answered with success, in µs.
    pub(crate) latency: Histogram<u64>,
    /// How long after it was due each request was sent, in µs: what connections (or this machine) were too busy for.
    pub(crate) late: Histogram<u64>,
    /// Answered otherwise, or not at all.
    pub(crate) failed: u64,
    /// The first of these.
    pub(crate) fault: Option<String>,
    /// Due, but not sent, because the server was too far behind.
    pub(crate) unsent: u64,
    /// Until the last answer.
    pub(crate) elapsed: Duration,
}

impl Load {
    pub(crate) fn new(place: Place, calls: Vec<Call>, connections: usize) -> Self {
        assert!(!calls.is_empty(), "nothing to ask");
        Self { place, calls: calls.into(), connections, visited: Arc::default() }
    }

    /// The same, of another server.
    pub(crate) fn at(&self, place: Place) -> Self {
        Self { place, visited: Arc::default(), ..self.clone() }
    }

    /// A share of the same load for another server: together they visit all threads in turn.
    pub(crate) fn shared_with(&self, place: Place, connections: usize) -> Self {
        Self { place, connections, ..self.clone() }
    }

    /// Drives the server at this pace. `what` is shown on a terminal meanwhile.
    pub(crate) async fn drive(&self, pace: Pace, what: &str) -> Run {
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            connections.push(Connection::open(&self.place).await.expect("the server can be connected to"));
        }
        let schedule = Arc::new(Schedule::of(pace, self.calls.len(), self.connections));
        let bar = bar(pace, self.calls.len(), what);
        let working = connections
            .into_iter()
            .map(|connection| tokio::spawn(work(connection, self.clone(), Arc::clone(&schedule), bar.clone())));
        let working: Vec<_> = working.collect();
        let mut run = Run::new();
        for worker in working {
            run.add(&worker.await.unwrap());
        }
        run.unsent = schedule.count.saturating_sub(run.latency.len() + run.failed);
        if matches!(pace, Pace::Closed(_)) {
            run.unsent = 0;
        }
        bar.finish_and_clear();
        run
    }
}

impl Run {
    fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).unwrap();
        Self { latency: histogram(), late: histogram(), failed: 0, fault: None, unsent: 0, elapsed: Duration::ZERO }
    }

    /// Several runs at the same time, as one.
    pub(crate) fn of_all(runs: Vec<Self>) -> Self {
        let mut all = Self::new();
        runs.iter().for_each(|run| all.add(run));
        all
    }

    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency).unwrap();
        self.late.add(&other.late).unwrap();
        self.failed += other.failed;
        self.elapsed = self.elapsed.max(other.elapsed);
        if self.fault.is_none() {
            self.fault.clone_from(&other.fault);
        }
    }
}

fn us(of: Duration) -> u64 {
    u64::try_from(of.as_micros()).unwrap_or(LONGEST_US)
}

/// Whose turn it is.
struct Schedule {
    begun: Instant,
    next: AtomicU64,
    /// How many there are in all.
    count: u64,
    until: Instant,
    /// Open loop: the time between two, and a permit for each that is due.
    open: Option<(Duration, Arc<Semaphore>)>,
    in_order: bool,
}

impl Schedule {
    fn of(pace: Pace, calls: usize, connections: usize) -> Self {
        let begun = Instant::now();
        let (count, until, in_order) = match pace {
            Pace::Closed(lasting) => (u64::MAX, begun + lasting, false),
            // A server that cannot keep up is not waited for without end.
            Pace::Open(rate, lasting) => {
                ((rate * lasting.as_secs_f64()).round() as u64, begun + lasting * 2 + Duration::from_secs(5), false)
            }
            Pace::EachOnce => (calls as u64, begun + Duration::from_secs(3600), true),
        };
        let open = match pace {
            Pace::Open(rate, _) => {
                let (each, due) = (Duration::from_secs_f64(1.0 / rate), Arc::new(Semaphore::new(0)));
                let releasing = Arc::clone(&due);
                std::thread::spawn(move || release(&releasing, begun, each, count, connections));
                Some((each, due))
            }
            Pace::Closed(_) | Pace::EachOnce => None,
        };
        Self { begun, next: AtomicU64::new(0), count, until, open, in_order }
    }

    /// The number of the next request, and when it was due, once it is.
    async fn turn(&self) -> Option<(u64, Option<Instant>)> {
        if let Some((_, due)) = &self.open {
            due.acquire().await.ok()?.forget();
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.count || Instant::now() >= self.until {
            return None;
        }
        Some((number, self.open.as_ref().map(|(each, _)| self.begun + each.mul_f64(number as f64))))
    }
}

/// Gives a permit for each request when it is due; in the end one to each connection, so that it sees the end. On a
/// thread of its own: the runtime's timers count in milliseconds.
fn release(due: &Semaphore, begun: Instant, each: Duration, count: u64, connections: usize) {
    let mut released = 0;
    while released < count {
        let until_now = (begun.elapsed().as_secs_f64() / each.as_secs_f64()) as u64 + 1;
        let now = until_now.min(count) - released;
        due.add_permits(now as usize);
        released += now;
        let next = begun + each.mul_f64(released as f64);
        std::thread::sleep(next.saturating_duration_since(Instant::now()).max(Duration::from_micros(50)));
    }
    due.add_permits(connections);
}

async fn work(mut connection: Connection, load: Load, schedule: Arc<Schedule>, bar: ProgressBar) -> Run {
    let mut run = Run::new();
    while let Some((number, due)) = schedule.turn().await {
        let at = if schedule.in_order { number } else { load.visited.fetch_add(STRIDE, Ordering::Relaxed) };
        let call = &load.calls[(at % load.calls.len() as u64) as usize];
        let sent = Instant::now();
        let due = due.unwrap_or(sent);
        let answer = connection.call(call).await;
        match answer {
            Ok((status, _)) if status.is_success() => {
                run.latency.saturating_record(us(due.elapsed()).max(1));
                run.late.saturating_record(us(sent.saturating_duration_since(due)).max(1));
            }
            failure => {
                run.failed += 1;
                run.fault.get_or_insert_with(|| match failure {
                    Ok((status, body)) => format!("{status} {}", String::from_utf8_lossy(&body)),
                    Err(error) => error.to_string(),
                });
            }
        }
        bar.inc(1);
    }
    run.elapsed = schedule.begun.elapsed();
    run
}

/// Shows nothing unless stderr is a terminal.
fn bar(pace: Pace, calls: usize, what: &str) -> ProgressBar {
    let (bar, style) = match pace {
        Pace::Closed(_) => (ProgressBar::no_length(), "{spinner} {msg}: {pos} in {elapsed} ({per_sec})"),
        Pace::Open(rate, lasting) => {
            let count = (rate * lasting.as_secs_f64()) as u64;
            (ProgressBar::new(count), "{bar:30} {msg}: {pos} of {len} ({per_sec})")
        }
        Pace::EachOnce => (ProgressBar::new(calls as u64), "{bar:30} {msg}: {pos} of {len} ({per_sec})"),
    };
    bar.with_style(ProgressStyle::with_template(style).unwrap()).with_message(what.to_owned())
}
