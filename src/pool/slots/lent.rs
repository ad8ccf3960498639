//! Leases that go to others, and come from others: the owner of an instance lends so many of its slots to a gateway, which has
//! calls for some of them and rests with the others (pure).
//!
//! For the owner each is a lease as any other; for the gateway all of an instance are a loan, within which it hands out as
//! an owner would.

use std::{sync::Arc, time::Instant};

use super::{
    super::Route,
    Grant, Slots,
    slot::{Loan, Slot},
};
use crate::{
    function::Revision,
    plan::{Manners, Phase},
    runtime::InstanceId,
};

/// A loan, told to whom it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Borrowed {
    pub id: InstanceId,
    pub held: u32,
    pub busy: u32,
    /// When the last call ended, if there was one.
    pub idle_since: Option<Instant>,
    /// See [`Slots::answered`].
    pub answered: bool,
    pub phase: Phase,
}

impl<I, W> Slots<I, W> {
    /// A lease that rests has a call again.
    pub fn wake(&mut self, instance: &Arc<I>) {
        if let Some(slot) = self.of(instance) {
            slot.resting = slot.resting.saturating_sub(1);
        }
    }

    /// A lease that somebody has held since before we knew of it: it counts, whether or not there is room.
    pub fn claim(&mut self, id: &str) -> Option<(Arc<I>, Arc<Route>)> {
        let slot = self.all.iter_mut().find(|s| s.id == id)?;
        slot.in_flight += 1;
        let route = match &self.route {
            Some(route) => Arc::clone(route),
            None => Arc::new(Route::unknown(slot.revision.clone())),
        };
        Some((Arc::clone(&slot.instance), route))
    }

    /// An instance is there that neither takes calls nor ends until it is released: others may hold leases that we do not know.
    pub fn add_held_back(
        &mut self,
        (id, revision): (InstanceId, Revision),
        instance: Arc<I>,
        now: Instant,
    ) {
        let mut slot = Slot::new(id, revision, instance, now);
        slot.is_held_back = true;
        self.all.push(slot);
    }

    /// Whether there is an instance of which it is not known what others hold.
    pub fn hold_back(&self) -> bool {
        self.all.iter().any(|slot| slot.is_held_back)
    }

    /// All that others hold is known.
    pub fn release(&mut self) -> Vec<Grant<I, W>> {
        for slot in &mut self.all {
            slot.is_held_back = false;
        }
        self.grants()
    }

    /// Slots of each instance that more is held of than it may have: since terms changed, or out of service.
    pub fn excess(&self) -> impl Iterator<Item = (&InstanceId, u32)> + '_ {
        let route = self.route.as_ref();
        self.all.iter().map(move |slot| {
            let most = match (slot.phase, route) {
                (Phase::Ready, Some(route)) if route.revision == slot.revision => {
                    route.calls_at_a_time()
                }
                (Phase::Ready, _) => slot.in_flight,
                _ => 0,
            };
            (&slot.id, slot.in_flight.saturating_sub(most))
        })
    }

    /// The owner lends `slots` more of an instance. One that we had taken out of service, but for good, serves again: its owner
    /// knows better.
    pub fn borrow(
        &mut self,
        (id, revision): (InstanceId, Revision),
        instance: impl FnOnce() -> Arc<I>,
        slots: u32,
        now: Instant,
    ) -> Vec<Grant<I, W>> {
        let at = self.all.iter().position(|s| s.id == id);
        let is_new = at.is_none();
        let at = at.unwrap_or_else(|| {
            let mut slot = Slot::new(id, revision, instance(), now);
            slot.loan = Some(Loan::default());
            self.all.push(slot);
            self.all.len() - 1
        });
        let slot = &mut self.all[at];
        if let Some(loan) = &mut slot.loan {
            loan.held += slots;
        }
        if !matches!(slot.phase, Phase::Condemned | Phase::Broken(_)) {
            slot.phase = Phase::Ready;
        }
        slot.pay_back();
        let grants = self.grants();
        let manners = self.route.as_ref().map(|route| route.manners);
        if is_new || manners == Some(Manners::Unknown) {
            // Turns will come faster than they did.
            self.pace.forget();
        } else {
            self.pace.count(grants.len(), now);
        }
        grants
    }

    /// The owner wants `slots` of an instance back.
    pub fn recall(&mut self, id: &str, slots: u32) {
        self.change(id, |slot| {
            if let Some(loan) = &mut slot.loan {
                loan.owed = loan.held.min(loan.owed.saturating_add(slots));
            }
            slot.pay_back()
        });
    }

    /// What is lent is used no more than it is at this moment.
    pub fn forsake(&mut self) {
        for slot in &mut self.all {
            if let Some(loan) = &mut slot.loan {
                loan.owed = loan.held;
            }
            slot.pay_back();
        }
    }

    /// Instances of others that we have nothing of any more.
    pub fn returned(&self) -> impl Iterator<Item = &Arc<I>> {
        let is_returned = |slot: &&Slot<I>| slot.loan.is_some_and(|loan| loan.held == 0);
        let returned = self.all.iter().filter(is_returned);
        returned.map(|slot| &slot.instance)
    }

    /// What we have from others.
    pub fn borrowed(&self) -> impl Iterator<Item = Borrowed> + '_ {
        self.all.iter().filter_map(|slot| {
            Some(Borrowed {
                id: slot.id.clone(),
                held: slot.loan?.held,
                busy: slot.in_flight,
                idle_since: (slot.idle_since > slot.since).then_some(slot.idle_since),
                answered: slot.answered > 0,
                phase: slot.phase,
            })
        })
    }
}
