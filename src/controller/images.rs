//! The images that Functions want, each built once however many want it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::task::AbortHandle;

use super::log::LiveLog;
use crate::{
    builder::{BuildError, Image, ImageName, ImageReference},
    function::{FunctionKey, crd::LastBuild, status::Reason},
    plan::{Failure, ImageState},
    retry::{BACKOFF, Retry},
};

/// All images that somebody wants or that are known to be there.
#[derive(Debug, Default)]
pub struct Images(Mutex<HashMap<ImageName, Entry>>);

#[derive(Debug)]
struct Entry {
    state: ImageState,
    /// What instances of it are started by, once somebody said so.
    reference: Option<ImageReference>,
    wanted_by: HashSet<FunctionKey>,
    /// Failed builds in a row.
    attempts: u32,
    /// How the last of them failed.
    failed: Option<Failure>,
    build: Option<Build>,
}

/// A build, running or over.
#[derive(Debug)]
struct Build {
    /// Not while it is queued.
    began: Option<Timestamp>,
    ended: Option<Timestamp>,
    log: Arc<LiveLog>,
    task: Option<AbortHandle>,
}

impl Images {
    /// These of ours exist in the engine; others that were there are not any more. Answers who misses one of those.
    pub fn observed(&self, present: &[Image], ours: impl Fn(&str) -> bool) -> HashSet<FunctionKey> {
        let mut images = self.lock();
        let mut missed = HashSet::new();
        let names: HashSet<_> = present.iter().map(|image| image.name.as_str()).collect();
        for (name, entry) in images.iter_mut() {
            if entry.state == ImageState::Ready && ours(name) && !names.contains(name.as_str()) {
                entry.state = ImageState::Missing;
                missed.extend(entry.wanted_by.iter().cloned());
            }
        }
        for image in present {
            let entry = images
                .entry(image.name.clone())
                .or_insert_with(Entry::missing);
            if matches!(entry.state, ImageState::Missing | ImageState::Ready) {
                entry.state = ImageState::Ready;
                entry.reference = Some(image.reference.clone());
            }
        }
        missed
    }

    /// Whether it is there, as far as is known.
    pub fn is_ready(&self, name: &ImageName) -> bool {
        let images = self.lock();
        images
            .get(name)
            .is_some_and(|entry| entry.state == ImageState::Ready)
    }

    /// Why it is not there, if making it failed.
    pub fn failure(&self, name: &ImageName) -> Option<Failure> {
        match &self.lock().get(name)?.state {
            ImageState::Failed(failure) => Some(failure.clone()),
            _ => None,
        }
    }

    /// How making it failed the last time, also while that is tried again.
    pub fn last_failure(&self, name: &ImageName) -> Option<Failure> {
        self.lock().get(name)?.failed.clone()
    }

    /// Whether no Function wants it at this moment.
    pub fn is_unwanted(&self, name: &ImageName) -> bool {
        let images = self.lock();
        images
            .get(name)
            .is_none_or(|entry| entry.wanted_by.is_empty())
    }

    /// What instances of an image are started by.
    pub fn reference(&self, name: &ImageName) -> ImageReference {
        let images = self.lock();
        let reference = images.get(name).and_then(|entry| entry.reference.clone());
        reference.unwrap_or_else(|| name.clone())
    }

    /// Says that this Function wants these images and no others, and how they stand. A build that nobody wants any more is
    /// cancelled.
    pub fn want<const N: usize>(
        &self,
        names: [Option<&ImageName>; N],
        key: &FunctionKey,
    ) -> [Option<ImageState>; N] {
        let mut images = self.lock();
        images.retain(|other, entry| names.contains(&Some(other)) || entry.keep_without(key));
        names.map(|name| {
            let entry = images.entry(name?.clone()).or_insert_with(Entry::missing);
            entry.wanted_by.insert(key.clone());
            Some(entry.state.clone())
        })
    }

    /// The Function wants none any more.
    pub fn forget(&self, key: &FunctionKey) {
        self.lock().retain(|_, entry| entry.keep_without(key));
    }

    /// Notes that a build will be carried out, unless one is or the image is there; answers its log.
    pub fn enqueue(&self, name: &ImageName) -> Option<Arc<LiveLog>> {
        let mut images = self.lock();
        let entry = images.get_mut(name)?;
        if !matches!(entry.state, ImageState::Missing | ImageState::Failed(_)) {
            return None;
        }
        let log = Arc::new(LiveLog::default());
        entry.build = Some(Build {
            began: None,
            ended: None,
            log: Arc::clone(&log),
            task: None,
        });
        entry.state = ImageState::Queued;
        Some(log)
    }

    /// The build that was queued begins. Answers who waits for it.
    pub fn begin(&self, name: &ImageName, now: Timestamp) -> Vec<FunctionKey> {
        let mut images = self.lock();
        let Some(entry) = images.get_mut(name) else {
            return Vec::new();
        };
        if let Some(build) = &mut entry.build {
            build.began = Some(now);
        }
        entry.state = ImageState::Building;
        entry.wanted_by.iter().cloned().collect()
    }

    /// Cancels all builds.
    pub fn abandon(&self) {
        let images = self.lock();
        let builds = images.values().filter_map(|e| e.build.as_ref());
        builds
            .filter_map(|b| b.task.as_ref())
            .for_each(AbortHandle::abort);
    }

    /// The task that carries the build out, to be ended when nobody wants the image.
    pub fn carried_by(&self, name: &ImageName, task: AbortHandle) {
        match self.lock().get_mut(name).and_then(|e| e.build.as_mut()) {
            Some(build) => build.task = Some(task),
            // Nobody wants it any more already.
            None => task.abort(),
        }
    }

    /// A build is over. Answers who waits for it.
    pub fn end(
        &self,
        name: &ImageName,
        outcome: Result<ImageReference, &BuildError>,
        now: Instant,
        wall: Timestamp,
    ) -> Vec<FunctionKey> {
        let mut images = self.lock();
        let Some(entry) = images.get_mut(name) else {
            return Vec::new();
        };
        if let Some(build) = &mut entry.build {
            build.ended = Some(wall);
            build.task = None;
            build.log.close();
        }
        entry.attempts = if outcome.is_ok() {
            0
        } else {
            entry.attempts + 1
        };
        entry.state = match outcome {
            Ok(reference) => {
                entry.reference = Some(reference);
                entry.failed = None;
                ImageState::Ready
            }
            Err(error) => {
                let failure = failure(error, entry.attempts, now);
                entry.failed = Some(failure.clone());
                ImageState::Failed(failure)
            }
        };
        entry.wanted_by.iter().cloned().collect()
    }

    /// The image is not there, though it was believed to be. Answers who misses it.
    pub fn lost(&self, name: &ImageName) -> Vec<FunctionKey> {
        let mut images = self.lock();
        let Some(entry) = images
            .get_mut(name)
            .filter(|e| e.state == ImageState::Ready)
        else {
            return Vec::new();
        };
        entry.state = ImageState::Missing;
        let missed: Vec<_> = entry.wanted_by.iter().cloned().collect();
        if missed.is_empty() {
            images.remove(name);
        }
        missed
    }

    /// Somebody asks for another try of a failed build.
    pub fn retry(&self, name: &ImageName) {
        if let Some(entry) = self.lock().get_mut(name)
            && matches!(entry.state, ImageState::Failed(_))
        {
            entry.state = ImageState::Missing;
            entry.attempts = 0;
            entry.failed = None;
        }
    }

    /// The last build of an image that has begun, for a status.
    pub fn last_build(&self, name: &ImageName) -> Option<LastBuild> {
        let images = self.lock();
        let build = images.get(name)?.build.as_ref()?;
        let began = build.began?;
        let duration = build
            .ended
            .map(|ended| ended.duration_since(began).as_secs());
        Some(LastBuild {
            start_time: Time(began),
            completion_time: build.ended.map(Time),
            duration_seconds: duration.and_then(|d| u32::try_from(d).ok()),
            log_tail: build
                .ended
                .map(|_| build.log.tail())
                .filter(|tail| !tail.is_empty()),
        })
    }

    /// The log of the last build of an image, which may be queued still.
    pub fn log(&self, name: &ImageName) -> Option<Arc<LiveLog>> {
        let images = self.lock();
        let build = images.get(name)?.build.as_ref()?;
        Some(Arc::clone(&build.log))
    }

    /// Builds that run now.
    pub fn building(&self) -> usize {
        self.count(&ImageState::Building)
    }

    /// Builds that wait until others have ended.
    pub fn queued(&self) -> usize {
        self.count(&ImageState::Queued)
    }

    fn count(&self, state: &ImageState) -> usize {
        let images = self.lock();
        images.values().filter(|e| e.state == *state).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ImageName, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn missing() -> Self {
        Self {
            state: ImageState::Missing,
            reference: None,
            wanted_by: HashSet::new(),
            attempts: 0,
            failed: None,
            build: None,
        }
    }

    /// Whether the entry is worth keeping once `key` does not want it; ends a build that nobody wants.
    fn keep_without(&mut self, key: &FunctionKey) -> bool {
        if !self.wanted_by.remove(key) || !self.wanted_by.is_empty() {
            return true;
        }
        if let Some(build) = &self.build {
            if let Some(task) = &build.task {
                task.abort();
            }
            build.log.close();
        }
        self.state == ImageState::Ready
    }
}

fn failure(error: &BuildError, attempts: u32, now: Instant) -> Failure {
    let (reason, retry) = judge(error);
    Failure {
        reason,
        message: error.to_string(),
        attempts,
        retry_at: retry.next(attempts, now),
        crash: None,
    }
}

/// The reason of a failed build and whether trying again may help.
fn judge(error: &BuildError) -> (Reason, Retry) {
    match error {
        BuildError::Failed { .. } | BuildError::Refused(_) => {
            (Reason::BuildFailed, Retry::OnChange)
        }
        BuildError::Timeout { .. } => (Reason::BuildTimeout, Retry::OnChange),
        BuildError::Pull { .. } => (Reason::PullFailed, BACKOFF),
        BuildError::Source(_) => (Reason::SourceUnavailable, BACKOFF),
        BuildError::NoSpace(_) => (Reason::NoSpace, BACKOFF),
        BuildError::Engine(_) | BuildError::EngineFailed(_) => (Reason::EngineUnavailable, BACKOFF),
        BuildError::RegistryAway(_) => (Reason::RegistryUnavailable, BACKOFF),
        BuildError::RegistryRefused(_) => (Reason::RegistryRefused, BACKOFF),
        BuildError::Interrupted(_) => (Reason::BuildInterrupted, BACKOFF),
    }
}

#[cfg(test)]
mod tests;
