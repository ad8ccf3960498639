//! What the heart decides, as tables: a world and the whole plan for it.

#![allow(
    clippy::too_many_lines,
    clippy::unchecked_time_subtraction,
    clippy::inconsistent_struct_constructor,
    reason = "tables are long, NOW has time before it, and a table shows what differs first"
)]

use std::sync::LazyLock;

use super::*;

/// A moment with time before it.
static NOW: LazyLock<Instant> = LazyLock::new(|| Instant::now() + Duration::from_secs(10_000));

const IDLE: u64 = 300;

fn revision(name: &str) -> Revision {
    Revision::of([name.as_bytes()])
}

/// A target of 0 to 10 instances with 4 calls each.
fn target(name: &str) -> Target {
    Target {
        revision: revision(name),
        image: format!("image-{name}"),
        min: 0,
        max: 10,
        concurrency: 4,
        idle_after: Duration::from_secs(IDLE),
        manners: Manners::Stays,
    }
}

fn ago(seconds: u64) -> Instant {
    *NOW - Duration::from_secs(seconds)
}

fn from_now(seconds: u64) -> Instant {
    *NOW + Duration::from_secs(seconds)
}

/// An image that is there, much room.
fn world() -> World {
    World {
        image: ImageState::Ready,
        room: 100,
        ..World::empty()
    }
}

fn proven() -> World {
    World {
        proven: true,
        ..world()
    }
}

/// An instance of revision `name`, idle for a second since it began.
fn instance(name: &str, id: &str, phase: Phase) -> Instance {
    Instance {
        id: id.to_owned(),
        revision: revision(name),
        phase,
        in_flight: 0,
        idle_since: ago(1),
        since: ago(1),
    }
}

fn ready(name: &str, id: &str) -> Instance {
    instance(name, id, Phase::Ready)
}

fn busy(name: &str, id: &str, in_flight: u32) -> Instance {
    Instance {
        in_flight,
        ..ready(name, id)
    }
}

fn idle(name: &str, id: &str, seconds: u64) -> Instance {
    Instance {
        idle_since: ago(seconds),
        since: ago(seconds),
        ..ready(name, id)
    }
}

fn failure(attempts: u32, retry_at: Option<Instant>) -> Failure {
    Failure {
        reason: Reason::StartFailed,
        message: "it exits at once".to_owned(),
        attempts,
        retry_at,
    }
}

fn starts(name: &str, count: u32) -> Vec<(Revision, u32)> {
    vec![(revision(name), count)]
}

/// The plan where `desired` is served already.
fn steady(desired: &Target, world: &World) -> Plan {
    plan(Ok(desired), Some(desired), world, *NOW)
}

/// The plan where nothing was served before.
fn first(desired: &Target, world: &World) -> Plan {
    plan(Ok(desired), None, world, *NOW)
}

/// The plan where `a` is served and `b` is the newest.
fn rolling(world: &World) -> Plan {
    plan(Ok(&target("b")), Some(&target("a")), world, *NOW)
}

fn nothing() -> Plan {
    Plan::default()
}

fn wake(at: Instant) -> Plan {
    Plan {
        wake: Some(at),
        ..nothing()
    }
}

fn blocked() -> Blocked {
    Blocked {
        reason: Reason::SourceNotFound,
        message: "there is no ./sum".to_owned(),
        attempts: 0,
        retry_at: None,
    }
}

#[test]
fn a_new_function_is_built_and_proven_once() {
    let a = target("a");
    let image = |image| World { image, ..world() };
    let later = failure(1, Some(from_now(5)));
    for (what, world, expected) in [
        (
            "no image",
            image(ImageState::Missing),
            Plan {
                build: true,
                ..nothing()
            },
        ),
        ("being built", image(ImageState::Building), nothing()),
        (
            "built",
            world(),
            Plan {
                start: starts("a", 1),
                ..nothing()
            },
        ),
        (
            "failed, later again",
            image(ImageState::Failed(later)),
            wake(from_now(5)),
        ),
        (
            "failed, again now",
            image(ImageState::Failed(failure(9, Some(*NOW)))),
            Plan {
                build: true,
                ..nothing()
            },
        ),
        (
            "failed for good",
            image(ImageState::Failed(failure(1, None))),
            nothing(),
        ),
        (
            "starting",
            World {
                instances: vec![instance("a", "1", Phase::Starting)],
                ..world()
            },
            nothing(),
        ),
        (
            "proven elsewhere",
            proven(),
            Plan {
                serve: Some(revision("a")),
                ..nothing()
            },
        ),
        (
            "tried elsewhere",
            World {
                proving_elsewhere: true,
                ..world()
            },
            nothing(),
        ),
        (
            "tried elsewhere with callers here",
            World {
                proving_elsewhere: true,
                waiting: 1,
                ..world()
            },
            Plan {
                start: starts("a", 1),
                ..nothing()
            },
        ),
    ] {
        assert_eq!(first(&a, &world), expected, "{what}");
    }
}

#[test]
fn the_first_instance_serves_at_once_and_leaves_when_idle() {
    let world = World {
        instances: vec![ready("a", "1")],
        ..world()
    };
    let expected = Plan {
        serve: Some(revision("a")),
        wake: Some(from_now(IDLE - 1)),
        ..nothing()
    };
    assert_eq!(first(&target("a"), &world), expected);
}

#[test]
fn demand_starts_as_many_as_it_needs() {
    let a = target("a");
    let narrow = Target {
        max: 2,
        ..a.clone()
    };
    let waiting = |waiting, instances| World {
        waiting,
        instances,
        ..proven()
    };
    let start = |n| Plan {
        start: starts("a", n),
        ..nothing()
    };
    for (what, target, world, expected) in [
        ("nobody", &a, waiting(0, vec![]), nothing()),
        ("a cold start", &a, waiting(1, vec![]), start(1)),
        ("as many as one takes", &a, waiting(4, vec![]), start(1)),
        ("one more", &a, waiting(5, vec![]), start(2)),
        ("up to max", &narrow, waiting(1000, vec![]), start(2)),
        (
            "what starts counts",
            &a,
            waiting(4, vec![instance("a", "1", Phase::Starting)]),
            nothing(),
        ),
        (
            "beside the busy",
            &a,
            waiting(2, vec![busy("a", "1", 4)]),
            Plan {
                wake: Some(from_now(IDLE)),
                ..start(1)
            },
        ),
        (
            "never above max",
            &narrow,
            waiting(9, vec![busy("a", "1", 4), busy("a", "2", 4)]),
            wake(from_now(IDLE)),
        ),
        (
            "the condemned do not count",
            &a,
            waiting(
                1,
                vec![Instance {
                    in_flight: 1,
                    ..instance("a", "1", Phase::Condemned)
                }],
            ),
            start(1),
        ),
    ] {
        assert_eq!(steady(target, &world), expected, "{what}");
    }
}

#[test]
fn demand_counts_before_the_first_proof() {
    let world = World {
        waiting: 9,
        ..world()
    };
    assert_eq!(
        first(&target("a"), &world),
        Plan {
            start: starts("a", 3),
            ..nothing()
        }
    );
}

#[test]
fn min_is_kept_warm() {
    let a = Target {
        min: 2,
        ..target("a")
    };
    for (what, instances, expected) in [
        (
            "none",
            vec![],
            Plan {
                start: starts("a", 2),
                ..nothing()
            },
        ),
        (
            "one",
            vec![ready("a", "1")],
            Plan {
                start: starts("a", 1),
                ..nothing()
            },
        ),
        (
            "both, idle for ever",
            vec![idle("a", "1", 9000), idle("a", "2", 9000)],
            nothing(),
        ),
    ] {
        assert_eq!(
            steady(
                &a,
                &World {
                    instances,
                    ..proven()
                }
            ),
            expected,
            "{what}"
        );
    }
}

#[test]
fn idle_instances_leave() {
    let when_idle = |ids: &[&str]| {
        ids.iter()
            .map(|id| Stop::WhenIdle((*id).to_owned()))
            .collect::<Vec<_>>()
    };
    for (what, min, max, instances, expected) in [
        (
            "not yet",
            0,
            10,
            vec![idle("a", "1", 299)],
            wake(from_now(1)),
        ),
        (
            "to zero",
            0,
            10,
            vec![idle("a", "1", 300)],
            Plan {
                stop: when_idle(&["1"]),
                ..nothing()
            },
        ),
        (
            "down to min, the youngest",
            1,
            10,
            vec![idle("a", "1", 300), idle("a", "2", 300)],
            Plan {
                stop: when_idle(&["2"]),
                wake: Some(from_now(IDLE)),
                ..nothing()
            },
        ),
        (
            "all that are due",
            0,
            10,
            vec![idle("a", "1", 300), idle("a", "2", 300), idle("a", "3", 10)],
            Plan {
                stop: when_idle(&["2", "1"]),
                wake: Some(from_now(290)),
                ..nothing()
            },
        ),
        (
            "the busy may be idle later",
            0,
            10,
            vec![busy("a", "1", 1)],
            wake(from_now(IDLE)),
        ),
        (
            "the kept may be busy for ever",
            1,
            10,
            vec![busy("a", "1", 1)],
            nothing(),
        ),
        (
            "what load needs stays",
            0,
            10,
            vec![busy("a", "1", 5), idle("a", "2", 300)],
            wake(from_now(IDLE)),
        ),
        (
            "above a max that was lowered",
            0,
            1,
            vec![ready("a", "1"), ready("a", "2")],
            Plan {
                stop: when_idle(&["2"]),
                wake: Some(from_now(IDLE - 1)),
                ..nothing()
            },
        ),
    ] {
        let a = Target {
            min,
            max,
            ..target("a")
        };
        assert_eq!(
            steady(
                &a,
                &World {
                    instances,
                    ..proven()
                }
            ),
            expected,
            "{what}"
        );
    }
}

#[test]
fn the_switch_comes_when_nobody_has_to_wait_for_it() {
    let old = || idle("a", "old", 1);
    let switch = |plan: Plan| Plan {
        serve: Some(revision("b")),
        ..plan
    };
    let later = wake(from_now(IDLE - 1));
    let old_leaves = Plan {
        stop: vec![Stop::WhenIdle("old".to_owned())],
        ..nothing()
    };
    let three = || {
        [1, 2, 3]
            .map(|n| busy("a", &n.to_string(), 3))
            .into_iter()
            .chain([ready("b", "new")])
            .collect()
    };
    for (what, world, expected) in [
        (
            "a warm old one waits for one",
            World {
                instances: vec![old()],
                ..proven()
            },
            Plan {
                start: starts("b", 1),
                ..later.clone()
            },
        ),
        (
            "and until it is ready",
            World {
                instances: vec![old(), instance("b", "new", Phase::Starting)],
                ..proven()
            },
            later.clone(),
        ),
        (
            "then it leaves",
            World {
                instances: vec![old(), ready("b", "new")],
                ..proven()
            },
            switch(Plan {
                wake: later.wake,
                ..old_leaves.clone()
            }),
        ),
        (
            "an instance that is ready is a proof",
            World {
                instances: vec![old(), ready("b", "new")],
                ..world()
            },
            switch(Plan {
                wake: later.wake,
                ..old_leaves
            }),
        ),
        ("proven, and both at zero", proven(), switch(nothing())),
        (
            "proven once, but failing now",
            World {
                failure: Some(failure(1, Some(from_now(9)))),
                ..proven()
            },
            wake(from_now(9)),
        ),
        (
            "not proven, old at zero",
            world(),
            Plan {
                start: starts("b", 1),
                ..nothing()
            },
        ),
        (
            "the load of the old one counts",
            World {
                instances: three(),
                ..proven()
            },
            Plan {
                start: starts("b", 2),
                wake: Some(from_now(IDLE)),
                ..nothing()
            },
        ),
        (
            "but not beyond what can be started: failures",
            World {
                instances: three(),
                failure: Some(failure(1, None)),
                ..proven()
            },
            switch(wake(from_now(IDLE - 1))),
        ),
        (
            "but not beyond what can be started: memory",
            World {
                instances: three(),
                room: 0,
                ..proven()
            },
            switch(wake(from_now(IDLE - 1))),
        ),
    ] {
        assert_eq!(rolling(&world), expected, "{what}");
    }
}

#[test]
fn the_old_revision_serves_on_whatever_becomes_of_the_new_one() {
    let mut old = target("a");
    old.min = 1;
    let b = target("b");
    let new = b.clone();
    let kept = || World {
        instances: vec![idle("a", "1", 9000)],
        ..world()
    };
    let gone = world;
    let start = Plan {
        start: starts("a", 1),
        ..nothing()
    };
    let no = blocked();
    let broken = || ImageState::Failed(failure(1, None));
    let tired = || Some(failure(3, Some(ago(1))));
    for (what, newest, world, expected) in [
        ("blocked", Err(&no), kept(), nothing()),
        (
            "blocked, and the old one is gone",
            Err(&no),
            gone(),
            start.clone(),
        ),
        (
            "the image failed",
            Ok(&new),
            World {
                image: broken(),
                ..kept()
            },
            nothing(),
        ),
        (
            "the image failed, and the old one is gone",
            Ok(&new),
            World {
                image: broken(),
                ..gone()
            },
            start.clone(),
        ),
        (
            "the starts failed",
            Ok(&new),
            World {
                failure: tired(),
                ..kept()
            },
            nothing(),
        ),
        (
            "the starts failed, and the old one is gone",
            Ok(&new),
            World {
                failure: tired(),
                ..gone()
            },
            start,
        ),
        (
            "callers of the old one do not try the new one",
            Ok(&new),
            World {
                failure: tired(),
                waiting: 3,
                ..kept()
            },
            nothing(),
        ),
    ] {
        assert_eq!(plan(newest, Some(&old), &world, *NOW), expected, "{what}");
    }
    let orphan = World {
        instances: vec![ready("b", "new"), instance("b", "newer", Phase::Starting)],
        ..proven()
    };
    let expected = Plan {
        start: starts("a", 1),
        stop: vec![
            Stop::WhenIdle("new".to_owned()),
            Stop::Kill("newer".to_owned()),
        ],
        ..nothing()
    };
    assert_eq!(
        plan(Err(&no), Some(&old), &orphan, *NOW),
        expected,
        "what was on its way leaves"
    );
}

#[test]
fn a_source_that_cannot_be_read_now_is_tried_again() {
    let unavailable = || Blocked {
        reason: Reason::SourceUnavailable,
        ..blocked()
    };
    let first = unavailable().after(None, *NOW);
    assert_eq!((first.attempts, first.retry_at), (1, Some(from_now(1))));
    let second = unavailable().after(Some(&first), *NOW);
    assert_eq!((second.attempts, second.retry_at), (2, Some(from_now(2))));
    assert_eq!(
        blocked().after(Some(&second), *NOW),
        blocked(),
        "only an edit helps"
    );
    let world = World {
        waiting: 1,
        ..proven()
    };
    let expected = Plan {
        wake: second.retry_at,
        refuse: Some(Failure {
            reason: second.reason,
            message: second.message.clone(),
            attempts: 2,
            retry_at: second.retry_at,
        }),
        ..nothing()
    };
    assert_eq!(plan(Err(&second), None, &world, *NOW), expected);
}

#[test]
fn new_terms() {
    let old = target("a");
    let new = Target {
        min: 2,
        ..target("a")
    };
    let world = World {
        instances: vec![ready("a", "1")],
        ..proven()
    };
    let expected = Plan {
        serve: Some(revision("a")),
        start: starts("a", 1),
        ..nothing()
    };
    assert_eq!(plan(Ok(&new), Some(&old), &world, *NOW), expected);
    let no = blocked();
    let expected = wake(from_now(IDLE - 1));
    assert_eq!(
        plan(Err(&no), Some(&old), &world, *NOW),
        expected,
        "as long as there are none"
    );
}

#[test]
fn failures_are_tried_again_in_their_time() {
    let a = Target {
        min: 2,
        ..target("a")
    };
    for (what, attempts, retry_at, expected) in [
        ("not yet", 1, Some(from_now(2)), wake(from_now(2))),
        (
            "now, one at a time",
            1,
            Some(*NOW),
            Plan {
                start: starts("a", 1),
                wake: Some(from_now(30)),
                ..nothing()
            },
        ),
        ("tired", ATTEMPTS, Some(ago(5)), nothing()),
        ("only an edit helps", 1, None, nothing()),
    ] {
        let world = World {
            failure: Some(failure(attempts, retry_at)),
            ..proven()
        };
        assert_eq!(steady(&a, &world), expected, "{what}");
    }
    let world = World {
        failure: Some(failure(ATTEMPTS, Some(ago(5)))),
        waiting: 1,
        ..proven()
    };
    assert_eq!(
        steady(&a, &world),
        Plan {
            start: starts("a", 1),
            ..nothing()
        },
        "a caller is a reason to try"
    );
    let world = World {
        serving_failure: Some(failure(1, Some(from_now(2)))),
        ..proven()
    };
    assert_eq!(
        plan(Err(&blocked()), Some(&a), &world, *NOW),
        wake(from_now(2)),
        "the serving revision's own"
    );
}

#[test]
fn refusals() {
    let a = target("a");
    let no = blocked();
    let soon = failure(1, Some(from_now(2)));
    let hopeless = failure(1, None);
    let calls = |waiting| World {
        waiting,
        ..proven()
    };
    let refuse = |failure: &Failure| Some(failure.clone());
    let of_blocked = Failure {
        reason: no.reason,
        message: no.message.clone(),
        attempts: 0,
        retry_at: None,
    };
    let with = |failure: &Failure| World {
        failure: Some(failure.clone()),
        ..calls(1)
    };
    let image = |failure: &Failure| World {
        image: ImageState::Failed(failure.clone()),
        ..calls(1)
    };
    let other = target("old");
    for (what, newest, serving, world, expected) in [
        (
            "nobody waits",
            Ok(&a),
            Some(&a),
            World {
                waiting: 0,
                ..with(&soon)
            },
            None,
        ),
        ("starts fail", Ok(&a), Some(&a), with(&soon), refuse(&soon)),
        (
            "starts fail for good",
            Ok(&a),
            Some(&a),
            with(&hopeless),
            refuse(&hopeless),
        ),
        (
            "before the first proof",
            Ok(&a),
            None,
            World {
                proven: false,
                ..with(&soon)
            },
            refuse(&soon),
        ),
        (
            "another try is under way",
            Ok(&a),
            Some(&a),
            World {
                instances: vec![instance("a", "1", Phase::Starting)],
                waiting: 9,
                ..with(&soon)
            },
            None,
        ),
        (
            "one is busy",
            Ok(&a),
            Some(&a),
            World {
                instances: vec![busy("a", "1", 4)],
                ..with(&soon)
            },
            None,
        ),
        (
            "one is on probation",
            Ok(&a),
            Some(&a),
            World {
                instances: vec![instance("a", "1", Phase::Probation(*NOW))],
                ..with(&soon)
            },
            None,
        ),
        (
            "the try is due",
            Ok(&a),
            Some(&a),
            with(&failure(2, Some(*NOW))),
            None,
        ),
        (
            "the new one fails, the old one serves",
            Ok(&a),
            Some(&other),
            with(&soon),
            None,
        ),
        (
            "the image failed",
            Ok(&a),
            None,
            image(&hopeless),
            refuse(&hopeless),
        ),
        (
            "the image will be tried",
            Ok(&a),
            None,
            image(&soon),
            refuse(&soon),
        ),
        (
            "the image is tried",
            Ok(&a),
            None,
            image(&failure(1, Some(*NOW))),
            None,
        ),
        (
            "the serving image was lost and failed",
            Ok(&a),
            Some(&a),
            image(&hopeless),
            refuse(&hopeless),
        ),
        (
            "the image failed, the old one serves",
            Ok(&a),
            Some(&other),
            image(&hopeless),
            None,
        ),
        ("blocked", Err(&no), None, calls(1), refuse(&of_blocked)),
        (
            "blocked, the old one serves",
            Err(&no),
            Some(&other),
            calls(1),
            None,
        ),
        ("blocked, nobody waits", Err(&no), None, calls(0), None),
    ] {
        assert_eq!(
            plan(newest, serving, &world, *NOW).refuse,
            expected,
            "{what}"
        );
    }
}

#[test]
fn a_single_call_revision_has_one_ahead() {
    let single = Target {
        concurrency: 1,
        manners: Manners::Single,
        ..target("a")
    };
    let used = |instances| World {
        last_call: Some(ago(100)),
        instances,
        ..proven()
    };
    let start = |n| Plan {
        start: starts("a", n),
        ..nothing()
    };
    for (what, world, expected) in [
        ("never called", proven(), nothing()),
        (
            "in use",
            used(vec![]),
            Plan {
                wake: Some(from_now(200)),
                ..start(1)
            },
        ),
        (
            "one is ahead",
            used(vec![ready("a", "1")]),
            wake(from_now(200)),
        ),
        (
            "while one is busy",
            used(vec![busy("a", "1", 1)]),
            Plan {
                wake: Some(from_now(200)),
                ..start(1)
            },
        ),
        (
            "callers and one ahead",
            World {
                waiting: 2,
                ..used(vec![])
            },
            Plan {
                wake: Some(from_now(200)),
                ..start(3)
            },
        ),
        (
            "no longer in use",
            World {
                last_call: Some(ago(300)),
                instances: vec![idle("a", "1", 300)],
                ..proven()
            },
            Plan {
                stop: vec![Stop::WhenIdle("1".to_owned())],
                ..nothing()
            },
        ),
    ] {
        assert_eq!(steady(&single, &world), expected, "{what}");
    }
}

#[test]
fn probation() {
    let a = Target {
        manners: Manners::Unknown,
        max: 1,
        ..target("a")
    };
    let half = Duration::from_millis(500);
    let on = |since| instance("a", "1", Phase::Probation(since));
    for (what, waiting, instances, expected) in [
        ("not yet over", 0, vec![on(*NOW - half)], wake(*NOW + half)),
        (
            "over",
            0,
            vec![on(ago(1))],
            Plan {
                settle: vec!["1".to_owned()],
                wake: Some(from_now(IDLE)),
                ..nothing()
            },
        ),
        (
            "it counts towards max",
            3,
            vec![on(*NOW - half)],
            wake(*NOW + half),
        ),
    ] {
        assert_eq!(
            steady(
                &a,
                &World {
                    waiting,
                    instances,
                    ..proven()
                }
            ),
            expected,
            "{what}"
        );
    }
    let wide = Target { max: 2, ..a };
    let world = World {
        waiting: 3,
        instances: vec![on(*NOW - half)],
        ..proven()
    };
    let expected = Plan {
        start: starts("a", 1),
        ..wake(*NOW + half)
    };
    assert_eq!(
        steady(&wide, &world),
        expected,
        "callers do not wait for its end"
    );
}

#[test]
fn a_single_call_instance_leaves_by_itself_unless_its_place_is_needed() {
    let single = |max| Target {
        concurrency: 1,
        manners: Manners::Single,
        max,
        ..target("a")
    };
    let half = Duration::from_millis(500);
    let leaving = |id, since| instance("a", id, Phase::Leaving(since));
    let one = || leaving("1", *NOW - half);
    let two = || vec![leaving("1", *NOW - half), leaving("2", *NOW - half)];
    let used = |instances| World {
        last_call: Some(*NOW - half),
        instances,
        ..proven()
    };
    let stopped = |ids: &[&str]| -> Vec<Stop> {
        let ids = ids.iter().map(|id| (*id).to_owned());
        ids.map(Stop::Drained).collect()
    };
    let (begun, none) = (starts("a", 1), Vec::new());
    for (what, max, world, start, stop) in [
        ("beside its successor", 2, used(vec![one()]), &begun, none),
        (
            "and while that is there",
            2,
            used(vec![one(), ready("a", "next")]),
            &vec![],
            vec![],
        ),
        (
            "it takes too long",
            10,
            used(vec![leaving("1", ago(1))]),
            &begun,
            stopped(&["1"]),
        ),
        (
            "its successor takes its place at once",
            1,
            used(vec![one()]),
            &begun,
            stopped(&["1"]),
        ),
        (
            "the older gives way",
            2,
            used(two()),
            &begun,
            stopped(&["1"]),
        ),
        (
            "there is no memory for its successor",
            10,
            World {
                room: 0,
                ..used(vec![one()])
            },
            &vec![],
            stopped(&["1"]),
        ),
        (
            "others need memory",
            10,
            World {
                pressure: true,
                ..used(two())
            },
            &begun,
            stopped(&["2", "1"]),
        ),
    ] {
        let plan = steady(&single(max), &world);
        assert_eq!((&plan.start, plan.stop), (start, stop), "{what}");
    }
    assert_eq!(
        steady(
            &single(1),
            &World {
                last_call: None,
                ..used(vec![one()])
            }
        ),
        wake(*NOW + half),
        "the plan looks again"
    );
    let old = used(vec![one()]);
    assert_eq!(
        steady(&target("b"), &old).stop,
        stopped(&["1"]),
        "another revision serves"
    );
    assert_eq!(dismantle(&old).stop, stopped(&["1"]), "deleted");
}

#[test]
fn what_is_out_of_service_is_cleaned_up() {
    let a = target("a");
    let id = || "1".to_owned();
    for (phase, idle_stop, busy_stop) in [
        (Phase::Condemned, Some(Stop::Kill(id())), None),
        (Phase::Draining, Some(Stop::Drained(id())), None),
        (Phase::Stopping, None, None),
    ] {
        for name in ["a", "other"] {
            for (in_flight, expected) in [(0, &idle_stop), (1, &busy_stop)] {
                let world = World {
                    instances: vec![Instance {
                        in_flight,
                        ..instance(name, "1", phase)
                    }],
                    ..proven()
                };
                let expected = Plan {
                    stop: expected.iter().cloned().collect(),
                    ..nothing()
                };
                assert_eq!(
                    steady(&a, &world),
                    expected,
                    "{phase:?} of {name} with {in_flight}"
                );
                assert_eq!(
                    dismantle(&world),
                    expected,
                    "{phase:?} of {name} with {in_flight}, deleted"
                );
            }
        }
    }
}

#[test]
fn a_deleted_function_leaves_nothing() {
    let world = World {
        instances: vec![
            ready("a", "idle"),
            busy("a", "busy", 1),
            instance("a", "starting", Phase::Starting),
            instance("b", "probation", Phase::Probation(*NOW)),
        ],
        waiting: 3,
        ..proven()
    };
    let stop = vec![
        Stop::WhenIdle("idle".to_owned()),
        Stop::Kill("starting".to_owned()),
        Stop::WhenIdle("probation".to_owned()),
    ];
    assert_eq!(dismantle(&world), Plan { stop, ..nothing() });
}

#[test]
fn a_lost_image() {
    let a = Target {
        min: 1,
        ..target("a")
    };
    let lost = || World {
        image: ImageState::Missing,
        waiting: 1,
        ..proven()
    };
    assert_eq!(
        steady(&a, &lost()),
        Plan {
            build: true,
            ..nothing()
        },
        "nothing starts before it is built again"
    );
    let same_image = Target {
        revision: revision("b"),
        ..a.clone()
    };
    let expected = Plan {
        build: true,
        ..nothing()
    };
    assert_eq!(
        plan(Ok(&same_image), Some(&a), &lost(), *NOW),
        expected,
        "for an older revision of it too"
    );
    let expected = Plan {
        build: true,
        start: starts("a", 1),
        ..nothing()
    };
    assert_eq!(
        plan(Ok(&target("b")), Some(&a), &lost(), *NOW),
        expected,
        "another image is no matter"
    );
}

#[test]
fn a_lost_image_of_what_serves() {
    let old = target("a");
    let new = target("b");
    let no = blocked();
    let gone = |serving_image| World {
        image: ImageState::Failed(failure(1, None)),
        serving_image,
        waiting: 1,
        ..proven()
    };
    let rebuild = || Plan {
        rebuild: true,
        ..nothing()
    };
    let soon = failure(1, Some(from_now(2)));
    let refused = || Plan {
        refuse: Some(soon.clone()),
        ..wake(from_now(2))
    };
    for (what, newest, state, expected) in [
        (
            "it is built again",
            Ok(&new),
            ImageState::Missing,
            rebuild(),
        ),
        (
            "whatever the newest is",
            Err(&no),
            ImageState::Missing,
            rebuild(),
        ),
        (
            "it is being built",
            Ok(&new),
            ImageState::Building,
            nothing(),
        ),
        (
            "it failed",
            Ok(&new),
            ImageState::Failed(soon.clone()),
            refused(),
        ),
        (
            "it is tried again",
            Ok(&new),
            ImageState::Failed(failure(1, Some(*NOW))),
            rebuild(),
        ),
        (
            "it is there again",
            Ok(&new),
            ImageState::Ready,
            Plan {
                start: starts("a", 1),
                ..nothing()
            },
        ),
    ] {
        let plan = plan(newest, Some(&old), &gone(state), *NOW);
        assert_eq!(plan, expected, "{what}");
    }
    let replaced = World {
        image: ImageState::Ready,
        waiting: 0,
        ..gone(ImageState::Missing)
    };
    let expected = Plan {
        serve: Some(revision("b")),
        ..nothing()
    };
    assert_eq!(rolling(&replaced), expected, "nobody needs it any more");
}

#[test]
fn memory() {
    let a = target("a");
    let starved = |plan: Plan| Plan {
        starved: true,
        ..plan
    };
    let start = |n| Plan {
        start: starts("a", n),
        ..nothing()
    };
    for (what, waiting, room, expected) in [
        ("enough", 8, 2, start(2)),
        ("for some", 9, 2, starved(start(2))),
        ("none", 1, 0, starved(nothing())),
        ("none is needed", 0, 0, nothing()),
    ] {
        assert_eq!(
            steady(
                &a,
                &World {
                    waiting,
                    room,
                    ..proven()
                }
            ),
            expected,
            "{what}"
        );
    }
    let pressed = |instance| World {
        instances: vec![instance],
        pressure: true,
        ..proven()
    };
    let expected = Plan {
        stop: vec![Stop::WhenIdle("1".to_owned())],
        ..nothing()
    };
    assert_eq!(
        steady(&a, &pressed(ready("a", "1"))),
        expected,
        "idle ones leave for others"
    );
    assert_eq!(
        steady(&a, &pressed(busy("a", "1", 1))),
        wake(from_now(1)),
        "busy ones soon"
    );
    let kept = Target {
        min: 1,
        ..target("a")
    };
    assert_eq!(
        steady(&kept, &pressed(ready("a", "1"))),
        nothing(),
        "the kept stay"
    );
    let both = World {
        room: 1,
        waiting: 4,
        instances: vec![busy("a", "1", 4)],
        ..proven()
    };
    let b = Target {
        min: 2,
        ..target("b")
    };
    let expected = starved(Plan {
        start: starts("b", 1),
        wake: Some(from_now(IDLE)),
        ..nothing()
    });
    assert_eq!(
        plan(Ok(&b), Some(&a), &both, *NOW),
        expected,
        "the room is there once"
    );
}

#[test]
fn an_older_revision_gives_way_where_the_newest_keeps_none_warm() {
    let old = Target {
        min: 1,
        ..target("a")
    };
    for (min, stop) in [(1, vec![]), (0, vec![Stop::WhenIdle("1".to_owned())])] {
        let world = World {
            instances: vec![ready("a", "1")],
            room: 0,
            pressure: true,
            ..world()
        };
        let new = Target { min, ..target("b") };
        let expected = Plan {
            starved: true,
            stop,
            ..nothing()
        };
        assert_eq!(
            plan(Ok(&new), Some(&old), &world, *NOW),
            expected,
            "min {min}"
        );
    }
}

#[test]
fn forgiveness() {
    let failed = |attempts, seconds| Some(failure(attempts, Some(ago(seconds))));
    let old = |name: &str| idle(name, "1", 9000);
    let min = |n| Target {
        min: n,
        ..target("b")
    };
    let over = vec![revision("b")];
    let single = Target {
        manners: Manners::Single,
        ..min(1)
    };
    let young = || Instance {
        since: ago(2),
        ..old("b")
    };
    let starting = || instance("b", "1", Phase::Starting);
    let none = Vec::new;
    for (what, target, attempts, failed_ago, instances, expected) in [
        (
            "nobody has needed it for a while",
            min(0),
            2,
            30,
            none(),
            over.clone(),
        ),
        ("not yet", min(0), 2, 29, none(), none_over()),
        ("tired", min(0), ATTEMPTS, 9000, none(), none_over()),
        (
            "an instance lives on",
            min(1),
            ATTEMPTS,
            30,
            vec![old("b")],
            over.clone(),
        ),
        ("a short life", min(1), 1, 30, vec![young()], none_over()),
        (
            "a long life before",
            min(1),
            1,
            29,
            vec![old("b")],
            none_over(),
        ),
        (
            "the life of another revision",
            min(0),
            ATTEMPTS,
            30,
            vec![old("a")],
            none_over(),
        ),
        (
            "a start is under way",
            min(1),
            2,
            9000,
            vec![starting()],
            none_over(),
        ),
        (
            "short lives are the rule",
            single.clone(),
            1,
            30,
            vec![young()],
            over.clone(),
        ),
    ] {
        let world = World {
            failure: failed(attempts, failed_ago),
            instances,
            ..proven()
        };
        assert_eq!(steady(&target, &world).forgive, expected, "{what}");
    }
    let world = World {
        failure: Some(failure(1, None)),
        instances: vec![old("b")],
        ..proven()
    };
    assert_eq!(
        steady(&min(1), &world).forgive,
        none_over(),
        "only an edit helps"
    );
    let world = World {
        failure: failed(1, 1),
        serving_failure: failed(1, 40),
        instances: vec![old("a"), old("b")],
        ..proven()
    };
    assert_eq!(
        rolling(&world).forgive,
        [revision("a")],
        "each revision by itself"
    );
}

fn none_over() -> Vec<Revision> {
    Vec::new()
}
