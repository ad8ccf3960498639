//! A directory of code as it is uploaded: with the little that its `fn.yaml` says, it stands for a Function.

use serde_json::{Value, json};

use super::{
    API_VERSION, DEFAULT_NAMESPACE, Function, FunctionKey, KIND,
    crd::Language,
    manifest::{self, ManifestError},
    validate::{FieldError, field, validate},
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
    let elsewhere = other_sources(&spec);
    if !elsewhere.is_empty() {
        return Err(ManifestError::Invalid(elsewhere).as_written(text, at));
    }
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

/// Sources that are not the directory itself: nobody would see that they are not what is deployed.
fn other_sources(spec: &Value) -> Vec<FieldError> {
    let source = spec.get("source").and_then(Value::as_object);
    let others = source.into_iter().flatten();
    others
        .filter(|(kind, _)| *kind != "directory")
        .map(|(kind, value)| {
            let message = "the source is the directory of the fn.yaml: remove this, or deploy it as a manifest";
            FieldError::invalid(field("spec.source", kind), value, message)
        })
        .collect()
}

/// The name that the `fn.yaml` of a directory gives its Function, where it is a whole manifest.
#[must_use]
pub fn name(fn_yaml: &[u8]) -> Option<FunctionKey> {
    let manifest = manifest::value(fn_yaml).ok()?;
    manifest.get("kind")?;
    let said = |field| manifest.pointer(field)?.as_str();
    let namespace = said("/metadata/namespace").unwrap_or(DEFAULT_NAMESPACE);
    FunctionKey::new(namespace, said("/metadata/name")?).ok()
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
            (
                Some("kind: Function\nspec: {source: {directory: .}}\n"),
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
                "source: {inline: {index.js: x}}",
                "spec.source.inline: Invalid value: object: the source is the directory",
            ),
            (
                "kind: Function\nspec: {source: {image: x}}",
                "spec.source.image: Invalid value: \"x\": the source is the directory",
            ),
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
    fn a_whole_manifest_gives_the_name() {
        for (text, expected) in [
            ("", None),
            ("metadata: {name: a}", None),
            ("kind: Function\nmetadata: {name: a}", Some("a")),
            (
                "kind: Function\nmetadata: {name: a, namespace: b}",
                Some("b/a"),
            ),
            ("kind: Function\nmetadata: {name: A}", None),
        ] {
            let name = name(text.as_bytes()).map(|key| key.to_string());
            assert_eq!(name.as_deref(), expected, "{text}");
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
