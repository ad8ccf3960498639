//! A request's body as it arrives, and what remains of it once there is an answer. A connection can have another request
//! only if nothing does, and its caller must know that before sending one.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::{Request, body::Incoming, header::EXPECT};
use tokio::time::timeout;

/// How much of a body is thrown away so that its connection goes on, and how long that may take to come.
const WASTE: u32 = 64 << 10;
const COMES: Duration = Duration::from_millis(10);

/// A body for whoever answers the request.
#[derive(Debug)]
pub struct Arriving(Arc<Mutex<Followed>>);

/// The same body for whoever looks after the connection.
#[derive(Debug)]
pub struct Remains {
    body: Arc<Mutex<Followed>>,
    /// Its caller waits to be asked for it.
    on_demand: bool,
}

#[derive(Debug)]
struct Followed {
    body: Incoming,
    ended: bool,
}

impl Arriving {
    /// Follows the body of a request.
    pub fn follow(request: Request<Incoming>) -> (Request<Self>, Remains) {
        let on_demand = request.headers().contains_key(EXPECT);
        let (head, body) = request.into_parts();
        let ended = body.is_end_stream();
        let body = Arc::new(Mutex::new(Followed { body, ended }));
        let remains = Remains {
            body: Arc::clone(&body),
            on_demand,
        };
        (Request::from_parts(head, Self(body)), remains)
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remains {
    /// Whether there is nothing more. What nobody reads any more, and is small and here, is thrown away.
    pub async fn are_none(self) -> bool {
        let followed = match Arc::try_unwrap(self.body) {
            Ok(followed) => followed
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
            Err(read) => return Arriving(read).is_end_stream(),
        };
        if followed.ended || self.on_demand || followed.size_hint().lower() > WASTE.into() {
            return followed.ended;
        }
        let mut rest = Limited::new(followed, WASTE as usize);
        let through = async {
            while let Some(frame) = rest.frame().await {
                if frame.is_err() {
                    return false;
                }
            }
            true
        };
        timeout(COMES, through).await.unwrap_or(false)
    }
}

impl Body for Followed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.ended = matches!(polled, Poll::Ready(None)) || self.body.is_end_stream();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *self.followed()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.followed().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.followed().size_hint()
    }
}
