//! Time on a connection: a request's head must follow its first byte soon, but between requests a connection may rest
//! longer than callers keep theirs, so that no request is sent into one that is just being closed. A function's answer must
//! be taken in the call's time. And what HTTP does not show: callers that have left, answers that the server makes by
//! itself, and closing without a reset.

use std::{
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep, sleep_until},
};

use super::{
    framing::{Fault, Framing, PREFACE},
    headless::Headless,
    ids::Ids,
    peer,
    places::Room,
    requests::Requests,
    wire::Wire,
};
use crate::telemetry::Metrics;

/// Longest time for a request's head, from its first byte; and for a first byte, where places for connections are scarce.
pub const HEAD_TIME: Duration = Duration::from_secs(10);
/// Shortest rest after which a connection is closed; the longest is twice that. Common clients keep theirs for up to two
/// minutes, also those that they opened ahead and have not used.
pub const IDLE_TIME: Duration = Duration::from_secs(180);

/// How long, and how much, is read and thrown away of a request that was answered before its end. A caller that is still
/// sending would otherwise see its connection reset, and might never look at the answer.
const LINGER: Duration = Duration::from_secs(2);
const MAX_WASTE: usize = 100 << 20;

/// How long after a caller may have left the kernel is asked, and how often again.
const LOOK: Duration = Duration::from_millis(10);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A connection that is closed when a head, or the way of an answer, takes too long.
pub struct Timed {
    stream: Wire,
    requests: Requests,
    room: Room,
    ids: Arc<Ids>,
    metrics: Arc<Metrics>,
    /// Requests whose answers have been written to their last byte.
    answered: u64,
    /// Requests begun when bytes were last read.
    seen: u64,
    /// A part of a head was read.
    partial: bool,
    /// Something was read, ever.
    heard: bool,
    framing: Framing,
    /// What came last was answered here, as it is no request.
    refused: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    rest: Option<Rest>,
    /// [`HEAD_TIME`] and [`IDLE_TIME`], but in tests.
    head_time: Duration,
    idle_time: Duration,
    /// Runs while the caller does not take what was written.
    stalled: Option<Pin<Box<Sleep>>>,
    parting: Option<Parting>,
    /// Runs while something came that may be the caller's end.
    doubt: Option<Pin<Box<Sleep>>>,
}

/// A connection without a request.
#[derive(Debug)]
struct Rest {
    /// Requests begun when the clock was last set.
    seen: u64,
    sleep: Pin<Box<Sleep>>,
}

/// A connection on which nothing more is said, but something may still come.
#[derive(Debug)]
struct Parting {
    sleep: Pin<Box<Sleep>>,
    left: usize,
}

impl Timed {
    /// `requests` are those that come from `stream`; `ids` and `metrics` are for what is none.
    pub fn new(
        stream: Wire,
        requests: Requests,
        room: Room,
        ids: Arc<Ids>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            stream,
            requests,
            room,
            ids,
            metrics,
            answered: 0,
            seen: 0,
            partial: true,
            heard: false,
            framing: Framing::default(),
            refused: false,
            sleep: None,
            rest: None,
            head_time: HEAD_TIME,
            idle_time: IDLE_TIME,
            stalled: None,
            parting: None,
            doubt: None,
        }
    }

    /// Nothing more is there to be read at this moment. Fails when it should be.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.partial {
            return self.rest(cx).map(Ok);
        }
        let head_time = || Box::pin(sleep(self.head_time));
        let sleep = self.sleep.get_or_insert_with(head_time);
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        // Clients open connections ahead. One that was never used is like one that is used no more, but where others need its
        // place; and they expect no word on it.
        if self.heard {
            self.refuse(cx, Headless::Late);
        } else if self.stream.is_open() && self.room.is_plenty() {
            self.partial = false;
            self.sleep = None;
            return self.rest(cx).map(Ok);
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends when the caller has asked for nothing for too long. The clock runs on through its requests and is set again only
    /// once it has run out, as that would cost each of them.
    fn rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let seen = self.seen;
        let sleep = || Box::pin(sleep(self.idle_time));
        let rest = self.rest.get_or_insert_with(|| Rest {
            seen,
            sleep: sleep(),
        });
        while rest.sleep.as_mut().poll(cx).is_ready() {
            if rest.seen == seen {
                return Poll::Ready(());
            }
            rest.seen = seen;
            rest.sleep = sleep();
        }
        Poll::Pending
    }

    /// Answers to what is no request. Nothing else is on its way to the caller, so there is room for it; if not, it may be
    /// lost: a caller who does that may not even read it.
    fn refuse(&mut self, cx: &mut Context<'_>, headless: Headless) {
        self.metrics.error(headless.code());
        let answer = headless.answer(&self.ids.make());
        let _ = Pin::new(&mut self.stream).poll_write(cx, answer.as_bytes());
    }

    /// The server answers some bytes by itself, before they are a request to us, with a bare head. Says whether this is
    /// one, and says something better in its place.
    fn is_bare(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> bool {
        let bare = self.requests.look().0 == self.answered;
        if bare {
            let headless = if self.framing.is_http2() {
                Headless::Http2
            } else if self.framing.fault() == Some(Fault::Head) {
                Headless::Ambiguous
            } else {
                Headless::told_by(answer)
            };
            self.refuse(cx, headless);
            self.refused = true;
        }
        bare
    }

    /// Follows what comes. Answers how much of it the server may see; of a head that is not to be seen it sees that it is none.
    fn follow(&mut self, come: &mut [u8]) -> usize {
        match self.framing.read(come) {
            Some((at, Fault::Head)) => come[at..].fill(0),
            Some((at, Fault::Body)) => return at,
            None => {}
        }
        if self.framing.is_http2() {
            // On this the server would close without a word; what is no HTTP at all it answers, once there are lines.
            let at = come.windows(PREFACE.len()).rposition(|w| w == PREFACE);
            let words = come[at.unwrap_or(0)..].iter_mut();
            words
                .filter(|byte| !byte.is_ascii_whitespace())
                .for_each(|byte| *byte = 0);
        }
        come.len()
    }

    /// Whether nothing is left to come of what was answered.
    fn is_through(&self) -> bool {
        self.framing.is_between() && !self.refused
    }

    /// Throws away what still comes, until the caller closes too or it has been enough.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [MaybeUninit::uninit(); 16 << 10];
        loop {
            let mut waste = ReadBuf::uninit(&mut waste);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut waste);
            if read.is_pending() && self.parting.is_none() && self.is_through() {
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

    /// Looked at whenever the connection is, as the server reads nothing beyond a request before that is answered. An end of
    /// what the caller sends is none of the caller, nor is what it sends too early: after such, the kernel is asked.
    fn caller_has_left(&mut self, cx: &mut Context<'_>) -> bool {
        if self.doubt.is_none() {
            let quiet = |tcp: &TcpStream| tcp.poll_read_ready(cx).is_pending();
            if self.stream.tcp().is_some_and(quiet) {
                return false;
            }
            // One that is closing may not be through with it yet.
            self.doubt = Some(Box::pin(sleep(LOOK)));
        }
        while let Some(doubt) = &mut self.doubt
            && doubt.as_mut().poll(cx).is_ready()
        {
            if self.stream.tcp().is_none_or(peer::has_left) {
                return true;
            }
            doubt.set(sleep(LOOK_AGAIN));
        }
        false
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

fn bad_body() -> io::Error {
    let why = "a chunk size or a trailer is none, or can be read in more than one way";
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.framing.fault() == Some(Fault::Body) {
            return Poll::Ready(Err(bad_body()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let (begun, running) = self.requests.look();
        if begun != self.seen {
            self.seen = begun;
            self.partial = false;
            self.sleep = None;
        }
        match read {
            Poll::Ready(outcome) => {
                let come = &mut buf.filled_mut()[before..];
                self.partial |= !running && !come.is_empty();
                self.heard |= !come.is_empty();
                let (size, seen) = (come.len(), self.follow(come));
                buf.set_filled(before + seen);
                // To read nothing would be the end of what comes.
                Poll::Ready(if seen == 0 && size > 0 {
                    Err(bad_body())
                } else {
                    outcome
                })
            }
            Poll::Pending if running => Poll::Pending,
            Poll::Pending => {
                // It may have come with the request before.
                self.partial |= !self.framing.is_between();
                self.wait(cx)
            }
        }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_bare(cx, bytes) {
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
        if self.is_bare(cx, pieces.first().map_or(&[], |piece| piece)) {
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
            self.doubt = None;
        } else if self.caller_has_left(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    use super::{super::places::Places, *};

    const SOON: Duration = Duration::from_secs(30);

    /// A connection and its caller's end, with both times as short as can be, among so many places.
    async fn pair(places: &Places) -> (Timed, TcpStream, Requests) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap());
        let caller = caller.await.unwrap();
        let wire = Wire::new(listener.accept().await.unwrap().0, None);
        let requests = Requests::default();
        let (ids, metrics) = (Arc::new(Ids::new()), Arc::new(Metrics::default()));
        let mut timed = Timed::new(wire, requests.clone(), places.room(), ids, metrics);
        timed.head_time = Duration::from_millis(20);
        timed.idle_time = timed.head_time;
        (timed, caller, requests)
    }

    #[tokio::test]
    async fn a_connection_ends_once_its_caller_asks_for_nothing_any_more() {
        let (mut timed, mut caller, requests) = pair(&Places::new(2)).await;
        let mut byte = [0];

        drop(requests.begin());
        assert!(timed.read(&mut byte).now_or_never().is_none());
        let running = requests.begin();
        caller.write_all(b"\r\n").await.unwrap();
        timed.read_exact(&mut [0; 2]).await.unwrap();
        drop(running);
        let rest = timeout(SOON, timed.read(&mut byte)).await;
        assert_eq!(rest.unwrap().unwrap(), 0, "it ends");
        assert_eq!(timed.rest.unwrap().seen, 2, "not for the rest before");
    }

    #[tokio::test]
    async fn a_connection_that_was_not_used_rests_like_others_where_there_is_room() {
        let mut byte = [0];
        let (mut timed, _caller, _) = pair(&Places::new(2)).await;
        let rest = timeout(SOON, timed.read(&mut byte)).await;
        assert_eq!(rest.unwrap().unwrap(), 0, "it ends as after a rest");

        let full = Places::new(2);
        let _others = (full.take(), full.take());
        let (mut timed, mut caller, _) = pair(&full).await;
        let end = timeout(SOON, timed.read(&mut byte)).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(timed);
        assert_eq!(caller.read(&mut byte).await.unwrap(), 0, "without a word");

        // It was given its time, and a head has another one.
        let (mut timed, mut caller, _) = pair(&Places::new(2)).await;
        timed.idle_time = SOON;
        let early = timeout(timed.head_time * 5, timed.read(&mut byte)).await;
        assert!(early.is_err());
        caller.write_all(b"G").await.unwrap();
        assert_eq!(timed.read(&mut byte).await.unwrap(), 1);
        let end = timeout(SOON, timed.read(&mut byte)).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
    #[tokio::test]
    async fn half_a_head_behind_a_request_has_the_time_of_a_head() {
        for half in ["G", "GET /x HTTP/1.1\r\nHost: loc"] {
            let (mut timed, mut caller, requests) = pair(&Places::new(2)).await;
            let come = format!("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n{half}");
            caller.write_all(come.as_bytes()).await.unwrap();
            let mut read = vec![0; come.len()];
            timed.read_exact(&mut read).await.unwrap();
            drop(requests.begin());
            let end = timeout(SOON, timed.read_u8()).await.unwrap();
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut, "{half}");
            drop(timed);
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("HeadTimeout"), "{answer}");
        }
    }
}
