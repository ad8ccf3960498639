//! Places for the connections of a listener, and a few beyond them.

use std::{collections::VecDeque, sync::Arc};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
};

/// Connections beyond the limit that are answered at least with a refusal, or about our health: the youngest ones, so that
/// those that say nothing keep nobody out.
const SPARE: usize = 64;

/// Whether others could still come.
pub struct Room {
    limit: usize,
    free: Arc<Semaphore>,
}

impl Room {
    /// Half of the places or more are free.
    pub fn is_plenty(&self) -> bool {
        self.free.available_permits() >= self.limit / 2
    }
}

/// How many connections there may be.
pub struct Places {
    pub limit: usize,
    free: Arc<Semaphore>,
    /// Those beyond the limit, the oldest first; some have ended already.
    beyond: VecDeque<AbortHandle>,
}

impl Places {
    /// All of them free.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            free: Arc::new(Semaphore::new(limit)),
            beyond: VecDeque::new(),
        }
    }

    /// What a connection may look at.
    pub fn room(&self) -> Room {
        Room {
            limit: self.limit,
            free: Arc::clone(&self.free),
        }
    }

    /// A place, if one is free.
    pub fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// A connection goes on without a place; the oldest of those makes room for it.
    pub fn squeeze_in(&mut self, connection: AbortHandle) {
        self.beyond.push_back(connection);
        if self.beyond.len() > SPARE
            && let Some(oldest) = self.beyond.pop_front()
        {
            oldest.abort();
        }
    }
}
