//! What a store answers at once: the objects, the facts about revisions, and who watches. It changes only after the disk, or
//! the API server, has; its lock is held for moments and never across an await or a disk access.

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

/// Objects by key.
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

    /// Takes a version unless this or a later one is known; versions of one server are numbers that grow. Of an object that
    /// is not there it is taken only where that `may_be_new`: else it has gone meanwhile.
    pub fn put_newer(&self, key: FunctionKey, function: Arc<Function>, may_be_new: bool) {
        let mut content = self.write();
        let is_news = match content.objects.get(&key) {
            Some(known) => version(known) < version(&function),
            None => may_be_new,
        };
        if is_news {
            content.publish(&Event::Apply(Arc::clone(&function).into()));
            content.objects.insert(key, function);
        }
    }

    /// What a whole list of some place did not name has gone.
    pub fn keep_only(
        &self,
        listed: &BTreeSet<FunctionKey>,
        is_there: impl Fn(&FunctionKey) -> bool,
    ) {
        let mut content = self.write();
        let objects = std::mem::take(&mut content.objects);
        let (kept, gone) = objects
            .into_iter()
            .partition(|(key, _)| listed.contains(key) || !is_there(key));
        content.objects = kept;
        for last in Objects::into_values(gone) {
            content.publish(&Event::Delete(last.into()));
        }
    }

    pub fn remove(&self, key: &FunctionKey, last: Function) {
        let mut content = self.write();
        content.publish(&Event::Delete(Arc::new(last).into()));
        content.objects.remove(key);
    }

    pub fn knows(&self, revision: &Revision, fact: Fact) -> bool {
        self.read().facts.contains(&(fact, revision.clone()))
    }

    /// All that is known of one.
    pub fn facts_of(&self, revision: &Revision) -> Vec<Fact> {
        let content = self.read();
        let its = content.facts.iter().filter(|(_, known)| known == revision);
        its.map(|(fact, _)| *fact).collect()
    }

    /// The revisions of which a fact is known.
    pub fn known(&self, fact: Fact) -> BTreeSet<Revision> {
        let content = self.read();
        let its = content.facts.iter().filter(|(known, _)| *known == fact);
        its.map(|(_, revision)| revision.clone()).collect()
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

/// 0 for what is no version.
fn version(function: &Function) -> u64 {
    let version = function.metadata.resource_version.as_ref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

impl Content {
    /// Tells every watcher, and drops those that have left.
    fn publish(&mut self, event: &Event<Object>) {
        self.watchers
            .retain(|watcher| watcher.send(event.clone()).is_ok());
    }
}
