//! What was learnt a moment ago (pure): believed for a few seconds, and never more of it than so much.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// For how long it is believed.
pub(super) const BELIEVED: Duration = Duration::from_secs(10);
/// Most that is remembered.
const MOST: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Recent<K, V>(HashMap<K, (V, Instant)>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        let (value, since) = self.0.get(key)?;
        is_fresh(*since, now).then(|| value.clone())
    }

    /// Where there is no room, all of it is forgotten: it is learnt again.
    pub fn put(&mut self, key: K, value: V, now: Instant) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (_, since)| is_fresh(*since, now));
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(key, (value, now));
    }
}

fn is_fresh(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < BELIEVED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_believed_for_a_moment_and_bounded() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        recent.put(0, "a", now);
        assert_eq!(recent.get(&0, now), Some("a"));
        assert_eq!(recent.get(&1, now), None);
        assert_eq!(recent.get(&0, now + BELIEVED), None);
        recent.put(0, "b", now + BELIEVED);
        assert_eq!(recent.get(&0, now + BELIEVED), Some("b"));
        for key in 0..3 * MOST {
            recent.put(key, "c", now);
            assert_eq!(recent.get(&key, now), Some("c"));
            assert!(recent.0.len() <= MOST);
        }
    }
}
