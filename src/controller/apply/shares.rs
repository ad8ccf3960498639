//! How the processor is divided while it is short: all instances of a revision together weigh about as much as one that is
//! alone, so that the many of one Function do not crowd out the few of another.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    controller::Controller,
    function::FunctionKey,
    plan::{Manners, Phase},
    runtime::InstanceId,
};

/// CPU shares of an instance that is alone, as engines give any container.
const WHOLE: u32 = 1024;
/// The fewest that engines take.
const LEAST: u32 = 2;

/// The CPU shares of one of so many instances, in steps of two.
pub(super) fn shares(instances: usize) -> u32 {
    let parts = u32::try_from(instances.next_power_of_two()).unwrap_or(u32::MAX);
    (WHOLE / parts).max(LEAST)
}

/// Whether they can stay: they are never too many, and may be half as many as they should be, so that a number that goes up
/// and down by one changes nothing.
fn may_stay(shares: u32, instances: usize) -> bool {
    let wanted = self::shares(instances);
    (wanted / 2..=wanted).contains(&shares)
}

impl Controller {
    /// Gives the instances that stay their shares, where others of their revision came or went. Those that have one call each
    /// are as many as were foreseen at their start.
    pub(in crate::controller) fn divide_cpu(self: &Arc<Self>, key: &FunctionKey) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        let (there, _) = entry.instances();
        let ids: HashSet<_> = there.iter().map(|instance| &instance.id).collect();
        entry.cpu_shares.retain(|id, _| ids.contains(id));
        let mut counts = HashMap::<_, usize>::new();
        for instance in there.iter().filter(|i| i.phase != Phase::Stopping) {
            *counts.entry(&instance.revision).or_default() += 1;
        }
        for instance in there.iter().filter(|i| i.phase == Phase::Ready) {
            let stays = entry
                .revision(&instance.revision)
                .is_some_and(|desired| self.manners(&desired.target) == Manners::Stays);
            let count = counts[&instance.revision];
            let known = entry.cpu_shares.get(&instance.id);
            if !stays || known.is_some_and(|shares| may_stay(*shares, count)) {
                continue;
            }
            let shares = shares(count);
            entry.cpu_shares.insert(instance.id.clone(), shares);
            let (this, key, id) = (Arc::clone(self), key.clone(), instance.id.clone());
            self.tasks
                .spawn(async move { this.set_cpu_shares(&key, &id, shares).await });
        }
    }

    /// What fails is tried again in a later turn; calls are answered whatever comes of it.
    async fn set_cpu_shares(&self, key: &FunctionKey, id: &InstanceId, shares: u32) {
        let Err(error) = self.ports.runtime.set_cpu_shares(id, shares).await else {
            return;
        };
        tracing::warn!(instance = %id, %error, "The CPU shares of an instance could not be set");
        if let Some(entry) = self.entries().get_mut(key) {
            entry.cpu_shares.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_instances_weigh_at_most_as_much_as_one_and_at_least_half() {
        for (instances, expected) in [(1, 1024), (2, 512), (3, 256), (10, 64), (1000, 2)] {
            assert_eq!(shares(instances), expected, "{instances}");
        }
        for instances in 1..=512 {
            let all = u32::try_from(instances).unwrap() * shares(instances);
            assert!((WHOLE / 2..=WHOLE).contains(&all), "{instances}: {all}");
        }
    }

    #[test]
    fn shares_change_when_they_are_too_many_or_by_far_too_few() {
        for (shares, instances, expected) in [
            (1024, 1, true),
            (1024, 2, false),
            (512, 1, true),
            (256, 1, false),
            (256, 4, true),
            (256, 2, true),
            (128, 5, true),
            (128, 4, true),
            (128, 2, false),
            (2, 1000, true),
        ] {
            let stays = may_stay(shares, instances);
            assert_eq!(stays, expected, "{shares} of {instances}");
        }
    }
}
