//! What a turn tells people and programs [pure]: the status of a Function, computed anew each time from what is.

use std::time::Instant;

use jiff::Timestamp;

use super::{ATTEMPTS, Blocked, Failure, ImageState, Instance, Phase, Target, World};
use crate::function::{
    FunctionKey, FunctionStatus,
    crd::LastBuild,
    status::{ConditionStatus, ConditionType, Overall, Reason, Wanted, merge},
};

/// What a status is made of beside the world.
#[derive(Debug)]
pub struct Report<'a> {
    pub key: &'a FunctionKey,
    pub generation: i64,
    /// The newest generation's target, or why there is none.
    pub desired: Result<&'a Target, &'a Blocked>,
    /// What calls go to, after this turn.
    pub serving: Option<&'a Target>,
    /// Where the function is called.
    pub url: String,
    pub last_build: Option<LastBuild>,
    /// Why the engine cannot be asked, if it cannot.
    pub engine: Option<&'a str>,
    /// An instance is needed for which there is no memory.
    pub starved: bool,
}

/// The status to store, given the one that is stored.
pub fn status(
    report: &Report<'_>,
    world: &World,
    previous: &FunctionStatus,
    now: Timestamp,
) -> FunctionStatus {
    let wanted = conditions(report, world);
    let alive = |i: &&Instance| i.phase != Phase::Stopping;
    let ready = |i: &&Instance| matches!(i.phase, Phase::Ready | Phase::Probation(_));
    let desired = report.desired.ok();
    FunctionStatus {
        observed_generation: Some(report.generation),
        revision: desired
            .map(|d| d.revision.to_string())
            .or_else(|| previous.revision.clone()),
        serving_revision: report.serving.map(|s| s.revision.to_string()),
        image: desired
            .map(|d| d.image.clone())
            .or_else(|| previous.image.clone()),
        replicas: count(world.instances.iter().filter(alive).count()),
        ready_replicas: count(world.instances.iter().filter(ready).count()),
        selector: Some(format!(
            "faas.dev/namespace={},faas.dev/function={}",
            report.key.namespace(),
            report.key.name()
        )),
        url: Some(report.url.clone()),
        last_build: report
            .last_build
            .clone()
            .or_else(|| previous.last_build.clone()),
        conditions: merge(&previous.conditions, wanted, report.generation, now),
    }
}

/// Whether only an edit, or a caller, makes the controller try again.
pub fn is_final(failure: &Failure) -> bool {
    failure.retry_at.is_none() || failure.attempts >= ATTEMPTS
}

/// Why a caller waits in vain, if it does.
pub fn in_vain(failure: &Failure, now: Instant) -> bool {
    failure.retry_at.is_none_or(|at| at > now)
}

fn conditions(report: &Report<'_>, world: &World) -> Vec<Wanted> {
    let (overall, reason, message) = overall(report, world);
    let mut wanted = overall.conditions(reason, &message);
    wanted.push(source(report));
    wanted.extend(built(report, world));
    wanted.extend(deployed(report, world));
    wanted.push(serving(report));
    wanted
}

/// The first thing that stands between the spec and its being served.
fn overall(report: &Report<'_>, world: &World) -> (Overall, Reason, String) {
    let desired = match report.desired {
        Ok(desired) => desired,
        Err(blocked) => return (Overall::Stalled, blocked.reason, blocked.message.clone()),
    };
    if let Some(error) = report.engine {
        return (
            Overall::Retrying,
            Reason::EngineUnavailable,
            error.to_owned(),
        );
    }
    match &world.image {
        ImageState::Missing => return working(Reason::Queued, "The build is queued."),
        ImageState::Building => return working(Reason::Building, "The image is being built."),
        ImageState::Failed(failure) => return failed(failure),
        ImageState::Ready => {}
    }
    if let Some(failure) = &world.failure {
        return failed(failure);
    }
    let served = report
        .serving
        .is_some_and(|s| s.revision == desired.revision);
    if report.starved {
        let message =
            "The machine's memory is taken: an instance waits for room (80 % is the bound).";
        return (Overall::Retrying, Reason::NoCapacity, message.to_owned());
    }
    let ready = world
        .instances
        .iter()
        .filter(|i| {
            i.revision == desired.revision && matches!(i.phase, Phase::Ready | Phase::Probation(_))
        })
        .count();
    if !served || count(ready) < desired.min {
        return working(Reason::Starting, "An instance is being started.");
    }
    if ready == 0 {
        return (
            Overall::Current,
            Reason::Idle,
            "Ready; the first call starts an instance.".to_owned(),
        );
    }
    (
        Overall::Current,
        Reason::Ready,
        "Calls are answered.".to_owned(),
    )
}

fn working(reason: Reason, message: &str) -> (Overall, Reason, String) {
    (Overall::Working, reason, message.to_owned())
}

fn failed(failure: &Failure) -> (Overall, Reason, String) {
    let overall = if is_final(failure) {
        Overall::Stalled
    } else {
        Overall::Retrying
    };
    (overall, failure.reason, failure.message.clone())
}

fn source(report: &Report<'_>) -> Wanted {
    match report.desired {
        Ok(_) => wanted(
            ConditionType::SourceReady,
            ConditionStatus::True,
            Reason::Ready,
            "The source can be read.",
        ),
        Err(blocked) => wanted(
            ConditionType::SourceReady,
            ConditionStatus::False,
            blocked.reason,
            &blocked.message,
        ),
    }
}

fn built(report: &Report<'_>, world: &World) -> Option<Wanted> {
    report.desired.ok()?;
    let (status, reason, message) = match &world.image {
        ImageState::Ready => (ConditionStatus::True, Reason::Ready, "The image is there."),
        ImageState::Missing => (
            ConditionStatus::Unknown,
            Reason::Queued,
            "The build is queued.",
        ),
        ImageState::Building => (
            ConditionStatus::Unknown,
            Reason::Building,
            "The image is being built.",
        ),
        ImageState::Failed(failure) => (
            ConditionStatus::False,
            failure.reason,
            failure.message.as_str(),
        ),
    };
    Some(wanted(ConditionType::Built, status, reason, message))
}

fn deployed(report: &Report<'_>, world: &World) -> Option<Wanted> {
    report.desired.ok()?;
    let (status, reason, message) = match &world.failure {
        Some(failure) => (
            ConditionStatus::False,
            failure.reason,
            failure.message.as_str(),
        ),
        None if world.proven => (
            ConditionStatus::True,
            Reason::Ready,
            "An instance of this revision has started.",
        ),
        None => (
            ConditionStatus::Unknown,
            Reason::Starting,
            "No instance of this revision has started yet.",
        ),
    };
    Some(wanted(ConditionType::Deployed, status, reason, message))
}

fn serving(report: &Report<'_>) -> Wanted {
    match report.serving {
        Some(serving) => wanted(
            ConditionType::Serving,
            ConditionStatus::True,
            Reason::Ready,
            &format!("Revision {} answers.", serving.revision),
        ),
        None => wanted(
            ConditionType::Serving,
            ConditionStatus::False,
            Reason::Starting,
            "No revision answers yet.",
        ),
    }
}

fn wanted(
    condition: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: &str,
) -> Wanted {
    Wanted::new(condition, status, reason, message)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
