//! Where Functions and their status live. [`embedded`] keeps them in a SQLite file and behaves as an API server does:
//! versioned objects, generations, finalizers and a watch. [`state`] guards the directory that the file is in.
//!
//! This file holds the words that every store and every writer of one share.

pub mod embedded;
mod object;
pub mod state;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;

pub use self::object::Object;
use crate::function::{
    FILE, Function, FunctionKey, KeyError, MANAGED_BY, SOURCE_DIGEST, SOURCE_ERROR,
};

/// Finalizer that every object of the embedded store carries: it goes once nothing of the Function runs any more.
pub const FINALIZER: &str = "functions.faas.dev/cleanup";
/// Who manages an object, and alone may change or delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// A manifest in a watched directory.
    Directory {
        /// Path of the manifest.
        file: PathBuf,
    },
    /// Callers of the management API, the CLI among them.
    Api,
}

impl Manager {
    /// Who manages `function`, by its annotations; without them it is the API's.
    #[must_use]
    pub fn of(function: &Function) -> Self {
        let annotation = |name| {
            function
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(name))
        };
        match annotation(MANAGED_BY).map(String::as_str) {
            Some("directory") => Self::Directory {
                file: annotation(FILE).map(PathBuf::from).unwrap_or_default(),
            },
            _ => Self::Api,
        }
    }

    /// Whether both are the same writer. The directory writer may move a Function from file to file.
    #[must_use]
    pub fn is_same_writer(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Directory { .. }, Self::Directory { .. }) | (Self::Api, Self::Api)
        )
    }

    /// Writes this manager into annotations. What only the directory writer may say is taken out of everybody else's.
    fn sign(&self, annotations: &mut BTreeMap<String, String>) {
        match self {
            Self::Directory { file } => {
                annotations.insert(MANAGED_BY.into(), "directory".into());
                annotations.insert(FILE.into(), file.display().to_string());
            }
            Self::Api => {
                annotations.insert(MANAGED_BY.into(), "api".into());
                for name in [FILE, SOURCE_DIGEST, SOURCE_ERROR] {
                    annotations.remove(name);
                }
            }
        }
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { file } => write!(f, "the file {}", file.display()),
            Self::Api => f.write_str("the API"),
        }
    }
}

/// What an apply did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Applied {
    /// The object is new.
    Created,
    /// The object was there and has changed.
    Configured,
    /// The object was there and is equal.
    Unchanged,
}

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::Display, strum::EnumString)]
pub enum EventType {
    Normal,
    Warning,
}

/// Something that happened to a Function, as often as it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventRecord {
    /// When it happened last.
    pub time: Timestamp,
    /// Whether it is good news.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// Why, in one `CamelCase` word.
    pub reason: String,
    /// What, in a sentence.
    pub message: String,
    /// How often it happened since the Function was created.
    pub count: u32,
}

impl EventRecord {
    /// Something that happened once, just now.
    pub fn new(kind: EventType, reason: &str, message: impl Into<String>, now: Timestamp) -> Self {
        Self {
            time: now,
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            count: 1,
        }
    }
}

/// Something learnt about a revision that a restart should not have to learn again.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    strum::IntoStaticStr,
    strum::EnumString,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Fact {
    /// One instance has started and accepted a connection.
    Proven,
    /// Its instances end after one answer.
    SingleCall,
    /// Its instances stay after an answer.
    Stays,
}

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer holds the object: change it there.
    #[error("function {key} is managed by {holder}: change it there, or delete it there first")]
    Managed { key: FunctionKey, holder: Manager },
    /// The object is going away; the name is free once its instances have stopped.
    #[error("function {key} is being deleted: try again when it is gone")]
    Deleting { key: FunctionKey },
    /// There is no such object.
    #[error("function {key} does not exist")]
    NotFound { key: FunctionKey },
    /// The object's name or namespace is none; a validated object's is.
    #[error(transparent)]
    Name(#[from] KeyError),
    /// Another `faas` uses the state directory.
    #[error(
        "another faas holds the state directory {}: {holder}; stop it, or start with another --state-dir",
        directory.display()
    )]
    Held { directory: PathBuf, holder: String },
    /// The file was written by a newer `faas`.
    #[error(
        "{} was written by a newer faas (its format is {found}, this one knows {known}): use the newer faas, or another \
         --state-dir",
        file.display()
    )]
    Newer {
        file: PathBuf,
        found: i64,
        known: i64,
    },
    /// The file does not hold what it should.
    #[error("{} is damaged: {message}; restore it, or move it away to start anew", file.display())]
    Damaged { file: PathBuf, message: String },
    /// There is no room for the write. Nothing has changed.
    #[error("the store {} cannot be written, its disk is full: make room, and try again", file.display())]
    Full { file: PathBuf },
    /// SQLite failed otherwise: a lost file, a broken disk.
    #[error("the store {} failed: {source}", file.display())]
    Database {
        file: PathBuf,
        source: rusqlite::Error,
    },
    /// The file system failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl StoreError {
    /// The error in one word, for conditions, events, codes and metric labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Managed { .. } => "Conflict",
            Self::Deleting { .. } => "Deleting",
            Self::NotFound { .. } => "NotFound",
            Self::Name(_) => "InvalidSpec",
            Self::Held { .. } => "StateHeld",
            Self::Full { .. } => "NoSpace",
            Self::Newer { .. } | Self::Damaged { .. } | Self::Database { .. } | Self::Io { .. } => {
                "StoreUnavailable"
            }
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_read_back_from_its_signature() {
        for manager in [
            Manager::Api,
            Manager::Directory {
                file: "functions/sum.yaml".into(),
            },
        ] {
            let mut function: Function =
                serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {"source": {}}}))
                    .unwrap();
            manager.sign(function.metadata.annotations.get_or_insert_default());
            assert_eq!(Manager::of(&function), manager);
        }
    }

    #[test]
    fn only_the_directory_may_name_a_digest() {
        let forged = || BTreeMap::from([(SOURCE_DIGEST.to_owned(), "sha256:1".to_owned())]);
        let (mut api, mut directory) = (forged(), forged());
        Manager::Api.sign(&mut api);
        Manager::Directory { file: "a".into() }.sign(&mut directory);
        assert!(!api.contains_key(SOURCE_DIGEST));
        assert!(directory.contains_key(SOURCE_DIGEST));
    }
}
