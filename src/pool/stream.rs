//! The connection to an instance, heard to the end: a server may refuse a request in the middle and close, and what it said
//! then must not be lost because writing the rest of the request failed.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::{
    either::Either,
    sync::{CancellationToken, WaitForCancellationFutureOwned},
};

use crate::runtime::address::Link;

/// A connection whose other side may stop reading before it has answered. What is written then is thrown away; reading
/// tells whether there is an answer.
#[derive(Debug)]
pub struct Stream {
    socket: Link,
    deaf: Arc<AtomicBool>,
    /// A node that disappears closes nothing.
    gone: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Stream {
    /// `deaf` is set once the other side does not read any more; `gone` is cancelled once it is no more.
    pub fn new(socket: Link, deaf: Arc<AtomicBool>, gone: &CancellationToken) -> Self {
        let is_far = matches!(socket, Either::Right(_));
        Self {
            socket,
            deaf,
            gone: is_far.then(|| Box::pin(gone.clone().cancelled_owned())),
        }
    }

    fn is_deaf(&self) -> bool {
        self.deaf.load(Ordering::Relaxed)
    }

    fn written(&self, length: usize, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.deaf.store(true, Ordering::Relaxed);
                Poll::Ready(Ok(length))
            }
            outcome => outcome,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() {
            return read;
        }
        // What it sent before was read.
        match &mut self.gone {
            Some(gone) => gone
                .as_mut()
                .poll(cx)
                .map(|()| Err(io::ErrorKind::ConnectionAborted.into())),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_deaf() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let outcome = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.written(bytes.len(), outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        if self.is_deaf() {
            return Poll::Ready(Ok(length));
        }
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, pieces);
        self.written(length, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
