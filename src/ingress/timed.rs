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

use super::{framing::Framing, headless::Headless, ids::Ids};

/// Longest time for a request's head, from its first byte; for the first one, from the beginning of the connection.
pub const HEAD_TIME: Duration = Duration::from_secs(10);
/// Longest rest of a connection. Common clients keep theirs for up to two minutes.
pub const IDLE_TIME: Duration = Duration::from_secs(180);

/// How long, and how much, is read and thrown away of a request that was answered before its end. A caller that is still
/// sending would otherwise see its connection reset, and might never look at the answer.
const LINGER: Duration = Duration::from_secs(2);
const MAX_WASTE: usize = 100 << 20;

/// A connection that is closed when a head, or the way of an answer, takes too long.
#[derive(Debug)]
pub struct Timed {
    stream: TcpStream,
    requests: Requests,
    ids: Arc<Ids>,
    /// Requests whose answers have been written to their last byte.
    answered: u64,
    /// Requests begun when bytes were last read.
    seen: u64,
    /// A part of a head was read.
    partial: bool,
    framing: Framing,
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
    /// The head that is read says twice where its body ends.
    ambiguous: AtomicBool,
}

impl Timed {
    /// `requests` are those that come from `stream`; `ids` are for what is none.
    pub fn new(stream: TcpStream, requests: Requests, ids: Arc<Ids>) -> Self {
        Self {
            stream,
            requests,
            ids,
            answered: 0,
            seen: 0,
            partial: true,
            framing: Framing::default(),
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
        self.refuse(Headless::Late);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Answers to what is no request. Nothing else is on its way to the caller, so there is room for it; if not, it may be
    /// lost: a caller who does that may not even read it.
    fn refuse(&self, headless: Headless) {
        let _ = self
            .stream
            .try_write(headless.answer(&self.ids.make()).as_bytes());
    }

    /// The server answers some bytes by itself, before they are a request to us, with a bare head. Says whether this is
    /// one, and says something better in its place.
    fn is_bare(&self, answer: &[u8]) -> bool {
        let bare = self.requests.look().0 == self.answered;
        if bare {
            self.refuse(Headless::told_by(answer));
            self.requests.0.refused.store(true, Ordering::Relaxed);
        }
        bare
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
            self.framing = Framing::default();
            self.sleep = None;
        }
        match read {
            Poll::Ready(outcome) => {
                let come = &buf.filled()[before..];
                if !running && !come.is_empty() {
                    self.partial = true;
                    self.framing.read(come);
                    if self.framing.is_ambiguous() {
                        self.requests.0.ambiguous.store(true, Ordering::Relaxed);
                    }
                }
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
        if self.is_bare(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_bare(pieces.first().map_or(&[], |piece| piece)) {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server asks for this once all that it has is written.
        let (begun, running) = self.requests.look();
        if !running {
            self.answered = begun;
        }
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
            ambiguous: AtomicBool::new(false),
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
    /// Whether the head says twice where its body ends. The connection ends with such a request.
    pub fn is_ambiguous(&self) -> bool {
        self.requests.0.ambiguous.load(Ordering::Relaxed)
    }

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
