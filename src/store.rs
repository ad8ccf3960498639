//! The store port: where Functions and their status live. [`cluster`] keeps them in a Kubernetes API server. [`embedded`]
//! keeps them in a SQLite file and behaves as that does: versioned objects, generations, finalizers and a watch. [`state`]
//! guards the directory that the file is in.
//!
//! This file holds the port, and the words that every store and every writer of one share.

pub mod cluster;
pub mod embedded;
mod error;
mod memory;
mod object;
pub mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::watcher::Event;
use serde::Serialize;

pub use self::{error::StoreError, object::Object};
use crate::function::{
    FILE, Function, FunctionKey, FunctionStatus, MANAGED_BY, Revision, SOURCE_DIGEST, SOURCE_ERROR,
};

/// Keeps Functions, and what must be remembered of them. Implementations are shared by all tasks. What is read without
/// `await` comes from memory.
///
/// A call whose future is dropped may still be carried out, and then wholly. A Function is meant by its key and the `uid` of
/// its object: one that was deleted and created again is another, and is not touched.
#[async_trait]
pub trait Store: Send + Sync {
    /// Comes when it is known what there is. Before that nothing may be taken for gone.
    async fn ready(&self);

    /// The watched directories, if there are any, have been read once: of what a store has lost nobody else will tell by itself.
    fn directories_are_read(&self) {}

    /// Whether it was damaged, and not all could be read.
    fn has_lost(&self) -> bool {
        false
    }

    /// Whether what is read can be gone by.
    fn freshness(&self) -> Freshness {
        Freshness {
            is_known: true,
            ..Freshness::default()
        }
    }

    /// The object, if there is one; also one that is being deleted.
    fn get(&self, key: &FunctionKey) -> Option<Arc<Function>>;

    /// Every object, in the order of the keys.
    fn list(&self) -> Vec<Arc<Function>>;

    /// `Init`, every object as `InitApply`, `InitDone`, and then each change in order; nothing is lost however slow the
    /// reader is. An object that is being deleted comes as `Apply`; `Delete` comes when its finalizer has gone.
    fn watch(&self) -> BoxStream<'static, Event<Object>>;

    /// Creates the object, or replaces its spec, labels and annotations; the status stays. A change of the spec makes a new
    /// generation. `function` has been validated before.
    ///
    /// # Errors
    ///
    /// [`StoreError::Managed`] when another manager holds the object; [`StoreError::Deleting`] while it is going away.
    async fn apply(
        &self,
        function: Function,
        manager: &Manager,
        now: Timestamp,
    ) -> Result<(Applied, Arc<Function>), StoreError>;

    /// Puts an object back that was lost with a damaged store, under its uid. Answers whether the store has lost anything, and
    /// this object is not there.
    async fn take_back(&self, _function: Function) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Gives an object its uid back that was lost with a damaged store and has been written anew since. Answers whether it was.
    async fn give_back(&self, _key: &FunctionKey, _uid: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Marks the object for deletion. It goes when [`finalize`](Self::finalize) is called; until then it is there, with a
    /// `deletionTimestamp`. To delete it again is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`]; [`StoreError::Managed`] when another manager holds the object.
    async fn delete(
        &self,
        key: &FunctionKey,
        manager: &Manager,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Sees to it that the object stays until [`finalize`](Self::finalize), before the first thing runs that must be gone
    /// before the object may.
    async fn hold(&self, key: &FunctionKey, uid: &str) -> Result<(), StoreError>;

    /// Lets an object go that is being deleted, now that nothing of it runs any more. Answers whether it did.
    async fn finalize(&self, key: &FunctionKey, uid: &str) -> Result<bool, StoreError>;

    /// Writes the status when it differs, and answers whether it did. The generation stays.
    async fn write_status(
        &self,
        key: &FunctionKey,
        uid: &str,
        status: FunctionStatus,
    ) -> Result<bool, StoreError>;

    /// Whether the fact is known of the revision, by whatever Function it was learnt.
    fn knows(&self, revision: &Revision, fact: Fact) -> bool;

    /// The revisions of which the fact is known.
    fn known(&self, fact: Fact) -> BTreeSet<Revision>;

    /// Keeps a fact about a revision that this Function has; a known one is not written again.
    async fn note(
        &self,
        key: &FunctionKey,
        uid: &str,
        revision: &Revision,
        fact: Fact,
    ) -> Result<(), StoreError>;

    /// Drops all facts about revisions.
    async fn forget(&self, revisions: Vec<Revision>) -> Result<(), StoreError>;

    /// Keeps what a Function serves, so that it can be served again after a restart, whatever its newest generation is by
    /// then. It goes with the Function.
    async fn keep_served(
        &self,
        key: &FunctionKey,
        uid: &str,
        served: &Revision,
        record: String,
    ) -> Result<(), StoreError>;

    /// What [`keep_served`](Self::keep_served) kept last.
    async fn served(&self, key: &FunctionKey, uid: &str) -> Result<Option<String>, StoreError>;

    /// Keeps an event of the object; one of equal reason and message counts on instead. The last 50 are kept.
    async fn record(
        &self,
        key: &FunctionKey,
        uid: &str,
        event: EventRecord,
    ) -> Result<(), StoreError>;

    /// The events of the object, oldest first; none of one that is not there.
    async fn events(&self, key: &FunctionKey) -> Result<Vec<EventRecord>, StoreError>;
}

/// Finalizer of objects of which something may run that the store does not know: it goes once nothing does any more.
pub const FINALIZER: &str = "functions.faas.dev/cleanup";
/// Who manages an object, and alone may change or delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// A manifest in a watched directory.
    Directory {
        /// Path of the manifest.
        file: PathBuf,
    },
    /// Callers of the management API, the CLI among them.
    Api,
}

impl Manager {
    /// Who manages `function`, by its annotations; without them it is the API's.
    #[must_use]
    pub fn of(function: &Function) -> Self {
        let annotation = |name| {
            function
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(name))
        };
        match annotation(MANAGED_BY).map(String::as_str) {
            Some("directory") => Self::Directory {
                file: annotation(FILE).map(PathBuf::from).unwrap_or_default(),
            },
            _ => Self::Api,
        }
    }

    /// Whether both are the same writer. The directory writer may move a Function from file to file.
    #[must_use]
    pub fn is_same_writer(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Directory { .. }, Self::Directory { .. }) | (Self::Api, Self::Api)
        )
    }

    /// Writes this manager into annotations. What only the directory writer may say is taken out of everybody else's.
    fn sign(&self, annotations: &mut BTreeMap<String, String>) {
        match self {
            Self::Directory { file } => {
                annotations.insert(MANAGED_BY.into(), "directory".into());
                annotations.insert(FILE.into(), file.display().to_string());
            }
            Self::Api => {
                annotations.insert(MANAGED_BY.into(), "api".into());
                for name in [FILE, SOURCE_DIGEST, SOURCE_ERROR] {
                    annotations.remove(name);
                }
            }
        }
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { file } => write!(f, "the file {}", file.display()),
            Self::Api => f.write_str("the API"),
        }
    }
}

/// How old what a store knows may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// It is known what there is.
    pub is_known: bool,
    /// Why it may be old.
    pub trouble: Option<String>,
    /// How long ago each watch was seen to live.
    pub watches: BTreeMap<String, Duration>,
}

/// What an apply did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Applied {
    /// The object is new.
    Created,
    /// The object was there and has changed.
    Configured,
    /// The object was there and is equal.
    Unchanged,
}

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::Display, strum::EnumString)]
pub enum EventType {
    Normal,
    Warning,
}

/// Something that happened to a Function, as often as it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventRecord {
    /// When it happened last.
    pub time: Timestamp,
    /// Whether it is good news.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// Why, in one `CamelCase` word.
    pub reason: String,
    /// What, in a sentence.
    pub message: String,
    /// How often it happened since the Function was created.
    pub count: u32,
}

impl EventRecord {
    /// Something that happened once, just now.
    pub fn new(kind: EventType, reason: &str, message: impl Into<String>, now: Timestamp) -> Self {
        Self {
            time: now,
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            count: 1,
        }
    }
}

/// Something learnt about a revision that a restart should not have to learn again.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    strum::IntoStaticStr,
    strum::EnumString,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Fact {
    /// One instance has started and accepted a connection.
    Proven,
    /// Its instances end after one answer.
    SingleCall,
    /// Its instances stay after an answer.
    Stays,
}

/// A status as it will be read again: its times lose their fractions on the way. It stays in memory until the next one.
fn whole_seconds(mut status: FunctionStatus) -> FunctionStatus {
    status.conditions.shrink_to_fit();
    for condition in &mut status.conditions {
        condition.last_transition_time = seconds(condition.last_transition_time.0);
    }
    if let Some(build) = &mut status.last_build {
        build.start_time = seconds(build.start_time.0);
        build.completion_time = build.completion_time.take().map(|time| seconds(time.0));
    }
    status
}

/// An object's times have no fractions, so that they are the same after they were written and read.
fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_read_back_from_its_signature() {
        for manager in [
            Manager::Api,
            Manager::Directory {
                file: "functions/sum.yaml".into(),
            },
        ] {
            let mut function: Function =
                serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {"source": {}}}))
                    .unwrap();
            manager.sign(function.metadata.annotations.get_or_insert_default());
            assert_eq!(Manager::of(&function), manager);
        }
    }

    #[test]
    fn only_the_directory_may_name_a_digest() {
        let forged = || BTreeMap::from([(SOURCE_DIGEST.to_owned(), "sha256:1".to_owned())]);
        let (mut api, mut directory) = (forged(), forged());
        Manager::Api.sign(&mut api);
        Manager::Directory { file: "a".into() }.sign(&mut directory);
        assert!(!api.contains_key(SOURCE_DIGEST));
        assert!(directory.contains_key(SOURCE_DIGEST));
    }
}
