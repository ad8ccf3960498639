//! What a pod of ours is: an instance becomes a pod (pure). What is read from it again is told in `seen`.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
        ExecAction, KeyToPath, Lifecycle, LifecycleHandler, ObjectFieldSelector, Pod,
        PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile,
        SecretVolumeSource, SecurityContext, SleepAction, TCPSocketAction, Toleration,
        TopologySpreadConstraint, Volume, VolumeMount,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::api::ObjectMeta;

use crate::{
    function::API_VERSION,
    runtime::{INIT, InstanceSpec, Network, rundir::INSTANCE_UID},
};

/// Labels. That of the function makes a pod ours, with the first one.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "faas");
pub const FUNCTION: &str = "faas.dev/function";
/// Said beside the pod's own, so that the status' selector is the same for pods and containers.
const NAMESPACE: &str = "faas.dev/namespace";
pub const REVISION: &str = "faas.dev/revision";
/// Network policies select by it.
pub const NETWORK: &str = "faas.dev/network";
pub const NO_NETWORK: &str = "none";
/// Annotation: bytes that the instance may use.
pub const MEMORY: &str = "faas.dev/memory";

/// The only container of ours; a cluster may put others beside it.
pub const CONTAINER: &str = "function";
const SECRETS: &str = "/run/secrets";
/// Beyond the longest call, for a program's own end. In seconds.
const END: i64 = 5;
/// Part of its processor that an instance is sure of, in hundredths: most are idle most of the time.
const SURE: i64 = 10;
/// Longest life of a pod that only tries something.
pub const PROBE_ENDS: Duration = Duration::from_secs(60);

/// The pod of an instance that listens on this port. `secret` is the name of the copy of its secrets.
pub fn pod(spec: &InstanceSpec, port: u16, secret: Option<&str>) -> Pod {
    let timeout = i64::try_from(spec.timeout.as_secs()).unwrap_or(i64::MAX - END);
    Pod {
        metadata: ObjectMeta {
            name: Some(spec.id.clone()),
            namespace: Some(spec.function.namespace().to_owned()),
            labels: Some(labels(spec)),
            annotations: Some(strings([(MEMORY, &spec.limits.memory.to_string())])),
            owner_references: Some(vec![owner(spec)]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container(spec, port, timeout)],
            volumes: Some(volumes(spec, secret)),
            // It is one instance, and ends with it.
            restart_policy: Some("Never".to_owned()),
            termination_grace_period_seconds: Some(timeout + END),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(user()),
            topology_spread_constraints: Some(vec![spread(spec)]),
            // Another one is started at once, so that waiting for a node that is missed is of no use.
            tolerations: Some(vec![Toleration {
                key: Some("node.kubernetes.io/unreachable".to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(0),
                value: None,
            }]),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// A pod that tells by its exit, 0 or 1, whether it finds the API server as expected: `open` or `shut` to it. Its image is one
/// that holds the init.
pub fn probe(spec: &InstanceSpec, name: &str, network: Network, expected: &str) -> Pod {
    let container = Container {
        name: CONTAINER.to_owned(),
        image: Some(spec.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some([INIT, "--reach", expected].map(str::to_owned).to_vec()),
        resources: Some(resources(spec)),
        security_context: Some(confined()),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(spec.function.namespace().to_owned()),
            labels: Some(strings([MANAGED_BY, (NETWORK, word(network))])),
            owner_references: Some(vec![owner(spec)]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container],
            restart_policy: Some("Never".to_owned()),
            active_deadline_seconds: i64::try_from(PROBE_ENDS.as_secs()).ok(),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(user()),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// The Function, so that the pod goes with it.
pub fn owner(spec: &InstanceSpec) -> OwnerReference {
    OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: "Function".to_owned(),
        name: spec.function.name().to_owned(),
        uid: spec.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Labels of all that belongs to an instance's revision.
pub fn labels(spec: &InstanceSpec) -> BTreeMap<String, String> {
    strings([
        MANAGED_BY,
        ("app.kubernetes.io/name", spec.function.name()),
        (FUNCTION, spec.function.name()),
        (NAMESPACE, spec.function.namespace()),
        (REVISION, spec.revision.as_str()),
        (NETWORK, word(spec.network)),
    ])
}

fn word(network: Network) -> &'static str {
    match network {
        Network::None => NO_NETWORK,
        Network::Internet => "internet",
    }
}

/// The label of all that is ours.
pub fn ours() -> BTreeMap<String, String> {
    strings([MANAGED_BY])
}

/// The labels of pods that may reach nothing.
pub fn without_network() -> BTreeMap<String, String> {
    strings([MANAGED_BY, (NETWORK, NO_NETWORK)])
}

/// Not all on one node, where there are more.
fn spread(spec: &InstanceSpec) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(strings([MANAGED_BY, (FUNCTION, spec.function.name())])),
            match_expressions: None,
        }),
        ..TopologySpreadConstraint::default()
    }
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn container(spec: &InstanceSpec, port: u16, timeout: i64) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(spec.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        env: Some(environment(spec, port)),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: port.into(),
            ..ContainerPort::default()
        }]),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(until_idle(spec, port, timeout)),
            ..Lifecycle::default()
        }),
        // For people and for other controllers; calls go there as soon as a connection is accepted.
        readiness_probe: Some(Probe {
            tcp_socket: Some(TCPSocketAction {
                port: IntOrString::Int(port.into()),
                ..TCPSocketAction::default()
            }),
            ..Probe::default()
        }),
        resources: Some(resources(spec)),
        security_context: Some(confined()),
        // The end of the log is told with the exit.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts(spec)),
        ..Container::default()
    }
}

/// Whoever else deletes the pod lets the calls end that it has: our init, where the image holds it, sees when there are none.
/// Without it nobody in the pod does, and a call may take so long.
fn until_idle(spec: &InstanceSpec, port: u16, timeout: i64) -> LifecycleHandler {
    if spec.ready_made {
        return LifecycleHandler {
            sleep: Some(SleepAction { seconds: timeout }),
            ..LifecycleHandler::default()
        };
    }
    let command = [
        INIT,
        "--until-idle",
        &port.to_string(),
        &timeout.to_string(),
    ];
    LifecycleHandler {
        exec: Some(ExecAction {
            command: Some(command.map(str::to_owned).to_vec()),
        }),
        ..LifecycleHandler::default()
    }
}

/// `FAAS_INSTANCE` is the pod's uid: our shims answer nobody who means another one.
fn environment(spec: &InstanceSpec, port: u16) -> Vec<EnvVar> {
    let plain = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    };
    let instance = EnvVar {
        name: "FAAS_INSTANCE".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: "metadata.uid".to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    };
    let own = spec
        .env
        .iter()
        // Kubernetes replaces $(NAME) in values; the manifest means what it says.
        .map(|(name, value)| plain(name, &value.replace('$', "$$")));
    own.chain([plain("PORT", &port.to_string()), instance])
        .collect()
}

fn resources(spec: &InstanceSpec) -> ResourceRequirements {
    // Kubernetes counts thousandths, of which there is at least one.
    let milli = (spec.limits.nano_cpus / 1_000_000).max(1);
    let cpu = |milli: i64| ("cpu".to_owned(), Quantity(format!("{milli}m")));
    let memory = || {
        let bytes = Quantity(spec.limits.memory.to_string());
        ("memory".to_owned(), bytes)
    };
    ResourceRequirements {
        limits: Some([cpu(milli), memory()].into()),
        requests: Some([cpu((milli * SURE / 100).max(1)), memory()].into()),
        ..ResourceRequirements::default()
    }
}

/// Pod security standard "restricted", and a root that nobody writes to.
fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}

fn user() -> PodSecurityContext {
    let id = i64::from(INSTANCE_UID);
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(id),
        run_as_group: Some(id),
        // Reads its secrets, which are root's.
        fs_group: Some(id),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

fn volumes(spec: &InstanceSpec, secret: Option<&str>) -> Vec<Volume> {
    let tmp = Volume {
        name: "tmp".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: Some(Quantity(spec.limits.tmp.to_string())),
        }),
        ..Volume::default()
    };
    let secrets = secret.map(|name| Volume {
        name: "secrets".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.to_owned()),
            default_mode: Some(0o440),
            items: Some(items(spec)),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    [tmp].into_iter().chain(secrets).collect()
}

/// Which key of the copy is which file: a key has no slash.
fn items(spec: &InstanceSpec) -> Vec<KeyToPath> {
    let files = spec.secrets.iter().enumerate();
    let item = |(at, file): (usize, &crate::runtime::SecretFile)| KeyToPath {
        key: key(at),
        path: file.path.clone(),
        mode: None,
    };
    files.map(item).collect()
}

/// The key of a file in the copy of an instance's secrets.
pub fn key(at: usize) -> String {
    at.to_string()
}

fn mounts(spec: &InstanceSpec) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    };
    let secrets = (!spec.secrets.is_empty()).then(|| mount("secrets", SECRETS, true));
    [mount("tmp", "/tmp", false)]
        .into_iter()
        .chain(secrets)
        .collect()
}

#[cfg(test)]
mod tests;
