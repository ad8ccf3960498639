//! One verdict: whether a plain value is a Function, by the same schema and rules as at an API server.
//!
//! The way of a value: nulls pruned and defaults filled (`fill`) → the generated schema (`walk`) → metadata rules
//! (`metadata`) and one about `inline` → CEL rules (`rules`) → typed object. All field errors come at once, where an API server stops before CEL
//! when the schema fails.

mod error;
mod fill;
mod inline;
mod metadata;
mod rules;
mod walk;

use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{API_VERSION, Function, KIND, crd};

pub use error::{ErrorKind, FieldError};
pub(super) use error::{element, field};

/// Most errors of one object that are told.
const MAX_ERRORS: usize = 100;

/// The schema of the CRD, with the metadata that an API server adds to every object.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = crd::open_api_schema();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
        properties.insert("kind".to_owned(), json!({"type": "string"}));
        properties.insert("metadata".to_owned(), metadata_schema());
    }
    schema["required"] = json!(["metadata", "spec"]);
    schema
});

fn metadata_schema() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<ObjectMeta>()
        .to_value()
}

/// The Function that the value is, with all defaults filled in. A status is dropped, as an API server does on a write.
///
/// # Errors
/// Every field that is wrong, in the order of the schema.
pub fn validate(mut value: Value) -> Result<Function, Vec<FieldError>> {
    let mut errors = wrong_type(&value);
    if is_foreign(&value) {
        return Err(errors);
    }
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    fill::fill(&SCHEMA, &mut value);
    errors.extend(walk::walk(&SCHEMA, &value));
    errors.extend(metadata::check(&value));
    errors.extend(inline::check(&value));
    errors.extend(rules::check(&value, &errors));
    if errors.is_empty() {
        typed(value)
    } else {
        Err(first(errors))
    }
}

/// As many errors as somebody may read, and how many more there are.
fn first(mut errors: Vec<FieldError>) -> Vec<FieldError> {
    let more = errors.len().saturating_sub(MAX_ERRORS);
    errors.truncate(MAX_ERRORS);
    if more > 0 {
        let message = format!("{more} more fields are wrong: mend these first");
        errors.push(FieldError::new("", ErrorKind::TooMany, message));
    }
    errors
}

/// Why the value is no object of ours. Of one of another kind, only what it lacks is told beside that, for it has fifty
/// fields that we do not know.
fn wrong_type(value: &Value) -> Vec<FieldError> {
    if !value.is_object() {
        let message = "must be an object with apiVersion, kind, metadata and spec";
        return vec![FieldError::invalid("", value, message)];
    }
    let is_there = |field: &str| value.get(field).is_some_and(|value| !value.is_null());
    let mut errors = Vec::new();
    for (field, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let message = format!("must be {expected}");
        if !is_there(field) {
            errors.push(FieldError::required(field, message));
        } else if value[field] != expected {
            errors.push(FieldError::invalid(field, &value[field], message));
        }
    }
    for field in ["metadata", "spec"] {
        if is_foreign(value) && !is_there(field) {
            errors.push(FieldError::required(field, ""));
        }
    }
    errors
}

/// Whether the value is of another kind by its own words.
fn is_foreign(value: &Value) -> bool {
    match (&value["apiVersion"], &value["kind"]) {
        (Value::Null, Value::Null) => !value.is_object(),
        (Value::Null, kind) => kind != KIND,
        (version, _) => version != API_VERSION,
    }
}

/// What the schema admits fits the type, which a property test holds; an error here is still the user's to see.
fn typed(value: Value) -> Result<Function, Vec<FieldError>> {
    serde_json::from_value(value)
        .map_err(|error| vec![FieldError::new("", ErrorKind::Invalid, error.to_string())])
}
