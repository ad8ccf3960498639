//! Removes what nobody needs any more: images, stored sources, facts of revisions, the network of those that have gone.
//!
//! It has a task of its own: whatever cannot be removed, or not yet, is in nobody's way.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Controller, engine::Engine, resolve};
use crate::{
    builder::{Image, archives::ArchiveId},
    function::FunctionKey,
    runtime::Network,
    store::Fact,
};

/// A stored source that nobody needs is kept this long: its Function may be about to come.
const SOURCE_KEPT: Duration = Duration::from_secs(600);

impl Controller {
    /// Removes what nobody needs whenever there may be such, for ever.
    pub async fn collect_unneeded(self: Arc<Self>) {
        loop {
            self.collect.notified().await;
            if self.engine() != Engine::Here {
                continue;
            }
            let images = self.ports.builder.images().await;
            let images = images.unwrap_or_else(|error| {
                tracing::warn!(%error, "Images are collected the next time");
                Vec::new()
            });
            self.collect(images).await;
        }
    }

    /// Removes what no Function needs: images, sources, facts. Does nothing before every Function has been looked at once.
    async fn collect(&self, images: Vec<Image>) {
        let Some(needed) = self.needed().await else {
            return;
        };
        let unneeded = |image: &Image| !needed.images.contains(&image.name);
        for image in images.into_iter().filter(unneeded) {
            // A Function may have come since that was asked: removing takes its time.
            if !self.images.is_unwanted(&image.name) {
                continue;
            }
            tracing::info!(image = %image.name, "Removing an image that nobody needs");
            let removed = self.ports.builder.remove(&image.name).await;
            // One may have come meanwhile, too, and taken it for there.
            let missed = self.images.lost(&image.name);
            self.look_again(missed);
            if let Err(error) = removed {
                tracing::warn!(image = %image.name, %error, "An image stays that nobody needs; tried again");
                if error.is_the_registrys() {
                    break;
                }
            }
        }
        if !needed.internet
            && let Err(error) = self.ports.runtime.close_internet().await
        {
            tracing::warn!(%error, "The network of functions with `network: internet` stays behind");
        }
        self.collect_sources(needed.sources).await;
        let known: BTreeSet<_> = [Fact::Proven, Fact::SingleCall, Fact::Stays]
            .into_iter()
            .flat_map(|f| self.ports.store.known(f))
            .collect();
        let unneeded: Vec<_> = known
            .into_iter()
            .filter(|r| !needed.revisions.contains(r.as_str()))
            .collect();
        if !unneeded.is_empty()
            && let Err(error) = self.ports.store.forget(unneeded).await
        {
            tracing::warn!(%error, "Facts of revisions could not be removed");
        }
    }

    async fn collect_sources(&self, needed: HashSet<ArchiveId>) {
        let before = SystemTime::now() - SOURCE_KEPT;
        if let Err(error) = self.resolver.archives.collect(&needed, before).await {
            tracing::warn!(%error, "Stored uploads could not be collected");
        }
        let needed = needed.into_iter().map(|(_, digest)| digest).collect();
        if let Err(error) = self.resolver.sources.tidy(needed, before).await {
            tracing::warn!(%error, "Stored sources could not be collected");
        }
    }

    /// What the Functions need, once all of them are known. Of one that is not understood nobody knows, nor of a record that
    /// is not: both may name an upload that cannot be had again.
    async fn needed(&self) -> Option<Needed> {
        let mut needed = Needed::default();
        let functions = self.ports.store.list();
        {
            let entries = self.entries();
            for function in &functions {
                let key = FunctionKey::try_from(&**function).ok()?;
                resolve::is_understood(function).then_some(())?;
                let entry = entries.get(&key)?;
                entry.resolved.as_ref()?;
                needed.images.extend(entry.images().cloned());
                let status = function.status.as_ref();
                needed.images.extend(status.and_then(|s| s.image.clone()));
                for made in [entry.desired(), entry.serving.as_ref()]
                    .into_iter()
                    .flatten()
                {
                    needed.revisions.insert(made.target.revision.to_string());
                    needed.internet |= made.network == Network::Internet;
                }
                needed
                    .sources
                    .extend(resolve::source_of(function).map(|source| of(&key, source)));
            }
        }
        for function in &functions {
            let key = FunctionKey::try_from(&**function).ok()?;
            let uid = function.metadata.uid.as_deref().unwrap_or_default();
            let record = self.ports.store.served(&key, uid).await.ok()?;
            if let Some(record) = record {
                let served: resolve::Served = serde_json::from_str(&record).ok()?;
                let source = served.source().map(str::to_owned);
                needed.sources.extend(source.map(|s| of(&key, s)));
            }
        }
        Some(needed)
    }
}

/// What must stay.
#[derive(Debug, Default)]
struct Needed {
    images: HashSet<String>,
    sources: HashSet<ArchiveId>,
    revisions: HashSet<String>,
    /// The network of `network: internet`.
    internet: bool,
}

/// Whose source it is, and its digest without the algorithm.
fn of(key: &FunctionKey, digest: String) -> ArchiveId {
    let bare = digest.strip_prefix("sha256:").map(str::to_owned);
    (key.namespace().to_owned(), bare.unwrap_or(digest))
}
