//! The walker over a structural schema: types, limits, patterns, enums, unknown fields, keys of list maps.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::error::{ErrorKind, FieldError, element, field};
use super::fill::{child, properties};

/// Every place where the value does not fit the schema.
pub(super) fn walk(schema: &Value, value: &Value) -> Vec<FieldError> {
    let mut walker = Walker { errors: Vec::new() };
    walker.value(schema, value, "");
    walker.errors
}

/// Every pattern of the schema, compiled once.
static PATTERNS: LazyLock<HashMap<String, Regex>> = LazyLock::new(|| {
    let mut patterns = HashMap::new();
    collect_patterns(&super::SCHEMA, &mut patterns);
    patterns
});

fn collect_patterns(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && let Ok(regex) = Regex::new(pattern)
    {
        patterns.insert(pattern.to_owned(), regex);
    }
    let named = properties(schema).into_iter().flat_map(Map::values);
    let unnamed = ["items", "additionalProperties"]
        .into_iter()
        .filter_map(|key| schema.get(key));
    named
        .chain(unnamed)
        .for_each(|schema| collect_patterns(schema, patterns));
}

struct Walker {
    errors: Vec<FieldError>,
}

impl Walker {
    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        if let Some(error) = type_error(schema, value, path) {
            self.errors.push(error);
            return;
        }
        self.errors.extend(enum_error(schema, value, path));
        match value {
            Value::Object(object) => self.object(schema, object, path),
            Value::Array(items) => self.list(schema, items, path),
            Value::String(text) => self.text(schema, text, path),
            Value::Number(_) => self.errors.extend(range_error(schema, value, path)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn object(&mut self, schema: &Value, object: &Map<String, Value>, path: &str) {
        let count = object.len() as u64;
        self.count(schema, ["minProperties", "maxProperties"], count, path);
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !object.contains_key(name) {
                self.errors
                    .push(FieldError::required(field(path, name), ""));
            }
        }
        for (name, value) in object {
            match child(schema, name) {
                Some(schema) => self.value(schema, value, &field(path, name)),
                None if is_open(schema) => {}
                None => self.errors.push(unknown(schema, name, path)),
            }
        }
    }

    fn list(&mut self, schema: &Value, items: &[Value], path: &str) {
        self.count(schema, ["minItems", "maxItems"], items.len() as u64, path);
        if let Some(schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.value(schema, item, &element(path, index));
            }
        }
        self.errors.extend(duplicates(schema, items, path));
    }

    fn text(&mut self, schema: &Value, text: &str, path: &str) {
        let length = text.chars().count() as u64;
        if let Some(max) = limit(schema, "maxLength").filter(|max| length > *max) {
            let message = format!("may be no more than {max} characters, and has {length}");
            self.errors
                .push(FieldError::new(path, ErrorKind::TooLong, message));
        } else if let Some(min) = limit(schema, "minLength").filter(|min| length < *min) {
            let message = format!("must be at least {min} characters");
            self.errors
                .push(FieldError::invalid(path, &text.into(), message));
        } else {
            self.errors.extend(pattern_error(schema, text, path));
            self.errors.extend(time_error(schema, text, path));
        }
    }

    fn count(&mut self, schema: &Value, [min, max]: [&str; 2], count: u64, path: &str) {
        if let Some(max) = limit(schema, max).filter(|max| count > *max) {
            let message = format!("must have at most {max} items, and has {count}");
            self.errors
                .push(FieldError::new(path, ErrorKind::TooMany, message));
        }
        if let Some(min) = limit(schema, min).filter(|min| count < *min) {
            let message = format!("must have at least {min} items, and has {count}");
            self.errors
                .push(FieldError::new(path, ErrorKind::Invalid, message));
        }
    }
}

fn limit(schema: &Value, keyword: &str) -> Option<u64> {
    schema.get(keyword).and_then(Value::as_u64)
}

/// An object whose fields the schema does not list takes any.
fn is_open(schema: &Value) -> bool {
    properties(schema).is_none() || schema["x-kubernetes-preserve-unknown-fields"] == true
}

fn type_error(schema: &Value, value: &Value, path: &str) -> Option<FieldError> {
    let expected = schema.get("type")?.as_str()?;
    let fits = match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => value.is_number(),
    };
    let message = match (expected, value) {
        ("string", Value::Number(_) | Value::Bool(_)) => {
            "must be of type string: write it in quotes".to_owned()
        }
        _ => format!("must be of type {expected}, not {}", type_name(value)),
    };
    (!fits).then(|| FieldError::invalid(path, value, message))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn enum_error(schema: &Value, value: &Value, path: &str) -> Option<FieldError> {
    let allowed = schema.get("enum")?.as_array()?;
    let list: Vec<String> = allowed.iter().map(Value::to_string).collect();
    let message = format!("supported values: {}", list.join(", "));
    (!allowed.contains(value))
        .then(|| FieldError::new(path, ErrorKind::NotSupported, message).showing(value))
}

fn range_error(schema: &Value, value: &Value, path: &str) -> Option<FieldError> {
    let bound = |keyword| schema.get(keyword).and_then(Value::as_f64);
    let number = value.as_f64()?;
    let message = match (bound("minimum"), bound("maximum")) {
        (Some(min), _) if number < min => format!("must be at least {min}"),
        (_, Some(max)) if number > max => format!("must be at most {max}"),
        _ => return None,
    };
    Some(FieldError::invalid(path, value, message))
}

fn pattern_error(schema: &Value, text: &str, path: &str) -> Option<FieldError> {
    let pattern = schema.get("pattern")?.as_str()?;
    let example = schema
        .get("example")
        .map(|example| format!(", for example {example}"))
        .unwrap_or_default();
    let matches = PATTERNS
        .get(pattern)
        .is_some_and(|regex| regex.is_match(text));
    (!matches)
        .then(|| FieldError::invalid(path, &text.into(), format!("must match {pattern}{example}")))
}

fn time_error(schema: &Value, text: &str, path: &str) -> Option<FieldError> {
    let message = "must be a time such as 2026-01-31T12:00:00Z";
    let wrong = schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err();
    wrong.then(|| FieldError::invalid(path, &text.into(), message))
}

/// Items of a list map that have the key of an earlier one.
fn duplicates(schema: &Value, items: &[Value], path: &str) -> Vec<FieldError> {
    let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let key_of = |item: &Value| -> Option<Vec<String>> {
        keys.iter()
            .map(|key| item.get(key).map(Value::to_string))
            .collect()
    };
    let mut seen = HashSet::new();
    let repeated = items
        .iter()
        .enumerate()
        .filter(|(_, item)| !keys.is_empty() && key_of(item).is_some_and(|key| !seen.insert(key)));
    repeated
        .map(|(index, item)| {
            let shown = keys.first().and_then(|key| item.get(key)).unwrap_or(item);
            let message = format!("another item has the same {}", keys.join(", "));
            FieldError::new(element(path, index), ErrorKind::Duplicate, message).showing(shown)
        })
        .collect()
}

/// Names the unknown field, and the known one that was probably meant.
fn unknown(schema: &Value, name: &str, path: &str) -> FieldError {
    let message = nearest(schema, name).map_or_else(
        || {
            format!(
                "known fields are {}",
                field_names(schema).collect::<Vec<_>>().join(", ")
            )
        },
        |known| format!("did you mean {known:?}?"),
    );
    FieldError::new(field(path, name), ErrorKind::Unknown, message)
}

fn field_names(schema: &Value) -> impl Iterator<Item = &str> {
    properties(schema)
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
}

/// The known field whose spelling is near enough to be meant.
fn nearest<'a>(schema: &'a Value, name: &str) -> Option<&'a str> {
    let distance = |known: &str| strsim::osa_distance(&known.to_lowercase(), &name.to_lowercase());
    let near = |known: &str| distance(known) <= known.len().min(name.len()) / 3 + 1;
    field_names(schema)
        .filter(|known| near(known))
        .min_by_key(|known| distance(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 22] = [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "format",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-validations",
        "default",
        "description",
        "example",
    ];

    fn unknown_keywords(schema: &Value, unknown: &mut Vec<String>) {
        let keywords = schema.as_object().into_iter().flat_map(Map::keys);
        unknown.extend(
            keywords
                .filter(|key| !KNOWN.contains(&key.as_str()))
                .cloned(),
        );
        let named = properties(schema).into_iter().flat_map(Map::values);
        let unnamed = ["items", "additionalProperties"]
            .into_iter()
            .filter_map(|key| schema.get(key));
        named
            .chain(unnamed)
            .for_each(|schema| unknown_keywords(schema, unknown));
    }

    #[test]
    fn the_schema_says_nothing_that_the_walker_does_not_know() {
        let mut unknown = Vec::new();
        unknown_keywords(&super::super::SCHEMA, &mut unknown);
        unknown.retain(|keyword| !matches!(keyword.as_str(), "title" | "$schema"));
        assert_eq!(unknown, Vec::<String>::new());
    }

    #[test]
    fn every_pattern_compiles() {
        let mut written = HashMap::new();
        collect_patterns(&super::super::SCHEMA, &mut written);
        let text = super::super::SCHEMA.to_string();
        assert!(written.len() >= 5);
        assert_eq!(
            text.matches("\"pattern\":").count(),
            text.matches("\"pattern\":\"").count()
        );
        for pattern in text.split("\"pattern\":").skip(1) {
            let pattern: String = serde_json::Deserializer::from_str(pattern)
                .into_iter()
                .next()
                .unwrap()
                .unwrap();
            assert!(
                written.contains_key(&pattern),
                "{pattern} is no regular expression"
            );
        }
    }

    #[test]
    fn the_nearest_field_is_meant() {
        let schema =
            serde_json::json!({"properties": {"timeoutSeconds": {}, "min": {}, "max": {}}});
        for (name, meant) in [
            ("timeoutSecond", Some("timeoutSeconds")),
            ("timeoutseconds", Some("timeoutSeconds")),
            ("timoutSecnds", Some("timeoutSeconds")),
            ("mim", Some("min")),
            ("replicas", None),
            ("", None),
        ] {
            assert_eq!(nearest(&schema, name), meant, "{name}");
        }
    }
}
