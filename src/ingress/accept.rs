//! Between the kernel's queue of connections and the thread that a connection lives on.

use std::{
    io, iter,
    net::{self, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
};

/// Puts a connection into a worker's event queue.
pub fn hand_over(stream: net::TcpStream, worker: &Handle) -> io::Result<TcpStream> {
    let _there = worker.enter();
    TcpStream::from_std(stream)
}

/// All that are connected already, and do not know that the listener is about to be closed: the kernel would reset them. It
/// is asked itself, as the event queue may not have told of them yet.
pub fn last(listener: TcpListener) -> impl Iterator<Item = (net::TcpStream, SocketAddr)> {
    let listener = listener.into_std();
    iter::from_fn(move || {
        let (stream, peer) = listener.as_ref().ok()?.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some((stream, peer))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_connected_is_there_before_any_event_was_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody waits for events meanwhile.
        let callers: Vec<_> = (0..3)
            .map(|_| net::TcpStream::connect(address).unwrap())
            .collect();
        let peers: Vec<_> = last(listener).map(|(_, peer)| peer).collect();
        let expected: Vec<_> = callers.iter().map(|c| c.local_addr().unwrap()).collect();
        assert_eq!(peers, expected);
    }
}
