//! What there is to say of a Function in one line each (pure).

use jiff::Timestamp;

use super::super::age::age;
use crate::{
    function::{
        Function,
        crd::{FunctionSpec, FunctionStatus, Source},
    },
    store::Manager,
};

/// The lines: what it is, what it has become, how it is set.
pub fn facts(function: &Function, status: &FunctionStatus, now: Timestamp) -> String {
    identity(function, now) + &progress(function, status) + &settings(&function.spec)
}

/// One line.
pub fn line(name: &str, value: &str) -> String {
    format!("{name:<14}{value}\n")
}

fn identity(function: &Function, now: Timestamp) -> String {
    let metadata = &function.metadata;
    let mut text = line("Name:", metadata.name.as_deref().unwrap_or_default());
    text += &line(
        "Namespace:",
        metadata.namespace.as_deref().unwrap_or_default(),
    );
    if let Some(created) = &metadata.creation_timestamp {
        text += &line("Created:", &format!("{} ago", age(created.0, now)));
    }
    if let Some(deleted) = &metadata.deletion_timestamp {
        text += &line("Deleting:", &format!("since {}", age(deleted.0, now)));
    }
    text + &line("Managed by:", &Manager::of(function).to_string())
}

fn progress(function: &Function, status: &FunctionStatus) -> String {
    let generation = function.metadata.generation.unwrap_or_default();
    let replicas = format!("{} of {} ready", status.ready_replicas, status.replicas);
    [
        line("URL:", status.url.as_deref().unwrap_or("none yet")),
        line("Image:", status.image.as_deref().unwrap_or("none yet")),
        line("Revision:", &revision(status)),
        line("Generation:", &generation.to_string()),
        line("Replicas:", &replicas),
    ]
    .concat()
}

fn revision(status: &FunctionStatus) -> String {
    match (&status.revision, &status.serving_revision) {
        (Some(newest), Some(serving)) if newest != serving => {
            format!("{newest} (calls still go to {serving})")
        }
        (Some(newest), Some(_)) => newest.clone(),
        (Some(newest), None) => format!("{newest} (does not serve yet)"),
        (None, Some(serving)) => format!("none yet (calls still go to {serving})"),
        (None, None) => "none yet".to_owned(),
    }
}

fn settings(spec: &FunctionSpec) -> String {
    let (scale, limits) = (&spec.scale, &spec.resources);
    let language = spec.language.map_or_else(
        || "none (a ready image)".to_owned(),
        |language| language.to_string(),
    );
    let range = format!(
        "{} to {}, {} calls each",
        scale.min, scale.max, scale.concurrency
    );
    let scale = format!(
        "{range}, idle ones leave after {}s",
        scale.idle_after_seconds
    );
    let limits = format!(
        "cpu {}, memory {}, pids {}, tmp {}",
        limits.cpu, limits.memory, limits.pids, limits.tmp
    );
    let timeouts = format!(
        "{}s a call, {}s to start",
        spec.timeout_seconds, spec.startup_timeout_seconds
    );
    let env = spec
        .env
        .iter()
        .map(|env| format!("{}={}", env.name, env.value));
    let secrets = spec.secrets.iter().map(|secret| secret.name.clone());
    [
        line("Language:", &language),
        line("Source:", &source(&spec.source)),
        line("Scale:", &scale),
        line("Limits:", &limits),
        line("Network:", &spec.network.to_string()),
        line("Timeouts:", &timeouts),
        line("Environment:", &names(env)),
        line("Secrets:", &names(secrets)),
    ]
    .concat()
}

fn names(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn source(source: &Source) -> String {
    let Source {
        inline,
        directory,
        archive,
        image,
    } = source;
    let files = inline.as_ref().map(|files| names(files.keys().cloned()));
    let kinds = [
        ("inline", files.as_ref()),
        ("directory", directory.as_ref()),
        ("archive", archive.as_ref()),
        ("image", image.as_ref()),
    ];
    let given = kinds
        .into_iter()
        .find_map(|(kind, value)| value.map(|value| format!("{kind} {value}")));
    given.unwrap_or_default()
}
