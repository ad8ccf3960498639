//! `faas list`: the Functions, with the columns that `kubectl get fn` has.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    ServerArgs,
    age::age,
    client::{Client, FunctionList},
    error::CliError,
    output::{self, Format},
    report::Report,
    table::Table,
    watch::{self, View},
};
use crate::function::{DEFAULT_NAMESPACE, Function, FunctionKey};

/// What was typed after `faas list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// How to print them
    #[arg(short, long, value_enum)]
    output: Option<Shape>,

    /// Show them again whenever something changes
    #[arg(short, long)]
    watch: bool,

    /// Those of this namespace
    #[arg(short, long, default_value = DEFAULT_NAMESPACE, value_parser = namespace)]
    namespace: String,

    /// Those of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shape {
    Json,
    Yaml,
    /// The table with more columns
    Wide,
}

fn namespace(text: &str) -> Result<String, String> {
    FunctionKey::new(text, "name")
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Prints the Functions.
pub async fn run(args: &ListArgs) -> Result<(), CliError> {
    let client = args.server.client()?;
    watch::show(args.watch, async || view(args, &client).await).await
}

async fn view(args: &ListArgs, client: &Client) -> Result<View, CliError> {
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let list = client.list(namespace).await?;
    let essence = output::document(&list, Format::Json);
    let text = match args.output {
        Some(Shape::Json) => essence.clone(),
        Some(Shape::Yaml) => output::document(&list, Format::Yaml),
        shape => {
            let columns = Columns {
                namespace: args.all_namespaces,
                wide: shape == Some(Shape::Wide),
            };
            let problems = Report::new(client.status().await?, client.server())?.problem_lines();
            let text = table(&list, columns, Timestamp::now(), namespace) + &problems;
            return Ok(View {
                text,
                essence: essence + &problems,
                table: true,
            });
        }
    };
    Ok(View {
        text,
        essence,
        table: false,
    })
}

/// Which columns there are beside the usual ones.
#[derive(Clone, Copy)]
struct Columns {
    namespace: bool,
    wide: bool,
}

fn table(list: &FunctionList, columns: Columns, now: Timestamp, namespace: Option<&str>) -> String {
    if list.items.is_empty() {
        let place = namespace
            .map(|n| format!(" in namespace {n} (-A shows all)"))
            .unwrap_or_default();
        return format!(
            "There are no functions{place}. Deploy one with `faas build` or `faas apply -f`.\n"
        );
    }
    let mut header = vec!["NAME", "READY", "REASON", "REPLICAS", "URL", "AGE"];
    if columns.namespace {
        header.insert(0, "NAMESPACE");
    }
    if columns.wide {
        header.extend(["LANGUAGE", "IMAGE", "REVISION", "MESSAGE"]);
    }
    let mut table = Table::new(header);
    for function in &list.items {
        table.row(cells(function, columns, now));
    }
    table.render("")
}

fn cells(function: &Function, columns: Columns, now: Timestamp) -> Vec<String> {
    let metadata = &function.metadata;
    let status = function.status.clone().unwrap_or_default();
    let (ready, reason, message) = ready(&status.conditions);
    let reason = if metadata.deletion_timestamp.is_some() {
        "Deleting".to_owned()
    } else {
        reason
    };
    let created = metadata
        .creation_timestamp
        .as_ref()
        .map(|time| age(time.0, now));
    let name = metadata.name.clone().unwrap_or_default();
    let replicas = status.replicas.to_string();
    let mut cells = vec![
        name,
        ready,
        reason,
        replicas,
        status.url.unwrap_or_default(),
        created.unwrap_or_default(),
    ];
    if columns.namespace {
        cells.insert(0, metadata.namespace.clone().unwrap_or_default());
    }
    if columns.wide {
        let language = function.spec.language.map(|language| language.to_string());
        let more = [language, status.image, status.revision, Some(message)];
        cells.extend(more.map(Option::unwrap_or_default));
    }
    cells
}

/// Status, reason and message of `Ready`; `Unknown` before the first turn.
pub fn ready(conditions: &[Condition]) -> (String, String, String) {
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready");
    ready.map_or_else(
        || ("Unknown".to_owned(), String::new(), String::new()),
        |c| (c.status.clone(), c.reason.clone(), c.message.clone()),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(items: &serde_json::Value) -> FunctionList {
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "List", "items": items})).unwrap()
    }

    fn sum() -> serde_json::Value {
        json!({
            "apiVersion": "faas.dev/v1alpha1", "kind": "Function",
            "metadata": {"name": "sum", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"language": "node", "source": {"inline": {"index.js": ""}}},
            "status": {
                "url": "http://h/functions/sum", "replicas": 2, "image": "i:1", "revision": "r",
                "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "it answers",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        })
    }

    #[test]
    fn the_columns_are_those_of_kubectl() {
        let now = "2026-01-01T00:02:05Z".parse().unwrap();
        let plain = Columns {
            namespace: false,
            wide: false,
        };
        assert_eq!(
            table(&list(&json!([sum()])), plain, now, None),
            "NAME   READY   REASON   REPLICAS   URL                      AGE\n\
             sum    True    Ready    2          http://h/functions/sum   2m5s\n"
        );
        let all = Columns {
            namespace: true,
            wide: true,
        };
        let text = table(&list(&json!([sum()])), all, now, None);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words[..2], ["default", "sum"]);
        assert_eq!(words[7..], ["node", "i:1", "r", "it", "answers"]);
    }

    #[test]
    fn a_function_before_its_first_turn_has_every_column() {
        let mut new = sum();
        new["status"] = json!(null);
        let plain = Columns {
            namespace: false,
            wide: false,
        };
        let text = table(&list(&json!([new])), plain, Timestamp::UNIX_EPOCH, None);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["sum", "Unknown", "-", "0", "-", "0s"]);
    }

    #[test]
    fn no_functions_are_told_in_words() {
        let plain = Columns {
            namespace: false,
            wide: false,
        };
        let text = table(
            &list(&json!([])),
            plain,
            Timestamp::UNIX_EPOCH,
            Some("team"),
        );
        assert!(text.contains("namespace team"), "{text}");
    }
}
