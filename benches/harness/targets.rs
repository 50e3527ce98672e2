//! What the figures are to reach, and whether they do.

use serde_json::{Value, json};
use std::process::ExitCode;

/// The verdicts of a run.
#[derive(Default)]
pub(crate) struct Targets(Vec<Value>);

impl Targets {
    /// Judges a figure that may be at most so much. One that was not measured fails.
    pub(crate) fn at_most(&mut self, what: &str, figure: f64, most: f64, unit: &str) {
        let met = figure <= most;
        let verdict = if met { "PASS" } else { "FAIL" };
        println!("{verdict} {what}: {figure:.2} {unit}, at most {most} {unit}");
        let figure = Some(figure).filter(|figure| figure.is_finite());
        self.0.push(json!({"target": what, "figure": figure, "at_most": most, "unit": unit, "met": met}));
    }

    pub(crate) fn json(&self) -> Value {
        self.0.clone().into()
    }

    /// Of the process: a failure if a target was missed.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.0.iter().any(|target| target["met"] == false) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
