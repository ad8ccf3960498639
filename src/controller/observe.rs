//! The first part of a turn: what the newest generation asks for and what is there, as the plan wants it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    Controller, View,
    entry::{Entry, Resolved},
    resolve::Served,
};
use crate::{
    builder::ImageName,
    crash::{self, Point},
    function::{Function, FunctionKey, Revision},
    plan::{Blocked, ImageState, Manners, Phase, Target, World, image::Desired},
    store::Fact,
};

impl Controller {
    /// Brings the memory of what the newest generation asks for up to date.
    pub(super) async fn resolve(&self, key: &FunctionKey, uid: &str, function: &Function) {
        let stamp = self.resolver.stamp(function).await;
        let now = Instant::now();
        let before = {
            let mut entries = self.entries();
            let entry = self.entry(&mut entries, key, uid);
            entry.turn.runs = true;
            let blocked = |(_, outcome): &Resolved| outcome.clone().err();
            let known = entry.resolved.as_ref().filter(|(s, _)| *s == stamp);
            let before = known.and_then(blocked);
            let is_due = |b: &Blocked| b.retry_at.is_some_and(|at| at <= now);
            if known.is_some() && !before.as_ref().is_some_and(is_due) {
                return;
            }
            before
        };
        let outcome = self.resolver.resolve(function).await.map(Arc::new);
        crash::point(Point::ContextDigested, key);
        let outcome = outcome.map_err(|blocked| blocked.after(before.as_ref(), now));
        let restored = self.restore(key, uid).await;
        let mut entries = self.entries();
        let entry = self.entry(&mut entries, key, uid);
        if entry.resolved.as_ref().is_some_and(|(s, _)| *s != stamp) {
            // An edit is a reason to try again.
            entry.failures.clear();
        }
        if let Some(restored) = restored {
            entry.serving = Some(Arc::new(restored));
            self.route(entry);
        }
        if let Ok(desired) = &outcome {
            entry.pool.set_patience(desired.startup_timeout);
        }
        entry.resolved = Some((stamp, outcome));
    }

    /// What served before a restart, so that it serves on while a newer generation is built, or is broken. Nothing where what
    /// serves is known, and can be started.
    async fn restore(&self, key: &FunctionKey, uid: &str) -> Option<Desired> {
        let is_whole = |entry: &Entry| entry.serving.as_ref().is_some_and(|s| s.target.startable);
        if self.entries().get(key).is_some_and(|entry| is_whole(entry)) {
            return None;
        }
        let served = self.served(key, uid).await?;
        let is_there = |image: &ImageName| self.images.is_ready(image);
        let restored = self.resolver.restore(key, &served, is_there).await?;
        if !restored.target.startable {
            let revision = &restored.target.revision;
            tracing::warn!(function = %key, %revision, "What served cannot be started again, as its secrets, or its source, are not there as they were; its instances that run answer");
        }
        Some(restored)
    }

    /// What the serving revision was made from.
    pub(super) async fn served(&self, key: &FunctionKey, uid: &str) -> Option<Served> {
        let record = match self.ports.store.served(key, uid).await {
            Ok(record) => record?,
            Err(error) => {
                tracing::error!(%uid, %error, "The revision that served before cannot be read");
                return None;
            }
        };
        serde_json::from_str(&record)
            .inspect_err(|error| {
                tracing::error!(function = %key, %error, "What served before is not understood by this version");
            })
            .ok()
    }

    /// What is there, as the plan wants it.
    pub(super) fn observe(&self, key: &FunctionKey) -> Option<(View, World)> {
        let engine = self.engine.borrow().away().map(str::to_owned);
        let entries = self.entries();
        let entry = entries.get(key)?;
        let hindrance = || {
            let mut failures = entry.failures.values();
            failures
                .find(|f| f.is_worth_waiting())
                .map(|f| f.message.clone())
        };
        let (instances, demand) = entry.instances();
        let starting = instances.iter().filter(|i| i.phase == Phase::Starting);
        let mut held_up = starting.filter_map(|i| self.ports.runtime.holds_up(&i.id));
        let held_up = held_up.next();
        let hindrance = engine.clone().or_else(hindrance);
        entry
            .pool
            .set_hindrance(hindrance.or_else(|| held_up.clone()));
        let (_, outcome) = entry.resolved.as_ref()?;
        let desired = outcome
            .as_ref()
            .map(|d| self.target(d))
            .map_err(Clone::clone);
        let serving = entry.serving.as_ref().map(|s| self.target(s));
        let newest = desired.as_ref().ok();
        let memory = entry
            .desired()
            .or(entry.serving.as_ref())
            .map_or(1, |d| d.limits.memory);
        let failure = |target: Option<&Target>| {
            target
                .and_then(|t| entry.failures.get(&t.revision))
                .cloned()
        };
        let names = [newest, serving.as_ref()].map(|target| target.map(|t| &t.image));
        let [image, serving_image] = self.images.want(names, key);
        let world = World {
            image: image.unwrap_or(ImageState::Missing),
            serving_image: serving_image.unwrap_or(ImageState::Missing),
            instances,
            proven: newest.is_some_and(|d| self.ports.store.knows(&d.revision, Fact::Proven)),
            proving_elsewhere: newest.is_some_and(|d| self.is_proving_elsewhere(&d.revision, key)),
            failure: failure(newest),
            serving_failure: failure(serving.as_ref()),
            demand,
            room: self.capacity.room(memory),
            pressure: self.pressure.load(Ordering::Relaxed),
        };
        Some((
            View {
                desired,
                serving,
                engine,
                held_up,
            },
            world,
        ))
    }

    /// A revision's numbers with what is known of its manners by now.
    pub(super) fn target(&self, desired: &Desired) -> Target {
        let mut target = desired.target.clone();
        target.manners = self.manners(&target);
        if target.manners == Manners::Single {
            target.concurrency = 1;
        }
        target
    }

    pub(super) fn manners(&self, target: &Target) -> Manners {
        let knows = |fact| self.ports.store.knows(&target.revision, fact);
        match target.manners {
            Manners::Unknown if knows(Fact::SingleCall) => Manners::Single,
            Manners::Unknown if knows(Fact::Stays) => Manners::Stays,
            manners => manners,
        }
    }

    fn is_proving_elsewhere(&self, revision: &Revision, key: &FunctionKey) -> bool {
        self.proving()
            .get(revision)
            .is_some_and(|prover| prover != key)
    }
}
