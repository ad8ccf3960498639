//! Which slots are asked back from which gateway (pure): those of instances that are to have fewer, and those that callers of
//! another gateway wait for.
//!
//! Slots without a call go to whoever waits. Those with one change hands only towards a gateway that has none, or clearly fewer:
//! so nobody starves, and where all have much to do each goes on with its own, without a round trip for a call.

use std::collections::BTreeMap;

/// What a gateway has of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Number of the gateway.
    pub gateway: usize,
    /// Number of the instance.
    pub instance: usize,
    pub held: u32,
    /// Of these, the ones without a call.
    pub resting: u32,
    /// Of these, the ones that are asked back already.
    pub recalled: u32,
}

impl Holding {
    fn left(&self) -> u32 {
        self.held.saturating_sub(self.recalled)
    }

    fn idle(&self) -> u32 {
        self.resting.saturating_sub(self.recalled)
    }
}

/// How many slots of each holding are to be asked back now. `excess` is by instance, `waiting` by gateway.
pub fn recalls(
    holdings: &[Holding],
    excess: &BTreeMap<usize, u32>,
    waiting: &BTreeMap<usize, u32>,
) -> Vec<u32> {
    let mut all = Recalls {
        holdings: holdings.to_vec(),
        excess,
    };
    all.for_excess();
    all.for_callers(waiting);
    let pairs = all.holdings.iter().zip(holdings);
    pairs
        .map(|(now, was)| now.recalled - was.recalled)
        .collect()
}

struct Recalls<'a> {
    holdings: Vec<Holding>,
    excess: &'a BTreeMap<usize, u32>,
}

impl Recalls<'_> {
    fn for_excess(&mut self) {
        for (instance, excess) in self.excess {
            let of = |h: &&mut Holding| h.instance == *instance;
            let mut of: Vec<_> = self.holdings.iter_mut().filter(of).collect();
            let asked: u32 = of.iter().map(|h| h.recalled).sum();
            let mut missing = excess.saturating_sub(asked);
            of.sort_by_key(|h| std::cmp::Reverse(h.idle()));
            for holding in of {
                let some = missing.min(holding.left());
                holding.recalled += some;
                missing -= some;
            }
        }
    }

    fn for_callers(&mut self, waiting: &BTreeMap<usize, u32>) {
        let all: u32 = waiting.values().sum();
        let asked: u32 = self.usable().map(|h| h.recalled).sum();
        let mut missing = all.saturating_sub(asked);
        let others_wait = |gateway: usize| all > waiting.get(&gateway).copied().unwrap_or(0);
        while missing > 0 {
            let idle = |h: &&mut Holding| h.idle() > 0 && others_wait(h.gateway);
            let Some(holding) = self.usable_mut().filter(idle).max_by_key(|h| h.idle()) else {
                break;
            };
            holding.recalled += 1;
            missing -= 1;
        }
        let mut totals: BTreeMap<usize, u32> = waiting.keys().map(|g| (*g, 0)).collect();
        for holding in self.usable() {
            *totals.entry(holding.gateway).or_default() += holding.left();
        }
        // Each gateway that waits may come to have as many more as callers of it wait.
        let mut wants = waiting.clone();
        while missing > 0 && self.move_one(&mut totals, &mut wants) {
            missing -= 1;
        }
    }

    /// From the gateway that has most to the one that waits and has fewest, if that is fair.
    fn move_one(
        &mut self,
        totals: &mut BTreeMap<usize, u32>,
        wants: &mut BTreeMap<usize, u32>,
    ) -> bool {
        let poor = wants.iter().filter(|(_, wants)| **wants > 0);
        let poor = poor.map(|(g, _)| (totals[g], *g)).min();
        let rich = totals.iter().map(|(g, total)| (*total, *g)).max();
        let (Some((few, poor)), Some((many, rich))) = (poor, rich) else {
            return false;
        };
        if rich == poor || many == 0 || (few > 0 && many < few + 2) {
            return false;
        }
        let of = |h: &&mut Holding| h.gateway == rich && h.left() > 0;
        let Some(holding) = self.usable_mut().filter(of).max_by_key(|h| h.left()) else {
            return false;
        };
        holding.recalled += 1;
        for (all, change) in [(&mut *totals, rich), (&mut *wants, poor)] {
            all.entry(change).and_modify(|n| *n -= 1);
        }
        *totals.entry(poor).or_default() += 1;
        true
    }

    /// What comes back of others is nobody's.
    fn usable(&self) -> impl Iterator<Item = &Holding> {
        let excess = self.excess;
        let usable = move |h: &&Holding| !excess.contains_key(&h.instance);
        self.holdings.iter().filter(usable)
    }

    fn usable_mut(&mut self) -> impl Iterator<Item = &mut Holding> {
        let excess = self.excess;
        let usable = move |h: &&mut Holding| !excess.contains_key(&h.instance);
        self.holdings.iter_mut().filter(usable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gateway, slots held, of these resting, of these recalled; what is asked back beyond that.
    type Row = (usize, u32, u32, u32, u32);

    fn check(what: &str, rows: &[Row], excess: u32, waiting: &[(usize, u32)]) {
        let holding = |row: &Row| Holding {
            gateway: row.0,
            instance: 0,
            held: row.1,
            resting: row.2,
            recalled: row.3,
        };
        let holdings: Vec<_> = rows.iter().map(holding).collect();
        let expected: Vec<_> = rows.iter().map(|row| row.4).collect();
        let excess = (excess > 0).then_some((0, excess)).into_iter().collect();
        let waiting = waiting.iter().copied().collect();
        assert_eq!(recalls(&holdings, &excess, &waiting), expected, "{what}");
    }

    #[test]
    fn idle_slots_go_where_callers_wait() {
        check("nobody waits", &[(0, 4, 4, 0, 0)], 0, &[]);
        check("one is idle", &[(0, 4, 1, 0, 1)], 0, &[(1, 1)]);
        check("two wait", &[(0, 4, 4, 0, 2)], 0, &[(1, 2)]);
        check("asked already", &[(0, 4, 4, 1, 0)], 0, &[(1, 1)]);
        check("its own callers", &[(0, 4, 1, 0, 0)], 0, &[(0, 9)]);
    }

    #[test]
    fn busy_slots_go_to_who_has_none_or_clearly_fewer() {
        check("one has none", &[(0, 4, 0, 0, 2)], 0, &[(1, 9)]);
        check("the only one", &[(0, 1, 0, 0, 1)], 0, &[(1, 1)]);
        check("turns", &[(0, 1, 0, 0, 1)], 0, &[(0, 5), (1, 5)]);
        let both = [(0, 5), (1, 5)];
        check("alike", &[(0, 4, 0, 0, 0), (1, 3, 0, 0, 0)], 0, &both);
        check("not alike", &[(0, 6, 0, 0, 2), (1, 2, 0, 0, 0)], 0, &both);
    }

    #[test]
    fn what_is_to_be_nobodys_is_asked_back_and_helps_nobody() {
        let idle_first = [(0, 4, 0, 0, 1), (1, 2, 2, 0, 2)];
        check("three of six", &idle_first, 3, &[]);
        check("all are asked for", &[(0, 4, 4, 4, 0)], 4, &[(1, 3)]);
    }
}
