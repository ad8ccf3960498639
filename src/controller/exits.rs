//! Instances that end by themselves: a single-call program has done its work, another one has crashed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{Controller, apply::may_exit};
use crate::{
    function::{Revision, status::Reason},
    plan::{Crash, Failure, Manners, Phase},
    pool::{self, slots::Removed},
    runtime::{End, Exit},
    store::{EventRecord, EventType, Fact},
};

impl Controller {
    /// An instance has ended by itself.
    pub(super) async fn exited(self: &Arc<Self>, exit: Exit) {
        let Some(pool) = self
            .pools
            .get(exit.function.namespace(), exit.function.name())
        else {
            return;
        };
        if exit.end == End::Leaving {
            tracing::info!(function = %exit.function, instance = %exit.id, "Instance was told to end by somebody else");
            pool.condemn(&exit.id);
            self.turns.request(&exit.function);
            return;
        }
        // Also of one that was given up already, when the call that it had broke off.
        if exit.end == End::OutOfMemory {
            tracing::warn!(function = %exit.function, instance = %exit.id, "Instance ran out of memory; see spec.resources.memory");
            self.metrics.error(Reason::OomKilled.into());
        }
        let Some(removed) = pool.remove(&exit.id) else {
            return;
        };
        if exit.end == End::Paused {
            tracing::info!(function = %exit.function, instance = %exit.id, "Instance was paused by somebody, and is ended");
        } else {
            tracing::info!(function = %exit.function, instance = %exit.id, code = exit.code, "Instance exited");
        }
        removed.instance.gone.cancel();
        let is_good = self.judge(&exit, &removed).await;
        self.turns.request(&exit.function);
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let log = this.end(&exit.id, Duration::ZERO).await;
            let is_news = !is_good || !log.is_empty();
            if let Some(entry) = this.entries().get_mut(&exit.function)
                && is_news
            {
                entry.last_words.exited(&exit, &log, Timestamp::now());
            }
        });
    }

    /// Learns from a good end, and notes a bad one. Answers whether it was good.
    async fn judge(&self, exit: &Exit, removed: &Removed<pool::Instance>) -> bool {
        let revision = &removed.instance.revision;
        let known = {
            let entries = self.entries();
            let entry = entries.get(&exit.function);
            entry.and_then(|e| Some((e.uid.clone(), self.manners(&e.revision(revision)?.target))))
        };
        let Some((uid, manners)) = known else {
            return true;
        };
        let is_own = exit.end == End::Itself;
        if may_exit(manners) && is_own && exit.code == 0 && (removed.answered || removed.busy) {
            // The engine's word may come before the answer does; that alone teaches nothing.
            if removed.answered {
                self.learn(&exit.function, &uid, revision, Fact::SingleCall)
                    .await;
            }
            if let Some(entry) = self.entries().get(&exit.function) {
                self.route(entry);
            }
            return removed.answered || manners == Manners::Single;
        }
        let expected = matches!(
            removed.phase,
            Phase::Leaving(_) | Phase::Draining | Phase::Condemned
        );
        // Who ends it through the engine says nothing against the revision.
        let is_fault = match exit.end {
            End::Itself => !expected,
            End::OutOfMemory => true,
            End::Engine | End::Paused | End::Leaving => false,
        };
        if is_fault {
            let in_call = removed.busy || matches!(removed.phase, Phase::Broken(_));
            let crash = if in_call { Crash::InCall } else { Crash::Idle };
            self.crashed(exit, revision, crash).await;
        }
        !is_fault
    }

    /// Notes a crash where people look for it, and for the next plan.
    async fn crashed(&self, exit: &Exit, revision: &Revision, crash: Crash) {
        let reason = if exit.end == End::OutOfMemory {
            Reason::OomKilled
        } else {
            self.metrics.error(Reason::CrashLoop.into());
            Reason::CrashLoop
        };
        let now = Instant::now();
        let message = exit.to_string();
        let failure = Failure {
            reason,
            message: message.clone(),
            attempts: 0,
            retry_at: Some(now),
            crash: Some(crash),
        };
        let uid = match self.entries().get_mut(&exit.function) {
            Some(entry) => {
                entry.crashed(revision, failure, now);
                entry.uid.clone()
            }
            None => return,
        };
        let event = EventRecord::new(EventType::Warning, reason.into(), message, Timestamp::now());
        if let Err(error) = self.ports.store.record(&exit.function, &uid, event).await {
            tracing::warn!(function = %exit.function, %error, "A crash could not be recorded as an event");
        }
    }
}
