//! What people and `faas doctor` want to know about an engine.

use std::{collections::BTreeMap, time::Duration};

use bollard::models::SystemInfo;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::engine::{CallError, Engine, LOOK};
use crate::runtime::RuntimeError;

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
        ("builder", builder(engine).await),
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

/// The builder that the engine prefers. bollard shows no response heads, and only there it is told.
async fn builder(engine: &Engine) -> String {
    let asked = tokio::time::timeout(Duration::from_secs(5), builder_version(engine)).await;
    match asked {
        Ok(Ok(Some(version))) if version == "2" => "BuildKit".to_owned(),
        Ok(Ok(_)) => "classic".to_owned(),
        _ => "unknown".to_owned(),
    }
}

async fn builder_version(
    engine: &Engine,
) -> Result<Option<String>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = UnixStream::connect(engine.socket()).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get("/_ping")
        .header(hyper::header::HOST, "docker")
        .body(Empty::<bytes::Bytes>::new())?;
    let answered = sender.send_request(request);
    let response = tokio::select! {
        response = answered => response?,
        ended = connection => return Err(ended.err().map_or("closed".into(), Into::into)),
    };
    let version = response.headers().get("Builder-Version");
    Ok(version.and_then(|v| v.to_str().ok()).map(str::to_owned))
}
