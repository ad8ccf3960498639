//! The one network of `network: internet`: a bridge of ours, with this host shielded from it.

use std::collections::HashMap;

use bollard::{models::NetworkCreateRequest, query_parameters::InspectNetworkOptions};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::{
    container::OWNER,
    engine::{CHANGE, CallError, Engine, LOOK, found},
};
use crate::runtime::{RuntimeError, init};

mod firewall;

use firewall::Firewall;

/// The network of one owner. It is made when first wanted, and stays until [`InternetNetwork::close`].
pub(super) struct InternetNetwork {
    owner: String,
    name: String,
    bridge: String,
    allow_host_reach: bool,
    /// Read while a container is being attached, written while the network comes or goes.
    users: std::sync::Arc<RwLock<()>>,
}

/// While it lives, the network does not go.
pub(super) type InUse = OwnedRwLockReadGuard<()>;

impl InternetNetwork {
    pub(super) fn new(owner: &str, allow_host_reach: bool) -> Self {
        // Names of interfaces have at most 15 characters.
        let digest = init::hex(&Sha256::digest(owner));
        Self {
            owner: owner.to_owned(),
            name: format!("faas-{owner}"),
            bridge: format!("faas-{}", &digest[..10]),
            allow_host_reach,
            users: std::sync::Arc::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes sure that the network is there and cannot reach this host.
    pub(super) async fn open(&self, engine: &Engine) -> Result<InUse, RuntimeError> {
        let alone = std::sync::Arc::clone(&self.users).write_owned().await;
        self.shield().await?;
        self.ensure(engine).await?;
        Ok(alone.downgrade())
    }

    /// Removes network and rules, unless a container uses them.
    pub(super) async fn close(&self, engine: &Engine) -> Result<(), RuntimeError> {
        let _alone = self.users.write().await;
        if !self.is_ours(engine).await? {
            return Ok(());
        }
        let name = self.name.clone();
        let removed = engine
            .call("remove network", CHANGE, |docker| async move {
                docker.remove_network(&name).await
            })
            .await;
        match removed {
            // 403: a container is attached.
            Err(error) if error.is(403) || error.is(409) => return Ok(()),
            outcome => found(outcome)?,
        };
        if let Err(error) = self.firewall().remove().await {
            tracing::warn!(%error, bridge = self.bridge, "Firewall rules stay behind");
        }
        Ok(())
    }

    fn firewall(&self) -> Firewall<'_> {
        Firewall {
            bridge: &self.bridge,
        }
    }

    /// The rules come first: they name the bridge, which need not exist yet.
    async fn shield(&self) -> Result<(), RuntimeError> {
        match self.firewall().install().await {
            Err(error) if self.allow_host_reach => {
                tracing::warn!(%error, "Functions with network: internet reach this host");
                Ok(())
            }
            Err(error) => Err(RuntimeError::Refused(format!(
                "network: internet is not offered, because functions could reach this host's own services: {error}; \
                 run faas as root with iptables, or accept it with --allow-host-reach"
            ))),
            Ok(()) => Ok(()),
        }
    }

    async fn ensure(&self, engine: &Engine) -> Result<(), RuntimeError> {
        if self.is_ours(engine).await? {
            return Ok(());
        }
        let request = self.request();
        engine
            .call("create network", CHANGE, |docker| async move {
                docker.create_network(request).await
            })
            .await?;
        Ok(())
    }

    /// Whether it exists and is ours; one of that name and somebody else's is an error.
    async fn is_ours(&self, engine: &Engine) -> Result<bool, RuntimeError> {
        let name = self.name.clone();
        let inspected = engine
            .call("inspect network", LOOK, |docker| async move {
                docker
                    .inspect_network(&name, None::<InspectNetworkOptions>)
                    .await
            })
            .await;
        let Some(network) = found(inspected)? else {
            return Ok(false);
        };
        let labels = network.labels.unwrap_or_default();
        if labels.get(OWNER) == Some(&self.owner) {
            return Ok(true);
        }
        Err(CallError::Lost(format!(
            "the Docker network {:?} is not ours: remove it",
            self.name
        ))
        .into())
    }

    fn request(&self) -> NetworkCreateRequest {
        let options = [
            ("com.docker.network.bridge.name", self.bridge.as_str()),
            ("com.docker.network.bridge.enable_icc", "false"),
        ];
        let labels = [
            (OWNER, self.owner.as_str()),
            ("app.kubernetes.io/managed-by", "faas"),
        ];
        NetworkCreateRequest {
            name: self.name.clone(),
            driver: Some("bridge".to_owned()),
            enable_ipv6: Some(false),
            options: Some(owned(options)),
            labels: Some(owned(labels)),
            ..NetworkCreateRequest::default()
        }
    }
}

fn owned<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    HashMap::from(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())))
}
