//! What a child wrote, as much of it as is kept in memory.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::broadcast};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use crate::runtime::log_tail;

/// Bytes that are kept.
const KEPT: usize = 1 << 20;
/// Pieces that a follower may be behind before it misses some.
const BEHIND: usize = 256;
const PIECE: usize = 16 * 1024;

/// The end of a log, and those who follow it.
#[derive(Debug)]
pub struct Log(Mutex<State>);

#[derive(Debug)]
struct State {
    kept: Vec<u8>,
    /// None once nothing more can come.
    followers: Option<broadcast::Sender<Bytes>>,
}

impl Default for Log {
    fn default() -> Self {
        Self(Mutex::new(State {
            kept: Vec::new(),
            followers: Some(broadcast::Sender::new(BEHIND)),
        }))
    }
}

impl Log {
    /// Reads until every writer is gone, at once and without end, so that no child waits for a reader.
    pub async fn fill(self: Arc<Self>, mut output: pipe::Receiver) {
        let mut buffer = vec![0; PIECE];
        loop {
            match output.read(&mut buffer).await {
                Ok(0) => break,
                Ok(count) => self.add(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "The log of a child cannot be read on");
                    break;
                }
            }
        }
        self.state().followers = None;
    }

    /// The last `tail` lines, then with `follow` what comes. A follower who is too slow is told what it missed.
    pub fn read(&self, tail: u32, follow: bool) -> BoxStream<'static, Bytes> {
        let state = self.state();
        let kept = Bytes::copy_from_slice(log_tail::lines(&state.kept, tail));
        let past = stream::iter(Some(kept).filter(|bytes| !bytes.is_empty()));
        match &state.followers {
            Some(sender) if follow => past.chain(follow_up(sender.subscribe())).boxed(),
            _ => past.boxed(),
        }
    }

    /// Waits until nothing more can come.
    pub async fn closed(&self) {
        let followed = self
            .state()
            .followers
            .as_ref()
            .map(broadcast::Sender::subscribe);
        if let Some(pieces) = followed {
            follow_up(pieces).for_each(|_| ready(())).await;
        }
    }

    /// The end of it for an error message.
    pub fn last_words(&self) -> String {
        log_tail::text(&self.state().kept)
    }

    /// At most the last `limit` bytes.
    pub fn end(&self, limit: usize) -> Bytes {
        let state = self.state();
        let excess = state.kept.len().saturating_sub(limit);
        Bytes::copy_from_slice(&state.kept[excess..])
    }

    fn add(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.kept.extend_from_slice(bytes);
        // Dropping only now and then: each time moves the whole.
        if state.kept.len() > 2 * KEPT {
            log_tail::keep(&mut state.kept, KEPT);
        }
        if let Some(followers) = &state.followers {
            // Nobody following is no error.
            let _ = followers.send(Bytes::copy_from_slice(bytes));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Bytes are whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn follow_up(pieces: broadcast::Receiver<Bytes>) -> BoxStream<'static, Bytes> {
    BroadcastStream::new(pieces)
        .map(|piece| match piece {
            Ok(bytes) => bytes,
            Err(BroadcastStreamRecvError::Lagged(missed)) => {
                format!("[{missed} pieces of the log were missed]\n").into()
            }
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let log = Log::default();
        for _ in 0..5 * KEPT / PIECE {
            log.add(&[b'x'; PIECE]);
            assert!(log.state().kept.len() <= 2 * KEPT);
        }
        assert!(log.state().kept.len() >= KEPT);
    }

    #[tokio::test]
    async fn a_follower_sees_past_and_future_once_and_the_end() {
        let log = Log::default();
        log.add(b"one\n");
        let pieces = log.read(10, true);
        log.add(b"two\n");
        log.state().followers = None;
        assert_eq!(pieces.collect::<Vec<_>>().await, ["one\n", "two\n"]);
        assert_eq!(log.read(1, true).collect::<Vec<_>>().await, ["two\n"]);
    }
}
