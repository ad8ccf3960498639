//! The secrets of a revision, as an immutable copy that its pods mount: what an instance sees is what its revision was made
//! from, also while somebody changes the original.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};

use super::{CallError, Inner, pod};
use crate::{
    kubernetes::watch::api,
    runtime::{InstanceSpec, RuntimeError},
};

/// A copy that no pod mounts is kept this long: one that does may be about to come.
const KEPT: Duration = Duration::from_secs(600);

/// The copies that starts use at this moment, with how many do.
#[derive(Debug, Default)]
pub(super) struct Copies(Mutex<HashMap<Id, usize>>);

/// Namespace and name.
type Id = (String, String);

/// A copy that stays while this is held.
pub(super) struct Held<'a> {
    copies: &'a Copies,
    id: Id,
}

impl Held<'_> {
    pub(super) fn name(&self) -> &str {
        &self.id.1
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.copies.held();
        if let Some(count) = held.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.id);
            }
        }
    }
}

impl Copies {
    fn held(&self) -> MutexGuard<'_, HashMap<Id, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, id: Id) -> Held<'_> {
        *self.held().entry(id.clone()).or_default() += 1;
        Held { copies: self, id }
    }
}

impl Inner {
    /// Makes sure that the copy is there, if there are secrets. It goes with its Function.
    pub(super) async fn copy_secrets(
        &self,
        spec: &InstanceSpec,
    ) -> Result<Option<Held<'_>>, RuntimeError> {
        if spec.secrets.is_empty() {
            return Ok(None);
        }
        let namespace = spec.function.namespace();
        let secret = copy(spec);
        let held = self.copies.hold((namespace.to_owned(), secret.name_any()));
        let secrets = Api::<Secret>::namespaced(self.settings.client.clone(), namespace);
        match self
            .call(secrets.create(&PostParams::default(), &secret))
            .await
        {
            // Its name says what it is made of.
            Err(CallError::Refused(status)) if status.is_already_exists() => {}
            Err(CallError::Refused(status)) if matches!(status.code, 413 | 422) => {
                return Err(RuntimeError::NotRunnable(status.message));
            }
            outcome => drop(outcome?),
        }
        Ok(Some(held))
    }

    /// Removes copies that nobody mounts any more. Failures are logged: the next time comes soon.
    pub(super) async fn collect_copies(&self) {
        let mounted: HashSet<Id> = self
            .index
            .all()
            .iter()
            .flat_map(|pod| mounts(pod))
            .collect();
        let params = ListParams::default().labels(&format!(
            "{}={},{}",
            pod::MANAGED_BY.0,
            pod::MANAGED_BY.1,
            pod::FUNCTION
        ));
        for place in self.settings.scope.places() {
            let secrets = api::<Secret>(&self.settings.client, &place);
            let listed = match self.call(secrets.list_metadata(&params)).await {
                Ok(listed) => listed,
                Err(error) => {
                    let error = RuntimeError::from(error);
                    tracing::warn!(%error, "Copies of secrets cannot be listed");
                    continue;
                }
            };
            for copy in listed {
                let namespace = copy.namespace().unwrap_or_default();
                let id = (namespace, copy.name_any());
                let is_held = self.copies.held().contains_key(&id);
                if !is_held && !mounted.contains(&id) && is_old(&copy.metadata) {
                    self.remove_copy(&id).await;
                }
            }
        }
    }

    async fn remove_copy(&self, (namespace, name): &Id) {
        let secrets = Api::<Secret>::namespaced(self.settings.client.clone(), namespace);
        let deleted = self
            .call(secrets.delete(name, &DeleteParams::default()))
            .await;
        if let Err(error) = deleted {
            let error = RuntimeError::from(error);
            tracing::debug!(name, %error, "A copy of secrets is not removed");
        }
    }
}

fn is_old(metadata: &ObjectMeta) -> bool {
    let made = metadata.creation_timestamp.as_ref();
    made.is_some_and(|made| {
        let age = SystemTime::now().duration_since(SystemTime::from(made.0));
        age.is_ok_and(|age| age > KEPT)
    })
}

/// The copies that a pod mounts.
fn mounts(pod: &k8s_openapi::api::core::v1::Pod) -> Vec<Id> {
    let namespace = pod.namespace().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let secrets = volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| volume.secret.as_ref());
    let names = secrets.filter_map(|secret| secret.secret_name.clone());
    names.map(|name| (namespace.clone(), name)).collect()
}

fn copy(spec: &InstanceSpec) -> Secret {
    let uid = spec.uid.get(..8).unwrap_or(&spec.uid);
    let files = spec.secrets.iter().enumerate();
    let data = files.map(|(at, file)| (pod::key(at), ByteString(file.bytes.to_vec())));
    Secret {
        metadata: ObjectMeta {
            // Another Function of the same name is another owner.
            name: Some(format!("{}-{}-{uid}", spec.function.name(), spec.revision)),
            namespace: Some(spec.function.namespace().to_owned()),
            labels: Some(pod::labels(spec)),
            owner_references: Some(vec![pod::owner(spec)]),
            ..ObjectMeta::default()
        },
        data: Some(data.collect::<BTreeMap<_, _>>()),
        immutable: Some(true),
        ..Secret::default()
    }
}
