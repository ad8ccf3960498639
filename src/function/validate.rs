//! One verdict: whether a plain value is a Function, by the same schema and rules as at an API server.
//!
//! The way of a value: nulls pruned and defaults filled (`fill`) → the generated schema (`walk`) → metadata rules
//! (`metadata`) → CEL rules (`rules`) → typed object. All field errors come at once, where an API server stops before CEL
//! when the schema fails.

mod error;
mod fill;
mod metadata;
mod rules;
mod walk;

use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{API_VERSION, Function, KIND, crd};

pub use error::{ErrorKind, FieldError};

/// The schema of the CRD, with the metadata that an API server adds to every object.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = crd::open_api_schema();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
        properties.insert("kind".to_owned(), json!({"type": "string"}));
        properties.insert("metadata".to_owned(), metadata_schema());
    }
    schema["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
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
    wrong_type(&value).map_or(Ok(()), |error| Err(vec![error]))?;
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    fill::fill(&SCHEMA, &mut value);
    let mut errors = walk::walk(&SCHEMA, &value);
    errors.extend(metadata::check(&value));
    errors.extend(rules::check(&value, &errors));
    if errors.is_empty() {
        typed(value)
    } else {
        Err(errors)
    }
}

/// An object of another kind is not judged by our schema: one error says more than fifty.
fn wrong_type(value: &Value) -> Option<FieldError> {
    if !value.is_object() {
        return Some(FieldError::invalid(
            "",
            value,
            "must be an object with apiVersion, kind, metadata and spec",
        ));
    }
    [("apiVersion", API_VERSION), ("kind", KIND)]
        .into_iter()
        .find_map(|(field, expected)| match value.get(field) {
            None | Some(Value::Null) => {
                Some(FieldError::required(field, format!("must be {expected}")))
            }
            Some(found) if found != expected => Some(FieldError::invalid(
                field,
                found,
                format!("must be {expected}"),
            )),
            Some(_) => None,
        })
}

/// What the schema admits fits the type, which a property test holds; an error here is still the user's to see.
fn typed(value: Value) -> Result<Function, Vec<FieldError>> {
    serde_json::from_value(value)
        .map_err(|error| vec![FieldError::new("", ErrorKind::Invalid, error.to_string())])
}
