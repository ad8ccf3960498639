//! Time on a connection: a request's head must follow its first byte soon, but between requests a connection may rest
//! longer than callers keep theirs, so that no request is sent into one that is just being closed. A function's answer must
//! be taken in the call's time.

use std::{
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::Response;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep, sleep_until},
};

/// Longest time for a request's head, from its first byte; for the first one, from the beginning of the connection.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Longest rest of a connection. Common clients keep theirs for up to two minutes.
pub const IDLE_TIME: Duration = Duration::from_secs(180);

const LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nX-Faas-Error: HeadTimeout\r\n\
    Connection: close\r\nContent-Length: 77\r\n\r\n\
    {\"message\":\"the request's head did not come within 10s\",\"code\":\"HeadTimeout\"}";

/// How long, and how much, is read and thrown away of a request that was answered before its end. A caller that is still
/// sending would otherwise see its connection reset, and might never look at the answer.
const LINGER: Duration = Duration::from_secs(2);
const MAX_WASTE: usize = 100 << 20;

/// A connection that is closed when a head, or the way of an answer, takes too long.
#[derive(Debug)]
pub struct Timed {
    stream: TcpStream,
    requests: Requests,
    /// Requests begun when bytes were last read.
    seen: u64,
    /// A part of a head was read.
    partial: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Runs while the caller does not take what was written.
    stalled: Option<Pin<Box<Sleep>>>,
    parting: Option<Parting>,
}

/// A connection on which nothing more is said, but something may still come.
#[derive(Debug)]
struct Parting {
    sleep: Pin<Box<Sleep>>,
    left: usize,
}

/// The requests of one connection, counted by those who answer them.
#[derive(Clone, Debug)]
pub struct Requests(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// When the connection began.
    since: Instant,
    begun: AtomicU64,
    ended: AtomicU64,
    /// When the last answer must be through, in milliseconds; 0 for whenever its caller likes.
    end: AtomicU64,
    /// The last request has a body and was refused, perhaps before its end.
    refused: AtomicBool,
}

impl Timed {
    /// `requests` are those that come from `stream`.
    pub fn new(stream: TcpStream, requests: Requests) -> Self {
        Self {
            stream,
            requests,
            seen: 0,
            partial: true,
            sleep: None,
            stalled: None,
            parting: None,
        }
    }

    /// Nothing more is there to be read at this moment. Fails when it should be.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.partial {
            return Poll::Pending;
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(HEAD_TIME)));
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        // A caller who is that late may not even read this.
        let _ = self.stream.try_write(LATE);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Throws away what still comes, until the caller closes too or it has been enough.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [MaybeUninit::uninit(); 16 << 10];
        loop {
            let mut waste = ReadBuf::uninit(&mut waste);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut waste);
            if read.is_pending() && self.parting.is_none() && !self.requests.refused() {
                return Poll::Ready(());
            }
            let parting = self.parting.get_or_insert_with(|| Parting {
                sleep: Box::pin(sleep(LINGER)),
                left: MAX_WASTE,
            });
            parting.left = parting.left.saturating_sub(waste.filled().len());
            if read.is_pending() {
                return parting.sleep.as_mut().poll(cx);
            }
            if waste.filled().is_empty() || parting.left == 0 || parting.sleep.is_elapsed() {
                return Poll::Ready(());
            }
        }
    }

    /// The server does not ask an answer for more while its caller takes nothing, so this end of its time is seen here.
    fn in_time(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let Some(end) = self.requests.end() else {
            return Poll::Pending;
        };
        let sleep = || Box::pin(sleep_until(end.into()));
        let stalled = self.stalled.get_or_insert_with(sleep);
        let late = io::ErrorKind::TimedOut;
        stalled.as_mut().poll(cx).map(|()| Err(late.into()))
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let (begun, running) = self.requests.look();
        if begun != self.seen {
            self.seen = begun;
            self.partial = false;
            self.sleep = None;
        }
        match read {
            Poll::Ready(outcome) => {
                self.partial |= !running && buf.filled().len() > before;
                Poll::Ready(outcome)
            }
            Poll::Pending if running => Poll::Pending,
            Poll::Pending => self.wait(cx),
        }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.parting.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.linger(cx).map(Ok)
    }
}

impl Default for Requests {
    fn default() -> Self {
        Self(Arc::new(Counts {
            since: Instant::now(),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            end: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        }))
    }
}

impl Requests {
    /// A head was read; the request runs until its answer's body is dropped.
    pub fn begin(&self, has_body: bool) -> Running {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.end.store(0, Ordering::Relaxed);
        self.0.refused.store(false, Ordering::Relaxed);
        Running {
            requests: self.clone(),
            has_body,
        }
    }

    fn refused(&self) -> bool {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// When the last answer must be through.
    fn end(&self) -> Option<Instant> {
        let end = self.0.end.load(Ordering::Relaxed);
        (end != 0).then(|| self.0.since + Duration::from_millis(end))
    }

    /// How many have begun, and whether one runs.
    fn look(&self) -> (u64, bool) {
        let begun = self.0.begun.load(Ordering::Relaxed);
        (begun, begun != self.0.ended.load(Ordering::Relaxed))
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Running {
    requests: Requests,
    has_body: bool,
}

impl Running {
    /// The answer that comes must be through by then, its last byte taken by the caller.
    pub fn must_end(&self, at: Instant) {
        let counts = &self.requests.0;
        let end = at.saturating_duration_since(counts.since).as_millis();
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        counts.end.store(end, Ordering::Relaxed);
    }

    /// The request runs until this answer is through.
    pub fn until(self, answer: Response<Body>) -> Response<Answering> {
        let failed = answer.status().is_client_error() || answer.status().is_server_error();
        if self.has_body && failed {
            self.requests.0.refused.store(true, Ordering::Relaxed);
        }
        answer.map(|body| Answering {
            body,
            _running: self,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.requests.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// An answer's body, whose end is the request's.
#[derive(Debug)]
pub struct Answering {
    body: Body,
    _running: Running,
}

impl http_body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let text = std::str::from_utf8(LATE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{}",
            body.len()
        );
        assert!(body.contains(&format!("{}s", HEAD_TIME.as_secs())));
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
