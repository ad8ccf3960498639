//! What people and `faas doctor` want to know about an engine.

use std::collections::BTreeMap;

use bollard::models::SystemInfo;

use super::engine::{CallError, Engine, LOOK};
use crate::{
    builder::docker::{Flavour, flavour},
    runtime::RuntimeError,
};

pub(super) async fn facts(engine: &Engine) -> Result<BTreeMap<String, String>, RuntimeError> {
    let info = info(engine).await?;
    let docker = engine.client().await?;
    let version = info
        .server_version
        .as_deref()
        .unwrap_or("of unknown version");
    let icc = icc(engine).await;
    let facts = [
        (
            "engine",
            format!("Docker {version}, API {}", docker.client_version()),
        ),
        ("builder", builder(engine).await.to_owned()),
        (
            "cgroup",
            info.cgroup_version
                .map_or_else(|| "1".to_owned(), |v| v.to_string()),
        ),
        ("rootless", yes(has(&info, "name=rootless"))),
        ("userns", yes(has(&info, "name=userns"))),
        ("seccomp", yes(has(&info, "name=seccomp"))),
        (
            "live-restore",
            yes(info.live_restore_enabled.unwrap_or(false)),
        ),
        ("icc", icc),
    ];
    Ok(facts.map(|(key, value)| (key.to_owned(), value)).into())
}

/// The engine's clock in seconds, as its filters take it.
pub(super) async fn engine_time(engine: &Engine) -> Result<String, CallError> {
    let time = info(engine).await?.system_time.unwrap_or_default();
    let time: jiff::Timestamp = time
        .parse()
        .map_err(|error| CallError::Lost(format!("its clock reads {time:?}: {error}")))?;
    Ok(format!(
        "{}.{:09}",
        time.as_second(),
        time.subsec_nanosecond()
    ))
}

/// Whether a user of a container is another user of the host.
pub(super) async fn maps_users(engine: &Engine) -> Result<bool, CallError> {
    let info = info(engine).await?;
    Ok(has(&info, "name=userns") || has(&info, "name=rootless"))
}

/// Cores of the engine's machine; as many as one likes where it does not say.
pub(super) async fn cores(engine: &Engine) -> Result<i64, CallError> {
    let told = info(engine).await?.ncpu.filter(|cores| *cores > 0);
    Ok(told.unwrap_or(i64::MAX))
}

async fn info(engine: &Engine) -> Result<SystemInfo, CallError> {
    engine
        .call("info", LOOK, |docker| async move { docker.info().await })
        .await
}

fn has(info: &SystemInfo, option: &str) -> bool {
    let options = info.security_options.iter().flatten();
    options
        .into_iter()
        .any(|found| found.split(',').any(|part| part == option))
}

fn yes(fact: bool) -> String {
    if fact { "yes" } else { "no" }.to_owned()
}

/// Whether containers of the default bridge reach each other.
async fn icc(engine: &Engine) -> String {
    let bridge = engine
        .call("inspect network", LOOK, |docker| async move {
            docker.inspect_network("bridge", None).await
        })
        .await;
    let options = bridge.ok().and_then(|bridge| bridge.options);
    match options.and_then(|all| all.get("com.docker.network.bridge.enable_icc").cloned()) {
        Some(value) => yes(value == "true"),
        None => "unknown".to_owned(),
    }
}

/// The builder that the engine prefers.
async fn builder(engine: &Engine) -> &'static str {
    match flavour(&engine.socket().into()).await {
        Ok(Flavour::BuildKit) => "BuildKit",
        Ok(Flavour::Classic) => "classic",
        Err(_) => "unknown",
    }
}
