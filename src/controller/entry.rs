//! What the controller remembers of one Function between turns. All of it is a cache: objects, labels and the engine say
//! the same again after a restart.

use std::{collections::HashMap, sync::Arc, time::Instant};

use jiff::Timestamp;
use tokio::task::AbortHandle;

use super::last_words::LastWords;
use crate::{
    builder::ImageName,
    function::Revision,
    plan::{Blocked, Demand, Failure, Instance, Phase, image::Desired},
    pool::Pool,
    retry::BACKOFF,
    runtime::InstanceId,
};

/// The memory of one Function.
#[derive(Debug)]
pub struct Entry {
    /// `metadata.uid`: a Function of the same name that was deleted before is another.
    pub uid: String,
    pub pool: Arc<Pool>,
    /// The newest generation.
    pub resolved: Option<Resolved>,
    /// What calls go to.
    pub serving: Option<Arc<Desired>>,
    /// The same as a record, as long as that is not stored.
    pub unkept: Option<(Revision, String)>,
    /// The image that served before: kept for going back.
    pub previous_image: Option<ImageName>,
    /// Instances that are being started or stopped.
    pub moving: HashMap<InstanceId, Moving>,
    /// What is known of the CPU shares of instances.
    pub cpu_shares: HashMap<InstanceId, u32>,
    /// Failures of starting each revision, or of its instances.
    pub failures: HashMap<Revision, Failure>,
    /// What instances that are gone wrote last.
    pub last_words: LastWords,
    pub turn: Turn,
}

/// What a generation asks for, or why that is not known; with what it was read from.
pub type Resolved = (Stamp, Result<Arc<Desired>, Blocked>);

/// From what a generation was resolved; equal stamps resolve equally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub generation: i64,
    /// Digest of the directory's content, or why it cannot be read.
    pub source: Option<String>,
    /// Keyed hash of the secrets' content, or why they cannot be read.
    pub secrets: Result<Vec<u8>, String>,
}

/// An instance on its way in or out.
#[derive(Debug)]
pub struct Moving {
    pub revision: Revision,
    pub image: ImageName,
    /// [`Phase::Starting`] or [`Phase::Stopping`].
    pub phase: Phase,
    pub since: Instant,
    /// The start, to be given up when nobody wants the instance any more.
    pub task: Option<AbortHandle>,
}

/// How the turns of a Function go, for people.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// Turns in all that were finished.
    pub count: u64,
    /// Whether one goes on.
    pub runs: bool,
    /// Failed turns in a row.
    pub attempts: u32,
    pub last: Option<Timestamp>,
    pub next: Option<Timestamp>,
    pub last_error: Option<String>,
}

impl Entry {
    /// Nothing is known yet.
    pub fn new(uid: String, pool: Arc<Pool>) -> Self {
        Self {
            uid,
            pool,
            resolved: None,
            serving: None,
            unkept: None,
            previous_image: None,
            moving: HashMap::new(),
            cpu_shares: HashMap::new(),
            failures: HashMap::new(),
            last_words: LastWords::default(),
            turn: Turn::default(),
        }
    }

    /// What the newest generation asks for.
    pub fn desired(&self) -> Option<&Arc<Desired>> {
        self.resolved
            .as_ref()
            .and_then(|(_, outcome)| outcome.as_ref().ok())
    }

    /// The revision's details, if it is the newest or the serving one.
    pub fn revision(&self, revision: &Revision) -> Option<&Arc<Desired>> {
        [self.desired(), self.serving.as_ref()]
            .into_iter()
            .flatten()
            .find(|d| d.target.revision == *revision)
    }

    /// All instances, those on their way included, and who waits for one.
    pub fn instances(&self) -> (Vec<Instance>, Demand) {
        let (mut instances, demand) = self.pool.look();
        instances.retain(|i| !self.moving.contains_key(&i.id));
        instances.extend(self.moving.iter().map(|(id, moving)| Instance {
            id: id.clone(),
            revision: moving.revision.clone(),
            phase: moving.phase,
            in_flight: 0,
            idle_since: moving.since,
            since: moving.since,
        }));
        (instances, demand)
    }

    /// Whether an instance is being started.
    pub fn starts(&self) -> bool {
        let mut moving = self.moving.values();
        moving.any(|moving| moving.phase == Phase::Starting)
    }

    /// How many instances of a revision there are, and are not about to end.
    pub fn count(&self, revision: &Revision) -> usize {
        let (instances, _) = self.instances();
        let counts = |i: &&Instance| i.revision == *revision && i.phase != Phase::Stopping;
        instances.iter().filter(counts).count()
    }

    /// Notes that a revision's instance failed, once more.
    pub fn failed(&mut self, revision: &Revision, mut failure: Failure, now: Instant) {
        failure.attempts = self.failures.get(revision).map_or(0, |f| f.attempts) + 1;
        failure.retry_at = failure.retry_at.and(BACKOFF.next(failure.attempts, now));
        self.failures.insert(revision.clone(), failure);
    }

    /// Notes that an instance crashed. The first time another is started at once.
    pub fn crashed(&mut self, revision: &Revision, failure: Failure, now: Instant) {
        self.failed(revision, failure, now);
        if let Some(failure) = self.failures.get_mut(revision)
            && failure.attempts == 1
        {
            failure.retry_at = Some(now);
        }
    }

    /// Images that this Function may still need.
    pub fn images(&self) -> impl Iterator<Item = &ImageName> {
        let known = [self.desired(), self.serving.as_ref()];
        known
            .into_iter()
            .flatten()
            .map(|d| &d.target.image)
            .chain(&self.previous_image)
            .chain(self.moving.values().map(|m| &m.image))
    }
}
