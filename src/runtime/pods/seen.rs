//! What a pod of ours says of the instance that it is (pure). Others may have edited it, and put containers beside its program.

use std::{net::SocketAddr, str::FromStr};

use k8s_openapi::api::core::v1::{Container, ContainerState, Pod};
use kube::ResourceExt;

use super::{
    pod::{CONTAINER, FUNCTION, MEMORY, NETWORK, NO_NETWORK, REVISION},
    status::{self, State, state},
};
use crate::{
    function::{FunctionKey, Revision},
    runtime::{Address, Observed},
};

/// Whose instance a pod is; `None` when it is none of ours.
pub fn function(pod: &Pod) -> Option<FunctionKey> {
    FunctionKey::new(
        pod.metadata.namespace.as_deref()?,
        pod.labels().get(FUNCTION)?,
    )
    .ok()
}

/// The instance that a pod is; `None` when it is none of ours. Of one that somebody has edited it is known at least that it is
/// there: of no revision, it has to end.
pub fn observed(pod: &Pod) -> Option<Observed> {
    let spec = program(pod)?;
    let owners = pod.owner_references();
    let owner = owners.iter().find(|owner| owner.kind == "Function")?;
    let state = state(pod);
    let leaving = state == State::Leaving && status::has_program(pod);
    Some(Observed {
        id: pod.metadata.name.clone()?,
        function: function(pod)?,
        uid: owner.uid.clone(),
        revision: label(pod, REVISION).unwrap_or_else(|| Revision::of([])),
        image: spec.image.clone()?,
        memory: memory(pod).unwrap_or_default(),
        running: leaving || matches!(state, State::Running(_)),
        leaving,
        address: Address::Pod {
            at: at(pod).unwrap_or(([0, 0, 0, 0], 0).into()),
            uid: pod.uid()?,
        },
        // The API server has the object.
        declared: None,
    })
}

fn label<T: FromStr>(pod: &Pod, name: &str) -> Option<T> {
    pod.labels().get(name)?.parse().ok()
}

fn memory(pod: &Pod) -> Option<i64> {
    pod.annotations().get(MEMORY)?.parse().ok()
}

/// The container of its program.
fn program(pod: &Pod) -> Option<&Container> {
    let mut all = pod.spec.as_ref()?.containers.iter();
    all.find(|container| container.name == CONTAINER)
}

/// How that container is.
pub fn program_state(pod: &Pod) -> Option<&ContainerState> {
    let mut all = pod.status.as_ref()?.container_statuses.as_ref()?.iter();
    all.find(|status| status.name == CONTAINER)?.state.as_ref()
}

/// Whether it ends by itself once it has no call: see [`super::pod`].
pub fn sees_its_calls(pod: &Pod) -> bool {
    let hooks = program(pod).and_then(|program| program.lifecycle.as_ref());
    let hook = hooks.and_then(|hooks| hooks.pre_stop.as_ref());
    hook.is_some_and(|hook| hook.exec.is_some())
}

/// Where it listens, once it has an address.
pub fn at(pod: &Pod) -> Option<SocketAddr> {
    let ip = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let port = program(pod)?.ports.as_ref()?.first()?.container_port;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

/// Whether it is one that may reach nothing.
pub fn is_without_network(pod: &Pod) -> bool {
    pod.labels()
        .get(NETWORK)
        .is_some_and(|word| word == NO_NETWORK)
}
