//! Whether a controller lives that we cannot reach (pure): then it gives us up, and lends to others what we have. One that
//! renews its Lease lives; without news of that, nobody is known to.

use std::time::{Duration, Instant};

/// Renewals further apart than this are no sign of life in between: a controller renews much more often.
const FRESH: Duration = Duration::from_secs(10);
/// For how long it must be known to live before it counts; less, by far, than after what it gives us up.
const HOLD: Duration = Duration::from_secs(12);

/// What was seen of the Lease since the stream was lost.
#[derive(Debug, Default)]
pub(super) struct CutOff {
    version: Option<String>,
    /// The first and the last of renewals that came one soon after the other.
    renewed: Option<(Instant, Instant)>,
}

impl CutOff {
    /// The Lease was looked at. `is_there` if its holder says where it is.
    pub(super) fn saw(&mut self, version: &str, is_there: bool, now: Instant) {
        let before = self.version.replace(version.to_owned());
        if !is_there {
            self.renewed = None;
        } else if before.is_some_and(|before| before != version) {
            let fresh = self.fresh(now);
            self.renewed = Some((fresh.map_or(now, |(first, _)| first), now));
        }
    }

    /// Whether what we have is another's by now.
    pub(super) fn is_so(&self, now: Instant) -> bool {
        let fresh = self.fresh(now);
        fresh.is_some_and(|(first, _)| now.saturating_duration_since(first) >= HOLD)
    }

    fn fresh(&self, now: Instant) -> Option<(Instant, Instant)> {
        let is_fresh = |(_, last): &(_, Instant)| now.saturating_duration_since(*last) <= FRESH;
        self.renewed.filter(is_fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen at each second: the version, and whether the holder says where it is.
    fn after(seen: impl IntoIterator<Item = (u64, u64, bool)>, end: u64) -> bool {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let mut cut_off = CutOff::default();
        for (second, version, is_there) in seen {
            cut_off.saw(&version.to_string(), is_there, at(second));
        }
        cut_off.is_so(at(end))
    }

    #[test]
    fn who_is_cut_off_from_a_living_controller_knows_it_in_time() {
        let lives = (0..=20).map(|second| (second, second / 2, true));
        assert!(after(lives.clone(), 20));
        assert!(!after(lives.clone().take(12), 12), "not yet");
        assert!(
            !after(lives.clone().map(|(s, _, there)| (s, 1, there)), 20),
            "renewed by nobody"
        );
        assert!(
            !after(lives.clone().map(|(s, v, _)| (s, v, false)), 20),
            "not there yet"
        );
        assert!(!after([], 60), "the server is away");
        assert!(!after(lives.clone(), 40), "and was for a while");
        let died = lives
            .clone()
            .take(6)
            .chain((6..60).map(|second| (second, 2, true)));
        assert!(!after(died.clone(), 60), "it died");
        let next = died.chain((60..65).map(|second| (second, second, true)));
        assert!(!after(next.clone(), 65), "the next one has just come");
        assert!(after(
            next.chain((65..75).map(|second| (second, second, true))),
            75
        ));
    }

    #[test]
    fn a_gateway_is_given_up_only_after_it_has_noticed() {
        assert!(HOLD + FRESH + Duration::from_secs(20) < crate::stream::CUT);
    }
}
