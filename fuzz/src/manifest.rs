//! Manifest text → objects → verdicts, as YAML and as JSON.

use faas::function::{
    Function, FunctionKey, folder,
    manifest::{self, ManifestError, Parsed},
    validate::{FieldError, validate},
};
use serde_json::Value;

use super::assert_message;

/// Most wrong fields that are told of one object.
const MOST_ERRORS: usize = 101;

/// The bytes are a file with manifests, or a `fn.yaml`.
pub fn check(bytes: &[u8]) {
    let parsed = manifest::parse(bytes);
    for parsed in &parsed {
        check_parsed(parsed);
    }
    let value = manifest::value(bytes);
    match &value {
        Err(error) => {
            check_error(error);
            // A file may have several documents, a request may not.
            let several = bytes.windows(3).any(|line| line == b"---");
            let is_json = bytes.starts_with(b"{") && !several;
            assert!(!is_json || parsed.iter().all(|p| p.verdict.is_err()));
        }
        Ok(value) => check_ways(value, &parsed),
    }
    check_folder(bytes);
}

fn check_parsed(parsed: &Parsed) {
    match &parsed.verdict {
        Err(error) => check_error(error),
        Ok(function) => {
            let key = FunctionKey::try_from(function).expect("a name that was judged");
            assert_eq!(parsed.key.as_ref(), Some(&key));
            check_again(function);
        }
    }
}

/// What was accepted is the same after it was written and read, in either way.
fn check_again(function: &Function) {
    let value = serde_json::to_value(function).expect("JSON");
    assert_eq!(validate(value).as_ref(), Ok(function));
    let json = serde_json::to_vec_pretty(function).expect("JSON");
    assert_eq!(only(&json).as_ref(), Ok(function));
    let yaml = serde_saphyr::to_string(function).expect("YAML");
    assert_eq!(only(yaml.as_bytes()).as_ref(), Ok(function), "{yaml}");
}

fn only(text: &[u8]) -> Result<Function, ManifestError> {
    let mut parsed = manifest::parse(text);
    assert_eq!(parsed.len(), 1, "one document");
    parsed.remove(0).verdict
}

/// A body of a request, a file, and the same as JSON are judged alike. Only text shows how a wrong value was written.
fn check_ways(value: &Value, parsed: &[Parsed]) {
    let is_list = matches!(value["kind"].as_str(), Some("List" | "FunctionList"));
    if value.is_null() || is_list {
        return;
    }
    let judged = unwritten(manifest::judge(1, value.clone()));
    if let [parsed] = parsed {
        let parsed = unwritten(parsed.clone());
        assert_eq!(
            (&parsed.key, &parsed.verdict),
            (&judged.key, &judged.verdict)
        );
    }
    if value.is_object() {
        let json = manifest::parse(value.to_string().as_bytes());
        let json: Vec<_> = json.into_iter().map(unwritten).collect();
        assert_eq!(json, [judged], "{value}");
    }
}

/// Without the values that errors show.
fn unwritten(mut parsed: Parsed) -> Parsed {
    if let Err(ManifestError::Invalid(errors)) = &mut parsed.verdict {
        for error in errors {
            error.value = None;
        }
    }
    parsed
}

/// The text as the `fn.yaml` of a directory.
fn check_folder(bytes: &[u8]) {
    let _ = folder::is_manifest(bytes);
    let key = "sum".parse().expect("a name");
    match folder::function(&key, Some(bytes), false, &"0".repeat(64)) {
        Ok(function) => assert_eq!(FunctionKey::try_from(&function), Ok(key)),
        Err(error) => check_error(&error),
    }
}

fn check_error(error: &ManifestError) {
    match error {
        ManifestError::TooLarge(size) => assert!(*size > manifest::MAX_SIZE),
        ManifestError::Syntax {
            line,
            column,
            message,
        } => {
            assert!(*line > 0 && *column > 0 && !message.is_empty());
            assert_message(message, 1024);
        }
        ManifestError::Invalid(errors) => {
            assert!((1..=MOST_ERRORS).contains(&errors.len()));
            errors.iter().for_each(check_field);
        }
    }
}

fn check_field(error: &FieldError) {
    assert_message(&error.to_string(), 2048);
}
