//! What the store answers without the disk: the objects, the facts about revisions, and who watches. It changes only
//! after the disk has, by the one writer; its lock is held for moments and never across an await or a disk access.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use kube::runtime::watcher::Event;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    function::{Function, FunctionKey, Revision},
    store::{Fact, Object},
};

/// Objects by key, as they are on the disk.
pub type Objects = BTreeMap<FunctionKey, Arc<Function>>;

#[derive(Default)]
pub struct Memory(RwLock<Content>);

#[derive(Default)]
struct Content {
    objects: Objects,
    facts: BTreeSet<(Fact, Revision)>,
    watchers: Vec<UnboundedSender<Event<Object>>>,
}

impl Memory {
    pub fn new(objects: Objects, facts: BTreeSet<(Fact, Revision)>) -> Self {
        Self(RwLock::new(Content {
            objects,
            facts,
            watchers: Vec::new(),
        }))
    }

    pub fn get(&self, key: &FunctionKey) -> Option<Arc<Function>> {
        self.read().objects.get(key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<Function>> {
        self.read().objects.values().cloned().collect()
    }

    /// What there is, and then every change in order. Both are taken under one lock, so nothing falls between them.
    pub fn watch(&self) -> UnboundedReceiver<Event<Object>> {
        let (sender, receiver) = unbounded_channel();
        let mut content = self.write();
        let present = content
            .objects
            .values()
            .map(|object| Event::InitApply(Arc::clone(object).into()));
        for event in [Event::Init]
            .into_iter()
            .chain(present)
            .chain([Event::InitDone])
        {
            // The receiver is still here, so this cannot fail.
            let _ = sender.send(event);
        }
        content.watchers.push(sender);
        receiver
    }

    pub fn put(&self, key: FunctionKey, function: Arc<Function>) {
        let mut content = self.write();
        content.publish(&Event::Apply(Arc::clone(&function).into()));
        content.objects.insert(key, function);
    }

    pub fn remove(&self, key: &FunctionKey, last: Function) {
        let mut content = self.write();
        content.publish(&Event::Delete(Arc::new(last).into()));
        content.objects.remove(key);
    }

    pub fn knows(&self, revision: &Revision, fact: Fact) -> bool {
        self.read().facts.contains(&(fact, revision.clone()))
    }

    pub fn facts(&self) -> Vec<(Fact, Revision)> {
        self.read().facts.iter().cloned().collect()
    }

    pub fn learn(&self, revision: Revision, fact: Fact) {
        self.write().facts.insert((fact, revision));
    }

    pub fn forget(&self, revisions: &[Revision]) {
        self.write()
            .facts
            .retain(|(_, revision)| !revisions.contains(revision));
    }

    // A panic cannot leave the content half changed: every change above is its last step.
    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    /// Tells every watcher, and drops those that have left.
    fn publish(&mut self, event: &Event<Object>) {
        self.watchers
            .retain(|watcher| watcher.send(event.clone()).is_ok());
    }
}
