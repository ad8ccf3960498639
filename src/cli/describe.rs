//! `faas describe`: everything about one Function, for the person who wonders why it does what it does.

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
use crate::{
    function::{
        Function, FunctionKey,
        crd::{FunctionStatus, LastBuild, Source},
    },
    store::Manager,
};

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
    output::print(&render(&function, turns, &events, Timestamp::now()))
}

fn render(function: &Function, turns: Option<&Turns>, events: &[Event], now: Timestamp) -> String {
    let status = function.status.clone().unwrap_or_default();
    let mut text = facts(function, &status, now)
        .iter()
        .map(|(name, value)| format!("{name:<14}{value}\n"))
        .collect::<String>();
    if let Some(error) = turns.and_then(|turns| turns.last_error.as_deref()) {
        text += &format!("{:<14}{error}\n", "Last error:");
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
    status.last_build.map_or_else(
        || text.clone(),
        |build| text.clone() + &last_build(&build, now),
    )
}

/// What there is to say in one line each.
fn facts(
    function: &Function,
    status: &FunctionStatus,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let (metadata, spec) = (&function.metadata, &function.spec);
    let (scale, limits) = (&spec.scale, &spec.resources);
    let names = |list: Vec<String>| {
        if list.is_empty() {
            "none".to_owned()
        } else {
            list.join(", ")
        }
    };
    let mut facts = vec![
        ("Name:", metadata.name.clone().unwrap_or_default()),
        ("Namespace:", metadata.namespace.clone().unwrap_or_default()),
        ("Managed by:", Manager::of(function).to_string()),
        ("URL:", status.url.clone().unwrap_or_default()),
        (
            "Language:",
            spec.language
                .map_or_else(|| "none (a ready image)".to_owned(), |l| l.to_string()),
        ),
        ("Source:", source(&spec.source)),
        (
            "Image:",
            status
                .image
                .clone()
                .unwrap_or_else(|| "none yet".to_owned()),
        ),
        ("Revision:", revision(status)),
        (
            "Generation:",
            metadata.generation.unwrap_or_default().to_string(),
        ),
        (
            "Replicas:",
            format!("{} of {} ready", status.ready_replicas, status.replicas),
        ),
        (
            "Scale:",
            format!(
                "{} to {}, {} calls each, idle ones leave after {}s",
                scale.min, scale.max, scale.concurrency, scale.idle_after_seconds
            ),
        ),
        (
            "Limits:",
            format!(
                "cpu {}, memory {}, pids {}, tmp {}",
                limits.cpu, limits.memory, limits.pids, limits.tmp
            ),
        ),
        ("Network:", spec.network.to_string()),
        (
            "Timeouts:",
            format!(
                "{}s a call, {}s to start",
                spec.timeout_seconds, spec.startup_timeout_seconds
            ),
        ),
        (
            "Environment:",
            names(
                spec.env
                    .iter()
                    .map(|env| format!("{}={}", env.name, env.value))
                    .collect(),
            ),
        ),
        (
            "Secrets:",
            names(
                spec.secrets
                    .iter()
                    .map(|secret| secret.name.clone())
                    .collect(),
            ),
        ),
    ];
    if let Some(created) = &metadata.creation_timestamp {
        facts.insert(2, ("Created:", format!("{} ago", age(created.0, now))));
    }
    if let Some(deleted) = &metadata.deletion_timestamp {
        facts.insert(3, ("Deleting:", format!("since {}", age(deleted.0, now))));
    }
    facts
}

fn source(source: &Source) -> String {
    let Source {
        inline,
        directory,
        archive,
        image,
    } = source;
    let files = inline
        .as_ref()
        .map(|files| files.keys().cloned().collect::<Vec<_>>().join(", "));
    [
        ("inline", files.as_ref()),
        ("directory", directory.as_ref()),
        ("archive", archive.as_ref()),
        ("image", image.as_ref()),
    ]
    .into_iter()
    .find_map(|(kind, value)| value.map(|value| format!("{kind} {value}")))
    .unwrap_or_default()
}

fn revision(status: &FunctionStatus) -> String {
    match (&status.revision, &status.serving_revision) {
        (Some(newest), Some(serving)) if newest != serving => {
            format!("{newest} (calls still go to {serving})")
        }
        (Some(newest), Some(_)) => newest.clone(),
        (Some(newest), None) => format!("{newest} (does not serve yet)"),
        (None, Some(serving)) => format!("none yet (calls still go to {serving})"),
        (None, None) => "none yet".to_owned(),
    }
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
pub fn last_lines(log: &str, count: usize) -> String {
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
    }
}
