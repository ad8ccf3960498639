//! One instance, as its function's [`Slots`](super::Slots) count it (pure).

use std::{sync::Arc, time::Instant};

use crate::{function::Revision, plan::Phase, runtime::InstanceId};

#[derive(Debug)]
pub(super) struct Slot<I> {
    pub id: InstanceId,
    pub revision: Revision,
    pub instance: Arc<I>,
    pub phase: Phase,
    pub in_flight: u32,
    /// Of these, leases whose holders have no call for them at this moment.
    pub resting: u32,
    /// Where the instance is another's, what we have of it.
    pub loan: Option<Loan>,
    /// It neither takes calls nor ends before it is known what others hold of it.
    pub is_held_back: bool,
    /// Answers begun, where that matters: see [`super::Slots::answered`].
    pub answered: u64,
    pub idle_since: Instant,
    pub since: Instant,
}

/// What we have of an instance that is another's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loan {
    /// Calls that it may have from us.
    pub held: u32,
    /// How many of these are wanted back, as soon as they have no call.
    pub owed: u32,
}

impl<I> Slot<I> {
    pub fn new(id: InstanceId, revision: Revision, instance: Arc<I>, now: Instant) -> Self {
        Self {
            id,
            revision,
            instance,
            phase: Phase::Ready,
            in_flight: 0,
            resting: 0,
            loan: None,
            is_held_back: false,
            answered: 0,
            idle_since: now,
            since: now,
        }
    }

    /// Calls that it has.
    pub fn busy(&self) -> u32 {
        self.in_flight.saturating_sub(self.resting)
    }

    /// Calls that keep it from ending. What goes must be nobody's: that counts who may use it, also those who do not; and where
    /// it is not known yet who does, somebody may.
    pub fn in_use(&self) -> u32 {
        let known = match self.phase {
            Phase::Ready => self.busy(),
            _ => self.in_flight,
        };
        known.max(u32::from(self.is_held_back))
    }

    /// Whether it takes one more call, where it may have `most`.
    pub fn has_room(&self, most: u32) -> bool {
        let most = self.loan.as_ref().map_or(most, |loan| most.min(loan.held));
        self.phase == Phase::Ready && !self.is_held_back && self.in_flight < most
    }

    /// What is owed, and all of what takes no calls any more, is given back when it has no call. Says whether something was.
    pub fn pay_back(&mut self) -> bool {
        let Some(loan) = &mut self.loan else {
            return false;
        };
        let idle = loan.held.saturating_sub(self.in_flight);
        let back = match self.phase {
            Phase::Ready => idle.min(loan.owed),
            _ => idle,
        };
        loan.held -= back;
        loan.owed = loan.owed.saturating_sub(back).min(loan.held);
        back > 0
    }
}
