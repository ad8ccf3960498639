//! Manifest files as commands take them: files, directories (not what lies deeper) and standard input.

use std::path::{Path, PathBuf};

use super::{error::CliError, invoke};
use crate::{
    directory::is_manifest,
    function::manifest::{ManifestError, Parsed},
};

/// What a file defines.
pub struct File {
    pub path: PathBuf,
    pub documents: Vec<Parsed>,
}

impl File {
    /// Everything that is wrong in it, as `file:line: name: error`.
    pub fn complaints(&self) -> Vec<String> {
        let path = self.path.display();
        if self.documents.is_empty() {
            return vec![format!("{path}:1: there is no Function in it")];
        }
        self.documents
            .iter()
            .flat_map(|parsed| complaints(&path.to_string(), parsed))
            .collect()
    }
}

/// How a file's text is read.
pub type Parse = fn(&[u8]) -> Vec<Parsed>;

/// Reads all that was named, directories in sorted order.
pub fn read(paths: &[PathBuf], parse: Parse) -> Result<Vec<File>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            for path in manifests_in(path)? {
                files.push(file(path, parse)?);
            }
        } else {
            files.push(file(path.clone(), parse)?);
        }
    }
    Ok(files)
}

fn file(path: PathBuf, parse: Parse) -> Result<File, CliError> {
    let documents = parse(&invoke::read(&path)?);
    Ok(File { path, documents })
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

fn complaints(path: &str, parsed: &Parsed) -> Vec<String> {
    let name = parsed
        .key
        .as_ref()
        .map(|key| format!("{key}: "))
        .unwrap_or_default();
    let line = parsed.line;
    match &parsed.verdict {
        Ok(_) => Vec::new(),
        Err(ManifestError::Syntax {
            line,
            column,
            message,
        }) => vec![format!("{path}:{line}:{column}: {message}")],
        Err(ManifestError::Invalid(errors)) => errors
            .iter()
            .map(|e| format!("{path}:{line}: {name}{e}"))
            .collect(),
        Err(error @ ManifestError::TooLarge(_)) => vec![format!("{path}:{line}: {error}")],
    }
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
        };
        assert_eq!(file.complaints(), ["f.yaml:1: there is no Function in it"]);
    }
}
