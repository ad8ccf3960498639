//! Manifest files as commands take them: files, directories (not what lies deeper) and standard input.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
};

use super::{error::CliError, invoke};
use crate::{
    directory::is_manifest,
    function::{
        Function, FunctionKey,
        folder::{self, FN_YAML},
        manifest::{ManifestError, Parsed},
    },
};

/// What a file defines.
pub struct File {
    pub path: PathBuf,
    pub documents: Vec<Parsed>,
    /// The verdict on a `fn.yaml` that is no manifest: it belongs to the code beside it.
    pub folder: Option<Result<Function, ManifestError>>,
    /// Why it could not be read.
    pub unreadable: Option<CliError>,
}

impl File {
    /// Everything that is wrong in it, as `file:line: name: error`.
    pub fn complaints(&self) -> Vec<String> {
        if let Some(error) = &self.unreadable {
            return vec![error.to_string()];
        }
        let path = self.path.display();
        if self.folder.is_some() {
            return vec![format!(
                "{path}:1: this is no manifest but belongs to the code beside it: deploy that directory with `faas build`"
            )];
        }
        if self.documents.is_empty() {
            return vec![format!("{path}:1: there is no Function in it")];
        }
        self.documents
            .iter()
            .filter_map(|parsed| {
                let name = parsed.key.as_ref().map(|key| format!("{key}: "));
                let error = parsed.verdict.as_ref().err();
                error.map(|e| self.told(parsed.line, &name.unwrap_or_default(), e))
            })
            .flatten()
            .collect()
    }

    /// What is wrong from a line on, with its place and the name of whose it is.
    pub fn told(&self, line: usize, name: &str, error: &ManifestError) -> Vec<String> {
        let path = self.path.display();
        match error {
            ManifestError::Syntax {
                line,
                column,
                message,
            } => vec![format!("{path}:{line}:{column}: {message}")],
            ManifestError::Invalid(errors) => errors
                .iter()
                .map(|e| format!("{path}:{line}: {name}{e}"))
                .collect(),
            ManifestError::TooLarge(_) => vec![format!("{path}:{line}: {error}")],
        }
    }
}

/// Functions that are defined twice, each with both places: who applies them would not see which one counts.
pub fn doubles(files: &[File]) -> Vec<String> {
    let mut places: HashMap<&FunctionKey, (&Path, usize)> = HashMap::new();
    let mut doubles = Vec::new();
    for file in files {
        for parsed in &file.documents {
            let Some(key) = &parsed.key else { continue };
            let (path, line) = (file.path.display(), parsed.line);
            match places.entry(key) {
                Entry::Vacant(place) => {
                    place.insert((&file.path, line));
                }
                Entry::Occupied(place) => {
                    let (first, at) = place.get();
                    doubles.push(format!(
                        "{path}:{line}: {key} is defined already, at {}:{at}: remove or rename one",
                        first.display()
                    ));
                }
            }
        }
    }
    doubles
}

/// How a file's text is read.
pub type Parse = fn(&[u8]) -> Vec<Parsed>;

/// Reads all that was named, directories in sorted order. What cannot be read does not hide the others.
pub fn read(paths: &[PathBuf], parse: Parse) -> Vec<File> {
    let mut files = Vec::new();
    for path in paths {
        let paths = if path.is_dir() {
            manifests_in(path)
        } else {
            Ok(vec![path.clone()])
        };
        match paths {
            Ok(paths) => files.extend(paths.into_iter().map(|path| file(path, parse))),
            Err(error) => files.push(unreadable(path.clone(), error)),
        }
    }
    files
}

fn file(path: PathBuf, parse: Parse) -> File {
    let text = match invoke::read(&path) {
        Ok(text) => text,
        Err(error) => return unreadable(path, error),
    };
    let folder = folder_of(&path, &text);
    let documents = if folder.is_some() {
        Vec::new()
    } else {
        parse(&text)
    };
    File {
        path,
        documents,
        folder,
        unreadable: None,
    }
}

fn unreadable(path: PathBuf, error: CliError) -> File {
    File {
        path,
        documents: Vec::new(),
        folder: None,
        unreadable: Some(error),
    }
}

/// The verdict on the directory whose `fn.yaml` this is, if it is one.
fn folder_of(path: &Path, text: &[u8]) -> Option<Result<Function, ManifestError>> {
    if path.file_name()? != FN_YAML || folder::is_manifest(text) {
        return None;
    }
    // Its name and its archive are the upload's to say.
    let key = "name".parse().ok()?;
    let has_dockerfile = path.with_file_name("Dockerfile").is_file();
    let archive = "0".repeat(64);
    let verdict = folder::function(&key, Some(text), has_dockerfile, &archive);
    Some(verdict.map_err(|mut error| {
        if let ManifestError::Invalid(errors) = &mut error {
            // The whole file is a spec.
            for error in errors {
                error.path = error.path.trim_start_matches("spec.").to_owned();
            }
        }
        error
    }))
}

fn manifests_in(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(CliError::read(dir))? {
        let path = entry.map_err(CliError::read(dir))?.path();
        let named = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_manifest);
        if named && path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(CliError::Failed(format!(
            "there is no *.yaml or *.yml file in {}",
            dir.display()
        )));
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::manifest;

    #[test]
    fn everything_wrong_is_told_with_its_place() {
        let text = b"apiVersion: faas.dev/v1alpha1\nkind: Function\nmetadata: {name: a}\nspec: {source: {inline: {f: x}}, color: 1}\n---\na: [\n";
        let file = File {
            path: "f.yaml".into(),
            documents: manifest::parse(text),
            folder: None,
            unreadable: None,
        };
        let complaints = file.complaints();
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(
            complaints
                .iter()
                .any(|c| c.starts_with("f.yaml:1: a: spec.language: Required value")),
            "{complaints:?}"
        );
        assert!(
            complaints
                .iter()
                .any(|c| c.starts_with("f.yaml:1: a: spec.color: Unknown field")),
            "{complaints:?}"
        );
        assert!(
            complaints[2].starts_with("f.yaml:7:") || complaints[2].starts_with("f.yaml:6:"),
            "{complaints:?}"
        );
    }

    #[test]
    fn an_empty_file_is_wrong_where_a_function_was_asked_for() {
        let file = File {
            path: "f.yaml".into(),
            documents: Vec::new(),
            folder: None,
            unreadable: None,
        };
        assert_eq!(file.complaints(), ["f.yaml:1: there is no Function in it"]);
    }
}
