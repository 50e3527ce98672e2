//! What the outcomes of a check say about the endpoint. Pure: outcomes in, findings out.

use super::check::Check;
use super::outcome::{Outcome, Problem, Verdict, brief};
use super::plan::{Case, Expect};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Answers that take longer are worth a warning.
const SLOW: Duration = Duration::from_secs(1);

/// How many different complaints of an endpoint are shown.
const COMPLAINTS: usize = 3;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether the endpoint fails by it; otherwise it is a warning.
    pub fails: bool,
    /// What kind of thing it is.
    pub problem: Problem,
    /// What was sent, or what it is about.
    pub case: String,
    /// What happened.
    pub detail: String,
}

impl Finding {
    pub(super) fn failure(problem: Problem, case: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { fails: true, problem, case: case.into(), detail: detail.into() }
    }
    pub(super) fn warning(problem: Problem, case: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { fails: false, ..Self::failure(problem, case, detail) }
    }
}

/// What a check found, and what is worth telling besides.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

/// Judges the cases of one check.
pub(super) fn judge(check: Check, observed: &[(Case, Outcome)]) -> Found {
    let mut found = Found::default();
    for (case, outcome) in observed {
        if let Some(finding) = taken(case, outcome) {
            found.findings.push(finding);
        }
    }
    match check {
        Check::Signatures => signatures(observed, &mut found),
        Check::Concurrency => {
            let slowest = observed.iter().map(|(_, outcome)| outcome.took).max().unwrap_or_default();
            found.notes.push(format!("the slowest of {} took {}", observed.len(), brief(slowest)));
        }
        _ => {}
    }
    // One line for each different thing: 32 times the same is no more than once.
    let mut same: Vec<(Finding, usize)> = Vec::new();
    for finding in found.findings {
        let key = |f: &Finding| (f.fails, f.problem, f.detail.clone());
        match same.iter_mut().find(|(other, _)| key(other) == key(&finding)) {
            Some((_, count)) if check == Check::Concurrency => *count += 1,
            _ => same.push((finding, 1)),
        }
    }
    let counted = same.into_iter().map(|(finding, count)| match count {
        1 => finding,
        _ => Finding { case: format!("{count} of {} at once", observed.len()), ..finding },
    });
    found.findings = counted.collect();
    found
}

/// What is wrong with a delivery that should have been taken.
fn taken(case: &Case, outcome: &Outcome) -> Option<Finding> {
    if !matches!(case.expect, Expect::Taken | Expect::Welcome) {
        return None;
    }
    if let Verdict::Failed(problem) = outcome.verdict {
        if case.expect == Expect::Welcome {
            let told = format!(
                "{}: deliveries arrive all the same, but a test of the hook says that it fails",
                outcome.told()
            );
            return Some(Finding::warning(problem, &case.label, told));
        }
        return Some(Finding::failure(problem, &case.label, outcome.told()));
    }
    let asked = format!("took it after it had asked {} times to come later; the router honours that", outcome.busy);
    (outcome.busy > 0).then(|| Finding::warning(Problem::Busy, &case.label, asked))
}

fn signatures(observed: &[(Case, Outcome)], found: &mut Found) {
    let with = |expect| observed.iter().filter(move |(case, _)| case.expect == expect);
    let believed = |expect| with(expect).any(|(_, outcome)| outcome.verdict == Verdict::Received);
    let (standard, hub) = (believed(Expect::TellsStandard), believed(Expect::TellsHub));
    let forged = believed(Expect::Refused);

    for (case, outcome) in with(Expect::Refused) {
        let told = outcome.told();
        let taken = format!("{told}: it was taken for genuine. Anybody who knows the URL can write to your tool");
        found.findings.extend(refusal(case, outcome, Finding::failure(Problem::NotVerified, &case.label, taken)));
    }
    for (case, outcome) in with(Expect::RefusedAsOld) {
        // Who does not look at signatures cannot look at the time.
        if forged && outcome.received() {
            continue;
        }
        let told = outcome.told();
        let finding = if hub {
            let detail = format!(
                "{told}: X-Hub-Signature proves neither time nor id, so whoever records a delivery can send it again. \
                 Verify webhook-signature and webhook-timestamp as well"
            );
            Finding::warning(Problem::OldTaken, &case.label, detail)
        } else {
            let detail = format!(
                "{told}: whoever records a delivery can send it again. Refuse a webhook-timestamp that is more than 5 \
                 minutes off"
            );
            Finding::failure(Problem::OldTaken, &case.label, detail)
        };
        found.findings.extend(refusal(case, outcome, finding));
    }
    // Whether these are believed is the endpoint's choice; that they are answered is not.
    for (case, outcome) in observed {
        if matches!(case.expect, Expect::TellsStandard | Expect::TellsHub) && !outcome.received() {
            let nothing = Finding::failure(Problem::NotVerified, &case.label, "");
            found.findings.extend(refusal(case, outcome, nothing));
        }
    }
    if !forged {
        found.notes.push(
            match (standard, hub) {
                (true, true) => "either of webhook-signature and X-Hub-Signature is enough for it",
                (true, false) => "it verifies webhook-signature",
                (false, true) => "it verifies X-Hub-Signature",
                (false, false) => "it verifies webhook-signature and X-Hub-Signature, both",
            }
            .to_owned(),
        );
    }
}

/// What is wrong with how something was refused, if it was; else the finding for what was taken.
fn refusal(case: &Case, outcome: &Outcome, taken: Finding) -> Option<Finding> {
    let told = outcome.told();
    let odd = |advice: &str| Some(Finding::warning(Problem::OddRefusal, &case.label, format!("{told}: {advice}")));
    match (&outcome.verdict, outcome.status) {
        (Verdict::Received, _) => Some(taken),
        (Verdict::Rejected(_), _) => {
            odd("refused, but a 2xx says that it was received: a wrong secret would go unnoticed")
        }
        (Verdict::Failed(Problem::Gone), _) => {
            odd("refused, but with a wrong secret your hook would be disabled at once")
        }
        (Verdict::Failed(Problem::BadStatus), Some(400..=499)) => None,
        (Verdict::Failed(_), Some(_)) => odd("refused, but 401 would say why"),
        (Verdict::Failed(problem), None) => Some(Finding::failure(*problem, &case.label, told)),
    }
}

/// What was said against deliveries in 2xx answers.
pub(super) fn rejections(outcomes: &[Outcome]) -> Vec<Finding> {
    let mut complaints: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes {
        if let Verdict::Rejected(error) = &outcome.verdict {
            *complaints.entry(error).or_default() += 1;
        }
    }
    let mut complaints: Vec<_> = complaints.into_iter().collect();
    complaints.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown = complaints.into_iter().take(COMPLAINTS);
    let told = shown.map(|(error, count)| {
        let case = format!("{count} of {} deliveries", outcomes.len());
        Finding::warning(Problem::Rejected, case, format!("received, but rejected with the error: {error}"))
    });
    told.collect()
}

/// How long answers took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50: u128,
    /// The slowest.
    pub max: u128,
}

/// How long the deliveries took that were received; none if none was.
pub(super) fn latency(outcomes: &[Outcome]) -> (Option<Latency>, Vec<Finding>) {
    let mut took: Vec<_> = outcomes.iter().filter(|o| o.received()).map(|outcome| outcome.took).collect();
    took.sort_unstable();
    let (Some(p50), Some(max)) = (took.get(took.len().saturating_sub(1) / 2), took.last()) else {
        return (None, Vec::new());
    };
    let slow = took.iter().filter(|took| **took > SLOW).count();
    let warning = (slow > 0).then(|| {
        let detail = format!("took more than {} (the slowest {})", brief(SLOW), brief(*max));
        Finding::warning(Problem::Slow, format!("{slow} of {} answers", took.len()), detail)
    });
    (Some(Latency { p50: p50.as_millis(), max: max.as_millis() }), warning.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::super::plan::Planner;
    use super::super::thread::Registered;
    use super::*;
    use tract_domain::Timestamp;
    use uuid::Uuid;

    fn outcome(status: u16) -> Outcome {
        let verdict = match status {
            200 => Verdict::Received,
            410 => Verdict::Failed(Problem::Gone),
            _ => Verdict::Failed(Problem::BadStatus),
        };
        Outcome { verdict, status: Some(status), took: Duration::from_millis(3), said: None, busy: 0 }
    }

    /// What is found when an endpoint answers what it is sent like this.
    fn found(check: Check, answer: impl Fn(&Case) -> Outcome) -> Found {
        let mut planner = Planner::new(Uuid::nil(), Timestamp(1_785_000_000_000), Registered::all());
        let cases = planner.plan(check).unwrap().cases;
        let observed: Vec<_> = cases.into_iter().map(|case| (case.clone(), answer(&case))).collect();
        judge(check, &observed)
    }

    fn problems(found: &Found) -> Vec<(bool, Problem)> {
        found.findings.iter().map(|finding| (finding.fails, finding.problem)).collect()
    }

    /// An endpoint that believes what this says.
    fn verifier(believes: impl Fn(Expect) -> bool) -> Found {
        found(Check::Signatures, |case| outcome(if believes(case.expect) { 200 } else { 401 }))
    }

    #[test]
    fn who_verifies_is_told_what_it_verifies() {
        for (believed, note) in [
            (&[][..], "it verifies webhook-signature and X-Hub-Signature, both"),
            (&[Expect::TellsStandard], "it verifies webhook-signature"),
        ] {
            let found = verifier(|expect| believed.contains(&expect));
            assert_eq!((problems(&found), found.notes), (vec![], vec![note.to_owned()]));
        }
        // The published scheme cannot tell an old delivery: a warning, since it was all there was.
        let hub = verifier(|expect| matches!(expect, Expect::TellsHub | Expect::RefusedAsOld));
        assert_eq!(problems(&hub), [(false, Problem::OldTaken)]);
        assert_eq!(hub.notes, ["it verifies X-Hub-Signature"]);
    }

    #[test]
    fn who_does_not_verify_fails() {
        let nobody = verifier(|_| true);
        assert_eq!(problems(&nobody), [(true, Problem::NotVerified); 3]);
        assert!(nobody.findings[0].detail.contains("Anybody who knows the URL"), "{nobody:?}");
        let timeless = verifier(|expect| matches!(expect, Expect::TellsStandard | Expect::RefusedAsOld));
        assert_eq!(problems(&timeless), [(true, Problem::OldTaken)]);
    }

    #[test]
    fn odd_refusals_are_warnings() {
        for status in [302, 410, 500] {
            let found =
                found(Check::Signatures, |case| outcome(if case.expect == Expect::Refused { status } else { 401 }));
            assert_eq!(problems(&found), [(false, Problem::OddRefusal); 3], "{status}");
        }
        let silent = Outcome { verdict: Verdict::Failed(Problem::TooSlow), status: None, ..outcome(200) };
        let found = found(Check::Signatures, |_| silent.clone());
        assert!(found.findings.iter().all(|f| f.fails && f.problem == Problem::TooSlow), "{found:?}");
    }

    #[test]
    fn what_should_be_taken_and_is_not_fails() {
        let conflict = found(Check::Duplicates, |case| outcome(if case.label.contains("second") { 409 } else { 200 }));
        assert_eq!(problems(&conflict), [(true, Problem::BadStatus); 3]);
        assert_eq!(conflict.findings[0].case, "message.receive, the second time");
        // Nobody waits for the answer to an attempt at which the router hung up.
        let cut = Outcome { verdict: Verdict::Failed(Problem::TooSlow), status: None, ..outcome(200) };
        let found =
            found(Check::Retries, |case| if case.expect == Expect::Whatever { cut.clone() } else { outcome(200) });
        assert!(found.findings.is_empty(), "{found:?}");
    }

    #[test]
    fn a_ping_that_is_not_taken_is_a_warning() {
        let found = found(Check::Topics, |case| outcome(if case.label.contains("ping") { 400 } else { 200 }));
        assert_eq!(problems(&found), [(false, Problem::BadStatus)]);
    }

    #[test]
    fn the_same_fault_at_once_is_told_once() {
        let found = found(Check::Concurrency, |_| outcome(500));
        assert_eq!(found.findings.len(), 1);
        assert_eq!(found.findings[0].case, "32 of 32 at once");
    }

    #[test]
    fn asking_for_time_is_a_warning() {
        let busy = Outcome { busy: 2, ..outcome(200) };
        assert_eq!(problems(&found(Check::Answers, |_| busy.clone())), [(false, Problem::Busy)]);
    }

    #[test]
    fn rejections_are_counted_and_shown() {
        let rejected = |text: &str| Outcome { verdict: Verdict::Rejected(text.to_owned()), ..outcome(200) };
        let outcomes = [rejected("no such user"), outcome(200), rejected("no such user"), rejected("closed")];
        let found = rejections(&outcomes);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].case, "2 of 4 deliveries");
        assert!(!found[0].fails && found[0].detail.contains("no such user"));
        assert!(rejections(&[outcome(200)]).is_empty());
    }

    #[test]
    fn latency_is_of_what_was_received() {
        let took = |ms| Outcome { took: Duration::from_millis(ms), ..outcome(200) };
        let failed = Outcome { took: Duration::from_secs(4), ..outcome(500) };
        let (figures, findings) = latency(&[took(9), took(1), failed.clone(), took(5)]);
        assert_eq!((figures, findings.len()), (Some(Latency { p50: 5, max: 9 }), 0));
        let (figures, findings) = latency(&[took(1500), took(1)]);
        assert_eq!(figures, Some(Latency { p50: 1, max: 1500 }));
        assert!(!findings[0].fails && findings[0].case == "1 of 2 answers", "{findings:?}");
        assert_eq!(latency(&[failed]).0, None);
    }
}
