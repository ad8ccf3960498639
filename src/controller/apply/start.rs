//! The starts of instances, as a plan says, and what becomes of them.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::shares;
use crate::{
    controller::{
        Controller,
        entry::{Entry, Moving},
        rebuild,
    },
    crash::{self, Point},
    function::{FunctionKey, Revision, status::Reason},
    plan::{Failure, Phase, image::Desired},
    retry::BACKOFF,
    runtime::{InstanceId, InstanceSpec, Observed, RuntimeError},
    store::Fact,
};

/// How long a start keeps others waiting. One that takes longer waits for something else than this machine.
const TURN: Duration = Duration::from_secs(2);

impl Controller {
    pub(in crate::controller) fn start_all(
        self: &Arc<Self>,
        key: &FunctionKey,
        starts: &[(Revision, u32)],
    ) {
        for (revision, count) in starts {
            let there = self.entries().get(key).map_or(0, |e| e.count(revision));
            for _ in 0..*count {
                self.start(key, revision, shares::shares(there + *count as usize));
            }
        }
    }

    /// Begins an instance, if there is memory for it and nobody else tries its revision out at this moment.
    fn start(self: &Arc<Self>, key: &FunctionKey, revision: &Revision, cpu_shares: u32) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        let Some(desired) = entry.revision(revision).cloned() else {
            return;
        };
        if !desired.target.startable {
            return;
        }
        let id = new_id(key);
        if !self.capacity.take(&id, desired.limits.memory) {
            return;
        }
        if !self.claims_proof(key, revision) {
            self.capacity.give_back(&id);
            return;
        }
        let mut spec = instance_spec(key, entry, &desired, &id);
        spec.cpu_shares = cpu_shares;
        spec.image = self.images.reference(&desired.target.image);
        let object = self.ports.store.get(key);
        spec.declared = object.and_then(|object| rebuild::declared(&object));
        let (this, task_key) = (Arc::clone(self), key.clone());
        let task = self
            .tasks
            .spawn(async move { this.bring_up(task_key, spec).await });
        let moving = Moving {
            revision: revision.clone(),
            image: desired.target.image.clone(),
            phase: Phase::Starting,
            since: Instant::now(),
            task: Some(task.abort_handle()),
        };
        entry.cpu_shares.insert(id.clone(), cpu_shares);
        entry.moving.insert(id, moving);
    }

    /// Starts an instance and takes it into service, or notes why that failed.
    async fn bring_up(self: Arc<Self>, key: FunctionKey, spec: InstanceSpec) {
        let Ok(turn) = self.starts.acquire().await else {
            return;
        };
        let began = Instant::now();
        let mut start = pin!(self.ports.runtime.start(&spec));
        let outcome = if let Ok(outcome) = timeout(TURN, &mut start).await {
            outcome
        } else {
            drop(turn);
            start.await
        };
        match outcome {
            Ok(observed) => {
                crash::point(Point::InstanceReady, &key);
                self.metrics.start_took(began.elapsed());
                self.learn(&key, &spec.uid, &spec.revision, Fact::Proven)
                    .await;
                self.came_up(&key, observed);
                self.prove_isolation(&spec);
            }
            Err(error) => {
                tracing::warn!(function = %key, instance = %spec.id, %error, "Instance did not start");
                self.metrics.error(reason(&error).into());
                self.capacity.give_back(&spec.id);
                self.feed_starving();
                self.did_not_start(&key, &spec, &error);
            }
        }
        self.end_proof(&key, &spec.revision);
        self.turns.request(&key);
    }

    fn came_up(&self, key: &FunctionKey, observed: Observed) {
        tracing::info!(function = %key, instance = %observed.id, revision = %observed.revision, "Instance is ready");
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(key)
            && entry.moving.remove(&observed.id).is_some()
        {
            // Nothing has to be lived down that was the engine's.
            entry.failures.retain(|revision, failure| {
                *revision != observed.revision || !failure.is_the_engines()
            });
            entry
                .pool
                .add(observed.id, observed.revision, observed.address);
        }
    }

    fn did_not_start(&self, key: &FunctionKey, spec: &InstanceSpec, error: &RuntimeError) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        let moving = entry.moving.remove(&spec.id);
        if let (RuntimeError::ImageMissing(_), Some(moving)) = (error, moving) {
            // The next turn builds it again.
            drop(self.images.lost(&moving.image));
            return;
        }
        let now = Instant::now();
        let failure = Failure {
            reason: reason(error),
            message: error.to_string(),
            attempts: 0,
            retry_at: BACKOFF.next(1, now),
            crash: None,
        };
        entry.failed(&spec.revision, failure, now);
    }
}

/// `faas-<function>-<12 hex digits>`.
fn new_id(key: &FunctionKey) -> InstanceId {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("faas-{}-{}", key.name(), &random[..12])
}

fn instance_spec(
    key: &FunctionKey,
    entry: &Entry,
    desired: &Desired,
    id: &InstanceId,
) -> InstanceSpec {
    InstanceSpec {
        id: id.clone(),
        function: key.clone(),
        uid: entry.uid.clone(),
        revision: desired.target.revision.clone(),
        image: desired.target.image.clone(),
        ready_made: desired.ready_made,
        env: desired.env.clone(),
        secrets: desired.secrets.clone(),
        limits: desired.limits.clone(),
        cpu_shares: shares::shares(1),
        network: desired.network,
        startup_timeout: desired.startup_timeout,
        timeout: desired.timeout,
        declared: None,
    }
}

/// The reason of a failed start.
fn reason(error: &RuntimeError) -> Reason {
    match error {
        RuntimeError::Exited {
            out_of_memory: true,
            ..
        } => Reason::OomKilled,
        RuntimeError::Exited { .. } | RuntimeError::NotRunnable(_) => Reason::StartFailed,
        RuntimeError::NotListening { .. } => Reason::StartTimeout,
        RuntimeError::ImageMissing(_) => Reason::ImageNotFound,
        RuntimeError::Refused(_) => Reason::NetworkRefused,
        RuntimeError::Engine(_) | RuntimeError::EngineFailed(_) | RuntimeError::Cluster(_) => {
            Reason::EngineUnavailable
        }
        RuntimeError::Pull { .. } => Reason::PullFailed,
        RuntimeError::NoRoom(_) => Reason::NoCapacity,
        RuntimeError::NoSpace(_) => Reason::NoSpace,
    }
}
