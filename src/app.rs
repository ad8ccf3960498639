//! The server: makes the adapters, owns every task, drains.

mod adapters;
mod doors;
mod error;
pub mod gateway;
mod gateways;
mod signals;
mod standby;
mod stores;
mod tenure;

use std::{
    future::Future,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    adapters::adapters,
    doors::{Doors, Part},
    gateways::Gateways,
    signals::Signals,
    stores::Opened,
    tenure::Tenure,
};
pub use self::{adapters::run_base, error::AppError};
use crate::{
    access::users::Users,
    api::{self, Api},
    builder::{archive::Limits, archives::Archives, sources::Sources},
    config::{self, Config, RuntimeKind, store::StoreConfig},
    controller::{Controller, Ports, Settings, Turns, resolve::Resolver, secrets::Secrets},
    crash,
    directory::{self, Directory},
    ingress::Ingress,
    pool::Pools,
    runtime::Runtime,
    store::{
        Store, embedded,
        state::{self, Identity},
    },
    telemetry::Metrics,
    workers::Workers,
};

/// Part of the machine's memory that instances may claim, in hundredths.
const MEMORY_PERCENT: i64 = 80;
/// Longest wait for calls that run when the server ends: the longest `timeoutSeconds`.
const DRAIN: Duration = Duration::from_secs(900);

/// Runs the server until a signal ends it.
pub async fn run(config: Config) -> Result<(), AppError> {
    if let Some(file) = config::crash_file() {
        crash::arm(file);
    }
    match State::open(&config).await {
        Err(AppError::Waited) => Ok(()),
        state => serve(config, state?).await,
    }
}

async fn serve(config: Config, mut state: State) -> Result<(), AppError> {
    let tenure = Tenure::begin(state.opened.lease.take());
    let adapters = adapters(&config, &state).await?;
    let doors = doors(&config, &state).await?;
    let facts = facts(&config, &state.opened.name, doors.url(), &*adapters.runtime).await;
    let directory = watcher(&config, &state)?;
    let problems = directory
        .as_ref()
        .map_or_else(|| watch::channel(Vec::new()).1, Directory::problems);
    announce(&config, &state.opened.name, &facts, &doors);

    let metrics = Arc::new(Metrics::default());
    let settings = Settings {
        memory: memory(config.runtime),
        starts: starts(config.runtime),
        listening: doors::tenth_of_descriptors(),
        base_url: doors.calls(),
        metrics: Arc::clone(&metrics),
    };
    let (turns, keys) = Turns::new();
    let pools = Pools::new(turns.clone());
    let gateways = config.gateways.as_ref();
    let (pools, gateways) = Gateways::open(gateways, pools, &state.opened).await?;
    let ports = Ports {
        store: state.store(),
        builder: adapters.builder,
        runtime: adapters.runtime,
    };
    let resolver = state.resolver(&config, Arc::clone(&adapters.archives));
    let controller = Controller::new(ports, resolver, Arc::clone(&pools), turns, settings);
    let mut tasks = Tasks::default();
    let api = Api {
        store: state.store(),
        archives: adapters.archives,
        controller: Arc::clone(&controller),
        metrics: Arc::clone(&metrics),
        roots: Arc::new(directory::absolute(&config.dirs).map_err(at(Path::new(".")))?),
        problems,
        facts: Arc::new(facts),
        stop: tasks.stop.clone(),
    };
    let workers = workers(config.runtime).map_err(AppError::Threads)?;
    let ingress = Ingress::new(pools, api::router(api), metrics, workers);

    tasks.spawn_some("store", state.opened.follow);
    tasks.spawn_some("runtime", adapters.follow);
    tasks.spawn("controller", Arc::clone(&controller).run(keys));
    tasks.spawn("engine", Arc::clone(&controller).watch_engine());
    tasks.spawn("collector", Arc::clone(&controller).collect_unneeded());
    let stop = tasks.stop.clone();
    tasks.spawn_some("directory", directory.map(|directory| directory.run(stop)));
    doors.follow(&mut tasks);
    let rules = doors.for_passed();
    let mut listeners = doors.serve(&ingress, &tasks.stop);
    if let Some(gateways) = gateways {
        gateways.serve(&mut tasks, &mut listeners, &controller, (&ingress, rules));
    }
    let signals = state.opened.signals.unwrap_or_else(Signals::listen);
    until_the_end(tasks, listeners, signals, &controller, tenure).await
}

/// Where it listens, and for what.
async fn doors(config: &Config, state: &State) -> Result<Doors, AppError> {
    let opened = state.opened.cluster.as_ref();
    let cluster = opened.map(|(cluster, _)| cluster);
    let users = opened.map(|(cluster, served)| Users::new(cluster.client.clone(), served.clone()));
    let part = match config.gateways {
        Some(_) => Part::Controller,
        None => Part::Whole,
    };
    Ok(Doors::open(&config.doors, &config.state_dir, cluster, part, users).await?)
}

/// Pods have machines of their own.
fn workers(runtime: RuntimeKind) -> io::Result<Workers> {
    match runtime {
        RuntimeKind::Pods => Workers::alone(),
        RuntimeKind::Auto | RuntimeKind::Docker | RuntimeKind::Process => {
            Workers::beside_functions()
        }
    }
}

/// Serves until a signal, or whoever controls now, ends it.
async fn until_the_end(
    tasks: Tasks,
    listeners: Tasks,
    signals: Signals,
    controller: &Controller,
    mut tenure: Tenure,
) -> Result<(), AppError> {
    let replaced = async { AppError::Replaced(tenure.lost().await) };
    let ended = tasks
        .until_signal(signals, listeners, replaced, controller.leave())
        .await?;
    tenure.end().await;
    if ended.is_orderly {
        return ended.outcome;
    }
    Err(AppError::Left(if controller.abandon().await {
        "instances are adopted at the next start"
    } else {
        "instances ended with it"
    }))
}

/// Bytes that instances may claim in all. A cluster's scheduler knows better than we what its nodes have.
fn memory(runtime: RuntimeKind) -> i64 {
    match runtime {
        RuntimeKind::Pods => i64::MAX,
        _ => config::machine_memory() / 100 * MEMORY_PERCENT,
    }
}

/// Starts at a time: more would make each of them slower, where they share one machine.
fn starts(runtime: RuntimeKind) -> usize {
    match runtime {
        RuntimeKind::Pods => 64,
        _ => 8,
    }
}

/// What survives the server, held by it alone.
struct State {
    opened: Opened,
    sources: Sources,
    owner: String,
    hash_key: [u8; 32],
    _lock: state::Lock,
}

impl State {
    async fn open(config: &Config) -> Result<Self, AppError> {
        let dir = &config.state_dir;
        let lock = state::lock(dir, "faas start")?;
        let was_used = state::has_owner(dir);
        embedded::find_owner(dir)?;
        let own = Identity::own(dir)?;
        let opened = stores::open(config, &own, was_used).await?;
        let shared = opened.identity.clone().unwrap_or_else(|| own.clone());
        Ok(Self {
            opened,
            sources: Sources::open(&dir.join(state::SOURCES)).map_err(at(dir))?,
            // What an engine has is this machine's own.
            owner: match config.runtime {
                RuntimeKind::Pods => shared.owner,
                _ => own.owner,
            },
            hash_key: shared.secret,
            _lock: lock,
        })
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.opened.store)
    }

    /// In a cluster they are the cluster's, unless a directory is named.
    fn secrets(&self, config: &Config) -> Secrets {
        match (&config.secrets_dir, &self.opened.secrets) {
            (Some(dir), _) => Secrets::Directory(dir.clone()),
            (None, Some(secrets)) => Secrets::Cluster(secrets.clone()),
            (None, None) => Secrets::None,
        }
    }

    fn resolver(&self, config: &Config, archives: Arc<dyn Archives>) -> Resolver {
        Resolver {
            archives,
            sources: self.sources.clone(),
            bases: config.bases.clone(),
            owner: self.owner.clone(),
            hash_key: self.hash_key,
            secrets: self.secrets(config),
            memory: memory(config.runtime),
        }
    }
}

/// What owns the long-lived tasks. One that ends before it is told to ends the process, by name.
#[derive(Default)]
struct Tasks {
    running: JoinSet<&'static str>,
    stop: CancellationToken,
}

impl Tasks {
    fn spawn_some(
        &mut self,
        name: &'static str,
        task: Option<impl Future<Output = ()> + Send + 'static>,
    ) {
        if let Some(task) = task {
            self.spawn(name, task);
        }
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(task.map(move |()| name));
    }

    /// The first signal drains, the second leaves at once. So does `over`, and its reason is told in the end. When all calls have
    /// ended we `leave`.
    async fn until_signal(
        mut self,
        mut signals: Signals,
        mut listeners: Self,
        over: impl Future<Output = AppError>,
        leave: impl Future<Output = ()>,
    ) -> Result<Ended, AppError> {
        let mut outcome = Ok(());
        tokio::select! {
            () = signals.next() => {}
            reason = over => outcome = Err(reason),
            ended = self.running.join_next() => return Err(AppError::TaskEnded(name(ended))),
            ended = listeners.running.join_next() => return Err(AppError::TaskEnded(name(ended))),
        }
        say("Draining: calls that run are answered; Ctrl-C again leaves at once");
        self.stop.cancel();
        let drained = async { while listeners.running.join_next().await.is_some() {} };
        let orderly = async {
            tokio::time::timeout(DRAIN, drained).await.ok()?;
            leave.await;
            Some(())
        };
        let ended = tokio::select! {
            () = signals.next() => None,
            ended = orderly => ended,
        };
        Ok(Ended {
            is_orderly: ended.is_some(),
            outcome,
        })
    }
}

/// How a server ended.
struct Ended {
    /// Nothing was cut.
    is_orderly: bool,
    /// Why it had to, if nobody told it to.
    outcome: Result<(), AppError>,
}

fn name(ended: Option<Result<&'static str, tokio::task::JoinError>>) -> &'static str {
    match ended {
        Some(Ok(name)) => name,
        Some(Err(error)) => {
            tracing::error!(%error, "Task failed");
            "that failed"
        }
        None => "none",
    }
}

fn watcher(config: &Config, state: &State) -> Result<Option<Directory>, AppError> {
    let (store, sources) = (state.store(), state.sources.clone());
    let Some(first) = config.dirs.first() else {
        store.directories_are_read();
        return Ok(None);
    };
    Directory::new(&config.dirs, store, sources, Limits::default())
        .map(Some)
        .map_err(at(first))
}

/// What this server is made of.
async fn facts(config: &Config, store: &str, url: String, runtime: &dyn Runtime) -> Value {
    let engine = runtime.facts().await.unwrap_or_default();
    let kind = match config.runtime {
        RuntimeKind::Process => "process",
        RuntimeKind::Pods => "pods",
        RuntimeKind::Auto | RuntimeKind::Docker => "docker",
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "runtime": kind,
        "engine": engine,
        "store": store,
        "directories": config.dirs,
        "address": url,
    })
}

/// Says what was chosen.
fn announce(config: &Config, store: &str, facts: &Value, doors: &Doors) {
    let engine = facts["engine"]["engine"].as_str();
    match (config.runtime, engine) {
        (RuntimeKind::Process, _) => {
            say(
                "runtime      process: functions run as you on this machine; NOTHING isolates them",
            );
        }
        (_, engine) => {
            let engine = engine.unwrap_or("engine of unknown version");
            let kind = facts["runtime"].as_str().unwrap_or_default();
            say(&format!("runtime      {kind} ({engine})"));
        }
    }
    say(&format!("store        {store}"));
    if let Some(registry) = &config.registry {
        say(&format!("registry     {}", registry.place));
    }
    match config.dirs.as_slice() {
        [] if config.store != StoreConfig::Embedded => {}
        [] => say("directories  none (use --dir DIR, `faas apply` or `faas build`)"),
        dirs => dirs
            .iter()
            .for_each(|dir| say(&format!("directory    {}", dir.display()))),
    }
    if let Some(invoke) = doors.invoke_url() {
        say(&format!("calls        {invoke}"));
    }
    say(&format!("listening on {}", doors.url()));
}

/// Prints a line. Whoever read them may have left, and that is no reason to end.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> AppError {
    let path = path.to_owned();
    move |error| AppError::Path { path, error }
}
