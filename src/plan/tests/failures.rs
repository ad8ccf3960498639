//! What failed: when it is tried again, what callers are told, and when it is forgotten.

use super::*;

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
        demand: waits(1),
        ..proven()
    };
    let expected = Plan {
        wake: second.retry_at,
        refuse: Some(Failure {
            reason: second.reason,
            message: second.message.clone(),
            attempts: 2,
            retry_at: second.retry_at,
            crash: None,
        }),
        ..nothing()
    };
    assert_eq!(plan(Err(&second), None, &world, *NOW), expected);
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
        demand: waits(1),
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
    for reason in [
        Reason::EngineUnavailable,
        Reason::NoSpace,
        Reason::NoCapacity,
    ] {
        let world = World {
            failure: Some(Failure {
                reason,
                ..failure(ATTEMPTS, Some(ago(5)))
            }),
            ..proven()
        };
        assert_eq!(
            steady(&a, &world).start,
            starts("a", 1),
            "{reason}: an engine's failure is no fault of the revision"
        );
    }
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
fn calls_that_crash_hold_back_warm_starts_and_no_caller() {
    let a = Target {
        min: 2,
        ..target("a")
    };
    let crashes = |attempts, retry_at| Failure {
        crash: Some(Crash::InCall),
        ..failure(attempts, Some(retry_at))
    };
    let world = |failure: &Failure, waiting| World {
        failure: Some(failure.clone()),
        demand: waits(waiting),
        ..proven()
    };
    let many = 2 * ATTEMPTS;
    let later = crashes(many, from_now(60));
    assert_eq!(steady(&a, &world(&later, 0)), wake(from_now(60)));
    let called = Plan {
        start: starts("a", 1),
        wake: Some(from_now(90)),
        ..nothing()
    };
    assert_eq!(
        steady(&a, &world(&later, 1)),
        called,
        "another call may do better"
    );
    let due = steady(&a, &world(&crashes(many, *NOW), 0));
    assert_eq!(due.start, starts("a", 1), "warm ones are never given up");
    let idle = Failure {
        crash: Some(Crash::Idle),
        ..later
    };
    let refused = steady(&a, &world(&idle, 1));
    assert_eq!(
        refused.refuse,
        Some(idle),
        "it would not live to take a call"
    );
    let over = steady(&target("a"), &world(&crashes(many, ago(30)), 0));
    assert_eq!(over.forgive, [revision("a")]);
}

#[test]
fn refusals() {
    let a = target("a");
    let no = blocked();
    let soon = failure(1, Some(from_now(2)));
    let hopeless = failure(1, None);
    let away = Failure {
        reason: Reason::EngineUnavailable,
        ..soon.clone()
    };
    let calls = |waiting| World {
        demand: waits(waiting),
        ..proven()
    };
    let refuse = |failure: &Failure| Some(failure.clone());
    let of_blocked = Failure {
        reason: no.reason,
        message: no.message.clone(),
        attempts: 0,
        retry_at: None,
        crash: None,
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
                demand: waits(0),
                ..with(&soon)
            },
            None,
        ),
        ("starts fail", Ok(&a), Some(&a), with(&soon), refuse(&soon)),
        ("the engine is away", Ok(&a), Some(&a), with(&away), None),
        (
            "it is away in a build",
            Ok(&a),
            Some(&a),
            image(&away),
            None,
        ),
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
                demand: waits(9),
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
