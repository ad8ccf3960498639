//! The one network of `network: internet`: a bridge of ours, with this host shielded from it.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

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
    /// A crash may have left rules, so at first there may be some.
    may_have_rules: AtomicBool,
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
            may_have_rules: AtomicBool::new(true),
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

    /// Sees to it that the shield is whole while containers use the network: the rules of a machine are others' too.
    pub(super) async fn keep_shield(&self) {
        // Whoever opens or closes the network at this moment sees to it.
        let Ok(_in_use) = self.users.try_read() else {
            return;
        };
        let firewall = self.firewall();
        let restored = tokio::time::timeout(LOOK, firewall.restore()).await;
        let bridge = &self.bridge;
        match restored {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                tracing::warn!(
                    bridge,
                    "Firewall rules that keep functions with `network: internet` from this host were gone or changed, and are set again"
                );
            }
            Ok(Err(error)) if self.allow_host_reach => {
                tracing::debug!(%error, bridge, "Functions with network: internet reach this host");
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, bridge, "Whether functions with `network: internet` are kept from this host cannot be seen to");
            }
            Err(_) => {
                tracing::warn!(
                    bridge,
                    seconds = LOOK.as_secs(),
                    "The firewall does not answer; its rules are looked at the next time"
                );
            }
        }
    }

    /// Removes network and rules, unless a container uses them. Whatever half of it is there goes.
    pub(super) async fn close(&self, engine: &Engine) -> Result<(), RuntimeError> {
        let _alone = self.users.write().await;
        if self.is_ours(engine).await? {
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
        }
        self.unshield().await;
        Ok(())
    }

    async fn unshield(&self) {
        if !self.may_have_rules.load(Ordering::Relaxed) {
            return;
        }
        match self.firewall().remove().await {
            Ok(()) => self.may_have_rules.store(false, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(%error, bridge = self.bridge, "Firewall rules stay behind");
            }
        }
    }

    fn firewall(&self) -> Firewall<'_> {
        Firewall {
            bridge: &self.bridge,
        }
    }

    /// The rules come first: they name the bridge, which need not exist yet.
    async fn shield(&self) -> Result<(), RuntimeError> {
        self.may_have_rules.store(true, Ordering::Relaxed);
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
