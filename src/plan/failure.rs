//! What went wrong and is not over, and what may help against it (pure).

use std::time::Instant;

use crate::{function::status::Reason, retry::BACKOFF};

/// Failed starts in a row after which only a caller or an edit tries again.
pub const ATTEMPTS: u32 = 3;

/// Why nothing can be planned for the newest generation, for example an unreadable source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub reason: Reason,
    pub message: String,
    /// How often in a row, where it was tried again.
    pub attempts: u32,
    /// When to try again; never where only an edit helps.
    pub retry_at: Option<Instant>,
}

impl Blocked {
    /// Time helps only against what was there and could not be read.
    #[must_use]
    pub fn after(mut self, before: Option<&Self>, now: Instant) -> Self {
        if self.reason == Reason::SourceUnavailable {
            self.attempts = before.map_or(0, |b| b.attempts) + 1;
            self.retry_at = BACKOFF.next(self.attempts, now);
        }
        self
    }
}

/// A failure that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    pub message: String,
    /// How often in a row.
    pub attempts: u32,
    /// When to try again; never where only an edit helps.
    pub retry_at: Option<Instant>,
    /// What an instance that had started was at when it crashed, if that is the failure.
    pub crash: Option<Crash>,
}

/// When an instance crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    Idle,
    /// Other calls may do better, so callers are a reason to start another at once.
    InCall,
}

impl Failure {
    /// Whether only a caller or an edit makes the controller try again. What an engine does is no fault of the revision, and
    /// passes; what a call does is none of the next one's.
    pub(super) fn is_given_up(&self) -> bool {
        self.attempts >= ATTEMPTS && !self.is_the_engines() && !self.is_of_calls()
    }

    /// Whether it says nothing about the revision: the engine has a bad day, a full disk, or no room for one more.
    pub fn is_the_engines(&self) -> bool {
        use Reason::{EngineUnavailable, NoCapacity, NoSpace};
        matches!(self.reason, EngineUnavailable | NoCapacity | NoSpace)
    }

    /// Whether callers had better wait, as an engine that is away is back soon.
    pub fn is_worth_waiting(&self) -> bool {
        self.reason == Reason::EngineUnavailable
    }

    /// Whether calls made instances crash.
    pub(super) fn is_of_calls(&self) -> bool {
        self.crash == Some(Crash::InCall)
    }
}
