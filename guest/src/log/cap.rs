//! Pure: how much of the log is let through, and when what was dropped is told.

use std::fmt;
use std::time::{Duration, Instant};

use super::bucket::Bucket;

const BYTES_PER_SECOND: u64 = 1024 * 1024;
const BYTES_BURST: u64 = 1024 * 1024;
/// Short lines cost the engine far more than their bytes.
const LINES_PER_SECOND: u64 = 2_000;
const LINES_BURST: u64 = 10_000;
/// A flood is over when nothing was dropped for so long.
const EASED_AFTER: Duration = Duration::from_secs(1);
/// A flood that does not end is told of so often.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What was dropped since it was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub lines: u64,
    pub bytes: u64,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lines, bytes } = self;
        write!(f, "dropped {lines} lines ({bytes} bytes) of log")
    }
}

/// The cap on both streams of the log together.
#[derive(Debug)]
pub struct Cap {
    bytes: Bucket,
    lines: Bucket,
    flood: Option<Flood>,
}

#[derive(Debug)]
struct Flood {
    dropped: Dropped,
    first: Instant,
    last: Instant,
}

impl Flood {
    fn told_at(&self) -> Instant {
        (self.last + EASED_AFTER).min(self.first + TOLD_EVERY)
    }
}

impl Cap {
    pub fn new() -> Self {
        Self {
            bytes: Bucket::new(BYTES_PER_SECOND, BYTES_BURST),
            lines: Bucket::new(LINES_PER_SECOND, LINES_BURST),
            flood: None,
        }
    }

    /// Whether a line of so many bytes may pass; it counts if it may.
    pub fn admit(&mut self, bytes: u64, now: Instant) -> bool {
        let admitted = self.bytes.has(bytes, now) && self.lines.has(1, now);
        if admitted {
            self.bytes.take(bytes, now);
            self.lines.take(1, now);
        }
        admitted
    }

    /// Counts a line that was dropped.
    pub fn count_dropped(&mut self, bytes: u64, now: Instant) {
        let dropped = Dropped { lines: 0, bytes: 0 };
        let flood = self.flood.get_or_insert(Flood {
            dropped,
            first: now,
            last: now,
        });
        flood.dropped.lines += 1;
        flood.dropped.bytes += bytes;
        flood.last = now;
    }

    /// When [`Self::due`] will have something to tell, as far as is known now.
    pub fn wake(&self) -> Option<Instant> {
        self.flood.as_ref().map(Flood::told_at)
    }

    /// What was dropped, once, if it is time to tell.
    pub fn due(&mut self, now: Instant) -> Option<Dropped> {
        self.flood
            .take_if(|flood| now >= flood.told_at())
            .map(|flood| flood.dropped)
    }

    /// What was dropped and has not been told.
    pub fn rest(&mut self) -> Option<Dropped> {
        self.flood.take().map(|flood| flood.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers `count` lines of `bytes` each at one moment; how many pass?
    fn offer(cap: &mut Cap, count: u64, bytes: u64, now: Instant) -> u64 {
        let passes = |cap: &mut Cap| {
            let passed = cap.admit(bytes, now);
            if !passed {
                cap.count_dropped(bytes, now);
            }
            passed
        };
        (0..count).map(|_| u64::from(passes(cap))).sum()
    }

    #[test]
    fn long_lines_are_capped_by_their_bytes_and_short_ones_by_their_number() {
        let now = Instant::now();
        for (bytes, expected) in [
            (1, LINES_BURST),
            (64, LINES_BURST),
            (1024, 1024),
            (16 * 1024, 64),
        ] {
            assert_eq!(
                offer(&mut Cap::new(), 20_000, bytes, now),
                expected,
                "lines of {bytes} bytes"
            );
        }
    }

    #[test]
    fn a_refused_line_costs_nothing() {
        let now = Instant::now();
        let mut cap = Cap::new();
        assert!(!cap.admit(BYTES_BURST + 1, now));
        assert_eq!(offer(&mut cap, LINES_BURST, 1, now), LINES_BURST);
    }

    #[test]
    fn drops_are_told_once_when_the_flood_has_eased() {
        let start = Instant::now();
        let mut cap = Cap::new();
        assert_eq!(cap.wake(), None);
        offer(&mut cap, LINES_BURST + 5, 3, start);
        let eased = start + EASED_AFTER;
        assert_eq!(cap.wake(), Some(eased));
        assert_eq!(
            cap.due(eased.checked_sub(Duration::from_millis(1)).unwrap()),
            None
        );
        assert_eq!(
            cap.due(eased),
            Some(Dropped {
                lines: 5,
                bytes: 15
            })
        );
        assert_eq!(cap.due(eased + TOLD_EVERY), None);
        assert_eq!(cap.rest(), None);
    }

    #[test]
    fn a_flood_that_lasts_is_told_of_while_it_lasts() {
        let start = Instant::now();
        let mut cap = Cap::new();
        let mut told = Vec::new();
        for tenths in 0..250 {
            let now = start + Duration::from_millis(tenths * 100);
            cap.count_dropped(2, now);
            told.extend(cap.due(now));
        }
        assert_eq!(
            told,
            [Dropped {
                lines: 101,
                bytes: 202
            }; 2]
        );
        assert_eq!(
            cap.rest(),
            Some(Dropped {
                lines: 48,
                bytes: 96
            })
        );
    }

    #[test]
    fn says_what_was_dropped() {
        let text = Dropped {
            lines: 3,
            bytes: 40,
        }
        .to_string();
        assert_eq!(text, "dropped 3 lines (40 bytes) of log");
    }
}
