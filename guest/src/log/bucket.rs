//! Pure: a token bucket, kept as the one moment at which it will be full again.

use std::time::{Duration, Instant};

/// So many tokens a second, and at most `burst` at once.
#[derive(Debug)]
pub struct Bucket {
    per_second: u64,
    burst: u64,
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    pub fn new(per_second: u64, burst: u64) -> Self {
        Self {
            per_second,
            burst,
            full_at: None,
        }
    }

    /// Whether `tokens` can be taken now.
    pub fn has(&self, tokens: u64, now: Instant) -> bool {
        self.missing(now) + self.worth(tokens) <= self.worth(self.burst)
    }

    /// Takes `tokens`; ask [`Self::has`] before.
    pub fn take(&mut self, tokens: u64, now: Instant) {
        self.full_at = Some(now + self.missing(now) + self.worth(tokens));
    }

    fn missing(&self, now: Instant) -> Duration {
        self.full_at
            .map_or(Duration::ZERO, |full| full.saturating_duration_since(now))
    }

    /// The time in which so many tokens come.
    fn worth(&self, tokens: u64) -> Duration {
        Duration::from_nanos(tokens.saturating_mul(1_000_000_000) / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(bucket: &mut Bucket, now: Instant) -> u64 {
        let mut taken = 0;
        while bucket.has(1, now) {
            bucket.take(1, now);
            taken += 1;
        }
        taken
    }

    #[test]
    fn gives_the_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 25);
        assert_eq!(take_all(&mut bucket, start), 25);
        for (after, expected) in [
            (99, 0),
            (100, 1),
            (1_100, 10),
            (1_350, 2),
            (1_400, 1),
            (600_000, 25),
        ] {
            let now = start + Duration::from_millis(after);
            assert_eq!(take_all(&mut bucket, now), expected, "after {after} ms");
        }
    }

    #[test]
    fn more_than_the_burst_is_never_given() {
        let now = Instant::now();
        let bucket = Bucket::new(10, 25);
        assert!(bucket.has(25, now));
        assert!(!bucket.has(26, now));
        assert!(!bucket.has(u64::MAX, now));
    }

    #[test]
    fn time_that_goes_backwards_gives_nothing() {
        let now = Instant::now() + Duration::from_secs(60);
        let mut bucket = Bucket::new(10, 25);
        assert_eq!(take_all(&mut bucket, now), 25);
        assert_eq!(
            take_all(
                &mut bucket,
                now.checked_sub(Duration::from_secs(30)).unwrap()
            ),
            0
        );
    }
}
