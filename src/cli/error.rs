//! Why a command failed, for the one who typed it.

use std::{io, path::PathBuf};

use super::client::ClientError;
use crate::{
    access::{book::BookError, secret::SecretError},
    app::AppError,
    builder::archive::ArchiveError,
    config::ConfigError,
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Tokens(#[from] BookError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The directory's files are no source.
    #[error(transparent)]
    Source(#[from] ArchiveError),
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("cannot write {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    /// Standard output does not take more.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    /// What happened and what to do about it.
    #[error("{0}")]
    Failed(String),
    /// It has been said already, in a form of its own.
    #[error("the command failed")]
    Told,
}

impl CliError {
    /// For `map_err`: this path cannot be read.
    pub fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Read { path, error }
    }
}
