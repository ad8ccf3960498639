//! Changes under load, call by call: none lost, none executed twice, none answered by another function or an older version
//! than the one that had answered before.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{
    Home, SOON, Start, has_docker, node,
    prober::{Outcome, Prober, honest},
    wait_until,
};

/// Calls that a ledger has at least.
const CALLS: usize = 2000;
/// Time between two calls of a function.
const PACE: Duration = Duration::from_millis(12);

/// Callers have patience: on a machine that other tests keep busy, a queue may grow for a while, and is not what is looked at.
fn version(name: &str, version: u64, more: Value) -> Value {
    let mut spec = node(&honest(name, version), more);
    spec["startupTimeoutSeconds"] = json!(120);
    spec
}

/// Calls until enough calls were sent.
async fn until_enough(prober: &Prober, share: usize) {
    wait_until("there are enough calls", SOON * 2, async || {
        (prober.sent() >= share).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_over_loses_no_call() {
    if !has_docker("e2e ledger of a roll-over") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    let scale = json!({"scale": {"min": 1, "max": 3, "concurrency": 8}});
    server
        .deploy("moved", version("moved", 1, scale.clone()))
        .await;
    let prober = Prober::start(&server, "moved", PACE, 20).await;
    let kept = tokio::spawn(one_connection(server.address, "moved"));
    for (number, share) in [(2, CALLS / 3), (3, CALLS * 2 / 3), (4, CALLS)] {
        until_enough(&prober, share).await;
        server
            .deploy("moved", version("moved", number, scale.clone()))
            .await;
        wait_until("the new version answers", SOON, async || {
            let answer = server.call("moved", json!({"ms": 0})).await.response();
            (answer["version"] == number).then_some(())
        })
        .await;
    }
    kept.abort();
    assert!(
        kept.await.unwrap_err().is_cancelled(),
        "a kept connection lives on"
    );
    let ledger = prober.stop().await;
    ledger.check(|_| false);
    assert_eq!(ledger.versions(), [1, 2, 3, 4], "{}", ledger.summary());
}

/// Calls again and again on one connection, and panics when it ends.
async fn one_connection(address: std::net::SocketAddr, name: &'static str) {
    let stream = TcpStream::connect(address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    loop {
        let request = hyper::Request::post(format!("/functions/{name}"))
            .header("host", "localhost")
            .body(String::from("{}"))
            .unwrap();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap();
    }
}

/// Each function gets its calls about when it becomes idle, so that they meet instances on their way out, or none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_zero_and_back_loses_no_call() {
    if !has_docker("e2e ledger of scaling to zero") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    let scale = json!({"scale": {"min": 0, "max": 1, "concurrency": 16, "idleAfterSeconds": 1}});
    let names = [0, 1, 2, 3].map(|number| format!("rare-{number}"));
    for name in &names {
        server.apply(name, version(name, 1, scale.clone())).await;
    }
    let mut probers = Vec::new();
    for (pace, name) in [1050, 1150, 1400, 1700].into_iter().zip(&names) {
        server.ready(name).await;
        let pace = Duration::from_millis(pace);
        probers.push(Prober::bursts(&server, name, pace, 16).await);
    }
    for prober in &probers {
        until_enough(prober, CALLS / names.len()).await;
    }
    let mut ends = 0;
    for prober in probers {
        let ledger = prober.stop().await;
        ledger.check(|_| false);
        ends += ledger.ends;
    }
    assert!(ends >= 20, "they were at zero {ends} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_function_answers_what_it_has_begun() {
    if !has_docker("e2e ledger of a deletion") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    let scale = json!({"scale": {"min": 1, "max": 2, "concurrency": 100}});
    server.deploy("doomed", version("doomed", 1, scale)).await;
    let prober = Prober::start(&server, "doomed", PACE, 500).await;
    until_enough(&prober, CALLS / 2).await;
    let before = prober.sent();
    server.delete("/functions/doomed").await;
    until_enough(&prober, before + CALLS / 2).await;
    let ledger = prober.stop().await;
    let gone = Outcome::Refused(400, "NotFound".to_owned());
    let first = ledger.calls.iter().position(|call| call.outcome == gone);
    assert!(
        first.is_some_and(|number| number >= before),
        "{}",
        ledger.summary()
    );
    ledger.check(|call| call.outcome == gone);
}

/// What is sent while nobody listens is not lost: no byte of it was taken, and its caller knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_and_start_loses_no_call() {
    if !has_docker("e2e ledger of a stop") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    let scale = json!({"scale": {"min": 1, "max": 3, "concurrency": 8}});
    server.deploy("paused", version("paused", 1, scale)).await;
    let address = server.address;
    let mut server = server;
    let mut prober = Prober::start(&server, "paused", PACE, 50).await;
    for turn in 1..=3 {
        until_enough(&prober, turn * CALLS / 4).await;
        server.signal(Signal::INT);
        assert!(server.end().await.success());
        drop(server);
        let start = Start::default().with("--listen", address.to_string());
        server = start.at(&home).await;
        prober.listen_again(&server).await;
    }
    until_enough(&prober, CALLS).await;
    let ledger = prober.stop_after_losses().await;
    ledger.check(|call| call.outcome == Outcome::Unreachable);
}
