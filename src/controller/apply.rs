//! Carries plans out: the only place that builds, starts or stops anything. Whatever takes time is a task of its own,
//! whose end asks for the Function's next turn.

mod shares;
mod start;
mod stop;

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;

use super::{Controller, View, entry::Entry, resolve::Served};
use crate::{
    builder::{BuildError, ImageName, ImageReference},
    crash::{self, Point},
    function::{Function, FunctionKey, Revision, status::Reason},
    plan::{Manners, Plan, Target},
    pool::{LeaseError, Route},
    runtime::InstanceId,
    store::{Fact, StoreError},
};

impl Controller {
    /// Begins everything that the plan says.
    pub(super) async fn apply(
        self: &Arc<Self>,
        key: &FunctionKey,
        function: &Function,
        plan: &Plan,
        view: &mut View,
    ) {
        self.settle(key, &plan.settle).await;
        if let Some(revision) = &plan.serve {
            self.switch(key, function, revision);
            view.serving = view.desired.as_ref().ok().cloned();
        }
        self.stop_all(key, &plan.stop);
        self.start_all(key, &plan.start);
        self.divide_cpu(key);
        if plan.build
            && let Ok(desired) = &view.desired
        {
            let made_from = self.resolver.served(function);
            self.build(key, made_from, &desired.image);
        }
        if plan.rebuild {
            self.rebuild(key, function, view.serving.as_ref()).await;
        }
        self.starve(key, plan.starved);
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        let known = [entry.desired(), entry.serving.as_ref()]
            .map(|desired| desired.map(|d| d.target.revision.clone()));
        entry.failures.retain(|revision, _| {
            known.iter().flatten().any(|r| r == revision) && !plan.forgive.contains(revision)
        });
        if let Some(failure) = &plan.refuse {
            entry.pool.refuse(&LeaseError::Failing(failure.clone()));
        }
    }

    /// Calls go to the newest revision from now on.
    fn switch(&self, key: &FunctionKey, function: &Function, revision: &Revision) {
        crash::point(Point::BeforeSwitch, key);
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        let Some(desired) = entry
            .desired()
            .filter(|d| d.target.revision == *revision)
            .cloned()
        else {
            return;
        };
        let image = desired.target.image.clone();
        let served = self.resolver.served(function).by(&image, revision);
        let before = entry.serving.replace(desired);
        entry.previous_image = before
            .map(|b| b.target.image.clone())
            .filter(|before| *before != image)
            .or_else(|| entry.previous_image.take());
        entry.unkept = Some((revision.clone(), served.record()));
        self.route(entry);
        tracing::info!(function = %key, %revision, "Revision serves");
    }

    /// Stores what serves, for the time after a restart, when that has changed. Until it is stored, each turn tries again:
    /// without it an older revision would not come back.
    pub(super) async fn keep_served(&self, key: &FunctionKey, uid: &str) -> Result<(), StoreError> {
        let unkept = self.entries().get(key).and_then(|e| e.unkept.clone());
        let Some((revision, record)) = unkept else {
            return Ok(());
        };
        let store = &self.ports.store;
        store.keep_served(key, uid, &revision, record).await?;
        if let Some(entry) = self.entries().get_mut(key) {
            entry.unkept = None;
        }
        crash::point(Point::Draining, key);
        self.collect.notify_one();
        Ok(())
    }

    /// Tells the pool where calls go and under which terms.
    pub(super) fn route(&self, entry: &Entry) {
        entry.pool.serve(entry.serving.as_ref().map(|serving| {
            let target = self.target(serving);
            Route {
                revision: target.revision,
                concurrency: target.concurrency,
                manners: target.manners,
                timeout: serving.timeout,
            }
        }));
    }

    /// These instances stay after a call: so do others of their revision.
    async fn settle(&self, key: &FunctionKey, stayed: &[InstanceId]) {
        if stayed.is_empty() {
            return;
        }
        let known = self
            .entries()
            .get(key)
            .and_then(|e| Some((e.uid.clone(), e.serving.clone()?)));
        let Some((uid, serving)) = known else {
            return;
        };
        self.learn(key, &uid, &serving.target.revision, Fact::Stays)
            .await;
        let entries = self.entries();
        let Some(entry) = entries.get(key) else {
            return;
        };
        self.route(entry);
        for id in stayed {
            entry.pool.settle(id);
        }
    }

    /// Keeps what was seen of a revision. It would only have to be seen again if that failed.
    pub(super) async fn learn(
        &self,
        key: &FunctionKey,
        uid: &str,
        revision: &Revision,
        fact: Fact,
    ) {
        if let Err(error) = self.ports.store.note(key, uid, revision, fact).await {
            tracing::error!(%revision, %error, "What was seen of a revision could not be stored");
        }
    }

    /// The image of what serves is gone, and the newest generation has another: what was kept tells how to make it again.
    async fn rebuild(
        self: &Arc<Self>,
        key: &FunctionKey,
        function: &Function,
        serving: Option<&Target>,
    ) {
        let uid = function.metadata.uid.as_deref().unwrap_or_default();
        if let Some(serving) = serving
            && let Some(made_from) = self.served(key, uid).await
        {
            self.build(key, made_from, &serving.image);
        }
    }

    /// Builds or pulls an image, unless that is going on.
    fn build(self: &Arc<Self>, key: &FunctionKey, made_from: Served, image: &ImageName) {
        let Some(log) = self.images.enqueue(image) else {
            return;
        };
        let (this, name, key) = (Arc::clone(self), image.clone(), key.clone());
        let task = self.tasks.spawn(async move {
            let outcome = this.make(&key, &made_from, &name, log).await;
            crash::point(Point::ImageBuilt, &key);
            this.metrics.build_ended(outcome.is_ok());
            if let Err(error) = &outcome {
                tracing::warn!(function = %key, image = %name, %error, "Build failed");
            }
            for key in this.images.end(
                &name,
                outcome.as_ref().cloned(),
                Instant::now(),
                Timestamp::now(),
            ) {
                this.turns.request(&key);
            }
        });
        self.images.carried_by(image, task.abort_handle());
    }

    async fn make(
        &self,
        key: &FunctionKey,
        made_from: &Served,
        image: &ImageName,
        log: Arc<super::log::LiveLog>,
    ) -> Result<ImageReference, BuildError> {
        let queue = if made_from.is_ready_made() {
            &self.pulls
        } else {
            &self.builds
        };
        let turn = queue.acquire().await;
        let _turn = turn.map_err(|error| BuildError::Engine(error.to_string()))?;
        tracing::info!(function = %key, %image, "Build begins");
        for key in self.images.begin(image, Timestamp::now()) {
            self.turns.request(&key);
        }
        if made_from.is_ready_made() {
            return self.ports.builder.pull(image, log).await;
        }
        let job =
            self.resolver
                .job(key, made_from)
                .await
                .map_err(|blocked| match blocked.reason {
                    Reason::SourceUnavailable => BuildError::Source(blocked.message),
                    _ => BuildError::Failed {
                        step: "reading the source".to_owned(),
                        message: blocked.message,
                    },
                })?;
        if job.image != *image {
            return Err(BuildError::Refused(
                "what served was made by another recipe than this server's, and its image is gone"
                    .to_owned(),
            ));
        }
        self.ports.builder.build(&job, log).await
    }
}

/// Whether instances of a revision are expected to exit after a call.
pub(super) fn may_exit(manners: Manners) -> bool {
    matches!(manners, Manners::Single | Manners::Unknown)
}
