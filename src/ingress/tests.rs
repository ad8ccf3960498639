//! The listener: its bound, and callers who leave or only stop sending.

use std::{num::NonZero, thread};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{
    controller::Turns,
    function::Revision,
    plan::Manners,
    pool::{self, Pool},
};

const SOON: Duration = Duration::from_secs(30);

/// A listener with the function `sum`, which has no instance yet.
struct Served {
    address: SocketAddr,
    pool: Arc<Pool>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Served {
    async fn start(limit: usize) -> Self {
        let pools = Arc::new(Pools::new(Turns::new().0));
        let pool = pools.ensure(&"sum".parse().unwrap());
        pool.serve(Some(pool::Route {
            revision: Revision::of([b"a".as_slice()]),
            concurrency: 1,
            manners: Manners::Stays,
            timeout: SOON,
        }));
        let ingress = Ingress::new(pools, Router::new(), Arc::new(Metrics::default())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(ingress.serve(listener, Scope::All, limit, stop.clone()));
        Self {
            address,
            pool,
            stop,
            serving,
        }
    }

    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// After this, every worker has looked at all that came to it before.
    async fn settle(&self) {
        for _ in 0..2 * thread::available_parallelism().map_or(1, NonZero::get) {
            let other = self
                .send("GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await;
            rest(other).await;
        }
    }

    /// Waits until this many callers wait and this many calls run.
    async fn calls(&self, waiting: u32, running: u32) {
        let look = async {
            loop {
                let (instances, waits, _) = self.pool.look();
                if (waits, instances.iter().map(|i| i.in_flight).sum()) == (waiting, running) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, look).await.unwrap();
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

/// Reads until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    let read = timeout(SOON, stream.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    answer
}

/// Whole requests, in ways in which nothing is left to be read, or something is.
fn whole() -> [String; 4] {
    let call = "POST /functions/sum HTTP/1.1\r\nHost: localhost\r\n";
    let known = format!("{call}Content-Length: 2\r\n\r\n{{}}");
    [
        "GET /function/sum/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        format!("{call}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
        format!("{known}{known}"),
        known,
    ]
}

fn is_whole(request: &[u8]) -> bool {
    let get = request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n");
    get || request.ends_with(b"{}") || request.ends_with(b"\r\n0\r\n\r\n")
}

#[tokio::test]
async fn one_connection_more_than_there_may_be_is_told_so() {
    let served = Served::start(1).await;
    let ask = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: mine-{path}\r\n\r\n")
    };
    let mut first = served.send(&ask("/nothing")).await;
    let mut begin = [0; 12];
    first.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 404");
    for (path, status, words) in [
        ("/status", "503", "x-faas-error: Overloaded"),
        ("/healthz", "200", "ok\n"),
    ] {
        let answer = rest(served.send(&ask(path)).await).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains(words), "{answer}");
        let id = format!("x-request-id: mine-{path}");
        assert!(answer.contains(&id), "{answer}");
    }
    served.end().await;
}

#[tokio::test]
async fn a_caller_that_leaves_is_forgotten_waiting_or_not() {
    let served = Served::start(100).await;
    for request in whole() {
        for how in ["closes", "resets", "stops sending, then closes"] {
            let mut caller = served.send(&request).await;
            served.calls(1, 0).await;
            match how {
                "resets" => caller.set_zero_linger().unwrap(),
                "closes" => {}
                _ => caller.shutdown().await.unwrap(),
            }
            drop(caller);
            served.calls(0, 0).await;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fn.sock");
    // It takes calls and never answers.
    let _listener = UnixListener::bind(&path).unwrap();
    served
        .pool
        .add("one".into(), Revision::of([b"a".as_slice()]), path);
    for request in whole() {
        let caller = served.send(&request).await;
        served.calls(0, 1).await;
        drop(caller);
        served.calls(0, 0).await;
    }
    served.end().await;
}

#[tokio::test]
async fn a_caller_that_only_stops_sending_gets_its_answer() {
    let served = Served::start(100).await;
    let mut callers = Vec::new();
    for (before, request) in (0..).zip(whole()) {
        let mut caller = served.send(&request).await;
        served.calls(before + 1, 0).await;
        caller.shutdown().await.unwrap();
        callers.push(caller);
    }
    served.settle().await;
    served.calls(4, 0).await;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fn.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let instance = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !is_whole(&request) {
                stream.read_buf(&mut request).await.unwrap();
            }
            let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
            stream.write_all(answer).await.unwrap();
        }
    });
    served
        .pool
        .add("one".into(), Revision::of([b"a".as_slice()]), path);
    for (caller, answers) in callers.into_iter().zip([1, 1, 2, 1]) {
        let answer = rest(caller).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), answers, "{answer}");
    }
    instance.abort();
    served.end().await;
}
