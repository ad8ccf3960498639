//! The requests of one connection, as those who answer them and the connection itself tell each other of them.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::Response;

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
}

impl Default for Requests {
    fn default() -> Self {
        Self(Arc::new(Counts {
            since: Instant::now(),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            end: AtomicU64::new(0),
        }))
    }
}

impl Requests {
    /// A head was read; the request runs until its answer's body is dropped.
    pub fn begin(&self) -> Running {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.end.store(0, Ordering::Relaxed);
        Running {
            requests: self.clone(),
        }
    }

    /// When the last answer must be through.
    pub fn end(&self) -> Option<Instant> {
        let end = self.0.end.load(Ordering::Relaxed);
        (end != 0).then(|| self.0.since + Duration::from_millis(end))
    }

    /// How many have begun, and whether one runs.
    pub fn look(&self) -> (u64, bool) {
        let begun = self.0.begun.load(Ordering::Relaxed);
        (begun, begun != self.0.ended.load(Ordering::Relaxed))
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Running {
    requests: Requests,
}

impl Running {
    /// The answer that comes must be through by then, its last byte taken by the caller.
    pub fn must_end(&self, at: Instant) {
        let counts = &self.requests.0;
        let end = at.saturating_duration_since(counts.since).as_millis();
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        // Rounded up: who is cut off is late for the answer too.
        counts.end.store(end.saturating_add(1), Ordering::Relaxed);
    }

    /// The request runs until this answer is through.
    pub fn until(self, answer: Response<Body>) -> Response<Answering> {
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
