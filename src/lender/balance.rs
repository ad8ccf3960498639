//! Sees what all gateways have of a function, and asks back what [`recalls`] says.

use std::collections::BTreeMap;

use super::{
    Lender,
    recalls::{Holding, recalls},
};
use crate::function::FunctionKey;

impl Lender {
    /// Asks back what callers of other gateways need, and what is to be nobody's.
    pub(super) fn balance(&mut self, key: &FunctionKey) {
        let Some(pool) = self.pools.get(key.namespace(), key.name()) else {
            return;
        };
        let mut numbers = BTreeMap::new();
        let mut excess = BTreeMap::new();
        for (id, count) in pool.excess() {
            excess.insert(numbers.len(), count);
            numbers.insert(id, numbers.len());
        }
        let (mut holdings, mut waiting, mut names) = (Vec::new(), BTreeMap::new(), Vec::new());
        let known = self.gateways.values_mut().filter(|g| g.is_known);
        for (number, gateway) in known.enumerate() {
            let Some(account) = gateway.accounts.get_mut(key).filter(|a| a.is_of(&pool)) else {
                continue;
            };
            if account.waiting() > 0 {
                waiting.insert(number, account.waiting());
            }
            for (id, share) in account.shares() {
                let next = numbers.len();
                names.push((gateway.line.name.clone(), id.clone()));
                holdings.push(Holding {
                    gateway: number,
                    instance: *numbers.entry(id.clone()).or_insert(next),
                    held: count(share.leases.len()),
                    resting: count(share.leases.iter().filter(|l| l.rests()).count()),
                    recalled: share.recalled,
                });
            }
        }
        let recalls = recalls(&holdings, &excess, &waiting);
        for ((name, id), slots) in names.into_iter().zip(recalls).filter(|(_, n)| *n > 0) {
            if let Some(gateway) = self.gateways.get_mut(&name)
                && let Some(account) = gateway.accounts.get_mut(key)
            {
                account.recall(&id, slots, &mut gateway.line);
            }
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
