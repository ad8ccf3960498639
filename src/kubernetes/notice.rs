//! What the holder of the Lease says in its annotations: where gateways find it, and which of them may hold leases of instances.
//! Whoever holds the Lease next reads there whom to wait for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use k8s_openapi::api::coordination::v1::Lease as Object;
use kube::{Api, Client, ResourceExt};
use tokio::{sync::watch, time::timeout};

use super::lease::{ANSWER, NAME};

const ADDRESS: &str = "faas.dev/gateways-address";
const CERTIFICATE: &str = "faas.dev/gateways-certificate";
const GATEWAYS: &str = "faas.dev/gateways";

/// Where a controller listens for gateways, and how it proves that it is the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub address: SocketAddr,
    /// PEM.
    pub certificate: String,
}

/// What is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Unless nobody is there yet.
    pub place: Option<Place>,
    pub gateways: BTreeSet<String>,
}

impl Said {
    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        let gateways: Vec<&str> = self.gateways.iter().map(String::as_str).collect();
        let mut all = Vec::new();
        if !gateways.is_empty() {
            all.push((GATEWAYS, gateways.join(",")));
        }
        if let Some(place) = &self.place {
            all.push((ADDRESS, place.address.to_string()));
            all.push((CERTIFICATE, place.certificate.clone()));
        }
        let owned = |(name, text): (&str, String)| (name.to_owned(), text);
        all.into_iter().map(owned).collect()
    }

    /// What annotations say.
    pub(super) fn read(annotations: &BTreeMap<String, String>) -> Self {
        let place = || {
            Some(Place {
                address: annotations.get(ADDRESS)?.parse().ok()?,
                certificate: annotations.get(CERTIFICATE)?.clone(),
            })
        };
        let gateways = annotations.get(GATEWAYS).map(String::as_str);
        let names = gateways.unwrap_or_default().split(',');
        let names = names.filter(|name| !name.is_empty()).map(str::to_owned);
        Self {
            place: place(),
            gateways: names.collect(),
        }
    }
}

/// What the holder wants to be said, and what was written of it.
#[derive(Clone, Debug, Default)]
pub struct Notice {
    wanted: Arc<watch::Sender<Said>>,
    /// Nothing before the Lease was ours.
    written: Arc<watch::Sender<Option<Said>>>,
}

impl Notice {
    /// From the next renewal on, which is soon.
    pub fn change(&self, change: impl FnOnce(&mut Said)) {
        self.wanted.send_if_modified(|said| {
            let before = said.clone();
            change(said);
            *said != before
        });
    }

    /// What is to be said.
    pub fn said(&self) -> Said {
        self.wanted.borrow().clone()
    }

    /// Waits until this stands in the Lease.
    pub async fn written(&self, is_so: impl Fn(&Said) -> bool) {
        // Fails only if the sender is gone, and we hold it.
        let is_so = |said: &Option<Said>| said.as_ref().is_some_and(&is_so);
        let _ = self.written.subscribe().wait_for(is_so).await;
    }

    pub(crate) fn wrote(&self, said: Said) {
        self.written.send_replace(Some(said));
    }

    /// Waits until something else is to be said than this.
    pub(crate) async fn differs(&self, from: &Said) {
        // Fails only if the sender is gone, and we hold it.
        let _ = self.wanted.subscribe().wait_for(|said| said != from).await;
    }
}

/// The Lease, as who does not hold it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Changes with every renewal.
    pub version: String,
    /// Where its holder is, if somebody holds it and is there.
    pub place: Option<Place>,
}

/// Looks at the Lease; there may be none.
///
/// # Errors
/// When the server does not tell.
pub async fn look(client: &Client, namespace: &str) -> Result<Option<Seen>, kube::Error> {
    let leases = Api::<Object>::namespaced(client.clone(), namespace);
    let late = |_| kube::Error::Service("the API server does not answer".into());
    let asked = timeout(ANSWER, leases.get_opt(NAME));
    Ok(asked.await.map_err(late)??.map(|lease| {
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.as_ref());
        let is_held = holder.is_some_and(|holder| !holder.is_empty());
        Seen {
            version: lease.resource_version().unwrap_or_default(),
            place: Said::read(lease.annotations()).place.filter(|_| is_held),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_again() {
        let place = Place {
            address: "10.0.0.7:5556".parse().unwrap(),
            certificate: "-----BEGIN\nCERTIFICATE".to_owned(),
        };
        let names = ["a", "b"].map(str::to_owned);
        for said in [
            Said::default(),
            Said {
                place: Some(place.clone()),
                gateways: BTreeSet::new(),
            },
            Said {
                place: Some(place),
                gateways: names.into(),
            },
        ] {
            assert_eq!(Said::read(&said.annotations()), said);
        }
        let strange = BTreeMap::from([(ADDRESS.to_owned(), "nowhere".to_owned())]);
        assert_eq!(Said::read(&strange), Said::default());
    }
}
