//! The secrets that Functions name: directories of this host, or Secrets of the Function's own namespace in a cluster.

pub mod cluster;
mod directory;

use std::{io, path::PathBuf};

use tokio::task::spawn_blocking;

use self::cluster::ClusterSecrets;
use crate::runtime::SecretFile;

/// Where secrets are.
#[derive(Clone)]
pub enum Secrets {
    /// Nowhere.
    None,
    /// A directory a secret, a file a key.
    Directory(PathBuf),
    Cluster(ClusterSecrets),
}

impl Secrets {
    /// The files of one secret, sorted by key.
    ///
    /// # Errors
    /// Why it cannot be had, and what helps.
    pub async fn read(&self, namespace: &str, name: &str) -> Result<Vec<SecretFile>, String> {
        match self {
            Self::None => Err(format!(
                "secret {name:?} is asked for, but `faas start` was given no --secrets-dir"
            )),
            Self::Directory(root) => {
                let (owned, dir) = ((root.clone(), name.to_owned()), root.join(name));
                let read = spawn_blocking(move || directory::read(&owned.0, &owned.1)).await;
                let read = read.map_err(io::Error::other).flatten();
                read.map_err(|error| format!("secret {name:?}: {}: {error}", dir.display()))
            }
            Self::Cluster(secrets) => secrets.read(namespace, name).await,
        }
    }
}
