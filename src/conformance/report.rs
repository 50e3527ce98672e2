//! The report: what an endpoint handles and what it does not, in plain words for people, and as JSON for programs.

use super::check::Check;
use super::findings::{Finding, Latency};
use super::outcome::Problem;
use serde::Serialize;
use std::fmt;

/// The width that prose is broken to, in characters.
const WIDTH: usize = 100;

/// Prose stands so far from the left.
const INDENT: &str = "        ";

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Ended {
    /// The endpoint handles it, perhaps with warnings.
    Passed,
    /// The endpoint handles it, but there is something to look at.
    Warned,
    /// The endpoint does not handle it.
    Failed,
    /// It was not checked.
    NotChecked {
        /// Why not.
        because: String,
    },
}

/// One check and what came of it.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Which check.
    pub check: Check,
    /// What an endpoint does that passes.
    pub title: &'static str,
    /// How it ended.
    #[serde(flatten)]
    pub ended: Ended,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is worth knowing.
    pub notes: Vec<String>,
    /// Why the router does this.
    pub why: &'static str,
    /// What is asked of the endpoint.
    pub demand: &'static str,
}

/// What was found about an endpoint.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The endpoint, without its query, which may hold a secret.
    pub url: String,
    /// Whether nothing failed. Warnings are allowed.
    pub passed: bool,
    /// How many deliveries were sent, repeats after `Retry-After` not counted.
    pub deliveries: usize,
    /// How long the answers took to those that were received.
    pub latency_ms: Option<Latency>,
    /// All checks, in order.
    pub checks: Vec<Line>,
}

impl Line {
    pub(super) fn new(check: Check, findings: Vec<Finding>, notes: Vec<String>) -> Self {
        let ended = match &findings[..] {
            [] => Ended::Passed,
            findings if findings.iter().any(|finding| finding.fails) => Ended::Failed,
            _ => Ended::Warned,
        };
        Self { check, title: check.title(), ended, findings, notes, why: check.why(), demand: check.demand() }
    }

    pub(super) fn not_checked(check: Check, because: impl Into<String>) -> Self {
        let ended = Ended::NotChecked { because: because.into() };
        Self { ended, ..Self::new(check, Vec::new(), Vec::new()) }
    }
}

impl Report {
    pub(super) fn new(url: String, deliveries: usize, latency_ms: Option<Latency>, checks: Vec<Line>) -> Self {
        let passed = checks.iter().all(|line| line.ended != Ended::Failed);
        Self { url, passed, deliveries, latency_ms, checks }
    }

    /// The checks that the endpoint fails.
    pub fn failed(&self) -> Vec<Check> {
        self.checks.iter().filter(|line| line.ended == Ended::Failed).map(|line| line.check).collect()
    }

    /// Why there was no connection at all, if there was none.
    pub fn unreachable(&self) -> Option<&str> {
        let answers = self.checks.iter().find(|line| line.check == Check::Answers)?;
        let found = answers.findings.iter().find(|finding| finding.problem == Problem::Unreachable);
        found.map(|finding| finding.detail.as_str())
    }

    fn count(&self, ended: impl Fn(&Ended) -> bool) -> usize {
        self.checks.iter().filter(|line| ended(&line.ended)).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The endpoint {}\n", self.url)?;
        for line in &self.checks {
            write!(f, "{line}")?;
        }
        let handled = self.count(|ended| matches!(ended, Ended::Passed | Ended::Warned));
        let warned = self.count(|ended| *ended == Ended::Warned);
        let failed = self.count(|ended| *ended == Ended::Failed);
        let rest = self.count(|ended| matches!(ended, Ended::NotChecked { .. }));
        writeln!(
            f,
            "\nIt handles {handled} (with warnings: {warned}), does not handle {failed}; not checked: {rest}."
        )?;
        write!(f, "{} deliveries", self.deliveries)?;
        match self.latency_ms {
            Some(Latency { p50, max }) => write!(f, ", answered within {p50} ms (half of them), {max} ms (all)."),
            None => f.write_str("."),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.check.name();
        match &self.ended {
            Ended::Passed => writeln!(f, "  ok    {name}: {}", self.title)?,
            Ended::Warned => writeln!(f, "  warn  {name}: {}", self.title)?,
            Ended::Failed => writeln!(f, "  FAIL  {name}: {}", self.title)?,
            Ended::NotChecked { because } => writeln!(f, "  ----  {name}: not checked: {because}")?,
        }
        for note in &self.notes {
            prose(f, "", note)?;
        }
        // What happened in several cases is told once.
        let alike = |one: &Finding, other: &Finding| one.fails == other.fails && one.detail == other.detail;
        for same in self.findings.chunk_by(alike) {
            let cases: Vec<_> = same.iter().map(|finding| finding.case.as_str()).collect();
            if let [finding, ..] = same {
                let mark = if finding.fails { "- " } else { "- warning: " };
                prose(f, mark, &format!("{}: {}.", cases.join("; "), finding.detail))?;
            }
        }
        if matches!(self.ended, Ended::Failed | Ended::Warned) {
            prose(f, "Why: ", self.why)?;
            prose(f, "Do:  ", self.demand)?;
        }
        Ok(())
    }
}

/// A paragraph, broken between words; what follows its first line stands under its first word.
fn prose(f: &mut fmt::Formatter<'_>, mark: &str, text: &str) -> fmt::Result {
    let mut column = INDENT.len() + mark.len();
    write!(f, "{INDENT}{mark}")?;
    let hang = if mark.starts_with('-') { 2 } else { mark.len() };
    for (index, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > WIDTH {
            write!(f, "\n{INDENT}{:hang$}", "")?;
            column = INDENT.len() + hang;
        } else if index > 0 {
            f.write_str(" ")?;
            column += 1;
        }
        f.write_str(word)?;
        column += length;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> Report {
        let conflict = Finding::failure(Problem::BadStatus, "message.receive, the second time", "answered 409");
        let slow = Finding::warning(Problem::Slow, "1 of 9 answers", "took more than 1 s");
        let checks = vec![
            Line::new(Check::Answers, Vec::new(), vec!["a note".to_owned()]),
            Line::new(Check::Duplicates, vec![conflict], Vec::new()),
            Line::not_checked(Check::Signatures, "no --secret"),
            Line::new(Check::Latency, vec![slow], Vec::new()),
        ];
        Report::new("http://ect.example/hook".to_owned(), 9, Some(Latency { p50: 3, max: 1200 }), checks)
    }

    #[test]
    fn people_read_what_is_wrong_why_it_matters_and_what_to_do() {
        let text = report().to_string();
        assert!(
            text.starts_with("The endpoint http://ect.example/hook\n\n  ok    answers: answers an ordinary"),
            "{text}"
        );
        assert!(text.contains("  FAIL  duplicates: takes the same delivery twice\n        - message.receive, the second time: answered 409.\n        Why: Delivery is at least once"), "{text}");
        assert!(text.contains("        Do:  Remember each `webhook-id`"), "{text}");
        assert!(text.contains("  ----  signatures: not checked: no --secret\n"), "{text}");
        assert!(text.contains("- warning: 1 of 9 answers: took more than 1 s."), "{text}");
        assert!(!text.contains(Check::Answers.why()), "what passes needs no explanation");
        let end = "\n\nIt handles 2 (with warnings: 1), does not handle 1; not checked: 1.\n\
                   9 deliveries, answered within 3 ms (half of them), 1200 ms (all).";
        assert!(text.ends_with(end), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn programs_read_the_same() {
        let report = report();
        assert_eq!((report.passed, report.failed()), (false, vec![Check::Duplicates]));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["passed"], &json["deliveries"]), (&json!(false), &json!(9)));
        assert_eq!(json["latency_ms"], json!({"p50": 3, "max": 1200}));
        assert_eq!(json["checks"][1]["check"], "duplicates");
        assert_eq!(json["checks"][1]["result"], "failed");
        let finding = json!({"fails": true, "problem": "bad_status", "case": "message.receive, the second time",
                             "detail": "answered 409"});
        assert_eq!(json["checks"][1]["findings"], json!([finding]));
        assert_eq!(json["checks"][2]["result"], "not_checked");
        assert_eq!(json["checks"][2]["because"], "no --secret");
        assert_eq!(json["checks"][3]["result"], "warned");
    }

    #[test]
    fn warnings_do_not_fail() {
        let line = Line::new(Check::Latency, vec![Finding::warning(Problem::Slow, "", "")], Vec::new());
        assert!(Report::new(String::new(), 1, None, vec![line]).passed);
    }

    #[test]
    fn every_check_has_a_name_of_its_own_and_says_why() {
        for check in Check::ALL {
            assert_eq!(serde_json::to_value(check).unwrap(), json!(check.name()));
            assert!([check.title(), check.why(), check.demand()].iter().all(|text| !text.is_empty()));
        }
    }
}
