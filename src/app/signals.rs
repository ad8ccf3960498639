//! What ends the server: SIGINT, SIGTERM, and SIGHUP when its terminal is closed, unless nohup told it to live on.

use std::fs;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::signal::unix::{self, Signal, SignalKind};

/// Listened to without a gap: a signal that comes between two looks counts.
pub(super) struct Signals(Vec<Signal>);

impl Signals {
    pub(super) fn listen() -> Self {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        // Shells ignore the first of these for what they run in the background, and scripts send it all the same.
        let hangup = Some(SignalKind::hangup()).filter(|kind| !is_ignored(*kind));
        let kinds = kinds.into_iter().chain(hangup);
        Self(kinds.flat_map(unix::signal).collect())
    }

    /// Waits for one of them; for ever where there can be none.
    pub(super) async fn next(&mut self) {
        let mut signals: FuturesUnordered<_> = self.0.iter_mut().map(Signal::recv).collect();
        if signals.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether whoever started this process wants it not to hear the signal. To listen would undo that.
fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status, kind.as_raw_value())
}

/// Signals are counted from 1, the bits of the mask from 0.
fn ignored_in(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status = "Name:\tfaas\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\n";
        for (signal, ignored) in [(1, true), (2, false), (13, true), (15, false)] {
            assert_eq!(ignored_in(status, signal), ignored, "{signal}");
        }
        assert!(!ignored_in("", 1));
    }
}
