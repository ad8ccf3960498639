//! Where answers and messages go: answers to standard output, everything about them to standard error.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use rustix::termios;
use serde::Serialize;

use super::error::CliError;

/// How programs want an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Json,
    Yaml,
}

/// Prints text that ends with its own line break.
pub fn print(text: &str) -> Result<(), CliError> {
    write(text.as_bytes())
}

/// Prints bytes as they are, at once.
pub fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(CliError::Output)
}

/// Tells the person something beside the answer. Nobody listening is no failure.
pub fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether a person looks at the answer.
pub fn is_watched() -> bool {
    io::stdout().is_terminal()
}

/// Columns and lines of the person's terminal.
pub fn size() -> Option<(usize, usize)> {
    let size = termios::tcgetwinsize(io::stdout()).ok()?;
    let (columns, lines) = (usize::from(size.ws_col), usize::from(size.ws_row));
    (columns > 0 && lines > 0).then_some((columns, lines))
}

/// A document in the wanted format.
pub fn document<T: Serialize>(value: &T, format: Format) -> String {
    // By way of a JSON value, so that both formats say the same.
    let value = serde_json::to_value(value).expect("what came as JSON is JSON again");
    match format {
        Format::Json => format!("{value:#}\n"),
        Format::Yaml => serde_saphyr::to_string(&value).expect("JSON is YAML"),
    }
}
