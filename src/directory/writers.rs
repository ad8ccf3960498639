//! Which files somebody is writing, as far as the kernel tells: what was modified and not closed since may be half there.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Time without a change after which an open file is believed all the same.
pub const REST: Duration = Duration::from_secs(10);
/// Time after which a file that never rests is believed at every change, as a log is.
const MOST: Duration = Duration::from_secs(60);

/// The files that were modified and not closed since. Clones share them.
#[derive(Clone, Default)]
pub struct Writers(Arc<Mutex<HashMap<PathBuf, Span>>>);

/// The first change and the last.
struct Span(Instant, Instant);

impl Writers {
    pub fn modified(&self, path: &Path, now: Instant) {
        let mut spans = self.spans();
        match spans.get_mut(path) {
            Some(span) => span.1 = now,
            None => {
                spans.insert(path.to_owned(), Span(now, now));
            }
        }
    }

    pub fn closed(&self, path: &Path) {
        self.spans().remove(path);
    }

    pub fn are_at(&self, path: &Path, now: Instant) -> bool {
        self.spans().get(path).is_some_and(|Span(first, last)| {
            now.duration_since(*last) < REST && now.duration_since(*first) < MOST
        })
    }

    fn spans(&self) -> MutexGuard<'_, HashMap<PathBuf, Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_believed_when_it_is_closed_or_rests_or_never_rests() {
        let (writers, path, start) = (Writers::default(), Path::new("a"), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!writers.are_at(path, start));
        writers.modified(path, start);
        assert!(writers.are_at(path, after(9)));
        assert!(!writers.are_at(path, after(10)), "it rests");
        writers.modified(path, after(11));
        assert!(writers.are_at(path, after(20)));
        writers.closed(path);
        assert!(!writers.are_at(path, after(20)), "it is closed");

        for seconds in 30..100 {
            writers.modified(path, after(seconds));
            assert_eq!(writers.are_at(path, after(seconds)), seconds < 90);
        }
        writers.closed(path);
        writers.modified(path, after(100));
        assert!(writers.are_at(path, after(100)), "it begins anew");
    }
}
