//! What tells where everything of one owner lies. Registries cannot be asked for labels, and many not for a list of their
//! repositories; so each image and each upload has an entry in one repository, whose tags can be listed. An entry is there
//! before what it tells of, so that nothing is ever there that no entry tells of.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, TryStreamExt};

use super::{
    client::Client,
    error::RegistryError,
    manifest::{EMPTY, Manifest, annotation, artifact, empty},
    reference::{Place, Repository},
};

const KIND: &str = "application/vnd.faas.dev.entry.v1";
const REPOSITORY: &str = "faas.dev/repository";
const DIGEST: &str = "faas.dev/digest";
const STORED: &str = "faas.dev/stored";
const ENTRY: &str = "faas.dev/entry";

/// Longest time for a list: whoever compares must not be held up by a registry.
pub(super) const LIST: Duration = Duration::from_secs(3);
/// Entries that are asked for at the same time.
const AT_ONCE: usize = 16;
/// What an entry tells of is there by then, or its making was cut.
const STALE: Duration = Duration::from_secs(3600);

/// What entries are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Archive,
}

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// 64 hex digits that name it.
    pub key: String,
    pub repository: Repository,
    /// Of its manifest.
    pub digest: String,
    pub stored: SystemTime,
}

/// The entries of an owner.
pub(super) struct Index {
    client: Arc<Client>,
    place: Place,
    owner: String,
    /// Entries that were read, by their tags; what they tell of was there.
    known: Mutex<HashMap<String, Entry>>,
}

impl Index {
    pub(super) fn new(client: Arc<Client>, place: Place, owner: String) -> Self {
        Self {
            client,
            place,
            owner,
            known: Mutex::default(),
        }
    }

    /// Says where something will be.
    pub(super) async fn put(
        &self,
        kind: Kind,
        key: &str,
        repository: &Repository,
        digest: &str,
    ) -> Result<(), RegistryError> {
        let tag = self.tag(kind, key);
        let age = SystemTime::now().duration_since(UNIX_EPOCH);
        let below = self.place.within(repository).unwrap_or_default();
        let says = BTreeMap::from([
            (ENTRY, tag.clone()),
            (REPOSITORY, below.to_owned()),
            (DIGEST, digest.to_owned()),
            (STORED, age.unwrap_or_default().as_secs().to_string()),
        ]);
        let index = self.place.index();
        self.client.put_blob(&index, &empty(), EMPTY.into()).await?;
        self.known().remove(&tag);
        let manifest = artifact(KIND, &empty(), &says);
        let before = self.client.digest(&index, &tag).await?;
        self.client.put_manifest(&index, &tag, &manifest).await?;
        if let Some(before) = before.filter(|before| *before != manifest.digest) {
            // Else it would stay without a tag; a registry that deletes nothing keeps it.
            let deleted = self.client.delete_manifest(&index, &before).await;
            if let Err(error) = deleted {
                tracing::debug!(tag, %error, "An older entry of the index stays");
            }
        }
        Ok(())
    }

    /// Where something is, if it is there.
    pub(super) async fn find(&self, kind: Kind, key: &str) -> Result<Option<Entry>, RegistryError> {
        match self.read(&self.tag(kind, key), key).await? {
            Some(entry) if self.is_there(&entry).await? => Ok(Some(entry)),
            _ => Ok(None),
        }
    }

    /// Everything of a kind that is there.
    pub(super) async fn list(&self, kind: Kind) -> Result<Vec<Entry>, RegistryError> {
        let index = self.place.index();
        // What was read until then is known the next time.
        tokio::time::timeout(LIST, self.list_all(kind))
            .await
            .unwrap_or_else(|_| {
                let message = "it did not answer in time";
                Err(RegistryError::odd(
                    &index.registry,
                    "list the index",
                    message,
                ))
            })
    }

    async fn list_all(&self, kind: Kind) -> Result<Vec<Entry>, RegistryError> {
        let prefix = self.tag(kind, "");
        let tags = self.client.tags(&self.place.index()).await?;
        let tags: HashSet<_> = tags
            .into_iter()
            .filter(|tag| tag.starts_with(&prefix))
            .collect();
        self.known()
            .retain(|tag, _| tags.contains(tag) || !tag.starts_with(&prefix));
        let looks: Vec<_> = tags
            .iter()
            .map(|tag| self.look(tag, &tag[prefix.len()..]))
            .collect();
        let looks = futures::stream::iter(looks).buffer_unordered(AT_ONCE);
        let found: Vec<_> = looks.try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Deletes what an entry tells of, and then the entry.
    pub(super) async fn remove(&self, kind: Kind, key: &str) -> Result<(), RegistryError> {
        let tag = self.tag(kind, key);
        let Some(entry) = self.read(&tag, key).await? else {
            return Ok(());
        };
        self.client
            .delete_manifest(&entry.repository, &entry.digest)
            .await?;
        self.forget(&tag).await
    }

    /// An entry of a list; nothing when what it tells of is not there.
    async fn look(&self, tag: &str, key: &str) -> Result<Option<Entry>, RegistryError> {
        if let Some(entry) = self.known().get(tag) {
            return Ok(Some(entry.clone()));
        }
        let Some(entry) = self.read(tag, key).await? else {
            return Ok(None);
        };
        if self.is_there(&entry).await? {
            self.known().insert(tag.to_owned(), entry.clone());
            return Ok(Some(entry));
        }
        if entry.stored.elapsed().is_ok_and(|age| age > STALE) {
            self.forget(tag).await?;
        }
        Ok(None)
    }

    async fn is_there(&self, entry: &Entry) -> Result<bool, RegistryError> {
        let found = self.client.digest(&entry.repository, &entry.digest).await?;
        Ok(found.is_some())
    }

    async fn read(&self, tag: &str, key: &str) -> Result<Option<Entry>, RegistryError> {
        let manifest = self.client.manifest(&self.place.index(), tag).await?;
        Ok(manifest.and_then(|manifest| self.entry(&manifest, key)))
    }

    /// What a manifest of the index says; one that somebody else put there says nothing.
    fn entry(&self, manifest: &Manifest, key: &str) -> Option<Entry> {
        let stored = annotation(manifest, STORED)?.parse().ok()?;
        let digest = annotation(manifest, DIGEST)?;
        super::reference::is_digest(&digest).then_some(())?;
        Some(Entry {
            key: key.to_owned(),
            repository: self.place.below(&annotation(manifest, REPOSITORY)?)?,
            digest,
            stored: UNIX_EPOCH + Duration::from_secs(stored),
        })
    }

    async fn forget(&self, tag: &str) -> Result<(), RegistryError> {
        let index = self.place.index();
        self.known().remove(tag);
        match self.client.digest(&index, tag).await? {
            Some(digest) => self.client.delete_manifest(&index, &digest).await,
            None => Ok(()),
        }
    }

    fn tag(&self, kind: Kind, key: &str) -> String {
        let kind = match kind {
            Kind::Image => "image",
            Kind::Archive => "archive",
        };
        format!("{kind}-{}-{key}", self.owner)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
