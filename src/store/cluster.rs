//! The store of a cluster: Functions as custom resources of a Kubernetes API server.
//!
//! What is read comes from memory, which `follow` keeps as the server's watches say. What is written goes to the server and
//! comes back by the watch; what the server answers at once is taken at once, so that a turn sees what the one before wrote.
//! Statuses are written by server-side apply, own fields only. What a restart must know is kept where users do not write:
//! facts of revisions in one `ConfigMap` (`facts`), what a Function serves as a `ControllerRevision` of its own (`revisions`).

mod facts;
mod follow;
pub mod identity;
mod news;
mod read;
mod revisions;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::watcher::Event,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;

use self::{news::News, read::Read, revisions::Revisions};
use super::{
    Applied, EventRecord, FINALIZER, Fact, Freshness, Manager, Object, Store, StoreError,
    memory::Memory,
};
use crate::{
    function::{API_VERSION, Function, FunctionKey, FunctionStatus, Revision},
    kubernetes::{CRD_REMEDY, Pulse, STALE, lease::Fence},
};

/// Who writes statuses, facts and finalizers.
const CONTROLLER: &str = "faas-controller";
/// Who writes what callers of the management API apply.
const WRITER: &str = "faas";
/// What an API server says of a field that its definition of an object lacks.
const UNDECLARED: &str = "field not declared in schema";
/// How long is waited for the watch to bring what was written.
const SEEN: Duration = Duration::from_secs(5);

/// See the module.
pub struct ClusterStore {
    client: Client,
    memory: Arc<Memory>,
    revisions: Revisions,
    news: News,
    /// Whether the first lists are whole.
    listed: watch::Sender<bool>,
    /// Whether what a Function runs lives outside of the cluster, and must be gone before the Function may.
    holds: bool,
    pub pulse: Pulse,
    fence: Fence,
}

impl ClusterStore {
    /// Empty until it [follows](Self::follow) the server.
    pub fn new(client: Client, pulse: Pulse, fence: Fence, holds: bool) -> Arc<Self> {
        Arc::new(Self {
            news: News::new(client.clone()),
            client,
            memory: Arc::default(),
            revisions: Revisions::default(),
            listed: watch::Sender::new(false),
            holds,
            pulse,
            fence,
        })
    }

    fn functions(&self, key: &FunctionKey) -> Api<Read> {
        Api::namespaced(self.client.clone(), key.namespace())
    }

    /// What the server answered, unless the memory is ahead of it already.
    fn take(&self, key: FunctionKey, Read(function): Read) {
        self.memory.put_newer(key, Arc::new(function), false);
    }

    /// Waits until the watch has brought what was just written.
    async fn seen(&self, key: &FunctionKey, version: Option<&str>) {
        let number = |version: Option<&str>| version.and_then(|v| v.parse::<u64>().ok());
        let wanted = number(version);
        let is_there = || {
            let known = self.get(key);
            let known = known.and_then(|f| number(f.metadata.resource_version.as_deref()));
            known >= wanted
        };
        let mut changes = self.watch();
        let seen = async { while !is_there() && changes.next().await.is_some() {} };
        // It will come later; nothing was lost.
        let _ = timeout(SEEN, seen).await;
    }

    /// The object, if it is still the one that was meant.
    fn same(&self, key: &FunctionKey, uid: &str) -> Option<Arc<Function>> {
        self.get(key)
            .filter(|current| current.metadata.uid.as_deref() == Some(uid))
    }

    /// Changes the metadata of the object that was meant, in the version that is known here.
    async fn patch_metadata(
        &self,
        key: &FunctionKey,
        current: &Function,
        mut metadata: Value,
    ) -> Result<(), StoreError> {
        metadata["uid"] = json!(current.metadata.uid);
        metadata["resourceVersion"] = json!(current.metadata.resource_version);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let params = PatchParams {
            field_manager: Some(CONTROLLER.to_owned()),
            ..PatchParams::default()
        };
        let patched = self.functions(key).patch(key.name(), &params, &patch).await;
        let patched = patched.map_err(StoreError::of("change", key))?;
        self.take(key.clone(), patched);
        Ok(())
    }
}

#[async_trait]
impl Store for ClusterStore {
    async fn ready(&self) {
        // Fails only if the sender is gone, and we hold it.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    fn freshness(&self) -> Freshness {
        let now = Instant::now();
        let stale = |(path, age): (String, Duration)| {
            let age = age.as_secs();
            format!("the API server has not told of {path} for {age} s: what is known may be old")
        };
        let unlisted = || {
            let is_listed = *self.listed.borrow();
            (!is_listed).then(|| "the API server has not listed everything yet".to_owned())
        };
        let trouble = self.pulse.refusal().or_else(unlisted);
        let trouble = trouble.or_else(|| self.pulse.stale(now).map(stale));
        // What is known is true meanwhile, and is answered: to be away for a while is no reason to be called no more.
        let is_shut = || self.fence.closed_for() > STALE;
        let shut = || is_shut().then(|| "the lease is not renewed: nothing is written".to_owned());
        let trouble = trouble.or_else(shut);
        Freshness {
            is_known: *self.listed.borrow(),
            trouble,
            watches: self.pulse.ages(now),
        }
    }

    fn get(&self, key: &FunctionKey) -> Option<Arc<Function>> {
        self.memory.get(key)
    }

    fn list(&self) -> Vec<Arc<Function>> {
        self.memory.list()
    }

    fn watch(&self) -> BoxStream<'static, Event<Object>> {
        UnboundedReceiverStream::new(self.memory.watch()).boxed()
    }

    async fn apply(
        &self,
        function: Function,
        _manager: &Manager,
        _now: Timestamp,
    ) -> Result<(Applied, Arc<Function>), StoreError> {
        let key = FunctionKey::try_from(&function)?;
        let before = self.get(&key);
        if before
            .as_ref()
            .is_some_and(|f| f.metadata.deletion_timestamp.is_some())
        {
            return Err(StoreError::Deleting { key });
        }
        let patch = json!({
            "apiVersion": API_VERSION,
            "kind": "Function",
            "metadata": {
                "name": key.name(),
                "namespace": key.namespace(),
                "labels": function.metadata.labels,
                "annotations": function.metadata.annotations,
            },
            "spec": function.spec,
        });
        let params = PatchParams::apply(WRITER);
        let functions = self.functions(&key);
        let applied = functions
            .patch(key.name(), &params, &Patch::Apply(&patch))
            .await;
        let Read(applied) = applied.map_err(StoreError::of("apply", &key))?;
        let version = |f: &Function| f.metadata.resource_version.clone();
        let what = match before {
            None => Applied::Created,
            Some(before) if version(&before) == version(&applied) => Applied::Unchanged,
            Some(_) => Applied::Configured,
        };
        self.seen(&key, applied.metadata.resource_version.as_deref())
            .await;
        Ok((what, Arc::new(applied)))
    }

    async fn delete(
        &self,
        key: &FunctionKey,
        _manager: &Manager,
        _now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(current) = self.get(key) else {
            return Err(StoreError::NotFound { key: key.clone() });
        };
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: current.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let deleted = self.functions(key).delete(key.name(), &params).await;
        deleted.map_err(StoreError::of("delete", key))?;
        Ok(())
    }

    async fn hold(&self, key: &FunctionKey, uid: &str) -> Result<(), StoreError> {
        let Some(current) = self.same(key, uid).filter(|_| self.holds) else {
            return Ok(());
        };
        let mut finalizers = current.metadata.finalizers.clone().unwrap_or_default();
        if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(());
        }
        finalizers.push(FINALIZER.to_owned());
        self.patch_metadata(key, &current, json!({"finalizers": finalizers}))
            .await
    }

    async fn finalize(&self, key: &FunctionKey, uid: &str) -> Result<bool, StoreError> {
        let Some(current) = self.same(key, uid) else {
            return Ok(false);
        };
        let finalizers = current.finalizers();
        if current.metadata.deletion_timestamp.is_none()
            || !finalizers.iter().any(|f| f == FINALIZER)
        {
            return Ok(false);
        }
        let others: Vec<_> = finalizers.iter().filter(|f| *f != FINALIZER).collect();
        let released = self
            .patch_metadata(key, &current, json!({"finalizers": others}))
            .await;
        match released {
            // It went by itself meanwhile.
            Err(StoreError::NotFound { .. }) => Ok(true),
            outcome => outcome.map(|()| true),
        }
    }

    async fn write_status(
        &self,
        key: &FunctionKey,
        uid: &str,
        status: FunctionStatus,
    ) -> Result<bool, StoreError> {
        let Some(current) = self.same(key, uid) else {
            return Ok(false);
        };
        let status = super::whole_seconds(status);
        if current.status.as_ref() == Some(&status) {
            return Ok(false);
        }
        let patch = json!({
            "apiVersion": API_VERSION,
            "kind": "Function",
            "metadata": {"name": key.name(), "namespace": key.namespace(), "uid": uid},
            "status": status,
        });
        let params = PatchParams::apply(CONTROLLER).force();
        let functions = self.functions(key);
        let written = functions
            .patch_status(key.name(), &params, &Patch::Apply(&patch))
            .await;
        let written = match written {
            // The whole status is refused for a field that the cluster's definition lacks; what is replaced loses only that.
            Err(kube::Error::Api(refused)) if refused.message.contains(UNDECLARED) => {
                let why = &refused.message;
                tracing::warn!(function = %key, %why, "The cluster's definition of Functions is another's: {}", CRD_REMEDY);
                let function = Read(Function {
                    status: Some(status),
                    ..Function::clone(&current)
                });
                let params = PostParams {
                    field_manager: Some(CONTROLLER.to_owned()),
                    ..PostParams::default()
                };
                functions
                    .replace_status(key.name(), &params, &function)
                    .await
            }
            written => written,
        };
        let written = written.map_err(StoreError::of("write the status of", key))?;
        self.take(key.clone(), written);
        Ok(true)
    }

    fn knows(&self, revision: &Revision, fact: Fact) -> bool {
        self.memory.knows(revision, fact)
    }

    fn known(&self, fact: Fact) -> BTreeSet<Revision> {
        self.memory.known(fact)
    }

    async fn note(
        &self,
        _key: &FunctionKey,
        _uid: &str,
        revision: &Revision,
        fact: Fact,
    ) -> Result<(), StoreError> {
        if self.knows(revision, fact) {
            return Ok(());
        }
        self.memory.learn(revision.clone(), fact);
        let facts = self.memory.facts_of(revision);
        facts::write(&self.client, [(revision.clone(), facts)]).await
    }

    async fn forget(&self, revisions: Vec<Revision>) -> Result<(), StoreError> {
        self.memory.forget(&revisions);
        let nothing = revisions.into_iter().map(|revision| (revision, Vec::new()));
        facts::write(&self.client, nothing).await
    }

    async fn keep_served(
        &self,
        key: &FunctionKey,
        uid: &str,
        served: &Revision,
        record: String,
    ) -> Result<(), StoreError> {
        let Some(function) = self.same(key, uid) else {
            return Ok(());
        };
        let object = revisions::object(&function, key, served, &record);
        let kept = self.revisions.keep(&self.client, &object).await;
        kept.map_err(StoreError::of("keep what serves of", key))
    }

    async fn served(&self, key: &FunctionKey, uid: &str) -> Result<Option<String>, StoreError> {
        let serving = self
            .same(key, uid)
            .and_then(|function| function.status.as_ref()?.serving_revision.clone());
        Ok(self.revisions.served(uid, serving.as_deref()))
    }

    async fn record(
        &self,
        key: &FunctionKey,
        uid: &str,
        event: EventRecord,
    ) -> Result<(), StoreError> {
        let Some(function) = self.same(key, uid) else {
            return Ok(());
        };
        let published = self.news.publish(&function, event).await;
        published.map_err(StoreError::of("record an event of", key))
    }

    async fn events(&self, key: &FunctionKey) -> Result<Vec<EventRecord>, StoreError> {
        let Some(uid) = self.get(key).and_then(|f| f.metadata.uid.clone()) else {
            return Ok(Vec::new());
        };
        let events = self.news.read(key, &uid).await;
        events.map_err(StoreError::of("read the events of", key))
    }
}
