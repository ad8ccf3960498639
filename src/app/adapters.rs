//! What builds and what runs, as the configuration says.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{AppError, at};
use crate::{
    builder::{
        BuildError, Builder,
        archives::Archives,
        docker::{DockerBuilder, EngineHost},
        process::ProcessBuilder,
        registry::{self, LocalBuilder, RegistryArchives, RegistryBuilder},
        sources::Sources,
    },
    config::{Config, RuntimeKind, registry::RegistryConfig},
    runtime::{
        Runtime, RuntimeError,
        docker::{self, DockerRuntime},
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
}

/// Connects to the engine, or says why there is none.
pub(super) async fn adapters(
    config: &Config,
    sources: &Sources,
    owner: &str,
    key: &[u8],
) -> Result<Adapters, AppError> {
    if config.runtime == RuntimeKind::Process {
        return processes(config, sources, owner);
    }
    let no_engine = |message: String| AppError::NoEngine {
        socket: config.docker_socket.clone(),
        message,
    };
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
    let Some(registry) = &config.registry else {
        return Ok(Adapters {
            archives: Arc::new(sources.clone()),
            builder: Arc::new(engine),
            runtime,
        });
    };
    let settings = settings(registry, owner);
    let build_host = match &registry.build_host {
        Some(host) => Some(build_host(config, host, owner, key).await?),
        None => None,
    };
    let cache = config.state_dir.join(state::UPLOADS);
    let pushed = RegistryBuilder::new(settings.clone(), build_host);
    pushed.sweep().await;
    Ok(Adapters {
        archives: Arc::new(RegistryArchives::new(settings, cache)),
        builder: Arc::new(LocalBuilder::new(pushed, engine)),
        runtime,
    })
}

fn settings(config: &RegistryConfig, owner: &str) -> registry::Settings {
    registry::Settings {
        place: config.place.clone(),
        pull: config.pull.clone(),
        plain_http: config.plain_http,
        auth: config.auth.clone(),
        owner: owner.to_owned(),
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
