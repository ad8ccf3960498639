//! From one revision to the next.

use super::*;

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
                demand: waits(3),
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
