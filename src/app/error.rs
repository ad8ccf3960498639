//! Why the server did not start, or ended.

use std::{io, path::PathBuf};

use super::doors::DoorError;
use crate::{
    builder::docker::EngineHost, config::ConfigError, kubernetes::NoCluster, store::StoreError,
    stream::tls::PinError,
};

/// Why the server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NoCluster(#[from] NoCluster),
    #[error(
        "no Docker engine at {}: {message}\nInstall and start one (on Debian and Ubuntu: apt-get install docker.io), join \
         the docker group, or run without isolation: faas start --runtime process", socket.display()
    )]
    NoEngine { socket: PathBuf, message: String },
    #[error(
        "no Docker engine at --build-host {host}: {message}\nStart one there, or leave --build-host out: what runs no commands \
         needs none"
    )]
    NoBuildHost { host: EngineHost, message: String },
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error("cannot use {}: {error}", path.display())]
    Path { path: PathBuf, error: io::Error },
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    #[error("left before everything had ended: calls that ran were cut; {0}")]
    Left(&'static str),
    #[error("ended before it had anything to control")]
    Waited,
    #[error("{0} controls this cluster's functions now")]
    Replaced(String),
    #[error("task {0:?} ended unexpectedly; this is a bug")]
    TaskEnded(&'static str),
}
