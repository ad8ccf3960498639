//! A directory of code as it is uploaded: with the little that its `fn.yaml` says, it stands for a Function.

use serde_json::{Value, json};

use super::{
    API_VERSION, Function, FunctionKey, KIND,
    crd::Language,
    manifest::{self, ManifestError},
    validate::validate,
};

/// What the file is called.
pub const FN_YAML: &str = "fn.yaml";

/// The Function that an uploaded directory stands for: what its `fn.yaml` says of the spec, if it has one, and whose source
/// is the archive of this digest.
///
/// # Errors
/// When the file cannot be read, or the Function would be wrong.
pub fn function(
    key: &FunctionKey,
    fn_yaml: Option<&[u8]>,
    has_dockerfile: bool,
    archive: &str,
) -> Result<Function, ManifestError> {
    let text = fn_yaml.unwrap_or_default();
    let (at, mut spec) = settings(text)?;
    if has_dockerfile {
        spec["language"] = Language::Dockerfile.to_string().into();
    } else if spec.get("language").is_none() {
        spec["language"] = Language::Node.to_string().into();
    }
    spec["source"] = json!({"archive": format!("sha256:{archive}")});
    let object = json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": key.name(), "namespace": key.namespace()},
        "spec": spec,
    });
    validate(object).map_err(|errors| ManifestError::Invalid(errors).as_written(text, at))
}

/// Whether a text may be a manifest: only a manifest names its kind.
#[must_use]
pub fn is_manifest(text: &[u8]) -> bool {
    match manifest::value(text) {
        Ok(Value::Object(map)) => map.contains_key("kind") || map.contains_key("apiVersion"),
        // Several documents, for example.
        Ok(Value::Array(_)) | Err(_) => true,
        Ok(_) => false,
    }
}

/// What a `fn.yaml` says of the spec: one line `language: node`, more fields of a spec, or a whole manifest. With the place
/// that its text has in a manifest.
fn settings(text: &[u8]) -> Result<(&'static str, Value), ManifestError> {
    let (at, spec) = match manifest::value(text)? {
        Value::Object(mut map) if map.contains_key("kind") => {
            ("", map.remove("spec").unwrap_or_default())
        }
        value => ("spec", value),
    };
    match spec {
        Value::Object(map) => Ok((at, Value::Object(map))),
        Value::Null => Ok((at, json!({}))),
        _ => Err(ManifestError::Syntax {
            line: 1,
            column: 1,
            message: "must be a mapping such as `language: node`".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fn_yaml: Option<&str>, has_dockerfile: bool) -> Result<Function, String> {
        let (key, archive) = ("sum".parse().unwrap(), "0".repeat(64));
        function(&key, fn_yaml.map(str::as_bytes), has_dockerfile, &archive)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_directory_says_little_and_the_rest_is_known() {
        for (fn_yaml, has_dockerfile, language) in [
            (None, false, Language::Node),
            (None, true, Language::Dockerfile),
            (Some(""), false, Language::Node),
            (Some("language: node\n"), false, Language::Node),
            (Some("language: node\n"), true, Language::Dockerfile),
            (Some("timeoutSeconds: 5\n"), false, Language::Node),
            (
                Some("kind: Function\nspec: {timeoutSeconds: 5}\n"),
                false,
                Language::Node,
            ),
        ] {
            let function = of(fn_yaml, has_dockerfile).unwrap();
            assert_eq!(function.spec.language, Some(language), "{fn_yaml:?}");
            let five = fn_yaml.is_some_and(|text| text.contains('5'));
            assert_eq!(function.spec.timeout_seconds == 5, five, "{fn_yaml:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (fn_yaml, why) in [
            ("language: cobol", "spec.language: Unsupported value"),
            ("kind: Function\nspec: []", "must be a mapping"),
            ("lenguage: node", "spec.lenguage: Unknown field"),
            (
                "env: [{name: A, value: off}]",
                "spec.env[0].value: Invalid value: off",
            ),
            (
                "kind: Function\nspec: {env: [{name: A, value: off}]}",
                "spec.env[0].value: Invalid value: off",
            ),
            ("- node", "must be a mapping"),
            ("a: [", "line 1"),
        ] {
            let error = of(Some(fn_yaml), false).unwrap_err();
            assert!(error.contains(why), "{fn_yaml}: {error}");
        }
    }

    #[test]
    fn only_a_manifest_names_its_kind() {
        for (text, expected) in [
            ("language: node", false),
            ("", false),
            ("language: cobol", false),
            ("kind: Function", true),
            ("apiVersion: faas.dev/v1alpha1", true),
            ("a: 1\n---\nb: 2\n", true),
            ("a: [", true),
        ] {
            assert_eq!(is_manifest(text.as_bytes()), expected, "{text}");
        }
    }
}
