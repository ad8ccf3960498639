//! From a spec to a pod that accepts connections, or to nothing at all.
//!
//! A start runs in a task of its own, so that a caller who leaves cuts off no request half-way: the task sees it, and clears
//! away what there is.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kube::{ResourceExt, api::PostParams};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{CallError, Inner, LEAST_GRACE, log_tail, pod, secrets::Held, status, status::State};
use crate::runtime::{Address, End, InstanceSpec, Observed, RuntimeError, probe};

/// How long the cluster may take to find a node and fetch the image.
const PLACED: Duration = Duration::from_secs(300);

pub(super) async fn start(inner: Arc<Inner>, spec: InstanceSpec) -> Result<Observed, RuntimeError> {
    let left = CancellationToken::new();
    let _leaving = left.clone().drop_guard();
    let starts = inner.starts.clone();
    let task = starts.spawn(async move { run(&inner, &spec, &left).await });
    match task.await {
        Ok(outcome) => outcome,
        Err(ended) => Err(RuntimeError::Cluster(format!(
            "the start was cut off: {ended}"
        ))),
    }
}

async fn run(
    inner: &Inner,
    spec: &InstanceSpec,
    left: &CancellationToken,
) -> Result<Observed, RuntimeError> {
    inner.confine(spec).await?;
    let copy = inner.copy_secrets(spec).await?;
    let wanted = pod::pod(spec, port(), copy.as_ref().map(Held::name));
    let pods = inner.pods(spec.function.namespace());
    let created = inner
        .call(pods.create(&PostParams::default(), &wanted))
        .await;
    let uid = match created {
        Ok(pod) => pod.uid(),
        Err(CallError::Refused(status)) => return Err(judge(&status, &spec.id)),
        Err(lost @ CallError::Lost(_)) => {
            // It may be there all the same.
            clear(inner, spec, None).await;
            return Err(lost.into());
        }
    };
    let outcome = tokio::select! {
        outcome = ready(inner, spec) => outcome,
        () = left.cancelled() => Err(RuntimeError::Cluster("the caller left".to_owned())),
    };
    match outcome {
        Ok(at) => Ok(spec.running_at(Address::Pod {
            at,
            uid: uid.unwrap_or_default(),
        })),
        Err(error) => {
            clear(inner, spec, uid).await;
            Err(error)
        }
    }
}

/// One of its own for each instance. Below are ports that images take for themselves; all may be opened without rights.
fn port() -> u16 {
    let (_, low) = uuid::Uuid::new_v4().as_u64_pair();
    10_000 + u16::try_from(low % 50_000).unwrap_or_default()
}

async fn clear(inner: &Inner, spec: &InstanceSpec, uid: Option<String>) {
    let namespace = spec.function.namespace();
    if let Err(error) = inner.remove(&spec.id, namespace, uid, LEAST_GRACE).await {
        tracing::warn!(instance = %spec.id, %error, "A pod that failed to start stays until all are compared");
    }
}

/// What the API server's refusal of a pod means. Its words name the pod, which is another one each time.
fn judge(status: &kube::core::Status, id: &str) -> RuntimeError {
    let message = status.message.replace(&format!("pods \"{id}\""), "its pod");
    match status.code {
        403 if message.contains("exceeded quota") => RuntimeError::NoRoom(message),
        // Who may make no pods at all is told so in other words than who asks for one that is not allowed.
        403 if !message.contains("cannot create resource") => RuntimeError::NotRunnable(message),
        400 | 422 => RuntimeError::NotRunnable(message),
        _ => RuntimeError::Cluster(message),
    }
}

/// Waits until a connection is accepted, and no longer than the pod lives or may take.
async fn ready(inner: &Inner, spec: &InstanceSpec) -> Result<SocketAddr, RuntimeError> {
    let mut waits = String::new();
    let mut was_there = false;
    let placed = inner.index.until(&spec.id, |pod| {
        let Some(pod) = pod else {
            // The watch has yet to tell of it; or somebody has deleted it.
            return was_there.then(|| Err(deleted()));
        };
        was_there = true;
        match status::state(pod) {
            State::Waiting(why) => {
                waits = why;
                None
            }
            State::Running(at) => Some(Ok(at)),
            other => Some(Err(failure(spec, other))),
        }
    });
    let placed = timeout(PLACED, placed).await;
    let at = placed.unwrap_or_else(|_| {
        let seconds = PLACED.as_secs();
        Err(RuntimeError::NoRoom(format!(
            "no node runs it within {seconds} s; {waits}"
        )))
    })?;
    let address = Address::Pod {
        at,
        uid: String::new(),
    };
    let limit = spec.startup_timeout;
    tokio::select! {
        outcome = timeout(limit, probe::accepted(&address)) => match outcome {
            Ok(outcome) => outcome.map(|()| at),
            Err(_) => Err(RuntimeError::NotListening { limit, log: words(inner, spec).await }),
        },
        error = ended(inner, spec) => Err(error),
    }
}

/// Waits until it runs no more.
async fn ended(inner: &Inner, spec: &InstanceSpec) -> RuntimeError {
    let ended = inner
        .index
        .until(&spec.id, |pod| match pod.map(status::state) {
            None => Some(deleted()),
            Some(State::Running(_) | State::Waiting(_)) => None,
            Some(other) => Some(failure(spec, other)),
        });
    ended.await
}

fn failure(spec: &InstanceSpec, state: State) -> RuntimeError {
    match state {
        State::NoImage(message) => RuntimeError::Pull {
            image: spec.image.clone(),
            message,
        },
        State::NotRunnable(message) => RuntimeError::NotRunnable(message),
        State::Ended(ended) if ended.end == End::Engine => RuntimeError::NoRoom(ended.words),
        State::Ended(ended) => RuntimeError::Exited {
            code: ended.code,
            out_of_memory: ended.end == End::OutOfMemory,
            log: log_tail::text(ended.words.as_bytes()),
        },
        State::Leaving | State::Waiting(_) | State::Running(_) => deleted(),
    }
}

fn deleted() -> RuntimeError {
    RuntimeError::Cluster("somebody has deleted the pod".to_owned())
}

async fn words(inner: &Inner, spec: &InstanceSpec) -> String {
    let pods = inner.pods(spec.function.namespace());
    let params = kube::api::LogParams {
        container: Some(pod::CONTAINER.to_owned()),
        tail_lines: Some(log_tail::LINES.into()),
        ..kube::api::LogParams::default()
    };
    match inner.call(pods.logs(&spec.id, &params)).await {
        Ok(log) => log_tail::text(log.as_bytes()),
        Err(error) => format!("(not readable: {})", RuntimeError::from(error)),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn refusals_of_a_pod_say_whose_they_are_and_the_same_each_time() {
        let told = |code, words: &str| {
            let words = format!("pods \"faas-sum-1\" is forbidden: {words}");
            let status = Status::failure(&words, "Forbidden").with_code(code);
            judge(&status, "faas-sum-1")
        };
        let limits = "maximum memory usage per Container is 64Mi, but limit is 128Mi";
        assert_eq!(
            told(403, limits),
            RuntimeError::NotRunnable(format!("its pod is forbidden: {limits}"))
        );
        assert!(matches!(told(422, "x"), RuntimeError::NotRunnable(_)));
        let quota = "exceeded quota: two, requested: pods=1, used: pods=2";
        assert!(matches!(told(403, quota), RuntimeError::NoRoom(_)));
        let rights = "User \"faas\" cannot create resource \"pods\"";
        assert!(matches!(told(403, rights), RuntimeError::Cluster(_)));
        assert!(matches!(told(500, "x"), RuntimeError::Cluster(_)));
    }
}
