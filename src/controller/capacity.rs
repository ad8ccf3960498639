//! How much memory all instances together may claim: a bound on the sum of their limits.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::runtime::InstanceId;

/// The memory that is given away, by instance.
#[derive(Debug)]
pub struct Capacity {
    limit: i64,
    taken: Mutex<HashMap<InstanceId, i64>>,
}

impl Capacity {
    /// `limit` in bytes.
    pub fn new(limit: i64) -> Self {
        Self {
            limit,
            taken: Mutex::default(),
        }
    }

    /// How many instances of `each` bytes fit in besides what is taken.
    pub fn room(&self, each: i64) -> u32 {
        let left = self.limit - self.lock().values().sum::<i64>();
        u32::try_from(left.max(0) / each.max(1)).unwrap_or(u32::MAX)
    }

    /// Takes `bytes` for an instance, if they are left.
    pub fn take(&self, id: &InstanceId, bytes: i64) -> bool {
        let mut taken = self.lock();
        let fits = taken.values().sum::<i64>() + bytes <= self.limit;
        if fits {
            taken.insert(id.clone(), bytes);
        }
        fits
    }

    /// Notes an instance that exists, whether or not it fits.
    pub fn note(&self, id: &InstanceId, bytes: i64) {
        self.lock().insert(id.clone(), bytes);
    }

    /// An instance is gone.
    pub fn give_back(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, i64>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
