//! What pods may reach: in each namespace with functions, a policy that gives those without a network none. It is there before
//! the first such pod is, and made again when somebody takes it away. Whether the cluster keeps to it is for its network plugin
//! to say.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicySpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams},
    runtime::watcher::{Config, Event},
};

use super::{Inner, pod, seen};
use crate::{
    kubernetes::watch::{Place, events},
    runtime::{InstanceSpec, Network, RuntimeError},
};

const NAME: &str = "faas-network-none";
/// Who writes it.
const MANAGER: &str = "faas-controller";

/// Namespaces that have the policy, as the watches say.
#[derive(Debug, Default)]
pub(super) struct Policies(Mutex<HashSet<String>>);

impl Inner {
    /// Makes sure that an instance without a network gets none.
    pub(super) async fn confine(&self, spec: &InstanceSpec) -> Result<(), RuntimeError> {
        if spec.network == Network::Internet {
            return Ok(());
        }
        self.confine_all_in(spec.function.namespace()).await
    }

    async fn confine_all_in(&self, namespace: &str) -> Result<(), RuntimeError> {
        if self.policies.lock().contains(namespace) {
            return Ok(());
        }
        let policies = Api::<NetworkPolicy>::namespaced(self.settings.client.clone(), namespace);
        let params = PatchParams::apply(MANAGER).force();
        let policy = Patch::Apply(none(namespace));
        let applied = self.call(policies.patch(NAME, &params, &policy)).await;
        applied.map(drop).map_err(|error| {
            let error = RuntimeError::from(error);
            RuntimeError::Refused(format!(
                "its network policy {namespace}/{NAME} cannot be applied: {error}"
            ))
        })
    }

    /// Gives the policy back to those pods that it was taken from.
    pub(super) async fn confine_again(&self) {
        let pods = self.index.all();
        let confined = pods.iter().filter(|pod| seen::is_without_network(pod));
        let namespaces: BTreeSet<_> = confined.filter_map(|pod| pod.namespace()).collect();
        for namespace in namespaces {
            if let Err(error) = self.confine_all_in(&namespace).await {
                tracing::warn!(namespace, %error, "`network: none` is not kept");
            }
        }
    }

    /// Follows the policies of a place, for ever.
    pub(super) async fn follow_policies(&self, place: &Place) {
        let config = Config::default().fields(&format!("metadata.name={NAME}"));
        let mut events = events::<NetworkPolicy>(&self.settings.client, place, config);
        while let Some(event) = events.next().await {
            match event {
                Event::Init => self
                    .policies
                    .lock()
                    .retain(|namespace| place.as_ref().is_some_and(|place| place != namespace)),
                Event::InitApply(policy) | Event::Apply(policy) => self.policies.put(&policy),
                Event::Delete(policy) => {
                    self.policies
                        .lock()
                        .remove(&policy.namespace().unwrap_or_default());
                    self.confine_again().await;
                }
                Event::InitDone => {}
            }
        }
    }
}

impl Policies {
    /// One that says something else than ours is none.
    fn put(&self, policy: &NetworkPolicy) {
        let namespace = policy.namespace().unwrap_or_default();
        if policy.spec.clone().map(plain) == none(&namespace).spec.map(plain) {
            self.lock().insert(namespace);
        } else {
            self.lock().remove(&namespace);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As the API server tells it: an empty list is none.
fn plain(spec: NetworkPolicySpec) -> NetworkPolicySpec {
    NetworkPolicySpec {
        egress: spec.egress.filter(|rules| !rules.is_empty()),
        ingress: spec.ingress.filter(|rules| !rules.is_empty()),
        ..spec
    }
}

/// Nothing may be reached by pods that say so; who calls them is answered.
fn none(namespace: &str) -> NetworkPolicy {
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(pod::ours()),
            ..ObjectMeta::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(pod::without_network()),
                match_expressions: None,
            }),
            policy_types: Some(vec!["Egress".to_owned()]),
            egress: Some(Vec::new()),
            ingress: None,
        }),
    }
}
