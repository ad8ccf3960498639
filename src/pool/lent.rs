//! Instances that are lent: what a lender sees and does with a pool of its own, and a borrower with one of another's.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Asked, Instance, Lease, LeaseError, Pool, Route, slots::lent::Borrowed};
use crate::{
    function::Revision,
    runtime::{Address, InstanceId},
};

/// By what terms a function is called, and what callers are told whose patience ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub route: Option<Route>,
    pub patience: Duration,
    pub starved: bool,
    pub hindrance: Option<String>,
}

/// For whoever lends.
impl Pool {
    /// An instance that was there before we began. Where instances are lent, others may hold leases of it: it takes no calls
    /// before [`Pool::release`].
    pub fn adopt(&self, id: InstanceId, revision: Revision, address: impl Into<Address>) {
        if self.lender.is_none() {
            return self.add(id, revision, address);
        }
        let instance = Instance::new(id.clone(), revision.clone(), address.into());
        let now = Instant::now();
        self.desk
            .slots()
            .add_held_back((id, revision), instance, now);
        self.changed();
    }

    /// All that others hold is known.
    pub fn release(&self) {
        let mut some = false;
        self.desk.change(|slots| {
            some = slots.hold_back();
            slots.release()
        });
        if some {
            // What nobody needs may end from now on.
            self.desk.look_here();
        }
    }

    /// A lease, or a place in the queue.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn ask(&self) -> Result<Asked, LeaseError> {
        self.desk.ask()
    }

    /// A lease of what nobody needs at this moment.
    pub fn spare(&self) -> Option<Lease> {
        self.desk.take()
    }

    /// A lease that its holder has had since before we knew of it, unless the instance is no more.
    pub fn claim(&self, id: &str) -> Option<Lease> {
        self.desk.claim(id)
    }

    /// How many leases of each instance must come back: see [`Slots::excess`](super::slots::Slots::excess).
    pub fn excess(&self) -> Vec<(InstanceId, u32)> {
        let slots = self.desk.slots();
        let excess = slots.excess().filter(|(_, count)| *count > 0);
        excess.map(|(id, count)| (id.clone(), count)).collect()
    }

    /// By what terms it is called.
    pub fn terms(&self) -> Terms {
        let (route, patience) = {
            let slots = self.desk.slots();
            (slots.route().cloned(), slots.patience())
        };
        Terms {
            route: route.map(Arc::unwrap_or_clone),
            patience,
            starved: self.starved.load(Ordering::Relaxed),
            hindrance: self.hindrance().clone(),
        }
    }
}

/// For whoever borrows.
impl Pool {
    /// So many more calls of an instance are ours.
    pub fn borrow(&self, id: InstanceId, revision: Revision, address: Address, slots: u32) {
        let made = {
            let (id, revision) = (id.clone(), revision.clone());
            || Instance::new(id, revision, address)
        };
        self.desk
            .change(|all| all.borrow((id, revision), made, slots, Instant::now()));
        self.tell();
    }

    /// So many are wanted back.
    pub fn recall(&self, id: &str, slots: u32) {
        self.desk.slots().recall(id, slots);
        self.tell();
    }

    /// What is lent takes no more calls.
    pub fn forsake(&self) {
        self.desk.slots().forsake();
    }

    /// An instance is no more.
    pub fn ended(&self, id: &str) {
        if let Some(removed) = self.remove(id) {
            removed.instance.gone.cancel();
        }
        self.tell();
    }

    /// Closes the connections that are kept to what was given back: an instance that is to end waits until nobody has any.
    pub fn hang_up(&self) {
        for instance in self.desk.slots().returned() {
            instance.connections.close();
        }
    }

    /// How many callers wait, and what is lent to us.
    pub fn borrowed(&self) -> (u32, Vec<Borrowed>) {
        let slots = self.desk.slots();
        (slots.demand().waiting, slots.borrowed().collect())
    }

    fn tell(&self) {
        self.desk.look_here();
    }
}
