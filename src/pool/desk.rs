//! Where instances are handed out call by call and taken back: [`Slots`] under their lock, and callers told of their turn
//! outside of it. It knows no time: a caller without patience drops its [`Place`].
//!
//! `tests/model.rs` compiles this file once more, with what a checker controls behind `super::sync`, and runs it through
//! interleavings that no machine would show.

use std::{
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::{
    Instance, LeaseError, Route,
    slots::{Grant, Slots, Ticket},
    sync::{Mutex, MutexGuard, oneshot},
};
use crate::{controller::Turns, function::FunctionKey, plan::Manners};

/// Where a waiting caller is told that its turn has come, or never will.
pub type Waiter = oneshot::Sender<Result<Lease, LeaseError>>;

/// The instances of one function, and who waits for them.
pub struct Desk {
    key: FunctionKey,
    slots: Mutex<Slots<Instance, Waiter>>,
    turns: Turns,
}

/// What a caller gets who asks.
#[derive(Debug)]
pub enum Asked {
    Lease(Lease),
    Place(Place),
}

/// The right to send one request to one instance.
#[derive(Debug)]
pub struct Lease {
    pub instance: Arc<Instance>,
    pub route: Arc<Route>,
    /// Whoever holds it has no call for it at this moment.
    resting: bool,
    desk: Arc<Desk>,
}

/// A place in the queue; its caller's turn, once that comes. Dropping it is leaving: a turn that has come meanwhile is the
/// next one's.
#[derive(Debug)]
pub struct Place {
    desk: Arc<Desk>,
    ticket: Ticket,
    /// How long its caller waits.
    pub patience: Duration,
    turn: oneshot::Receiver<Result<Lease, LeaseError>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Desk({})", self.key)
    }
}

impl Desk {
    /// Without instances. `turns` is asked for one when the controller should look at the function of this key.
    pub fn new(key: FunctionKey, turns: Turns) -> Arc<Self> {
        Arc::new(Self {
            key,
            slots: Mutex::default(),
            turns,
        })
    }

    /// Whose instances these are.
    pub fn key(&self) -> &FunctionKey {
        &self.key
    }

    /// A lease where an instance has a free slot, else a place in the queue, which is demand.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn ask(self: &Arc<Self>) -> Result<Asked, LeaseError> {
        let place = {
            // Looking for a slot and entering the queue are one step: a slot that becomes free between them would be nobody's.
            let mut slots = self.slots();
            if let Some((instance, route)) = slots.take() {
                return Ok(Asked::Lease(self.lease(instance, route)));
            }
            let (waiter, turn) = oneshot::channel();
            let ticket = slots.wait(waiter).map_err(LeaseError::QueueFull)?;
            Place {
                desk: Arc::clone(self),
                ticket,
                patience: slots.patience(),
                turn,
            }
        };
        self.look_here();
        Ok(Asked::Place(place))
    }

    /// A lease if an instance has a free slot and nobody waits for one.
    pub fn take(self: &Arc<Self>) -> Option<Lease> {
        let taken = self.slots().take();
        taken.map(|(instance, route)| self.lease(instance, route))
    }

    /// A lease that somebody has held since before we knew of it.
    pub fn claim(self: &Arc<Self>, id: &str) -> Option<Lease> {
        let claimed = self.slots().claim(id);
        claimed.map(|(instance, route)| self.lease(instance, route))
    }

    /// Changes what may open slots, and hands those out.
    pub fn change(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Slots<Instance, Waiter>) -> Vec<Grant<Instance, Waiter>>,
    ) {
        let grants = change(&mut self.slots());
        self.hand_out(grants);
    }

    /// Takes an instance out of service for good.
    pub fn condemn(&self, id: &str) {
        let known = self.slots().condemn(id);
        if known {
            self.look_here();
        }
    }

    /// A call on an instance broke off.
    fn broke(&self, id: &str) {
        let known = self.slots().broke(id, Instant::now());
        if known {
            self.look_here();
        }
    }

    /// Tells everyone who waits that it is in vain.
    pub fn refuse(&self, error: &LeaseError) {
        let waiting = self.slots().dismiss();
        for waiter in waiting {
            // One that has left meanwhile needs no answer.
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// The counts, locked. What frees a slot belongs into [`Desk::change`].
    pub fn slots(&self) -> MutexGuard<'_, Slots<Instance, Waiter>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called without the lock: a caller that has left drops the lease that it is sent, and that takes the lock.
    fn hand_out(self: &Arc<Self>, grants: Vec<Grant<Instance, Waiter>>) {
        for grant in grants {
            let lease = self.lease(grant.instance, grant.route);
            // Comes back, and is dropped, if that caller has left; with that the next one gets it.
            let _ = grant.waiter.send(Ok(lease));
        }
    }

    fn lease(self: &Arc<Self>, instance: Arc<Instance>, route: Arc<Route>) -> Lease {
        Lease {
            instance,
            route,
            resting: false,
            desk: Arc::clone(self),
        }
    }

    /// The controller has something to do.
    pub fn look_here(&self) {
        self.turns.request(&self.key);
    }
}

impl Lease {
    /// The instance has begun to answer. Noted only where it may exit after that.
    pub fn answered(&self) {
        if self.route.manners != Manners::Stays {
            self.desk.slots().answered(&self.instance.id);
        }
    }

    /// The instance did what no instance may do; it gets no more calls and is ended.
    pub fn condemn(&self) {
        self.desk.condemn(&self.instance.id);
    }

    /// The call broke off: the instance gets no more, and is watched as it ends.
    pub fn broke(&self) {
        self.desk.broke(&self.instance.id);
    }
}

impl Lease {
    /// Its holder keeps it, and has no call for it; the last one, if there was one, ended then.
    pub fn rest(&mut self, since: Option<Instant>) {
        let mut slots = self.desk.slots();
        if self.resting {
            slots.wake(&self.instance);
        }
        slots.rest(&self.instance, since);
        self.resting = true;
    }

    /// Its holder has a call for it again.
    pub fn wake(&mut self) {
        if std::mem::take(&mut self.resting) {
            self.desk.slots().wake(&self.instance);
        }
    }

    /// Whether its holder has no call for it.
    pub fn rests(&self) -> bool {
        self.resting
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let ended = if self.resting {
            self.desk.slots().give_back(&self.instance, Instant::now())
        } else {
            self.desk.slots().end(&self.instance, Instant::now())
        };
        if ended.turn {
            self.desk.look_here();
        }
        self.desk.hand_out(ended.grants);
    }
}

impl Future for Place {
    type Output = Result<Lease, LeaseError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let turn = ready!(Pin::new(&mut self.turn).poll(cx));
        // Nobody says so who could: the desk is no more.
        Poll::Ready(turn.unwrap_or(Err(LeaseError::Deleted)))
    }
}

impl Drop for Place {
    /// Leaves the queue. If the turn came before that, its lease goes with what it was sent through, and is handed on.
    fn drop(&mut self) {
        let left = self.desk.slots().leave(self.ticket, Instant::now());
        if left {
            self.desk.look_here();
        }
    }
}
