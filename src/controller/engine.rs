//! The engine's side of the truth: adopts what survived, notices what exits or disappears, and says when the engine is away.

use std::{
    collections::HashSet,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use jiff::Timestamp;

use super::{Controller, entry::Moving};
use crate::{
    builder::{BuildError, Image, recipe::image_prefix},
    function::{FunctionKey, status::Reason},
    plan::Phase,
    runtime::{Observed, RuntimeError},
};

/// How often everything is compared; between that, exits tell.
const COMPARE_EVERY: Duration = Duration::from_secs(30);
/// Between two looks whether the engine answers at all: one that hangs says nothing, and breaks no connection.
const PING_EVERY: Duration = Duration::from_secs(2);
/// Between two questions to an engine that is away.
const ASK_AGAIN: Duration = Duration::from_secs(2);

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
        self.collect.notify_one();
        let end = tokio::time::sleep(COMPARE_EVERY);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                error = &mut lost => return Err(error.into()),
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
        Ok(())
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

    /// The images that there are; nothing while a registry does not tell, which has nothing to do with the engine.
    async fn stock(&self) -> Result<Option<Vec<Image>>, BuildError> {
        match self.ports.builder.images().await {
            Err(error) if error.is_the_registrys() => {
                tracing::warn!(%error, "Images are compared the next time");
                Ok(None)
            }
            listed => listed.map(Some),
        }
    }

    /// Failures that were the engine's are over with it.
    fn forgive_engine(&self) {
        for entry in self.entries().values_mut() {
            entry
                .failures
                .retain(|_, failure| !failure.is_the_engines());
        }
    }

    pub(super) fn look_again(&self, keys: impl IntoIterator<Item = FunctionKey>) {
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
