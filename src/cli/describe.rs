//! `faas describe`: everything about one Function, for the person who wonders why it does what it does.

mod facts;

use clap::Args;
use jiff::Timestamp;

use super::{
    ServerArgs,
    age::age,
    client::Event,
    error::CliError,
    output::{self, Format},
    report::{Report, Turns},
    table::Table,
};
use crate::function::{
    FILE, Function, FunctionKey,
    crd::{FunctionStatus, LastBuild},
};
use crate::text::plain;

/// Lines of the last build's log that are shown.
const LOG_LINES: usize = 15;

/// What was typed after `faas describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// The function, as NAME or NAME.NAMESPACE
    name: FunctionKey,

    /// Print the object itself instead
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    #[command(flatten)]
    server: ServerArgs,
}

/// Prints the description.
pub async fn run(args: &DescribeArgs) -> Result<(), CliError> {
    let client = args.server.client()?;
    let function = client.get(&args.name).await?;
    if let Some(format) = args.output {
        return output::print(&output::document(&function, format));
    }
    let events = client.events(&args.name).await?;
    let report = Report::new(client.status().await?, client.server())?;
    let is_this =
        |turns: &&Turns| turns.name == args.name.name() && turns.namespace == args.name.namespace();
    let turns = report.functions.iter().find(is_this);
    let annotations = function.metadata.annotations.as_ref();
    let problems = annotations
        .and_then(|annotations| annotations.get(FILE))
        .map(|file| report.problem_lines_of(file));
    let problems = problems.unwrap_or_default();
    let now = Timestamp::now();
    output::print(&render(&function, turns, &problems, &events, now))
}

fn render(
    function: &Function,
    turns: Option<&Turns>,
    problems: &str,
    events: &[Event],
    now: Timestamp,
) -> String {
    let status = function.status.clone().unwrap_or_default();
    let mut text = facts::facts(function, &status, now);
    text += problems;
    if let Some(error) = turns.and_then(Turns::trouble) {
        text += &facts::line("Last error:", &error);
    }
    text += "Conditions:\n";
    text += &conditions(&status, now);
    if let Some(turns) = turns.filter(|turns| !turns.instances.is_empty()) {
        text += "Instances:\n";
        text += &turns.instances("  ");
    }
    if !events.is_empty() {
        text += "Events:\n";
        text += &event_table(events, now);
    }
    let build = status.last_build.map(|build| last_build(&build, now));
    text + &build.unwrap_or_default()
}

fn conditions(status: &FunctionStatus, now: Timestamp) -> String {
    let mut table = Table::new(["TYPE", "STATUS", "REASON", "AGE", "MESSAGE"]);
    for c in &status.conditions {
        let since = age(c.last_transition_time.0, now);
        table.row([
            c.type_.clone(),
            c.status.clone(),
            c.reason.clone(),
            since,
            c.message.clone(),
        ]);
    }
    table.render("  ")
}

fn event_table(events: &[Event], now: Timestamp) -> String {
    let mut table = Table::new(["AGE", "TYPE", "REASON", "TIMES", "MESSAGE"]);
    for event in events {
        let Event {
            time,
            kind,
            reason,
            message,
            count,
        } = event;
        table.row([
            age(*time, now),
            kind.clone(),
            reason.clone(),
            count.to_string(),
            message.clone(),
        ]);
    }
    table.render("  ")
}

fn last_build(build: &LastBuild, now: Timestamp) -> String {
    let began = age(build.start_time.0, now);
    let took = match build.duration_seconds {
        Some(seconds) => format!("took {seconds}s"),
        None => "still runs".to_owned(),
    };
    let tail = build
        .log_tail
        .as_deref()
        .map(|tail| last_lines(tail, LOG_LINES))
        .unwrap_or_default();
    format!("Last build:\n  began {began} ago, {took}\n{tail}")
}

/// The last lines of a log, indented.
fn last_lines(log: &str, count: usize) -> String {
    let log = plain(log);
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| format!("  | {line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_description_has_all_parts() {
        let function: Function = serde_json::from_value(json!({
            "apiVersion": "faas.dev/v1alpha1", "kind": "Function",
            "metadata": {"name": "sum", "namespace": "team", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"language": "node", "source": {"inline": {"b.js": "", "a.js": ""}}, "env": [{"name": "A", "value": "1"}]},
            "status": {
                "revision": "new", "servingRevision": "old",
                "lastBuild": {"startTime": "2026-01-01T00:00:00Z", "durationSeconds": 3, "logTail": "one\ntwo\n"},
                "conditions": [{"type": "Ready", "status": "False", "reason": "BuildFailed", "message": "no\nway",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        }))
        .unwrap();
        let event = Event {
            time: "2026-01-01T00:00:20Z".parse().unwrap(),
            kind: "Warning".into(),
            reason: "BuildFailed".into(),
            message: "no".into(),
            count: 2,
        };
        let text = render(
            &function,
            None,
            "Problems",
            &[event],
            "2026-01-01T00:01:00Z".parse().unwrap(),
        );
        for line in [
            "Name:         sum",
            "Created:      60s ago",
            "Source:       inline a.js, b.js",
            "Revision:     new (calls still go to old)",
            "Environment:  A=1",
            "  Ready   False    BuildFailed   60s   no ...",
            "  40s   Warning   BuildFailed   2       no",
            "  began 60s ago, took 3s",
            "  | two",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line:?} is not in\n{text}"
            );
        }
    }

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        assert_eq!(last_lines("a\nb\nc", 2), "  | b\n  | c\n");
        assert_eq!(last_lines("", 2), "");
        assert_eq!(last_lines("\u{1b}[91mred\u{1b}[0m", 2), "  | red\n");
    }
}
