//! What builds and what runs, as the configuration says.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};

use super::{AppError, State, at};
use crate::{
    builder::{
        BuildError, Builder,
        archives::Archives,
        docker::{DockerBuilder, EngineHost},
        process::ProcessBuilder,
        ready::ReadyImages,
        registry::{self, LocalBuilder, RegistryArchives, RegistryBuilder},
        sources::Sources,
    },
    config::{Config, RuntimeKind, registry::RegistryConfig},
    kubernetes::{Cluster, watch::Scope},
    runtime::{
        Runtime, RuntimeError,
        docker::{self, DockerRuntime},
        pods::{self, PodRuntime},
        process::{self, ProcessRuntime},
        rundir::RunRoot,
    },
    store::state,
};

/// The ports to engines and registries, and where uploads are.
pub(super) struct Adapters {
    pub archives: Arc<dyn Archives>,
    pub builder: Arc<dyn Builder>,
    pub runtime: Arc<dyn Runtime>,
    /// What keeps the runtime's memory as its server says, if it has one.
    pub follow: Option<BoxFuture<'static, ()>>,
}

/// Connects to the engine, or says why there is none.
pub(super) async fn adapters(config: &Config, state: &State) -> Result<Adapters, AppError> {
    match (config.runtime, &state.opened.cluster) {
        (RuntimeKind::Process, _) => processes(config, &state.sources, &state.owner),
        (RuntimeKind::Pods, Some((cluster, scope))) => pods(config, state, cluster, scope).await,
        _ => containers(config, state).await,
    }
}

/// Without a registry, ready images are all that there is.
async fn pods(
    config: &Config,
    state: &State,
    cluster: &Cluster,
    scope: &Scope,
) -> Result<Adapters, AppError> {
    let runtime = PodRuntime::new(pods::Settings {
        client: cluster.client.clone(),
        scope: scope.clone(),
    });
    let follow = Some(runtime.clone().follow().boxed());
    let runtime = Arc::new(runtime);
    Ok(match pushing(config, state).await? {
        Some((archives, builder)) => Adapters {
            archives: Arc::new(archives),
            builder: Arc::new(builder),
            runtime,
            follow,
        },
        None => Adapters {
            archives: Arc::new(state.sources.clone()),
            builder: Arc::new(ReadyImages),
            runtime,
            follow,
        },
    })
}

async fn containers(config: &Config, state: &State) -> Result<Adapters, AppError> {
    let no_engine = |message: String| AppError::NoEngine {
        socket: config.docker_socket.clone(),
        message,
    };
    let (owner, key) = (state.owner.as_str(), &state.hash_key);
    let socket = config.docker_socket.as_path();
    let engine = DockerBuilder::connect(socket, owner, key, config.build.clone())
        .await
        .map_err(|error: BuildError| no_engine(error.to_string()))?;
    engine.sweep().await;
    let runtime = DockerRuntime::new(docker::Settings {
        socket: config.docker_socket.clone(),
        owner: owner.to_owned(),
        run_root: run_root(config, owner, true)?,
        state: config.state_dir.clone(),
        init: docker::INIT,
        allow_host_reach: config.allow_host_reach,
    });
    runtime
        .sweep()
        .await
        .map_err(|error: RuntimeError| no_engine(error.to_string()))?;
    let runtime = Arc::new(runtime);
    Ok(match pushing(config, state).await? {
        Some((archives, pushed)) => Adapters {
            archives: Arc::new(archives),
            builder: Arc::new(LocalBuilder::new(pushed, engine)),
            runtime,
            follow: None,
        },
        None => Adapters {
            archives: Arc::new(state.sources.clone()),
            builder: Arc::new(engine),
            runtime,
            follow: None,
        },
    })
}

/// What builds into the registry, and keeps uploads there, if one is named.
async fn pushing(
    config: &Config,
    state: &State,
) -> Result<Option<(RegistryArchives, RegistryBuilder)>, AppError> {
    let Some(registry) = &config.registry else {
        return Ok(None);
    };
    let scope = match &state.opened.cluster {
        Some((_, scope)) => scope.clone(),
        None => Scope::All,
    };
    let settings = settings(registry, &state.owner, scope);
    let build_host = match &registry.build_host {
        Some(host) => Some(build_host(config, host, &state.owner, &state.hash_key).await?),
        None => None,
    };
    let cache = config.state_dir.join(state::UPLOADS);
    let pushed = RegistryBuilder::new(settings.clone(), build_host);
    pushed.sweep().await;
    Ok(Some((RegistryArchives::new(settings, cache), pushed)))
}

fn settings(config: &RegistryConfig, owner: &str, scope: Scope) -> registry::Settings {
    registry::Settings {
        place: config.place.clone(),
        pull: config.pull.clone(),
        plain_http: config.plain_http,
        auth: config.auth.clone(),
        owner: owner.to_owned(),
        scope,
        init: docker::INIT,
        patience: registry::PATIENCE,
    }
}

/// The engine that builds what must run commands.
async fn build_host(
    config: &Config,
    host: &EngineHost,
    owner: &str,
    key: &[u8],
) -> Result<DockerBuilder, AppError> {
    let engine = DockerBuilder::connect(host.clone(), owner, key, config.build.clone()).await;
    let engine = engine.map_err(|error| AppError::NoBuildHost {
        host: host.clone(),
        message: error.to_string(),
    })?;
    engine.sweep().await;
    Ok(engine)
}

fn processes(config: &Config, sources: &Sources, owner: &str) -> Result<Adapters, AppError> {
    let images = config.state_dir.join("images");
    let builder =
        ProcessBuilder::open(&images, owner, config.build.clone()).map_err(at(&images))?;
    let run_root = run_root(config, owner, false)?;
    let settings = process::Settings {
        run_root,
        images,
        node: PathBuf::from("node"),
        path: config.path.clone(),
        state: config.state_dir.clone(),
    };
    let runtime = ProcessRuntime::new(settings).map_err(at(&config.state_dir))?;
    Ok(Adapters {
        archives: Arc::new(sources.clone()),
        builder: Arc::new(builder),
        runtime: Arc::new(runtime),
        follow: None,
    })
}

/// Sockets live in memory: in mounts of their own as root, else in the user's runtime directory.
fn run_root(config: &Config, owner: &str, mounts: bool) -> Result<RunRoot, AppError> {
    let root = rustix::process::geteuid().is_root();
    let path = run_base(config.user_runtime_dir.as_deref()).join(owner);
    RunRoot::open(&path, root && mounts).map_err(at(&path))
}

/// The directory in memory below which every installation of this user has its run root.
pub fn run_base(user_runtime_dir: Option<&Path>) -> PathBuf {
    let user = rustix::process::geteuid();
    match user_runtime_dir {
        _ if user.is_root() => PathBuf::from("/run/faas"),
        Some(dir) => dir.join("faas"),
        None => PathBuf::from(format!("/dev/shm/faas-{}", user.as_raw())),
    }
}
