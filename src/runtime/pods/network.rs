//! What pods may reach: in each namespace with functions, a policy that gives those without a network none. Whether the cluster
//! keeps to it is for its network plugin to say.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicySpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams},
};

use super::{Inner, pod};
use crate::runtime::{InstanceSpec, Network, RuntimeError};

const NAME: &str = "faas-network-none";
/// Who writes it.
const MANAGER: &str = "faas-controller";

/// Namespaces that have the policy since this process began.
#[derive(Debug, Default)]
pub(super) struct Policies(Mutex<HashSet<String>>);

impl Inner {
    /// Makes sure that an instance without a network gets none.
    pub(super) async fn confine(&self, spec: &InstanceSpec) -> Result<(), RuntimeError> {
        let namespace = spec.function.namespace();
        if spec.network == Network::Internet || self.policies.has(namespace) {
            return Ok(());
        }
        let policies = Api::<NetworkPolicy>::namespaced(self.settings.client.clone(), namespace);
        let params = PatchParams::apply(MANAGER).force();
        let policy = Patch::Apply(none(namespace));
        let applied = policies.patch(NAME, &params, &policy);
        self.call(applied).await.map_err(|error| {
            let error = RuntimeError::from(error);
            RuntimeError::Refused(format!(
                "its network policy {namespace}/{NAME} cannot be applied: {error}"
            ))
        })?;
        self.policies.add(namespace);
        Ok(())
    }
}

impl Policies {
    fn has(&self, namespace: &str) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(namespace)
    }

    fn add(&self, namespace: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(namespace.to_owned());
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
