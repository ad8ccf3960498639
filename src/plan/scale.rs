//! How many instances of which revision, and which of them leave (pure).

use std::time::{Duration, Instant};

use super::{
    CRASHING, Failure, ImageState, Instance, Manners, PROBATION, Phase, Plan, Stop, Target,
    UNWANTED, World, due, sooner,
};
use crate::function::Revision;

/// Between two looks at whether busy instances are idle, while others need memory.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The plan that is being made, and what it is made from.
#[derive(Debug)]
pub(super) struct Scaler<'a> {
    pub plan: &'a mut Plan,
    pub world: &'a World,
    pub now: Instant,
}

impl Scaler<'_> {
    /// Brings the newest revision to where calls can go to it, and says when that is: it is proven, and as many instances
    /// are ready as the present load needs, so that the switch makes nobody wait.
    pub fn roll(&mut self, desired: &Target, serving: Option<&Target>) {
        let world = self.world;
        if world.image != ImageState::Ready || self.plan.build {
            return;
        }
        let ready = count(
            of(world, &desired.revision)
                .filter(|i| i.phase == Phase::Ready)
                .count(),
        );
        let target = self.enough_to_switch(desired, serving);
        let enough = ready >= target || (ready > 0 && (world.failure.is_some() || world.room == 0));
        if (world.proven || ready > 0) && enough {
            self.plan.serve = Some(desired.revision.clone());
            return;
        }
        if world.proving_elsewhere && target <= 1 && world.demand.waiting == 0 {
            return;
        }
        // Who waits while another revision serves waits for that one.
        let (demand, load) = match serving {
            Some(_) => (0, 0),
            None => (world.demand.waiting, by_load(desired, world)),
        };
        self.start(
            desired,
            clamp(desired, target.max(load)),
            demand,
            world.failure.as_ref(),
        );
    }

    /// Ready instances that the newest revision needs before calls go to it.
    fn enough_to_switch(&self, desired: &Target, serving: Option<&Target>) -> u32 {
        let warm = serving.filter(|s| of(self.world, &s.revision).any(usable));
        match warm {
            Some(serving) => {
                let load = of(self.world, &serving.revision)
                    .map(|i| i.in_flight)
                    .sum::<u32>();
                clamp(desired, load.div_ceil(desired.concurrency).max(1))
            }
            // Proven once, but failing now: it has to be seen again.
            None if self.world.proven && self.world.failure.is_none() => 0,
            None => 1,
        }
    }

    /// Keeps the serving revision at the number that its calls need, never below `min`, never above `max`. Nothing starts
    /// while it is known not to be `startable` for want of its image, or of what else it is made from.
    pub fn keep(&mut self, active: &Target, startable: bool, failure: Option<&Failure>) {
        self.settle(active);
        let wanted = clamp(active, by_load(active, self.world) + self.spare(active));
        if startable {
            self.start(active, wanted, self.world.demand.waiting, failure);
        }
        self.call_off(active, wanted);
        self.retire(active, wanted);
        self.let_go(active);
        self.give_up(active);
    }

    /// Instances that survived their first call long enough take the next one.
    fn settle(&mut self, active: &Target) {
        for instance in of(self.world, &active.revision) {
            let Phase::Probation(since) = instance.phase else {
                continue;
            };
            if since + PROBATION <= self.now {
                self.plan.settle.push(instance.id.clone());
                // From now on it may be idle like others.
                sooner(&mut self.plan.wake, self.now + active.idle_after);
            } else {
                sooner(&mut self.plan.wake, since + PROBATION);
            }
        }
    }

    /// A single-call revision in use has one instance ahead of its callers.
    fn spare(&mut self, active: &Target) -> u32 {
        if active.manners != Manners::Single {
            return 0;
        }
        match self.world.demand.last_call {
            Some(ended) if ended + active.idle_after > self.now => {
                sooner(&mut self.plan.wake, ended + active.idle_after);
                1
            }
            _ => 0,
        }
    }

    /// Starts what is missing up to `wanted`, as far as failures and memory allow. `demand` callers wait for it.
    fn start(&mut self, target: &Target, wanted: u32, demand: u32, failure: Option<&Failure>) {
        let world = self.world;
        let have = count(of(world, &target.revision).filter(|i| usable(i)).count());
        // One on probation may stay, and then there must not be more than `max`.
        let alive = count(
            of(world, &target.revision)
                .filter(|i| i.phase.is_alive())
                .count(),
        );
        // Nor more than as many again that leave: calls may keep them for long, and each that breaks is replaced at once.
        let leaving = count(
            of(world, &target.revision)
                .filter(|i| i.phase.is_leaving())
                .count(),
        );
        let missing = wanted
            .saturating_sub(have)
            .min(target.max.saturating_sub(alive))
            .min((2 * target.max).saturating_sub(alive + leaving));
        if missing == 0 {
            return;
        }
        if let Some(failure) = failure {
            let tired = failure.is_given_up() && demand == 0;
            let called = failure.is_of_calls() && demand > 0;
            if !called && (tired || !due(failure, self.now, &mut self.plan.wake)) {
                let in_vain = demand > 0 && alive == 0;
                self.plan.refuse = in_vain.then(|| failure.clone());
                return;
            }
        }
        // One at a time after a failure: the next may fail as well.
        let missing = if failure.is_some() { 1 } else { missing };
        let room = world
            .room
            .saturating_sub(self.plan.start.iter().map(|(_, n)| n).sum());
        self.plan.starved |= room < missing;
        let starting = missing.min(room);
        if starting > 0 {
            self.plan.start.push((target.revision.clone(), starting));
        }
    }

    /// Ends the starts of a revision that is not in use, once everyone has left who waited for them.
    fn call_off(&mut self, active: &Target, wanted: u32) {
        let world = self.world;
        let in_use = of(world, &active.revision).any(|i| i.in_flight > 0);
        let Some(left) = world
            .demand
            .last_left
            .filter(|_| !in_use && world.demand.waiting == 0)
        else {
            return;
        };
        let have = count(of(world, &active.revision).filter(|i| usable(i)).count());
        let unwanted = of(world, &active.revision)
            .rev()
            .filter(|i| i.phase == Phase::Starting && i.since <= left)
            .take(have.saturating_sub(wanted) as usize);
        for instance in unwanted {
            if left + UNWANTED <= self.now {
                self.plan.stop.push(Stop::Kill(instance.id.clone()));
            } else {
                sooner(&mut self.plan.wake, left + UNWANTED);
            }
        }
    }

    /// Ends what has been idle for long enough and is not needed, the youngest first: they got the fewest calls. What is
    /// needed now may be idle later, and no call's end asks for a turn: the plan looks again by itself.
    fn retire(&mut self, active: &Target, wanted: u32) {
        let world = self.world;
        let mut have = count(of(world, &active.revision).filter(|i| usable(i)).count());
        let floor = wanted.max(active.min);
        if have <= active.min {
            return;
        }
        let look_again = self.now
            + if world.pressure {
                LOOK_AGAIN.min(active.idle_after)
            } else {
                active.idle_after
            };
        for instance in of(world, &active.revision)
            .rev()
            .filter(|i| i.phase == Phase::Ready)
        {
            let ends = instance.idle_since + active.idle_after;
            let may_end = ends <= self.now || world.pressure || have > active.max;
            if instance.in_flight > 0 || (may_end && have <= floor) {
                sooner(&mut self.plan.wake, look_again);
            } else if may_end {
                self.plan.stop.push(Stop::WhenIdle(instance.id.clone()));
                have -= 1;
            } else {
                sooner(&mut self.plan.wake, ends);
            }
        }
    }

    /// What has answered its only call is left to exit by itself, unless it takes too long, or its place is needed.
    fn let_go(&mut self, active: &Target) {
        let alive = count(
            of(self.world, &active.revision)
                .filter(|i| i.phase.is_alive())
                .count(),
        );
        let starting = self.plan.start.iter();
        let starting: u32 = starting
            .filter(|(revision, _)| *revision == active.revision)
            .map(|(_, n)| n)
            .sum();
        let mut places = active.max.saturating_sub(alive + starting);
        let crowded = self.plan.starved || self.world.pressure;
        // The oldest come first, and are the first to give way.
        let idle = of(self.world, &active.revision).filter(|i| i.in_flight == 0);
        for instance in idle.rev() {
            let Phase::Leaving(since) = instance.phase else {
                continue;
            };
            let ends = since + PROBATION;
            if ends <= self.now || crowded || places == 0 {
                self.plan.stop.push(Stop::Drained(instance.id.clone()));
            } else {
                places -= 1;
                sooner(&mut self.plan.wake, ends);
            }
        }
    }

    /// What a call broke off on is left to crash by itself, unless it takes too long.
    fn give_up(&mut self, active: &Target) {
        for instance in of(self.world, &active.revision).filter(|i| i.in_flight == 0) {
            let Phase::Broken(since) = instance.phase else {
                continue;
            };
            let ends = since + CRASHING;
            if ends <= self.now {
                self.plan.stop.push(Stop::Kill(instance.id.clone()));
            } else {
                sooner(&mut self.plan.wake, ends);
            }
        }
    }
}

/// Ends what is out of service: other revisions, condemned and drained instances. What starts for `rolling` stays.
pub(super) fn clean(
    plan: &mut Plan,
    active: Option<&Target>,
    rolling: Option<&Target>,
    world: &World,
) {
    for instance in &world.instances {
        let is_of =
            |target: Option<&Target>| target.is_some_and(|t| t.revision == instance.revision);
        plan.stop
            .extend(ending(instance, is_of(active), is_of(rolling)));
    }
}

/// How an instance ends now, if it does.
fn ending(instance: &Instance, active: bool, rolling: bool) -> Option<Stop> {
    let id = instance.id.clone();
    let busy = instance.in_flight > 0;
    let wanted = active || rolling;
    match instance.phase {
        Phase::Condemned if !busy => Some(Stop::Kill(id)),
        Phase::Broken(_) if !active && !busy => Some(Stop::Kill(id)),
        Phase::Draining if !busy => Some(Stop::Drained(id)),
        Phase::Leaving(_) if !active && !busy => Some(Stop::Drained(id)),
        Phase::Starting if !wanted => Some(Stop::Kill(id)),
        // It was idle when the world was looked at; a call may have reached it since.
        Phase::Ready | Phase::Probation(_) if !wanted && !busy => Some(Stop::WhenIdle(id)),
        _ => None,
    }
}

/// Instances that the calls in flight and the callers waiting need.
fn by_load(target: &Target, world: &World) -> u32 {
    let in_flight: u32 = of(world, &target.revision)
        .filter(|i| usable(i))
        .map(|i| i.in_flight)
        .sum();
    (in_flight + world.demand.waiting).div_ceil(target.concurrency)
}

fn clamp(target: &Target, wanted: u32) -> u32 {
    wanted.max(target.min).min(target.max)
}

/// Whether it takes calls, or will.
fn usable(instance: &Instance) -> bool {
    matches!(instance.phase, Phase::Starting | Phase::Ready)
}

pub(super) fn of<'a>(
    world: &'a World,
    revision: &'a Revision,
) -> impl DoubleEndedIterator<Item = &'a Instance> {
    world
        .instances
        .iter()
        .filter(move |i| i.revision == *revision)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
