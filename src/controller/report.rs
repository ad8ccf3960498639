//! The last part of a turn: the status, and an event where readiness changed.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;

use super::{Controller, TurnError, View, resolve::is_understood};
use crate::{
    crash::{self, Point},
    function::{Function, FunctionKey, FunctionStatus, crd},
    plan::{self, report},
    runtime::{InstanceSpec, Isolation, Network},
    store::{EventRecord, EventType, FINALIZER},
};

impl Controller {
    /// Writes the status, if it differs.
    pub(super) async fn report(
        &self,
        key: &FunctionKey,
        function: &Function,
        plan: &plan::Plan,
        view: &View,
    ) -> Result<(), TurnError> {
        let uid = function.metadata.uid.as_deref().unwrap_or_default();
        let Some((now, world)) = self.observe(key) else {
            return Ok(());
        };
        let image = view.desired.as_ref().ok().map(|d| &d.image);
        let report = report::Report {
            key,
            generation: function.metadata.generation.unwrap_or_default(),
            desired: view.desired.as_ref(),
            serving: view.serving.as_ref(),
            url: format!("{}/functions/{}", self.base_url, key.url_segment()),
            last_build: image.and_then(|image| self.images.last_build(image)),
            unmade: image.and_then(|image| self.images.last_failure(image)),
            engine: view.engine.as_deref(),
            isolation: (is_understood(function) && function.spec.network == crd::Network::None)
                .then(|| self.ports.runtime.isolation(key.namespace())),
            unkept: self.ports.runtime.unkept(),
            held_up: now.held_up.as_deref(),
            starved: plan.starved.then(|| self.shortage(key)),
        };
        let previous = self
            .ports
            .store
            .get(key)
            .and_then(|f| f.status.clone())
            .unwrap_or_default();
        let status = report::status(&report, &world, &previous, Timestamp::now());
        // An event told of a crash when it came.
        let crash = world.failure.as_ref().filter(|f| f.crash.is_some());
        if let Some(event) = news(&previous, &status)
            && crash.is_none_or(|crash| crash.message != event.message)
        {
            self.ports.store.record(key, uid, event).await?;
        }
        if self.ports.store.write_status(key, uid, status).await? {
            crash::point(Point::StatusWritten, key);
        }
        Ok(())
    }

    /// Says of a Function that is being deleted, and was changed since or is held by others, that it ends and a change with it.
    pub(super) async fn report_end(
        &self,
        key: &FunctionKey,
        function: &Function,
        instances: usize,
    ) -> Result<(), TurnError> {
        let uid = function.metadata.uid.as_deref().unwrap_or_default();
        let previous = self.ports.store.get(key).and_then(|f| f.status.clone());
        let previous = previous.unwrap_or_default();
        let generation = function.metadata.generation.unwrap_or_default();
        // The deletion itself counts as one change in a cluster.
        let known = previous.observed_generation.unwrap_or_default() + 1;
        if generation <= known && !is_held(function) {
            return Ok(());
        }
        let status = report::end(&previous, generation, instances, Timestamp::now());
        self.ports.store.write_status(key, uid, status).await?;
        Ok(())
    }

    /// Finds out whether somebody sees to it that the instances without a network in this one's namespace have none.
    pub(super) fn prove_isolation(self: &Arc<Self>, spec: &InstanceSpec) {
        let isolation = self.ports.runtime.isolation(spec.function.namespace());
        if spec.network != Network::None || isolation != Isolation::Unproven {
            return;
        }
        let (this, spec) = (Arc::clone(self), spec.clone());
        tokio::spawn(async move {
            if this.ports.runtime.prove_isolation(&spec).await {
                this.turn_all();
            }
        });
    }

    fn shortage(&self, key: &FunctionKey) -> report::Shortage {
        let entries = self.entries();
        let desired = entries.get(key).and_then(|entry| entry.desired());
        report::Shortage {
            needed: desired.map_or(0, |d| d.limits.memory),
            bound: self.capacity.limit(),
        }
    }
}

/// Whether somebody else keeps the object from going.
pub(super) fn is_held(function: &Function) -> bool {
    function.finalizers().iter().any(|other| other != FINALIZER)
}

/// What changed about a Function's readiness.
fn news(previous: &FunctionStatus, status: &FunctionStatus) -> Option<EventRecord> {
    let ready = |s: &FunctionStatus| s.conditions.iter().find(|c| c.type_ == "Ready").cloned();
    let (before, after) = (ready(previous), ready(status)?);
    if before.is_some_and(|b| b.reason == after.reason && b.message == after.message) {
        return None;
    }
    let kind = if after.status == "False" {
        EventType::Warning
    } else {
        EventType::Normal
    };
    let now = Timestamp::now();
    Some(EventRecord::new(kind, &after.reason, after.message, now))
}
