//! Where Functions are declared, as the configuration says.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{self, BoxFuture},
};

use tokio::time::sleep;

use super::{AppError, say, signals::Signals, standby::Standby};
use crate::{
    config::{
        Config, RuntimeKind,
        store::{Namespaces, StoreConfig},
    },
    controller::secrets::cluster::ClusterSecrets,
    kubernetes::{self, Cluster, lease::Lease, notice::Notice, watch::Scope},
    store::{
        Store,
        cluster::{ClusterStore, identity},
        embedded::EmbeddedStore,
        state::{self, Identity},
    },
};

/// Between two tries to reach a server that has never answered.
const AGAIN: Duration = Duration::from_secs(2);

/// An open store.
pub(super) struct Opened {
    pub store: Arc<dyn Store>,
    /// What it is, for people.
    pub name: String,
    /// What keeps it as its server says, if it has one.
    pub follow: Option<BoxFuture<'static, ()>>,
    /// Heard since the wait for others began.
    pub signals: Option<Signals>,
    /// Who its controllers are, if there may be several.
    pub identity: Option<Identity>,
    /// What stands in the lease while it is held.
    pub notice: Option<Notice>,
    /// Held: nobody else controls what is declared there.
    pub lease: Option<Lease>,
    /// The cluster's own secrets.
    pub secrets: Option<ClusterSecrets>,
    /// The cluster that it is in, and which of its namespaces are ours.
    pub cluster: Option<(Cluster, Scope)>,
}

/// Opens the store; hold the lock of the state directory. One that `was_used` before has a store.
pub(super) async fn open(
    config: &Config,
    own: &Identity,
    was_used: bool,
) -> Result<Opened, AppError> {
    let embedded = if was_used {
        EmbeddedStore::open_again
    } else {
        EmbeddedStore::open
    };
    match &config.store {
        StoreConfig::Embedded => Ok(Opened {
            store: Arc::new(embedded(&config.state_dir)?),
            name: config.state_dir.join(state::STORE).display().to_string(),
            follow: None,
            signals: None,
            identity: None,
            notice: None,
            lease: None,
            secrets: None,
            cluster: None,
        }),
        StoreConfig::Kubernetes(namespaces) => follow_cluster(config, namespaces, own).await,
    }
}

async fn follow_cluster(
    config: &Config,
    namespaces: &Namespaces,
    own: &Identity,
) -> Result<Opened, AppError> {
    let cluster = kubernetes::connect().await?;
    let (scope, what) = match namespaces {
        Namespaces::All => (Scope::All, "all namespaces".to_owned()),
        Namespaces::Own => these([cluster.namespace.clone()].into()),
        Namespaces::These(names) => these(names.clone()),
    };
    let name = format!("kubernetes {}, {what}", cluster.url);
    let mut signals = Signals::listen();
    // In one process calls are what is waited for, and there is nothing to say before they can be answered.
    let standby = config.gateways.as_ref();
    let standby = standby.map(|_| Standby::new(config, &cluster));
    let entering = enter(&cluster, &config.state_dir, own, standby.as_ref());
    let entered = async {
        match &standby {
            Some(standby) => standby.beside(entering).await,
            None => entering.await,
        }
    };
    let (lease, identity) = tokio::select! {
        entered = entered => entered?,
        () = signals.next() => return Err(AppError::Waited),
    };
    // Pods go with their Function; what runs elsewhere must be gone before it is.
    let holds = config.runtime != RuntimeKind::Pods;
    let (client, fence) = (cluster.client.clone(), cluster.fence.clone());
    let store = ClusterStore::new(client, cluster.pulse.clone(), fence, holds);
    let secrets = ClusterSecrets::new(cluster.client.clone(), scope.clone());
    let functions = Arc::clone(&store).follow(scope.clone());
    let follow = future::join(functions, secrets.clone().follow());
    Ok(Opened {
        store,
        name,
        follow: Some(follow.map(drop).boxed()),
        signals: Some(signals),
        identity: Some(identity),
        notice: Some(lease.notice().clone()),
        lease: Some(lease),
        secrets: Some(secrets),
        cluster: Some((cluster, scope)),
    })
}

/// What we call ourselves: nobody else does, and after a crash we do again.
pub(super) fn me(own: &Identity) -> String {
    let host = rustix::system::uname();
    format!("{}_{}", host.nodename().to_string_lossy(), own.owner)
}

/// Waits until nobody else controls what we shall, and learns who controllers are there. After a crash nobody waits for
/// itself; and if the server does not answer, what was learnt before is enough to go on answering calls.
async fn enter(
    cluster: &Cluster,
    state: &Path,
    own: &Identity,
    standby: Option<&Standby<'_>>,
) -> Result<(Lease, Identity), AppError> {
    let me = me(own);
    let (client, fence) = (cluster.client.clone(), cluster.fence.clone());
    let mut lease = Lease::new(client, &cluster.namespace, me, fence);
    let waits = |holder: &str| {
        if let Some(standby) = standby {
            standby.waits_for(holder);
        }
        say(&format!(
            "waiting      {holder} controls this cluster's functions; this one takes over when it ends"
        ));
    };
    let fit = async || match standby {
        Some(standby) => standby.may_control().await,
        None => true,
    };
    let mut told = false;
    loop {
        let agreed = async {
            lease.take(waits, fit).await?;
            identity::agree(&cluster.client, &cluster.namespace, own).await
        };
        let error = match agreed.await {
            Ok(identity) => {
                identity.remember(state)?;
                return Ok((lease, identity));
            }
            Err(error) => error,
        };
        tracing::warn!(%error, "The API server does not tell who controls");
        if let Some(identity) = Identity::recall(state) {
            return Ok((lease, identity));
        }
        if !std::mem::replace(&mut told, true) {
            say(&format!("waiting      for the API server: {error}"));
        }
        sleep(AGAIN).await;
    }
}

fn these(names: BTreeSet<String>) -> (Scope, String) {
    let list: Vec<&str> = names.iter().map(String::as_str).collect();
    let what = match list.as_slice() {
        [one] => format!("namespace {one}"),
        many => format!("namespaces {}", many.join(", ")),
    };
    (Scope::Namespaces(names), what)
}
