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

    /// What all instances together may take.
    pub fn limit(&self) -> i64 {
        self.limit
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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn id(n: usize) -> InstanceId {
        format!("i{n}")
    }

    #[test]
    fn room_is_what_fits_beside_what_is_taken() {
        let capacity = Capacity::new(100);
        for (each, room) in [(1, 100), (30, 3), (100, 1), (101, 0), (0, 100)] {
            assert_eq!(capacity.room(each), room, "{each}");
        }
        assert!(capacity.take(&id(1), 60));
        assert_eq!(capacity.room(20), 2);
        assert!(!capacity.take(&id(2), 41), "more than is left");
        assert!(capacity.take(&id(2), 40), "exactly what is left");
        assert_eq!(capacity.room(1), 0);
        capacity.give_back(&id(1));
        capacity.give_back(&id(1));
        assert_eq!(
            capacity.room(1),
            60,
            "given back once, however often it is said"
        );
    }

    #[test]
    fn what_exists_counts_even_if_it_does_not_fit() {
        let capacity = Capacity::new(100);
        capacity.note(&id(1), 150);
        capacity.note(&id(1), 150);
        assert_eq!((capacity.room(1), capacity.take(&id(2), 1)), (0, false));
        capacity.give_back(&id(1));
        assert_eq!(capacity.room(1), 100);
    }

    #[test]
    fn takers_at_the_same_time_never_get_more_than_there_is() {
        let capacity = Capacity::new(100);
        let barrier = Barrier::new(8);
        let run = &|thread: usize| {
            barrier.wait();
            (0..50)
                .filter(|n| capacity.take(&id(thread * 100 + n), 7))
                .count()
        };
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| scope.spawn(move || run(thread)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!((taken, capacity.room(7)), (14, 0));
    }
}
