//! Pure: what a container of ours is: an instance and its image become the body of Docker's create call, labels become
//! an instance again.

use std::{collections::HashMap, path::Path};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, ImageConfig, Mount,
    MountType, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use crate::{
    function::FunctionKey,
    runtime::{
        INIT, InstanceId, InstanceSpec, Observed, RuntimeError,
        rundir::{INSTANCE_UID, InstanceDirs, RunRoot},
    },
};

/// The label that makes a container ours; nothing else does.
pub const OWNER: &str = "faas.dev/owner";
const FUNCTION: &str = "faas.dev/function";
const NAMESPACE: &str = "faas.dev/namespace";
const UID: &str = "faas.dev/uid";
const REVISION: &str = "faas.dev/revision";
pub const INSTANCE: &str = "faas.dev/instance";
const IMAGE: &str = "faas.dev/image";
const MEMORY: &str = "faas.dev/memory";
const DECLARED: &str = "faas.dev/declared";

/// Where the container finds what else is mounted into it.
const SOCKETS: &str = "/run/faas";
const SECRETS: &str = "/run/secrets";
const TMP: &str = "/tmp";

/// One core, as limits count them.
pub const CORE: i64 = 1_000_000_000;

/// What the engine's host provides for one container.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    pub owner: &'a str,
    /// Our init.
    pub init: &'a Path,
    pub dirs: &'a InstanceDirs,
    /// Name of a network, or `none`.
    pub network: &'a str,
    /// Cores of the machine, or as many of them as are known to be enough.
    pub cores: i64,
}

/// The body of the create call.
///
/// # Errors
/// `NotRunnable` when the image says nothing to run.
pub fn body(
    spec: &InstanceSpec,
    image: &ImageConfig,
    at: Placement<'_>,
) -> Result<ContainerCreateBody, RuntimeError> {
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        user: Some(format!("{INSTANCE_UID}:{INSTANCE_UID}")),
        entrypoint: Some(vec![INIT.to_owned()]),
        cmd: Some(command(image)?),
        env: Some(environment(&spec.env)),
        labels: Some(labels(spec, at.owner)),
        // An image could choose a signal that ends nothing, or run commands of its own now and then.
        stop_signal: Some("SIGTERM".to_owned()),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        // For people who call `docker stop`; we send a grace of our own.
        stop_timeout: Some(10),
        host_config: Some(host(spec, image, at)),
        ..ContainerCreateBody::default()
    })
}

fn command(image: &ImageConfig) -> Result<Vec<String>, RuntimeError> {
    let entrypoint = image.entrypoint.iter().flatten();
    let command: Vec<_> = entrypoint
        .chain(image.cmd.iter().flatten())
        .cloned()
        .collect();
    if command.is_empty() {
        return Err(RuntimeError::NotRunnable(
            "it has neither ENTRYPOINT nor CMD: add one to its Dockerfile".to_owned(),
        ));
    }
    Ok(command)
}

/// Ours, then the spec's; no name twice, for programs disagree on which of two counts.
fn environment(own: &[(String, String)]) -> Vec<String> {
    let socket = ("FAAS_SOCKET".to_owned(), "/run/faas/fn.sock".to_owned());
    let port = ("PORT".to_owned(), "8080".to_owned());
    let mut variables: Vec<(String, String)> = Vec::new();
    for (name, value) in std::iter::once(&port).chain(own).chain([&socket]) {
        variables.retain(|(earlier, _)| earlier != name);
        variables.push((name.clone(), value.clone()));
    }
    variables
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn host(spec: &InstanceSpec, image: &ImageConfig, at: Placement<'_>) -> HostConfig {
    let mounts = mounts(at);
    HostConfig {
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        readonly_rootfs: Some(true),
        privileged: Some(false),
        ipc_mode: Some("private".to_owned()),
        network_mode: Some(at.network.to_owned()),
        memory: Some(spec.limits.memory),
        memory_swap: Some(spec.limits.memory),
        // The engine refuses more than its machine has, and takes none for no limit; the same manifest is for small
        // machines and big ones.
        nano_cpus: Some(
            spec.limits
                .nano_cpus
                .min(at.cores.saturating_mul(CORE))
                .max(CORE / 100),
        ),
        cpu_shares: Some(spec.cpu_shares.into()),
        pids_limit: Some(spec.limits.pids),
        shm_size: Some(spec.limits.tmp),
        tmpfs: Some(writable(image, spec.limits.tmp, &mounts)),
        ulimits: Some(ulimits()),
        oom_score_adj: Some(500),
        mounts: Some(mounts),
        log_config: Some(log_config()),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        // The exit code and the log are read before it goes.
        auto_remove: Some(false),
        ..HostConfig::default()
    }
}

/// `/tmp`, and a tmpfs in place of each volume that the image declares: the engine would make it on the host's disk,
/// without a limit. Two mounts at one place are refused; ours win there.
fn writable(image: &ImageConfig, bytes: i64, ours: &[Mount]) -> HashMap<String, String> {
    let options = format!("rw,noexec,nosuid,nodev,size={bytes},mode=1777");
    let is_ours = |path: &String| ours.iter().any(|mount| mount.target.as_ref() == Some(path));
    let volumes = image.volumes.iter().flatten();
    volumes
        .map(|path| clean(path))
        .filter(|path| !is_ours(path))
        .chain([TMP.to_owned()])
        .map(|path| (path, options.clone()))
        .collect()
}

/// The path as the engine understands it: it takes a tmpfs for the volume's place only if both are written like this.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Of what the kernel counts by user, and all instances are one user, none may take the others' part: message queues, which
/// would be files of /dev/mqueue, are not offered.
fn ulimits() -> Vec<ResourcesUlimits> {
    vec![
        ulimit("nofile", 1024),
        ulimit("core", 0),
        ulimit("msgqueue", 0),
    ]
}

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(value),
        hard: Some(value),
    }
}

fn mounts(at: Placement<'_>) -> Vec<Mount> {
    let mut mounts = vec![
        bind(at.init, INIT, true),
        bind(&at.dirs.sockets, SOCKETS, false),
    ];
    mounts.extend(at.dirs.secrets.iter().map(|dir| bind(dir, SECRETS, true)));
    mounts
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

/// Blocking: with the other mode a chatty function grows the engine's memory.
fn log_config() -> HostConfigLogConfig {
    let options = [
        ("max-size", "10m"),
        ("max-file", "3"),
        ("compress", "false"),
        ("mode", "blocking"),
    ];
    HostConfigLogConfig {
        typ: Some("local".to_owned()),
        config: Some(strings(options)),
    }
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    HashMap::from(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())))
}

fn labels(spec: &InstanceSpec, owner: &str) -> HashMap<String, String> {
    let mut labels = strings([
        ("app.kubernetes.io/managed-by", "faas"),
        (OWNER, owner),
        (FUNCTION, spec.function.name()),
        (NAMESPACE, spec.function.namespace()),
        (UID, &spec.uid),
        (REVISION, spec.revision.as_str()),
        (INSTANCE, &spec.id),
        (IMAGE, &spec.image),
        (MEMORY, &spec.limits.memory.to_string()),
    ]);
    let declared = spec.declared.clone();
    labels.extend(declared.map(|json| (DECLARED.to_owned(), json)));
    labels
}

/// Whose instance a container is, by the labels of a container or of an event.
#[must_use]
pub fn identity(labels: &HashMap<String, String>) -> Option<(InstanceId, FunctionKey)> {
    let function = FunctionKey::new(labels.get(NAMESPACE)?, labels.get(FUNCTION)?).ok()?;
    Some((labels.get(INSTANCE)?.clone(), function))
}

/// The instance that a container's labels tell of; `None` when they are not whole.
#[must_use]
pub fn observed(
    labels: &HashMap<String, String>,
    running: bool,
    root: &RunRoot,
) -> Option<Observed> {
    let (id, function) = identity(labels)?;
    Some(Observed {
        function,
        uid: labels.get(UID)?.clone(),
        revision: labels.get(REVISION)?.parse().ok()?,
        image: labels.get(IMAGE)?.clone(),
        memory: labels.get(MEMORY)?.parse().ok()?,
        running,
        leaving: false,
        address: root.socket(&id).into(),
        declared: labels.get(DECLARED).cloned(),
        id,
    })
}

/// Whether a container is the instance of which its labels tell: what a build runs its steps in has its image's labels alone, and
/// what somebody runs who has committed an instance has all of them. One that was renamed is known by its image.
pub fn is_instance(labels: &HashMap<String, String>, name: &str, image: &str) -> bool {
    let says = |label, is: &str| labels.get(label).is_some_and(|value| value == is);
    labels.contains_key(INSTANCE) && (says(INSTANCE, name) || says(IMAGE, image))
}

#[cfg(test)]
mod tests;
