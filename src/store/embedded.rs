//! The store of one machine: Functions as versioned JSON objects in a SQLite file, with the manners of an API server.
//!
//! A write goes to the disk first (`file`), then to memory (`memory`), then to every watcher, by one writer at a time.
//! Reads and watches never touch the disk. What a write does to an object's metadata is decided in `edit`.

mod edit;
mod file;
mod salvage;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use kube::runtime::watcher::Event;
use tokio::sync::Mutex;
use tokio_stream::wrappers::UnboundedReceiverStream;
use uuid::Uuid;

use self::file::{Durability, File};
use self::salvage::Lost;
pub use self::salvage::find_owner;
use super::{
    Applied, EventRecord, Fact, Manager, Object, Store, StoreError, memory::Memory, state,
};
use crate::{
    blocking,
    function::{Function, FunctionKey, FunctionStatus, Revision},
};

/// The store. Every write waits for those before it.
pub struct EmbeddedStore {
    memory: Arc<Memory>,
    /// It was damaged, and not all could be read.
    lost: Option<Lost>,
    writer: Arc<Mutex<Writer>>,
}

/// The only one that changes the file and the memory.
struct Writer {
    file: File,
    memory: Arc<Memory>,
}

impl EmbeddedStore {
    /// Opens the store `store.db` in the state directory, or makes it; a damaged one, and one without content, is set aside,
    /// and a new one made of what can be read. Blocks; hold the directory's lock ([`state::lock`]) before and as long as the
    /// store is used.
    ///
    /// # Errors
    ///
    /// A file of a newer format, by name; whatever the file system says.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        Self::open_or_rebuild(state_dir, false)
    }

    /// The same where a store must be: one that is gone was damaged like another.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_again(state_dir: &Path) -> Result<Self, StoreError> {
        Self::open_or_rebuild(state_dir, true)
    }

    fn open_or_rebuild(state_dir: &Path, must_be_there: bool) -> Result<Self, StoreError> {
        state::make_private(state_dir)?;
        let path = state_dir.join(state::STORE);
        let read = |file: File| {
            let memory = Memory::new(file.objects()?, file.facts()?);
            Ok((file, Arc::new(memory)))
        };
        let opened = match salvage::without_content(&path, must_be_there) {
            Some(damage) => Err(damage),
            None => File::open(&path).and_then(read),
        };
        let mut is_whole = true;
        let (file, memory) = match opened {
            Err(damage @ StoreError::Damaged { .. }) => {
                let (file, complete) = salvage::rebuild(state_dir, &damage)?;
                is_whole = complete;
                read(file)
            }
            whole => whole,
        }?;
        let writer = Writer {
            file,
            memory: Arc::clone(&memory),
        };
        Ok(Self {
            lost: (!is_whole).then(|| Lost::beside(&memory.list())),
            memory,
            writer: Arc::new(Mutex::new(writer)),
        })
    }

    /// Runs `work` on a thread that may block, after those who asked before. The guard goes with the work, so no lock is
    /// held by a future.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut writer = Arc::clone(&self.writer).lock_owned().await;
        blocking::run(move || work(&mut writer)).await
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn ready(&self) {
        if let Some(lost) = &self.lost {
            lost.told.cancelled().await;
        }
    }

    fn directories_are_read(&self) {
        if let Some(lost) = &self.lost {
            lost.told.cancel();
        }
    }

    fn has_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Every object is held from its creation on.
    async fn hold(&self, _key: &FunctionKey, _uid: &str) -> Result<(), StoreError> {
        Ok(())
    }

    fn get(&self, key: &FunctionKey) -> Option<Arc<Function>> {
        self.memory.get(key)
    }

    fn list(&self) -> Vec<Arc<Function>> {
        self.memory.list()
    }

    fn watch(&self) -> BoxStream<'static, Event<Object>> {
        UnboundedReceiverStream::new(self.memory.watch()).boxed()
    }

    async fn apply(
        &self,
        function: Function,
        manager: &Manager,
        now: Timestamp,
    ) -> Result<(Applied, Arc<Function>), StoreError> {
        let manager = manager.clone();
        self.write(move |writer| writer.apply(function, &manager, now))
            .await
    }

    async fn take_back(&self, function: Function) -> Result<bool, StoreError> {
        if !self.has_lost() {
            return Ok(false);
        }
        self.write(move |writer| writer.take_back(function)).await
    }

    async fn give_back(&self, key: &FunctionKey, uid: &str) -> Result<bool, StoreError> {
        let lost = self.lost.as_ref();
        if lost.is_none_or(|lost| lost.kept.contains(key)) {
            return Ok(false);
        }
        let (key, uid) = (key.clone(), uid.to_owned());
        self.write(move |writer| writer.give_back(key, uid)).await
    }

    async fn delete(
        &self,
        key: &FunctionKey,
        manager: &Manager,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (key, manager) = (key.clone(), manager.clone());
        self.write(move |writer| writer.delete(key, &manager, now))
            .await
    }

    async fn finalize(&self, key: &FunctionKey, uid: &str) -> Result<bool, StoreError> {
        let (key, uid) = (key.clone(), uid.to_owned());
        self.write(move |writer| writer.finalize(&key, &uid)).await
    }

    async fn write_status(
        &self,
        key: &FunctionKey,
        uid: &str,
        status: FunctionStatus,
    ) -> Result<bool, StoreError> {
        let (key, uid) = (key.clone(), uid.to_owned());
        self.write(move |writer| writer.write_status(key, &uid, status))
            .await
    }

    fn knows(&self, revision: &Revision, fact: Fact) -> bool {
        self.memory.knows(revision, fact)
    }

    fn known(&self, fact: Fact) -> BTreeSet<Revision> {
        self.memory.known(fact)
    }

    async fn note(
        &self,
        _key: &FunctionKey,
        _uid: &str,
        revision: &Revision,
        fact: Fact,
    ) -> Result<(), StoreError> {
        if self.knows(revision, fact) {
            return Ok(());
        }
        let revision = revision.clone();
        self.write(move |writer| {
            writer.file.learn(&revision, fact, Timestamp::now())?;
            writer.memory.learn(revision, fact);
            Ok(())
        })
        .await
    }

    async fn forget(&self, revisions: Vec<Revision>) -> Result<(), StoreError> {
        self.write(move |writer| {
            writer.file.forget(&revisions)?;
            writer.memory.forget(&revisions);
            Ok(())
        })
        .await
    }

    async fn keep_served(
        &self,
        _key: &FunctionKey,
        uid: &str,
        _served: &Revision,
        record: String,
    ) -> Result<(), StoreError> {
        let uid = uid.to_owned();
        self.write(move |writer| writer.file.serve(&uid, &record))
            .await
    }

    async fn served(&self, _key: &FunctionKey, uid: &str) -> Result<Option<String>, StoreError> {
        let uid = uid.to_owned();
        self.write(move |writer| writer.file.served(&uid)).await
    }

    async fn record(
        &self,
        key: &FunctionKey,
        uid: &str,
        event: EventRecord,
    ) -> Result<(), StoreError> {
        let (key, uid) = (key.clone(), uid.to_owned());
        self.write(move |writer| match writer.same(&key, &uid) {
            Some(_) => writer.file.record(&uid, &event),
            None => Ok(()),
        })
        .await
    }

    async fn events(&self, key: &FunctionKey) -> Result<Vec<EventRecord>, StoreError> {
        let Some(uid) = self
            .get(key)
            .and_then(|function| function.metadata.uid.clone())
        else {
            return Ok(Vec::new());
        };
        self.write(move |writer| writer.file.events(&uid)).await
    }
}

impl Writer {
    fn apply(
        &mut self,
        desired: Function,
        manager: &Manager,
        now: Timestamp,
    ) -> Result<(Applied, Arc<Function>), StoreError> {
        let key = FunctionKey::try_from(&desired)?;
        // A directory's files say again what a power cut took.
        let durability = match manager {
            Manager::Directory { .. } => Durability::Derived,
            Manager::Api => Durability::Full,
        };
        let Some(current) = self.memory.get(&key) else {
            let function = edit::created(desired, manager, Uuid::new_v4().to_string(), now);
            return Ok((Applied::Created, self.put(key, function, durability)?));
        };
        match edit::configured(&current, desired, manager)? {
            Some(function) => Ok((Applied::Configured, self.put(key, function, durability)?)),
            None => Ok((Applied::Unchanged, current)),
        }
    }

    fn take_back(&mut self, lost: Function) -> Result<bool, StoreError> {
        let key = FunctionKey::try_from(&lost)?;
        let Some(uid) = lost.metadata.uid.clone() else {
            return Ok(false);
        };
        if self.memory.get(&key).is_some() {
            return Ok(false);
        }
        let manager = Manager::of(&lost);
        let function = edit::created(lost, &manager, uid, Timestamp::now());
        self.put(key, function, Durability::Full)?;
        Ok(true)
    }

    fn give_back(&mut self, key: FunctionKey, uid: String) -> Result<bool, StoreError> {
        let Some(current) = self.memory.get(&key) else {
            return Ok(false);
        };
        if current.metadata.uid.as_ref() == Some(&uid) {
            return Ok(false);
        }
        let mut function = Function::clone(&current);
        function.metadata.uid = Some(uid);
        self.put(key, function, Durability::Full)?;
        Ok(true)
    }

    fn delete(
        &mut self,
        key: FunctionKey,
        manager: &Manager,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(current) = self.memory.get(&key) else {
            return Err(StoreError::NotFound { key });
        };
        match edit::deleted(&current, manager, now)? {
            Some(function) => self.put(key, function, Durability::Full).map(drop),
            None => Ok(()),
        }
    }

    fn finalize(&mut self, key: &FunctionKey, uid: &str) -> Result<bool, StoreError> {
        let Some(mut last) = self
            .same(key, uid)
            .and_then(|current| edit::released(&current))
        else {
            return Ok(false);
        };
        self.file.remove(key, &mut last)?;
        self.memory.remove(key, last);
        Ok(true)
    }

    fn write_status(
        &mut self,
        key: FunctionKey,
        uid: &str,
        status: FunctionStatus,
    ) -> Result<bool, StoreError> {
        let Some(current) = self.same(&key, uid) else {
            return Ok(false);
        };
        let status = Some(super::whole_seconds(status));
        if current.status == status {
            return Ok(false);
        }
        let function = Function {
            status,
            ..Function::clone(&current)
        };
        self.put(key, function, Durability::Derived)?;
        Ok(true)
    }

    /// The object, if it is still the one that was meant.
    fn same(&self, key: &FunctionKey, uid: &str) -> Option<Arc<Function>> {
        self.memory
            .get(key)
            .filter(|current| current.metadata.uid.as_deref() == Some(uid))
    }

    fn put(
        &mut self,
        key: FunctionKey,
        mut function: Function,
        durability: Durability,
    ) -> Result<Arc<Function>, StoreError> {
        self.file.put(&key, &mut function, durability)?;
        let function = Arc::new(function);
        self.memory.put(key, Arc::clone(&function));
        Ok(function)
    }
}
