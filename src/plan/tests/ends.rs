//! How instances end.

use super::*;

#[test]
fn a_single_call_revision_has_one_ahead() {
    let single = Target {
        concurrency: 1,
        manners: Manners::Single,
        ..target("a")
    };
    let used = |instances| World {
        demand: called(ago(100)),
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
                demand: Demand {
                    waiting: 2,
                    ..called(ago(100))
                },
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
                demand: called(ago(300)),
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
                    demand: waits(waiting),
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
        demand: waits(3),
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
        demand: called(*NOW - half),
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
                demand: Demand::default(),
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
fn what_a_call_broke_off_on_may_crash_by_itself() {
    let a = Target {
        min: 1,
        ..target("a")
    };
    let broken = || instance("a", "1", Phase::Broken(ago(1)));
    let world = World {
        instances: vec![broken(), ready("a", "2")],
        ..proven()
    };
    let left = Plan {
        wake: Some(from_now(4)),
        ..nothing()
    };
    assert_eq!(steady(&a, &world), left);
    let world = World {
        instances: vec![broken()],
        ..proven()
    };
    let replaced = Plan {
        start: starts("a", 1),
        ..left
    };
    assert_eq!(steady(&a, &world), replaced, "it counts no more");
    assert_eq!(
        dismantle(&world).stop,
        [Stop::Kill("1".to_owned())],
        "nobody is told any more"
    );
}

#[test]
fn as_many_again_as_may_serve_may_be_leaving() {
    let a = Target {
        max: 2,
        ..target("a")
    };
    let held = |id, phase| Instance {
        in_flight: 1,
        ..instance("a", id, phase)
    };
    let two = [
        held("1", Phase::Condemned),
        held("2", Phase::Broken(ago(60))),
    ];
    let three = [&two[..], &[held("3", Phase::Draining)]].concat();
    let four = [&three[..], &[held("4", Phase::Leaving(ago(0)))]].concat();
    let ends = instance("a", "5", Phase::Stopping);
    for (instances, expected) in [
        (two.to_vec(), starts("a", 2)),
        (three.clone(), starts("a", 1)),
        (four.clone(), vec![]),
        ([&three[..], &[ends]].concat(), starts("a", 1)),
    ] {
        let world = World {
            demand: waits(100),
            instances,
            ..proven()
        };
        assert_eq!(steady(&a, &world).start, expected, "{world:?}");
    }
}

#[test]
fn what_is_out_of_service_is_cleaned_up() {
    let a = target("a");
    let id = || "1".to_owned();
    for (phase, idle_stop, busy_stop) in [
        (Phase::Condemned, Some(Stop::Kill(id())), None),
        (Phase::Draining, Some(Stop::Drained(id())), None),
        (Phase::Broken(ago(5)), Some(Stop::Kill(id())), None),
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
        demand: waits(3),
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
fn a_start_is_called_off_when_everyone_has_left_who_waited() {
    let begun = |id: &str, before| Instance {
        since: ago(before),
        ..instance("a", id, Phase::Starting)
    };
    let left = |before| Demand {
        last_left: Some(ago(before)),
        ..Demand::default()
    };
    let kill = |id: &str| Plan {
        stop: vec![Stop::Kill(id.to_owned())],
        ..nothing()
    };
    let one = Target {
        min: 1,
        ..target("a")
    };
    for (what, active, demand, instances, expected) in [
        (
            "all wait still",
            target("a"),
            waits(1),
            vec![begun("1", 9)],
            nothing(),
        ),
        (
            "who left asks again",
            target("a"),
            Demand {
                waiting: 1,
                ..left(9)
            },
            vec![begun("1", 9)],
            nothing(),
        ),
        (
            "they have just left",
            target("a"),
            left(0),
            vec![begun("1", 9)],
            wake(from_now(2)),
        ),
        (
            "they have left for good",
            target("a"),
            left(2),
            vec![begun("1", 9)],
            kill("1"),
        ),
        (
            "they left before it began",
            target("a"),
            left(9),
            vec![begun("1", 2)],
            nothing(),
        ),
        (
            "one is kept warm",
            one.clone(),
            left(2),
            vec![begun("1", 9)],
            nothing(),
        ),
        (
            "one more than is kept warm",
            one,
            left(2),
            vec![begun("1", 9), begun("2", 9)],
            kill("2"),
        ),
        (
            "another is in use",
            target("a"),
            left(2),
            vec![busy("a", "0", 1), begun("1", 9)],
            wake(from_now(IDLE)),
        ),
    ] {
        let world = World {
            demand,
            instances,
            ..proven()
        };
        assert_eq!(steady(&active, &world), expected, "{what}");
    }
}

#[test]
fn one_ahead_of_a_single_call_revision_is_not_called_off() {
    let single = Target {
        concurrency: 1,
        manners: Manners::Single,
        ..target("a")
    };
    let world = World {
        demand: Demand {
            last_left: Some(ago(2)),
            ..called(ago(100))
        },
        instances: vec![Instance {
            since: ago(9),
            ..instance("a", "1", Phase::Starting)
        }],
        ..proven()
    };
    assert_eq!(steady(&single, &world), wake(from_now(200)));
}
