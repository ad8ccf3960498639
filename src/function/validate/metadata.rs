//! The rules that an API server has for metadata, and ours: names are DNS labels, and `faas.dev/` is the platform's.

use serde_json::{Map, Value};

use super::error::{ErrorKind, FieldError, element, field};
use crate::function::{MAX_NAME, MAX_NAMESPACE, RESERVED_PREFIX, is_dns_label};

/// Sum of all keys and values of annotations, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;
const MAX_LABEL: usize = 63;
const MAX_PREFIX: usize = 253;
const KEY: &str = "must be a name of at most 63 letters, digits, '-', '_' and '.', with an optional DNS prefix and '/'";

/// Every wrong part of the object's metadata, as far as its types are right.
pub(super) fn check(object: &Value) -> Vec<FieldError> {
    let Some(metadata) = object.get("metadata").and_then(Value::as_object) else {
        return Vec::new();
    };
    let mut errors = Vec::new();
    errors.extend(name(metadata));
    errors.extend(generate_name(metadata));
    errors.extend(namespace(metadata));
    for (key, value) in strings(metadata, "labels") {
        errors.extend(key_error("metadata.labels", key, is_key(key)));
        errors.extend(label_value(key, value));
    }
    for (key, _) in strings(metadata, "annotations") {
        // Of these alone an API server looks at the lower case.
        let valid = is_key(&key.to_ascii_lowercase());
        errors.extend(key_error("metadata.annotations", key, valid));
    }
    errors.extend(annotations_size(metadata));
    errors.extend(owners(metadata));
    errors.extend(finalizers(metadata));
    errors
}

fn name(metadata: &Map<String, Value>) -> Option<FieldError> {
    let path = "metadata.name";
    match metadata.get("name") {
        None => Some(FieldError::required(path, "the function needs a name")),
        Some(value) => label(path, value, MAX_NAME),
    }
}

/// It names nothing where there is a name, and is judged all the same.
fn generate_name(metadata: &Map<String, Value>) -> Option<FieldError> {
    let value = metadata.get("generateName")?;
    let text = value.as_str()?;
    // Letters follow it.
    let begun = text.strip_suffix('-').unwrap_or(text);
    let message = "must be the beginning of a DNS name: lower case letters, digits, '-' and '.'";
    (!text.is_empty() && !is_subdomain(begun))
        .then(|| FieldError::invalid("metadata.generateName", value, message))
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

fn key_error(path: &str, key: &str, valid: bool) -> Option<FieldError> {
    if key.starts_with(RESERVED_PREFIX) {
        let message = format!("{RESERVED_PREFIX} is reserved for the platform: remove it");
        return Some(FieldError::new(
            field(path, key),
            ErrorKind::Forbidden,
            message,
        ));
    }
    (!valid).then(|| FieldError::invalid(path, &key.into(), KEY))
}

/// A name with an optional DNS prefix.
fn is_key(key: &str) -> bool {
    let (prefix, name) = key
        .rsplit_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    is_qualified(name) && prefix.is_none_or(is_subdomain)
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

/// Objects with which this one is deleted: named in full, and one controller at most.
fn owners(metadata: &Map<String, Value>) -> Vec<FieldError> {
    let path = "metadata.ownerReferences";
    let mut errors = Vec::new();
    let mut controllers = 0;
    for (index, owner) in list(metadata, "ownerReferences").enumerate() {
        let path = element(path, index);
        for (name, value) in owner.as_object().into_iter().flatten() {
            let complete = match (name.as_str(), value.as_str()) {
                ("apiVersion", Some(text)) => is_api_version(text),
                ("kind" | "name" | "uid", Some(text)) => !text.is_empty(),
                _ => true,
            };
            if !complete {
                let message = "must say which object owns this one";
                errors.push(FieldError::invalid(field(&path, name), value, message));
            }
        }
        if owner["apiVersion"] == "v1" && owner["kind"] == "Event" {
            errors.push(FieldError::invalid(path, owner, "an Event owns nothing"));
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let message = format!("one owner may be the controller, and {controllers} are");
        errors.push(FieldError::new(path, ErrorKind::Invalid, message));
    }
    errors
}

/// What others do before the object may go.
fn finalizers(metadata: &Map<String, Value>) -> Vec<FieldError> {
    let path = "metadata.finalizers";
    let names = || list(metadata, "finalizers").filter_map(Value::as_str);
    let mut errors: Vec<_> = names()
        .enumerate()
        .filter(|(_, name)| !is_key(name))
        .map(|(index, name)| FieldError::invalid(element(path, index), &name.into(), KEY))
        .collect();
    if ["orphan", "foregroundDeletion"]
        .iter()
        .all(|one| names().any(|name| name == *one))
    {
        let message = "orphan and foregroundDeletion exclude each other: remove one";
        errors.push(FieldError::new(path, ErrorKind::Invalid, message));
    }
    errors
}

fn list<'a>(metadata: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    let items = metadata.get(name).and_then(Value::as_array);
    items.into_iter().flatten()
}

/// `v1`, `apps/v1`.
fn is_api_version(text: &str) -> bool {
    let version = text.split_once('/').map_or(text, |(_, version)| version);
    !version.is_empty() && !version.contains('/')
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
