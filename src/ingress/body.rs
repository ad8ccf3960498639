//! A request's body on its way, bounded and left with its caller until there is an instance; and how long it may take.

use std::{
    error::Error,
    future::Future,
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
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Sleep, sleep, timeout};

use super::{arriving::Arriving, reply::CallError, timed::HEAD_TIME};

/// Largest body of a call.
pub const MAX_REQUEST: u64 = 100 << 20;
/// Up to so many bytes a body is as good as a part of the head, and costs as little; and it has as much time to come.
const SMALL: u64 = 8 << 10;
const COMES: Duration = HEAD_TIME;
/// Least that comes of any other body in a second, while it is waited for. One that is [`COMES`] behind comes too slowly.
const PACE: u32 = 1 << 10;

/// How long a caller whose body has ended too early may take to be gone, which the connection notices. One that is still
/// there then waits for an answer.
const FAREWELL: Duration = Duration::from_millis(250);

type BoxError = Box<dyn Error + Send + Sync>;

/// A request's body as it comes, up to [`MAX_REQUEST`].
#[derive(Debug)]
pub struct Bounded {
    /// All of it, if it was [gathered](Self::gather).
    ahead: Bytes,
    rest: Arriving,
    left: u64,
    owed: Owed,
    patience: Patience,
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

/// How long more of a body is still waited for. It has an instance meanwhile, which others may need.
#[derive(Debug)]
struct Patience {
    left: Duration,
    waits: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Patience {
    /// Nothing came. Ends when it has been too long.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.left;
        let begin = || (Instant::now(), Box::pin(sleep(left)));
        let (_, sleep) = self.waits.get_or_insert_with(begin);
        sleep.as_mut().poll(cx)
    }

    /// So much came. No body comes so fast that it may stop for longer than another.
    fn came(&mut self, bytes: u64) {
        if let Some((since, _)) = self.waits.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let gained = Duration::from_millis(bytes.saturating_mul(1000) / u64::from(PACE));
        self.left = self.left.saturating_add(gained).min(COMES);
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            left: COMES,
            waits: None,
        }
    }
}

/// The body comes too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the request body comes too slowly")]
struct TooSlow;

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
            ahead: Bytes::new(),
            rest: body,
            left: MAX_REQUEST,
            owed: Owed::default(),
            patience: Patience::default(),
        })
    }

    /// Waits until all of a small body is here, so that its caller has no instance while it sends.
    pub async fn gather(&mut self) -> Result<(), CallError> {
        let length = self.rest.size_hint().exact();
        if !matches!(length, Some(1..=SMALL)) {
            return Ok(());
        }
        // In no piece of the connection's own memory, which would stay whole with it.
        let mut come = Vec::new();
        let through = async {
            while let Some(frame) = self.rest.frame().await {
                come.extend_from_slice(frame?.data_ref().map_or(&[], |data| data));
            }
            Ok(())
        };
        match timeout(COMES, through).await {
            Ok(Ok(())) => self.ahead = come.into(),
            Ok(Err(error)) => return Err(broken(&error).await),
            Err(_) => return Err(CallError::SlowBody { limit: COMES }),
        }
        Ok(())
    }

    /// Tells, wherever the body goes, whether its caller owes some of it.
    pub fn owed(&self) -> Owed {
        self.owed.clone()
    }
}

/// What it means for the caller that its request's body could not be read, or passed on, to its end.
pub fn broken(error: &hyper::Error) -> impl Future<Output = CallError> + use<> {
    let too_large = cause::<TooLarge>(error).is_some();
    let too_slow = cause::<TooSlow>(error).is_some();
    let is_short =
        cause::<io::Error>(error).is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof);
    let garbled = garbled(error);
    async move {
        match garbled {
            _ if too_large => CallError::BodyTooLarge { limit: MAX_REQUEST },
            _ if too_slow => CallError::SlowBody { limit: COMES },
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
        if !self.ahead.is_empty() {
            let ahead = std::mem::take(&mut self.ahead);
            return Poll::Ready(Some(Ok(Frame::data(ahead))));
        }
        let polled = Pin::new(&mut self.rest).poll_frame(cx);
        self.owed.0.store(polled.is_pending(), Ordering::Relaxed);
        let frame = match polled {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                let over = self.patience.poll_over(cx);
                return over.map(|()| Some(Err(TooSlow.into())));
            }
        };
        let size = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.patience.came(size);
        match self.left.checked_sub(size) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(TooLarge.into()))),
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.ahead.len() {
            0 => self.rest.size_hint(),
            length => SizeHint::with_exact(length as u64),
        }
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

    /// Whether that has been noticed.
    pub fn has_passed(&self) -> bool {
        self.sleep.is_elapsed()
    }

    /// When the time is over.
    pub fn at(&self) -> Instant {
        self.began + self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_waited_for_but_for_no_longer_than_at_the_beginning() {
        let mut patience = Patience::default();
        patience.came(u64::from(PACE) * 3600);
        assert_eq!(patience.left, COMES, "an hour ahead");
        for (left, bytes, expected) in [
            (0, 1 << 10, 1000),
            (500, 1 << 9, 1000),
            (9000, 1 << 12, 10_000),
        ] {
            patience.left = Duration::from_millis(left);
            patience.came(bytes);
            assert_eq!(patience.left, Duration::from_millis(expected));
        }
    }
}
