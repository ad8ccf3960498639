//! Where Functions are declared, as the configuration says.

use std::{collections::BTreeSet, sync::Arc};

use futures::{FutureExt, future::BoxFuture};

use super::AppError;
use crate::{
    config::{
        Config,
        store::{Namespaces, StoreConfig},
    },
    store::{
        Store,
        cluster::{self, ClusterStore, Scope},
        embedded::EmbeddedStore,
        state,
    },
};

/// An open store.
pub(super) struct Opened {
    pub store: Arc<dyn Store>,
    /// What it is, for people.
    pub name: String,
    /// What keeps it as its server says, if it has one.
    pub follow: Option<BoxFuture<'static, ()>>,
}

/// Opens the store; hold the lock of the state directory.
pub(super) async fn open(config: &Config) -> Result<Opened, AppError> {
    match &config.store {
        StoreConfig::Embedded => Ok(Opened {
            store: Arc::new(EmbeddedStore::open(&config.state_dir)?),
            name: config.state_dir.join(state::STORE).display().to_string(),
            follow: None,
        }),
        StoreConfig::Kubernetes(namespaces) => follow_cluster(namespaces).await,
    }
}

async fn follow_cluster(namespaces: &Namespaces) -> Result<Opened, AppError> {
    let cluster = cluster::connect().await?;
    let (scope, what) = match namespaces {
        Namespaces::All => (Scope::All, "all namespaces".to_owned()),
        Namespaces::Own => these([cluster.namespace.clone()].into()),
        Namespaces::These(names) => these(names.clone()),
    };
    let name = format!("kubernetes {}, {what}", cluster.url);
    let store = ClusterStore::new(cluster.client, cluster.pulse, true);
    let follow = Arc::clone(&store).follow(scope).boxed();
    Ok(Opened {
        store,
        name,
        follow: Some(follow),
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
