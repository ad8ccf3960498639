//! When failures are forgotten (pure).

use std::time::Instant;

use super::{Failure, Manners, Phase, STABLE, Target, World, sooner};
use crate::function::Revision;

/// Revisions whose memory of failures is over.
pub(super) fn forgiven(
    newest: Option<&Target>,
    serving: Option<&Target>,
    world: &World,
    now: Instant,
    wake: &mut Option<Instant>,
) -> Vec<Revision> {
    let other = serving.filter(|s| newest.is_none_or(|n| n.revision != s.revision));
    let failures = [(newest, &world.failure), (other, &world.serving_failure)];
    let mut over = Vec::new();
    for (target, failure) in failures {
        let (Some(target), Some(failure)) = (target, failure) else {
            continue;
        };
        match over_at(target, failure, world) {
            Some(at) if at <= now => over.push(target.revision.clone()),
            Some(at) => sooner(wake, at),
            None => {}
        }
    }
    over
}

/// When a failure is forgotten, as things are: an instance of that very revision has lived on since, or nobody has needed
/// one for a while. A start under way has yet to tell.
fn over_at(target: &Target, failure: &Failure, world: &World) -> Option<Instant> {
    let retry_at = failure.retry_at?;
    let instances = || {
        world
            .instances
            .iter()
            .filter(|i| i.revision == target.revision)
    };
    let oldest = instances()
        .filter(|i| i.phase == Phase::Ready)
        .map(|i| i.since)
        .min();
    let starting = instances().any(|i| i.phase == Phase::Starting);
    let since = match oldest {
        // Its instances do not live long, however well they do.
        Some(_) if target.manners == Manners::Single => retry_at,
        Some(since) => since.max(retry_at),
        None if starting || failure.is_given_up() => return None,
        None => retry_at,
    };
    Some(since + STABLE)
}
