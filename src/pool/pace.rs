//! How fast the turns of waiting callers come (pure), so that nobody begins to wait for what would come too late.

use std::time::{Duration, Instant};

/// Turns are counted for at least this long before they say anything.
const LOOK: Duration = Duration::from_secs(1);

/// The time between two turns, while callers wait for the ends of calls without a pause.
#[derive(Debug, Default)]
pub struct Pace {
    since: Option<Instant>,
    turns: u32,
    each: Option<Duration>,
}

impl Pace {
    /// What was seen so far says nothing about what comes: nobody waited meanwhile, or there are other instances.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// So many callers got their turns.
    pub fn count(&mut self, turns: usize, now: Instant) {
        let turns = u32::try_from(turns).unwrap_or(u32::MAX);
        let Some(since) = self.since else {
            // The first one comes some time after nobody knows what.
            self.since = (turns > 0).then_some(now);
            return;
        };
        self.turns = self.turns.saturating_add(turns);
        let length = now.saturating_duration_since(since);
        if self.turns > 0 && length >= LOOK {
            self.each = Some(length / self.turns);
            (self.since, self.turns) = (Some(now), 0);
        }
    }

    /// How long so many turns take, if that is known.
    pub fn takes(&self, turns: usize) -> Option<Duration> {
        let turns = u32::try_from(turns).unwrap_or(u32::MAX);
        self.each.map(|each| each.saturating_mul(turns))
    }
}
