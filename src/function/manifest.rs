//! Manifest text to Functions: YAML or JSON, several documents a file, a verdict for each.
//!
//! Text of strangers is read within budgets (size, depth, anchors), and what would be read differently by another parser is
//! refused: duplicate keys, merge keys (`<<`), tags, text that is not UTF-8. What an API server's YAML takes for a number or a
//! boolean (`8080`, `yes`) is one here too, so that a string field refuses it in both places.

mod json;
mod yaml;

use std::fmt;

use serde_json::Value;

use super::validate::{ErrorKind, FieldError, validate};
use super::{DEFAULT_NAMESPACE, Function, FunctionKey, KIND, RESERVED_PREFIX};

/// Largest manifest file, in bytes.
pub const MAX_SIZE: usize = 1024 * 1024;
/// How much of a parser's words a message repeats, in bytes; they quote what they read.
const MAX_WORDS: usize = 512;

/// Why a document is no Function.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// The file is too large to be read at all.
    #[error(
        "the manifest has {0} bytes, and may have {MAX_SIZE}: split the file, or move code to source.directory"
    )]
    TooLarge(usize),
    /// The text cannot be understood.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        line: usize,
        column: usize,
        message: String,
    },
    /// It can be understood, and is wrong: all that is wrong with it.
    #[error("{}", Lines(.0))]
    Invalid(Vec<FieldError>),
}

impl ManifestError {
    /// The same error, showing wrong values as they are written in the text: `on` is true to YAML, and nobody wrote that.
    /// `at` is the path that the text's value has in what was judged.
    #[must_use]
    pub fn as_written(mut self, text: &[u8], at: &str) -> Self {
        if let Self::Invalid(errors) = &mut self
            && let Ok(text) = text_of(text)
        {
            let written = yaml::written(text, at);
            for error in errors {
                if let Some(text) = written.get(&error.path) {
                    error.written(text);
                }
            }
        }
        self
    }
}

struct Lines<'a>(&'a [FieldError]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

/// One object of a file, and its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// Line of the file where its document begins, from 1.
    pub line: usize,
    /// Which Function it defines, or was meant to define; `None` where even that cannot be told.
    pub key: Option<FunctionKey>,
    /// The Function, or everything that is wrong.
    pub verdict: Result<Function, ManifestError>,
}

/// Everything that a manifest file defines, in its order. Documents without content are skipped, and the items of a list
/// stand for themselves. One bad document does not hide the others.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<Parsed> {
    parse_with(text, judge)
}

/// The same for text that may have been read from a server: what only the platform writes is dropped, not refused.
#[must_use]
pub fn parse_read_back(text: &[u8]) -> Vec<Parsed> {
    parse_with(text, |line, mut value| {
        strip_ours(&mut value);
        judge(line, value)
    })
}

/// Drops the annotations and labels that only the platform sets: what a client read it may send back.
pub fn strip_ours(value: &mut Value) {
    for kind in ["annotations", "labels"] {
        if let Some(Value::Object(map)) = value.pointer_mut(&format!("/metadata/{kind}")) {
            map.retain(|name, _| !name.starts_with(RESERVED_PREFIX));
        }
    }
}

/// Gives the verdict on one value.
type Judge = fn(usize, Value) -> Parsed;

fn parse_with(text: &[u8], judge: Judge) -> Vec<Parsed> {
    match text_of(text) {
        Err(error) => vec![Parsed {
            line: 1,
            key: None,
            verdict: Err(error),
        }],
        Ok(text) => yaml::split(text)
            .into_iter()
            .flat_map(|(line, document)| parse_document(line, document, judge))
            .collect(),
    }
}

/// The one YAML or JSON value of a small file that is no manifest, such as the seed's `fn.yaml`; null when it is empty.
///
/// # Errors
/// As for a manifest's text.
pub fn value(text: &[u8]) -> Result<Value, ManifestError> {
    read(text_of(text)?, 1)
}

/// The value of one document. What JSON and YAML read differently is JSON, if it is.
fn read(document: &str, line: usize) -> Result<Value, ManifestError> {
    if document.trim_start().starts_with('{') {
        json::read(document, line).or_else(|error| yaml::read_flow(document, line, error))
    } else {
        yaml::read(document, line)
    }
}

/// Judges a value that was read already, such as the body of a request.
#[must_use]
pub fn judge(line: usize, value: Value) -> Parsed {
    let key = key_of(&value);
    let verdict = validate(value).map_err(ManifestError::Invalid);
    Parsed { line, key, verdict }
}

fn text_of(text: &[u8]) -> Result<&str, ManifestError> {
    if text.len() > MAX_SIZE {
        return Err(ManifestError::TooLarge(text.len()));
    }
    let text = std::str::from_utf8(text).map_err(|error| not_utf8(text, error.valid_up_to()))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn not_utf8(text: &[u8], valid: usize) -> ManifestError {
    let before = &text[..valid];
    let line = before.split(|byte| *byte == b'\n').count();
    let start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |newline| newline + 1);
    let column = 1 + String::from_utf8_lossy(&before[start..]).chars().count();
    let message = format!(
        "byte 0x{:02x} is not UTF-8: save the file as UTF-8",
        text[valid]
    );
    ManifestError::Syntax {
        line,
        column,
        message,
    }
}

fn parse_document(line: usize, document: &str, judge: Judge) -> Vec<Parsed> {
    match read(document, line) {
        Err(error) => vec![Parsed {
            line,
            key: None,
            verdict: Err(error),
        }],
        Ok(Value::Null) => Vec::new(),
        Ok(value) => expand(line, value, judge)
            .into_iter()
            .map(|parsed| Parsed {
                verdict: parsed
                    .verdict
                    .map_err(|error| error.as_written(document.as_bytes(), "")),
                ..parsed
            })
            .collect(),
    }
}

/// A `List` stands for its items; an object of another kind is named.
fn expand(line: usize, mut value: Value, judge: Judge) -> Vec<Parsed> {
    let kind = value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if !matches!(kind.as_str(), "List" | "FunctionList") {
        return vec![judge(line, value)];
    }
    if let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) {
        return items
            .into_iter()
            .enumerate()
            .map(|(index, item)| below_items(judge(line, item), index))
            .collect();
    }
    let message = format!("a {kind} needs a list of items");
    let error = FieldError {
        path: "items".to_owned(),
        kind: ErrorKind::Required,
        value: None,
        message,
    };
    vec![Parsed {
        line,
        key: None,
        verdict: Err(ManifestError::Invalid(vec![error])),
    }]
}

/// Errors of an item say which one it is.
fn below_items(mut parsed: Parsed, index: usize) -> Parsed {
    if let Err(ManifestError::Invalid(errors)) = &mut parsed.verdict {
        let parent = format!("items[{index}]");
        *errors = std::mem::take(errors)
            .into_iter()
            .map(|error| error.below(&parent))
            .collect();
    }
    parsed
}

fn key_of(value: &Value) -> Option<FunctionKey> {
    let text = |field: &str| value.get("metadata")?.get(field)?.as_str();
    if value.get("kind").is_some_and(|kind| kind != KIND) {
        return None;
    }
    FunctionKey::new(
        text("namespace").unwrap_or(DEFAULT_NAMESPACE),
        text("name")?,
    )
    .ok()
}
