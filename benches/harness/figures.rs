//! Figures by name: of a run, as medians over rounds, as ratios within a run; as a table and as JSON.

use super::{drive::Run, median};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};

/// What is shown of a run: the name in JSON, the heading, decimals.
const COLUMNS: [(&str, &str, usize); 9] = [
    ("rate_per_s", "done/s", 0),
    ("p50_ms", "p50 ms", 2),
    ("p90_ms", "p90 ms", 2),
    ("p99_ms", "p99 ms", 2),
    ("p999_ms", "p99.9 ms", 2),
    ("max_ms", "max ms", 1),
    ("cpu_us", "server CPU µs each", 1),
    ("redis_cpu_us", "Redis CPU µs each", 1),
    ("resident_mib", "resident MiB", 1),
];

/// Figures that are counts of trouble: no ratio means anything, and over rounds they add up.
const COUNTS: [&str; 2] = ["failed", "unsent"];

/// Figures by name; the unit is the end of the name.
#[derive(Clone, Default)]
pub(crate) struct Figures(pub(crate) BTreeMap<&'static str, f64>);

impl Figures {
    /// Of a run, without what it cost the server.
    pub(crate) fn of(run: &Run) -> Self {
        let ms = |us: u64| us as f64 / 1e3;
        let at = |share: f64| ms(run.latency.value_at_quantile(share));
        Self(BTreeMap::from([
            ("answered", run.latency.len() as f64),
            ("rate_per_s", run.latency.len() as f64 / run.elapsed.as_secs_f64()),
            ("p50_ms", at(0.5)),
            ("p90_ms", at(0.9)),
            ("p99_ms", at(0.99)),
            ("p999_ms", at(0.999)),
            ("max_ms", ms(run.latency.max())),
            ("late_p99_ms", ms(run.late.value_at_quantile(0.99))),
            ("failed", run.failed as f64),
            ("unsent", run.unsent as f64),
        ]))
    }

    /// Adds CPU time, as so much for each answered request.
    pub(crate) fn with_cpu(mut self, name: &'static str, used: Duration) -> Self {
        let answered = self.get("answered").max(1.0);
        self.0.insert(name, used.as_secs_f64() * 1e6 / answered);
        self
    }

    pub(crate) fn with(mut self, name: &'static str, value: f64) -> Self {
        self.0.insert(name, value);
        self
    }

    /// Not a number if there is none of that name.
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(f64::NAN)
    }

    /// Each figure's median over the rounds; counts of trouble are added up.
    pub(crate) fn medians(rounds: &[Self]) -> Self {
        let Some(first) = rounds.first() else { return Self::default() };
        let of = |name: &str| {
            let values: Vec<f64> = rounds.iter().map(|round| round.get(name)).collect();
            if COUNTS.contains(&name) { values.iter().sum() } else { median(values) }
        };
        Self(first.0.keys().map(|name| (*name, of(name))).collect())
    }

    /// Each figure over that of the same round of something else: the medians of these ratios.
    pub(crate) fn ratios(rounds: &[Self], base: &[Self]) -> Self {
        let (Some(first), Some(other)) = (rounds.first(), base.first()) else { return Self::default() };
        let names = first.0.keys().filter(|name| other.0.contains_key(*name) && !COUNTS.contains(name));
        let of = |name: &str| median(rounds.iter().zip(base).map(|(a, b)| a.get(name) / b.get(name)).collect());
        Self(names.map(|name| (*name, of(name))).filter(|(_, ratio)| ratio.is_finite()).collect())
    }

    pub(crate) fn json(&self) -> Value {
        let rounded = |value: f64| Value::from((value * 1e4).round() / 1e4);
        self.0.iter().map(|(name, value)| ((*name).to_owned(), rounded(*value))).collect::<Map<_, _>>().into()
    }
}

/// A table in Markdown, which can also be read as it is.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { rows: vec![headings.into_iter().map(Into::into).collect()] }
    }

    /// For what is said of runs; the first columns say which.
    pub(crate) fn of_runs<'a>(which: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(which.into_iter().chain(COLUMNS.iter().map(|(_, heading, _)| *heading)).chain(["failed, unsent"]))
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Ratios alone.
    pub(crate) fn ratios<'a>(&mut self, which: impl IntoIterator<Item = &'a str>, of: &Figures) {
        let mut cells: Vec<String> = which.into_iter().map(str::to_owned).collect();
        cells.extend(COLUMNS.iter().map(|(name, ..)| match of.get(name) {
            ratio if ratio.is_nan() => String::new(),
            ratio => format!("{ratio:.3}x"),
        }));
        cells.push(String::new());
        self.rows.push(cells);
    }

    /// One run's medians, with their ratios if there are any.
    pub(crate) fn run<'a>(&mut self, which: impl IntoIterator<Item = &'a str>, of: &Figures, ratios: Option<&Figures>) {
        let mut cells: Vec<String> = which.into_iter().map(str::to_owned).collect();
        for (name, _, decimals) in COLUMNS {
            let value = of.get(name);
            let ratio = ratios.map_or(f64::NAN, |ratios| ratios.get(name));
            cells.push(match (value.is_nan(), ratio.is_nan()) {
                (true, _) => String::new(),
                (false, true) => format!("{value:.decimals$}"),
                (false, false) => format!("{value:.decimals$} ({ratio:.2}x)"),
            });
        }
        cells.push(format!("{}, {}", of.get("failed"), of.get("unsent")));
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A column that nothing was measured for is left out.
        let used = |column: &usize| self.rows.iter().skip(1).any(|row| row.get(*column).is_some_and(|c| !c.is_empty()));
        let columns: Vec<usize> = (0..self.rows[0].len()).filter(used).collect();
        let width = |c: &usize| self.rows.iter().map(|row| row[*c].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = columns.iter().map(width).collect();
        for (n, row) in self.rows.iter().enumerate() {
            for (column, width) in columns.iter().zip(&widths) {
                write!(f, "| {:>width$} ", row[*column])?;
            }
            writeln!(f, "|")?;
            if n == 0 {
                widths.iter().try_for_each(|width| write!(f, "|{:->width$}:", "", width = width + 1))?;
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}
