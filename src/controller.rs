//! The reconcile loop: one turn of one Function is observe → plan → apply → report.
//!
//! 1. *observe* (memory only, plus the source when it changed): what is there, [`mod@observe`], [`entry`], [`images`], the pool;
//! 2. *plan*: [`crate::plan`], which is pure;
//! 3. *apply*: [`apply`] begins builds, starts and stops as tasks of their own, and switches routes;
//! 4. *report*: the status, written only on a difference, [`mod@report`].
//!
//! Turns come from changes of objects, from callers who wait, from the ends of tasks, from instances that exit and from
//! the wake times that plans ask for. kube-runtime's applier runs them: one at a time for each Function.

pub mod apply;
pub mod capacity;
pub mod claims;
mod collect;
pub mod engine;
pub mod entry;
mod exits;
mod follow;
pub mod images;
pub mod last_words;
pub mod log;
pub mod observe;
mod rebuild;
pub mod report;
pub mod resolve;
pub mod secrets;
pub mod turns;
pub mod view;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::runtime::{
    controller::{self, Action, Config},
    reflector::{self, ObjectRef},
    watcher::Event,
};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::task::TaskTracker;

pub use self::turns::Turns;
use self::{capacity::Capacity, engine::Engine, entry::Entry, images::Images, resolve::Resolver};
use crate::{
    builder::Builder,
    function::{DEFAULT_NAMESPACE, Function, FunctionKey, Revision},
    plan::{self, Blocked, Plan, Target},
    pool::Pools,
    retry::BACKOFF,
    runtime::Runtime,
    store::{Object, Store, StoreError},
    telemetry::Metrics,
};

/// Turns that run at a time.
const CONCURRENT_TURNS: u16 = 8;
/// Builds that run at a time.
const CONCURRENT_BUILDS: usize = 2;
/// Ready images that are fetched at a time: they wait for registries, which may hang.
const CONCURRENT_PULLS: usize = 8;
/// How often the files of secrets are looked at.
const SECRETS_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked what holds up a start.
const STARTS_EVERY: Duration = Duration::from_secs(5);

/// What the controller works with.
pub struct Ports {
    pub store: Arc<dyn Store>,
    pub builder: Arc<dyn Builder>,
    pub runtime: Arc<dyn Runtime>,
}

/// Decides and does. One for a process.
pub struct Controller {
    ports: Ports,
    resolver: Resolver,
    pools: Arc<Pools>,
    turns: Turns,
    entries: Mutex<Entries>,
    images: Images,
    capacity: Capacity,
    /// Someone needs memory that idle instances of others hold.
    pressure: AtomicBool,
    starving: Mutex<HashSet<FunctionKey>>,
    /// Which Function tries out a revision that several may want.
    proving: Mutex<HashMap<Revision, FunctionKey>>,
    engine: watch::Sender<Engine>,
    /// Something may have become unneeded.
    collect: Notify,
    /// Changes with every turn's end.
    turned: watch::Sender<()>,
    builds: Semaphore,
    pulls: Semaphore,
    starts: Semaphore,
    /// Instances whose logs are read.
    listening: Arc<Semaphore>,
    tasks: TaskTracker,
    /// The server ends: nothing is begun any more.
    leaving: AtomicBool,
    metrics: Arc<Metrics>,
    /// What URLs of functions begin with.
    base_url: String,
}

/// What is remembered of each Function. Boxed, as half of a map may be empty places.
type Entries = HashMap<FunctionKey, Box<Entry>>;

/// A turn that could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The status could not be stored, or the finalizer not be removed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Controller {
    /// Nothing is known yet, and nothing is done before [`Controller::run`].
    pub fn new(
        ports: Ports,
        resolver: Resolver,
        pools: Arc<Pools>,
        turns: Turns,
        settings: Settings,
    ) -> Arc<Self> {
        Arc::new(Self {
            ports,
            resolver,
            pools,
            turns,
            entries: Mutex::default(),
            images: Images::default(),
            capacity: Capacity::new(settings.memory),
            pressure: AtomicBool::new(false),
            starving: Mutex::default(),
            proving: Mutex::default(),
            engine: watch::Sender::new(Engine::Unknown),
            collect: Notify::new(),
            turned: watch::Sender::new(()),
            builds: Semaphore::new(CONCURRENT_BUILDS),
            pulls: Semaphore::new(CONCURRENT_PULLS),
            starts: Semaphore::new(settings.starts),
            listening: Arc::new(Semaphore::new(settings.listening)),
            tasks: TaskTracker::new(),
            leaving: AtomicBool::new(false),
            metrics: settings.metrics,
            base_url: settings.base_url,
        })
    }

    /// Runs turns until the keys end, then lets those that have begun finish. Waits for the engine's first answer before
    /// the first turn, so that what survived a crash is adopted and not started again.
    pub async fn run(self: Arc<Self>, keys: impl Stream<Item = FunctionKey> + Send + 'static) {
        self.ports.store.ready().await;
        let writer = reflector::store::Writer::<Object>::default();
        let store = writer.as_reader();
        let watching = tokio::spawn(Arc::clone(&self).watch(writer));
        // Fails only if the sender is gone, and we hold it.
        let _ = self
            .engine
            .subscribe()
            .wait_for(|engine| *engine != Engine::Unknown)
            .await;
        let queue = keys.map(|key| Ok::<_, std::convert::Infallible>(reference(&key)));
        kube::runtime::applier(
            |function, controller: Arc<Self>| {
                Box::pin(async move { controller.turn(&function).await })
            },
            |function, error, controller| controller.after_error(&function, error),
            Arc::clone(&self),
            store,
            queue,
            Config::default().concurrency(CONCURRENT_TURNS),
        )
        .for_each(|outcome| {
            self.no_object(outcome.err());
            std::future::ready(())
        })
        .await;
        watching.abort();
    }

    /// An object that went before its turn came is no news, but the turn counts as begun: one of the same name may come.
    fn no_object(&self, outcome: Option<controller::Error<TurnError, std::convert::Infallible>>) {
        if let Some(controller::Error::ObjectNotFound(gone)) = outcome
            && let Ok(key) = FunctionKey::new(
                gone.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
                &gone.name,
            )
        {
            self.turns.begin(&key);
            if self.ports.store.get(&key).is_some() {
                // It has come meanwhile, and what it asked for may have been taken for the turn that ends here.
                self.turns.request(&key);
            }
        }
    }

    /// Turns the store's changes into turns.
    async fn watch(self: Arc<Self>, mut writer: reflector::store::Writer<Object>) {
        let mut changes = self.ports.store.watch();
        while let Some(event) = changes.next().await {
            writer.apply_watcher_event(&event);
            match event {
                Event::Apply(function) | Event::InitApply(function) => {
                    if let Ok(key) = FunctionKey::try_from(&*function) {
                        if function.metadata.deletion_timestamp.is_none() {
                            self.pools.ensure(&key);
                        }
                        self.turns.request(&key);
                    }
                }
                Event::Delete(function) => {
                    if let Ok(key) = FunctionKey::try_from(&*function) {
                        self.forget(&key, function.metadata.uid.as_deref());
                    }
                }
                Event::InitDone => self.pools.completed(),
                Event::Init => {}
            }
        }
    }

    /// One turn of one Function.
    async fn turn(self: Arc<Self>, function: &Function) -> Result<Action, TurnError> {
        let Ok(key) = FunctionKey::try_from(function) else {
            return Ok(Action::await_change());
        };
        self.turns.begin(&key);
        if self.leaving.load(Ordering::Relaxed) {
            return Ok(Action::await_change());
        }
        self.metrics.turns.inc();
        let uid = function.metadata.uid.clone().unwrap_or_default();
        if function.metadata.deletion_timestamp.is_some() {
            return self.dismantle(&key, &uid, function).await;
        }

        self.ports.store.hold(&key, &uid).await?;
        // 1. observe
        self.resolve(&key, &uid, function).await;
        let now = Instant::now();
        let Some((mut view, world)) = self.observe(&key) else {
            return Ok(Action::await_change());
        };

        // 2. plan
        let mut plan = match &view.engine {
            None => plan::plan(view.desired.as_ref(), view.serving.as_ref(), &world, now),
            // Nothing can be begun without the engine. What runs goes on answering, and callers wait: it may come back.
            Some(_) => Plan::default(),
        };
        if view.serving.is_none() && !resolve::is_understood(function) {
            // A newer faas may have served what this one cannot even read of its record: it is not for this one to end.
            plan.stop.clear();
        }

        // 3. apply
        self.apply(&key, function, &plan, &mut view).await;
        self.keep_served(&key, &uid).await?;

        // 4. report
        self.report(&key, function, &plan, &view).await?;
        Ok(self.next_turn(&key, function, plan.wake, now))
    }

    /// The object is gone for good; one of the same name may have come meanwhile.
    fn forget(&self, key: &FunctionKey, uid: Option<&str>) {
        let mut entries = self.entries();
        let known = entries.get(key).map(|entry| uid == Some(&entry.uid));
        let entry = match known {
            Some(true) => entries.remove(key),
            _ => None,
        };
        drop(entries);
        // One that never had a turn may have a pool all the same.
        if known.unwrap_or_else(|| self.ports.store.get(key).is_none()) {
            self.pools.remove(key);
        }
        if let Some(entry) = entry {
            self.leave_behind(&entry);
        }
        self.collect.notify_one();
        // Whoever follows its log learns that there will be no more.
        self.turned.send_replace(());
    }

    /// When the next turn comes at the latest.
    fn next_turn(
        &self,
        key: &FunctionKey,
        function: &Function,
        wake: Option<Instant>,
        now: Instant,
    ) -> Action {
        let wait = wake.map(|at| at.saturating_duration_since(now));
        let secrets = (!function.spec.secrets.is_empty()).then_some(SECRETS_EVERY);
        let starts = self.entries().get(key).is_some_and(|entry| entry.starts());
        let starts = starts.then_some(STARTS_EVERY);
        let wait = [wait, secrets, starts].into_iter().flatten().min();
        let wall = Timestamp::now();
        if let Some(entry) = self.entries().get_mut(key) {
            entry.turn.count += 1;
            entry.turn.runs = false;
            entry.turn.attempts = 0;
            entry.turn.last = Some(wall);
            entry.turn.next = wait.and_then(|w| wall.checked_add(w).ok());
            entry.turn.last_error = None;
        }
        self.turned.send_replace(());
        wait.map_or_else(Action::await_change, Action::requeue)
    }

    fn after_error(&self, function: &Function, error: &TurnError) -> Action {
        self.metrics.error(error.reason());
        let Ok(key) = FunctionKey::try_from(function) else {
            return Action::await_change();
        };
        tracing::warn!(function = %key, %error, "Turn failed");
        let now = Instant::now();
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&key) else {
            return Action::requeue(Duration::from_secs(1));
        };
        entry.turn.attempts += 1;
        entry.turn.runs = false;
        entry.turn.last_error = Some(error.to_string());
        let at = BACKOFF.next(entry.turn.attempts, now).unwrap_or(now);
        let wait = at.saturating_duration_since(now);
        entry.turn.next = Timestamp::now().checked_add(wait).ok();
        Action::requeue(wait)
    }

    /// The Function's memory, made new when the object is another one than before.
    fn entry<'a>(&self, entries: &'a mut Entries, key: &FunctionKey, uid: &str) -> &'a mut Entry {
        if entries.get(key).is_some_and(|entry| entry.uid != uid) {
            entries.remove(key);
            self.pools.remove(key);
        }
        entries
            .entry(key.clone())
            .or_insert_with(|| Box::new(Entry::new(uid.to_owned(), self.pools.ensure(key))))
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn starving(&self) -> MutexGuard<'_, HashSet<FunctionKey>> {
        self.starving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proving(&self) -> MutexGuard<'_, HashMap<Revision, FunctionKey>> {
        self.proving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the controller is told at start.
pub struct Settings {
    /// Bytes that the limits of all instances together may reach.
    pub memory: i64,
    /// Starts that run at a time.
    pub starts: usize,
    /// Instances whose logs are read at a time, one counted for each who reads.
    pub listening: usize,
    /// What URLs of functions begin with, `http://127.0.0.1:5555`.
    pub base_url: String,
    pub metrics: Arc<Metrics>,
}

/// What one turn looks at besides the world.
pub(crate) struct View {
    desired: Result<Target, Blocked>,
    serving: Option<Target>,
    /// Why the engine does not answer, if it does not.
    engine: Option<String>,
    /// What holds up an instance that starts.
    held_up: Option<String>,
}

impl TurnError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Store(error) => error.reason(),
        }
    }
}

fn reference(key: &FunctionKey) -> ObjectRef<Object> {
    ObjectRef::new(key.name()).within(key.namespace())
}
