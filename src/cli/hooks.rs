//! `tract hooks`: endpoints and their dead letters, through the admin API.

use super::{Failure, admin::Router, block_on, print};
use clap::Subcommand;
use serde_json::{Map, Value, json};

/// What to do with hooks.
#[derive(Debug, clap::Args)]
pub(super) struct Hooks {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List hooks, channel webhooks and bots, and how they fare
    #[command(after_help = "Example:\n  tract hooks list --client acme")]
    List {
        /// Only those of this client
        #[arg(long, value_name = "ID")]
        client: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Enable an endpoint again; what was kept for it is sent, in order
    #[command(after_help = "Example:\n  tract hooks enable hook:acme:sprinkle:message:receive")]
    Enable {
        /// The endpoint, as `tract hooks list` names it
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
        #[command(flatten)]
        how: How,
    },
    /// List deliveries that were given up; they are kept for 7 days
    #[command(after_help = "Example:\n  tract hooks dead-letters --client acme --limit 20")]
    DeadLetters {
        /// Only those of this client
        #[arg(long, value_name = "ID")]
        client: Option<String>,
        /// Only those of this endpoint
        #[arg(long, value_name = "ENDPOINT", conflicts_with = "client")]
        endpoint: Option<String>,
        /// How many at most, 1 to 500
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u16,
        /// Where the page before ended
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Send dead letters again, and print how many
    #[command(
        after_help = "Example:\n  tract hooks replay --endpoint hook:acme:sprinkle:message:receive --since 2026-07-25T17:20:00Z"
    )]
    Replay {
        /// Those of this client
        #[arg(long, value_name = "ID")]
        client: Option<String>,
        /// Those of this endpoint
        #[arg(long, value_name = "ENDPOINT", conflicts_with = "client")]
        endpoint: Option<String>,
        /// The one with this id
        #[arg(long, value_name = "ID", required_unless_present = "since", conflicts_with = "since")]
        webhook_id: Option<String>,
        /// All that were given up at or after this time
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, clap::Args)]
struct How {
    /// Print the router's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    router: Router,
}

impl Hooks {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.what {
            What::List { client, how } => {
                let query = [("client_id", client)];
                let answer = block_on(how.router.get::<Value>("hooks", &given(&query)))??;
                let columns =
                    ["endpoint", "enabled", "breaker", "pending", "dead_letters", "last_success_at", "last_error"];
                how.show(&answer, table(&answer["hooks"], &columns))
            }
            What::Enable { endpoint, how } => {
                let answer = block_on(how.router.post::<Value>("hooks/enable", &json!({"endpoint": endpoint})))??;
                how.show(&answer, vec![format!("{endpoint} is enabled")])
            }
            What::DeadLetters { client, endpoint, limit, cursor, how } => {
                let query = [
                    ("client_id", client),
                    ("endpoint", endpoint),
                    ("limit", Some(limit.to_string())),
                    ("cursor", cursor),
                ];
                let answer = block_on(how.router.get::<Value>("dead_letters", &given(&query)))??;
                let columns = ["webhook_id", "endpoint", "user_id", "created_at", "ended_at"];
                let mut lines = table(&answer["dead_letters"], &columns);
                if let Some(next) = answer["next"].as_str() {
                    eprintln!("tract: there are more; go on with --cursor {next}");
                }
                for (line, letter) in
                    lines.iter_mut().skip(1).zip(answer["dead_letters"].as_array().into_iter().flatten())
                {
                    let last = letter["attempts"].as_array().and_then(|all| all.last());
                    let error = last.and_then(|attempt| attempt["error"].as_str()).unwrap_or("-");
                    *line = format!("{line}  {error}");
                }
                how.show(&answer, lines)
            }
            What::Replay { client, endpoint, webhook_id, since, how } => {
                let fields =
                    [("client_id", client), ("endpoint", endpoint), ("webhook_id", webhook_id), ("since", since)];
                let body: Map<String, Value> =
                    given(&fields).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
                let answer = block_on(how.router.post::<Value>("dead_letters/replay", &body))??;
                how.show(&answer, vec![answer["replayed"].to_string()])
            }
        }
    }
}

impl How {
    fn show(&self, answer: &Value, lines: Vec<String>) -> Result<(), Failure> {
        if self.json { print([answer]) } else { print(lines) }
    }
}

/// Those parameters that were given.
fn given<'a>(parameters: &'a [(&'static str, Option<String>)]) -> Vec<(&'static str, &'a str)> {
    parameters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect()
}

/// Rows under their names, aligned for reading.
fn table(rows: &Value, columns: &[&str]) -> Vec<String> {
    let cell = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut cells: Vec<Vec<String>> = vec![columns.iter().map(|name| name.to_uppercase()).collect()];
    cells.extend(
        rows.as_array().into_iter().flatten().map(|row| columns.iter().map(|name| cell(&row[*name])).collect()),
    );
    let width = |n: usize| cells.iter().map(|row| row[n].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(text, width)| format!("{text:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    cells.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = json!([{"endpoint": "iva:acme", "pending": 12}, {"endpoint": "channel:acme:343", "last": "x"}]);
        assert_eq!(
            table(&rows, &["endpoint", "pending", "last"]),
            ["ENDPOINT          PENDING  LAST", "iva:acme          12       -", "channel:acme:343  -        x"]
        );
        assert_eq!(table(&json!([]), &["endpoint"]), ["ENDPOINT"]);
    }
}
