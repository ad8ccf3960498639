//! Why a store did not do what it was asked for.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::Manager;
use crate::function::{FunctionKey, KeyError};

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
    /// There is a store, and nothing says whose instances and images are those of its Functions.
    #[error(
        "the file \"owner\" of the state directory {} is gone, and its store does not tell the owner: restore the file, or \
         write the owner into it, which `docker images 'faas.local/*'` and `docker ps` with `--filter label=faas.dev/owner` \
         show; or move store.db away to start anew",
        directory.display()
    )]
    OwnerLost { directory: PathBuf },
    /// There is no room for the write. Nothing has changed.
    #[error("the store {} cannot be written, its disk is full: make room, and try again", file.display())]
    Full { file: PathBuf },
    /// SQLite failed otherwise: a lost file, a broken disk.
    #[error("the store {} failed: {source}", file.display())]
    Database {
        file: PathBuf,
        source: rusqlite::Error,
    },
    /// Others hold fields that were to be written.
    #[error("cannot {action} {what}: {message}; change it where it is managed")]
    Conflict {
        action: &'static str,
        what: String,
        message: String,
    },
    /// The API server judged it, and refused.
    #[error("cannot {action} {what}: {message}")]
    Invalid {
        action: &'static str,
        what: String,
        message: String,
    },
    /// The API server cannot be reached, failed, or does not allow it; its words.
    #[error("cannot {action} {what}: the API server: {message}")]
    Cluster {
        action: &'static str,
        what: String,
        message: String,
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
            Self::Managed { .. } | Self::Conflict { .. } => "Conflict",
            Self::Deleting { .. } => "Deleting",
            Self::NotFound { .. } => "NotFound",
            Self::Name(_) | Self::Invalid { .. } => "InvalidSpec",
            Self::Held { .. } => "StateHeld",
            Self::Full { .. } => "NoSpace",
            Self::Newer { .. }
            | Self::Damaged { .. }
            | Self::OwnerLost { .. }
            | Self::Database { .. }
            | Self::Cluster { .. }
            | Self::Io { .. } => "StoreUnavailable",
        }
    }

    /// What the API server said to a request about a Function.
    pub(super) fn of(action: &'static str, key: &FunctionKey) -> impl FnOnce(kube::Error) -> Self {
        let key = key.clone();
        move |error| match error {
            kube::Error::Api(status) if status.is_not_found() => Self::NotFound { key },
            error => Self::cluster(action, format!("function {key}"))(error),
        }
    }

    /// What the API server said to a request.
    pub(super) fn cluster(
        action: &'static str,
        what: impl fmt::Display,
    ) -> impl FnOnce(kube::Error) -> Self {
        let what = what.to_string();
        move |error| match error {
            kube::Error::Api(status) if status.is_conflict() => Self::Conflict {
                action,
                what,
                message: status.message,
            },
            kube::Error::Api(status) if status.is_invalid() => Self::Invalid {
                action,
                what,
                message: status.message,
            },
            kube::Error::Api(status) => Self::Cluster {
                action,
                what,
                message: status.message,
            },
            error => Self::Cluster {
                action,
                what,
                message: error.to_string(),
            },
        }
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
