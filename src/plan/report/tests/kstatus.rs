//! Readiness as kstatus computes it, by tables and whatever happens.

use super::*;
use crate::plan::{ATTEMPTS, plan};

#[test]
fn the_table_of_kstatus() {
    let served = Known::served(0);
    let kept = Known::served(1);
    let new = Known {
        serving: None,
        ..served.clone()
    };
    let rolling = Known {
        serving: Some(target("old", 0)),
        ..served.clone()
    };
    let unreadable = Known {
        desired: Err(Blocked {
            retry_at: Some(Instant::now()),
            ..blocked()
        }),
        ..served.clone()
    };
    let blocked = Known {
        desired: Err(blocked()),
        ..served.clone()
    };
    let away = Known {
        engine: Some("no socket"),
        ..served.clone()
    };
    let starved = Known {
        starved: Some(Shortage {
            needed: 1,
            bound: 2,
        }),
        ..kept.clone()
    };
    let image = |image| World { image, ..world() };
    let one = |phase| World {
        instances: vec![instance("a", phase)],
        ..world()
    };
    let failing = |attempts, again| World {
        failure: Some(failure(attempts, again)),
        ..world()
    };
    for (what, known, world, expected) in [
        (
            "queued",
            &new,
            image(ImageState::Missing),
            ("Unknown", "Queued", "InProgress"),
        ),
        (
            "in the queue",
            &new,
            image(ImageState::Queued),
            ("Unknown", "Queued", "InProgress"),
        ),
        (
            "building",
            &new,
            image(ImageState::Building),
            ("Unknown", "Building", "InProgress"),
        ),
        (
            "starting",
            &new,
            one(Phase::Starting),
            ("Unknown", "Starting", "InProgress"),
        ),
        (
            "the old one serves on",
            &rolling,
            world(),
            ("Unknown", "Starting", "InProgress"),
        ),
        (
            "fewer than min",
            &kept,
            world(),
            ("Unknown", "Starting", "InProgress"),
        ),
        (
            "served",
            &served,
            one(Phase::Ready),
            ("True", "Ready", "Current"),
        ),
        (
            "served, on probation",
            &kept,
            one(Phase::Probation(Instant::now())),
            ("True", "Ready", "Current"),
        ),
        (
            "served at zero",
            &served,
            world(),
            ("True", "Idle", "Current"),
        ),
        (
            "a build failed for good",
            &served,
            image(ImageState::Failed(failure(1, false))),
            ("False", "StartFailed", "Failed"),
        ),
        (
            "a pull is tried for ever",
            &served,
            image(ImageState::Failed(failure(9, true))),
            ("False", "StartFailed", "InProgress"),
        ),
        (
            "starts fail",
            &new,
            failing(1, true),
            ("False", "StartFailed", "InProgress"),
        ),
        (
            "starts failed too often",
            &new,
            failing(ATTEMPTS, true),
            ("False", "StartFailed", "Failed"),
        ),
        (
            "starts failed for good",
            &new,
            failing(1, false),
            ("False", "StartFailed", "Failed"),
        ),
        (
            "blocked",
            &blocked,
            one(Phase::Ready),
            ("False", "SourceNotFound", "Failed"),
        ),
        (
            "a source is tried again",
            &unreadable,
            world(),
            ("False", "SourceNotFound", "InProgress"),
        ),
        (
            "the engine is away",
            &away,
            one(Phase::Ready),
            ("False", "EngineUnavailable", "InProgress"),
        ),
        (
            "no memory",
            &starved,
            world(),
            ("False", "NoCapacity", "InProgress"),
        ),
    ] {
        let (ready, reason, word) = summary(known, &world);
        assert_eq!((ready.as_str(), reason.as_str(), word), expected, "{what}");
    }
}

#[test]
fn a_failure_counts_where_callers_hear_of_it() {
    let idle = |attempts| Failure {
        crash: Some(Crash::Idle),
        ..failure(attempts, true)
    };
    let served = Known::served;
    let elsewhere = |min| Known {
        serving: None,
        ..served(min)
    };
    let (waited, unproven) = (
        World {
            demand: waits(1),
            ..world()
        },
        World {
            proven: false,
            ..world()
        },
    );
    let answers = World {
        instances: vec![instance("a", Phase::Ready)],
        ..world()
    };
    for (what, known, failure, world, passes) in [
        (
            "one crash, another answers",
            served(0),
            idle(1),
            &answers,
            true,
        ),
        (
            "one crash, min is there",
            served(1),
            idle(1),
            &answers,
            true,
        ),
        (
            "one crash, none is needed",
            served(0),
            idle(1),
            &world(),
            true,
        ),
        (
            "one crash, another is started for a caller",
            served(0),
            idle(1),
            &waited,
            true,
        ),
        (
            "one crash, min is not there",
            served(2),
            idle(1),
            &answers,
            false,
        ),
        (
            "two crashes: callers are refused for a while",
            served(0),
            idle(2),
            &world(),
            false,
        ),
        (
            "two crashes, and a caller who is refused",
            served(0),
            idle(2),
            &waited,
            false,
        ),
        (
            "two crashes, another answers",
            served(0),
            idle(2),
            &answers,
            false,
        ),
        (
            "too many crashes",
            served(0),
            idle(ATTEMPTS),
            &world(),
            false,
        ),
        ("not proven", served(0), idle(1), &unproven, false),
        ("another serves", elsewhere(0), idle(1), &world(), false),
        (
            "one failed start: callers are refused for a while",
            served(0),
            failure(1, true),
            &world(),
            false,
        ),
        (
            "one failed start beside what answers",
            served(0),
            failure(1, true),
            &answers,
            true,
        ),
        (
            "only an edit helps",
            served(0),
            failure(1, false),
            &answers,
            false,
        ),
    ] {
        let world = World {
            failure: Some(failure),
            ..world.clone()
        };
        let (ready, reason, _) = summary(&known, &world);
        let expected = if passes { "True" } else { "False" };
        assert_eq!(ready, expected, "{what}");
        assert_eq!(reason != "StartFailed", passes, "{what}");
        let conditions = known
            .status(&world, &FunctionStatus::default(), at(1))
            .conditions;
        assert_eq!(
            is_true(&conditions, ConditionType::Deployed),
            passes,
            "{what}"
        );
    }
}

fn any_image() -> impl Strategy<Value = ImageState> {
    prop_oneof![
        1 => Just(ImageState::Missing),
        1 => Just(ImageState::Queued),
        1 => Just(ImageState::Building),
        4 => Just(ImageState::Ready),
        1 => any_failure().prop_map(ImageState::Failed),
    ]
}

/// As the controller notes them: another instance is started at once only after a first crash.
fn any_failure() -> impl Strategy<Value = Failure> {
    let crash = prop::sample::select(vec![None, Some(Crash::Idle), Some(Crash::InCall)]);
    (1_u32..5, any::<bool>(), crash).prop_map(|(attempts, again, crash)| {
        let failure = failure(attempts, again || crash.is_some());
        let at_once = attempts == 1 && crash.is_some();
        let wait = Duration::from_secs(if at_once { 0 } else { 9 });
        Failure {
            retry_at: failure.retry_at.map(|now| now + wait),
            crash,
            ..failure
        }
    })
}

fn any_instance() -> impl Strategy<Value = Instance> {
    let phases = vec![
        Phase::Starting,
        Phase::Ready,
        Phase::Draining,
        Phase::Condemned,
        Phase::Stopping,
    ];
    (
        prop::sample::select(vec!["a", "b"]),
        prop::sample::select(phases),
    )
        .prop_map(|(name, phase)| instance(name, phase))
}

prop_compose! {
    fn any_world()(
        image in any_image(),
        instances in prop::collection::vec(any_instance(), 0..4),
        proven in any::<bool>(),
        failure in prop::option::of(any_failure()),
        waiting in 0_u32..2,
    ) -> World {
        World { image, instances, proven, failure, demand: waits(waiting), ..World::empty() }
    }
}

prop_compose! {
    fn any_known()(
        desired in prop::option::weighted(0.9, 0_u32..3),
        serving in prop::option::of(prop::sample::select(vec!["a", "b"])),
        away in any::<bool>(),
        starved in any::<bool>(),
        unmade in prop::option::weighted(0.2, any_failure()),
        held_up in any::<bool>(),
    ) -> Known {
        Known {
            desired: desired.map(|min| target("a", min)).ok_or_else(blocked),
            serving: serving.map(|name| target(name, 0)),
            engine: away.then_some("no socket"),
            unkept: None,
            isolation: None,
            starved: starved.then_some(Shortage { needed: 1, bound: 2 }),
            unmade,
            held_up: held_up.then_some("no node has room"),
        }
    }
}

proptest! {
    #[test]
    fn the_conditions_never_contradict_each_other(turns in prop::collection::vec((any_known(), any_world()), 1..5)) {
        let mut stored = FunctionStatus::default();
        for (second, (known, world)) in (1..).zip(turns) {
            let status = known.status(&world, &stored, at(second));
            let holds = |condition| is_true(&status.conditions, condition);
            let (working, stalled) = (holds(ConditionType::Reconciling), holds(ConditionType::Stalled));
            prop_assert!(!(working && stalled));
            prop_assert_eq!(holds(ConditionType::Ready), !working && !stalled, "one of the three");
            if holds(ConditionType::Ready) {
                prop_assert_eq!(&status.serving_revision, &status.revision);
                prop_assert!(holds(ConditionType::Serving) && holds(ConditionType::Built));
            }
            let failed = matches!(world.image, ImageState::Failed(_));
            prop_assert!(known.serving.is_some() || !holds(ConditionType::Serving));
            prop_assert!(holds(ConditionType::Serving) || known.serving.is_none() || failed);
            prop_assert_eq!(known.status(&world, &status, at(second + 100)), status.clone(), "said twice");
            stored = status;
        }
    }

    #[test]
    fn nobody_is_refused_while_the_status_says_ready(
        (min, other, world) in (0_u32..3, any::<bool>(), any_world()),
    ) {
        let mut known = Known::served(min);
        if other {
            known.serving = Some(target("b", 0));
        }
        let called = World { demand: waits(1), room: 9, ..world };
        let desired = known.desired.as_ref();
        let refused = plan(desired, known.serving.as_ref(), &called, Instant::now()).refuse;
        let (ready, reason, _) = summary(&known, &World { demand: waits(0), ..called });
        if let Some(refused) = refused {
            prop_assert_ne!(ready, "True");
            let refused: &str = refused.reason.into();
            prop_assert!(other || reason == refused, "{reason}, and calls are told {refused}");
        }
    }
}
