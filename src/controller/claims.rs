//! What Functions share and wait for: the first trial of a revision, and memory.

use std::sync::atomic::Ordering;

use super::Controller;
use crate::{
    function::{FunctionKey, Revision},
    store::Fact,
};

impl Controller {
    /// Whether this Function may try a revision out now; one that is proven anybody may start.
    pub(super) fn claims_proof(&self, key: &FunctionKey, revision: &Revision) -> bool {
        if self.ports.store.knows(revision, Fact::Proven) {
            return true;
        }
        self.proving()
            .entry(revision.clone())
            .or_insert_with(|| key.clone())
            == key
    }

    /// The trial is over; all who waited for its outcome look again.
    pub(super) fn end_proof(&self, key: &FunctionKey, revision: &Revision) {
        let mine = {
            let mut proving = self.proving();
            let mine = proving.get(revision) == Some(key);
            if mine {
                proving.remove(revision);
            }
            mine
        };
        if mine {
            self.request_all_of(revision);
        }
    }

    fn request_all_of(&self, revision: &Revision) {
        for (key, entry) in self.entries().iter() {
            if entry
                .desired()
                .is_some_and(|d| d.target.revision == *revision)
            {
                self.turns.request(key);
            }
        }
    }

    /// Notes whether a Function lacks memory. While one does, idle instances of others leave.
    pub(super) fn starve(&self, key: &FunctionKey, starved: bool) {
        let mut starving = self.starving();
        let changed = if starved {
            starving.insert(key.clone())
        } else {
            starving.remove(key)
        };
        let pressure = !starving.is_empty();
        drop(starving);
        if changed && self.pressure.swap(pressure, Ordering::Relaxed) != pressure && pressure {
            for pool in self.pools.all() {
                self.turns.request(pool.key());
            }
        }
        if let Some(entry) = self.entries().get(key) {
            entry.pool.set_starved(starved);
        }
    }

    /// Memory has become free.
    pub(super) fn feed_starving(&self) {
        for key in self.starving().iter() {
            self.turns.request(key);
        }
    }
}
