//! YAML within budgets: a file into documents, a document into a plain value.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Error, MessageFormatter, Options, UserMessageFormatter};

use super::ManifestError;
use crate::function::validate::{element, field};
use crate::text;

/// Deepest nesting; a Function needs 6, and an object of another kind should still be named.
pub(super) const MAX_DEPTH: usize = 32;

/// The documents of a file, each with the line on which it begins. Those without content are left out.
///
/// A line that begins with `---` separates documents wherever it stands, also inside a block of text: so a document that
/// cannot be read does not hide the next.
pub(super) fn split(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut first_line, mut start, mut offset) = (1, 0, 0);
    for (line, content) in (1..).zip(text.split_inclusive('\n')) {
        if is_separator(content) && offset > start {
            documents.push((first_line, &text[start..offset]));
            (first_line, start) = (line, offset);
        }
        offset += content.len();
    }
    documents.push((first_line, &text[start..]));
    documents.retain(|(_, document)| has_content(document));
    documents
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// Comments, markers and directives are no content.
fn has_content(document: &str) -> bool {
    document.lines().any(|line| {
        let line = if is_separator(line) { &line[3..] } else { line };
        let line = line.trim();
        !(line.is_empty() || line == "..." || line.starts_with(['#', '%']))
    })
}

/// The value of one document that begins on this line of its file.
pub(super) fn read(document: &str, first_line: usize) -> Result<Value, ManifestError> {
    serde_saphyr::from_str_with_options(document, options())
        .map_err(|error| syntax(&error, first_line))
}

/// A document in braces that is no JSON may still be YAML; if it is neither, the error of the format it looks like counts.
pub(super) fn read_flow(
    document: &str,
    first_line: usize,
    json: ManifestError,
) -> Result<Value, ManifestError> {
    let looks_like_json = document
        .trim_start()
        .trim_start_matches('{')
        .trim_start()
        .starts_with('"');
    read(document, first_line).map_err(|yaml| if looks_like_json { json } else { yaml })
}

/// How the numbers and booleans of a document are written, by their paths below `at`.
pub(super) fn written(document: &str, at: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    if let Ok(value) = serde_saphyr::from_str_with_options(document, options()) {
        let reader = Written {
            value: &value,
            path: at.to_owned(),
            found: &mut found,
        };
        // What cannot be had in this way, such as what has a tag, is not found.
        let _ =
            serde_saphyr::with_deserializer_from_str_with_options(document, options(), |yaml| {
                reader.deserialize(yaml)
            });
    }
    found
}

/// Reads a value that is known by now once more, for the parser tells either what a scalar means or how it is written.
struct Written<'a> {
    value: &'a Value,
    path: String,
    found: &'a mut HashMap<String, String>,
}

impl<'de> DeserializeSeed<'de> for Written<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, yaml: D) -> Result<(), D::Error> {
        match self.value {
            Value::Object(_) => yaml.deserialize_map(self),
            Value::Array(_) => yaml.deserialize_seq(self),
            Value::Number(_) | Value::Bool(_) => yaml.deserialize_str(self),
            Value::String(_) | Value::Null => IgnoredAny::deserialize(yaml).map(drop),
        }
    }
}

impl<'de> Visitor<'de> for Written<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("what was read before")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.found.insert(self.path, text.to_owned());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let item = Written {
                value: &self.value[index],
                path: element(&self.path, index),
                found: &mut *self.found,
            };
            if items.next_element_seed(item)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value_seed(Written {
                value: &self.value[&key],
                path: field(&self.path, &key),
                found: &mut *self.found,
            })?;
        }
        Ok(())
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_documents: 1,
            max_events: 500_000,
            max_nodes: 200_000,
            max_aliases: 100,
            max_anchors: 100,
            max_recorded_anchor_events: 10_000,
            max_recorded_anchor_bytes: super::MAX_SIZE,
            max_total_scalar_bytes: 2 * super::MAX_SIZE,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        legacy_octal_numbers: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn syntax(error: &Error, first_line: usize) -> ManifestError {
    let error = error.without_snippet();
    let (line, column) = error
        .location()
        .map_or((1, 1), |at| (at.line(), at.column()));
    let message = message(error);
    ManifestError::Syntax {
        line: first_line - 1 + position(line),
        column: position(column),
        message,
    }
}

/// Positions are counted from 1, and 0 means unknown.
fn position(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(1).max(1)
}

/// The parser's words and what to do; for limits our own words, because they are our limits.
fn message(error: &Error) -> String {
    let hint = match error {
        Error::AliasError { error, .. } => return message(error),
        Error::Budget {
            breach: BudgetBreach::Depth { .. },
            ..
        } => {
            return format!("nested deeper than {MAX_DEPTH} levels");
        }
        Error::Budget {
            breach: BudgetBreach::Documents { .. },
            ..
        }
        | Error::MultipleDocuments { .. } => {
            return "another document begins here: put --- on a line before it in a file, and send one object at a time"
                .to_owned();
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            return "too many values, anchors or aliases for a manifest: write it out, or split it"
                .to_owned();
        }
        Error::MergeKeyNotAllowed { .. } => ": write the fields out",
        Error::DuplicateMappingKey { .. } => ": remove one of the two",
        Error::UnknownAnchor { .. } => ": define it with & before, in the same document",
        _ => "",
    };
    let words = UserMessageFormatter.format_message(error);
    format!("{}{hint}", text::quote(&words, super::MAX_WORDS))
}
