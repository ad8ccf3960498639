//! One wrong field, told as kubectl tells it.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::text;

/// Longest rendering of a wrong value or of a key, in bytes.
const MAX_SHOWN: usize = 80;

/// What is wrong with a field.
#[derive(
    strum::Display, strum::IntoStaticStr, Serialize, Clone, Copy, Debug, PartialEq, Eq, Hash,
)]
pub enum ErrorKind {
    #[strum(serialize = "Required value")]
    Required,
    #[strum(serialize = "Invalid value")]
    Invalid,
    #[strum(serialize = "Unsupported value")]
    NotSupported,
    #[strum(serialize = "Forbidden")]
    Forbidden,
    #[strum(serialize = "Duplicate value")]
    Duplicate,
    #[strum(serialize = "Too long")]
    TooLong,
    #[strum(serialize = "Too many")]
    TooMany,
    #[strum(serialize = "Unknown field")]
    Unknown,
}

/// One wrong field of an object.
#[derive(thiserror::Error, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field in the API server's notation, such as `spec.env[1].name`; empty for the object itself.
    pub path: String,
    /// What is wrong.
    pub kind: ErrorKind,
    /// The wrong value as JSON, or as it is written where YAML has several ways, shortened; absent where it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What would be right, and what to do.
    pub message: String,
}

impl FieldError {
    pub(super) fn new(
        path: impl Into<String>,
        kind: ErrorKind,
        message: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            kind,
            value: None,
            message: message.into(),
        }
    }

    pub(super) fn required(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(path, ErrorKind::Required, message)
    }

    pub(in crate::function) fn invalid(
        path: impl Into<String>,
        value: &Value,
        message: impl Into<String>,
    ) -> Self {
        Self::new(path, ErrorKind::Invalid, message).showing(value)
    }

    pub(super) fn showing(mut self, value: &Value) -> Self {
        self.value = Some(shown(value));
        self
    }

    /// The same error, showing its value as it is written in the text that it was read from.
    pub(in crate::function) fn written(&mut self, text: &str) {
        if self.value.is_some() {
            self.value = Some(text::quote(text, MAX_SHOWN));
        }
    }

    /// The same error inside a list or another object.
    #[must_use]
    pub fn below(mut self, parent: &str) -> Self {
        self.path = if self.path.is_empty() {
            parent.to_owned()
        } else {
            format!("{parent}.{}", self.path)
        };
        self
    }
}

/// Objects and lists are named, not printed.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "object".to_owned(),
        Value::Array(_) => "array".to_owned(),
        scalar => text::quote(&scalar.to_string(), MAX_SHOWN),
    }
}

/// `spec.scale.min: Invalid value: -1: must be at least 0`
impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() {
            "<object>"
        } else {
            &self.path
        };
        write!(f, "{path}: {}", self.kind)?;
        if let Some(value) = &self.value {
            write!(f, ": {value}")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// The path of a field of an object; keys that are no plain names are written in brackets, on one line.
pub(in crate::function) fn field(parent: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let name = text::quote(name, MAX_SHOWN);
    match (parent, plain) {
        ("", _) => name,
        (_, true) => format!("{parent}.{name}"),
        (_, false) => format!("{parent}[{name}]"),
    }
}

/// The path of an element of a list.
pub(in crate::function) fn element(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}
