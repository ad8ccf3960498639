//! Who is busy, who may take the next call, who waits (pure): the counts of one function, decided under one lock.
//!
//! `I` is what a call gets (the instance), `W` is what a waiting caller left behind (where to send it).

pub mod lent;
mod slot;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use self::slot::Slot;
use super::{QueueFull, Route, pace::Pace};
use crate::{
    function::Revision,
    plan::{self, Demand, Manners, Phase},
    runtime::InstanceId,
};

/// Most callers that wait for one function; one more is refused.
pub const MAX_WAITING: usize = 1000;
/// So many may wait however slowly turns come.
const FEW: usize = 16;
/// Of the callers' patience, the part in which a turn must be expected where turns come all the time: a queue that is longer
/// makes everyone late and nobody sooner.
const LATE: u32 = 4;

/// The instances of one function and its waiting callers.
#[derive(Debug)]
pub struct Slots<I, W> {
    route: Option<Arc<Route>>,
    all: Vec<Slot<I>>,
    waiting: VecDeque<(Ticket, W)>,
    next_ticket: Ticket,
    last_call: Option<Instant>,
    last_left: Option<Instant>,
    patience: Duration,
    pace: Pace,
}

/// Names a waiting caller, so that it can leave.
pub type Ticket = u64;

/// A waiting caller's turn has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant<I, W> {
    pub waiter: W,
    pub instance: Arc<I>,
    pub route: Arc<Route>,
}

/// What the end of a call means for others.
#[derive(Debug)]
pub struct Ended<I, W> {
    pub grants: Vec<Grant<I, W>>,
    /// Whether the controller should look at the function.
    pub turn: bool,
}

/// An instance that has left.
#[derive(Debug)]
pub struct Removed<I> {
    pub instance: Arc<I>,
    /// Where it was in its life.
    pub phase: Phase,
    /// Whether it ever answered a call whose end would be its own.
    pub answered: bool,
    /// Whether it had a call: the answer may be on its way still.
    pub busy: bool,
}

impl<I, W> Default for Slots<I, W> {
    fn default() -> Self {
        Self {
            route: None,
            all: Vec::new(),
            waiting: VecDeque::new(),
            next_ticket: 0,
            last_call: None,
            last_left: None,
            patience: Duration::from_secs(20),
            pace: Pace::default(),
        }
    }
}

impl<I, W> Slots<I, W> {
    /// The right to send one request, if some instance can take it now. The oldest with a free slot is chosen, so that
    /// the youngest become idle and can leave.
    pub fn take(&mut self) -> Option<(Arc<I>, Arc<Route>)> {
        if !self.waiting.is_empty() {
            return None;
        }
        self.lease()
    }

    /// Enters the queue.
    ///
    /// # Errors
    /// When it is full: by number, or because turns come too slowly for one more.
    pub fn wait(&mut self, waiter: W) -> Result<Ticket, QueueFull> {
        let waiting = self.waiting.len();
        if waiting == 0 {
            self.pace.forget();
        }
        let takes = self.pace.takes(waiting);
        let is_late = waiting >= FEW && takes.is_some_and(|t| t > self.patience / LATE);
        if waiting >= MAX_WAITING || is_late {
            return Err(QueueFull { waiting, takes });
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.push_back((ticket, waiter));
        Ok(ticket)
    }

    /// Leaves the queue; no matter if the turn has come meanwhile. Says whether it was still in it.
    pub fn leave(&mut self, ticket: Ticket, now: Instant) -> bool {
        // Tickets are given in order.
        let at = self.waiting.binary_search_by_key(&ticket, |(t, _)| *t);
        let left = at.is_ok_and(|at| self.waiting.remove(at).is_some());
        if left {
            self.last_left = Some(now);
        }
        left
    }

    /// Everyone who waits, to be told that it is in vain.
    pub fn dismiss(&mut self) -> Vec<W> {
        self.waiting.drain(..).map(|(_, waiter)| waiter).collect()
    }

    /// A new instance is ready.
    pub fn add(
        &mut self,
        id: InstanceId,
        revision: Revision,
        instance: Arc<I>,
        now: Instant,
    ) -> Vec<Grant<I, W>> {
        self.all.push(Slot::new(id, revision, instance, now));
        let grants = self.grants();
        let route = self.route.as_ref();
        if route.is_some_and(|r| r.manners == Manners::Single) {
            // Each call has an instance of its own, so this is how turns come there.
            self.pace.count(grants.len(), now);
        } else {
            self.pace.forget();
        }
        grants
    }

    /// Calls go to this revision from now on; instances of the one before take no more. `None` ends the service.
    pub fn serve(&mut self, route: Option<Arc<Route>>) -> Vec<Grant<I, W>> {
        let before = std::mem::replace(&mut self.route, route);
        let now = self.route.as_ref().map(|r| &r.revision);
        if let Some(before) = before.filter(|b| Some(&b.revision) != now) {
            for slot in self
                .all
                .iter_mut()
                .filter(|s| s.revision == before.revision)
            {
                if matches!(slot.phase, Phase::Ready | Phase::Probation(_)) {
                    slot.phase = Phase::Draining;
                }
            }
        }
        self.let_go();
        for slot in &mut self.all {
            slot.pay_back();
        }
        self.pace.forget();
        self.grants()
    }

    /// The revision that calls go to.
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.route.as_ref()
    }

    /// An instance has begun to answer.
    pub fn answered(&mut self, id: &str) {
        self.change(id, |slot| {
            slot.answered += 1;
            true
        });
    }

    /// A call is over. One of an instance that has disappeared is no matter, though the instance was found again since.
    pub fn end(&mut self, instance: &Arc<I>, now: Instant) -> Ended<I, W> {
        self.rest(instance, Some(now));
        self.last_call = Some(now);
        self.give_back(instance, now)
    }

    /// Who holds a lease has no call for it; the last one, if there was one, ended then.
    pub fn rest(&mut self, instance: &Arc<I>, since: Option<Instant>) {
        self.last_call = self.last_call.max(since);
        if let Some(slot) = self.of(instance) {
            slot.resting += 1;
            if slot.busy() == 0 {
                slot.idle_since = since.map_or(slot.idle_since, |at| slot.idle_since.max(at));
            }
        }
    }

    /// A lease that rests comes back.
    pub fn give_back(&mut self, instance: &Arc<I>, now: Instant) -> Ended<I, W> {
        let manners = self.route.as_ref().map_or(Manners::Stays, |r| r.manners);
        let mut turn = false;
        if let Some(slot) = self.of(instance) {
            slot.resting = slot.resting.saturating_sub(1);
            slot.in_flight = slot.in_flight.saturating_sub(1);
            if slot.phase == Phase::Ready && slot.answered > 0 {
                slot.phase = after_answer(manners, now);
            }
            turn = slot.phase != Phase::Ready && slot.in_flight == 0;
            turn |= slot.pay_back();
        }
        let grants = self.grants();
        self.pace.count(grants.len(), now);
        Ended { grants, turn }
    }

    /// Takes an instance out of service if it has no call. Says whether it is out of service now and nobody holds a lease.
    pub fn retire(&mut self, id: &str) -> bool {
        self.change(id, |slot| {
            let idle = slot.busy() == 0 && !slot.is_held_back;
            if idle && !matches!(slot.phase, Phase::Condemned | Phase::Broken(_)) {
                slot.phase = Phase::Draining;
            }
            slot.in_flight == 0 && !slot.is_held_back
        })
    }

    /// Takes an instance out of service for good, whatever it does.
    pub fn condemn(&mut self, id: &str) -> bool {
        self.change(id, |slot| {
            slot.phase = Phase::Condemned;
            slot.pay_back();
            true
        })
    }

    /// A call on an instance broke off: it gets no more, and is crashing or must go.
    pub fn broke(&mut self, id: &str, now: Instant) -> bool {
        self.change(id, |slot| {
            if !matches!(slot.phase, Phase::Condemned | Phase::Broken(_)) {
                slot.phase = Phase::Broken(now);
            }
            slot.pay_back();
            true
        })
    }

    /// An instance has stayed after its first call.
    pub fn settle(&mut self, id: &str) -> Vec<Grant<I, W>> {
        self.change(id, |slot| {
            if matches!(slot.phase, Phase::Probation(_)) {
                slot.phase = Phase::Ready;
            }
            true
        });
        self.grants()
    }

    /// An instance is gone.
    pub fn remove(&mut self, id: &str) -> Option<Removed<I>> {
        let at = self.all.iter().position(|s| s.id == id)?;
        let slot = self.all.remove(at);
        Some(Removed {
            busy: slot.busy() > 0,
            instance: slot.instance,
            phase: slot.phase,
            answered: slot.answered > 0,
        })
    }

    /// How long callers wait at most.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Callers that come from now on wait so long at most.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Who waits, and who did.
    pub fn demand(&self) -> Demand {
        Demand {
            waiting: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
            last_call: self.last_call,
            last_left: self.last_left,
        }
    }

    /// The instances as the plan sees them, the oldest first.
    pub fn instances(&self) -> impl Iterator<Item = plan::Instance> + '_ {
        self.all.iter().map(|slot| plan::Instance {
            id: slot.id.clone(),
            revision: slot.revision.clone(),
            phase: slot.phase,
            in_flight: slot.in_use(),
            idle_since: slot.idle_since,
            since: slot.since,
        })
    }

    /// The instances themselves.
    pub fn handles(&self) -> impl Iterator<Item = &Arc<I>> {
        self.all.iter().map(|slot| &slot.instance)
    }

    fn of(&mut self, instance: &Arc<I>) -> Option<&mut Slot<I>> {
        let mut slots = self.all.iter_mut();
        slots.find(|s| Arc::ptr_eq(&s.instance, instance))
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut Slot<I>) -> bool) -> bool {
        self.all.iter_mut().find(|s| s.id == id).is_some_and(change)
    }

    /// What is on probation is not there to stay, now that its revision is known to exit.
    fn let_go(&mut self) {
        let Some(route) = self.route.as_ref().filter(|r| r.manners == Manners::Single) else {
            return;
        };
        for slot in self.all.iter_mut().filter(|s| s.revision == route.revision) {
            if let Phase::Probation(since) = slot.phase {
                slot.phase = Phase::Leaving(since);
            }
        }
    }

    fn lease(&mut self) -> Option<(Arc<I>, Arc<Route>)> {
        let route = self.route.as_ref()?;
        let most = route.calls_at_a_time();
        let slot = self
            .all
            .iter_mut()
            .find(|s| s.revision == route.revision && s.has_room(most))?;
        slot.in_flight += 1;
        Some((Arc::clone(&slot.instance), Arc::clone(route)))
    }

    fn grants(&mut self) -> Vec<Grant<I, W>> {
        let mut grants = Vec::new();
        while !self.waiting.is_empty() {
            let Some((instance, route)) = self.lease() else {
                break;
            };
            let Some((_, waiter)) = self.waiting.pop_front() else {
                break;
            };
            grants.push(Grant {
                waiter,
                instance,
                route,
            });
        }
        grants
    }
}

fn after_answer(manners: Manners, now: Instant) -> Phase {
    match manners {
        Manners::Stays => Phase::Ready,
        Manners::Unknown => Phase::Probation(now),
        Manners::Single => Phase::Leaving(now),
    }
}
