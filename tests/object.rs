//! The object as users meet it: the CRD, and a corpus of manifests with their verdicts.
//!
//! * `corpus/good/*.yaml`: every document is a Function.
//! * `corpus/bad/*.yaml`: the first line names the paths of all errors, in order.
//! * `corpus/yaml/*.yaml`: text that cannot be read; the first line names line and column as an editor shows them (0 for any)
//!   and words of the message. That line is not part of the text.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking; UPDATE=1 is read from the environment"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use faas::builder::archive::{Context, Limits};
use faas::function::crd::{self, Function};
use faas::function::manifest::{ManifestError, Parsed, parse, value};
use faas::function::validate::{FieldError, validate};
use proptest::prelude::*;
use serde_json::{Value, json};

/// `UPDATE=1 cargo test --test object` writes the file anew.
#[test]
fn the_committed_crd_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/function.yaml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, crd::crd_yaml()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(
        committed == crd::crd_yaml(),
        "crds/function.yaml is stale: run `faas crd > crds/function.yaml`"
    );
}

/// Every schema of a field, with its path.
fn fields<'a>(path: String, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        fields(format!("{path}.{name}"), field, found);
    }
    if schema.get("items").is_some() {
        fields(format!("{path}[]"), &schema["items"], found);
    }
    found.push((path, schema));
}

#[test]
fn every_field_is_described_and_limited() {
    let definition = serde_json::to_value(crd::definition()).unwrap();
    let mut found = Vec::new();
    fields(
        String::new(),
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        &mut found,
    );
    assert!(found.len() > 50);
    let mut failures = Vec::new();
    for (path, schema) in found {
        let has = |keyword: &str| schema.get(keyword).is_some();
        let limited = match schema["type"].as_str().unwrap() {
            "string" => has("maxLength") || has("enum") || schema["format"] == "date-time",
            "array" => has("maxItems") && has("x-kubernetes-list-type"),
            "object" => has("properties") || has("maxProperties"),
            "integer" => (has("minimum") && has("maximum")) || path.starts_with(".status"),
            _ => true,
        };
        if !limited {
            failures.push(format!("{path} has no limit"));
        }
        if !has("description") {
            failures.push(format!("{path} has no description"));
        }
    }
    assert_none(&failures);
}

fn corpus(kind: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(kind);
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

/// What a file of the corpus expects, and the text that follows.
fn expectation(text: &[u8]) -> (String, &[u8]) {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap();
    let expected = std::str::from_utf8(&text[..end])
        .unwrap()
        .strip_prefix("# ")
        .unwrap();
    (expected.to_owned(), &text[end + 1..])
}

/// All failures of a corpus are told at once.
fn assert_none(failures: &[String]) {
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn good_objects_are_functions() {
    let corpus = corpus("good");
    assert!(corpus.len() >= 30);
    let mut failures = Vec::new();
    for (path, text) in corpus {
        let parsed = parse(&text);
        if parsed.is_empty() {
            failures.push(format!("{}: no document", path.display()));
        }
        for Parsed { key, verdict, .. } in parsed {
            match verdict {
                Err(error) => failures.push(format!("{}: {error}", path.display())),
                Ok(function) => {
                    assert!(key.is_some());
                    assert_eq!(function.status, None);
                    assert_eq!(again(&function), Ok(function), "{}", path.display());
                }
            }
        }
    }
    assert_none(&failures);
}

/// A typed object, written and judged again.
fn again(function: &Function) -> Result<Function, Vec<FieldError>> {
    validate(serde_json::to_value(function).unwrap())
}

#[test]
fn bad_objects_name_every_wrong_field() {
    let corpus = corpus("bad");
    assert!(corpus.len() >= 60);
    let mut failures = Vec::new();
    for (path, text) in corpus {
        let (expected, _) = expectation(&text);
        let errors: Vec<FieldError> = parse(&text)
            .into_iter()
            .filter_map(|parsed| match parsed.verdict {
                Err(ManifestError::Invalid(errors)) => Some(errors),
                Err(other) => {
                    failures.push(format!("{}: {other}", path.display()));
                    None
                }
                Ok(_) => None,
            })
            .flatten()
            .collect();
        let shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let mut paths: Vec<_> = shown
            .iter()
            .map(|error| error.split(": ").next().unwrap())
            .collect();
        paths.sort_unstable();
        let mut expected: Vec<_> = expected.split(' ').collect();
        expected.sort_unstable();
        if paths != expected {
            failures.push(format!(
                "{}: expected {expected:?}, got {shown:#?}",
                path.display()
            ));
        }
    }
    assert_none(&failures);
}

#[test]
fn broken_text_is_told_with_its_place() {
    let mut failures = Vec::new();
    for (path, text) in corpus("yaml") {
        let (expected, text) = expectation(&text);
        let (place, words) = expected.split_once(' ').unwrap_or((&expected, ""));
        let error = parse(text)
            .into_iter()
            .find_map(|parsed| match parsed.verdict {
                Err(error @ ManifestError::Syntax { .. }) => Some(error),
                _ => None,
            });
        let Some(ManifestError::Syntax {
            line,
            column,
            message,
        }) = error
        else {
            failures.push(format!("{}: was read", path.display()));
            continue;
        };
        let at = format!("{}:{column}", line + 1);
        let (want_line, want_column) = place.split_once(':').unwrap();
        let fits = [
            (want_line, (line + 1).to_string()),
            (want_column, column.to_string()),
        ]
        .iter()
        .all(|(want, got)| *want == "0" || want == got);
        if !fits || !message.to_lowercase().contains(&words.to_lowercase()) {
            failures.push(format!(
                "{}: expected {expected:?}, got {at} {message}",
                path.display()
            ));
        }
    }
    assert_none(&failures);
}

const MINIMAL: &str = "apiVersion: faas.dev/v1alpha1\nkind: Function\nmetadata: {name: sum}\nspec: {language: node, source: {directory: .}}\n";

#[test]
fn a_bad_file_name_is_shown_so_that_it_can_be_seen() {
    for (name, shown) in [
        (
            "a\nb",
            r#"spec.source.inline: Invalid value: "a\nb": file names"#,
        ),
        (
            "a\u{0}",
            r#"spec.source.inline: Invalid value: "a\u0000": file"#,
        ),
        (
            "../a",
            r#"spec.source.inline: Invalid value: "../a": file names"#,
        ),
        ("b/\u{9b}", r"spec.source.inline[b/\u{9b}]: Invalid value"),
    ] {
        let files = json!({"b": "", "index.js": "", name: ""});
        let object = json!({
            "apiVersion": "faas.dev/v1alpha1", "kind": "Function", "metadata": {"name": "sum"},
            "spec": {"language": "node", "source": {"inline": files}},
        });
        let errors = validate(object).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].to_string().starts_with(shown), "{}", errors[0]);
    }
}

#[test]
fn one_object_is_one_object() {
    for text in [
        format!("{MINIMAL}---\n{MINIMAL}"),
        format!("{MINIMAL}...\n{MINIMAL}"),
        format!("---\n{MINIMAL}---\n{MINIMAL}"),
    ] {
        let error = value(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("another document begins here"), "{error}");
    }
}

#[test]
fn a_bad_document_does_not_hide_the_good_ones() {
    let text = format!(
        "{MINIMAL}---\n{{ broken\n---\n{}---\nkind: [\n",
        MINIMAL.replace("sum", "other")
    );
    let verdicts: Vec<_> = parse(text.as_bytes())
        .into_iter()
        .map(|p| (p.line, p.key.map(|k| k.to_string()), p.verdict.is_ok()))
        .collect();
    let expected = [
        (1, Some("sum".to_owned()), true),
        (5, None, false),
        (7, Some("other".to_owned()), true),
        (12, None, false),
    ];
    assert_eq!(verdicts, expected);
}

#[test]
fn a_bad_object_still_names_its_function() {
    let text = MINIMAL
        .replace("node", "cobol")
        .replace("name: sum", "name: sum, namespace: team");
    let parsed = parse(text.as_bytes());
    assert_eq!(parsed[0].key.as_ref().unwrap().to_string(), "team/sum");
    assert!(parsed[0].verdict.is_err());
}

#[test]
fn text_without_documents_defines_nothing() {
    for text in [
        "",
        "\n\n",
        "# only words\n",
        "---\n---\n# x\n---\n",
        "\u{feff}",
        "...\n",
        "null\n",
        "%YAML 1.2\n---\n",
    ] {
        assert_eq!(parse(text.as_bytes()), [], "{text:?}");
    }
}

#[test]
fn a_file_over_a_mebibyte_is_not_read() {
    let text = format!("{MINIMAL}# {}", "x".repeat(1024 * 1024));
    let parsed = parse(text.as_bytes());
    assert_eq!(parsed.len(), 1);
    assert_eq!(parsed[0].verdict, Err(ManifestError::TooLarge(text.len())));
}

#[test]
fn defaults_are_those_of_the_design() {
    let function = parse(MINIMAL.as_bytes()).remove(0).verdict.unwrap();
    let expected = json!({
        "language": "node",
        "source": {"directory": "."},
        "resources": {"cpu": "500m", "memory": "128Mi", "pids": 128, "tmp": "64Mi"},
        "network": "none",
        "scale": {"min": 0, "max": 10, "concurrency": 16, "idleAfterSeconds": 300},
        "timeoutSeconds": 30,
        "startupTimeoutSeconds": 20,
    });
    assert_eq!(serde_json::to_value(&function.spec).unwrap(), expected);
    let with_build = format!(
        "{} build: {{}}}}\n",
        MINIMAL.trim_end().strip_suffix('}').unwrap().to_owned() + ","
    );
    let function = parse(with_build.as_bytes()).remove(0).verdict.unwrap();
    assert_eq!(function.spec.build.unwrap().timeout_seconds, 600);
}

fn object() -> Value {
    json!({
        "apiVersion": "faas.dev/v1alpha1", "kind": "Function", "metadata": {"name": "sum"},
        "spec": {"language": "node", "source": {"inline": {"index.js": ""}}},
    })
}

/// The minimal object with one value set; missing objects on the way are made.
fn with(path: &[&str], value: Value) -> Value {
    let mut object = object();
    let mut place = &mut object;
    for name in path {
        place = &mut place[*name];
    }
    *place = value;
    object
}

#[test]
fn sizes_are_limited_to_the_byte() {
    let text = |size| Value::from("x".repeat(size));
    let inline = ["spec", "source", "inline"];
    let annotations = ["metadata", "annotations"];
    for (path, value, expected) in [
        (&inline[..], json!({"a": text(131_072)}), None),
        (&inline, json!({"a": text(65_536), "b": text(65_536)}), None),
        (
            &inline,
            json!({"a": text(65_536), "b": text(65_537)}),
            Some("spec.source.inline: Invalid value"),
        ),
        (
            &inline,
            json!({"a": "ä".repeat(65_537)}),
            Some("spec.source.inline: Invalid value"),
        ),
        (
            &inline,
            json!({"a": text(131_073)}),
            Some("spec.source.inline.a: Too long"),
        ),
        (&annotations, json!({"a": text(262_143)}), None),
        (
            &annotations,
            json!({"a": text(262_144)}),
            Some("metadata.annotations: Too long"),
        ),
        (
            &["spec", "env"],
            json!([{"name": "A", "value": text(32_768)}]),
            None,
        ),
        (
            &["spec", "env"],
            json!([{"name": "A", "value": text(32_769)}]),
            Some("spec.env[0].value: Too long"),
        ),
    ] {
        let errors = validate(with(path, value)).err();
        let first = errors.as_ref().map(|errors| errors[0].to_string());
        assert_eq!(first.is_some(), expected.is_some(), "{path:?}: {first:?}");
        assert!(
            first
                .unwrap_or_default()
                .starts_with(expected.unwrap_or_default())
        );
    }
}

#[test]
fn errors_read_as_kubectl_writes_them() {
    for (path, value, expected) in [
        (
            &["spec", "scale"][..],
            json!({"min": -1}),
            "spec.scale.min: Invalid value: -1: must be at least 0",
        ),
        (
            &["spec", "language"],
            json!("cobol"),
            "spec.language: Unsupported value: \"cobol\": supported values: \"node\", \"dockerfile\"",
        ),
        (
            &["spec", "env"],
            json!([{"name": "A", "value": 8080}]),
            "spec.env[0].value: Invalid value: 8080: must be of type string: write it in quotes",
        ),
        (
            &["spec", "timeoutSecond"],
            json!(1),
            "spec.timeoutSecond: Unknown field: did you mean \"timeoutSeconds\"?",
        ),
        (
            &["spec", "source", "image"],
            json!("x"),
            "spec.source: Invalid value: object: must have exactly one of inline, directory, archive, image",
        ),
        (
            &["metadata", "name"],
            Value::Null,
            "metadata.name: Required value: the function needs a name",
        ),
        (
            &["spec", "resources"],
            json!({"cpu": "65"}),
            "spec.resources.cpu: Invalid value: \"65\": must be from 10m to 64",
        ),
        (
            &["spec", "resources"],
            json!({"memory": "128MB"}),
            "spec.resources.memory: Invalid value: \"128MB\": must match ^[0-9]{1,13}(k|M|G|T|Ki|Mi|Gi|Ti)?$, for example \"128Mi\"",
        ),
    ] {
        let errors = validate(with(path, value)).unwrap_err();
        assert!(
            errors.iter().any(|error| error.to_string() == expected),
            "expected {expected}, got {errors:#?}"
        );
    }
}

#[test]
fn wrong_values_are_told_as_they_are_written() {
    let string = "must be of type string: write it in quotes";
    for (text, expected) in [
        (
            "metadata: {name: on}",
            format!("metadata.name: Invalid value: on: {string}"),
        ),
        (
            "metadata:\n  name: No\n",
            format!("metadata.name: Invalid value: No: {string}"),
        ),
        (
            "metadata: {name: 0o17}",
            format!("metadata.name: Invalid value: 0o17: {string}"),
        ),
        (
            "metadata: {labels: {a/b: 1.50}}",
            format!("metadata.labels[a/b]: Invalid value: 1.50: {string}"),
        ),
        (
            "x: &x yes\nmetadata: {name: *x}",
            format!("metadata.name: Invalid value: yes: {string}"),
        ),
        (
            "spec: {scale: {min: 0xFFFFFF}}",
            "spec.scale.min: Invalid value: 0xFFFFFF: must be at most 1000".to_owned(),
        ),
        (
            "spec: {scale: off}",
            "spec.scale: Invalid value: off: must be of type object, not boolean".to_owned(),
        ),
        (
            "metadata: {name: \"on\"}\nspec: {env: on}",
            "spec.env: Invalid value: on: must be of type array, not boolean".to_owned(),
        ),
    ] {
        let head = "apiVersion: faas.dev/v1alpha1\nkind: Function\n";
        let listed = text.replace('\n', "\n  ");
        let list = format!(
            "kind: List\nitems:\n- apiVersion: faas.dev/v1alpha1\n  kind: Function\n  {listed}"
        );
        for (text, prefix) in [(format!("{head}{text}"), ""), (list, "items[0].")] {
            let parsed = parse(text.as_bytes()).remove(0);
            let told = parsed.verdict.unwrap_err().to_string();
            let expected = format!("{prefix}{expected}");
            assert!(
                told.lines().any(|line| line == expected),
                "{text}\nexpected {expected}, got\n{told}"
            );
        }
    }
}

/// Names that the object uses, so that random objects get past the first error.
const NAMES: [&str; 24] = [
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "labels",
    "annotations",
    "language",
    "source",
    "inline",
    "directory",
    "image",
    "build",
    "args",
    "env",
    "value",
    "resources",
    "cpu",
    "scale",
    "min",
    "max",
    "timeoutSeconds",
];

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        prop::sample::select(vec![
            "faas.dev/v1alpha1",
            "Function",
            "node",
            "sum",
            "500m",
            "128Mi",
            "none",
            "./x"
        ])
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text,
    ];
    leaf.prop_recursive(6, 96, 8, |inner| {
        let name = prop_oneof![4 => prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..6).prop_map(|map: BTreeMap<String, Value>| json!(map)),
        ]
    })
}

/// A good object in which some places are overwritten by anything.
fn nearly_good() -> impl Strategy<Value = Value> {
    let place = prop::sample::select(vec![
        "/metadata",
        "/metadata/labels",
        "/metadata/name",
        "/spec",
        "/spec/language",
        "/spec/source",
        "/spec/source/inline",
        "/spec/build",
        "/spec/env",
        "/spec/env/0",
        "/spec/env/0/name",
        "/spec/secrets",
        "/spec/resources",
        "/spec/resources/cpu",
        "/spec/scale",
        "/spec/scale/min",
        "/spec/network",
        "/spec/timeoutSeconds",
    ]);
    prop::collection::vec((place, any_json()), 0..3).prop_map(|changes| {
        let text = std::fs::read(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/good/full.yaml"),
        )
        .unwrap();
        let mut object = serde_json::to_value(parse(&text).remove(0).verdict.unwrap()).unwrap();
        for (place, value) in changes {
            if let Some(place) = object.pointer_mut(place) {
                *place = value;
            }
        }
        object
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_value_gets_a_verdict(value in any_json()) {
        let _ = validate(value);
    }

    #[test]
    fn what_is_valid_is_typed_and_stays_the_same(value in nearly_good()) {
        match validate(value) {
            Ok(function) => prop_assert_eq!(again(&function), Ok(function)),
            Err(errors) => for error in errors {
                prop_assert_ne!(error.path, "", "the schema admits what the type does not: {}", error.message);
            }
        }
    }

    #[test]
    fn inline_files_that_are_valid_are_a_source(names in prop::collection::btree_set("[ab.ä\n\u{9b}/]{1,5}|(a/){30,33}b|ä{126,128}|A", 1..4)) {
        let files: BTreeMap<_, _> = names.iter().map(|name| (name, "")).collect();
        let object = json!({
            "apiVersion": "faas.dev/v1alpha1", "kind": "Function", "metadata": {"name": "sum"},
            "spec": {"language": "node", "source": {"inline": files}},
        });
        let verdict = validate(object);
        let files = names.iter().map(|name| (name, 0o644, Bytes::new()));
        let source = Context::from_files(files, &Limits::default());
        match verdict {
            Ok(_) => prop_assert!(source.is_ok(), "{source:?}"),
            Err(errors) => for error in errors {
                let shown = error.to_string();
                prop_assert!(shown.starts_with("spec.source.inline") && !shown.contains(char::is_control), "{shown:?}");
            }
        }
    }

    #[test]
    fn any_bytes_get_a_verdict(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&text);
    }

    #[test]
    fn any_text_of_yaml_signs_gets_a_verdict(text in "[-a:{}\\[\\]&*!|>'\"#%@ \n\t,?<0.~]{0,80}") {
        let _ = parse(text.as_bytes());
    }

    #[test]
    fn a_cut_manifest_never_becomes_another_function(end in 0..600_usize) {
        let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/good/full.yaml")).unwrap();
        for parsed in parse(&text[..end.min(text.len())]) {
            if let Ok(function) = parsed.verdict {
                prop_assert_eq!(function.metadata.name.as_deref(), Some("sum"));
            }
        }
    }
}
