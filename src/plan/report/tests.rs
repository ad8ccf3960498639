//! What is said of a Function, as kstatus and people read it.

#![allow(clippy::too_many_lines, reason = "tables are long")]

mod kstatus;

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use proptest::prelude::*;

use super::*;
use crate::{
    function::{
        Revision,
        status::{find, is_true},
    },
    plan::{Crash, Demand, Manners},
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
        startable: true,
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

fn waits(waiting: u32) -> Demand {
    Demand {
        waiting,
        ..Demand::default()
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
        crash: None,
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
    isolation: Option<Isolation>,
    unkept: Option<&'static str>,
    starved: Option<Shortage>,
    unmade: Option<Failure>,
    held_up: Option<&'static str>,
}

impl Known {
    /// Revision `a` is asked for and served.
    fn served(min: u32) -> Self {
        Self {
            desired: Ok(target("a", min)),
            serving: Some(target("a", min)),
            engine: None,
            isolation: None,
            unkept: None,
            starved: None,
            unmade: None,
            held_up: None,
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
            unmade: self.unmade.clone(),
            held_up: self.held_up,
            engine: self.engine,
            isolation: self.isolation,
            unkept: self.unkept,
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
        ..Known::served(0)
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
fn who_keeps_a_function_from_the_network_is_told_and_remembered() {
    let told = |isolation: Isolation, previous: &FunctionStatus| {
        let known = Known {
            isolation: Some(isolation),
            ..Known::served(0)
        };
        let status = known.status(&world(), previous, at(2));
        let told = find(&status.conditions, ConditionType::Isolated);
        let told = told.map(|c| format!("{} {}", c.status, c.reason));
        (told.unwrap_or_default(), status)
    };
    let unknown = FunctionStatus::default();
    assert_eq!(told(Isolation::Own, &unknown).0, "");
    assert_eq!(told(Isolation::Unproven, &unknown).0, "Unknown Unproven");
    for (isolation, expected, other) in [
        (Isolation::Enforced, "True Enforced", Isolation::NotEnforced),
        (
            Isolation::NotEnforced,
            "False NotEnforced",
            Isolation::Enforced,
        ),
    ] {
        let (seen, status) = told(isolation, &unknown);
        assert_eq!(seen, expected);
        // A server that has just begun has not seen it yet.
        let (again, same) = told(Isolation::Unproven, &status);
        assert_eq!(
            (again.as_str(), &same.conditions),
            (expected, &status.conditions)
        );
        assert_ne!(told(other, &status).0, expected);
    }
}

#[test]
fn what_is_not_kept_is_told_with_what_is_deployed() {
    let known = Known {
        unkept: Some("Nobody counts."),
        ..Known::served(0)
    };
    let status = known.status(&world(), &FunctionStatus::default(), at(1));
    let deployed = find(&status.conditions, ConditionType::Deployed).unwrap();
    assert!(
        deployed.message.ends_with("started. Nobody counts."),
        "{deployed:?}"
    );
}

#[test]
fn calls_that_crash_are_told_of_where_nothing_else_answers() {
    let crashes = |attempts| Failure {
        reason: Reason::CrashLoop,
        crash: Some(Crash::InCall),
        ..failure(attempts, true)
    };
    let ready = || vec![instance("a", Phase::Ready)];
    for (min, attempts, instances, expected) in [
        (0, 1, vec![], "Idle"),
        (0, 2, vec![], "CrashLoop"),
        (0, 9, ready(), "Ready"),
        (1, 9, ready(), "Ready"),
        (1, 1, vec![], "CrashLoop"),
        (2, 2, ready(), "CrashLoop"),
    ] {
        let world = World {
            failure: Some(crashes(attempts)),
            instances,
            ..world()
        };
        let (_, reason, word) = summary(&Known::served(min), &world);
        assert_eq!(reason, expected, "{min} {attempts}");
        let retried = if expected == "CrashLoop" {
            "InProgress"
        } else {
            "Current"
        };
        assert_eq!(word, retried, "{min} {attempts}");
    }
}

#[test]
fn what_went_wrong_with_an_image_is_told_while_it_is_tried_again() {
    let known = Known {
        unmade: Some(failure(2, true)),
        serving: None,
        ..Known::served(0)
    };
    let told = |known: &Known, image: ImageState| {
        let world = World { image, ..world() };
        let status = known.status(&world, &FunctionStatus::default(), at(1));
        ["Ready", "Built"].map(|name| {
            let all = status.conditions.iter();
            let condition = all.clone().find(|c| c.type_ == name).unwrap();
            (condition.status.clone(), condition.reason.clone())
        })
    };
    let never = Known {
        unmade: None,
        ..Known::served(0)
    };
    let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    for (image, word) in [
        (ImageState::Missing, "Queued"),
        (ImageState::Queued, "Queued"),
        (ImageState::Building, "Building"),
    ] {
        let failed = pair("False", "StartFailed");
        assert_eq!(told(&known, image.clone()), [failed.clone(), failed]);
        let begun = pair("Unknown", word);
        assert_eq!(told(&never, image), [begun.clone(), begun]);
    }
}

#[test]
fn what_holds_up_a_start_is_told() {
    let known = Known {
        held_up: Some("0/1 nodes are available"),
        ..Known::served(1)
    };
    let world = World {
        instances: vec![instance("a", Phase::Starting)],
        ..world()
    };
    let status = known.status(&world, &FunctionStatus::default(), at(1));
    let ready = find(&status.conditions, ConditionType::Ready).unwrap();
    assert_eq!(
        ready.message,
        "An instance is being started: 0/1 nodes are available"
    );
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
fn what_serves_and_cannot_be_started_again_says_so_as_long_as_it_serves() {
    let old = Target {
        startable: false,
        ..target("old", 1)
    };
    let known = Known {
        serving: Some(old),
        ..Known::served(1)
    };
    let serving = |instances| {
        let world = World {
            instances,
            ..world()
        };
        let status = known.status(&world, &FunctionStatus::default(), at(1));
        let serving = find(&status.conditions, ConditionType::Serving).unwrap();
        (serving.status.clone(), serving.message.clone())
    };
    let (status, message) = serving(vec![instance("old", Phase::Ready)]);
    assert_eq!(status, "True");
    assert!(message.ends_with(BYGONE), "{message}");
    assert_eq!(serving(vec![]).0, "False");
}

#[test]
fn a_shortage_of_memory_is_told_with_its_numbers_and_the_way_out() {
    let known = |serving: &str| Known {
        serving: Some(target(serving, 1)),
        starved: Some(Shortage {
            needed: 200 << 20,
            bound: 300 << 20,
        }),
        ..Known::served(1)
    };
    let old = target("old", 1).revision;
    let taken = "An instance needs 200Mi of memory, and of the 300Mi that all instances together may have (80 % of the \
                 machine's) too much is taken: lower spec.scale.min or spec.resources.memory of this Function or another.";
    let on = format!(" Revision {old} serves until there is room.");
    for (known, expected) in [
        (known("a"), taken.to_owned()),
        (known("old"), format!("{taken}{on}")),
    ] {
        let status = known.status(&world(), &FunctionStatus::default(), at(1));
        let ready = find(&status.conditions, ConditionType::Ready).unwrap();
        assert_eq!(ready.message, expected);
        assert_eq!(kstatus(&status.conditions), "InProgress");
        let serving = find(&status.conditions, ConditionType::Serving).unwrap();
        assert_eq!(serving.status, "True");
    }
}
