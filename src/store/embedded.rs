//! The store of one machine: Functions as versioned JSON objects in a SQLite file, with the manners of an API server.
//!
//! A write goes to the disk first (`file`), then to memory (`memory`), then to every watcher, by one writer at a time.
//! Reads and watches never touch the disk. What a write does to an object's metadata is decided in `edit`.

mod edit;
mod file;
mod memory;
mod salvage;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use futures::Stream;
use jiff::Timestamp;
use kube::runtime::watcher::Event;
use tokio::sync::Mutex;
use tokio_stream::wrappers::UnboundedReceiverStream;
use uuid::Uuid;

use self::{
    file::{Durability, File},
    memory::Memory,
};
use super::{Applied, EventRecord, Fact, Manager, Object, StoreError, state};
use crate::{
    blocking,
    function::{Function, FunctionKey, FunctionStatus, Revision},
};

/// A handle of the store; clones are the same store.
///
/// A call whose future is dropped may still be carried out, and then wholly.
#[derive(Clone)]
pub struct EmbeddedStore {
    memory: Arc<Memory>,
    writer: Arc<Mutex<Writer>>,
}

/// The only one that changes the file and the memory.
struct Writer {
    file: File,
    memory: Arc<Memory>,
}

impl EmbeddedStore {
    /// Opens the store `store.db` in the state directory, or makes it; a damaged one is set aside, and a new one made of what
    /// can be read. Blocks; hold the directory's lock ([`state::lock`]) before and as long as the store is used.
    ///
    /// # Errors
    ///
    /// A file of a newer format, by name; whatever the file system says.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        state::make_private(state_dir)?;
        let read = |file: File| {
            let memory = Memory::new(file.objects()?, file.facts()?);
            Ok((file, Arc::new(memory)))
        };
        let (file, memory) = match File::open(&state_dir.join(state::STORE)).and_then(read) {
            Err(damage @ StoreError::Damaged { .. }) => read(salvage::rebuild(state_dir, &damage)?),
            whole => whole,
        }?;
        let writer = Writer {
            file,
            memory: Arc::clone(&memory),
        };
        Ok(Self {
            memory,
            writer: Arc::new(Mutex::new(writer)),
        })
    }

    /// The object, if there is one; also one that is being deleted.
    #[must_use]
    pub fn get(&self, key: &FunctionKey) -> Option<Arc<Function>> {
        self.memory.get(key)
    }

    /// Every object, in the order of the keys.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Function>> {
        self.memory.list()
    }

    /// `Init`, every object as `InitApply`, `InitDone`, and then each change in order; nothing is lost however slow the
    /// reader is. An object that is being deleted comes as `Apply`; `Delete` comes when its finalizer has gone.
    pub fn watch(&self) -> impl Stream<Item = Event<Object>> + Send + Unpin + use<> {
        UnboundedReceiverStream::new(self.memory.watch())
    }

    /// Creates the object, or replaces its spec, labels and annotations; the status stays. A change of the spec makes a new
    /// generation. `function` has been validated before.
    ///
    /// # Errors
    ///
    /// [`StoreError::Managed`] when another manager holds the object; [`StoreError::Deleting`] while it is going away.
    pub async fn apply(
        &self,
        function: Function,
        manager: &Manager,
        now: Timestamp,
    ) -> Result<(Applied, Arc<Function>), StoreError> {
        let manager = manager.clone();
        self.write(move |writer| writer.apply(function, &manager, now))
            .await
    }

    /// Marks the object for deletion. It goes when [`finalize`](Self::finalize) is called; until then it is there, with a
    /// `deletionTimestamp`. To delete it again is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`]; [`StoreError::Managed`] when another manager holds the object.
    pub async fn delete(
        &self,
        key: &FunctionKey,
        manager: &Manager,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (key, manager) = (key.clone(), manager.clone());
        self.write(move |writer| writer.delete(key, &manager, now))
            .await
    }

    /// Removes an object that is being deleted, with its events, now that nothing of it runs any more. Answers whether it
    /// did: an object that is not being deleted, or was created anew (another `uid`), is not touched.
    ///
    /// # Errors
    ///
    /// Only those of the disk.
    pub async fn finalize(&self, key: &FunctionKey, uid: &str) -> Result<bool, StoreError> {
        let (key, uid) = (key.clone(), uid.to_owned());
        self.write(move |writer| writer.finalize(&key, &uid)).await
    }

    /// Writes the status when it differs, and answers whether it did. The generation stays. An object that has gone, or was
    /// created anew (another `uid`), is not touched.
    ///
    /// # Errors
    ///
    /// Only those of the disk.
    pub async fn write_status(
        &self,
        key: &FunctionKey,
        uid: &str,
        status: FunctionStatus,
    ) -> Result<bool, StoreError> {
        let (key, uid) = (key.clone(), uid.to_owned());
        self.write(move |writer| writer.write_status(key, &uid, status))
            .await
    }

    /// Whether the fact is known of the revision. No disk, no await.
    #[must_use]
    pub fn knows(&self, revision: &Revision, fact: Fact) -> bool {
        self.memory.knows(revision, fact)
    }

    /// The revisions of which the fact is known.
    #[must_use]
    pub fn known(&self, fact: Fact) -> BTreeSet<Revision> {
        let facts = self.memory.facts().into_iter();
        facts
            .filter(|(known, _)| *known == fact)
            .map(|(_, revision)| revision)
            .collect()
    }

    /// Keeps a fact about a revision; a known one is not written again.
    ///
    /// # Errors
    ///
    /// Only those of the disk.
    pub async fn note(
        &self,
        revision: &Revision,
        fact: Fact,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.knows(revision, fact) {
            return Ok(());
        }
        let revision = revision.clone();
        self.write(move |writer| {
            writer.file.learn(&revision, fact, now)?;
            writer.memory.learn(revision, fact);
            Ok(())
        })
        .await
    }

    /// Forgets everything about revisions that no Function has any more.
    ///
    /// # Errors
    ///
    /// Only those of the disk.
    pub async fn forget(&self, revisions: Vec<Revision>) -> Result<(), StoreError> {
        self.write(move |writer| {
            writer.file.forget(&revisions)?;
            writer.memory.forget(&revisions);
            Ok(())
        })
        .await
    }

    /// Keeps what a Function serves, so that it can be served again after a restart, whatever its newest generation is by
    /// then. It goes with the Function.
    ///
    /// # Errors
    ///
    /// Only those of the disk.
    pub async fn keep_served(&self, uid: &str, record: String) -> Result<(), StoreError> {
        let uid = uid.to_owned();
        self.write(move |writer| writer.file.serve(&uid, &record))
            .await
    }

    /// What [`keep_served`](Self::keep_served) kept last.
    ///
    /// # Errors
    ///
    /// Only those of the disk.
    pub async fn served(&self, uid: &str) -> Result<Option<String>, StoreError> {
        let uid = uid.to_owned();
        self.write(move |writer| writer.file.served(&uid)).await
    }

    /// Keeps an event of the object; one of equal reason and message counts on instead. The last 50 are kept. An object
    /// that has gone, or was created anew (another `uid`), gets none.
    ///
    /// # Errors
    ///
    /// Only those of the disk.
    pub async fn record(
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

    /// The events of the object, oldest first; none of one that is not there.
    ///
    /// # Errors
    ///
    /// Only those of the disk.
    pub async fn events(&self, key: &FunctionKey) -> Result<Vec<EventRecord>, StoreError> {
        let Some(uid) = self
            .get(key)
            .and_then(|function| function.metadata.uid.clone())
        else {
            return Ok(Vec::new());
        };
        self.write(move |writer| writer.file.events(&uid)).await
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
        let status = Some(edit::stored(status));
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
