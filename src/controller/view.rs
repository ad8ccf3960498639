//! The controller's memory for people and programs: nothing here changes anything.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use futures::StreamExt;
use kube::runtime::watcher::Event;

use super::{
    Controller,
    engine::Engine,
    entry::{Entry, Turn},
    log::LiveLog,
};
use crate::{
    function::{Function, FunctionKey, Revision},
    plan::{Failure, Instance},
    telemetry::Snapshot,
};

/// The loop at one moment.
#[derive(Debug)]
pub struct Status {
    /// Functions whose turn was asked for and has not begun.
    pub queue: usize,
    /// Builds that run.
    pub building: usize,
    /// Builds that wait until others have ended.
    pub queued: usize,
    /// Why the engine does not answer, if it does not.
    pub unreachable: Option<String>,
    pub functions: Vec<Seen>,
}

/// One Function at that moment. The object is shared with the store: a list of a thousand costs little.
#[derive(Debug)]
pub struct Seen {
    pub function: Arc<Function>,
    pub turn: Turn,
    /// Of builds and of starts.
    pub failures: Vec<(Revision, Failure)>,
    /// Why the newest generation cannot be made out, and how often that was tried.
    pub blocked: Option<(String, u32)>,
    pub instances: Vec<Instance>,
}

impl Controller {
    /// How many turns a Function has had.
    pub fn turns_of(&self, key: &FunctionKey) -> u64 {
        self.entries().get(key).map_or(0, |entry| entry.turn.count)
    }

    /// Forgets a Function's failures and looks at it again, because somebody asked for it. Answers how many turns it will
    /// have had before that: one that goes on now may have seen what was before.
    pub fn retry(&self, key: &FunctionKey) -> u64 {
        let (image, turns) = match self.entries().get_mut(key) {
            Some(entry) => {
                entry.failures.clear();
                if let Some((_, Err(blocked))) = &mut entry.resolved {
                    // The source that could not be had may be there now.
                    blocked.retry_at = Some(Instant::now());
                }
                let image = entry.desired().map(|d| d.target.image.clone());
                (image, entry.turn.count + u64::from(entry.turn.runs))
            }
            None => (None, 0),
        };
        if let Some(image) = image {
            self.images.retry(&image);
        }
        self.turns.request(key);
        turns
    }

    /// Waits until `decide`, shown the object and how many turns it has had, decides; nothing when the object goes.
    pub async fn until<T>(
        &self,
        key: &FunctionKey,
        decide: impl Fn(&Function, u64) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.ports.store.watch();
        let mut turned = self.turned.subscribe();
        loop {
            turned.borrow_and_update();
            let function = self.ports.store.get(key)?;
            if let Some(decision) = decide(&function, self.turns_of(key)) {
                return Some(decision);
            }
            tokio::select! {
                event = changes.next() => if matches!(event, None | Some(Event::Delete(_))) {
                    self.ports.store.get(key)?;
                },
                _ = turned.changed() => {}
            }
        }
    }

    /// The log of the last build of what a Function asks for.
    pub fn build_log(&self, key: &FunctionKey) -> Option<Arc<LiveLog>> {
        let image = self.entries().get(key)?.desired()?.target.image.clone();
        self.images.log(&image)
    }

    /// Waits until it is known which Functions there are and what runs.
    pub async fn knows(&self) {
        self.pools.complete().await;
        let mut engine = self.engine.subscribe();
        // Fails only if the sender is gone, and we hold it.
        let _ = engine.wait_for(|engine| *engine == Engine::Here).await;
    }

    /// What `/status` says of the loop.
    pub fn status(&self) -> Status {
        let functions = {
            let entries = self.entries();
            let seen = |function: Arc<Function>| {
                let key = FunctionKey::try_from(&*function).ok()?;
                Some(self.seen(function, entries.get(&key).map(|entry| &**entry)))
            };
            self.ports
                .store
                .list()
                .into_iter()
                .filter_map(seen)
                .collect()
        };
        Status {
            queue: self.turns.depth(),
            building: self.images.building(),
            queued: self.images.queued(),
            unreachable: self.engine().away().map(str::to_owned),
            functions,
        }
    }

    /// What `/metrics` counts afresh.
    pub fn snapshot(&self) -> Snapshot {
        let mut instances: BTreeMap<&'static str, usize> = [
            "starting",
            "ready",
            "probation",
            "leaving",
            "draining",
            "broken",
            "condemned",
            "stopping",
        ]
        .map(|state| (state, 0))
        .into();
        let mut waiting = 0;
        let entries = self.entries();
        for entry in entries.values() {
            let (present, demand) = entry.instances();
            waiting += demand.waiting;
            for instance in present {
                *instances.entry(instance.phase.into()).or_default() += 1;
            }
        }
        Snapshot {
            functions: entries.len(),
            waiting,
            instances: instances.into_iter().collect(),
            builds_running: self.images.building(),
            queue: self.turns.depth(),
            engine_up: self.engine().away().is_none(),
        }
    }

    /// `entry` is what is remembered of it, if its first turn has come.
    fn seen(&self, function: Arc<Function>, entry: Option<&Entry>) -> Seen {
        let failures = entry.map(|e| e.failures.clone()).unwrap_or_default();
        let of_build = entry.and_then(Entry::desired).and_then(|desired| {
            let failure = self.images.failure(&desired.target.image)?;
            Some((desired.target.revision.clone(), failure))
        });
        let blocked = entry.and_then(|entry| entry.resolved.as_ref()?.1.as_ref().err());
        Seen {
            function,
            turn: entry.map(|e| e.turn.clone()).unwrap_or_default(),
            failures: failures.into_iter().chain(of_build).collect(),
            blocked: blocked.map(|blocked| (blocked.message.clone(), blocked.attempts)),
            instances: entry.map(|e| e.instances().0).unwrap_or_default(),
        }
    }
}
