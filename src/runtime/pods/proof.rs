//! Whether the cluster keeps to network policies, which many do not: proven in each namespace by two pods that try to reach the
//! API server. One may, and shows that it can be reached at all; the other may reach nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
    runtime::{
        conditions::is_deleted,
        wait::{Error, await_condition},
    },
};
use tokio::time::timeout;

use super::{
    Inner,
    pod::{self, PROBE_ENDS},
    status::{State, state},
};
use crate::runtime::{InstanceSpec, Isolation, Network, RuntimeError};

/// The pods, of which a namespace has one each: what a server left that was killed is found again.
const OPEN: &str = "faas-probe-open";
const SHUT: &str = "faas-probe-shut";
/// When it is tried again with an image that did not do.
const AGAIN: Duration = Duration::from_secs(600);

/// What is known of namespaces.
#[derive(Debug, Default)]
pub(super) struct Proofs(Mutex<HashMap<String, Proof>>);

#[derive(Debug)]
struct Proof {
    isolation: Isolation,
    /// By which it was found out, or is being found out.
    image: String,
    began: Instant,
}

impl Proofs {
    pub(super) fn of(&self, namespace: &str) -> Isolation {
        let proofs = self.lock();
        proofs
            .get(namespace)
            .map_or(Isolation::Unproven, |proof| proof.isolation)
    }

    /// Whether it is to be found out by this image, now; then it is the caller's to do so.
    fn begin(&self, namespace: &str, image: &str, now: Instant) -> bool {
        let mut proofs = self.lock();
        let is_open = proofs.get(namespace).is_none_or(|proof| {
            let is_another = proof.image != image || now.duration_since(proof.began) >= AGAIN;
            proof.isolation == Isolation::Unproven && is_another
        });
        if is_open {
            let proof = Proof {
                isolation: Isolation::Unproven,
                image: image.to_owned(),
                began: now,
            };
            proofs.insert(namespace.to_owned(), proof);
        }
        is_open
    }

    fn end(&self, namespace: &str, isolation: Isolation) {
        if let Some(proof) = self.lock().get_mut(namespace) {
            proof.isolation = isolation;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Proof>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why it is still not known.
#[derive(Debug, thiserror::Error)]
enum Unclear {
    #[error("a pod that no policy of ours confines does not reach the API server either")]
    NothingIsReached,
    #[error("the image of the probe cannot be run, as faas did not build it: {0}")]
    Image(String),
    #[error("pod {0} did not end in time")]
    Late(&'static str),
    #[error(transparent)]
    Cluster(#[from] RuntimeError),
    #[error(transparent)]
    Watch(#[from] Error),
}

impl Inner {
    /// Says whether there is news.
    pub(super) async fn prove(&self, spec: &InstanceSpec) -> bool {
        let namespace = spec.function.namespace();
        if !self.proofs.begin(namespace, &spec.image, Instant::now()) {
            return false;
        }
        let isolation = match self.probe(spec).await {
            Ok(isolation) => isolation,
            Err(why) => {
                tracing::warn!(namespace, %why, "Whether `network: none` is kept is not known");
                return false;
            }
        };
        if isolation == Isolation::NotEnforced {
            tracing::warn!(
                namespace,
                "This cluster does not keep to network policies: `network: none` is not kept"
            );
        }
        self.proofs.end(namespace, isolation);
        true
    }

    async fn probe(&self, spec: &InstanceSpec) -> Result<Isolation, Unclear> {
        let is_open = self.is_so(spec, OPEN, Network::Internet, "open");
        if !Box::pin(is_open).await? {
            return Err(Unclear::NothingIsReached);
        }
        let is_shut = Box::pin(self.is_so(spec, SHUT, Network::None, "shut")).await?;
        Ok(if is_shut {
            Isolation::Enforced
        } else {
            Isolation::NotEnforced
        })
    }

    /// Whether a pod with this network finds the API server as expected.
    async fn is_so(
        &self,
        spec: &InstanceSpec,
        name: &'static str,
        network: Network,
        expected: &str,
    ) -> Result<bool, Unclear> {
        let pods = self.pods(spec.function.namespace());
        self.forget(&pods, name).await?;
        let probe = pod::probe(spec, name, network, expected);
        let created = self.call(pods.create(&PostParams::default(), &probe)).await;
        created.map_err(RuntimeError::from)?;
        let ended = await_condition(pods.clone(), name, |pod: Option<&Pod>| {
            pod.is_none_or(|pod| !matches!(state(pod), State::Waiting(_) | State::Running(_)))
        });
        let ended = timeout(PROBE_ENDS, ended).await;
        self.forget(&pods, name).await?;
        let ended = ended.map_err(|_| Unclear::Late(name))??;
        match ended.as_ref().map(state) {
            Some(State::Ended(ended)) if ended.code == 0 => Ok(true),
            Some(State::Ended(ended)) if ended.code == 1 => Ok(false),
            Some(State::NotRunnable(why) | State::NoImage(why)) => Err(Unclear::Image(why)),
            _ => Err(Unclear::Late(name)),
        }
    }

    /// Removes the pod of this name, and waits until it is gone.
    async fn forget(&self, pods: &Api<Pod>, name: &'static str) -> Result<(), Unclear> {
        let params = DeleteParams::default().grace_period(1);
        let deleted = self.call(pods.delete(name, &params)).await;
        let uid = match deleted {
            Ok(deleted) => deleted.left().and_then(|pod| pod.metadata.uid),
            Err(super::CallError::Refused(status)) if status.code == 404 => None,
            Err(error) => return Err(RuntimeError::from(error).into()),
        };
        if let Some(uid) = uid {
            let gone = await_condition(pods.clone(), name, is_deleted(&uid));
            timeout(PROBE_ENDS, gone)
                .await
                .map_err(|_| Unclear::Late(name))??;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_tried_once_and_again_with_another_image_or_later() {
        let (proofs, then) = (Proofs::default(), Instant::now());
        assert_eq!(proofs.of("a"), Isolation::Unproven);
        assert!(proofs.begin("a", "one", then));
        assert!(!proofs.begin("a", "one", then), "it is being found out");
        assert!(proofs.begin("b", "one", then));
        assert!(proofs.begin("a", "two", then));
        assert!(!proofs.begin("a", "two", then + AGAIN / 2));
        assert!(proofs.begin("a", "two", then + AGAIN));
        proofs.end("a", Isolation::NotEnforced);
        assert_eq!(proofs.of("a"), Isolation::NotEnforced);
        assert!(!proofs.begin("a", "three", then + AGAIN * 9), "it is known");
    }
}
