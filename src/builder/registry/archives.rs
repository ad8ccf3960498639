//! Uploads as artifacts of a registry, so that whichever controller has the turn can build them. What was read or written here
//! lies in a directory too, apart by namespace: a name of other people's uploads opens nothing.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{
    Settings,
    client::Client,
    index::{Index, Kind},
    manifest::{Descriptor, artifact, blobs},
};
use crate::builder::{
    archive::{Context, Limits, sha256},
    archives::{ArchiveId, Archives, ArchivesError},
    sources::Sources,
};

const KIND: &str = "application/vnd.faas.dev.archive.v1";
const TAR: &str = "application/vnd.faas.dev.archive.v1.tar";
const OWNER: &str = "faas.dev/owner";
const DIGEST: &str = "faas.dev/archive";

/// The uploads of one owner.
pub struct RegistryArchives {
    settings: Settings,
    client: Arc<Client>,
    index: Index,
    cache: PathBuf,
    /// Directories of namespaces, opened once: opening one takes away what is half written.
    open: Mutex<HashMap<String, Sources>>,
}

impl RegistryArchives {
    /// Asks nobody yet. What is in the cache can be fetched again.
    #[must_use]
    pub fn new(settings: Settings, cache: PathBuf) -> Self {
        let client = Arc::new(settings.client());
        let (place, owner) = (settings.place.clone(), settings.owner.clone());
        Self {
            index: Index::new(Arc::clone(&client), place, owner),
            client,
            settings,
            cache,
            open: Mutex::default(),
        }
    }

    fn cached(&self, namespace: &str) -> Result<Sources, ArchivesError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sources) = open.get(namespace) {
            return Ok(sources.clone());
        }
        let sources = Sources::open(&self.cache.join(namespace))?;
        open.insert(namespace.to_owned(), sources.clone());
        Ok(sources)
    }

    async fn fetch(&self, namespace: &str, digest: &str) -> Result<Option<Bytes>, ArchivesError> {
        let repository = self.settings.place.archives(namespace);
        let tag = format!("{}-{digest}", self.settings.owner);
        let Some(manifest) = self.client.manifest(&repository, &tag).await? else {
            return Ok(None);
        };
        let odd = || ArchivesError::Unavailable(format!("{repository}:{tag} is no upload"));
        let (_, layers) = blobs(&manifest).map_err(|_| odd())?;
        let tar = layers.first().filter(|blob| blob.kind == TAR);
        let tar = self.client.blob(&repository, tar.ok_or_else(odd)?).await?;
        if sha256(&tar) != digest {
            return Err(odd());
        }
        Ok(Some(tar))
    }
}

#[async_trait]
impl Archives for RegistryArchives {
    async fn put(&self, namespace: &str, context: &Context) -> Result<(), ArchivesError> {
        let repository = self.settings.place.archives(namespace);
        let (owner, digest) = (self.settings.owner.clone(), context.digest());
        let blob = Descriptor::of(TAR, context.tar());
        let tag = format!("{owner}-{digest}");
        // Deleting a manifest deletes all of its tags, so that of another owner must be another.
        let says = BTreeMap::from([(OWNER, owner), (DIGEST, digest.to_owned())]);
        let manifest = artifact(KIND, &blob, &says);
        let key = key(namespace, digest);
        self.index
            .put(Kind::Archive, &key, &repository, &manifest.digest)
            .await?;
        let empty = super::manifest::empty();
        let client = &self.client;
        client
            .put_blob(&repository, &empty, super::manifest::EMPTY.into())
            .await?;
        client
            .put_blob(&repository, &blob, context.tar().clone())
            .await?;
        client.put_manifest(&repository, &tag, &manifest).await?;
        Ok(())
    }

    async fn get(&self, namespace: &str, digest: &str) -> Result<Option<Context>, ArchivesError> {
        let sources = self.cached(namespace)?;
        if let Ok(Some(context)) = sources.read(digest).await {
            return Ok(Some(context));
        }
        let Some(tar) = self.fetch(namespace, digest).await? else {
            return Ok(None);
        };
        spawn_blocking(move || {
            let context = Context::from_tar(&tar, &Limits::none())
                .map_err(|error| ArchivesError::Unavailable(error.to_string()))?;
            // It was fetched all the same.
            if let Err(error) = sources.put(&context) {
                tracing::debug!(%error, "An upload that was fetched is not kept here");
            }
            Ok(Some(context))
        })
        .await
        .unwrap_or_else(|error| Err(ArchivesError::Unavailable(error.to_string())))
    }

    async fn collect(
        &self,
        needed: &HashSet<ArchiveId>,
        before: SystemTime,
    ) -> Result<(), ArchivesError> {
        let keys: HashSet<_> = needed.iter().map(|(ns, digest)| key(ns, digest)).collect();
        for entry in self.index.list(Kind::Archive).await? {
            let is_ours = self.settings.is_ours(&entry.repository);
            if is_ours && !keys.contains(&entry.key) && entry.stored < before {
                self.index.remove(Kind::Archive, &entry.key).await?;
            }
        }
        let open: Vec<_> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.iter().map(|(ns, s)| (ns.clone(), s.clone())).collect()
        };
        for (namespace, sources) in open {
            let needed = needed.iter().filter(|(ns, _)| *ns == namespace);
            let needed = needed.map(|(_, digest)| digest.clone()).collect();
            sources.tidy(needed, before).await?;
        }
        Ok(())
    }
}

/// What an upload is called in the index, where tags have no room for a namespace.
fn key(namespace: &str, digest: &str) -> String {
    sha256(format!("{namespace}/{digest}").as_bytes())
}
