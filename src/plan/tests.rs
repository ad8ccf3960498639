//! What the heart decides, as tables: a world and the whole plan for it.

#![allow(
    clippy::too_many_lines,
    clippy::unchecked_time_subtraction,
    clippy::inconsistent_struct_constructor,
    reason = "tables are long, NOW has time before it, and a table shows what differs first"
)]

mod bygone;
mod ends;
mod failures;
mod needs;
mod roll;
mod scale;

use std::sync::LazyLock;

use super::*;
use crate::function::status::Reason;

/// A moment with time before it.
static NOW: LazyLock<Instant> = LazyLock::new(|| Instant::now() + Duration::from_secs(10_000));

const IDLE: u64 = 300;

fn revision(name: &str) -> Revision {
    Revision::of([name.as_bytes()])
}

/// A target of 0 to 10 instances with 4 calls each.
fn target(name: &str) -> Target {
    Target {
        revision: revision(name),
        image: format!("image-{name}"),
        min: 0,
        max: 10,
        concurrency: 4,
        idle_after: Duration::from_secs(IDLE),
        manners: Manners::Stays,
        startable: true,
    }
}

fn ago(seconds: u64) -> Instant {
    *NOW - Duration::from_secs(seconds)
}

fn from_now(seconds: u64) -> Instant {
    *NOW + Duration::from_secs(seconds)
}

fn waits(waiting: u32) -> Demand {
    Demand {
        waiting,
        ..Demand::default()
    }
}

fn called(at: Instant) -> Demand {
    Demand {
        last_call: Some(at),
        ..Demand::default()
    }
}

/// An image that is there, much room.
fn world() -> World {
    World {
        image: ImageState::Ready,
        room: 100,
        ..World::empty()
    }
}

fn proven() -> World {
    World {
        proven: true,
        ..world()
    }
}

/// An instance of revision `name`, idle for a second since it began.
fn instance(name: &str, id: &str, phase: Phase) -> Instance {
    Instance {
        id: id.to_owned(),
        revision: revision(name),
        phase,
        in_flight: 0,
        idle_since: ago(1),
        since: ago(1),
    }
}

fn ready(name: &str, id: &str) -> Instance {
    instance(name, id, Phase::Ready)
}

fn busy(name: &str, id: &str, in_flight: u32) -> Instance {
    Instance {
        in_flight,
        ..ready(name, id)
    }
}

fn idle(name: &str, id: &str, seconds: u64) -> Instance {
    Instance {
        idle_since: ago(seconds),
        since: ago(seconds),
        ..ready(name, id)
    }
}

fn failure(attempts: u32, retry_at: Option<Instant>) -> Failure {
    Failure {
        reason: Reason::StartFailed,
        message: "it exits at once".to_owned(),
        attempts,
        retry_at,
        crash: None,
    }
}

fn starts(name: &str, count: u32) -> Vec<(Revision, u32)> {
    vec![(revision(name), count)]
}

/// The plan where `desired` is served already.
fn steady(desired: &Target, world: &World) -> Plan {
    plan(Ok(desired), Some(desired), world, *NOW)
}

/// The plan where nothing was served before.
fn first(desired: &Target, world: &World) -> Plan {
    plan(Ok(desired), None, world, *NOW)
}

/// The plan where `a` is served and `b` is the newest.
fn rolling(world: &World) -> Plan {
    plan(Ok(&target("b")), Some(&target("a")), world, *NOW)
}

fn nothing() -> Plan {
    Plan::default()
}

fn wake(at: Instant) -> Plan {
    Plan {
        wake: Some(at),
        ..nothing()
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
