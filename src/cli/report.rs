//! What `/status` says, as tables need it. Fields that are not shown are not read.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Deserialize;
use serde_json::Value;

use super::{client::ClientError, table::Table};

/// The whole of it.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub server: Server,
    #[serde(rename = "loop")]
    pub turns: Loop,
    pub functions: Vec<Turns>,
    pub problems: Vec<Problem>,
}

/// What the server is made of.
#[derive(Debug, Deserialize)]
pub struct Server {
    pub version: String,
    pub runtime: String,
}

/// How the loop goes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loop {
    pub queue: u64,
    pub building: u64,
    /// Not told by older servers.
    #[serde(default)]
    pub queued_builds: u64,
    pub engine: Engine,
    /// Not told by older servers.
    #[serde(default)]
    pub store: Stored,
}

/// Whether what is known of Functions can be gone by.
#[derive(Debug, Default, Deserialize)]
pub struct Stored {
    pub error: Option<String>,
}

/// Whether the engine answers.
#[derive(Debug, Deserialize)]
pub struct Engine {
    pub reachable: bool,
    pub error: Option<String>,
}

/// How it goes for one Function.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Turns {
    pub name: String,
    pub namespace: String,
    pub generation: Option<i64>,
    pub observed_generation: Option<i64>,
    pub conditions: Vec<Condition>,
    #[serde(rename = "turns")]
    pub count: u64,
    pub attempts: u32,
    pub last_error: Option<String>,
    pub last_turn: Option<Timestamp>,
    pub next_turn: Option<Timestamp>,
    /// Of instances, as far as they are not over.
    #[serde(default)]
    pub failures: Vec<Failed>,
    pub instances: Vec<Instance>,
}

/// What goes wrong with the instances of a revision.
#[derive(Debug, Deserialize)]
pub struct Failed {
    pub message: String,
    pub attempts: u32,
}

/// One instance.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    pub id: String,
    pub revision: String,
    pub state: String,
    pub in_flight: u32,
}

/// Something in a watched directory that does not work.
#[derive(Debug, Deserialize)]
pub struct Problem {
    pub file: PathBuf,
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub message: String,
}

impl Report {
    /// Reads it from the answer.
    pub fn new(value: Value, server: &str) -> Result<Self, ClientError> {
        serde_json::from_value(value).map_err(|error| ClientError::Stranger {
            server: server.to_owned(),
            what: error.to_string(),
        })
    }

    /// The problems of the watched directories, for below a table; nothing when there are none.
    pub fn problem_lines(&self) -> String {
        lines(
            "\nProblems in the watched directories:\n",
            self.problems.iter(),
        )
    }

    /// The problems of the file that a Function is of: what it says now does not count.
    pub fn problem_lines_of(&self, file: &str) -> String {
        let its = self.problems.iter().filter(|p| p.file == Path::new(file));
        lines(
            "Problems in its file, which keep what it said before:\n",
            its,
        )
    }
}

fn lines<'a>(head: &str, problems: impl Iterator<Item = &'a Problem>) -> String {
    let lines: String = problems
        .map(|problem| format!("  {}\n", problem.line()))
        .collect();
    if lines.is_empty() {
        return lines;
    }
    format!("{head}{lines}")
}

impl Problem {
    fn line(&self) -> String {
        let place = [self.line, self.column]
            .into_iter()
            .flatten()
            .map(|n| format!(":{n}"))
            .collect::<String>();
        format!(
            "{}{place}: {}",
            self.file.display(),
            self.message.replace('\n', "\n    ")
        )
    }
}

impl Turns {
    /// What goes wrong: a turn, or else instances, though others may answer.
    pub fn trouble(&self) -> Option<String> {
        let counted = |error: &String, attempts| match attempts {
            0 => error.clone(),
            attempts => format!("{error} (attempt {attempts})"),
        };
        let failure = self.failures.first();
        let failed = || failure.map(|failure| counted(&failure.message, failure.attempts));
        let turn = self.last_error.as_ref();
        turn.map(|error| counted(error, self.attempts))
            .or_else(failed)
    }

    /// The instances as a table.
    pub fn instances(&self, indent: &str) -> String {
        let mut table = Table::new(["ID", "STATE", "REVISION", "CALLS"]);
        for instance in &self.instances {
            let Instance {
                id,
                revision,
                state,
                in_flight,
            } = instance;
            table.row([
                id.clone(),
                state.clone(),
                revision.clone(),
                in_flight.to_string(),
            ]);
        }
        table.render(indent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_name_their_place_as_far_as_it_is_known() {
        let problem = |line, column| Problem {
            file: "a.yaml".into(),
            line,
            column,
            message: "bad\nworse".into(),
        };
        assert_eq!(
            problem(Some(3), Some(7)).line(),
            "a.yaml:3:7: bad\n    worse"
        );
        assert_eq!(problem(Some(3), None).line(), "a.yaml:3: bad\n    worse");
        assert_eq!(problem(None, None).line(), "a.yaml: bad\n    worse");
    }
}
