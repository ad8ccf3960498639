//! Where Functions are declared, as the configuration says.

use std::{collections::BTreeSet, sync::Arc};

use futures::{
    FutureExt,
    future::{self, BoxFuture},
};

use super::AppError;
use crate::{
    config::{
        Config, RuntimeKind,
        store::{Namespaces, StoreConfig},
    },
    controller::secrets::cluster::ClusterSecrets,
    kubernetes::{self, Cluster, watch::Scope},
    store::{Store, cluster::ClusterStore, embedded::EmbeddedStore, state},
};

/// An open store.
pub(super) struct Opened {
    pub store: Arc<dyn Store>,
    /// What it is, for people.
    pub name: String,
    /// What keeps it as its server says, if it has one.
    pub follow: Option<BoxFuture<'static, ()>>,
    /// The cluster's own secrets.
    pub secrets: Option<ClusterSecrets>,
    /// The cluster that it is in, and which of its namespaces are ours.
    pub cluster: Option<(Cluster, Scope)>,
}

/// Opens the store; hold the lock of the state directory.
pub(super) async fn open(config: &Config) -> Result<Opened, AppError> {
    match &config.store {
        StoreConfig::Embedded => Ok(Opened {
            store: Arc::new(EmbeddedStore::open(&config.state_dir)?),
            name: config.state_dir.join(state::STORE).display().to_string(),
            follow: None,
            secrets: None,
            cluster: None,
        }),
        StoreConfig::Kubernetes(namespaces) => follow_cluster(namespaces, config.runtime).await,
    }
}

async fn follow_cluster(namespaces: &Namespaces, runtime: RuntimeKind) -> Result<Opened, AppError> {
    let cluster = kubernetes::connect().await?;
    let (scope, what) = match namespaces {
        Namespaces::All => (Scope::All, "all namespaces".to_owned()),
        Namespaces::Own => these([cluster.namespace.clone()].into()),
        Namespaces::These(names) => these(names.clone()),
    };
    let name = format!("kubernetes {}, {what}", cluster.url);
    // Pods go with their Function; what runs elsewhere must be gone before it is.
    let holds = runtime != RuntimeKind::Pods;
    let store = ClusterStore::new(cluster.client.clone(), cluster.pulse.clone(), holds);
    let secrets = ClusterSecrets::new(cluster.client.clone(), scope.clone());
    let functions = Arc::clone(&store).follow(scope.clone());
    let follow = future::join(functions, secrets.clone().follow());
    Ok(Opened {
        store,
        name,
        follow: Some(follow.map(drop).boxed()),
        secrets: Some(secrets),
        cluster: Some((cluster, scope)),
    })
}

fn these(names: BTreeSet<String>) -> (Scope, String) {
    let list: Vec<&str> = names.iter().map(String::as_str).collect();
    let what = match list.as_slice() {
        [one] => format!("namespace {one}"),
        many => format!("namespaces {}", many.join(", ")),
    };
    (Scope::Namespaces(names), what)
}
