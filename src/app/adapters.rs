//! What builds and what runs, as the configuration says.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};

use super::{AppError, State, at};
use crate::{
    builder::{
        BuildError, Builder, docker::DockerBuilder, process::ProcessBuilder, ready::ReadyImages,
    },
    config::{Config, RuntimeKind},
    kubernetes::{Cluster, watch::Scope},
    runtime::{
        Runtime, RuntimeError,
        docker::{self, DockerRuntime},
        pods::{self, PodRuntime},
        process::{self, ProcessRuntime},
        rundir::RunRoot,
    },
};

/// Both ports.
pub(super) struct Adapters {
    pub builder: Arc<dyn Builder>,
    pub runtime: Arc<dyn Runtime>,
    /// What keeps the runtime's memory as its server says, if it has one.
    pub follow: Option<BoxFuture<'static, ()>>,
}

/// Connects to the engine, or says why there is none.
pub(super) async fn adapters(config: &Config, state: &State) -> Result<Adapters, AppError> {
    match (config.runtime, &state.opened.cluster) {
        (RuntimeKind::Process, _) => processes(config, &state.owner),
        (RuntimeKind::Pods, Some((cluster, scope))) => Ok(pods(cluster, scope)),
        _ => containers(config, &state.owner, &state.hash_key).await,
    }
}

fn pods(cluster: &Cluster, scope: &Scope) -> Adapters {
    let runtime = PodRuntime::new(pods::Settings {
        client: cluster.client.clone(),
        scope: scope.clone(),
    });
    Adapters {
        builder: Arc::new(ReadyImages),
        follow: Some(runtime.clone().follow().boxed()),
        runtime: Arc::new(runtime),
    }
}

async fn containers(config: &Config, owner: &str, key: &[u8]) -> Result<Adapters, AppError> {
    let no_engine = |message: String| AppError::NoEngine {
        socket: config.docker_socket.clone(),
        message,
    };
    let builder = DockerBuilder::connect(&config.docker_socket, owner, key, config.build.clone())
        .await
        .map_err(|error: BuildError| no_engine(error.to_string()))?;
    builder.sweep().await;
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
    Ok(Adapters {
        builder: Arc::new(builder),
        runtime: Arc::new(runtime),
        follow: None,
    })
}

fn processes(config: &Config, owner: &str) -> Result<Adapters, AppError> {
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
