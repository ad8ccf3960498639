//! Bodies on their way: a request's, bounded and left with its caller until there is an instance; an answer's, which holds the lease
//! until its last byte and moves the instance's connection itself.

use std::{
    collections::VecDeque,
    error::Error,
    future::{Future, poll_fn},
    io, iter,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::{arriving::Arriving, reply::CallError};
use crate::pool::{Lease, connection::Connection};

/// Largest body of a call.
pub const MAX_REQUEST: u64 = 100 << 20;
/// How much of an answer is read before its caller is told anything of it, and what each piece counts for at least.
const ANSWER_AHEAD: usize = 64 << 10;
const PIECE: usize = 1 << 10;

/// How long a caller whose body has ended too early may take to be gone, which the connection notices. One that is still
/// there then waits for an answer.
const FAREWELL: Duration = Duration::from_millis(250);

type BoxError = Box<dyn Error + Send + Sync>;

/// A request's body as it comes, up to [`MAX_REQUEST`].
#[derive(Debug)]
pub struct Bounded {
    rest: Arriving,
    left: u64,
    owed: Owed,
}

/// Whether more of a body was asked for and has not come: that it takes long is its caller's doing then.
#[derive(Clone, Debug, Default)]
pub struct Owed(Arc<AtomicBool>);

impl Owed {
    /// At this moment.
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The body is larger than [`MAX_REQUEST`].
#[derive(Debug, thiserror::Error)]
#[error("the request body is larger than {MAX_REQUEST} bytes")]
pub struct TooLarge;

impl Bounded {
    /// Refuses at once what says that it is too large.
    pub fn new(body: Arriving) -> Result<Self, CallError> {
        if body.size_hint().lower() > MAX_REQUEST {
            return Err(CallError::BodyTooLarge { limit: MAX_REQUEST });
        }
        Ok(Self {
            rest: body,
            left: MAX_REQUEST,
            owed: Owed::default(),
        })
    }

    /// Tells, wherever the body goes, whether its caller owes some of it.
    pub fn owed(&self) -> Owed {
        self.owed.clone()
    }
}

/// What it means for the caller that its request's body could not be read, or passed on, to its end.
pub fn broken(error: &hyper::Error) -> impl Future<Output = CallError> + use<> {
    let too_large = cause::<TooLarge>(error).is_some();
    let is_short =
        cause::<io::Error>(error).is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof);
    let garbled = garbled(error);
    async move {
        match garbled {
            _ if too_large => CallError::BodyTooLarge { limit: MAX_REQUEST },
            Some(why) => CallError::BrokenBody(why),
            None if is_short => {
                sleep(FAREWELL).await;
                CallError::BrokenBody("it ended before the end that it announced".to_owned())
            }
            None => CallError::CallerGone,
        }
    }
}

/// What of a body is not as HTTP has it, if it broke off for that.
pub fn garbled(error: &hyper::Error) -> Option<String> {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let cause = cause::<io::Error>(error)?;
    matches!(cause.kind(), InvalidData | InvalidInput).then(|| cause.to_string())
}

/// The error of this type behind another.
fn cause<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let first: &(dyn Error + 'static) = error;
    iter::successors(Some(first), |&error| error.source()).find_map(|error| error.downcast_ref())
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.rest).poll_frame(cx);
        self.owed.0.store(polled.is_pending(), Ordering::Relaxed);
        let frame = match polled {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let size = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(size) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(TooLarge.into()))),
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.size_hint()
    }
}

/// When a call must be over.
#[derive(Debug)]
pub struct Deadline {
    pub began: Instant,
    pub limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    /// Runs from now.
    pub fn new(limit: Duration) -> Self {
        Self {
            began: Instant::now(),
            limit,
            sleep: Box::pin(sleep(limit)),
        }
    }

    /// Comes when the time is over.
    pub fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }

    /// When the time is over.
    pub fn at(&self) -> Instant {
        self.began + self.limit
    }
}

/// An answer's body with all that it needs until its end.
#[derive(Debug)]
pub struct Answer {
    /// What was read before its caller asked for it.
    ahead: VecDeque<Frame<Bytes>>,
    body: Incoming,
    connection: Option<Connection>,
    /// Whether the connection may serve another call.
    keep: bool,
    /// It was read to its last byte.
    ended: bool,
    lease: Lease,
    deadline: Deadline,
}

/// The answer was cut off in the middle.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    #[error("the function did not finish its answer within {}s (spec.timeoutSeconds)", .0.as_secs())]
    Timeout(Duration),
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
            body,
            connection: Some(connection),
            keep,
            ended: false,
            lease,
            deadline,
        }
    }

    /// The right that this answer uses up.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// When it must be through.
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// Reads what has come already, up to some bytes: as long as its caller was told nothing, what broke off can be told.
    pub fn begin(&mut self) -> Result<(), Cut> {
        let mut read = 0;
        while read < ANSWER_AHEAD {
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
        // However fast the function goes on.
        if self.deadline.sleep.is_elapsed() {
            return Poll::Ready(Some(Err(Cut::Timeout(self.deadline.limit))));
        }
        match self.poll_body(cx) {
            Poll::Ready(frame) => {
                self.ended = frame.is_none();
                return Poll::Ready(frame.map(|f| f.map_err(Cut::Broken)));
            }
            Poll::Pending => {}
        }
        let timed_out = self.deadline.poll_passed(cx);
        timed_out.map(|()| Some(Err(Cut::Timeout(self.deadline.limit))))
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Once to bring in what has come, and once more because taking it may let more come at once.
        for _ in 0..2 {
            if let Some(connection) = &mut self.connection {
                connection.drive(cx);
            }
            if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
                return Poll::Ready(frame);
            }
        }
        Poll::Pending
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(frame) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.poll_rest(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.iter().filter_map(Frame::data_ref);
        let ahead: usize = ahead.map(Bytes::len).sum();
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead as u64);
        }
        hint
    }
}

impl Drop for Answer {
    /// A connection whose answer was read to the end goes back to its instance before the lease does. An instance whose
    /// answer was not, in its time, gets no more calls: whether it stalled or its caller did not read.
    fn drop(&mut self) {
        let now = Instant::now();
        if !self.ended && !self.body.is_end_stream() {
            if now >= self.deadline.at() {
                self.lease.condemn();
            }
        } else if let Some(connection) = self.connection.take()
            && self.keep
        {
            self.lease.instance.connections.put(connection, now);
        }
    }
}
