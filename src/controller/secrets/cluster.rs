//! Secrets of a cluster. Their content is asked for when a Function names them, and again when a watch of their metadata says
//! that they have changed; what nobody names is never read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::watcher::{Config, Event},
};
use tokio::time::timeout;

use crate::{
    kubernetes::watch::{Scope, events},
    runtime::SecretFile,
};

/// Longest wait for the API server.
const ANSWER: Duration = Duration::from_secs(10);

/// Namespace and name.
type Id = (String, String);

/// See the module.
#[derive(Clone)]
pub struct ClusterSecrets(Arc<Inner>);

struct Inner {
    client: Client,
    scope: Scope,
    known: Mutex<HashMap<Id, Known>>,
}

/// One secret that is there.
#[derive(Default)]
struct Known {
    /// As the watch says.
    version: String,
    /// What was read, and in which version.
    content: Option<(String, Vec<SecretFile>)>,
}

impl ClusterSecrets {
    /// Asks the server each time until it [follows](Self::follow) it.
    pub fn new(client: Client, scope: Scope) -> Self {
        Self(Arc::new(Inner {
            client,
            scope,
            known: Mutex::default(),
        }))
    }

    /// Keeps the versions as the server says, for ever.
    pub async fn follow(self) {
        let this = &self;
        let places = self.0.scope.places();
        let watches = places.iter().map(|place| async move {
            // What is ours are copies; helm keeps its releases in large Secrets.
            let config = Config::default()
                .labels("!faas.dev/function")
                .fields("type!=helm.sh/release.v1");
            let mut events = events::<PartialObjectMeta<Secret>>(&this.0.client, place, config);
            while let Some(event) = events.next().await {
                this.has_changed(event);
            }
        });
        join_all(watches).await;
        std::future::pending::<()>().await;
    }

    fn has_changed(&self, event: Event<PartialObjectMeta<Secret>>) {
        match event {
            Event::Apply(secret) | Event::InitApply(secret) => {
                let mut known = self.known();
                let known = known.entry(id(&secret)).or_default();
                known.version = secret.resource_version().unwrap_or_default();
            }
            Event::Delete(secret) => drop(self.known().remove(&id(&secret))),
            // What went unseen is found missing when it is read.
            Event::Init | Event::InitDone => {}
        }
    }

    /// The files of one secret, sorted by key.
    pub(super) async fn read(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Vec<SecretFile>, String> {
        let id = (namespace.to_owned(), name.to_owned());
        let kept = self.known().get(&id).and_then(|known| {
            let (version, files) = known.content.as_ref()?;
            (*version == known.version).then(|| files.clone())
        });
        if let Some(files) = kept {
            return Ok(files);
        }
        let secrets = Api::<Secret>::namespaced(self.0.client.clone(), namespace);
        let told = |message: String| format!("Secret {namespace}/{name}: {message}");
        let answer = timeout(ANSWER, secrets.get_opt(name)).await;
        let secret = match answer {
            Ok(Ok(secret)) => secret,
            Ok(Err(error)) => return Err(told(error.to_string())),
            Err(_) => return Err(told("the API server does not answer".to_owned())),
        };
        let Some(secret) = secret else {
            self.known().remove(&id);
            return Err(told(
                "there is none; create it in the namespace of the function".to_owned(),
            ));
        };
        let version = secret.resource_version().unwrap_or_default();
        let files = files(name, secret);
        // Without a watch that has told of it, its changes would go unseen.
        if let Some(known) = self.known().get_mut(&id) {
            known.content = Some((version, files.clone()));
        }
        Ok(files)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Id, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn id(secret: &PartialObjectMeta<Secret>) -> Id {
    (secret.namespace().unwrap_or_default(), secret.name_any())
}

fn files(name: &str, secret: Secret) -> Vec<SecretFile> {
    let data = secret.data.unwrap_or_default();
    let file = |(key, content): (String, k8s_openapi::ByteString)| SecretFile {
        path: format!("{name}/{key}"),
        bytes: Bytes::from(content.0),
    };
    data.into_iter().map(file).collect()
}
