//! What a start needs: an image, and memory.

use super::*;

#[test]
fn a_lost_image() {
    let a = Target {
        min: 1,
        ..target("a")
    };
    let lost = || World {
        image: ImageState::Missing,
        demand: waits(1),
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
        demand: waits(1),
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
        demand: waits(0),
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
                    demand: waits(waiting),
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
        demand: waits(4),
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
