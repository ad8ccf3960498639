//! The controller's memory for people and programs: nothing here changes anything.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use async_stream::stream;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::SelectAll};
use kube::runtime::watcher::Event;

use super::{
    Controller,
    engine::Engine,
    entry::{Entry, Turn},
    log::LiveLog,
};
use crate::{
    function::{Function, FunctionKey, Revision},
    plan::{Failure, Instance, Phase},
    runtime::{InstanceId, LogPiece},
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
    pub failures: Vec<(Revision, Failure)>,
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

    /// What the instances of a Function write, after what the last of those that are gone wrote. With `follow` it goes on until the Function is deleted or the engine is lost,
    /// and instances that come later are heard too.
    pub fn logs(
        self: &Arc<Self>,
        key: FunctionKey,
        tail: u32,
        follow: bool,
    ) -> impl Stream<Item = Bytes> + Send + 'static {
        let this = Arc::clone(self);
        stream! {
            let mut heard: Vec<InstanceId> = Vec::new();
            let mut pieces: SelectAll<futures::stream::BoxStream<'static, LogPiece>> = SelectAll::new();
            let mut turned = this.turned.subscribe();
            loop {
                for (id, text) in this.last_words_of(&key, tail) {
                    if !heard.contains(&id) {
                        heard.push(id);
                        yield text;
                    }
                }
                for id in this.instances_of(&key) {
                    if heard.contains(&id) {
                        continue;
                    }
                    if let Ok(log) = this.ports.runtime.logs(&id, tail, follow).await {
                        pieces.push(log);
                        heard.push(id);
                    }
                }
                if !follow {
                    while let Some(piece) = pieces.next().await {
                        yield piece.bytes;
                    }
                    return;
                }
                tokio::select! {
                    Some(piece) = pieces.next() => yield piece.bytes,
                    changed = turned.changed() => {
                        // The engine's log has ended with it: silence would look like a function that says nothing.
                        let lost = matches!(this.engine(), Engine::Away(_));
                        if lost || changed.is_err() || this.ports.store.get(&key).is_none() {
                            return;
                        }
                    }
                }
            }
        }
    }

    fn last_words_of(&self, key: &FunctionKey, tail: u32) -> Vec<(InstanceId, Bytes)> {
        let entries = self.entries();
        let words = entries.get(key).map(|entry| entry.last_words.read(tail));
        words.into_iter().flatten().collect()
    }

    fn instances_of(&self, key: &FunctionKey) -> Vec<InstanceId> {
        let entries = self.entries();
        let Some(entry) = entries.get(key) else {
            return Vec::new();
        };
        let there = entry
            .instances()
            .0
            .into_iter()
            .filter(|i| !matches!(i.phase, Phase::Starting));
        there.map(|i| i.id).collect()
    }

    /// What `/status` says of the loop.
    pub fn status(&self) -> Status {
        let functions = {
            let entries = self.entries();
            let seen = |function: Arc<Function>| {
                let key = FunctionKey::try_from(&*function).ok()?;
                Some(Seen::new(function, entries.get(&key)))
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
            let (present, waits, _) = entry.instances();
            waiting += waits;
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
}

impl Seen {
    /// `entry` is what the controller remembers of it, if its first turn has come.
    fn new(function: Arc<Function>, entry: Option<&Entry>) -> Self {
        let failures = entry.map(|e| e.failures.clone()).unwrap_or_default();
        Self {
            function,
            turn: entry.map(|e| e.turn.clone()).unwrap_or_default(),
            failures: failures.into_iter().collect(),
            instances: entry.map(|e| e.instances().0).unwrap_or_default(),
        }
    }
}
