//! What a turn tells people and programs (pure): the status of a Function, computed anew each time from what is.

use jiff::Timestamp;

use super::{Blocked, Failure, ImageState, Instance, Phase, Target, World};
use crate::{
    function::{
        FunctionKey, FunctionStatus,
        crd::LastBuild,
        status::{ConditionStatus, ConditionType, Overall, Reason, Wanted, find, merge},
    },
    runtime::Isolation,
};

/// What is said of an image that is being made, and of one whose turn has not come.
const BUILDING: &str = "The image is being built.";
const QUEUED: &str = "The build is queued: only so many run at a time.";

/// What is said of a revision that serves and cannot be started again.
const BYGONE: &str = " No more instances of it can be started: its secrets, or its source, are not there as they were.";

/// What is said of a Function that is being deleted. Its owner may take it for a new one.
const ENDING: &str = "The Function is being deleted and goes when its last instance has ended and no finalizer holds it. What is \
                      applied to it until then goes with it: apply it again after that.";

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
    /// How making the newest image failed the last time: that is said until it does not.
    pub unmade: Option<Failure>,
    /// Why the engine cannot be asked, if it cannot.
    pub engine: Option<&'a str>,
    /// Who sees to it that the function has no network, if it must have none.
    pub isolation: Option<Isolation>,
    /// What is not kept of what the spec may say; a sentence.
    pub unkept: Option<&'static str>,
    /// What holds up an instance that starts, if that is known.
    pub held_up: Option<&'a str>,
    /// An instance is needed for which there is no memory.
    pub starved: Option<Shortage>,
}

/// What an instance needs, and what all of them together may have, in bytes of memory.
#[derive(Clone, Copy, Debug)]
pub struct Shortage {
    pub needed: i64,
    pub bound: i64,
}

/// The status to store, given the one that is stored.
pub fn status(
    report: &Report<'_>,
    world: &World,
    previous: &FunctionStatus,
    now: Timestamp,
) -> FunctionStatus {
    let mut wanted = conditions(report, world);
    wanted.extend(isolated(report, previous));
    let alive = |i: &&Instance| i.phase != Phase::Stopping;
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
        ready_replicas: count(world.instances.iter().filter(|i| is_ready(i)).count()),
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

fn conditions(report: &Report<'_>, world: &World) -> Vec<Wanted> {
    let (overall, reason, message) = overall(report, world);
    let mut wanted = overall.conditions(reason, &message);
    wanted.push(source(report));
    wanted.extend(built(report, world));
    wanted.extend(deployed(report, world));
    wanted.push(serving(report, world));
    wanted
}

/// The first thing that stands between the spec and its being served.
fn overall(report: &Report<'_>, world: &World) -> (Overall, Reason, String) {
    let desired = match report.desired {
        Ok(desired) => desired,
        Err(blocked) => {
            let overall = if blocked.retry_at.is_some() {
                Overall::Retrying
            } else {
                Overall::Stalled
            };
            return (overall, blocked.reason, blocked.message.clone());
        }
    };
    if let Some(error) = report.engine {
        return (
            Overall::Retrying,
            Reason::EngineUnavailable,
            error.to_owned(),
        );
    }
    match (&world.image, &report.unmade) {
        (ImageState::Failed(failure), _) => return failed(failure, failure.retry_at.is_none()),
        (ImageState::Missing | ImageState::Queued | ImageState::Building, Some(failure)) => {
            return failed(failure, false);
        }
        (ImageState::Missing | ImageState::Queued, None) => {
            return working(Reason::Queued, QUEUED);
        }
        (ImageState::Building, None) => return working(Reason::Building, BUILDING),
        (ImageState::Ready, _) => {}
    }
    if let Some(failure) = standing_failure(report, world) {
        return failed(failure, is_final(failure));
    }
    if let Some(shortage) = report.starved {
        return no_capacity(shortage, report, desired);
    }
    let ready = ready(desired, world);
    if !is_served(report, desired) || ready < desired.min {
        let why = report.held_up.map(|why| format!(": {why}"));
        let why = why.unwrap_or_else(|| ".".to_owned());
        let message = format!("An instance is being started{why}");
        return working(Reason::Starting, &message);
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

/// The numbers that do not change from turn to turn, and the way out.
fn no_capacity(
    shortage: Shortage,
    report: &Report<'_>,
    desired: &Target,
) -> (Overall, Reason, String) {
    let mebi = |bytes: i64| format!("{}Mi", bytes >> 20);
    let (needed, bound) = (mebi(shortage.needed), mebi(shortage.bound));
    let bound = format!("the {bound} that all instances together may have (80 % of the machine's)");
    let message = format!(
        "An instance needs {needed} of memory, and of {bound} too much is taken: lower spec.scale.min or \
         spec.resources.memory of this Function or another."
    );
    let older = report.serving.filter(|s| s.revision != desired.revision);
    let until = older.map(|s| format!(" Revision {} serves until there is room.", s.revision));
    (
        Overall::Retrying,
        Reason::NoCapacity,
        message + &until.unwrap_or_default(),
    )
}

/// The status of a Function that is being deleted and has so many instances, which take no new calls.
pub fn end(
    previous: &FunctionStatus,
    generation: i64,
    instances: usize,
    now: Timestamp,
) -> FunctionStatus {
    let mut conditions = Overall::Working.conditions(Reason::Draining, ENDING);
    let none = "No revision answers any more.";
    let (no, why) = (ConditionStatus::False, Reason::Draining);
    conditions.push(wanted(ConditionType::Serving, no, why, none));
    FunctionStatus {
        observed_generation: Some(generation),
        replicas: count(instances),
        ready_replicas: 0,
        conditions: merge(&previous.conditions, conditions, generation, now),
        ..previous.clone()
    }
}

/// The newest revision's failure, unless the revision serves, has been seen to work, and callers hear nothing of the failure:
/// what is ready answers them, or it is the first crash, after which another instance is started at once. Any other failure
/// is what callers were told when nothing was ready, and stands until it is forgiven.
fn standing_failure<'a>(report: &Report<'_>, world: &'a World) -> Option<&'a Failure> {
    let failure = world.failure.as_ref()?;
    let desired = report.desired.ok()?;
    let ready = ready(desired, world);
    let is_first = failure.attempts == 1;
    let is_answered = match ready {
        0 => is_first && failure.crash.is_some(),
        _ => is_first || failure.is_of_calls(),
    };
    let does_its_work = is_answered && ready >= desired.min;
    let passes = is_served(report, desired) && world.proven && !is_final(failure) && does_its_work;
    (!passes).then_some(failure)
}

/// Whether only an edit, or a caller, makes the controller start an instance again.
fn is_final(failure: &Failure) -> bool {
    failure.retry_at.is_none() || failure.is_given_up()
}

fn is_served(report: &Report<'_>, desired: &Target) -> bool {
    report
        .serving
        .is_some_and(|s| s.revision == desired.revision)
}

/// Instances of a revision that are ready.
fn ready(target: &Target, world: &World) -> u32 {
    let of_target = world
        .instances
        .iter()
        .filter(|i| i.revision == target.revision);
    count(of_target.filter(|i| is_ready(i)).count())
}

fn is_ready(instance: &Instance) -> bool {
    matches!(instance.phase, Phase::Ready | Phase::Probation(_))
}

fn working(reason: Reason, message: &str) -> (Overall, Reason, String) {
    (Overall::Working, reason, message.to_owned())
}

fn failed(failure: &Failure, is_final: bool) -> (Overall, Reason, String) {
    let overall = if is_final {
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
    let (status, reason, message) = match (&world.image, &report.unmade) {
        (ImageState::Ready, _) => (ConditionStatus::True, Reason::Ready, "The image is there."),
        (ImageState::Failed(failure), _) | (_, Some(failure)) => (
            ConditionStatus::False,
            failure.reason,
            failure.message.as_str(),
        ),
        (ImageState::Missing | ImageState::Queued, None) => {
            (ConditionStatus::Unknown, Reason::Queued, QUEUED)
        }
        (ImageState::Building, None) => (ConditionStatus::Unknown, Reason::Building, BUILDING),
    };
    Some(wanted(ConditionType::Built, status, reason, message))
}

fn deployed(report: &Report<'_>, world: &World) -> Option<Wanted> {
    report.desired.ok()?;
    let (status, reason, message) = match standing_failure(report, world) {
        Some(failure) => (
            ConditionStatus::False,
            failure.reason,
            failure.message.as_str(),
        ),
        None if world.proven => {
            let unkept = report.unkept.map(|unkept| format!(" {unkept}"));
            let message = "An instance of this revision has started.".to_owned()
                + &unkept.unwrap_or_default();
            return Some(wanted(
                ConditionType::Deployed,
                ConditionStatus::True,
                Reason::Ready,
                &message,
            ));
        }
        None => (
            ConditionStatus::Unknown,
            Reason::Starting,
            "No instance of this revision has started yet.",
        ),
    };
    Some(wanted(ConditionType::Deployed, status, reason, message))
}

fn serving(report: &Report<'_>, world: &World) -> Wanted {
    let image = |serving| world.image_of(serving, report.desired.ok());
    let serving = report.serving;
    let (status, reason, message) = match serving.filter(|s| s.startable || ready(s, world) > 0) {
        Some(serving)
            if let ImageState::Failed(failure) = image(serving)
                && ready(serving, world) == 0 =>
        {
            let (revision, why) = (&serving.revision, &failure.message);
            let message = format!("The image of revision {revision} is gone: {why}");
            (ConditionStatus::False, failure.reason, message)
        }
        Some(serving) => {
            let more = if serving.startable { "" } else { BYGONE };
            let message = format!("Revision {} answers.{more}", serving.revision);
            (ConditionStatus::True, Reason::Ready, message)
        }
        None => {
            let message = "No revision answers yet.".to_owned();
            (ConditionStatus::False, Reason::Starting, message)
        }
    };
    wanted(ConditionType::Serving, status, reason, &message)
}

/// What was seen once is so until something else is seen, also by the next server.
fn isolated(report: &Report<'_>, previous: &FunctionStatus) -> Option<Wanted> {
    let (status, reason, message) = match report.isolation? {
        Isolation::Own => return None,
        Isolation::Enforced => (
            ConditionStatus::True,
            Reason::Enforced,
            "The cluster keeps network policies, as a pod has shown: the function reaches nothing.",
        ),
        Isolation::NotEnforced => (
            ConditionStatus::False,
            Reason::NotEnforced,
            "The cluster does not keep network policies, as a pod has shown: the function may reach the network though it \
             says network: none. It takes a network plugin that enforces them.",
        ),
        Isolation::Unproven => match seen(previous) {
            Some(seen) => return Some(seen),
            None => (
                ConditionStatus::Unknown,
                Reason::Unproven,
                "Whether the cluster keeps network policies is shown once an instance has started whose image faas has built.",
            ),
        },
    };
    Some(wanted(ConditionType::Isolated, status, reason, message))
}

fn seen(previous: &FunctionStatus) -> Option<Wanted> {
    let seen = find(&previous.conditions, ConditionType::Isolated)?;
    Some(Wanted {
        condition: ConditionType::Isolated,
        status: seen.status.parse().ok()?,
        reason: seen.reason.parse().ok()?,
        message: seen.message.clone(),
    })
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

#[cfg(test)]
mod tests;
