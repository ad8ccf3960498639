//! One image, whoever wants it: begun once, cancelled, failed, lost.

use std::time::Duration;

use super::*;
use crate::builder::BuildLog;

fn key(name: &str) -> FunctionKey {
    name.parse().unwrap()
}

fn name(name: &str) -> ImageName {
    name.to_owned()
}

/// Images as a builder lists them, each to be had at a place of its own.
fn listed(names: &[&str]) -> Vec<Image> {
    let image = |n: &&str| Image {
        name: name(n),
        reference: format!("at/{n}"),
    };
    names.iter().map(image).collect()
}

fn wall(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// One Function wants one image.
fn want(images: &Images, image: &str, function: &str) -> ImageState {
    let [state] = images.want([Some(&name(image))], &key(function));
    state.unwrap()
}

fn end(images: &Images, outcome: Result<(), &BuildError>, now: Instant) -> HashSet<FunctionKey> {
    let outcome = outcome.map(|()| "at/i".to_owned());
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
    assert!(images.enqueue(&name("i")).is_some());
    assert!(images.enqueue(&name("i")).is_none(), "it is being built");
    assert_eq!(want(&images, "i", "c"), ImageState::Queued);
    assert_eq!((images.queued(), images.building()), (1, 0));
    let told: HashSet<_> = images.begin(&name("i"), wall(1)).into_iter().collect();
    assert_eq!(told, HashSet::from([key("a"), key("b"), key("c")]));
    assert!(images.enqueue(&name("i")).is_none(), "it is being built");
    assert_eq!(want(&images, "i", "c"), ImageState::Building);
    assert_eq!((images.queued(), images.building()), (0, 1));
    let waiting = end(&images, Ok(()), Instant::now());
    assert_eq!(waiting, HashSet::from([key("a"), key("b"), key("c")]));
    assert_eq!(want(&images, "i", "a"), ImageState::Ready);
    assert_eq!(images.reference(&name("i")), "at/i");
    assert_eq!(images.reference(&name("other")), "other");
    assert!(images.enqueue(&name("i")).is_none(), "it is there");
    assert!(
        images.enqueue(&name("unknown")).is_none(),
        "nobody wants it"
    );
}

#[tokio::test]
async fn a_build_that_nobody_wants_any_more_is_ended_with_its_log() {
    let images = Images::default();
    for function in ["a", "b"] {
        want(&images, "i", function);
    }
    let log = images.enqueue(&name("i")).unwrap();
    let task = tokio::spawn(std::future::pending::<()>());
    images.carried_by(&name("i"), task.abort_handle());
    want(&images, "other", "a");
    assert_eq!(images.queued(), 1, "b wants it still");
    assert!(!task.is_finished());
    images.forget(&key("b"));
    assert_eq!(images.queued(), 0);
    assert!(task.await.unwrap_err().is_cancelled());
    let followed: Vec<_> = futures::StreamExt::collect(log.read(true)).await;
    assert_eq!(followed.len(), 0, "whoever follows the log is let go");
}

#[tokio::test]
async fn a_build_that_nobody_wants_before_it_has_a_task_is_ended_too() {
    let images = Images::default();
    want(&images, "i", "a");
    images.enqueue(&name("i")).unwrap();
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
            images.enqueue(&name("i")).is_some(),
            "a failed one may begin again"
        );
        end(&images, Err(&pull_error()), now);
        let expected = Failure {
            reason: Reason::PullFailed,
            message: pull_error().to_string(),
            attempts,
            retry_at: Some(now + Duration::from_secs(wait)),
            crash: None,
        };
        assert_eq!(want(&images, "i", "a"), ImageState::Failed(expected));
    }
    images.retry(&name("i"));
    assert_eq!(
        want(&images, "i", "a"),
        ImageState::Missing,
        "somebody asked for it"
    );
}

#[test]
fn only_the_sources_own_faults_are_final() {
    type Kind = fn(String) -> BuildError;
    let images = Images::default();
    want(&images, "i", "a");
    let table: [(Kind, Reason, bool); 6] = [
        (BuildError::Refused, Reason::BuildFailed, false),
        (BuildError::Source, Reason::SourceUnavailable, true),
        (BuildError::NoSpace, Reason::NoSpace, true),
        (BuildError::Engine, Reason::EngineUnavailable, true),
        (BuildError::EngineFailed, Reason::EngineUnavailable, true),
        (BuildError::Interrupted, Reason::BuildInterrupted, true),
    ];
    for (error, reason, again) in table {
        let error = error("words".to_owned());
        images.enqueue(&name("i")).unwrap();
        end(&images, Err(&error), Instant::now());
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
    images.observed(&listed(&["i", "j", "theirs"]), ours);
    for (image, function) in [("i", "a"), ("j", "b"), ("theirs", "c")] {
        assert_eq!(want(&images, image, function), ImageState::Ready, "{image}");
    }
    want(&images, "k", "d");
    images.enqueue(&name("k"));
    images.begin(&name("k"), wall(1));
    let missed = images.observed(&listed(&["j"]), ours);
    assert_eq!(missed, HashSet::from([key("a")]));
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
    images.observed(&listed(&["i"]), |_| true);
    assert!(images.is_unwanted(&name("i")));
    want(&images, "i", "a");
    assert!(!images.is_unwanted(&name("i")), "it stays");
    assert_eq!(images.lost(&name("i")), [key("a")], "who misses it");
    assert_eq!(want(&images, "i", "a"), ImageState::Missing);
    images.enqueue(&name("i")).unwrap();
    images.lost(&name("i"));
    assert_eq!(want(&images, "i", "a"), ImageState::Queued);
    images.observed(&listed(&["unwanted"]), |_| true);
    images.lost(&name("unwanted"));
    assert_eq!(images.lock().len(), 1, "what nobody wants is forgotten");
}

#[test]
fn the_last_build_is_told() {
    let images = Images::default();
    want(&images, "i", "a");
    assert!(images.last_build(&name("i")).is_none());
    let log = images.enqueue(&name("i")).unwrap();
    assert!(images.last_build(&name("i")).is_none(), "it is queued");
    assert!(Arc::ptr_eq(&images.log(&name("i")).unwrap(), &log));
    images.begin(&name("i"), wall(2));
    log.write(b"step 1");
    let last = |images: &Images| images.last_build(&name("i")).unwrap();
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
