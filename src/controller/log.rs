//! The log of one build, as it grows: the last part of it in memory, readable while it is written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_stream::stream;
use bytes::Bytes;
use futures::Stream;
use tokio::sync::watch;

use crate::{builder::BuildLog, text};

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

    /// The end of it, as plain text.
    pub fn tail(&self) -> String {
        text::tail(&self.lock().bytes, TAIL)
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

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn log(pieces: &[&str]) -> Arc<LiveLog> {
        let log = Arc::new(LiveLog::default());
        for piece in pieces {
            log.write(piece.as_bytes());
        }
        log
    }

    async fn all(stream: impl Stream<Item = Bytes>) -> String {
        let pieces: Vec<Bytes> = stream.collect().await;
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[test]
    fn the_tail_is_text_for_a_status() {
        let long = "x".repeat(TAIL);
        let log = log(&["first", "\u{1b}[91m", &long, "\u{1b}[0mlast"]);
        assert_eq!(log.tail(), long[4..].to_owned() + "last");
    }

    #[tokio::test]
    async fn only_the_last_part_is_kept() {
        let log = log(&["old", &"x".repeat(KEPT - 1), "new"]);
        log.close();
        let read = all(Arc::clone(&log).read(true)).await;
        assert_eq!((read.len(), read.ends_with("xnew")), (KEPT, true));
        assert!(log.tail().ends_with("xnew"));
    }

    #[tokio::test]
    async fn a_reader_that_does_not_follow_ends_at_once() {
        assert_eq!(all(log(&["a", "b"]).read(false)).await, "ab");
        assert_eq!(all(log(&[]).read(false)).await, "");
    }

    #[tokio::test]
    async fn a_follower_gets_everything_once_and_ends_with_the_build() {
        let log = log(&["before "]);
        let mut follower = Box::pin(Arc::clone(&log).read(true));
        assert_eq!(follower.next().await.unwrap(), "before ");
        assert_eq!(follower.next().now_or_never(), None, "it waits for more");
        log.write(b"between ");
        assert_eq!(follower.next().await.unwrap(), "between ");
        log.write(b"after");
        log.close();
        assert_eq!(follower.next().await.unwrap(), "after");
        assert_eq!(follower.next().await, None);
        assert_eq!(
            all(log.read(true)).await,
            "before between after",
            "one that starts late"
        );
    }

    #[tokio::test]
    async fn a_slow_follower_goes_on_with_what_is_kept() {
        let log = log(&["first"]);
        let mut follower = Box::pin(Arc::clone(&log).read(true));
        assert_eq!(follower.next().await.unwrap(), "first");
        log.write(&vec![b'x'; KEPT]);
        log.write(b"last");
        log.close();
        let rest = all(follower).await;
        assert_eq!((rest.len(), rest.ends_with("xlast")), (KEPT, true));
    }
}
