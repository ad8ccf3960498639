//! The listener: its bound, and callers who leave or only stop sending.

use std::{io, num::NonZero, thread, time::Duration};

use futures::FutureExt;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::*;
use crate::{
    api::error::ApiError,
    controller::Turns,
    function::Revision,
    plan::{Manners, Phase},
    pool::{self, Pool},
    telemetry::{Snapshot, text::Format},
};

mod blame;

const SOON: Duration = Duration::from_secs(30);

/// A listener with the function `sum`, which has no instance yet.
struct Served {
    address: SocketAddr,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Served {
    async fn start(limit: usize) -> Self {
        Self::with(limit, Scope::All, SOON).await
    }

    /// Calls may take as long as `timeout`.
    async fn with(limit: usize, scope: Scope, timeout: Duration) -> Self {
        let pools = Arc::new(Pools::new(Turns::new().0));
        pools.completed();
        let pool = pools.ensure(&"sum".parse().unwrap());
        pool.serve(Some(pool::Route {
            revision: Revision::of([b"a".as_slice()]),
            concurrency: 1,
            manners: Manners::Stays,
            timeout,
        }));
        let metrics = Arc::new(Metrics::default());
        let nothing = || async { ApiError::NotFound("nothing".to_owned()) };
        let management = Router::new().fallback(nothing);
        let ingress = Ingress::new(
            pools,
            management,
            Arc::clone(&metrics),
            Workers::alone().unwrap(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let door = Door::local(scope);
        let serving = tokio::spawn(ingress.serve(listener, door, limit, stop.clone()));
        Self {
            address,
            pool,
            metrics,
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
                let (instances, demand) = self.pool.look();
                if (demand.waiting, instances.iter().map(|i| i.in_flight).sum())
                    == (waiting, running)
                {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, look).await.unwrap();
    }

    /// Adds an instance; who calls it comes here.
    fn listener(&self) -> (TempDir, UnixListener) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fn.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let revision = Revision::of([b"a".as_slice()]);
        self.pool.add("one".into(), revision, path);
        (dir, listener)
    }

    /// Adds an instance that answers with these bytes each request that `is_whole`, or no other bytes ever.
    fn instance(&self, is_whole: fn(&[u8]) -> bool, answer: &'static str) -> Instance {
        let (dir, listener) = self.listener();
        let serving = tokio::spawn(async move {
            let mut calls = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A caller that has left is no longer answered.
                calls.spawn(reply(stream, is_whole, answer).map(drop));
            }
        });
        Instance {
            _dir: dir,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// Waits until the metrics have this line.
    async fn counts(&self, line: &str) {
        let look = async {
            while !self
                .metrics
                .render(&Snapshot::default(), Format::Prometheus)
                .contains(line)
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, look).await.expect(line);
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

/// Ends when dropped.
struct Instance {
    _dir: TempDir,
    _serving: AbortOnDropHandle<()>,
}

/// What a fake instance says.
const HI: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";

async fn reply(
    mut stream: UnixStream,
    is_whole: fn(&[u8]) -> bool,
    answer: &str,
) -> io::Result<()> {
    let mut request = Vec::new();
    while !is_whole(&request) {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(answer.as_bytes()).await
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
async fn a_caller_that_leaves_while_it_waits_is_forgotten() {
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
    served.end().await;
}

#[tokio::test]
async fn a_function_goes_on_without_its_caller_and_keeps_its_place_until_it_has_answered() {
    let served = Served::start(100).await;
    let (_dir, listener) = served.listener();
    let ends = ["\r\n\r\n", "\r\n0\r\n\r\n", "{}", "{}"];
    for (left, (request, end)) in (1..).zip(whole().into_iter().zip(ends)) {
        let caller = served.send(&request).await;
        let (mut call, _) = listener.accept().await.unwrap();
        let mut come = Vec::new();
        while !come.ends_with(end.as_bytes()) {
            call.read_buf(&mut come).await.unwrap();
        }
        drop(caller);
        let line = format!("faas_calls_total{{code=\"499\"}} {left}\n");
        served.counts(&line).await;
        served.calls(0, 1).await;
        call.write_all(HI.as_bytes()).await.unwrap();
        served.calls(0, 0).await;
    }
    assert_eq!(served.pool.look().0[0].phase, Phase::Ready);
    served.end().await;
}

/// Of an answer that ends with a `!`.
const BEGINS: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n";

#[tokio::test]
async fn an_answer_goes_on_without_its_caller_and_keeps_its_place_until_it_has_ended() {
    let served = Served::start(100).await;
    let (_dir, listener) = served.listener();
    let mut caller = served.send(&whole()[0]).await;
    let (mut call, _) = listener.accept().await.unwrap();
    call.write_all(BEGINS.as_bytes()).await.unwrap();
    caller.read_u8().await.unwrap();
    drop(caller);
    // It is taken from the function as before.
    call.write_all(&vec![b' '; 100_000]).await.unwrap();
    served.settle().await;
    served.calls(0, 1).await;
    call.write_all(b"!").await.unwrap();
    served.calls(0, 0).await;
    assert_eq!(served.pool.look().0[0].phase, Phase::Ready);
    served.end().await;
}

#[tokio::test]
async fn a_call_without_a_caller_ends_with_its_time() {
    for says in ["", BEGINS] {
        let served = Served::with(100, Scope::All, Duration::from_millis(500)).await;
        let (_dir, listener) = served.listener();
        let mut caller = served.send(&whole()[0]).await;
        let (mut call, _) = listener.accept().await.unwrap();
        call.write_all(says.as_bytes()).await.unwrap();
        if !says.is_empty() {
            caller.read_u8().await.unwrap();
        }
        drop(caller);
        let condemned = async {
            loop {
                let instance = served.pool.look().0.remove(0);
                if instance.phase == Phase::Condemned {
                    return;
                }
                assert_eq!(instance.in_flight, 1, "until its time is over");
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, condemned).await.unwrap();
        served.calls(0, 0).await;
        served.end().await;
    }
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

    let _instance = served.instance(is_whole, HI);
    for (caller, answers) in callers.into_iter().zip([1, 1, 2, 1]) {
        let answer = rest(caller).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), answers, "{answer}");
    }
    served.end().await;
}

/// Asserts that an answer is the platform's, with this status, code and piece of the message.
fn refused(answer: &str, status: &str, code: &str, words: &str) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
    let named = answer.contains(&format!("x-faas-error: {code}\r\n"));
    assert!(named && answer.contains(words), "{answer}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_its_callers_fault_and_is_told_while_there_is_one() {
    let served = Served::start(100).await;
    let instance = served.instance(|_| false, "");
    for path in ["/functions/sum", "/function/sum/"] {
        let call = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (body, words) in [
            ("Transfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk size"),
            (
                "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n",
                "chunk size",
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n2\r\n{",
                "it ended before",
            ),
            ("Content-Length: 3\r\n\r\n{}", "it ended before"),
        ] {
            let mut caller = served.send(&format!("{call}{body}")).await;
            caller.shutdown().await.unwrap();
            refused(&rest(caller).await, "400", "BadRequest", words);
            served.calls(0, 0).await;
        }
    }
    for left in 1..3 {
        let call = "POST /function/sum/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n{}";
        let caller = served.send(call).await;
        served.calls(0, 1).await;
        drop(caller);
        let line = format!("faas_calls_total{{code=\"499\"}} {left}\n");
        served.counts(&line).await;
    }
    drop(instance);
    served.end().await;
}

#[tokio::test]
async fn every_request_of_a_connection_is_judged_like_the_first() {
    let served = Served::start(100).await;
    let first = "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    let twice = "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2\r\n{}\r\n0\r\n\r\n";
    let http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    for (odd, status, code, words) in [
        (twice, "400", "BadRequest", "and nothing else"),
        (http2, "505", "HttpVersion", "HTTP/1.1"),
    ] {
        for before in [String::new(), first.to_owned(), first.repeat(3)] {
            let answers = rest(served.send(&format!("{before}{odd}")).await).await;
            let good = answers.matches("HTTP/1.1 404").count();
            assert_eq!(good, before.matches("POST").count(), "{answers}");
            let last = answers.rfind("HTTP/1.1 ").unwrap();
            refused(&answers[last..], status, code, words);
        }
    }
    // However it is cut.
    for at in 1..http2.len() {
        let mut caller = served.send(&http2[..at]).await;
        served.settle().await;
        // What it said so far may have been answered already.
        let _ = caller.write_all(&http2.as_bytes()[at..]).await;
        refused(&rest(caller).await, "505", "HttpVersion", "HTTP/1.1");
    }
    served.end().await;
}

#[tokio::test]
async fn an_answer_says_whether_its_connection_serves_another_request() {
    let served = Served::start(100).await;
    let ping = "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let large = 4 << 20;
    // What came with the refused request, or is small and follows at once, is no reason to end; all else is.
    for (fields, body, goes_on) in [
        ("Content-Length: 2", "{}".to_owned(), true),
        ("Content-Length: 20000", " ".repeat(20_000), true),
        (
            "Transfer-Encoding: chunked",
            "1\r\n1\r\n".repeat(500) + "0\r\n\r\n",
            true,
        ),
        (
            &format!("Content-Length: {large}"),
            " ".repeat(large),
            false,
        ),
        (
            "Transfer-Encoding: chunked",
            "1000\r\n".to_owned() + &" ".repeat(100),
            false,
        ),
        ("Content-Length: 3", "{}".to_owned(), false),
        (
            "Expect: 100-continue\r\nContent-Length: 3",
            String::new(),
            false,
        ),
    ] {
        let head = format!("POST /function/none/ HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
        let mut caller = served.send(&head).await;
        caller.write_all(body.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert!(caller.read_buf(&mut answer).await.unwrap() > 0);
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let closes = answer.contains("connection: close");
        assert_eq!(closes, !goes_on, "{fields}: {answer}");
        if goes_on {
            caller.write_all(ping.as_bytes()).await.unwrap();
            assert!(rest(caller).await.starts_with("HTTP/1.1 404"), "{fields}");
        } else {
            caller.shutdown().await.unwrap();
            assert_eq!(rest(caller).await, "", "{fields}");
        }
    }
    served.end().await;
}

#[tokio::test]
async fn an_early_answer_reaches_a_caller_that_is_still_sending() {
    let served = Served::start(100).await;
    let _instance = served.instance(|request| !request.is_empty(), HI);
    let length = 32 << 20;
    for path in ["/functions/sum", "/function/sum/"] {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let mut caller = served.send(&head).await;
        // One that looks for the answer only then.
        caller.write_all(&vec![b' '; length]).await.unwrap();
        let answer = rest(caller).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    served.end().await;
}

#[tokio::test]
async fn every_refusal_is_counted_and_a_caller_that_left_is_none() {
    let served = Served::start(100).await;
    let end = "Host: localhost\r\nConnection: close\r\n\r\n";
    for (request, code) in [
        (
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
            "BadRequest",
        ),
        (
            "GET / HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n".to_owned(),
            "ForeignHost",
        ),
        (format!("GET /a/../b HTTP/1.1\r\n{end}"), "BadPath"),
        (format!("GET /nothing HTTP/1.1\r\n{end}"), "NotFound"),
        ("PRI * HTTP/2.0\r\n\r\n".to_owned(), "HttpVersion"),
    ] {
        let answer = rest(served.send(&request).await).await;
        assert!(
            answer.contains(&format!("x-faas-error: {code}\r\n")),
            "{answer}"
        );
        let line = format!("faas_errors_total{{reason=\"{code}\"}} 1\n");
        served.counts(&line).await;
    }
    drop(served.send(&whole()[0]).await);
    served.counts("faas_calls_total{code=\"499\"} 1\n").await;
    let text = served
        .metrics
        .render(&Snapshot::default(), Format::Prometheus);
    assert!(!text.contains("CallerGone"), "{text}");
    served.end().await;
}
