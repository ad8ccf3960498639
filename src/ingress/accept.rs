//! Between the kernel's queue of connections and the thread that a connection lives on.

use std::{io, time::Duration};

use tokio::{net::TcpStream, runtime::Handle};

/// Takes a connection from this thread's event queue to that of a worker.
pub fn hand_over(stream: TcpStream, worker: &Handle) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    let _there = worker.enter();
    TcpStream::from_std(stream)
}

/// Out of descriptors, accepting fails at once again and again; anything else is the peer's trouble.
pub async fn pause_after(error: &io::Error) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    ) {
        return;
    }
    tracing::warn!(%error, "Accepting a connection failed");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
