//! The warm instances of each function, handed out call by call. A [`Lease`] is the right to send one request to one
//! instance: holding it is using, dropping it is returning, and it lives as long as the answer's body.
//!
//! Nothing here starts or stops anything: a caller without an instance waits, and that wakes the function's turn.

pub mod connection;
pub mod slots;
mod stream;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::{
    connection::Connections,
    slots::{Grant, Removed, Slots, Ticket},
};
use crate::{
    controller::Turns,
    function::{FunctionKey, Revision},
    plan::{self, Failure, Manners},
    runtime::InstanceId,
};

/// Where calls of a function go and under which terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub revision: Revision,
    /// `spec.scale.concurrency`.
    pub concurrency: u32,
    pub manners: Manners,
    /// `spec.timeoutSeconds`: from the lease to the last byte of the answer.
    pub timeout: Duration,
}

impl Route {
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
    pub socket: PathBuf,
    pub connections: Connections,
    /// Cancelled once its runtime has confirmed that it is no more.
    pub gone: CancellationToken,
}

/// Why a caller gets no instance.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LeaseError {
    /// Too many wait already.
    #[error("{} calls wait for this function already", slots::MAX_WAITING)]
    QueueFull,
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

type Waiter = oneshot::Sender<Result<Lease, LeaseError>>;

/// The instances of one function.
pub struct Pool {
    key: FunctionKey,
    slots: Mutex<Slots<Instance, Waiter>>,
    /// `spec.startupTimeoutSeconds` of the newest generation.
    patience: Mutex<Duration>,
    /// An instance is needed for which there is no memory.
    starved: AtomicBool,
    /// Why no instance can be started at present.
    hindrance: Mutex<Option<String>>,
    turns: Turns,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.key)
    }
}

/// The right to send one request to one instance.
#[derive(Debug)]
pub struct Lease {
    pub instance: Arc<Instance>,
    pub route: Arc<Route>,
    pool: Arc<Pool>,
}

impl Lease {
    /// The instance has begun to answer. Noted only where it may exit after that.
    pub fn answered(&self) {
        if self.route.manners != Manners::Stays {
            self.pool.slots().answered(&self.instance.id);
        }
    }

    /// The instance did what no instance may do; it gets no more calls and is ended.
    pub fn condemn(&self) {
        self.pool.condemn(&self.instance.id);
    }

    /// The call broke off: the instance gets no more, and is watched as it ends.
    pub fn broke(&self) {
        self.pool.broke(&self.instance.id);
    }

    /// The function whose instance this is.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let ended = self.pool.slots().end(&self.instance.id, Instant::now());
        if ended.turn {
            self.pool.turns.request(&self.pool.key);
        }
        self.pool.hand_out(ended.grants);
    }
}

/// Leaves the queue when a waiting caller goes away.
struct Place<'a> {
    pool: &'a Pool,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.pool.slots().leave(self.ticket) {
            self.pool.turns.request(&self.pool.key);
        }
    }
}

impl Pool {
    fn new(key: FunctionKey, turns: Turns) -> Arc<Self> {
        Arc::new(Self {
            key,
            slots: Mutex::default(),
            patience: Mutex::new(Duration::from_secs(20)),
            starved: AtomicBool::new(false),
            hindrance: Mutex::default(),
            turns,
        })
    }

    /// Whose instances these are.
    pub fn key(&self) -> &FunctionKey {
        &self.key
    }

    /// A lease, at once where an instance has a free slot, else when one becomes free or ready. Dropping the future leaves
    /// the queue.
    ///
    /// # Errors
    /// When the queue is full, the patience is over, or instances are known not to start.
    pub async fn lease(self: &Arc<Self>) -> Result<Lease, LeaseError> {
        let (place, turn_comes) = {
            let mut slots = self.slots();
            if let Some((instance, route)) = slots.take() {
                return Ok(self.new_lease(instance, route));
            }
            let (waiter, turn_comes) = oneshot::channel();
            let ticket = slots.wait(waiter).map_err(|_| LeaseError::QueueFull)?;
            (Place { pool: self, ticket }, turn_comes)
        };
        self.turns.request(&self.key);
        let limit = *self.patience.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = tokio::time::timeout(limit, turn_comes).await;
        drop(place);
        match outcome {
            Ok(Ok(lease)) => lease,
            Ok(Err(_)) => Err(LeaseError::Deleted),
            Err(_) if self.starved.load(Ordering::Relaxed) => Err(LeaseError::NoCapacity { limit }),
            Err(_) => Err(LeaseError::NoInstance {
                limit,
                cause: self.hindrance().clone(),
            }),
        }
    }

    /// An instance is ready. It gets calls once its revision serves.
    pub fn add(self: &Arc<Self>, id: InstanceId, revision: Revision, socket: PathBuf) {
        let instance = Arc::new(Instance {
            id: id.clone(),
            revision: revision.clone(),
            socket,
            connections: Connections::default(),
            gone: CancellationToken::new(),
        });
        let grants = self.slots().add(id, revision, instance, Instant::now());
        self.hand_out(grants);
    }

    /// Calls go there from now on.
    pub fn serve(self: &Arc<Self>, route: Option<Route>) {
        let grants = self.slots().serve(route.map(Arc::new));
        self.hand_out(grants);
    }

    /// Where calls go.
    pub fn route(&self) -> Option<Arc<Route>> {
        self.slots().route().cloned()
    }

    /// How long callers wait for an instance.
    pub fn set_patience(&self, patience: Duration) {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner) = patience;
    }

    /// Whether an instance is needed for which there is no memory.
    pub fn set_starved(&self, starved: bool) {
        self.starved.store(starved, Ordering::Relaxed);
    }

    /// Why no instance can be started at present, for callers whose patience ends.
    pub fn set_hindrance(&self, cause: Option<String>) {
        *self.hindrance() = cause;
    }

    fn hindrance(&self) -> MutexGuard<'_, Option<String>> {
        self.hindrance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an instance out of service if it has no call at this moment. Says whether it is out of service now.
    pub fn retire(&self, id: &str) -> bool {
        self.slots().retire(id)
    }

    /// Takes an instance out of service for good.
    pub fn condemn(&self, id: &str) {
        if self.slots().condemn(id) {
            self.turns.request(&self.key);
        }
    }

    /// A call on an instance broke off.
    fn broke(&self, id: &str) {
        if self.slots().broke(id, Instant::now()) {
            self.turns.request(&self.key);
        }
    }

    /// An instance has stayed after its first call.
    pub fn settle(self: &Arc<Self>, id: &str) {
        let grants = self.slots().settle(id);
        self.hand_out(grants);
    }

    /// An instance is gone.
    pub fn remove(&self, id: &str) -> Option<Removed<Instance>> {
        self.slots().remove(id)
    }

    /// Drops connections to its instances that have rested for too long. Calls do so too, but there may be none.
    pub fn tidy(&self, now: Instant) {
        for instance in self.slots().handles() {
            instance.connections.tidy(now);
        }
    }

    /// Tells everyone who waits that it is in vain.
    pub fn refuse(&self, error: &LeaseError) {
        let waiting = self.slots().dismiss();
        for waiter in waiting {
            // One that has left meanwhile needs no answer.
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// The ready instances, how many callers wait, and when the last call ended.
    pub fn look(&self) -> (Vec<plan::Instance>, u32, Option<Instant>) {
        let slots = self.slots();
        let waiting = u32::try_from(slots.waiting()).unwrap_or(u32::MAX);
        (slots.instances().collect(), waiting, slots.last_call())
    }

    fn hand_out(self: &Arc<Self>, grants: Vec<Grant<Instance, Waiter>>) {
        for grant in grants {
            // A caller that has left drops the lease, and with that the next one gets it.
            let _ = grant
                .waiter
                .send(Ok(self.new_lease(grant.instance, grant.route)));
        }
    }

    fn new_lease(self: &Arc<Self>, instance: Arc<Instance>, route: Arc<Route>) -> Lease {
        Lease {
            instance,
            route,
            pool: Arc::clone(self),
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots<Instance, Waiter>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type ByName = HashMap<Arc<str>, Arc<Pool>>;

/// All functions that can be called. Reading takes no lock; only a function's coming and going writes.
pub struct Pools {
    by_namespace: ArcSwap<HashMap<Arc<str>, ByName>>,
    turns: Turns,
}

impl Pools {
    /// None yet.
    pub fn new(turns: Turns) -> Self {
        Self {
            by_namespace: ArcSwap::default(),
            turns,
        }
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
        let pool = Pool::new(key.clone(), self.turns.clone());
        self.by_namespace.rcu(|old| {
            let mut new = HashMap::clone(old);
            let (namespace, name) = key.shared();
            new.entry(namespace)
                .or_default()
                .entry(name)
                .or_insert_with(|| Arc::clone(&pool));
            new
        });
        self.get(key.namespace(), key.name()).unwrap_or(pool)
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
