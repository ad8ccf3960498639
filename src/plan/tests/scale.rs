//! How many instances there are.

use super::*;

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
        ("about to be built", image(ImageState::Queued), nothing()),
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
                demand: waits(1),
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
        demand: waits(waiting),
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
        demand: waits(9),
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
