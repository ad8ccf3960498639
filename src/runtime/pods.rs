//! Runs instances as pods of a cluster. A pod belongs to its Function and is one instance for its whole life: it is never
//! restarted, and no Deployment stands over it, so that the plan says which one goes.
//!
//! What is known comes from a watch (`index`); the API server is asked to create, to delete and for logs, and never during
//! a call. Each pod listens on a port of its own choosing, so that an address that has become another's answers nobody.

mod index;
mod logs;
mod network;
mod pod;
mod proof;
mod secrets;
mod seen;
mod start;
mod status;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    future::join_all,
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
    runtime::watcher::Config,
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use self::index::{Index, Listing};
use super::{
    Exit, InstanceId, InstanceSpec, Isolation, LogPiece, Observed, Runtime, RuntimeError, log_tail,
};
use crate::kubernetes::watch::{Scope, events};

/// Longest wait for an answer of the API server.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest wait for the first lists.
const LISTED: Duration = Duration::from_secs(10);
/// How long a pod may take to be gone beyond its grace.
const GONE: Duration = Duration::from_secs(30);
/// How long it may take in a pod until its init has seen that nobody calls it: that begins slowly where the processor is busy.
const SEEN: Duration = Duration::from_secs(3);
/// The least grace: with none the server would forget a pod that still runs.
const LEAST_GRACE: Duration = Duration::from_secs(1);

/// What the runtime is made of.
#[derive(Clone)]
pub struct Settings {
    pub client: Client,
    /// Whose pods are ours.
    pub scope: Scope,
}

/// Pods. They go on when the server ends.
#[derive(Clone)]
pub struct PodRuntime(Arc<Inner>);

struct Inner {
    settings: Settings,
    index: Index,
    copies: secrets::Copies,
    policies: network::Policies,
    proofs: proof::Proofs,
    /// Starts and what clears up after them.
    starts: TaskTracker,
}

impl PodRuntime {
    /// Knows nothing until it [follows](Self::follow) the server.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Inner {
            index: Index::new(settings.scope.places().len()),
            copies: secrets::Copies::default(),
            policies: network::Policies::default(),
            proofs: proof::Proofs::default(),
            starts: TaskTracker::new(),
            settings,
        }))
    }

    /// Keeps the index as the server says, for ever.
    pub async fn follow(self) {
        let inner = &*self.0;
        let places = inner.settings.scope.places();
        let watches = places.iter().map(|place| async move {
            let (name, value) = pod::MANAGED_BY;
            let config = Config::default().labels(&format!("{name}={value},{}", pod::FUNCTION));
            let mut events = events::<Pod>(&inner.settings.client, place, config);
            let mut listing = Listing::default();
            while let Some(event) = events.next().await {
                inner.index.follow(event, &mut listing, |pod| {
                    place.is_none() || pod.metadata.namespace == *place
                });
            }
        });
        let policies = places.iter().map(|place| inner.follow_policies(place));
        tokio::join!(join_all(watches), join_all(policies));
        std::future::pending::<()>().await;
    }
}

impl Inner {
    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.settings.client.clone(), namespace)
    }

    /// Deletes a pod, if it is there, and waits until it is gone.
    async fn remove(
        &self,
        id: &str,
        namespace: &str,
        uid: Option<String>,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let grace = grace.max(LEAST_GRACE);
        let params = DeleteParams {
            grace_period_seconds: u32::try_from(grace.as_secs()).ok(),
            preconditions: uid.map(|uid| Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        self.index.will_delete(id);
        let deleted = self.call(self.pods(namespace).delete(id, &params)).await;
        match deleted {
            // Another of the same name is not meant.
            Err(CallError::Refused(status)) if matches!(status.code, 404 | 409) => {}
            outcome => drop(outcome?),
        }
        // One that is lost with its node goes when that comes back, or when Kubernetes forgets the node.
        let gone = self
            .index
            .until(id, |pod| pod.is_none_or(status::is_lost).then_some(()));
        timeout(grace + GONE, gone)
            .await
            .map_err(|_| RuntimeError::Cluster(format!("pod {id} was deleted and is still there")))
    }

    /// Asks the API server, and waits no longer than it may take.
    async fn call<T>(
        &self,
        asked: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, CallError> {
        match timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(CallError::Refused(status)),
            Ok(Err(error)) => Err(CallError::Lost(error.to_string())),
            Err(_) => Err(CallError::Lost(format!(
                "it has not answered for {} s",
                ANSWER.as_secs()
            ))),
        }
    }
}

/// Why the API server did not do what it was asked to.
#[derive(Debug)]
enum CallError {
    Refused(Box<kube::core::Status>),
    /// It may have done it all the same.
    Lost(String),
}

impl From<CallError> for RuntimeError {
    fn from(error: CallError) -> Self {
        Self::Cluster(match error {
            CallError::Refused(status) => status.message,
            CallError::Lost(message) => message,
        })
    }
}

#[async_trait]
impl Runtime for PodRuntime {
    async fn observe(&self) -> Result<Vec<Observed>, RuntimeError> {
        let late = || RuntimeError::Cluster("it has not listed all pods yet".to_owned());
        let listed = timeout(LISTED, self.0.index.listed()).await;
        listed.map_err(|_| late())?;
        self.0.collect_copies().await;
        self.0.confine_again().await;
        let pods = self.0.index.all();
        let pods = pods.iter().filter(|pod| !status::is_lost(pod));
        Ok(pods.filter_map(|pod| seen::observed(pod)).collect())
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<Observed, RuntimeError> {
        start::start(Arc::clone(&self.0), spec.clone()).await
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<Bytes, RuntimeError> {
        let Some(pod) = self.0.index.get(id) else {
            return Ok(Bytes::new());
        };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let uid = pod.metadata.uid.clone();
        // One that misbehaves is not waited for; where others end it, it does no harm.
        let is_orderly = !grace.is_zero() || status::state(&pod) == status::State::Leaving;
        let waits = is_orderly && seen::sees_its_calls(&pod);
        let grace = if waits { grace + SEEN } else { grace };
        let (log, removed) = tokio::join!(
            logs::until_the_end(self.0.pods(&namespace), id),
            self.0.remove(id, &namespace, uid, grace),
        );
        removed.map(|()| log)
    }

    async fn exits(&self) -> Result<BoxStream<'static, Exit>, RuntimeError> {
        Ok(self.0.index.exits().boxed())
    }

    /// Of an instance that is not there (any more): nothing.
    async fn logs(
        &self,
        id: &InstanceId,
        tail: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, LogPiece>, RuntimeError> {
        let Some(pod) = self.0.index.get(id) else {
            return Ok(stream::empty().boxed());
        };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let instance = id.clone();
        let pieces = logs::pieces(self.0.pods(&namespace), id.clone(), tail, follow);
        let pieces = pieces.map(move |bytes| LogPiece {
            instance: instance.clone(),
            bytes,
        });
        Ok(pieces.boxed())
    }

    async fn ping(&self) -> Result<(), RuntimeError> {
        self.facts().await.map(drop)
    }

    async fn facts(&self) -> Result<BTreeMap<String, String>, RuntimeError> {
        let version = self
            .0
            .call(self.0.settings.client.apiserver_version())
            .await?;
        let engine = format!("Kubernetes {}", version.git_version);
        Ok(BTreeMap::from([("engine".to_owned(), engine)]))
    }

    fn isolation(&self, namespace: &str) -> Isolation {
        self.0.proofs.of(namespace)
    }

    async fn prove_isolation(&self, spec: &InstanceSpec) -> bool {
        self.0.prove(spec).await
    }

    fn holds_up(&self, id: &InstanceId) -> Option<String> {
        match status::state(self.0.index.get(id)?.as_ref()) {
            status::State::Waiting(why) => Some(why).filter(|why| !why.is_empty()),
            _ => None,
        }
    }

    fn unkept(&self) -> Option<&'static str> {
        Some("spec.resources.pids is not kept by pods; a kubelet's podPidsLimit is.")
    }

    fn lives_on(&self) -> bool {
        true
    }

    async fn leave(&self) {
        self.0.starts.close();
        self.0.starts.wait().await;
    }
}
