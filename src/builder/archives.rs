//! Where uploads are kept: in a directory of this machine, or in a registry, where any controller finds them.

use std::{collections::HashSet, time::SystemTime};

use async_trait::async_trait;

use super::archive::Context;

/// An upload and whose it is: namespace, and digest (64 hex digits).
pub type ArchiveId = (String, String);

/// Why an upload is not kept or not got.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArchivesError {
    /// There is no space for it.
    #[error("{0}")]
    Full(String),
    /// It cannot be had at this moment.
    #[error("{0}")]
    Unavailable(String),
}

/// Keeps uploads by what they hold.
#[async_trait]
pub trait Archives: Send + Sync {
    /// Keeps an upload of a namespace; one that is kept already is left as it is, but counts as new.
    async fn put(&self, namespace: &str, context: &Context) -> Result<(), ArchivesError>;

    /// An upload of a namespace; nothing when it is not kept.
    async fn get(&self, namespace: &str, digest: &str) -> Result<Option<Context>, ArchivesError>;

    /// Forgets the uploads that are not `needed` and were put before `before`.
    async fn collect(
        &self,
        needed: &HashSet<ArchiveId>,
        before: SystemTime,
    ) -> Result<(), ArchivesError>;
}
