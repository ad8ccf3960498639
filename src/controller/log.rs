//! The log of one build, as it grows: the last part of it in memory, readable while it is written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_stream::stream;
use bytes::Bytes;
use futures::Stream;
use tokio::sync::watch;

use crate::builder::BuildLog;

/// Most bytes that are kept; older ones are dropped.
const KEPT: usize = 1 << 20;
/// Bytes of the tail that reach a Function's status.
const TAIL: usize = 4 << 10;

/// A log that is written by one and read by many.
#[derive(Debug)]
pub struct LiveLog {
    kept: Mutex<Kept>,
    /// How many bytes were written in all, and whether more may come.
    state: watch::Sender<(u64, bool)>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    /// Position of the first kept byte in all that was written.
    from: u64,
}

impl Default for LiveLog {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            state: watch::Sender::new((0, true)),
        }
    }
}

impl BuildLog for LiveLog {
    fn write(&self, piece: &[u8]) {
        let mut kept = self.lock();
        kept.bytes.extend_from_slice(piece);
        let excess = kept.bytes.len().saturating_sub(KEPT);
        kept.bytes.drain(..excess);
        kept.from += excess as u64;
        let written = kept.from + kept.bytes.len() as u64;
        self.state.send_modify(|state| state.0 = written);
    }
}

impl LiveLog {
    /// No more will be written.
    pub fn close(&self) {
        self.state.send_modify(|state| state.1 = false);
    }

    /// The end of it, as text.
    pub fn tail(&self) -> String {
        let kept = self.lock();
        let from = kept.bytes.len().saturating_sub(TAIL);
        String::from_utf8_lossy(&kept.bytes[from..]).into_owned()
    }

    /// What is kept, and with `follow` what comes until the build ends.
    pub fn read(self: Arc<Self>, follow: bool) -> impl Stream<Item = Bytes> + Send + 'static {
        stream! {
            let mut state = self.state.subscribe();
            let mut position = 0;
            loop {
                let more = state.borrow_and_update().1;
                let (bytes, end) = self.since(position);
                position = end;
                if !bytes.is_empty() {
                    yield bytes;
                }
                if !follow || !more || state.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// What was written after `position`, and the position after that.
    fn since(&self, position: u64) -> (Bytes, u64) {
        let kept = self.lock();
        let skip = usize::try_from(position.saturating_sub(kept.from)).unwrap_or(usize::MAX);
        let bytes = kept.bytes.get(skip..).unwrap_or_default();
        (
            Bytes::copy_from_slice(bytes),
            kept.from + kept.bytes.len() as u64,
        )
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
