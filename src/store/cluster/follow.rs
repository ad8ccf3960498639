//! Keeps the memory as the server's watches say.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::runtime::watcher::{Config, Event};
use tokio::time::sleep;

use super::{ClusterStore, facts, read::Read, revisions::MANAGED_BY};
use crate::{
    function::{FunctionKey, NOT_UNDERSTOOD},
    kubernetes::watch::{Place, Scope, events},
};

/// Between two tries to read what was learnt before.
const AGAIN: Duration = Duration::from_secs(2);

/// How many first lists are still to come.
struct Missing<'a> {
    count: AtomicUsize,
    store: &'a ClusterStore,
}

impl Missing<'_> {
    fn one_less(&self) {
        if self.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::info!("The API server has listed everything");
            self.store.listed.send_replace(true);
        }
    }
}

impl ClusterStore {
    /// Follows the server, for ever. Nothing is known before everything was listed once, and nothing is gone before a whole
    /// list, or the server, said so.
    pub async fn follow(self: Arc<Self>, scope: Scope) {
        let places = scope.places();
        let missing = Missing {
            count: AtomicUsize::new(2 * places.len() + 1),
            store: &self,
        };
        let functions = places
            .iter()
            .map(|place| self.functions_in(place, &missing));
        let revisions = places
            .iter()
            .map(|place| self.revisions_in(place, &missing));
        tokio::join!(
            join_all(functions),
            join_all(revisions),
            self.recall(&missing)
        );
    }

    /// What was learnt before this process began.
    async fn recall(&self, missing: &Missing<'_>) {
        loop {
            match facts::read(&self.client).await {
                Ok(facts) => {
                    for (fact, revision) in facts {
                        self.memory.learn(revision, fact);
                    }
                    return missing.one_less();
                }
                Err(error) => {
                    tracing::warn!(%error, "What was learnt of revisions is not known yet");
                }
            }
            sleep(AGAIN).await;
        }
    }

    async fn functions_in(&self, place: &Place, missing: &Missing<'_>) {
        let config = Config::default();
        let mut events = events::<Read>(&self.client, place, config);
        let mut listed = BTreeSet::new();
        let mut is_first = true;
        while let Some(event) = events.next().await {
            match event {
                Event::Init => listed.clear(),
                Event::InitApply(object) => listed.extend(self.has_come(object)),
                Event::InitDone => {
                    self.memory.keep_only(&listed, |key| {
                        place
                            .as_ref()
                            .is_none_or(|namespace| key.namespace() == namespace)
                    });
                    if std::mem::take(&mut is_first) {
                        missing.one_less();
                    }
                }
                Event::Apply(object) => drop(self.has_come(object)),
                Event::Delete(Read(function)) => {
                    if let Ok(key) = FunctionKey::try_from(&function) {
                        self.memory.remove(&key, function);
                    }
                }
            }
        }
        pending::<()>().await;
    }

    /// Takes a new version; answers whose it is.
    fn has_come(&self, Read(function): Read) -> Option<FunctionKey> {
        let key = FunctionKey::try_from(&function).ok()?;
        let annotations = function.metadata.annotations.as_ref();
        if let Some(error) = annotations.and_then(|all| all.get(NOT_UNDERSTOOD)) {
            tracing::warn!(function = %key, %error, "A Function is not understood by this version; what served goes on serving. Is the CRD that of this faas?");
        }
        self.memory.put_newer(key.clone(), Arc::new(function), true);
        Some(key)
    }

    async fn revisions_in(&self, place: &Place, missing: &Missing<'_>) {
        let (name, value) = MANAGED_BY;
        let config = Config::default().labels(&format!("{name}={value}"));
        let mut events = events::<ControllerRevision>(&self.client, place, config);
        let mut is_first = true;
        while let Some(event) = events.next().await {
            let is_done = matches!(event, Event::InitDone);
            self.revisions.follow(event);
            if is_done && std::mem::take(&mut is_first) {
                missing.one_less();
            }
        }
        pending::<()>().await;
    }
}
