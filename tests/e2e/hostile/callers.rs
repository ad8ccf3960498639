//! Callers that leave, that never finish what they say, and that are too many.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{Watch, rogue, server};
use crate::support::{
    Home, Reply, SOON, Server, Start, Streaming, client, exchange, has_docker, inline, node,
    wait_until,
};

/// Both ends of every connection are of this process and its child.
fn many_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// Connections on which half a head was sent.
async fn half_heads(address: SocketAddr, number: usize) -> Vec<TcpStream> {
    let mut callers = Vec::new();
    for _ in 0..number {
        let mut caller = TcpStream::connect(address).await.unwrap();
        // One that is beyond all bounds may have been closed already.
        let _ = caller.write_all(b"GET /ping HTTP/1.1\r\nHost: loc").await;
        callers.push(caller);
    }
    callers
}

/// Goes on with a field, a byte every `pace` milliseconds or not at all, until there is an answer.
async fn drip(mut caller: TcpStream, pace: u64) -> String {
    let (mut from, mut to) = caller.split();
    let mut answer = vec![0; 4096];
    let mut pace = (pace > 0).then(|| tokio::time::interval(Duration::from_millis(pace)));
    let answered = from.read(&mut answer);
    tokio::pin!(answered);
    let length = loop {
        let turn = async {
            match &mut pace {
                Some(pace) => pace.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            length = &mut answered => break length.unwrap(),
            // Once it is given up it may be closed.
            _ = turn => drop(to.write_all(b"x").await),
        }
    };
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// What many ask for and do not read is not held for each of them.
#[tokio::test]
async fn lists_that_nobody_reads_cost_little_memory() {
    if !has_docker("e2e lists that nobody reads") {
        return;
    }
    let server = Start::default().at(&Arc::new(Home::new())).await;
    let large = "x".repeat(120_000);
    for number in 0..40 {
        // No Dockerfile, so that nothing is built.
        let spec = inline("dockerfile", json!({"large.txt": large}), json!({}));
        server.apply(&format!("large-{number}"), spec).await;
    }
    let list = server.get("/functions").await.expect(200).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 40);
    let before = server.memory();
    let mut readers = Vec::new();
    for _ in 0..200 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut reader = socket.connect(server.address).await.unwrap();
        let request = b"GET /functions HTTP/1.1\r\nHost: localhost\r\n\r\n";
        reader.write_all(request).await.unwrap();
        reader.readable().await.unwrap();
        readers.push(reader);
    }
    server.get("/ping").await.expect(200);
    let held = server.memory().saturating_sub(before);
    // A copy for each would be 940 MiB.
    assert!(held < 300 << 10, "{held} KiB");
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    exchange(address, &request).await
}

/// Waits until the metrics have this line.
async fn metric(server: &Server, line: &str) {
    wait_until(line, SOON, async || {
        let metrics = server.get("/metrics").await.text;
        metrics.lines().any(|one| one == line).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_nobody_waits_for_any_more_is_stopped() {
    if !has_docker("e2e leaving callers") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Arc::new(Start::default().at(&home).await);
    let idle_after = |seconds: u64| {
        let env = json!([{"name": "LATE_MS", "value": "6000"}]);
        rogue(json!({"env": env, "scale": {"idleAfterSeconds": seconds}}))
    };
    let gone = async || {
        wait_until("what was started is gone", SOON, async || {
            let there = home.containers();
            (!there.iter().any(|one| one.starts_with("faas-late-"))).then_some(())
        })
        .await;
    };
    server.deploy("late", idle_after(1)).await;
    gone().await;
    // Proven, and an instance would stay.
    server.deploy("late", idle_after(300)).await;
    let watch = Watch::begin(&server, "late").await;
    for body in [
        "Content-Length: 0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    ] {
        let mut callers = Vec::new();
        for path in ["/functions/late", "/function/late/fine"] {
            let mut caller = TcpStream::connect(server.address).await.unwrap();
            let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{body}");
            caller.write_all(request.as_bytes()).await.unwrap();
            callers.push(caller);
        }
        metric(&server, "faas_calls_waiting 2").await;
        wait_until("an instance starts", SOON, async || {
            server.instances("late", "starting").await.pop()
        })
        .await;
        drop(callers);
        metric(&server, "faas_calls_waiting 0").await;
        gone().await;
    }
    watch.end().await;
}

/// Calls in one piece, or in as small ones as there can be.
fn large_calls() -> [Vec<Vec<u8>>; 2] {
    const LENGTH: usize = 64 << 10;
    let head = |body: &str| {
        format!("POST /functions/busy HTTP/1.1\r\nHost: localhost\r\n{body}\r\n\r\n").into_bytes()
    };
    let mut whole = head(&format!("Content-Length: {LENGTH}"));
    whole.resize(whole.len() + LENGTH, b' ');
    let mut pieces = vec![b"1\r\n \r\n".to_vec(); 2000];
    pieces.insert(0, head("Transfer-Encoding: chunked"));
    [vec![whole], pieces]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waiting_callers_send_costs_no_memory_and_those_that_leave_are_noticed() {
    /// As many as may wait for one function, nearly; and what each may cost, in KiB.
    const CALLERS: usize = 900;
    const EACH: u64 = 40;
    if !has_docker("e2e large calls that wait") {
        return;
    }
    many_descriptors();
    let server = Start::default().at(&Arc::new(Home::new())).await;
    let code = "module.exports = (context, cb) => setTimeout(() => cb('done'), 100000)";
    let scale = json!({"min": 1, "max": 1, "concurrency": 1});
    let spec = json!({"scale": scale, "timeoutSeconds": 200, "startupTimeoutSeconds": 200});
    server.deploy("busy", node(code, spec)).await;
    let mut running = TcpStream::connect(server.address).await.unwrap();
    let call = "POST /functions/busy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    running.write_all(call.as_bytes()).await.unwrap();
    metric(&server, "faas_calls_in_flight 1").await;
    for call in large_calls() {
        let before = server.memory();
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            let mut caller = TcpStream::connect(server.address).await.unwrap();
            caller.set_nodelay(true).unwrap();
            caller.write_all(&call[0]).await.unwrap();
            callers.push(caller);
        }
        metric(&server, &format!("faas_calls_waiting {CALLERS}")).await;
        // Some say more, a little at a time.
        for caller in callers.iter_mut().rev().take(20) {
            for piece in &call[1..] {
                caller.write_all(piece).await.unwrap();
            }
        }
        let grown = server.memory().saturating_sub(before);
        assert!(grown <= EACH * CALLERS as u64, "{grown} KiB");
        drop(callers);
        metric(&server, "faas_calls_waiting 0").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_heads_that_do_not_end_keep_nobody_waiting() {
    if !has_docker("e2e half heads") {
        return;
    }
    many_descriptors();
    let server = server().await;
    let watch = Watch::begin(&server, "halves").await;
    let callers = half_heads(server.address, 1000).await;
    for path in ["/healthz", "/readyz", "/ping"] {
        let answer = get(server.address, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    watch.is_flat();
    // Half of them say nothing more, the others a byte now and then.
    let given_up = callers.into_iter().enumerate().map(|(number, caller)| {
        let pace = number % 2 * 300;
        timeout(SOON, tokio::spawn(drip(caller, pace as u64)))
    });
    for answer in join_all(given_up).await {
        let answer = answer.expect("it is given up").unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    watch.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_limit_of_connections_callers_are_told_and_health_answers() {
    if !has_docker("e2e too many connections") {
        return;
    }
    many_descriptors();
    let home = Arc::new(Home::new());
    let server = Start::default().with_descriptors(300).at(&home).await;
    wait_until("it is ready", SOON, async || {
        let answer = get(server.address, "/readyz").await;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    let mut kept = TcpStream::connect(server.address).await.unwrap();
    // More than it has descriptors, so that it is beyond every bound at once.
    let callers = half_heads(server.address, 400).await;
    for path in ["/healthz", "/readyz"] {
        for _ in 0..10 {
            let answer = get(server.address, path).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
    }
    let answer = get(server.address, "/ping").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("x-faas-error: Overloaded"), "{answer}");
    assert!(answer.contains("retry-after: "), "{answer}");
    // Who was there before is served.
    let ping = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    kept.write_all(ping).await.unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(callers);
    wait_until("everybody is served again", SOON, async || {
        let answer = get(server.address, "/ping").await;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

#[tokio::test]
async fn logs_that_are_followed_leave_descriptors_for_the_rest() {
    let home = Arc::new(Home::new());
    let start = Start::default().with("--runtime", "process");
    let server = start.with_descriptors(200).at(&home).await;
    let says = "module.exports = (context, cb) => { console.log('called'); cb(1) }";
    for name in ["busy", "late"] {
        server.deploy(name, node(says, json!({}))).await;
    }
    let follow = async |name: &str| {
        let url = server.url(&format!("/functions/{name}/logs?follow=true"));
        client().get(url).send().await.unwrap()
    };
    let mut late = Streaming(follow("late").await);
    server.call("busy", json!({})).await.expect(200);
    let mut followers = Vec::new();
    let refused = loop {
        let log = follow("busy").await;
        if log.status() != 200 {
            break Reply::of(log).await;
        }
        let mut log = Streaming(log);
        log.until("called\n").await;
        followers.push(log);
    };
    assert_eq!(followers.len(), 20, "a tenth of what it may have");
    let refused = refused.refused(503, "Overloaded");
    assert_eq!(refused.header("retry-after"), "1");

    // There is none for an instance that comes now, until somebody leaves.
    server.call("late", json!({})).await.expect(200);
    followers.pop();
    late.until("called\n").await;
}
