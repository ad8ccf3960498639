//! How many instances of which revision, and which of them leave [pure].

use std::time::Instant;

use super::{
    ATTEMPTS, Failure, Instance, Manners, PROBATION, Phase, Plan, Stop, Target, World, due, sooner,
};
use crate::function::Revision;

/// Brings the newest revision to where calls can go to it, and says when that is: it is proven, and as many instances are
/// ready as the present load needs, so that the switch makes nobody wait.
pub(super) fn roll(
    plan: &mut Plan,
    desired: &Target,
    serving: Option<&Target>,
    world: &World,
    now: Instant,
) {
    if world.image != super::ImageState::Ready || plan.build {
        return;
    }
    let ready = of(world, &desired.revision)
        .filter(|i| i.phase == Phase::Ready)
        .count();
    let warm = serving.map_or(0, |s| of(world, &s.revision).filter(|i| usable(i)).count());
    let target = match serving {
        Some(serving) if warm > 0 => {
            let load = of(world, &serving.revision)
                .map(|i| i.in_flight)
                .sum::<u32>();
            clamp(desired, load.div_ceil(desired.concurrency).max(1))
        }
        _ if world.proven => 0,
        _ => 1,
    };
    let enough =
        count(ready) >= target || (ready > 0 && (world.failure.is_some() || world.room == 0));
    if (world.proven || ready > 0) && enough {
        plan.serve = Some(desired.revision.clone());
        return;
    }
    if world.proving_elsewhere && target <= 1 && world.waiting == 0 {
        return;
    }
    let demand = if serving.is_none() {
        by_load(desired, world)
    } else {
        0
    };
    start(
        plan,
        desired,
        clamp(desired, target.max(demand)),
        world.failure.as_ref(),
        world,
        now,
    );
}

/// Keeps the serving revision at the number that its calls need, never below `min`, never above `max`.
pub(super) fn keep(
    plan: &mut Plan,
    active: &Target,
    failure: Option<&Failure>,
    world: &World,
    now: Instant,
) {
    settle(plan, active, world, now);
    let wanted = clamp(
        active,
        by_load(active, world) + spare(plan, active, world, now),
    );
    start(plan, active, wanted, failure, world, now);
    retire(plan, active, wanted, world, now);
}

/// Ends what is out of service: other revisions, condemned and drained instances. What starts for `rolling` stays.
pub(super) fn clean(
    plan: &mut Plan,
    active: Option<&Target>,
    rolling: Option<&Target>,
    world: &World,
) {
    for instance in &world.instances {
        let wanted = [active, rolling]
            .iter()
            .flatten()
            .any(|t| t.revision == instance.revision);
        let busy = instance.in_flight > 0;
        match instance.phase {
            Phase::Stopping => {}
            Phase::Condemned if !busy => plan.stop.push(Stop::Kill(instance.id.clone())),
            Phase::Draining if !busy => plan.stop.push(Stop::Drained(instance.id.clone())),
            Phase::Condemned | Phase::Draining => {}
            Phase::Starting if !wanted => plan.stop.push(Stop::Kill(instance.id.clone())),
            Phase::Ready | Phase::Probation(_) if !wanted && !busy => {
                plan.stop.push(Stop::Drained(instance.id.clone()));
            }
            Phase::Starting | Phase::Ready | Phase::Probation(_) => {}
        }
    }
}

/// Instances that survived their first call long enough take the next one.
fn settle(plan: &mut Plan, active: &Target, world: &World, now: Instant) {
    for instance in of(world, &active.revision) {
        if let Phase::Probation(since) = instance.phase {
            if since + PROBATION <= now {
                plan.settle.push(instance.id.clone());
            } else {
                sooner(&mut plan.wake, since + PROBATION);
            }
        }
    }
}

/// A single-call revision in use has one instance ahead of its callers.
fn spare(plan: &mut Plan, active: &Target, world: &World, now: Instant) -> u32 {
    if active.manners != Manners::Single {
        return 0;
    }
    match world.last_call {
        Some(ended) if ended + active.idle_after > now => {
            sooner(&mut plan.wake, ended + active.idle_after);
            1
        }
        _ => 0,
    }
}

/// Starts what is missing up to `wanted`, as far as failures and memory allow.
fn start(
    plan: &mut Plan,
    target: &Target,
    wanted: u32,
    failure: Option<&Failure>,
    world: &World,
    now: Instant,
) {
    let have = count(of(world, &target.revision).filter(|i| usable(i)).count());
    let missing = wanted.saturating_sub(have);
    if missing == 0 {
        return;
    }
    if let Some(failure) = failure {
        let in_vain = have == 0 && world.waiting > 0;
        let tired = failure.attempts >= ATTEMPTS && world.waiting == 0;
        if tired || !due(failure, now, &mut plan.wake) {
            plan.refuse = in_vain.then(|| failure.clone());
            return;
        }
    }
    // One at a time after a failure: the next may fail as well.
    let missing = if failure.is_some() { 1 } else { missing };
    plan.starved = world.room < missing;
    let starting = missing.min(world.room);
    if starting > 0 {
        plan.start.push((target.revision.clone(), starting));
    }
}

/// Ends what has been idle for long enough and is not needed, the youngest first: they got the fewest calls.
fn retire(plan: &mut Plan, active: &Target, wanted: u32, world: &World, now: Instant) {
    let floor = wanted.max(active.min);
    let have = count(of(world, &active.revision).filter(|i| usable(i)).count());
    let mut surplus = have.saturating_sub(floor);
    if have > active.min && floor > active.min {
        // Those that only calls keep: no event tells when the last one was long enough ago.
        sooner(&mut plan.wake, now + active.idle_after);
    }
    for instance in of(world, &active.revision)
        .rev()
        .filter(|i| i.phase == Phase::Ready)
    {
        if surplus == 0 {
            return;
        }
        let ends = instance.idle_since + active.idle_after;
        if instance.in_flight > 0 {
            // Its end of idleness is not known yet; look again when it could have come at the earliest.
            sooner(&mut plan.wake, now + active.idle_after);
        } else if ends <= now || world.pressure {
            plan.stop.push(Stop::WhenIdle(instance.id.clone()));
            surplus -= 1;
        } else {
            sooner(&mut plan.wake, ends);
        }
    }
}

/// Instances that the calls in flight and the callers waiting need.
fn by_load(target: &Target, world: &World) -> u32 {
    let in_flight: u32 = of(world, &target.revision)
        .filter(|i| usable(i))
        .map(|i| i.in_flight)
        .sum();
    (in_flight + world.waiting).div_ceil(target.concurrency)
}

fn clamp(target: &Target, wanted: u32) -> u32 {
    wanted.max(target.min).min(target.max)
}

/// Whether it takes calls, or will.
fn usable(instance: &Instance) -> bool {
    matches!(instance.phase, Phase::Starting | Phase::Ready)
}

fn of<'a>(
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
