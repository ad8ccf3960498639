//! How a pod is, by its status (pure).

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod};

use super::seen::{at, program_state};
use crate::runtime::End;

/// How a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its program does not run yet; what holds it up, if it is said.
    Waiting(String),
    /// Its image cannot be had; the node's words.
    NoImage(String),
    /// Its program cannot be run; the node's words.
    NotRunnable(String),
    Running(SocketAddr),
    /// Somebody has told it to end; it may still have calls.
    Leaving,
    Ended(Ended),
}

/// How a pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: i64,
    pub end: End,
    /// Its last words, or the cluster's.
    pub words: String,
}

/// How it is, by its status.
pub fn state(pod: &Pod) -> State {
    let status = pod.status.as_ref();
    let container = program_state(pod);
    if let Some(ended) = container.and_then(|state| state.terminated.as_ref()) {
        return ended_by(ended);
    }
    let phase = status.and_then(|status| status.phase.as_deref());
    let said = |text: Option<&String>| text.cloned().unwrap_or_default();
    if is_lost(pod) {
        return State::Ended(Ended {
            code: -1,
            end: End::Engine,
            words: "NodeLost: its node does not answer any more".to_owned(),
        });
    }
    if matches!(phase, Some("Failed" | "Succeeded")) {
        let reason = said(status.and_then(|status| status.reason.as_ref()));
        let message = said(status.and_then(|status| status.message.as_ref()));
        return State::Ended(Ended {
            code: -1,
            end: End::Engine,
            words: format!("{reason}: {message}"),
        });
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return State::Leaving;
    }
    match (container, at(pod)) {
        (Some(state), Some(at)) if state.running.is_some() => State::Running(at),
        (container, _) => waiting(pod, container),
    }
}

/// Whether its program runs.
pub fn has_program(pod: &Pod) -> bool {
    program_state(pod).is_some_and(|state| state.running.is_some())
}

/// Whether Kubernetes has given it up with its node: it is told to end because its node may have no pods, and is not ready.
/// A node that is there tells of its pods that they are ready until they end.
pub fn is_lost(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let holds = |what: &str, reason: Option<&str>| {
        let mut all = conditions.into_iter().flatten();
        all.any(|c| {
            c.type_ == what
                && c.status == "True"
                && (reason.is_none() || c.reason.as_deref() == reason)
        })
    };
    pod.metadata.deletion_timestamp.is_some()
        && holds("DisruptionTarget", Some("DeletionByTaintManager"))
        && !holds("Ready", None)
}

fn ended_by(ended: &ContainerStateTerminated) -> State {
    let reason = ended.reason.as_deref().unwrap_or_default();
    let words = ended.message.clone().unwrap_or_default();
    match reason {
        "StartError" | "ContainerCannotRun" => State::NotRunnable(words),
        _ => State::Ended(Ended {
            code: ended.exit_code.into(),
            end: if reason == "OOMKilled" {
                End::OutOfMemory
            } else {
                End::Itself
            },
            words,
        }),
    }
}

fn waiting(pod: &Pod, container: Option<&ContainerState>) -> State {
    let waits = container.and_then(|state| state.waiting.as_ref());
    if let Some(waits) = waits {
        let reason = waits.reason.as_deref().unwrap_or_default();
        let message = waits.message.clone().unwrap_or_default();
        match reason {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => {
                return State::NoImage(format!("{reason}: {message}"));
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                return State::NotRunnable(format!("{reason}: {message}"));
            }
            _ => {}
        }
    }
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let unscheduled = conditions
        .into_iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    State::Waiting(
        unscheduled
            .and_then(|c| c.message.clone())
            .unwrap_or_default(),
    )
}
