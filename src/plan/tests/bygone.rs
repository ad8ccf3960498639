//! What served before a restart, and cannot be made again as it was.

use super::*;

/// Kept warm twice, and called once.
fn bygone() -> Target {
    Target {
        min: 2,
        startable: false,
        ..target("a")
    }
}

fn with(instances: Vec<Instance>) -> World {
    World {
        instances,
        demand: waits(9),
        ..world()
    }
}

#[test]
fn no_instance_of_it_is_started_or_ended_for_being_the_last() {
    let long = IDLE + 1;
    let two = || vec![idle("a", "1", long), idle("a", "2", long)];
    let lazy = Target { min: 0, ..bygone() };
    let stop = |id: &str| Plan {
        stop: vec![Stop::WhenIdle(id.to_owned())],
        ..wake(from_now(1))
    };
    let calm = |instances| World {
        demand: Demand::default(),
        pressure: true,
        ..with(instances)
    };
    let missing = |world| World {
        serving_image: ImageState::Missing,
        ..world
    };
    for (what, serving, world, expected) in [
        (
            "callers wait for it",
            bygone(),
            with(vec![ready("a", "1")]),
            nothing(),
        ),
        (
            "the last one stays",
            lazy.clone(),
            calm(vec![idle("a", "1", long)]),
            nothing(),
        ),
        ("others go", lazy.clone(), calm(two()), stop("2")),
        (
            "its image is not needed",
            lazy,
            missing(calm(vec![ready("a", "1")])),
            nothing(),
        ),
    ] {
        let planned = plan(Err(&blocked()), Some(&serving), &world, *NOW);
        assert_eq!(planned, expected, "{what}");
    }
}

#[test]
fn the_newest_takes_its_place_when_it_is_ready_or_when_nothing_of_it_lives() {
    let b = target("b");
    let after = |world: &World| plan(Ok(&b), Some(&bygone()), world, *NOW);
    let starts = Plan {
        start: starts("b", 1),
        ..nothing()
    };
    assert_eq!(
        after(&with(vec![ready("a", "1")])),
        starts,
        "first it serves on"
    );
    let crowded = World {
        room: 0,
        ..with(vec![idle("a", "1", IDLE)])
    };
    let starved = Plan {
        starved: true,
        ..nothing()
    };
    assert_eq!(after(&crowded), starved, "nor does it go to make room");
    let both = after(&with(vec![ready("a", "1"), ready("b", "2")]));
    assert_eq!(both.serve, Some(b.revision.clone()));
    assert_eq!(both.stop, [Stop::WhenIdle("1".to_owned())]);

    // Callers wait for the newest then, and hear of its troubles.
    let gone = World {
        failure: Some(failure(1, None)),
        ..with(vec![instance("a", "1", Phase::Stopping)])
    };
    assert_eq!(after(&gone).refuse, gone.failure);
    let blocked = blocked();
    let refused = plan(Err(&blocked), Some(&bygone()), &with(vec![]), *NOW).refuse;
    assert_eq!(
        refused.map(|failure| failure.message),
        Some(blocked.message)
    );
}

#[test]
fn what_is_known_again_can_be_started_again() {
    let back = Target {
        startable: true,
        ..bygone()
    };
    let planned = plan(
        Ok(&back),
        Some(&bygone()),
        &with(vec![ready("a", "1")]),
        *NOW,
    );
    assert_eq!(planned.serve, Some(back.revision.clone()));
    assert_eq!(planned.start, starts("a", 2));
}
