//! From a spec to a container that accepts connections, or to nothing at all.
//!
//! A start runs in a task of its own, so that a caller who leaves cuts off no call to the engine half-way: the task sees
//! it, and clears away what there is.

use std::{io, sync::Arc, time::Duration};

use bollard::{
    models::{ContainerState, ImageConfig},
    query_parameters::{CreateContainerOptionsBuilder, WaitContainerOptionsBuilder},
};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{
    Inner, container,
    engine::{CHANGE, CallError, LOOK, NO_SPACE, found},
    facts, logs,
};
use crate::{
    builder::docker::is_of_its_name,
    crash::{self, Point},
    runtime::{
        Address, InstanceSpec, Network, Observed, RuntimeError, init, probe,
        rundir::{InstanceDirs, Readers},
    },
};

pub(super) async fn start(inner: Arc<Inner>, spec: InstanceSpec) -> Result<Observed, RuntimeError> {
    let left = CancellationToken::new();
    let _leaving = left.clone().drop_guard();
    let starts = inner.starts.clone();
    let task = starts.spawn(async move { run(&inner, &spec, &left).await });
    match task.await {
        Ok(outcome) => outcome,
        Err(ended) => Err(RuntimeError::Engine(format!(
            "the start was cut off: {ended}"
        ))),
    }
}

async fn run(
    inner: &Inner,
    spec: &InstanceSpec,
    left: &CancellationToken,
) -> Result<Observed, RuntimeError> {
    let dirs = make_dirs(inner, spec).await?;
    let outcome = launch(inner, spec, &dirs, left).await;
    if outcome.is_err() {
        inner.remove_dirs(&spec.id).await;
    }
    outcome.map(|()| spec.running_at(inner.settings.run_root.socket(&spec.id)))
}

async fn make_dirs(inner: &Inner, spec: &InstanceSpec) -> Result<InstanceDirs, RuntimeError> {
    let readers = readers(inner, spec).await?;
    let (root, id, secrets) = (
        inner.settings.run_root.clone(),
        spec.id.clone(),
        spec.secrets.clone(),
    );
    blocking("make the directories of the instance", move || {
        root.create(&id, &secrets, readers)
    })
    .await
}

/// Whom the files of its secrets are for.
async fn readers(inner: &Inner, spec: &InstanceSpec) -> Result<Readers, RuntimeError> {
    let root = rustix::process::geteuid().is_root();
    if spec.secrets.is_empty() || !root || facts::maps_users(&inner.engine).await? {
        return Ok(Readers::Mapped);
    }
    Ok(Readers::Instance)
}

async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, RuntimeError> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome
        .map_err(io::Error::other)
        .flatten()
        .map_err(|error| {
            let why = format!("cannot {what}: {error}");
            if error.kind() == io::ErrorKind::StorageFull {
                RuntimeError::NoSpace(why)
            } else {
                RuntimeError::Refused(why)
            }
        })
}

/// Creates, starts and waits. On an error, no container stays.
async fn launch(
    inner: &Inner,
    spec: &InstanceSpec,
    dirs: &InstanceDirs,
    left: &CancellationToken,
) -> Result<(), RuntimeError> {
    let image = image_config(inner, spec).await?;
    let (state, bytes) = (inner.settings.state.clone(), inner.settings.init);
    let init = blocking("store the init", move || init::store(&state, bytes)).await?;
    // Held until the container is attached, so that nobody takes the network away meanwhile.
    let internet = match spec.network {
        Network::Internet => Some(inner.internet.open(&inner.engine).await?),
        Network::None => None,
    };
    let at = container::Placement {
        owner: &inner.settings.owner,
        init: &init,
        dirs,
        network: internet.as_ref().map_or("none", |_| inner.internet.name()),
        cores: cores(inner, spec).await?,
    };
    let created = create(inner, spec, container::body(spec, &image, at)?).await;
    if let Err(RuntimeError::Engine(_)) = created {
        // It may be there all the same.
        clear(inner, &spec.id).await;
    }
    let container = created?;
    crash::point(Point::ContainerCreated, &spec.function);
    let outcome = async {
        begin(inner, &container).await?;
        crash::point(Point::InstanceStarted, &spec.function);
        drop(internet);
        tokio::select! {
            outcome = ready(inner, spec, &container) => outcome,
            () = left.cancelled() => Err(RuntimeError::Engine("the caller left".to_owned())),
        }
    };
    let outcome = outcome.await;
    if outcome.is_err() {
        clear(inner, &spec.id).await;
    }
    outcome
}

/// Removes the container of a start that failed, if there is one.
async fn clear(inner: &Inner, id: &str) {
    let removed = async {
        match inner.find(id).await? {
            Some(container) => inner.remove(&container, Duration::ZERO).await.map(drop),
            None => Ok(()),
        }
    };
    if let Err(error) = removed.await {
        tracing::warn!(instance = id, %error, "A container that failed to start stays until all are compared");
    }
}

/// Cores that the instance may share in. Every machine has one; only for more the engine is asked.
async fn cores(inner: &Inner, spec: &InstanceSpec) -> Result<i64, CallError> {
    if spec.limits.nano_cpus <= container::CORE {
        return Ok(1);
    }
    facts::cores(&inner.engine).await
}

async fn image_config(inner: &Inner, spec: &InstanceSpec) -> Result<ImageConfig, RuntimeError> {
    let name = spec.image.clone();
    let inspected = inner
        .engine
        .call("inspect image", LOOK, |docker| async move {
            docker.inspect_image(&name).await
        })
        .await;
    let missing = || RuntimeError::ImageMissing(spec.image.clone());
    let inspected = found(inspected)?.ok_or_else(missing)?;
    let config = inspected.config.unwrap_or_default();
    let labels = config.labels.clone().unwrap_or_default();
    if is_of_its_name(&inner.settings.owner, &spec.image, &labels) {
        return Ok(config);
    }
    tracing::warn!(image = %spec.image, "Somebody gave this name to another image; the Function's own is built again");
    Err(missing())
}

async fn create(
    inner: &Inner,
    spec: &InstanceSpec,
    body: bollard::models::ContainerCreateBody,
) -> Result<String, RuntimeError> {
    let options = CreateContainerOptionsBuilder::new().name(&spec.id).build();
    let created = inner
        .engine
        .call("create container", CHANGE, |docker| async move {
            docker.create_container(Some(options), body).await
        })
        .await;
    match created {
        Ok(created) => Ok(created.id),
        Err(error) if error.is(404) => Err(RuntimeError::ImageMissing(spec.image.clone())),
        Err(error) => Err(judge(error)),
    }
}

async fn begin(inner: &Inner, container: &str) -> Result<(), RuntimeError> {
    let id = container.to_owned();
    let started = inner
        .engine
        .call("start container", CHANGE, |docker| async move {
            docker.start_container(&id, None).await
        })
        .await;
    started.map_err(judge)
}

/// Whether it is the image or the limits that the engine will never take, or the engine that has a bad day.
fn judge(error: CallError) -> RuntimeError {
    match &error {
        CallError::Refused {
            status: 400,
            message,
        } => RuntimeError::NotRunnable(message.clone()),
        CallError::Refused { message, .. }
            if message.contains("OCI runtime") && !message.contains(NO_SPACE) =>
        {
            RuntimeError::NotRunnable(message.clone())
        }
        _ => error.into(),
    }
}

/// Waits until a connection is accepted, and no longer than the container lives or may take.
async fn ready(inner: &Inner, spec: &InstanceSpec, container: &str) -> Result<(), RuntimeError> {
    let address = Address::from(inner.settings.run_root.socket(&spec.id));
    let limit = spec.startup_timeout;
    tokio::select! {
        outcome = tokio::time::timeout(limit, probe::accepted(&address)) => match outcome {
            Ok(outcome) => outcome,
            Err(_) => Err(RuntimeError::NotListening { limit, log: words(inner, container).await }),
        },
        ended = end(inner, container) => Err(ended),
    }
}

/// Waits for the container's end and tells how it was.
async fn end(inner: &Inner, container: &str) -> RuntimeError {
    let docker = match inner.engine.client().await {
        Ok(docker) => docker,
        Err(error) => return error.into(),
    };
    let options = WaitContainerOptionsBuilder::new()
        .condition("not-running")
        .build();
    // The answer is an error for any code but 0, and a lost engine is one too: the container's state tells them apart.
    docker.wait_container(container, Some(options)).next().await;
    match state(inner, container).await {
        Ok(state) => RuntimeError::Exited {
            code: state.exit_code.unwrap_or(-1),
            out_of_memory: state.oom_killed.unwrap_or(false),
            log: words(inner, container).await,
        },
        Err(error) => error.into(),
    }
}

async fn state(inner: &Inner, container: &str) -> Result<ContainerState, CallError> {
    let id = container.to_owned();
    let inspected = inner
        .engine
        .call("inspect container", LOOK, |docker| async move {
            docker.inspect_container(&id, None).await
        })
        .await?;
    match inspected.state {
        Some(state) if state.running != Some(true) => Ok(state),
        _ => Err(CallError::Lost(
            "the wait for a container broke off".to_owned(),
        )),
    }
}

async fn words(inner: &Inner, container: &str) -> String {
    match inner.engine.client().await {
        Ok(docker) => logs::last_words(&docker, container).await,
        Err(error) => format!("(not readable: {error})"),
    }
}
