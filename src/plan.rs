//! The heart (pure): what a Function asks for and what is there become what to do, what to serve and what to say.
//!
//! Cold start, scale-up, roll-over, scale-down and clean-up are this one function. It is level-triggered: it looks at the
//! whole world of one Function each time and remembers nothing, so a lost event costs at most one turn.

mod failure;
mod forgive;
pub mod image;
pub mod report;
pub mod scale;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

pub use self::failure::{ATTEMPTS, Blocked, Crash, Failure};
use self::scale::{Scaler, of};
use crate::{builder::ImageName, function::Revision, runtime::InstanceId};

/// How long a program that is not ours may take to exit after an answer: by then it counts as one that stays, or, where it is
/// known to exit, it is ended.
pub const PROBATION: Duration = Duration::from_secs(1);
/// How long an instance whose call broke off may take to end by itself, which tells how it ended; then it is ended.
pub const CRASHING: Duration = Duration::from_secs(5);
/// How long a start goes on that nobody waits for any more: a caller that asks again soon finds it under way.
pub const UNWANTED: Duration = Duration::from_secs(2);
/// An instance that has lived this long clears the memory of failures before it.
pub const STABLE: Duration = Duration::from_secs(30);

/// The numbers by which one revision is scaled and called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub revision: Revision,
    pub image: ImageName,
    /// Instances kept warm.
    pub min: u32,
    /// Most instances of this revision.
    pub max: u32,
    /// Calls that one instance takes at a time; 1 for a single-call revision.
    pub concurrency: u32,
    /// How long an instance above `min` may be idle.
    pub idle_after: Duration,
    /// What is known of how its instances end.
    pub manners: Manners,
    /// Whether instances of it can be started: not where what they were made from is no longer known.
    pub startable: bool,
}

/// How an instance behaves after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manners {
    /// It stays and takes the next one.
    Stays,
    /// It exits with 0: one call an instance, the next one begun ahead.
    Single,
    /// Not known yet: the program is not ours, and its first call will tell.
    Unknown,
}

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageState {
    Missing,
    /// Its build waits until others have ended.
    Queued,
    Building,
    Ready,
    Failed(Failure),
}

/// Where an instance is in its life.
#[derive(IntoStaticStr, Clone, Copy, Debug, PartialEq, Eq)]
#[strum(serialize_all = "lowercase")]
pub enum Phase {
    Starting,
    /// It takes calls when its revision serves.
    Ready,
    /// It answered its first call at this time and may be about to exit.
    Probation(Instant),
    /// It answered its only call at this time and exits by itself.
    Leaving(Instant),
    /// It takes no new calls and leaves when it has none.
    Draining,
    /// A call on it broke off at this time: it is crashing, or must go.
    Broken(Instant),
    /// It did what makes it unfit (a timeout) and must go.
    Condemned,
    /// Its end is being carried out.
    Stopping,
}

impl Phase {
    /// Whether it takes calls, or may take some later.
    fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Ready | Self::Probation(_))
    }

    /// Whether it takes no call any more, and nobody has begun to end it.
    fn is_leaving(self) -> bool {
        matches!(
            self,
            Self::Leaving(_) | Self::Draining | Self::Broken(_) | Self::Condemned
        )
    }
}

/// One instance as the plan sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: InstanceId,
    pub revision: Revision,
    pub phase: Phase,
    /// Calls that it is busy with.
    pub in_flight: u32,
    /// When it became idle.
    pub idle_since: Instant,
    /// When it began, or became ready.
    pub since: Instant,
}

/// Callers who wait, and what is known of those before them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub waiting: u32,
    /// When the last call ended.
    pub last_call: Option<Instant>,
    /// When a caller last gave up waiting.
    pub last_left: Option<Instant>,
}

/// Everything about one Function that is, as opposed to what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// The image of the newest revision.
    pub image: ImageState,
    /// The image of the serving revision, where that is another.
    pub serving_image: ImageState,
    pub instances: Vec<Instance>,
    /// Whether one instance of the newest revision has been seen to work, here or for another Function.
    pub proven: bool,
    /// Whether another Function's instance of an equal revision is about to tell.
    pub proving_elsewhere: bool,
    /// Starts of the newest revision, or its instances, fail.
    pub failure: Option<Failure>,
    /// The same for the serving revision where that is another.
    pub serving_failure: Option<Failure>,
    pub demand: Demand,
    /// How many more instances the machine's memory takes.
    pub room: u32,
    /// Others need memory: idle instances above `min` leave at once.
    pub pressure: bool,
}

impl World {
    /// Nothing is there.
    pub fn empty() -> Self {
        Self {
            image: ImageState::Missing,
            serving_image: ImageState::Ready,
            instances: Vec::new(),
            proven: false,
            proving_elsewhere: false,
            failure: None,
            serving_failure: None,
            demand: Demand::default(),
            room: 0,
            pressure: false,
        }
    }

    /// Whether an instance of it takes calls, or may take some later.
    fn lives(&self, target: &Target) -> bool {
        let mut its = of(self, &target.revision);
        its.any(|i| i.phase.is_alive())
    }

    /// How the image of what serves stands, which may be that of the newest revision.
    fn image_of(&self, serving: &Target, newest: Option<&Target>) -> &ImageState {
        match newest {
            Some(newest) if newest.image == serving.image => &self.image,
            _ => &self.serving_image,
        }
    }
}

/// How an instance is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// If it is still idle at that moment.
    WhenIdle(InstanceId),
    /// It is out of service and has no call: end it with a grace.
    Drained(InstanceId),
    /// At once.
    Kill(InstanceId),
}

/// What to do now. Each part may be empty; an empty plan is the goal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Whether the image of the newest revision is to be built or pulled.
    pub build: bool,
    /// Whether that of the serving revision, which is another, is to be had again.
    pub rebuild: bool,
    /// Revisions of which to start instances, and how many.
    pub start: Vec<(Revision, u32)>,
    pub stop: Vec<Stop>,
    /// Instances that have stayed after their first call.
    pub settle: Vec<InstanceId>,
    /// The revision that calls go to from now on, or by whose new terms they go.
    pub serve: Option<Revision>,
    /// Revisions whose memory of failures is to be cleared.
    pub forgive: Vec<Revision>,
    /// There is no room for an instance that is needed.
    pub starved: bool,
    /// Callers who wait in vain are told this now.
    pub refuse: Option<Failure>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Instant>,
}

/// Decides. `newest` is the newest generation's target or why there is none, `serving` the target that calls go to now.
pub fn plan(
    newest: Result<&Target, &Blocked>,
    serving: Option<&Target>,
    world: &World,
    now: Instant,
) -> Plan {
    let mut plan = Plan::default();
    let desired = newest.ok();
    // What cannot be started again serves as long as it lives.
    let serving = serving.filter(|s| s.startable || world.lives(s));
    let rolling = desired.filter(|d| serving.is_none_or(|s| s.revision != d.revision));

    // The images must be there even for revisions at zero: they are what a cold start needs.
    plan.build = desired.is_some() && wants_build(&world.image, now, &mut plan.wake);
    match (rolling, desired) {
        (Some(rolling), _) => Scaler {
            plan: &mut plan,
            world,
            now,
        }
        .roll(rolling, serving),
        // The same revision on other terms, such as another `min`.
        (None, Some(desired)) if serving != Some(desired) => {
            plan.serve = Some(desired.revision.clone());
        }
        (None, _) => {}
    }
    let active = plan.serve.as_ref().and(desired).or(serving);
    if let Some(active) = active {
        let image = world.image_of(active, desired);
        plan.rebuild = active.startable
            && desired.is_none_or(|d| d.image != active.image)
            && wants_build(image, now, &mut plan.wake);
        let failure = if desired.is_some_and(|d| d.revision == active.revision) {
            &world.failure
        } else {
            &world.serving_failure
        };
        // An older revision makes room for the newest where that says that none need be kept warm; the last instance of one that
        // cannot be started again does not.
        let kept = Target {
            min: rolling
                .filter(|_| plan.starved)
                .map_or(active.min, |newest| newest.min.min(active.min))
                .max(u32::from(!active.startable)),
            ..active.clone()
        };
        let startable = active.startable && *image == ImageState::Ready;
        Scaler {
            plan: &mut plan,
            world,
            now,
        }
        .keep(&kept, startable, failure.as_ref());
    }
    scale::clean(&mut plan, active, rolling, world);
    plan.refuse = plan
        .refuse
        .take()
        .or_else(|| plan.hopeless(newest, active, world))
        .filter(|failure| !failure.is_worth_waiting());
    if let Some(at) = newest.err().and_then(|blocked| blocked.retry_at) {
        sooner(&mut plan.wake, at);
    }
    plan.forgive = forgive::forgiven(desired, serving, world, now, &mut plan.wake);
    plan
}

/// What a Function that is being deleted needs: everything stopped once its calls are done.
pub fn dismantle(world: &World) -> Plan {
    let mut plan = Plan::default();
    scale::clean(&mut plan, None, None, world);
    plan
}

impl Plan {
    /// Why callers wait in vain where no instance can be started at all.
    fn hopeless(
        &self,
        newest: Result<&Target, &Blocked>,
        active: Option<&Target>,
        world: &World,
    ) -> Option<Failure> {
        if world.demand.waiting == 0 || active.is_some_and(|a| world.lives(a)) {
            return None;
        }
        let image = match (active, newest) {
            (Some(active), _) => world.image_of(active, newest.ok()),
            (None, Ok(_)) => &world.image,
            (None, Err(blocked)) => {
                return Some(Failure {
                    reason: blocked.reason,
                    message: blocked.message.clone(),
                    attempts: blocked.attempts,
                    retry_at: blocked.retry_at,
                    crash: None,
                });
            }
        };
        match image {
            ImageState::Failed(failure) if !self.build && !self.rebuild => Some(failure.clone()),
            _ => None,
        }
    }
}

/// Whether an image is to be built now; if it will be later, that is noted in `wake`.
fn wants_build(image: &ImageState, now: Instant, wake: &mut Option<Instant>) -> bool {
    match image {
        ImageState::Missing => true,
        ImageState::Failed(failure) => due(failure, now, wake),
        ImageState::Queued | ImageState::Building | ImageState::Ready => false,
    }
}

/// Whether a failure's time to retry has come; if it will come, it is noted in `wake`.
fn due(failure: &Failure, now: Instant, wake: &mut Option<Instant>) -> bool {
    match failure.retry_at {
        Some(at) if at <= now => true,
        Some(at) => {
            sooner(wake, at);
            false
        }
        None => false,
    }
}

/// Moves `wake` forward to `at` if that is earlier.
fn sooner(wake: &mut Option<Instant>, at: Instant) {
    *wake = Some(wake.map_or(at, |earlier| earlier.min(at)));
}

#[cfg(test)]
mod tests;
