//! What is said of a Function, as kstatus and people read it.

#![allow(clippy::too_many_lines, reason = "tables are long")]

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use proptest::prelude::*;

use super::*;
use crate::{
    function::{
        Revision,
        status::{find, is_true},
    },
    plan::Manners,
};

fn target(name: &str, min: u32) -> Target {
    Target {
        revision: Revision::of([name.as_bytes()]),
        image: format!("image-{name}"),
        min,
        max: 10,
        concurrency: 4,
        idle_after: Duration::from_secs(300),
        manners: Manners::Stays,
    }
}

fn world() -> World {
    World {
        image: ImageState::Ready,
        proven: true,
        room: 9,
        ..World::empty()
    }
}

fn instance(name: &str, phase: Phase) -> Instance {
    let now = Instant::now();
    Instance {
        id: format!("{name}-1"),
        revision: Revision::of([name.as_bytes()]),
        phase,
        in_flight: 0,
        idle_since: now,
        since: now,
    }
}

fn failure(attempts: u32, again: bool) -> Failure {
    Failure {
        reason: Reason::StartFailed,
        message: "it exits at once".to_owned(),
        attempts,
        retry_at: again.then(Instant::now),
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

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// What the controller knows beside the world.
#[derive(Clone, Debug)]
struct Known {
    desired: Result<Target, Blocked>,
    serving: Option<Target>,
    engine: Option<&'static str>,
    starved: Option<Shortage>,
}

impl Known {
    /// Revision `a` is asked for and served.
    fn served(min: u32) -> Self {
        Self {
            desired: Ok(target("a", min)),
            serving: Some(target("a", min)),
            engine: None,
            starved: None,
        }
    }

    fn status(&self, world: &World, previous: &FunctionStatus, now: Timestamp) -> FunctionStatus {
        let key = "team/sum".parse().unwrap();
        let report = Report {
            key: &key,
            generation: 3,
            desired: self.desired.as_ref(),
            serving: self.serving.as_ref(),
            url: "http://here/functions/sum.team".to_owned(),
            last_build: None,
            engine: self.engine,
            starved: self.starved,
        };
        status(&report, world, previous, now)
    }
}

/// As `kubectl wait` and delivery tools compute it: the first of the two in the list's order decides, then `Ready`.
fn kstatus(conditions: &[Condition]) -> &'static str {
    let first = conditions
        .iter()
        .find(|c| c.status == "True" && (c.type_ == "Reconciling" || c.type_ == "Stalled"));
    match first.map(|c| c.type_.as_str()) {
        Some("Reconciling") => "InProgress",
        Some(_) => "Failed",
        None if is_true(conditions, ConditionType::Ready) => "Current",
        None => "InProgress",
    }
}

/// `Ready`, its reason, and the word of kstatus.
fn summary(known: &Known, world: &World) -> (String, String, &'static str) {
    let conditions = known
        .status(world, &FunctionStatus::default(), at(1))
        .conditions;
    let ready = find(&conditions, ConditionType::Ready).unwrap();
    (
        ready.status.clone(),
        ready.reason.clone(),
        kstatus(&conditions),
    )
}

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
fn a_crash_counts_only_where_it_stands_in_the_way() {
    let world = |min: u32, attempts, again, ready: bool| {
        let instances = if ready {
            vec![instance("a", Phase::Ready)]
        } else {
            Vec::new()
        };
        (
            Known::served(min),
            World {
                failure: Some(failure(attempts, again)),
                instances,
                ..world()
            },
        )
    };
    let (served, unproven) = world(0, 1, true, false);
    for (what, (known, world), expected) in [
        (
            "one crash, another answers",
            world(0, 1, true, true),
            ("True", "Ready"),
        ),
        (
            "one crash, min is there",
            world(1, 1, true, true),
            ("True", "Ready"),
        ),
        (
            "one crash, none is needed",
            world(0, 1, true, false),
            ("True", "Idle"),
        ),
        (
            "two crashes, none is needed until then",
            world(0, 2, true, false),
            ("True", "Idle"),
        ),
        (
            "two crashes, another answers",
            world(0, 2, true, true),
            ("False", "StartFailed"),
        ),
        (
            "one crash, min is not there",
            world(2, 1, true, true),
            ("False", "StartFailed"),
        ),
        (
            "too many crashes",
            world(0, ATTEMPTS, true, false),
            ("False", "StartFailed"),
        ),
        (
            "only an edit helps",
            world(0, 1, false, true),
            ("False", "StartFailed"),
        ),
        (
            "not proven",
            (
                served.clone(),
                World {
                    proven: false,
                    ..unproven.clone()
                },
            ),
            ("False", "StartFailed"),
        ),
        (
            "callers wait",
            (
                served.clone(),
                World {
                    waiting: 1,
                    ..unproven.clone()
                },
            ),
            ("False", "StartFailed"),
        ),
        (
            "another serves",
            (
                Known {
                    serving: None,
                    ..served
                },
                unproven,
            ),
            ("False", "StartFailed"),
        ),
    ] {
        let (ready, reason, _) = summary(&known, &world);
        assert_eq!((ready.as_str(), reason.as_str()), expected, "{what}");
        let conditions = known
            .status(&world, &FunctionStatus::default(), at(1))
            .conditions;
        assert_eq!(
            is_true(&conditions, ConditionType::Deployed),
            ready == "True",
            "{what}"
        );
    }
}

#[test]
fn each_condition_says_what_it_is_about() {
    let conditions = |known: &Known, world: &World| {
        let status = known.status(world, &FunctionStatus::default(), at(1));
        let short = |c: &Condition| format!("{}={} {}", c.type_, c.status, c.reason);
        status.conditions.iter().map(short).collect::<Vec<_>>()
    };
    let failed = World {
        image: ImageState::Failed(failure(1, false)),
        proven: false,
        ..world()
    };
    let known = Known {
        serving: Some(target("old", 0)),
        ..Known::served(0)
    };
    let expected = [
        "Ready=False StartFailed",
        "Stalled=True StartFailed",
        "SourceReady=True Ready",
        "Built=False StartFailed",
        "Deployed=Unknown Starting",
        "Serving=True Ready",
    ];
    assert_eq!(
        conditions(&known, &failed),
        expected,
        "a failed build while the old revision serves"
    );
    let known = Known {
        desired: Err(blocked()),
        serving: None,
        engine: None,
        starved: None,
    };
    let expected = [
        "Ready=False SourceNotFound",
        "Stalled=True SourceNotFound",
        "SourceReady=False SourceNotFound",
        "Serving=False Starting",
    ];
    assert_eq!(
        conditions(&known, &World::empty()),
        expected,
        "nothing can be read"
    );
    let expected = [
        "Ready=True Idle",
        "SourceReady=True Ready",
        "Built=True Ready",
        "Deployed=True Ready",
        "Serving=True Ready",
    ];
    assert_eq!(conditions(&Known::served(0), &world()), expected);
}

#[test]
fn the_rest_of_the_status() {
    let known = Known {
        serving: Some(target("old", 0)),
        ..Known::served(0)
    };
    let phases = [
        Phase::Starting,
        Phase::Ready,
        Phase::Draining,
        Phase::Stopping,
    ];
    let instances = phases.map(|phase| instance("a", phase)).to_vec();
    let status = known.status(
        &World {
            instances,
            ..world()
        },
        &FunctionStatus::default(),
        at(1),
    );
    let expected = FunctionStatus {
        observed_generation: Some(3),
        revision: Some(target("a", 0).revision.to_string()),
        serving_revision: Some(target("old", 0).revision.to_string()),
        image: Some("image-a".to_owned()),
        replicas: 3,
        ready_replicas: 1,
        selector: Some("faas.dev/namespace=team,faas.dev/function=sum".to_owned()),
        url: Some("http://here/functions/sum.team".to_owned()),
        last_build: None,
        conditions: status.conditions.clone(),
    };
    assert_eq!(status, expected);
    let blocked = Known {
        desired: Err(blocked()),
        ..known
    };
    let after = blocked.status(&World::empty(), &status, at(2));
    assert_eq!(
        (after.revision, after.image),
        (status.revision, status.image),
        "the last that was known"
    );
}

fn any_image() -> impl Strategy<Value = ImageState> {
    prop_oneof![
        1 => Just(ImageState::Missing),
        1 => Just(ImageState::Building),
        4 => Just(ImageState::Ready),
        1 => any_failure().prop_map(ImageState::Failed),
    ]
}

fn any_failure() -> impl Strategy<Value = Failure> {
    (1_u32..5, any::<bool>()).prop_map(|(attempts, again)| failure(attempts, again))
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
        World { image, instances, proven, failure, waiting, ..World::empty() }
    }
}

prop_compose! {
    fn any_known()(
        desired in prop::option::weighted(0.9, 0_u32..3),
        serving in prop::option::of(prop::sample::select(vec!["a", "b"])),
        away in any::<bool>(),
        starved in any::<bool>(),
    ) -> Known {
        Known {
            desired: desired.map(|min| target("a", min)).ok_or_else(blocked),
            serving: serving.map(|name| target(name, 0)),
            engine: away.then_some("no socket"),
            starved: starved.then_some(Shortage { needed: 1, bound: 2 }),
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
}

#[test]
fn what_serves_without_an_image_does_not() {
    let known = Known {
        serving: Some(target("old", 0)),
        ..Known::served(0)
    };
    let serving = |world: &World| {
        let status = known.status(world, &FunctionStatus::default(), at(1));
        let serving = find(&status.conditions, ConditionType::Serving).unwrap();
        (serving.status.clone(), serving.message.clone())
    };
    let mut world = World {
        serving_image: ImageState::Failed(failure(1, true)),
        ..world()
    };
    let (status, message) = serving(&world);
    assert_eq!(status, "False");
    assert!(message.ends_with("is gone: it exits at once"), "{message}");
    world.instances = vec![instance("old", Phase::Ready)];
    assert_eq!(serving(&world).0, "True", "what runs goes on");
}

#[test]
fn a_shortage_of_memory_is_told_with_its_numbers_and_the_way_out() {
    let known = |needed: i64, serving: &str| Known {
        serving: Some(target(serving, 1)),
        starved: Some(Shortage {
            needed: needed << 20,
            bound: 300 << 20,
        }),
        ..Known::served(1)
    };
    let old = target("old", 1).revision;
    let taken = "An instance needs 200Mi of memory, and of the 300Mi that all instances together may have (80 % of the \
                 machine's) too much is taken: lower spec.scale.min or spec.resources.memory of this Function or another.";
    let never = "An instance needs 301Mi of memory, more than the 300Mi that all instances together may have (80 % of the \
                 machine's): lower spec.resources.memory.";
    let on = format!(" Revision {old} serves until there is room.");
    for (known, word, expected) in [
        (known(200, "a"), "InProgress", taken.to_owned()),
        (known(200, "old"), "InProgress", format!("{taken}{on}")),
        (known(301, "a"), "Failed", never.to_owned()),
    ] {
        let status = known.status(&world(), &FunctionStatus::default(), at(1));
        let ready = find(&status.conditions, ConditionType::Ready).unwrap();
        assert_eq!(ready.message, expected);
        assert_eq!(kstatus(&status.conditions), word);
        let serving = find(&status.conditions, ConditionType::Serving).unwrap();
        assert_eq!(serving.status, "True");
    }
}
