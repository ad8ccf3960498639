//! What an API server does before it judges: nulls go, defaults come, whole floats become integers.

use serde_json::{Map, Value};

/// Fills the value in place, as far as the schema reaches.
pub(super) fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(object) => fill_object(schema, object),
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for item in items {
                    fill(schema, item);
                }
            }
        }
        Value::Number(number) if schema["type"] == "integer" => {
            if let Some(whole) = number.as_f64().and_then(whole) {
                *value = whole.into();
            }
        }
        _ => {}
    }
}

fn fill_object(schema: &Value, object: &mut Map<String, Value>) {
    // No field of ours is nullable, so a null means "not given", and what is not given gets its default. Nulls that the
    // schema does not know stay, to be named as unknown fields.
    object.retain(|name, value| !value.is_null() || child(schema, name).is_none());
    for (name, property) in properties(schema).into_iter().flatten() {
        if let Some(default) = property.get("default") {
            object.entry(name).or_insert_with(|| default.clone());
        }
    }
    for (name, value) in object.iter_mut() {
        if let Some(schema) = child(schema, name) {
            fill(schema, value);
        }
    }
}

/// The named fields that a schema declares.
pub(super) fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

/// The schema of one field: declared, or that of every value of a map.
pub(super) fn child<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let declared = properties(schema).and_then(|properties| properties.get(name));
    declared.or_else(|| {
        schema
            .get("additionalProperties")
            .filter(|values| values.is_object())
    })
}

/// Integers beyond 2^53 are not exact as floats, and no limit of ours is near.
#[expect(
    clippy::cast_possible_truncation,
    reason = "whole and small, checked first"
)]
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nulls_go_and_defaults_come() {
        let schema = json!({"properties": {
            "plain": {"type": "string"},
            "given": {"type": "integer", "default": 1},
            "object": {"default": {"a": 1, "b": 2}, "properties": {"a": {"default": 1}, "b": {"default": 2}}},
            "map": {"additionalProperties": {"type": "string"}},
            "list": {"items": {"properties": {"value": {"default": ""}}}},
        }});
        let mut value = json!({
            "plain": null, "given": null, "object": {"b": 5, "a": null}, "map": {"x": null, "y": "z"},
            "list": [{}, {"value": "v"}], "unknown": null,
        });
        fill(&schema, &mut value);
        let expected = json!({
            "given": 1, "object": {"a": 1, "b": 5}, "map": {"y": "z"}, "list": [{"value": ""}, {"value": "v"}],
            "unknown": null,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn whole_floats_are_integers() {
        let schema = json!({"items": {"type": "integer"}});
        let mut value = json!([1.0, -2.0, 1.5, 1e300, 7]);
        fill(&schema, &mut value);
        assert_eq!(value, json!([1, -2, 1.5, 1e300, 7]));
    }
}
