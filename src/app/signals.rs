//! What ends the server: SIGINT and SIGTERM.

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::signal::unix::{self, Signal, SignalKind};

/// Listened to without a gap: a signal that comes between two looks counts.
pub(super) struct Signals(Vec<Signal>);

impl Signals {
    pub(super) fn listen() -> Self {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        Self(kinds.into_iter().flat_map(unix::signal).collect())
    }

    /// Waits for one of them; for ever where there can be none.
    pub(super) async fn next(&mut self) {
        let mut signals: FuturesUnordered<_> = self.0.iter_mut().map(Signal::recv).collect();
        if signals.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
