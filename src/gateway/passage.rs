//! The way to the controller for requests that are its own: each takes a connection, which begins as a stream does, and on which the
//! controller hears who asked where. The answer comes through as it is made.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http_body::{Body as _, Frame, SizeHint};
use hyper::{Request, Response, Version, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_rustls::client::TlsStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Unreached, reach, token};
use crate::{
    ingress::{door::Origin, reply},
    kubernetes::notice::Place,
    stream::message::{Hello, Purpose},
};

/// Most requests that are passed on at a time. Logs that are followed are among them.
const MOST: usize = 100;

/// Why a request has no answer of the controller's.
#[derive(Debug, thiserror::Error)]
pub enum NotPassed {
    #[error(
        "no controller can be reached: calls are answered, and nothing else is until there is one; try again in a moment"
    )]
    NoController,
    #[error(
        "{MOST} requests are passed on to the controller at this moment, and more are not; try again later"
    )]
    Crowded,
    #[error("the request's body cannot be read: {0}")]
    Broken(String),
    #[error(
        "the controller was lost before it had answered: it may have done what was asked; look, and ask again"
    )]
    Lost,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Passage {
    reached: watch::Receiver<Option<Place>>,
    token_file: PathBuf,
    places: Arc<Semaphore>,
    /// The gateway drains: answers that would not end by themselves end.
    stop: CancellationToken,
}

impl Passage {
    pub(super) fn new(
        reached: watch::Receiver<Option<Place>>,
        token_file: PathBuf,
        stop: CancellationToken,
    ) -> Self {
        Self {
            reached,
            token_file,
            places: Arc::new(Semaphore::new(MOST)),
            stop,
        }
    }

    /// Passes a request on, and its answer back.
    ///
    /// # Errors
    /// When there is none.
    pub async fn pass(
        &self,
        request: Request<Body>,
        origin: Origin,
    ) -> Result<Response<Body>, NotPassed> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| NotPassed::Crowded)?;
        let stream = self.connect(origin).await.map_err(|error| {
            // That there is no stream was told, and is not to be told of each request.
            tracing::debug!(%error, "A request cannot be passed on to the controller");
            NotPassed::NoController
        })?;
        let lost = |error: hyper::Error| {
            if error.is_user() {
                return NotPassed::Broken(error.to_string());
            }
            tracing::warn!(%error, "The controller did not answer");
            NotPassed::Lost
        };
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(lost)?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "The connection to the controller ended");
            }
        }));
        let answer = sender.send_request(onward(request)).await.map_err(lost)?;
        Ok(back(answer).map(|body| {
            self.until_stop(Passing {
                body,
                _driver: driver,
                _place: place,
            })
        }))
    }

    /// Only of what is told as it comes, such as a log, is the length not known.
    fn until_stop(&self, passing: Passing) -> Body {
        let body = Body::new(passing);
        if body.size_hint().exact().is_some() {
            return body;
        }
        let stop = self.stop.clone().cancelled_owned();
        Body::from_stream(body.into_data_stream().take_until(stop))
    }

    async fn connect(&self, origin: Origin) -> Result<TlsStream<TcpStream>, Unreached> {
        let place = self.reached.borrow().clone();
        let place = place.ok_or(Unreached::Nobody)?;
        let hello = Hello {
            token: token(&self.token_file).await?,
            purpose: Purpose::Pass(origin),
        };
        Ok(reach(&place, &hello).await?.into_inner())
    }
}

/// As the controller gets it: all of it, but what belongs to the caller's connection.
fn onward(mut request: Request<Body>) -> Request<Body> {
    *request.version_mut() = Version::HTTP_11;
    reply::strip_hop_by_hop(request.headers_mut());
    request
}

fn back(mut answer: Response<Incoming>) -> Response<Incoming> {
    *answer.version_mut() = Version::HTTP_11;
    reply::strip_hop_by_hop(answer.headers_mut());
    answer
}

/// The body of an answer, with the connection that it comes by.
struct Passing {
    body: Incoming,
    _driver: AbortOnDropHandle<()>,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
