//! `faas status`: the reconcile loop, function by function.

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    ServerArgs,
    age::{age, duration},
    client::Client,
    error::CliError,
    list::ready,
    output::{self, Format},
    report::{Report, Turns},
    table::Table,
    watch::{self, View},
};

/// What was typed after `faas status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// How to print it
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    /// Show it again whenever something changes
    #[arg(short, long)]
    watch: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// Prints the loop's state.
pub async fn run(args: &StatusArgs) -> Result<(), CliError> {
    let client = args.server.client()?;
    watch::show(args.watch, async || view(args, &client).await).await
}

async fn view(args: &StatusArgs, client: &Client) -> Result<View, CliError> {
    let status: Value = client.status().await?;
    let essence = status.to_string();
    let text = match args.output {
        Some(format) => output::document(&status, format),
        None => render(
            &Report::new(status, client.server())?,
            client.server(),
            Timestamp::now(),
        ),
    };
    Ok(View {
        text,
        essence,
        table: args.output.is_none(),
    })
}

fn render(report: &Report, server: &str, now: Timestamp) -> String {
    let mut text = head(report, server);
    if !report.functions.is_empty() {
        let header = [
            "NAME",
            "READY",
            "REASON",
            "GENERATION",
            "INSTANCES",
            "TURNS",
            "LAST",
            "NEXT",
            "ERROR",
        ];
        let mut table = Table::new(header);
        for function in &report.functions {
            table.row(cells(function, now));
        }
        text.push('\n');
        text.push_str(&table.render(""));
    }
    text + &report.problem_lines()
}

fn head(report: &Report, server: &str) -> String {
    let engine = &report.turns.engine;
    let reachable = match &engine.error {
        _ if engine.reachable => "reachable".to_owned(),
        Some(error) => format!("AWAY: {error}"),
        None => "AWAY".to_owned(),
    };
    let store = report.turns.store.error.as_ref();
    let store = store.map(|error| format!("Store:    OLD: {error}\n"));
    format!(
        "Server:   {server}, faas {}, runtime {}\nEngine:   {reachable}\n{}Queue:    {} waiting for a turn, {} being built, {} waiting to be built\n",
        report.server.version,
        report.server.runtime,
        store.unwrap_or_default(),
        report.turns.queue,
        report.turns.building,
        report.turns.queued_builds,
    )
}

fn cells(function: &Turns, now: Timestamp) -> [String; 9] {
    let name = match function.namespace.as_str() {
        crate::function::DEFAULT_NAMESPACE => function.name.clone(),
        namespace => format!("{namespace}/{}", function.name),
    };
    let (status, reason, message) = ready(&function.conditions);
    let error = match function.trouble() {
        Some(trouble) => trouble,
        None if status == "True" => String::new(),
        None => message,
    };
    let last = function
        .last_turn
        .map(|time| age(time, now))
        .unwrap_or_default();
    let next = function
        .next_turn
        .map(|time| duration((time.as_second() - now.as_second()).max(0)));
    let instances = function.instances.len().to_string();
    let turns = function.count.to_string();
    [
        name,
        status,
        reason,
        generations(function),
        instances,
        turns,
        last,
        next.unwrap_or_default(),
        error,
    ]
}

/// `3`, or `2 of 3` while the newest generation has not had its turn.
fn generations(function: &Turns) -> String {
    let newest = function.generation.unwrap_or_default();
    match function.observed_generation {
        Some(observed) if observed == newest => newest.to_string(),
        observed => format!("{} of {newest}", observed.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_loop_is_told_in_a_few_lines() {
        let report = json!({
            "server": {"version": "1", "runtime": "docker"},
            "loop": {"queue": 1, "building": 2, "queuedBuilds": 3, "engine": {"reachable": false, "error": "gone"},
                "store": {"fresh": false, "error": "a watch is silent"}},
            "problems": [{"file": "a.yaml", "line": 1, "message": "bad"}],
            "functions": [{
                "name": "sum", "namespace": "team", "generation": 3, "observedGeneration": 2, "turns": 5, "attempts": 1,
                "lastTurn": "2026-01-01T00:00:00Z", "nextTurn": "2026-01-01T00:00:40Z", "lastError": "disk full",
                "conditions": [], "instances": [],
            }, {
                "name": "boom", "namespace": "default", "generation": 1, "observedGeneration": 1, "turns": 5, "attempts": 0,
                "conditions": [], "instances": [], "failures": [{"message": "instance i exited with code 1", "attempts": 2}],
            }],
        });
        let report = Report::new(report, "s").unwrap();
        let text = render(&report, "http://s", "2026-01-01T00:00:10Z".parse().unwrap());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "Engine:   AWAY: gone");
        assert_eq!(lines[2], "Store:    OLD: a watch is silent");
        assert_eq!(
            lines[3],
            "Queue:    1 waiting for a turn, 2 being built, 3 waiting to be built"
        );
        let cells: Vec<_> = lines[6]
            .split("   ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        assert_eq!(
            cells,
            [
                "team/sum",
                "Unknown",
                "-",
                "2 of 3",
                "0",
                "5",
                "10s",
                "30s",
                "disk full (attempt 1)"
            ]
        );
        assert!(lines[7].ends_with("instance i exited with code 1 (attempt 2)"));
        assert_eq!(lines.last(), Some(&"  a.yaml:1: bad"));
    }
}
