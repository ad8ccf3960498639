//! From a spec to what runs it (pure): the image's name, the revision, and what every instance is given.

use std::time::Duration;

use super::{Manners, Target};
use crate::{
    builder::ImageName,
    function::{FunctionSpec, Revision, crd},
    runtime::{Limits, Network, SecretFile},
};

/// One revision with everything that is needed to run and call it.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    pub target: Target,
    /// Whether the image is the user's own, to be pulled and not built.
    pub ready_made: bool,
    pub env: Vec<(String, String)>,
    pub secrets: Vec<SecretFile>,
    pub limits: Limits,
    pub network: Network,
    /// For a call.
    pub timeout: Duration,
    /// For a start, and for callers who wait for one.
    pub startup_timeout: Duration,
}

/// Puts together what a spec, its image and its secrets say. `secrets_digest` is a keyed hash, so that a revision tells
/// nothing about a secret.
pub fn desired(
    spec: &FunctionSpec,
    image: ImageName,
    secrets: Vec<SecretFile>,
    secrets_digest: &[u8],
) -> Desired {
    let limits = limits(spec);
    let env: Vec<_> = spec
        .env
        .iter()
        .map(|e| (e.name.clone(), e.value.clone()))
        .collect();
    let ready_made = spec.source.image.is_some();
    Desired {
        target: Target {
            revision: revision(spec, &image, &limits, secrets_digest),
            image,
            min: spec.scale.min,
            max: spec.scale.max,
            concurrency: spec.scale.concurrency,
            idle_after: seconds(spec.scale.idle_after_seconds),
            manners: manners(spec),
            startable: true,
        },
        ready_made,
        env,
        secrets,
        limits,
        network: network(spec.network),
        timeout: seconds(spec.timeout_seconds),
        startup_timeout: seconds(spec.startup_timeout_seconds),
    }
}

/// A revision that served, and of which no more instances can be made, as what they were made from is no longer known: those that
/// run go on answering.
pub fn bygone(spec: &FunctionSpec, image: ImageName, revision: Revision) -> Desired {
    let mut desired = desired(spec, image, Vec::new(), &[]);
    desired.target.revision = revision;
    desired.target.startable = false;
    desired
}

/// Our own shim stays after a call; of any other program only a call can tell.
fn manners(spec: &FunctionSpec) -> Manners {
    match spec.language {
        Some(crd::Language::Node) => Manners::Stays,
        Some(crd::Language::Dockerfile) | None => Manners::Unknown,
    }
}

/// Everything that decides how an instance behaves. The Function's name and its scale are not in it.
fn revision(spec: &FunctionSpec, image: &str, limits: &Limits, secrets: &[u8]) -> Revision {
    let numbers = [limits.nano_cpus, limits.memory, limits.pids, limits.tmp]
        .into_iter()
        .chain([
            spec.timeout_seconds.into(),
            spec.startup_timeout_seconds.into(),
        ])
        .map(i64::to_be_bytes)
        .collect::<Vec<_>>()
        .concat();
    let network: &str = spec.network.into();
    let fixed = [image.as_bytes(), &numbers, network.as_bytes(), secrets];
    let env = spec
        .env
        .iter()
        .flat_map(|e| [e.name.as_bytes(), e.value.as_bytes()]);
    Revision::of(fixed.into_iter().chain(env))
}

fn limits(spec: &FunctionSpec) -> Limits {
    let resources = &spec.resources;
    Limits {
        nano_cpus: saturating(resources.cpu.nanos()),
        memory: saturating(resources.memory.bytes()),
        pids: resources.pids.into(),
        tmp: saturating(resources.tmp.bytes()),
    }
}

fn network(network: crd::Network) -> Network {
    match network {
        crd::Network::None => Network::None,
        crd::Network::Internet => Network::Internet,
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

fn saturating(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
