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
    builder::{BuildError, ImageName},
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
    wanted_by: HashSet<FunctionKey>,
    /// Failed builds in a row.
    attempts: u32,
    build: Option<Build>,
}

/// A build, running or over.
#[derive(Debug)]
struct Build {
    began: Timestamp,
    ended: Option<Timestamp>,
    log: Arc<LiveLog>,
    task: Option<AbortHandle>,
}

impl Images {
    /// These of ours exist in the engine; others that were there are not any more.
    pub fn observed(&self, present: &HashSet<ImageName>, ours: impl Fn(&str) -> bool) {
        let mut images = self.lock();
        for (name, entry) in images.iter_mut() {
            if entry.state == ImageState::Ready && ours(name) && !present.contains(name) {
                entry.state = ImageState::Missing;
            }
        }
        for name in present {
            let entry = images.entry(name.clone()).or_insert_with(Entry::missing);
            if entry.state == ImageState::Missing {
                entry.state = ImageState::Ready;
            }
        }
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

    /// Begins a build unless one runs or the image is there; answers its log.
    pub fn begin(&self, name: &ImageName, now: Timestamp) -> Option<Arc<LiveLog>> {
        let mut images = self.lock();
        let entry = images.get_mut(name)?;
        if matches!(entry.state, ImageState::Building | ImageState::Ready) {
            return None;
        }
        let log = Arc::new(LiveLog::default());
        entry.build = Some(Build {
            began: now,
            ended: None,
            log: Arc::clone(&log),
            task: None,
        });
        entry.state = ImageState::Building;
        Some(log)
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
        outcome: Result<(), &BuildError>,
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
            Ok(()) => ImageState::Ready,
            Err(error) => ImageState::Failed(failure(error, entry.attempts, now)),
        };
        entry.wanted_by.iter().cloned().collect()
    }

    /// The image is not there, though it was believed to be.
    pub fn lost(&self, name: &ImageName) {
        let mut images = self.lock();
        let Some(entry) = images
            .get_mut(name)
            .filter(|e| e.state == ImageState::Ready)
        else {
            return;
        };
        entry.state = ImageState::Missing;
        if entry.wanted_by.is_empty() {
            images.remove(name);
        }
    }

    /// Somebody asks for another try of a failed build.
    pub fn retry(&self, name: &ImageName) {
        if let Some(entry) = self.lock().get_mut(name)
            && matches!(entry.state, ImageState::Failed(_))
        {
            entry.state = ImageState::Missing;
            entry.attempts = 0;
        }
    }

    /// The last build of an image: for a status, and its log.
    pub fn last_build(&self, name: &ImageName) -> Option<(LastBuild, Arc<LiveLog>)> {
        let images = self.lock();
        let build = images.get(name)?.build.as_ref()?;
        let duration = build
            .ended
            .map(|ended| ended.duration_since(build.began).as_secs());
        let last = LastBuild {
            start_time: Time(build.began),
            completion_time: build.ended.map(Time),
            duration_seconds: duration.and_then(|d| u32::try_from(d).ok()),
            log_tail: build
                .ended
                .map(|_| build.log.tail())
                .filter(|tail| !tail.is_empty()),
        };
        Some((last, Arc::clone(&build.log)))
    }

    /// Builds that run now.
    pub fn building(&self) -> usize {
        self.lock()
            .values()
            .filter(|e| e.state == ImageState::Building)
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ImageName, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn missing() -> Self {
        Self {
            state: ImageState::Missing,
            wanted_by: HashSet::new(),
            attempts: 0,
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
        BuildError::Engine(_) => (Reason::EngineUnavailable, BACKOFF),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::builder::BuildLog;

    fn key(name: &str) -> FunctionKey {
        name.parse().unwrap()
    }

    fn name(name: &str) -> ImageName {
        name.to_owned()
    }

    fn set(names: &[&str]) -> HashSet<ImageName> {
        names.iter().map(|n| name(n)).collect()
    }

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// One Function wants one image.
    fn want(images: &Images, image: &str, function: &str) -> ImageState {
        let [state] = images.want([Some(&name(image))], &key(function));
        state.unwrap()
    }

    fn end(
        images: &Images,
        outcome: Result<(), &BuildError>,
        now: Instant,
    ) -> HashSet<FunctionKey> {
        images
            .end(&name("i"), outcome, now, wall(9))
            .into_iter()
            .collect()
    }

    fn pull_error() -> BuildError {
        BuildError::Pull {
            image: name("i"),
            message: "no such host".to_owned(),
        }
    }

    #[test]
    fn an_image_that_many_want_is_built_once() {
        let images = Images::default();
        assert_eq!(want(&images, "i", "a"), ImageState::Missing);
        assert_eq!(want(&images, "i", "b"), ImageState::Missing);
        assert!(images.begin(&name("i"), wall(1)).is_some());
        assert!(
            images.begin(&name("i"), wall(1)).is_none(),
            "it is being built"
        );
        assert_eq!(want(&images, "i", "c"), ImageState::Building);
        assert_eq!(images.building(), 1);
        let waiting = end(&images, Ok(()), Instant::now());
        assert_eq!(waiting, HashSet::from([key("a"), key("b"), key("c")]));
        assert_eq!(want(&images, "i", "a"), ImageState::Ready);
        assert!(images.begin(&name("i"), wall(1)).is_none(), "it is there");
        assert!(
            images.begin(&name("unknown"), wall(1)).is_none(),
            "nobody wants it"
        );
    }

    #[tokio::test]
    async fn a_build_that_nobody_wants_any_more_is_ended_with_its_log() {
        let images = Images::default();
        for function in ["a", "b"] {
            want(&images, "i", function);
        }
        let log = images.begin(&name("i"), wall(1)).unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        images.carried_by(&name("i"), task.abort_handle());
        want(&images, "other", "a");
        assert_eq!(images.building(), 1, "b wants it still");
        assert!(!task.is_finished());
        images.forget(&key("b"));
        assert_eq!(images.building(), 0);
        assert!(task.await.unwrap_err().is_cancelled());
        let followed: Vec<_> = futures::StreamExt::collect(log.read(true)).await;
        assert_eq!(followed.len(), 0, "whoever follows the log is let go");
    }

    #[tokio::test]
    async fn a_build_that_nobody_wants_before_it_has_a_task_is_ended_too() {
        let images = Images::default();
        want(&images, "i", "a");
        images.begin(&name("i"), wall(1)).unwrap();
        images.forget(&key("a"));
        let task = tokio::spawn(std::future::pending::<()>());
        images.carried_by(&name("i"), task.abort_handle());
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[test]
    fn failures_are_judged_and_tried_again_later_and_later() {
        let now = Instant::now();
        let images = Images::default();
        want(&images, "i", "a");
        for (attempts, wait) in [(1, 1), (2, 2), (3, 4)] {
            assert!(
                images.begin(&name("i"), wall(1)).is_some(),
                "a failed one may begin again"
            );
            end(&images, Err(&pull_error()), now);
            let expected = Failure {
                reason: Reason::PullFailed,
                message: pull_error().to_string(),
                attempts,
                retry_at: Some(now + Duration::from_secs(wait)),
            };
            assert_eq!(want(&images, "i", "a"), ImageState::Failed(expected));
        }
        images.retry(&name("i"));
        assert_eq!(
            want(&images, "i", "a"),
            ImageState::Missing,
            "somebody asked for it"
        );
        for (error, reason, again) in [
            (
                BuildError::Refused("no FROM".to_owned()),
                Reason::BuildFailed,
                false,
            ),
            (
                BuildError::Source("damaged".to_owned()),
                Reason::SourceUnavailable,
                true,
            ),
            (
                BuildError::NoSpace("disk full".to_owned()),
                Reason::NoSpace,
                true,
            ),
            (
                BuildError::Engine("no socket".to_owned()),
                Reason::EngineUnavailable,
                true,
            ),
        ] {
            images.begin(&name("i"), wall(1)).unwrap();
            end(&images, Err(&error), now);
            let ImageState::Failed(failure) = want(&images, "i", "a") else {
                panic!("{error}")
            };
            assert_eq!(
                (failure.reason, failure.retry_at.is_some()),
                (reason, again)
            );
        }
    }

    #[test]
    fn the_engine_tells_what_is_there() {
        let images = Images::default();
        let ours = |name: &str| !name.starts_with("theirs");
        images.observed(&set(&["i", "j", "theirs"]), ours);
        for (image, function) in [("i", "a"), ("j", "b"), ("theirs", "c")] {
            assert_eq!(want(&images, image, function), ImageState::Ready, "{image}");
        }
        want(&images, "k", "d");
        images.begin(&name("k"), wall(1));
        images.observed(&set(&["j"]), ours);
        for (image, function, expected) in [
            ("i", "a", ImageState::Missing),
            ("j", "b", ImageState::Ready),
            ("theirs", "c", ImageState::Ready),
            ("k", "d", ImageState::Building),
        ] {
            assert_eq!(want(&images, image, function), expected, "{image}");
        }
    }

    #[test]
    fn a_lost_image_is_missing_but_a_build_goes_on() {
        let images = Images::default();
        images.observed(&set(&["i"]), |_| true);
        want(&images, "i", "a");
        images.lost(&name("i"));
        assert_eq!(want(&images, "i", "a"), ImageState::Missing);
        images.begin(&name("i"), wall(1)).unwrap();
        images.lost(&name("i"));
        assert_eq!(want(&images, "i", "a"), ImageState::Building);
        images.observed(&set(&["unwanted"]), |_| true);
        images.lost(&name("unwanted"));
        assert_eq!(images.lock().len(), 1, "what nobody wants is forgotten");
    }

    #[test]
    fn the_last_build_is_told() {
        let images = Images::default();
        want(&images, "i", "a");
        assert!(images.last_build(&name("i")).is_none());
        let log = images.begin(&name("i"), wall(2)).unwrap();
        log.write(b"step 1");
        let last = |images: &Images| images.last_build(&name("i")).unwrap().0;
        let running = LastBuild {
            start_time: Time(wall(2)),
            completion_time: None,
            duration_seconds: None,
            log_tail: None,
        };
        assert_eq!(last(&images), running);
        end(&images, Ok(()), Instant::now());
        let over = LastBuild {
            completion_time: Some(Time(wall(9))),
            duration_seconds: Some(7),
            log_tail: Some("step 1".to_owned()),
            ..running
        };
        assert_eq!(last(&images), over);
    }
}
