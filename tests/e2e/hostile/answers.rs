//! Answers that come slowly, in pieces, without an end, too early, or are none.

use std::{sync::Arc, time::SystemTime};

use futures::future::join_all;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{FLAT, Watch, ask, recovers, rogue, server};
use crate::support::{
    Home, Reply, SOON, Server, Start, Streaming, client, exchange, has_docker, wait_until,
};

/// What large answers may take for a while, in KiB; a third of what these would.
const MOST: u64 = 900 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_slow_halves_or_none_end_in_their_time() {
    if !has_docker("e2e poor answers") {
        return;
    }
    let server = server().await;
    server.deploy("poor", rogue(json!({}))).await;
    let watch = Watch::begin(&server, "poor").await;
    assert_eq!(ask(&server, "poor", "slow").await.expect(200).text, "slow");
    for (deed, status, code) in [
        ("crawl", 504, "Timeout"),
        ("halfhead", 504, "Timeout"),
        ("cuthead", 502, "InstanceLost"),
        ("garbage", 502, "BadResponse"),
        ("badchunk", 502, "BadResponse"),
        ("heads", 502, "BadResponse"),
    ] {
        let reply = ask(&server, "poor", deed).await;
        assert_eq!(reply.header("x-faas-error"), code, "{deed}: {reply:?}");
        reply.refused(status, code);
        recovers(&server, "poor").await;
        let reply = server.call("poor", json!({"do": deed})).await;
        reply.refused(status, code);
        recovers(&server, "poor").await;
        watch.is_flat();
    }
    watch.end().await;
    server.delete("/functions/poor").await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_does_not_read_or_close_holds_nobody_up() {
    if !has_docker("e2e deaf instances") {
        return;
    }
    let server = server().await;
    server.deploy("deaf", rogue(json!({}))).await;
    let watch = Watch::begin(&server, "deaf").await;
    let post = async |deed: &str, length: usize| {
        let request = server.request(Method::POST, &format!("/function/deaf/{deed}"));
        Reply::of(request.body(vec![b' '; length]).send().await.unwrap()).await
    };
    for _ in 0..20 {
        assert_eq!(ask(&server, "deaf", "open").await.expect(200).text, "open");
    }
    // Answered before the request was read.
    for deed in ["early", "earlyclose"] {
        for _ in 0..10 {
            assert_eq!(
                post(deed, 1 << 20).await.expect(200).text,
                "early",
                "{deed}"
            );
        }
    }
    post("deaf", 32 << 20).await.refused(504, "Timeout");
    recovers(&server, "deaf").await;
    watch.end().await;
    server.delete("/functions/deaf").await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_an_end_costs_no_memory() {
    if !has_docker("e2e endless answers") {
        return;
    }
    let server = server().await;
    server
        .deploy("endless", rogue(json!({"timeoutSeconds": 5})))
        .await;
    let watch = Watch::begin(&server, "endless").await;
    for _ in 0..3 {
        let reply = server.call("endless", json!({"do": "endless"})).await;
        reply.refused(502, "ResponseTooLarge");
    }
    watch.is_flat();

    let mut callers = Vec::new();
    for _ in 0..3 {
        // From then on they read no more, and stay.
        callers.push(reads(&server, "endless", 100 << 20).await);
    }
    watch.is_flat();
    wait_until("nobody's call runs any more", SOON, async || {
        let status = server.status("endless").await;
        let instances = status["instances"].as_array().unwrap();
        instances.iter().all(|i| i["inFlight"] == 0).then_some(())
    })
    .await;
    recovers(&server, "endless").await;
    server
        .deploy("longer", rogue(json!({"timeoutSeconds": 600})))
        .await;
    drop(reads(&server, "longer", 10 << 30).await);
    watch.is_flat();
    watch.end().await;
    for name in ["endless", "longer"] {
        server
            .delete(&format!("/functions/{name}"))
            .await
            .expect(202);
    }
}

/// A caller that has read so much of an answer without an end.
async fn reads(server: &Server, name: &str, bytes: usize) -> TcpStream {
    let mut caller = TcpStream::connect(server.address).await.unwrap();
    let request = format!("GET /function/{name}/endless HTTP/1.1\r\nHost: localhost\r\n\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
    let (mut read, mut piece) = (0, vec![0; 1 << 20]);
    while read < bytes {
        let length = caller.read(&mut piece).await.unwrap();
        assert!(length > 0, "ended after {read} bytes");
        read += length;
    }
    caller
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_504_nothing_is_done_any_more() {
    if !has_docker("e2e work after a timeout") {
        return;
    }
    let server = server().await;
    let more = json!({"timeoutSeconds": 1, "scale": {"concurrency": 1}});
    server.deploy("counts", rogue(more)).await;
    let watch = Watch::begin(&server, "counts").await;
    let url = server.url("/functions/counts/logs?follow=true");
    let mut log = Streaming(client().get(url).send().await.unwrap());
    let owes =
        "POST /function/counts/count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{";
    for round in 0..3 {
        let (told, code) = match round {
            0 => (ask(&server, "counts", "count").await.text, "Timeout"),
            1 => {
                let call = server.call("counts", json!({"do": "count"}));
                (call.await.text, "Timeout")
            }
            _ => (exchange(server.address, owes).await, "BodyTimeout"),
        };
        let answered = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_millis();
        assert!(told.contains(&format!(r#""code":"{code}""#)), "{told}");
        // Another instance starts meanwhile: time for the first one to go on, if it did.
        let marked = ask(&server, "counts", "mark").await.expect(200);
        assert_eq!(marked.text, "marked");
        let text = log.until("mark\n").await;
        let times = text.lines().filter_map(|line| line.strip_prefix("at "));
        let times: Vec<u128> = times.map(|time| time.parse().unwrap()).collect();
        assert!(times.len() > 10, "it did something: {text}");
        assert!(times.iter().all(|time| *time <= answered), "{text}");
    }
    watch.end().await;
    server.delete("/functions/counts").await.expect(202);
}

/// A caller of a large answer, who takes nothing of it.
async fn unread(server: &Server, name: &str) -> TcpStream {
    let mut caller = TcpStream::connect(server.address).await.unwrap();
    let body = json!({"do": "controls"}).to_string();
    let request = format!(
        "POST /functions/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    caller.write_all(request.as_bytes()).await.unwrap();
    caller
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_that_fail_or_that_nobody_takes_cost_bounded_memory_and_time() {
    if !has_docker("e2e large answers") {
        return;
    }
    let server = Arc::new(Start::default().at(&Arc::new(Home::new())).await);
    let spec = json!({"timeoutSeconds": 20, "scale": {"max": 1}});
    server.deploy("large", rogue(spec)).await;
    let watch = Watch::begin(&server, "large").await;
    let fail = || server.call("large", json!({"do": "fails"}));
    for reply in join_all([fail(), fail(), fail(), fail()]).await {
        reply.refused(400, "FunctionFailed");
    }
    let mut callers = Vec::new();
    for _ in 0..24 {
        callers.push(unread(&server, "large").await);
    }
    // Of 72 MiB each, and all of them were taken or refused.
    wait_until("nobody's call runs any more", SOON, async || {
        assert!(
            server.memory() < watch.memory + MOST,
            "{} KiB",
            server.memory()
        );
        let status = server.status("large").await;
        let instances = status["instances"].as_array().unwrap();
        instances.iter().all(|i| i["inFlight"] == 0).then_some(())
    })
    .await;
    // The callers are still there.
    wait_until("the memory is what it was", SOON, async || {
        (server.memory() < watch.memory + FLAT).then_some(())
    })
    .await;
    recovers(&server, "large").await;
    watch.end().await;
    server.delete("/functions/large").await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_nobody_who_takes_or_sends_nothing() {
    if !has_docker("e2e stop beside idle callers") {
        return;
    }
    let server = Start::default().at(&Arc::new(Home::new())).await;
    server.deploy("large", rogue(json!({}))).await;
    let _unread = unread(&server, "large").await;
    let mut half = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /functions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 80000000\r\n\r\n";
    half.write_all(head.as_bytes()).await.unwrap();
    half.write_all(b"{\"name\":\"").await.unwrap();
    wait_until("the answer is there", SOON, async || {
        let metrics = server.get("/metrics").await.expect(200).text;
        metrics
            .contains("faas_calls_total{code=\"200\"} 1\n")
            .then_some(())
    })
    .await;
    server.signal(Signal::TERM);
    assert!(server.end().await.success(), "{}", server.said());
}
