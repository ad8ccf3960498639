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
