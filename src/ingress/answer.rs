//! An answer's body on its way: it holds the lease until its last byte, and moves the instance's connection itself. Its caller
//! may leave; the function works on all the same, so the rest is read and thrown away, and what the call has of its instance
//! stays taken until the answer has ended, or its time is over.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{body::Deadline, reply::CallError};
use crate::pool::{Lease, connection::Connection};

/// How much of an answer is read before its caller is told anything of it, and what each piece counts for at least.
const AHEAD: usize = 64 << 10;
const PIECE: usize = 1 << 10;
/// After so much that is thrown away there is a pause, so that what nobody takes costs others nothing.
const WASTE: usize = 64 << 10;
const PAUSE: Duration = Duration::from_millis(1);
/// How long a 504 waits for the instance's end to be confirmed.
const STOP_CONFIRMED: Duration = Duration::from_secs(2);

/// A call whose time is over. Its instance gets no more calls, from now on. With one call an instance its end is awaited, so
/// that nothing of the call goes on after the answer; with more, its other calls end in their own time. An instance ends only
/// once it is leased no more: to be told without the lease.
#[derive(Clone, Debug)]
pub struct TimedOut {
    began: Instant,
    limit: Duration,
    /// Cancelled once the instance is no more, where that is awaited.
    gone: Option<CancellationToken>,
}

impl TimedOut {
    /// Takes the instance out of service.
    pub fn condemn(lease: &Lease, deadline: &Deadline) -> Self {
        lease.condemn();
        let alone = lease.route.calls_at_a_time() == 1;
        Self {
            began: deadline.began,
            limit: deadline.limit,
            gone: alone.then(|| lease.instance.gone.clone()),
        }
    }

    /// What its caller is told, whose fault it may be.
    pub async fn told(self, owed: bool) -> CallError {
        let stopped = match &self.gone {
            Some(gone) => timeout(STOP_CONFIRMED, gone.cancelled()).await.is_ok(),
            None => true,
        };
        let (limit, elapsed) = (self.limit, self.began.elapsed());
        if owed {
            return CallError::BodyTimeout { limit, elapsed };
        }
        CallError::Timeout {
            limit,
            elapsed,
            stopped,
        }
    }
}

/// An answer's body with all that it needs until its end. Dropped before that, it goes on without its caller.
#[derive(Debug)]
pub struct Answer {
    /// What was read before its caller asked for it.
    ahead: VecDeque<Frame<Bytes>>,
    /// When it must be through.
    end: Instant,
    /// Until it is dropped.
    rest: Option<Rest>,
}

/// What was not read yet of an answer, and what the call has of its instance.
#[derive(Debug)]
struct Rest {
    body: Incoming,
    connection: Connection,
    /// Whether the connection may serve another call.
    keep: bool,
    /// It was read to its last byte, or broke off.
    ended: bool,
    lease: Lease,
    deadline: Deadline,
}

/// The answer was cut off in the middle.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    #[error("the function did not finish its answer within {}s (spec.timeoutSeconds)", .0.limit.as_secs())]
    Timeout(TimedOut),
    #[error("the instance broke off its answer: {0}")]
    Broken(hyper::Error),
}

impl Answer {
    /// `connection` is where `body` comes from.
    pub fn new(
        body: Incoming,
        connection: Connection,
        keep: bool,
        lease: Lease,
        deadline: Deadline,
    ) -> Self {
        Self {
            ahead: VecDeque::new(),
            end: deadline.at(),
            rest: Some(Rest {
                body,
                connection,
                keep,
                ended: false,
                lease,
                deadline,
            }),
        }
    }

    /// When it must be through.
    pub fn end(&self) -> Instant {
        self.end
    }

    /// Reads what has come already, up to some bytes: as long as its caller was told nothing, what broke off can be told.
    pub fn begin(&mut self) -> Result<(), Cut> {
        let mut read = 0;
        while read < AHEAD {
            let Some(Some(frame)) = poll_fn(|cx| self.poll_rest(cx)).now_or_never() else {
                break;
            };
            let frame = frame?;
            read += frame.data_ref().map_or(0, Bytes::len).max(PIECE);
            self.ahead.push_back(frame);
        }
        Ok(())
    }

    /// What was not read ahead.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.rest {
            Some(rest) => rest.poll(cx),
            None => Poll::Ready(None),
        }
    }
}

impl Rest {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // However fast the function goes on.
        let is_late = self.deadline.has_passed();
        if !is_late && let Poll::Ready(frame) = self.poll_body(cx) {
            self.ended = !matches!(frame, Some(Ok(_)));
            self.keep &= !matches!(frame, Some(Err(_)));
            return Poll::Ready(frame.map(|frame| frame.map_err(Cut::Broken)));
        }
        self.deadline.poll_passed(cx).map(|()| {
            let timed_out = TimedOut::condemn(&self.lease, &self.deadline);
            Some(Err(Cut::Timeout(timed_out)))
        })
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Once to bring in what has come, and once more because taking it may let more come at once.
        for _ in 0..2 {
            self.connection.drive(cx);
            if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
                return Poll::Ready(frame);
            }
        }
        Poll::Pending
    }

    fn has_ended(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    /// Without a caller. A function that never ends its answer is as slow as it is read.
    async fn go_on(mut self) {
        let mut read = 0;
        while let Some(Ok(frame)) = poll_fn(|cx| self.poll(cx)).await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read >= WASTE {
                read = 0;
                sleep(PAUSE).await;
            }
        }
        self.give_back();
    }

    /// A connection whose answer was read to the end goes back to its instance before the lease does.
    fn give_back(self) {
        if self.keep && self.has_ended() {
            let connections = &self.lease.instance.connections;
            connections.put(self.connection, Instant::now());
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.ahead.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_rest(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.as_ref().is_none_or(Rest::has_ended)
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.iter().filter_map(Frame::data_ref);
        let ahead: usize = ahead.map(Bytes::len).sum();
        let rest = self.rest.as_ref().map(|rest| rest.body.size_hint());
        let rest = rest.unwrap_or_else(|| SizeHint::with_exact(0));
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead as u64);
        }
        hint
    }
}

impl Drop for Answer {
    /// An instance whose answer did not end in its time gets no more calls: whether it stalled or its caller did not read.
    fn drop(&mut self) {
        let Some(rest) = self.rest.take() else {
            return;
        };
        if rest.has_ended() {
            rest.give_back();
        } else if Instant::now() >= self.end {
            rest.lease.condemn();
        } else if let Ok(runtime) = Handle::try_current() {
            // At the end of the server there is nobody to do it, and no instance that would be called again.
            runtime.spawn(rest.go_on());
        }
    }
}
