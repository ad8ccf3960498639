//! Watches that go on for ever.

use std::{collections::BTreeSet, fmt::Debug, future::ready};

use futures::{Stream, StreamExt};
use hyper::StatusCode;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Error, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{WATCH, refused};

/// Which namespaces are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Namespaces(BTreeSet<String>),
}

/// One namespace, or all of them.
pub type Place = Option<String>;

impl Scope {
    /// Whether this namespace is ours.
    #[must_use]
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(names) => names.contains(namespace),
        }
    }

    /// What is to be watched, each on its own: rights are given by namespace.
    pub fn places(&self) -> Vec<Place> {
        match self {
            Self::All => vec![None],
            Self::Namespaces(names) => names.iter().cloned().map(Some).collect(),
        }
    }
}

/// The objects of a place.
pub fn api<K>(client: &Client, place: &Place) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match place {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// What happens in a place, as long as the server can tell; else it is asked again, later and later.
pub fn events<K>(
    client: &Client,
    place: &Place,
    config: Config,
) -> impl Stream<Item = Event<K>> + Unpin + use<K>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let seconds = u32::try_from(WATCH.as_secs()).unwrap_or(u32::MAX);
    let events = watcher(api(client, place), config.timeout(seconds)).default_backoff();
    let path = K::url_path(&K::DynamicType::default(), place.as_deref());
    let heard = events.filter_map(move |event| {
        if let Err(error) = &event {
            let error = told(&path, error);
            tracing::warn!(%error, "The API server does not tell; asking again");
        }
        ready(event.ok())
    });
    heard.boxed()
}

/// A refusal with the way out, and any other error in its own words.
fn told(path: &str, error: &Error) -> String {
    let (Error::InitialListFailed(cause)
    | Error::WatchStartFailed(cause)
    | Error::WatchFailed(cause)) = error
    else {
        return error.to_string();
    };
    let status = match cause {
        kube::Error::Api(status) => StatusCode::from_u16(status.code).ok(),
        _ => None,
    };
    let refused = status.and_then(|status| refused(path, status));
    refused.unwrap_or_else(|| cause.to_string())
}
