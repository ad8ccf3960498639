//! When to try again (pure).

use std::time::{Duration, Instant};

/// What may help against an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing but an edit of the object.
    OnChange,
    /// Time: longer after each attempt, from `first` up to `most`.
    Backoff { first: Duration, most: Duration },
}

/// For errors of the engine, of registries and of starts.
pub const BACKOFF: Retry = Retry::Backoff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(60),
};

impl Retry {
    /// When to try again after the `attempts`-th failure in a row, counted from 1.
    pub fn next(self, attempts: u32, now: Instant) -> Option<Instant> {
        match self {
            Self::OnChange => None,
            Self::Backoff { first, most } => {
                let doubled =
                    first.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
                Some(now + doubled.min(most))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound() {
        let now = Instant::now();
        let waits = [1, 2, 3, 7, 8, 40, u32::MAX]
            .map(|n| BACKOFF.next(n, now).map(|at| (at - now).as_secs()));
        assert_eq!(waits, [1, 2, 4, 60, 60, 60, 60].map(Some));
        assert_eq!(Retry::OnChange.next(1, now), None);
    }
}
