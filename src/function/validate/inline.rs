//! The rule about names of inline files that costs more in CEL than an API server allows.

use serde_json::{Map, Value};

use super::error::{FieldError, field};

const INLINE: &str = "spec.source.inline";

/// Every file that lies in another file.
pub(super) fn check(object: &Value) -> Vec<FieldError> {
    let files = object.pointer("/spec/source/inline");
    let Some(files) = files.and_then(Value::as_object) else {
        return Vec::new();
    };
    files
        .keys()
        .filter_map(|name| Some((name, parent(files, name)?)))
        .map(|(name, parent)| {
            let message = format!("{parent:?} is a file and cannot be a directory too: rename one");
            FieldError::invalid(field(INLINE, name), &Value::from(name.as_str()), message)
        })
        .collect()
}

/// The file in which a name lies, if there is one.
fn parent<'a>(files: &Map<String, Value>, name: &'a str) -> Option<&'a str> {
    let mut parents = name.match_indices('/').map(|(at, _)| &name[..at]);
    parents.find(|parent| files.contains_key(*parent))
}
