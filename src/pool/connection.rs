//! Connections to one instance, kept and owned by it. A connection is driven by the call that uses it, on the worker that
//! opened it: no task of its own, no hand-over between threads.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{TryFutureExt, future::BoxFuture};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::stream::Stream;
use crate::{runtime::Address, workers};

/// Body of a request on its way to an instance.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Longest head of an answer, in bytes.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most fields of an answer's head.
pub const MAX_FIELDS: usize = 200;

/// More workers than this share a shelf with others.
const SHELVES: usize = 16;

/// Longest rest of a connection. Servers commonly close theirs after 5 s, and a request that meets the closing is lost;
/// our shims never close any.
const MAX_REST: Duration = Duration::from_secs(3);

/// The idle connections of one instance, on a shelf for each worker: a connection wakes the thread that it was opened on.
#[derive(Debug, Default)]
pub struct Connections([Mutex<Shelf>; SHELVES]);

/// Connections with the time when they came, the one that has rested longest first.
type Shelf = VecDeque<(Instant, Connection)>;

impl Connections {
    /// The idle connection that has rested least, if there is one that the instance has not closed.
    pub fn take(&self, now: Instant) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.shelf().pop_back()?;
            if is_fresh(since, now) && connection.is_ready() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next call if it is in a state to serve one.
    pub fn put(&self, mut connection: Connection, now: Instant) {
        if connection.is_ready() {
            let mut shelf = self.shelf();
            tidy(&mut shelf, now);
            shelf.push_back((now, connection));
        }
    }

    /// Drops what has rested for too long.
    pub fn tidy(&self, now: Instant) {
        for shelf in &self.0 {
            tidy(&mut lock(shelf), now);
        }
    }

    /// Closes those that are kept.
    pub fn close(&self) {
        for shelf in &self.0 {
            lock(shelf).clear();
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.0[workers::current() % SHELVES])
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tidy(shelf: &mut Shelf, now: Instant) {
    while shelf
        .front()
        .is_some_and(|(since, _)| !is_fresh(*since, now))
    {
        shelf.pop_front();
    }
}

fn is_fresh(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < MAX_REST
}

/// A connection and the machinery that moves its bytes, polled by whoever uses it.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<RequestBody>,
    /// Boxed, because it is large and goes from hand to hand with every call.
    driver: Option<Box<http1::Connection<TokioIo<Stream>, RequestBody>>>,
    /// The instance reads no more from it.
    deaf: Arc<AtomicBool>,
}

/// The head of an answer that is to come.
pub type Awaited = BoxFuture<'static, Result<Response<Incoming>, SendError>>;

/// Why a request got no answer.
#[derive(Debug)]
pub struct SendError {
    /// The request, if not one byte of it was written.
    pub unsent: Option<Box<Request<RequestBody>>>,
    /// What happened.
    pub error: hyper::Error,
}

impl Connection {
    /// Connects to an instance: see [`Address::connect`]. It breaks off once the instance is `gone`.
    ///
    /// # Errors
    /// When nobody listens there, or what is there is no socket.
    pub async fn open(address: &Address, gone: &CancellationToken) -> io::Result<Self> {
        let deaf = Arc::<AtomicBool>::default();
        let stream = Stream::new(address.connect().await?, Arc::clone(&deaf), gone);
        let (sender, driver) = http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok(Self {
            sender,
            driver: Some(Box::new(driver)),
            deaf,
        })
    }

    /// Sends a request. Its answer comes as far as it is [asked for](Self::poll_answer).
    pub fn send(&mut self, request: Request<RequestBody>) -> Awaited {
        let answer = self.sender.try_send_request(request);
        Box::pin(answer.map_err(|mut failed| SendError {
            unsent: failed.take_message().map(Box::new),
            error: failed.into_error(),
        }))
    }

    /// The head of the answer.
    pub fn poll_answer(
        &mut self,
        awaited: &mut Awaited,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Incoming>, SendError>> {
        self.drive(cx);
        awaited.as_mut().poll(cx)
    }

    /// Moves bytes as far as possible. To be called by whoever polls the answer's body.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, cx);
    }

    /// Whether the next request can be sent; notices that the other side has closed.
    fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready() && !self.deaf.load(Ordering::Relaxed)
    }
}

/// Whether this machine, and not the instance, is why there is no connection.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// Polls the machinery; once it has ended it is gone.
fn drive(
    driver: &mut Option<Box<http1::Connection<TokioIo<Stream>, RequestBody>>>,
    cx: &mut Context<'_>,
) {
    let ended = driver
        .as_mut()
        .is_some_and(|d| matches!(Pin::new(d).poll(cx), Poll::Ready(_)));
    if ended {
        *driver = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body_util::{BodyExt, Empty};
    use hyper::body::Body;
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, UnixListener},
    };

    use super::*;

    #[test]
    fn a_shortage_of_ours_is_none_of_the_instances_faults() {
        for (errno, ours) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOMEM, true),
            (Errno::CONNREFUSED, false),
            (Errno::NOENT, false),
            (Errno::AGAIN, false),
        ] {
            assert_eq!(is_shortage(&errno.into()), ours, "{errno}");
        }
        assert!(!is_shortage(&io::ErrorKind::InvalidInput.into()));
    }

    #[tokio::test]
    async fn what_a_pod_sent_before_it_was_gone_is_read_and_no_more_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Pod {
            at: listener.local_addr().unwrap(),
            uid: String::new(),
        };
        let gone = CancellationToken::new();
        let (connection, accepted) =
            tokio::join!(Connection::open(&address, &gone), listener.accept());
        let (mut connection, mut accepted) = (connection.unwrap(), accepted.unwrap().0);
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha";
        accepted.write_all(half).await.unwrap();
        let request = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        let mut awaited = connection.send(request);
        let answer = poll_fn(|cx| connection.poll_answer(&mut awaited, cx));
        let answer = answer.await.unwrap();
        gone.cancel();
        let mut body = answer.into_body();
        let mut frame = async || {
            poll_fn(|cx| {
                connection.drive(cx);
                Pin::new(&mut body).poll_frame(cx)
            })
            .await
            .unwrap()
        };
        assert_eq!(frame().await.unwrap().into_data().unwrap(), "ha");
        assert!(frame().await.is_err());
    }

    #[tokio::test]
    async fn connections_rest_for_a_while_and_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fn.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let address = Address::from(path);
        let gone = CancellationToken::new();
        let open = async || Connection::open(&address, &gone).await.unwrap();
        let (kept, then) = (Connections::default(), Instant::now());
        let resting = || kept.0.iter().map(|shelf| lock(shelf).len()).sum::<usize>();

        kept.put(open().await, then);
        assert!(kept.take(then + MAX_REST / 2).is_some());
        kept.put(open().await, then);
        kept.put(open().await, then);
        assert!(kept.take(then + MAX_REST).is_none());
        assert_eq!(resting(), 0, "those below are older still");

        // Each time, the busiest is used again, and those below it are not kept for ever.
        kept.put(open().await, then);
        kept.put(open().await, then + MAX_REST);
        assert_eq!(resting(), 1);
        kept.tidy(then + MAX_REST);
        assert_eq!(resting(), 1);
        kept.tidy(then + MAX_REST * 2);
        assert_eq!(resting(), 0);

        kept.put(open().await, then);
        kept.close();
        assert_eq!(resting(), 0);
    }
}
