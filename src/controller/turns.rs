//! Who should be looked at next: a queue of function keys without duplicates.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::function::FunctionKey;

/// Asks for turns. Cheap to clone; asking twice before the turn begins is asking once.
#[derive(Clone, Debug)]
pub struct Turns {
    pending: Arc<Mutex<HashSet<FunctionKey>>>,
    queue: mpsc::UnboundedSender<FunctionKey>,
}

impl Turns {
    /// The asking side and the stream of keys. A key comes again only after [`Turns::begin`].
    pub fn new() -> (Self, impl Stream<Item = FunctionKey> + Send + use<>) {
        let (queue, keys) = mpsc::unbounded_channel();
        let turns = Self {
            pending: Arc::default(),
            queue,
        };
        (turns, UnboundedReceiverStream::new(keys))
    }

    /// The function should be looked at soon.
    pub fn request(&self, key: &FunctionKey) {
        let new = self.lock().insert(key.clone());
        if new {
            // Fails only once the controller has ended, when no turn will come any more.
            let _ = self.queue.send(key.clone());
        }
    }

    /// The turn begins: what is asked for from now on is another turn.
    pub fn begin(&self, key: &FunctionKey) {
        self.lock().remove(key);
    }

    /// Turns asked for that have not begun.
    pub fn depth(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<FunctionKey>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn key(name: &str) -> FunctionKey {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn asking_twice_before_the_turn_is_asking_once() {
        let (turns, keys) = Turns::new();
        let mut keys = Box::pin(keys);
        for name in ["a", "b", "a", "a.other", "b"] {
            turns.request(&key(name));
        }
        assert_eq!(turns.depth(), 3);
        for name in ["a", "b", "a.other"] {
            assert_eq!(
                keys.next().await,
                Some(key(name)),
                "in the order of the first asking"
            );
        }
        assert_eq!(keys.next().now_or_never(), None);
        turns.request(&key("a"));
        assert_eq!(keys.next().now_or_never(), None, "its turn has not begun");
        turns.begin(&key("a"));
        assert_eq!(turns.depth(), 2);
    }

    #[tokio::test]
    async fn what_is_asked_for_during_a_turn_is_another_turn() {
        let (turns, keys) = Turns::new();
        let mut keys = Box::pin(keys);
        turns.request(&key("a"));
        assert_eq!(keys.next().await, Some(key("a")));
        turns.begin(&key("a"));
        turns.request(&key("a"));
        assert_eq!(keys.next().await, Some(key("a")));
    }

    #[tokio::test]
    async fn asking_after_the_end_is_no_error() {
        let (turns, keys) = Turns::new();
        drop(keys);
        turns.request(&key("a"));
    }
}
