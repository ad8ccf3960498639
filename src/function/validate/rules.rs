//! The CEL rules of the CRD, evaluated here by the library that kube brings.

use std::sync::LazyLock;

use kube::core::cel::{self, CompiledSchema, ValidationError, Validator, compile_schema};
use serde_json::{Map, Value, json};

use super::error::{ErrorKind, FieldError};

static RULES: LazyLock<CompiledSchema> = LazyLock::new(|| compile_schema(&super::SCHEMA));

/// Whose rules are about names, each of which may be bad alone.
const INLINE: &str = "spec.source.inline";

thread_local! {
    /// Holds the functions that rules may call; costly to make, and not to be shared between threads.
    static VALIDATOR: Validator = Validator::new();
}

/// Every rule that the value breaks, apart from those that earlier errors explain.
pub(super) fn check(value: &Value, earlier: &[FieldError]) -> Vec<FieldError> {
    broken(value)
        .into_iter()
        .filter(|broken| earlier.is_empty() || !explained(broken, earlier))
        .flat_map(|broken| field_errors(broken, value))
        .collect()
}

fn broken(value: &Value) -> Vec<ValidationError> {
    let verdict = VALIDATOR.with(|validator| validator.validate_compiled(&RULES, value, None));
    let errors = verdict.err().map(cel::ValidationErrors::into_vec);
    errors.unwrap_or_default()
}

/// A rule that could not be evaluated met a value that the schema has refused already; one about a field that is wrong
/// anyway, lies in one, or has a misspelt field inside, would only repeat that.
fn explained(broken: &ValidationError, earlier: &[FieldError]) -> bool {
    let path = path(broken);
    let repeats = |error: &FieldError| {
        path.starts_with(&error.path)
            || (error.kind == ErrorKind::Unknown && error.path.starts_with(path))
    };
    broken.kind != cel::ErrorKind::ValidationFailure || earlier.iter().any(repeats)
}

fn field_errors(broken: ValidationError, object: &Value) -> Vec<FieldError> {
    let path = path(&broken).to_owned();
    let kind = match broken.reason.as_deref() {
        Some("FieldValueRequired") => ErrorKind::Required,
        Some("FieldValueForbidden") => ErrorKind::Forbidden,
        Some("FieldValueDuplicate") => ErrorKind::Duplicate,
        _ => ErrorKind::Invalid,
    };
    let error = FieldError::new(&path, kind, broken.message);
    match lookup(object, &path) {
        Some(Value::Object(files)) if path == INLINE => {
            let culprits = culprits(files, &error.message);
            if culprits.is_empty() {
                return vec![error.showing(&object["spec"]["source"]["inline"])];
            }
            let told = culprits.into_iter();
            told.map(|name| error.clone().showing(&Value::from(name)))
                .collect()
        }
        Some(value) if kind == ErrorKind::Invalid => vec![error.showing(value)],
        _ => vec![error],
    }
}

/// The files that break a rule alone, as those with bad names do.
fn culprits<'a>(files: &'a Map<String, Value>, message: &str) -> Vec<&'a str> {
    let is_bad = |name: &&String| {
        let alone = json!({"spec": {"source": {"inline": {*name: files[*name]}}}});
        let errors = broken(&alone);
        errors
            .iter()
            .any(|error| path(error) == INLINE && error.message == message)
    };
    files.keys().filter(is_bad).map(String::as_str).collect()
}

/// A rule at the root can see nothing but the name.
fn path(broken: &ValidationError) -> &str {
    if broken.field_path.is_empty() {
        "metadata.name"
    } else {
        &broken.field_path
    }
}

/// The value at a path of declared fields and list indexes, which is all that rules are attached to.
fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let pointer = path.replace('[', ".").replace(']', "").replace('.', "/");
    object.pointer(&format!("/{pointer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(schema: &CompiledSchema) -> Vec<&CompiledSchema> {
        let children = schema
            .properties
            .values()
            .chain(schema.items.as_deref())
            .chain(schema.additional_properties.as_deref());
        std::iter::once(schema)
            .chain(children.flat_map(all))
            .collect()
    }

    #[test]
    fn every_rule_compiles_and_has_a_message() {
        let nodes = all(&RULES);
        let rules: Vec<_> = nodes.iter().flat_map(|node| &node.validations).collect();
        assert!(rules.len() >= 15, "only {} rules were found", rules.len());
        for rule in rules {
            let rule = &rule.as_ref().unwrap().rule;
            assert!(rule.message.is_some(), "{} has no message", rule.rule);
        }
    }

    #[test]
    fn every_rule_is_cheap_enough_for_an_api_server() {
        for node in all(&RULES) {
            for rule in node.validations.iter().flatten() {
                assert_eq!(cel::estimate_rule_cost(&rule.rule.rule, node), []);
            }
        }
    }
}
