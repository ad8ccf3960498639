//! Runs instances as hardened containers of a Docker engine (API 1.41, Docker 20.10, or newer).
//!
//! What a container is, is decided in `container`; the engine is reached through [`engine`]; the order of things is here:
//! directories, network, create, start, and a connection that is accepted. Identity is in labels alone: a container that
//! does not carry our owner's label is not ours, whatever it is called.

mod container;
pub mod engine;
mod events;
mod facts;
mod logs;
mod network;
mod start;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    iter,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    models::{ContainerSummary, ContainerSummaryStateEnum, ContainerUpdateBody},
    query_parameters::{
        KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        StopContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio_util::task::TaskTracker;

pub use super::init::INIT;

use self::{
    engine::{CHANGE, CallError, Engine, LOOK, PING},
    network::InternetNetwork,
};
use super::{
    Exit, InstanceId, InstanceSpec, LogPiece, Observed, Runtime, RuntimeError, rundir::RunRoot,
};

/// How long a server that ends waits for starts that were given up.
const LEAVE: Duration = Duration::from_secs(10);

/// What the runtime is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engine's unix socket.
    pub socket: PathBuf,
    /// Identity of this installation; at most 40 letters, digits or dashes.
    pub owner: String,
    /// Where instances' directories are.
    pub run_root: RunRoot,
    /// State directory; the init is kept below it.
    pub state: PathBuf,
    /// The program that every container starts with: [`INIT`].
    pub init: &'static [u8],
    /// `--allow-host-reach`: offer `network: internet` also where this host cannot be shielded from it.
    pub allow_host_reach: bool,
}

/// Containers of one owner.
#[derive(Clone)]
pub struct DockerRuntime(Arc<Inner>);

struct Inner {
    settings: Settings,
    engine: Engine,
    internet: InternetNetwork,
    /// Starts that go on, also those that nobody waits for any more.
    starts: TaskTracker,
    /// Instances whose end was told: the engine lists them as running for a moment more.
    ended: Arc<Mutex<HashSet<InstanceId>>>,
}

/// What people want to know about the engine behind a socket; see [`Runtime::facts`].
pub async fn engine_facts(socket: &Path) -> Result<BTreeMap<String, String>, RuntimeError> {
    facts::facts(&Engine::new(socket)).await
}

impl DockerRuntime {
    /// Touches nothing yet; the engine may be away.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Inner {
            engine: Engine::new(&settings.socket),
            internet: InternetNetwork::new(&settings.owner, settings.allow_host_reach),
            starts: TaskTracker::new(),
            ended: Arc::default(),
            settings,
        }))
    }

    /// Removes directories that no container uses any more. To be called before the first start: directories come before
    /// their container.
    ///
    /// # Errors
    /// When the engine does not answer. A directory that cannot be removed is only logged.
    pub async fn sweep(&self) -> Result<(), RuntimeError> {
        let used: HashSet<InstanceId> = self.observe().await?.into_iter().map(|o| o.id).collect();
        let root = &self.0.settings.run_root;
        let left = root
            .leftovers()
            .map_err(|error| RuntimeError::Engine(error.to_string()))?;
        for id in left.into_iter().filter(|id| !used.contains(id)) {
            self.0.remove_dirs(&id).await;
        }
        Ok(())
    }
}

impl Inner {
    /// Instances of ours, or one of them alone.
    async fn containers(&self, of: Option<&str>) -> Result<Vec<ContainerSummary>, CallError> {
        let owner = format!("{}={}", container::OWNER, self.settings.owner);
        let instance = of.map(|id| format!("{}={id}", container::INSTANCE));
        let labels = iter::once(owner).chain(instance).collect::<Vec<_>>();
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&HashMap::from([("label", labels)]))
            .build();
        let mut containers = self
            .engine
            .call("list containers", LOOK, |docker| async move {
                docker.list_containers(Some(options)).await
            })
            .await?;
        containers.retain(is_instance);
        Ok(containers)
    }

    /// The engine's id of one of our containers, whatever its name is by now.
    async fn find(&self, id: &str) -> Result<Option<String>, CallError> {
        let found = self.containers(Some(id)).await?;
        Ok(found.into_iter().find_map(|container| container.id))
    }

    /// Ends a container and removes it, all but the end of its log. One that is not there is no error.
    async fn remove(&self, container: &str, grace: Duration) -> Result<Bytes, CallError> {
        // The engine counts whole seconds; a part of one is given, not taken.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
        let (first, last) = (container.to_owned(), container.to_owned());
        let ended = self
            .engine
            .call("stop container", grace + CHANGE, |docker| async move {
                if grace.is_zero() {
                    let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
                    docker.kill_container(&first, Some(options)).await
                } else {
                    let options = StopContainerOptionsBuilder::new().t(seconds).build();
                    docker.stop_container(&first, Some(options)).await
                }
            })
            .await;
        if let Err(error @ CallError::Lost(_)) = ended {
            return Err(error);
        }
        let log = logs::kept(&self.engine.client().await?, container).await;
        // Whatever the engine said of the end (409: it has ended already), removing by force decides.
        let removed = self
            .engine
            .call("remove container", CHANGE, |docker| async move {
                let options = RemoveContainerOptionsBuilder::new()
                    .force(true)
                    .v(true)
                    .build();
                docker.remove_container(&last, Some(options)).await
            })
            .await;
        match removed {
            // 409: somebody else is removing it at this moment.
            Err(error) if !(error.is(404) || error.is(409)) => Err(error),
            _ => Ok(log),
        }
    }

    async fn remove_dirs(&self, id: &str) {
        let (root, name) = (self.settings.run_root.clone(), id.to_owned());
        let removed = tokio::task::spawn_blocking(move || root.remove(&name)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(instance = id, %error, "Directories of an instance stay behind");
        }
    }

    fn has_internet(&self, summary: &ContainerSummary) -> bool {
        let host = summary.host_config.as_ref();
        let mode = host.and_then(|host| host.network_mode.as_deref());
        mode == Some(self.internet.name())
    }

    fn observed(&self, summary: &ContainerSummary) -> Option<Observed> {
        use ContainerSummaryStateEnum::{RESTARTING, RUNNING, STOPPING};
        let running = matches!(summary.state, Some(RUNNING | RESTARTING | STOPPING));
        let labels = summary.labels.as_ref()?;
        let observed = container::observed(labels, running, &self.settings.run_root);
        if observed.is_none() {
            // One unreadable container must not hide the others.
            tracing::warn!(
                container = summary.id,
                "A container of ours has broken labels; remove it by hand"
            );
        }
        observed
    }
}

/// See [`container::is_instance`].
fn is_instance(summary: &ContainerSummary) -> bool {
    let image = summary.image.as_deref().unwrap_or_default();
    let names = summary.names.iter().flatten();
    let names = names.map(|name| name.trim_start_matches('/'));
    summary.labels.as_ref().is_some_and(|labels| {
        // One that is half removed may have none.
        let mut names = names.chain([""]);
        names.any(|name| container::is_instance(labels, name, image))
    })
}

#[async_trait]
impl Runtime for DockerRuntime {
    async fn observe(&self) -> Result<Vec<Observed>, RuntimeError> {
        let containers = self.0.containers(None).await?;
        if containers
            .iter()
            .any(|summary| self.0.has_internet(summary))
        {
            self.0.internet.keep_shield().await;
        }
        let mut observed: Vec<Observed> = containers
            .iter()
            .filter_map(|summary| self.0.observed(summary))
            .collect();
        // A set is whole after any panic.
        let mut ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|id| observed.iter().any(|one| one.id == *id));
        for one in &mut observed {
            one.running &= !ended.contains(&one.id);
        }
        Ok(observed)
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<Observed, RuntimeError> {
        start::start(Arc::clone(&self.0), spec.clone()).await
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<Bytes, RuntimeError> {
        let log = match self.0.find(id).await? {
            Some(container) => self.0.remove(&container, grace).await?,
            None => Bytes::new(),
        };
        self.0.remove_dirs(id).await;
        Ok(log)
    }

    async fn exits(&self) -> Result<BoxStream<'static, Exit>, RuntimeError> {
        let since = facts::engine_time(&self.0.engine).await?;
        let docker = self.0.engine.client().await?;
        let ended = Arc::clone(&self.0.ended);
        let note = move |exit: &Exit| {
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.insert(exit.id.clone());
        };
        let exits = events::exits(&docker, &self.0.settings.owner, &since);
        Ok(exits.inspect(note).boxed())
    }

    async fn set_cpu_shares(&self, id: &InstanceId, shares: u32) -> Result<(), RuntimeError> {
        let update = ContainerUpdateBody {
            cpu_shares: Some(shares.into()),
            ..ContainerUpdateBody::default()
        };
        let Some(container) = self.0.find(id).await? else {
            return Ok(());
        };
        let engine = &self.0.engine;
        let changed = engine.call("update container", LOOK, |docker| async move {
            docker.update_container(&container, update).await
        });
        match changed.await {
            // 409: it ends at this moment.
            Err(error) if !(error.is(404) || error.is(409)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Of an instance that is not there (any more): nothing.
    async fn logs(
        &self,
        id: &InstanceId,
        tail: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, LogPiece>, RuntimeError> {
        let Some(container) = self.0.find(id).await? else {
            return Ok(stream::empty().boxed());
        };
        let docker = self.0.engine.client().await?;
        Ok(logs::pieces(&docker, &container, tail, follow))
    }

    async fn ping(&self) -> Result<(), RuntimeError> {
        let pong = self
            .0
            .engine
            .call("ping", PING, |docker| async move { docker.ping().await })
            .await;
        pong.map(drop).map_err(Into::into)
    }

    async fn facts(&self) -> Result<BTreeMap<String, String>, RuntimeError> {
        facts::facts(&self.0.engine).await
    }

    async fn close_internet(&self) -> Result<(), RuntimeError> {
        self.0.internet.close(&self.0.engine).await
    }

    async fn leave(&self) {
        // A start that was given up may have a container in the making, and takes it away.
        self.0.starts.close();
        if tokio::time::timeout(LEAVE, self.0.starts.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "Starts that were given up do not end; what they leave goes at the next start"
            );
        }
        if let Err(error) = self.close_internet().await {
            tracing::warn!(%error, "The network of functions with `network: internet` could not be removed");
        }
        self.0.settings.run_root.close();
    }
}
