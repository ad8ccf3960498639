//! The rules that an API server has for metadata, and ours: names are DNS labels, and `faas.dev/` is the platform's.

use serde_json::{Map, Value};

use super::error::{ErrorKind, FieldError, field};
use crate::function::{MAX_NAME, MAX_NAMESPACE, RESERVED_PREFIX, is_dns_label};

/// Sum of all keys and values of annotations, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;
const MAX_LABEL: usize = 63;
const MAX_PREFIX: usize = 253;

/// Every wrong part of the object's metadata, as far as its types are right.
pub(super) fn check(object: &Value) -> Vec<FieldError> {
    let Some(metadata) = object.get("metadata").and_then(Value::as_object) else {
        return Vec::new();
    };
    let mut errors = Vec::new();
    errors.extend(name(metadata));
    errors.extend(namespace(metadata));
    for (key, value) in strings(metadata, "labels") {
        errors.extend(key_error("metadata.labels", key));
        errors.extend(label_value(key, value));
    }
    for (key, _) in strings(metadata, "annotations") {
        errors.extend(key_error("metadata.annotations", key));
    }
    errors.extend(annotations_size(metadata));
    errors
}

fn name(metadata: &Map<String, Value>) -> Option<FieldError> {
    let path = "metadata.name";
    match metadata.get("name") {
        None => Some(FieldError::required(path, "the function needs a name")),
        Some(value) => label(path, value, MAX_NAME),
    }
}

fn namespace(metadata: &Map<String, Value>) -> Option<FieldError> {
    label(
        "metadata.namespace",
        metadata.get("namespace")?,
        MAX_NAMESPACE,
    )
}

fn label(path: &str, value: &Value, max: usize) -> Option<FieldError> {
    let text = value.as_str()?;
    let message = format!(
        "must be a DNS label of at most {max} characters: lower case letters, digits and '-', beginning and ending with a \
         letter or digit"
    );
    (!is_dns_label(text, max)).then(|| FieldError::invalid(path, value, message))
}

fn strings<'a>(
    metadata: &'a Map<String, Value>,
    map: &str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let entries = metadata
        .get(map)
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    entries.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

fn key_error(path: &str, key: &str) -> Option<FieldError> {
    if key.starts_with(RESERVED_PREFIX) {
        let message = format!("{RESERVED_PREFIX} is reserved for the platform: remove it");
        return Some(FieldError::new(
            field(path, key),
            ErrorKind::Forbidden,
            message,
        ));
    }
    // Annotation keys are compared in lower case by API servers; so are label keys' prefixes.
    let (prefix, name) = key
        .rsplit_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let valid = is_qualified(name)
        && prefix.is_none_or(|prefix| is_subdomain(&prefix.to_ascii_lowercase()));
    let message = "key must be a name of at most 63 letters, digits, '-', '_' and '.', with an optional DNS prefix and '/'";
    (!valid).then(|| FieldError::invalid(path, &Value::from(key), message))
}

fn label_value(key: &str, value: &str) -> Option<FieldError> {
    let message = "label value must be empty or at most 63 letters, digits, '-', '_' and '.', beginning and ending with a \
                   letter or digit";
    let valid = value.is_empty() || is_qualified(value);
    (!valid)
        .then(|| FieldError::invalid(field("metadata.labels", key), &Value::from(value), message))
}

fn annotations_size(metadata: &Map<String, Value>) -> Option<FieldError> {
    let size: usize = strings(metadata, "annotations")
        .map(|(key, value)| key.len() + value.len())
        .sum();
    let message =
        format!("all together may be no more than {MAX_ANNOTATIONS} bytes, and are {size}");
    (size > MAX_ANNOTATIONS)
        .then(|| FieldError::new("metadata.annotations", ErrorKind::TooLong, message))
}

fn is_qualified(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |c: char| c.is_ascii_alphanumeric();
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(inner)
        && text.starts_with(edge)
        && text.ends_with(edge)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_PREFIX && text.split('.').all(|part| is_dns_label(part, MAX_PREFIX))
}
