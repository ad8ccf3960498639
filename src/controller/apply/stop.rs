//! The ends of instances: as a plan says, all of a Function's when it is deleted, and all of them when the server ends.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use jiff::Timestamp;
use kube::runtime::controller::Action;
use tokio::task::AbortHandle;

use crate::{
    controller::{
        Controller, TurnError,
        entry::{Entry, Moving},
        report::is_held,
    },
    crash::{self, Point},
    function::{Function, FunctionKey, status::Reason},
    plan::{self, Phase, Stop, World},
    retry::BACKOFF,
    runtime::InstanceId,
};

/// Between TERM and KILL for an instance that has no call any more.
const GRACE: Duration = Duration::from_secs(2);
/// How long a server that ends waits for what it has begun.
const LEAVE: Duration = Duration::from_secs(10);

impl Controller {
    /// A Function that is being deleted: its calls end, its instances go, then the object.
    pub(in crate::controller) async fn dismantle(
        self: &Arc<Self>,
        key: &FunctionKey,
        uid: &str,
        function: &Function,
    ) -> Result<Action, TurnError> {
        let instances = match self.entries().get_mut(key) {
            // One of the same name has come since.
            Some(entry) if entry.uid != uid => return Ok(Action::await_change()),
            Some(entry) => {
                entry.pool.serve(None);
                entry.instances().0
            }
            None => Vec::new(),
        };
        self.images.forget(key);
        self.starve(key, false);
        self.pools.remove(key);
        if instances.is_empty() {
            crash::point(Point::Deleting, key);
            self.ports.store.finalize(key, uid).await?;
            if is_held(function) {
                self.report_end(key, function, 0).await?;
            }
            return Ok(Action::await_change());
        }
        crash::point(Point::Draining, key);
        let left = instances.len();
        let world = World {
            instances,
            ..World::empty()
        };
        self.stop_all(key, &plan::dismantle(&world).stop);
        self.report_end(key, function, left).await?;
        Ok(Action::await_change())
    }

    /// Ends what a Function had that went without a turn of its own, once its calls are over. Most often that goes with the
    /// object; but not where its dependents are to stay (`--cascade=orphan`), and nobody could call them.
    pub(in crate::controller) fn leave_behind(&self, entry: &Entry) {
        let desired = [entry.desired(), entry.serving.as_ref()].into_iter();
        let timeout = desired.flatten().map(|desired| desired.timeout).max();
        let grace = timeout.unwrap_or_default() + GRACE;
        for instance in entry.instances().0 {
            let runtime = Arc::clone(&self.ports.runtime);
            tokio::spawn(async move {
                if let Err(error) = runtime.stop(&instance.id, grace).await {
                    tracing::warn!(instance = %instance.id, %error, "What a Function had stays behind it");
                }
            });
        }
    }

    /// Ends instances as the plan says.
    pub(in crate::controller) fn stop_all(self: &Arc<Self>, key: &FunctionKey, stops: &[Stop]) {
        for stop in stops {
            match stop {
                Stop::WhenIdle(id) => {
                    let idle = self.entries().get(key).is_some_and(|e| e.pool.retire(id));
                    if idle {
                        self.stop(key, id, GRACE);
                    }
                }
                Stop::Drained(id) => self.stop(key, id, GRACE),
                Stop::Kill(id) => self.stop(key, id, Duration::ZERO),
            }
        }
    }

    /// Takes an instance out of service and ends it, trying until the engine has confirmed.
    pub(in crate::controller) fn stop(
        self: &Arc<Self>,
        key: &FunctionKey,
        id: &InstanceId,
        grace: Duration,
    ) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        let starting = entry.moving.remove(id);
        if let Some(task) = starting.as_ref().and_then(|m| m.task.as_ref()) {
            task.abort();
        }
        let removed = entry.pool.remove(id);
        let known = removed
            .as_ref()
            .map(|r| r.instance.revision.clone())
            .or_else(|| starting.map(|m| m.revision));
        let Some(revision) = known else { return };
        let image = entry
            .revision(&revision)
            .map(|d| d.target.image.clone())
            .unwrap_or_default();
        let since = Instant::now();
        let moving = Moving {
            revision: revision.clone(),
            image,
            phase: Phase::Stopping,
            since,
            task: None,
        };
        entry.moving.insert(id.clone(), moving);
        drop(entries);
        self.end_proof(key, &revision);
        let (this, key, id) = (Arc::clone(self), key.clone(), id.clone());
        self.tasks.spawn(async move {
            crash::point(Point::Stopping, &key);
            let log = this.end(&id, grace).await;
            if let Some(removed) = removed {
                removed.instance.gone.cancel();
            }
            if let Some(entry) = this.entries().get_mut(&key) {
                entry.moving.remove(&id);
                entry.last_words.ended(&id, &log, Timestamp::now());
            }
            this.turns.request(&key);
        });
    }

    /// Ends an instance of whoever it is. Comes back when the engine has confirmed, with the end of its log.
    pub(in crate::controller) async fn end(&self, id: &InstanceId, grace: Duration) -> Bytes {
        let mut attempts = 0;
        let log = loop {
            let error = match self.ports.runtime.stop(id, grace).await {
                Ok(log) => break log,
                Err(error) => error,
            };
            attempts += 1;
            self.metrics.error(Reason::CleanupFailed.into());
            tracing::warn!(instance = %id, %error, attempts, "Instance could not be ended; trying again");
            let now = Instant::now();
            let at = BACKOFF.next(attempts, now).unwrap_or(now);
            tokio::time::sleep_until(at.into()).await;
        };
        self.capacity.give_back(id);
        self.feed_starving();
        tracing::info!(instance = %id, "Instance is gone");
        log
    }

    /// The server ends at once. Says whether instances live on.
    pub async fn abandon(&self) -> bool {
        self.leaving.store(true, Ordering::Relaxed);
        self.ports.runtime.abandon().await
    }

    /// The server ends, and with it all instances and what only a running server needs. What is not gone in time is
    /// adopted or ended at the next start.
    pub async fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        for entry in self.entries().values() {
            entry
                .moving
                .values()
                .filter_map(|m| m.task.as_ref())
                .for_each(AbortHandle::abort);
        }
        self.images.abandon();
        self.tasks.close();
        let _ = tokio::time::timeout(LEAVE, self.tasks.wait()).await;
        if !self.ports.runtime.lives_on() {
            self.stop_everything().await;
        }
        let _ = tokio::time::timeout(LEAVE, self.ports.builder.leave()).await;
        self.ports.runtime.leave().await;
    }

    async fn stop_everything(&self) {
        let left = self.ports.runtime.observe().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "Instances stay until the next start");
            Vec::new()
        });
        let stops = left
            .iter()
            .map(|instance| self.ports.runtime.stop(&instance.id, GRACE));
        for error in join_all(stops).await.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "Instance could not be ended");
        }
        // Their exits were noticed, and whoever noticed one may be removing what is left of it.
        let _ = tokio::time::timeout(LEAVE, self.tasks.wait()).await;
    }
}
