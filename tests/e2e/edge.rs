//! The edges of the call path: answers that stall, callers that read slowly, stop sending or leave, and bytes that are not
//! quite HTTP.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    Home, Reply, SOON, Server, Shared, Start, client, has_docker, node, wait_until,
};

static SERVER: Shared = Shared::new();

async fn server() -> Arc<Server> {
    SERVER
        .get(async || Start::default().at(&Arc::new(Home::new())).await)
        .await
}

/// Waits for an instance of a Function and answers its id.
async fn instance(server: &Server, name: &str) -> String {
    wait_until("an instance", SOON, async || {
        server.instances(name, "ready").await.pop()
    })
    .await
}

/// Sends bytes as they are on a connection of their own, and leaves it open.
async fn send(server: &Server, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Begins an answer and never ends it.
const STALLS: &str = r"
module.exports = {
  http (req, res) {
    res.writeHead(200, {'Content-Length': 100})
    res.write('only this')
  }
}";

#[tokio::test]
async fn an_answer_that_stalls_costs_the_instance_before_the_504() {
    if !has_docker("e2e stalled answers") {
        return;
    }
    let server = server().await;
    let more = json!({"timeoutSeconds": 1, "scale": {"concurrency": 1, "min": 1}});
    server.deploy("stall", node(STALLS, more)).await;
    let before = instance(&server, "stall").await;
    let reply = server.call("stall", json!({})).await;
    let left = server.home.containers();
    reply.refused(504, "Timeout");
    assert!(!left.contains(&before), "{left:?} still holds {before:?}");
    server.delete("/functions/stall").await.expect(202);
}

/// Answers for as long as somebody reads; below /pieces, a few words without a length and how often this connection served.
const FLOODS: &str = r"
const piece = Buffer.alloc(1 << 16)
module.exports = {
  http (req, res) {
    if (req.url === '/pieces') {
      req.socket.served = (req.socket.served || 0) + 1
      res.write('served ')
      return res.end(String(req.socket.served))
    }
    const more = () => { while (res.write(piece)); res.once('drain', more) }
    more()
  }
}";

#[tokio::test]
async fn a_caller_that_does_not_read_holds_its_instance_no_longer_than_a_call_may_take() {
    if !has_docker("e2e slow readers") {
        return;
    }
    let server = server().await;
    let more = json!({"timeoutSeconds": 2, "scale": {"min": 1}});
    server.deploy("flood", node(FLOODS, more)).await;
    let flood = "GET /function/flood/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for reads in [false, true] {
        let before = instance(&server, "flood").await;
        let mut caller = send(&server, flood).await;
        if reads {
            let (mut piece, mut last) = (vec![0; 1 << 16], Vec::new());
            // Until the end, or a reset.
            while let Ok(length @ 1..) = timeout(SOON, caller.read(&mut piece)).await.unwrap() {
                last = piece[length.saturating_sub(5)..length].to_vec();
            }
            assert_ne!(last, b"0\r\n\r\n", "it must not look whole");
        }
        wait_until("the instance is gone", SOON, async || {
            (!server.home.containers().contains(&before)).then_some(())
        })
        .await;
    }
    server.delete("/functions/flood").await.expect(202);
}

#[tokio::test]
async fn the_connection_of_an_answer_without_a_length_serves_again() {
    if !has_docker("e2e kept connections") {
        return;
    }
    let server = server().await;
    let spec = node(FLOODS, json!({"scale": {"min": 1}}));
    server.deploy("pieces", spec).await;
    // One connection of ours is served by one thread, which finds what it kept.
    let client = client();
    let served = async || {
        let request = client.get(server.url("/function/pieces/pieces"));
        Reply::of(request.send().await.unwrap())
            .await
            .expect(200)
            .text
    };
    assert_eq!(served().await, "served 1");
    assert_eq!(served().await, "served 2");
    server.delete("/functions/pieces").await.expect(202);
}

/// Takes all that it gets, and answers nothing.
const SWALLOWS: &str = "module.exports = { http (req) { req.resume() } }";

async fn swallow() -> Arc<Server> {
    let server = server().await;
    server.deploy("swallow", node(SWALLOWS, json!({}))).await;
    server
}

/// A chunk of 1 MiB.
fn piece() -> String {
    format!("100000\r\n{}\r\n", " ".repeat(1 << 20))
}

/// Reads until the server closes.
async fn rest(mut caller: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(SOON, caller.read_to_end(&mut answer)).await;
    read.expect("the connection is closed").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_is_still_sending() {
    if !has_docker("e2e early refusals") {
        return;
    }
    let server = swallow().await;
    for (path, length, code) in [
        ("/function/swallow/", 101 << 20, "BodyTooLarge"),
        ("/functions/swallow", 101 << 20, "BodyTooLarge"),
        ("/function/nobody/", 16 << 20, "NotFound"),
    ] {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let mut caller = send(&server, &head).await;
        // One that looks for an answer only now and then.
        caller.write_all(&vec![b' '; 8 << 20]).await.unwrap();
        let answer = rest(caller).await;
        assert!(answer.contains(code), "{path}: {answer}");
    }

    let head =
        "POST /function/swallow/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut caller = send(&server, head).await;
    for _ in 0..102 {
        caller.write_all(piece().as_bytes()).await.unwrap();
    }
    let answer = rest(caller).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn what_is_too_large_is_not_asked_for() {
    if !has_docker("e2e expectations") {
        return;
    }
    let server = swallow().await;
    for (request, limit) in [
        ("POST /function/swallow/", 100 << 20),
        ("POST /functions/swallow", 100 << 20),
        ("POST /functions", 90 << 20),
        ("PUT /functions/swallow", 1 << 20),
    ] {
        let head = format!(
            "{request} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            limit + 1
        );
        let answer = rest(send(&server, &head).await).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{request}: {answer}");
        assert!(answer.contains("BodyTooLarge"), "{request}: {answer}");
        assert!(answer.contains("connection: close"), "{request}: {answer}");
    }
    // What does not say so is read, up to the limit.
    let head =
        "PUT /functions/swallow HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut caller = send(&server, head).await;
    caller.write_all(piece().as_bytes()).await.unwrap();
    caller.write_all(piece().as_bytes()).await.unwrap();
    let answer = rest(caller).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

/// Tells what it got, with fields of the connection's in its answer; below /old, as a server of long ago would.
const TELLS: &str = r"
module.exports = {
  http (req, res) {
    if (req.url === '/old') return req.socket.end('HTTP/1.0 200 OK\r\nX-Mine: 1\r\n\r\nold')
    req.resume()
    for (const name of ['Keep-Alive', 'Proxy-Authenticate', 'Proxy-Connection', 'TE', 'Upgrade', 'X-Hop', 'X-Mine']) {
      res.setHeader(name, 'mine')
    }
    res.setHeader('Connection', 'X-Hop')
    res.write('it got ')
    res.end(JSON.stringify([req.httpVersion, Object.keys(req.headers).sort()]))
  }
}";

#[tokio::test]
async fn fields_and_versions_of_a_connection_go_no_further() {
    if !has_docker("e2e connection fields") {
        return;
    }
    let server = server().await;
    server.deploy("tells", node(TELLS, json!({}))).await;
    let fields = "Host: localhost\r\nConnection: close, X-Hop, Host\r\nX-Hop: 1\r\nX-Mine: 1\r\nExpect: 100-continue\r\n\
        Keep-Alive: 5\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: close\r\nTE: trailers\r\nTrailer: X-Sum\r\n\
        Upgrade: h2c\r\nContent-Length: 2";
    let got = r#"it got ["1.1",["content-length","host","x-mine","x-request-id"]]"#;
    for version in ["1.1", "1.0"] {
        let request = format!("POST /function/tells/ HTTP/{version}\r\n{fields}\r\n\r\n{{}}");
        let answer = rest(send(&server, &request).await).await;
        let answer = answer.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with(&format!("http/{version} 200")), "{answer}");
        assert!(head.contains("\r\nx-mine: mine"), "{head}");
        for gone in ["keep-alive:", "proxy-", "te:", "upgrade:", "x-hop"] {
            assert!(!head.contains(&format!("\r\n{gone}")), "{gone}: {head}");
        }
        if version == "1.0" {
            assert!(!head.contains("transfer-encoding"), "{head}");
            assert_eq!(body, got);
        } else {
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            let pieces: String = body.split("\r\n").skip(1).step_by(2).collect();
            assert_eq!(pieces, got);
        }
    }
    let request =
        "GET /function/tells/old HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = rest(send(&server, request).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\r\nold\r\n"), "{answer}");
    server.delete("/functions/tells").await.expect(202);
}

#[tokio::test]
async fn what_is_no_request_gets_an_answer_like_any_other() {
    if !has_docker("e2e no requests") {
        return;
    }
    let server = server().await;
    let ping = "GET /ping HTTP/1.1\r\nHost: localhost\r\n";
    for (request, status, code) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "BadRequest"),
        (
            format!("{ping}Content-Length: x\r\n\r\n"),
            400,
            "BadRequest",
        ),
        (format!("{ping}\r\nnonsense\r\n\r\n"), 400, "BadRequest"),
        (
            format!("{ping}{}\r\n", "X: 1\r\n".repeat(120)),
            431,
            "HeadTooLarge",
        ),
        (
            format!("{ping}X: {}", "x".repeat(8 << 20)),
            431,
            "HeadTooLarge",
        ),
    ] {
        let answer = rest(send(&server, &request).await).await;
        let last = answer.rfind(&format!("HTTP/1.1 {status} ")).unwrap();
        let (head, body) = answer[last..].split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("x-faas-error: {code}")), "{answer}");
        assert!(head.contains("x-request-id: "), "{answer}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], code);
    }
}

/// Sizes of chunks that say more than a size, or one that nobody can mean.
const NO_SIZES: [&str; 6] = [
    "5 \r\n",
    "+5\r\n",
    "0x5\r\n",
    "5\n",
    "\r\n",
    "ffffffffffffffff\r\n",
];

/// Line feeds alone, that end a first line, and an empty one before it.
fn lone_ends(path: &str) -> [String; 2] {
    let fields = "Host: localhost\r\nConnection: close\r\n";
    let ends = [("", "\n"), ("\n", "\r\n")];
    ends.map(|(before, end)| format!("{before}POST {path} HTTP/1.1{end}{fields}\r\n"))
}

/// Requests that say something twice, or in a way that others may read differently.
fn ambiguous() -> Vec<String> {
    let (host, close) = ("Host: localhost\r\n", "Connection: close\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut requests = Vec::new();
    for path in ["/function/swallow", "/functions/swallow"] {
        for fields in [
            close.to_owned(),
            format!("{host}{host}{close}"),
            format!("{host}Content-Length: 5\r\n{chunked}"),
            format!("{host}{chunked}Content-Length: 5\r\n"),
            format!("{host}Content-Length: 5\r\nContent-Length: 6\r\n"),
            format!("{host}Content-Length: 5\r\nContent-Length: 5\r\n"),
            format!("{host}X: 1\nContent-Length: 5\r\n"),
            format!("{host}Content-Length: 5\n"),
            format!("{host}Content-Length: 5\r\n\n"),
            format!("{host}Content-Length: 5, 6\r\n"),
            format!("{host}Content-Length: +5\r\n"),
            format!("{host}Content-Length: -5\r\n"),
            format!("{host}Content-Length: {}\r\n", u64::MAX),
            format!("{host}Content-Length : 5\r\n"),
            format!("{host}X: 1\r\n Content-Length: 5\r\n"),
            format!("{host}{close}Transfer-Encoding: gzip\r\n"),
            format!("{host}{close}Transfer-Encoding: gzip, chunked\r\n"),
            format!("{host}{close}{chunked}{chunked}"),
        ] {
            requests.push(format!("POST {path} HTTP/1.1\r\n{fields}\r\n0\r\n\r\n"));
        }
        for size in NO_SIZES {
            let head = format!("POST {path} HTTP/1.1\r\n{host}{chunked}");
            requests.push(format!("{head}\r\n{size}12345\r\n0\r\n\r\n"));
        }
        requests.extend(behind_the_last_chunk(path));
        requests.extend(odd_hosts(path));
        for odd in [
            "/..",
            "/./x",
            "/%2e%2E/x",
            "%2Fx",
            "%2fx",
            "%5cx",
            "\\x",
            "%00",
            "/%2E",
            "/x#/../y",
        ] {
            requests.push(format!("POST {path}{odd} HTTP/1.1\r\n{host}{close}\r\n"));
        }
        for line in [
            format!("POST http://localhost{path} HTTP/1.1"),
            format!("POST //localhost/../{path} HTTP/1.1"),
            format!("CONNECT {path} HTTP/1.1"),
            format!("POST {path}\0 HTTP/1.1"),
            format!("POST {path} x HTTP/1.1"),
            format!("POST {path} HTTP/1.0\r\n{chunked}"),
            format!("POST {path} HTTP/3.0"),
        ] {
            requests.push(format!("{}\r\n{host}{close}\r\n", line.trim_end()));
        }
        requests.extend(lone_ends(path));
    }
    requests
}

/// In which others may see another name.
fn odd_hosts(path: &str) -> [String; 4] {
    [
        "localhost:abc",
        "evil.example#.localhost",
        "[::1].evil.example]:80",
        "[evil.localhost",
    ]
    .map(|host| format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

/// What is wrong there hides nothing of the next request.
fn behind_the_last_chunk(path: &str) -> [String; 3] {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let second = format!("{head}Content-Length: 3\r\n{chunked}\r\n0\r\n\r\n");
    ["\na: b\r\n", "X: 1\n\r\n", "X: \0\r\n\r\n"]
        .map(|end| format!("{head}{chunked}\r\n2\r\n{{}}\r\n0\r\n{end}\r\n{second}"))
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_not_read() {
    if !has_docker("e2e ambiguous requests") {
        return;
    }
    let server = swallow().await;
    for request in ambiguous() {
        let answer = rest(send(&server, &request).await).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"),
            "{request}: {answer}"
        );
        let code = ["BadRequest", "BadPath"]
            .iter()
            .any(|code| answer.contains(code));
        assert!(code, "{request}: {answer}");
        assert!(!answer.contains("HTTP/1.1 200"), "{request}: {answer}");
    }
}

/// Does its work behind the head of its answer, or before.
const ALONE: &str = r"
let running = 0, most = 0
const work = (ms, done) => {
  most = Math.max(most, ++running)
  setTimeout(() => { running--; done(most) }, ms)
}
module.exports = (context, cb) => work(context.ms, cb)
module.exports.http = (req, res) => {
  res.write('head')
  work(100, (most) => res.end(String(most)))
}";

/// Each caller leaves while the function is at work.
#[tokio::test]
async fn callers_that_leave_do_not_make_more_run_at_a_time_than_may() {
    if !has_docker("e2e callers that leave") {
        return;
    }
    let server = server().await;
    let scale = json!({"scale": {"min": 1, "max": 1, "concurrency": 1}});
    server.deploy("alone", node(ALONE, scale)).await;
    let before = instance(&server, "alone").await;
    for round in 0..15 {
        let (path, input) = match round {
            0..5 => ("/functions/alone", r#"{"ms": 1000}"#),
            _ => ("/function/alone/", ""),
        };
        let length = input.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let mut caller = send(&server, &(head + input)).await;
        if input.is_empty() {
            caller.read_u8().await.unwrap();
        } else {
            wait_until("it runs", SOON, async || {
                let status = server.status("alone").await;
                (status["instances"][0]["inFlight"] == 1).then_some(())
            })
            .await;
        }
        drop(caller);
    }
    assert_eq!(server.call("alone", json!({"ms": 0})).await.response(), 1);
    assert_eq!(instance(&server, "alone").await, before);
}
