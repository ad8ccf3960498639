//! The engine's side of the truth: adopts what survived, notices what exits or disappears, says when the engine is away,
//! and collects what nobody needs any more.

use std::{
    collections::{BTreeSet, HashSet},
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::StreamExt;
use jiff::Timestamp;

use super::{Controller, entry::Moving, resolve};
use crate::{
    builder::{BuildError, Image, archives::ArchiveId, recipe::image_prefix},
    function::{FunctionKey, status::Reason},
    plan::Phase,
    runtime::{Network, Observed, RuntimeError},
    store::Fact,
};

/// How often everything is compared; between that, exits tell.
const COMPARE_EVERY: Duration = Duration::from_secs(30);
/// Between two looks whether the engine answers at all: one that hangs says nothing, and breaks no connection.
const PING_EVERY: Duration = Duration::from_secs(2);
/// Between two questions to an engine that is away.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A stored source that nobody needs is kept this long: its Function may be about to come.
const SOURCE_KEPT: Duration = Duration::from_secs(600);

/// Whether the engine answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Not asked yet.
    Unknown,
    Here,
    /// Its error.
    Away(String),
}

impl Engine {
    /// Why it cannot be asked, if it cannot.
    pub fn away(&self) -> Option<&str> {
        match self {
            Self::Here => None,
            Self::Unknown => Some("the engine has not been asked yet"),
            Self::Away(error) => Some(error),
        }
    }
}

/// Why the engine could not tell.
#[derive(Debug, thiserror::Error)]
enum StockError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Builder(#[from] BuildError),
}

impl Controller {
    /// How the engine is.
    pub fn engine(&self) -> Engine {
        self.engine.borrow().clone()
    }

    /// Keeps the controller's view of the engine true, for ever.
    pub async fn watch_engine(self: Arc<Self>) {
        // Else everything would be nobody's.
        self.ports.store.ready().await;
        loop {
            let error = match self.follow().await {
                Ok(()) => continue,
                Err(error) => error.to_string(),
            };
            if self.engine.send_if_modified(|engine| {
                let news = matches!(engine, Engine::Here | Engine::Unknown);
                *engine = Engine::Away(error.clone());
                news
            }) {
                tracing::warn!(%error, "The engine does not answer; what runs goes on");
                self.metrics.error(Reason::EngineUnavailable.into());
                self.turn_all();
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Takes stock and follows exits until it is time for the next stock, or the engine is lost.
    async fn follow(self: &Arc<Self>) -> Result<(), StockError> {
        let began = Instant::now();
        let mut lost = pin!(self.lost());
        // Exits first: what ends while stock is taken must not be missed.
        let mut exits = unless(&mut lost, self.ports.runtime.exits()).await?;
        unless(&mut lost, self.take_stock()).await?;
        if self.engine.send_replace(Engine::Here) != Engine::Here {
            tracing::info!("The engine answers");
            self.forgive_engine();
            self.turn_all();
        }
        let end = tokio::time::sleep(COMPARE_EVERY);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                error = &mut lost => return Err(error.into()),
                () = self.collect.notified() => {
                    let images = unless(&mut lost, self.stock()).await?.unwrap_or_default();
                    unless(&mut lost, self.collect(images)).await?;
                }
                exit = exits.next() => {
                    let Some(exit) = exit else {
                        // An engine that tells no events at all is compared with now and then, not without end.
                        tokio::time::sleep_until((began + ASK_AGAIN).into()).await;
                        return Ok(());
                    };
                    self.exited(exit).await;
                }
            }
        }
    }

    /// Ends when the engine does not answer any more.
    async fn lost(&self) -> RuntimeError {
        loop {
            tokio::time::sleep(PING_EVERY).await;
            if let Err(error) = self.ports.runtime.ping().await {
                return error;
            }
        }
    }

    /// Compares the engine with the memory.
    async fn take_stock(self: &Arc<Self>) -> Result<(), StockError> {
        let began = Instant::now();
        let observed = self.ports.runtime.observe().await?;
        let running = observed.iter().filter(|o| o.running);
        let present: HashSet<_> = running.map(|o| o.id.clone()).collect();
        self.notice_missing(&present, began);
        if self.engine() != Engine::Here {
            self.fill_store(&observed).await;
        }
        for instance in observed {
            self.account_for(instance).await;
        }
        let images = self.stock().await?;
        if let Some(images) = &images {
            let prefix = image_prefix(&self.resolver.owner);
            let missed = self
                .images
                .observed(images, |name| name.starts_with(&prefix));
            self.look_again(missed);
        }
        self.collect(images.unwrap_or_default()).await
    }

    /// Instances that we believe in but the engine does not know leave the pools.
    fn notice_missing(self: &Arc<Self>, present: &HashSet<String>, began: Instant) {
        for pool in self.pools.all() {
            pool.tidy(Instant::now());
            for instance in pool.look().0 {
                if instance.since < began
                    && !present.contains(&instance.id)
                    && let Some(removed) = pool.remove(&instance.id)
                {
                    removed.instance.gone.cancel();
                    tracing::warn!(instance = %instance.id, "Instance disappeared");
                    self.capacity.give_back(&instance.id);
                    self.turns.request(pool.key());
                }
            }
        }
    }

    /// An instance that exists is known, adopted, or ended.
    async fn account_for(self: &Arc<Self>, observed: Observed) {
        let known = {
            let entries = self.entries();
            entries.get(&observed.function).is_some_and(|entry| {
                entry.moving.contains_key(&observed.id)
                    || entry.pool.look().0.iter().any(|i| i.id == observed.id)
            })
        };
        if known {
            return;
        }
        let function = self.ports.store.get(&observed.function);
        let function = function.filter(|f| f.metadata.uid.as_deref() == Some(&observed.uid));
        let is_dying = function
            .as_ref()
            .map(|f| f.metadata.deletion_timestamp.is_some());
        let wanted = is_dying == Some(false);
        if wanted && observed.running && observed.address.connect().await.is_ok() {
            self.adopt(observed);
        } else {
            self.end_unneeded(observed, is_dying == Some(true));
        }
    }

    /// A Function that is being deleted goes once this is done, not before.
    fn end_unneeded(self: &Arc<Self>, observed: Observed, is_dying: bool) {
        tracing::info!(instance = %observed.id, "Ending an instance that nobody needs");
        if is_dying {
            let moving = Moving {
                revision: observed.revision.clone(),
                image: observed.image.clone(),
                phase: Phase::Stopping,
                since: Instant::now(),
                task: None,
            };
            let mut entries = self.entries();
            let entry = self.entry(&mut entries, &observed.function, &observed.uid);
            entry.moving.insert(observed.id.clone(), moving);
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let log = this.end(&observed.id, Duration::ZERO).await;
            if let Some(entry) = this.entries().get_mut(&observed.function)
                && entry.uid == observed.uid
            {
                entry.moving.remove(&observed.id);
                entry.last_words.ended(&observed.id, &log, Timestamp::now());
            }
            this.turns.request(&observed.function);
        });
    }

    fn adopt(&self, observed: Observed) {
        tracing::info!(function = %observed.function, instance = %observed.id, "Instance adopted");
        self.capacity.note(&observed.id, observed.memory);
        let mut entries = self.entries();
        let entry = self.entry(&mut entries, &observed.function, &observed.uid);
        let (pool, id) = (&entry.pool, observed.id.clone());
        pool.adopt(observed.id, observed.revision, observed.address);
        if observed.leaving {
            pool.condemn(&id);
        }
    }

    /// Removes what no Function needs: images, sources, facts. Does nothing before every Function has been looked at once.
    async fn collect(&self, images: Vec<Image>) -> Result<(), StockError> {
        let Some(needed) = self.needed().await else {
            return Ok(());
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
            if unless_a_registry(removed)?.is_none() {
                break;
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
        Ok(())
    }

    /// The images that there are; nothing while a registry does not tell.
    async fn stock(&self) -> Result<Option<Vec<Image>>, BuildError> {
        unless_a_registry(self.ports.builder.images().await)
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

    /// What the Functions need, once all of them are known.
    async fn needed(&self) -> Option<Needed> {
        let mut needed = Needed::default();
        let functions = self.ports.store.list();
        {
            let entries = self.entries();
            for function in &functions {
                let key = FunctionKey::try_from(&**function).ok()?;
                let entry = entries.get(&key)?;
                entry.resolved.as_ref()?;
                needed.images.extend(entry.images().cloned());
                needed
                    .images
                    .extend(function.status.as_ref().and_then(|s| s.image.clone()));
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
            let served: Option<resolve::Served> =
                record.and_then(|r| serde_json::from_str(&r).ok());
            needed
                .sources
                .extend(served.and_then(|s| Some(of(&key, s.source()?.to_owned()))));
        }
        Some(needed)
    }

    /// Failures that were the engine's are over with it.
    fn forgive_engine(&self) {
        for entry in self.entries().values_mut() {
            entry
                .failures
                .retain(|_, failure| !failure.is_the_engines());
        }
    }

    fn look_again(&self, keys: impl IntoIterator<Item = FunctionKey>) {
        for key in keys {
            self.turns.request(&key);
        }
    }

    pub(super) fn turn_all(&self) {
        for function in self.ports.store.list() {
            if let Ok(key) = FunctionKey::try_from(&*function) {
                self.turns.request(&key);
            }
        }
    }
}

/// Asks the engine for something, unless it is lost meanwhile.
async fn unless<T, E: Into<StockError>>(
    lost: &mut Pin<&mut impl Future<Output = RuntimeError>>,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, StockError> {
    tokio::select! {
        outcome = asked => outcome.map_err(Into::into),
        error = lost => Err(error.into()),
    }
}

/// A registry that does not do what it is asked has nothing to do with the engine: what runs goes on, and so does everything
/// that needs no registry.
fn unless_a_registry<T>(done: Result<T, BuildError>) -> Result<Option<T>, BuildError> {
    match done {
        Err(error @ (BuildError::RegistryAway(_) | BuildError::RegistryRefused(_))) => {
            tracing::warn!(%error, "Images are compared and collected the next time");
            Ok(None)
        }
        done => done.map(Some),
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
