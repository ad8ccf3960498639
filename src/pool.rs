//! The warm instances of each function, handed out call by call (`desk.rs`). A [`Lease`] is the right to send one request to
//! one instance: holding it is using, dropping it is returning, and it lives as long as the answer's body.
//!
//! Nothing here starts or stops anything: a caller without an instance waits, and that wakes the function's turn.

pub mod connection;
mod desk;
mod lent;
mod pace;
pub mod slots;
mod stream;

/// What tests/model.rs has a checker's in place of.
mod sync {
    pub use std::sync::{Mutex, MutexGuard};

    pub use tokio::sync::oneshot;
}

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{connection::Connections, desk::Desk, slots::Removed};
pub use self::{
    desk::{Asked, Lease, Place},
    lent::Terms,
};
use crate::{
    controller::Turns,
    function::{FunctionKey, Revision},
    plan::{self, Demand, Failure, Manners},
    runtime::{Address, InstanceId},
};

/// Where calls of a function go and under which terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub revision: Revision,
    /// `spec.scale.concurrency`.
    pub concurrency: u32,
    pub manners: Manners,
    /// `spec.timeoutSeconds`: from the lease to the last byte of the answer.
    pub timeout: Duration,
}

impl Route {
    /// For what is held of an instance of which no more is known.
    pub fn unknown(revision: Revision) -> Self {
        Self {
            revision,
            concurrency: 1,
            manners: Manners::Unknown,
            timeout: Duration::ZERO,
        }
    }

    /// Calls that one instance may have: what the user allows, but one where the instance may end with it.
    pub fn calls_at_a_time(&self) -> u32 {
        match self.manners {
            Manners::Stays => self.concurrency,
            Manners::Single | Manners::Unknown => 1,
        }
    }
}

/// A ready instance, with the connections that belong to it and die with it.
#[derive(Debug)]
pub struct Instance {
    pub id: InstanceId,
    pub revision: Revision,
    pub address: Address,
    pub connections: Connections,
    /// Cancelled once its runtime has confirmed that it is no more.
    pub gone: CancellationToken,
}

impl Instance {
    fn new(id: InstanceId, revision: Revision, address: Address) -> Arc<Self> {
        Arc::new(Self {
            id,
            revision,
            address,
            connections: Connections::default(),
            gone: CancellationToken::new(),
        })
    }
}

/// The queue is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFull {
    pub waiting: usize,
    /// How long it takes until those have had their turns, if that is known.
    pub takes: Option<Duration>,
}

/// Why a caller gets no instance.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LeaseError {
    /// Too many wait already.
    #[error("{} calls wait for this function already{}", .0.waiting, .0.takes.map(|t| format!(", and it takes {:.1}s until they have their turns", t.as_secs_f64())).unwrap_or_default())]
    QueueFull(QueueFull),
    /// None became free within the time; what is known to be in the way.
    #[error("no instance became free within {}s (spec.startupTimeoutSeconds){}", limit.as_secs(), cause.as_ref().map(|c| format!(": {c}")).unwrap_or_default())]
    NoInstance {
        limit: Duration,
        cause: Option<String>,
    },
    /// Instances cannot be started; this is the cause.
    #[error("{}", .0.message)]
    Failing(Failure),
    /// There is no memory for another instance.
    #[error("the machine's memory is taken by other instances; none was freed within {}s (spec.startupTimeoutSeconds)", limit.as_secs())]
    NoCapacity { limit: Duration },
    /// The function is being deleted.
    #[error("the function is being deleted")]
    Deleted,
}

/// The instances of one function.
#[derive(Debug)]
pub struct Pool {
    desk: Arc<Desk>,
    /// An instance is needed for which there is no memory.
    starved: AtomicBool,
    /// Why no instance can be started at present.
    hindrance: Mutex<Option<String>>,
    /// Who lends its instances to others, and hears of every change.
    lender: Option<Turns>,
}

impl Pool {
    fn new(key: FunctionKey, turns: Turns, lender: Option<Turns>) -> Arc<Self> {
        Arc::new(Self {
            desk: Desk::new(key, turns),
            starved: AtomicBool::new(false),
            hindrance: Mutex::default(),
            lender,
        })
    }

    fn changed(&self) {
        if let Some(lender) = &self.lender {
            lender.request(self.key());
        }
    }

    /// Whose instances these are.
    pub fn key(&self) -> &FunctionKey {
        self.desk.key()
    }

    /// A lease, at once where an instance has a free slot, else when one becomes free or ready. Dropping the future leaves
    /// the queue.
    ///
    /// # Errors
    /// When the queue is full, the patience is over, or instances are known not to start.
    pub async fn lease(&self) -> Result<Lease, LeaseError> {
        let place = match self.desk.ask()? {
            Asked::Lease(lease) => return Ok(lease),
            Asked::Place(place) => place,
        };
        let limit = place.patience;
        match timeout(limit, place).await {
            Ok(turn) => turn,
            Err(_) if self.starved.load(Ordering::Relaxed) => Err(LeaseError::NoCapacity { limit }),
            Err(_) => Err(LeaseError::NoInstance {
                limit,
                cause: self.hindrance().clone(),
            }),
        }
    }

    /// An instance is ready. It gets calls once its revision serves.
    pub fn add(&self, id: InstanceId, revision: Revision, address: impl Into<Address>) {
        let instance = Instance::new(id.clone(), revision.clone(), address.into());
        self.desk
            .change(|slots| slots.add(id, revision, instance, Instant::now()));
        self.changed();
    }

    /// Calls go there from now on.
    pub fn serve(&self, route: Option<Route>) {
        self.desk.change(|slots| slots.serve(route.map(Arc::new)));
        self.changed();
    }

    /// Where calls go.
    pub fn route(&self) -> Option<Arc<Route>> {
        self.desk.slots().route().cloned()
    }

    /// How long callers wait for an instance: `spec.startupTimeoutSeconds` of the newest generation.
    pub fn set_patience(&self, patience: Duration) {
        self.desk.slots().set_patience(patience);
        self.changed();
    }

    /// Whether an instance is needed for which there is no memory.
    pub fn set_starved(&self, starved: bool) {
        if self.starved.swap(starved, Ordering::Relaxed) != starved {
            self.changed();
        }
    }

    /// Why no instance can be started at present, for callers whose patience ends.
    pub fn set_hindrance(&self, cause: Option<String>) {
        let is_news = {
            let mut hindrance = self.hindrance();
            let is_news = *hindrance != cause;
            *hindrance = cause;
            is_news
        };
        if is_news {
            self.changed();
        }
    }

    fn hindrance(&self) -> MutexGuard<'_, Option<String>> {
        self.hindrance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an instance out of service if it has no call at this moment. Says whether it is out of service now, and nobody
    /// may call it.
    pub fn retire(&self, id: &str) -> bool {
        let is_free = self.desk.slots().retire(id);
        self.changed();
        is_free
    }

    /// Takes an instance out of service for good.
    pub fn condemn(&self, id: &str) {
        self.desk.condemn(id);
        self.changed();
    }

    /// An instance has stayed after its first call.
    pub fn settle(&self, id: &str) {
        self.desk.change(|slots| slots.settle(id));
        self.changed();
    }

    /// An instance is gone, or is about to go: by kept connections it would seem to be in use.
    pub fn remove(&self, id: &str) -> Option<Removed<Instance>> {
        let removed = self.desk.slots().remove(id);
        if let Some(removed) = &removed {
            removed.instance.connections.close();
        }
        self.changed();
        removed
    }

    /// Drops connections to its instances that have rested for too long. Calls do so too, but there may be none.
    pub fn tidy(&self, now: Instant) {
        for instance in self.desk.slots().handles() {
            instance.connections.tidy(now);
        }
    }

    /// Tells everyone who waits that it is in vain.
    pub fn refuse(&self, error: &LeaseError) {
        self.desk.refuse(error);
    }

    /// The ready instances, and who waits for one.
    pub fn look(&self) -> (Vec<plan::Instance>, Demand) {
        let slots = self.desk.slots();
        (slots.instances().collect(), slots.demand())
    }
}

type ByName = HashMap<Arc<str>, Arc<Pool>>;

/// All functions that can be called. Reading takes no lock; only a function's coming and going writes.
pub struct Pools {
    by_namespace: ArcSwap<HashMap<Arc<str>, ByName>>,
    turns: Turns,
    lender: Option<Turns>,
    /// Whether what is not here does not exist.
    complete: watch::Sender<bool>,
}

impl Pools {
    /// None yet.
    pub fn new(turns: Turns) -> Self {
        Self {
            by_namespace: ArcSwap::default(),
            turns,
            lender: None,
            complete: watch::Sender::new(false),
        }
    }

    /// Their instances are lent to others; `lender` is asked for a turn whenever something changes.
    #[must_use]
    pub fn lent_by(self, lender: Turns) -> Self {
        Self {
            lender: Some(lender),
            ..self
        }
    }

    /// Every Function that exists has its pool.
    pub fn completed(&self) {
        self.complete.send_replace(true);
    }

    /// Whether what is not here does not exist.
    pub fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    /// Waits until what is not here does not exist.
    pub async fn complete(&self) {
        // Fails only if the sender is gone, and we hold it.
        let _ = self
            .complete
            .subscribe()
            .wait_for(|complete| *complete)
            .await;
    }

    /// The function of this name, if it is known.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pool>> {
        self.by_namespace.load().get(namespace)?.get(name).cloned()
    }

    /// The function's pool, made when there is none.
    pub fn ensure(&self, key: &FunctionKey) -> Arc<Pool> {
        if let Some(pool) = self.get(key.namespace(), key.name()) {
            return pool;
        }
        let pool = Pool::new(key.clone(), self.turns.clone(), self.lender.clone());
        self.by_namespace.rcu(|old| {
            let mut new = HashMap::clone(old);
            let (namespace, name) = key.shared();
            new.entry(namespace)
                .or_default()
                .entry(name)
                .or_insert_with(|| Arc::clone(&pool));
            new
        });
        let pool = self.get(key.namespace(), key.name()).unwrap_or(pool);
        pool.changed();
        pool
    }

    /// The function is no more; calls to it are unknown from now on, those that wait are told so.
    pub fn remove(&self, key: &FunctionKey) {
        let Some(pool) = self.get(key.namespace(), key.name()) else {
            return;
        };
        self.by_namespace.rcu(|old| {
            let mut new = HashMap::clone(old);
            if let Some(names) = new.get_mut(key.namespace()) {
                names.remove(key.name());
            }
            new
        });
        pool.refuse(&LeaseError::Deleted);
        pool.changed();
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.by_namespace
            .load()
            .values()
            .flat_map(|names| names.values().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests;
