//! Changes under load, call by call: none lost, none executed twice, none answered by another function or an older version
//! than the one that had answered before.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};

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

/// Each function is called about as often as it becomes idle, so that calls meet instances on their way out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_zero_and_back_loses_no_call() {
    if !has_docker("e2e ledger of scaling to zero") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    let busy = json!({"scale": {"min": 0, "max": 3, "concurrency": 4, "idleAfterSeconds": 1}});
    let names: Vec<_> = (0..4).map(|number| format!("rare-{number}")).collect();
    for name in names.iter().map(String::as_str).chain(["busy"]) {
        server.apply(name, version(name, 1, busy.clone())).await;
    }
    for name in names.iter().map(String::as_str).chain(["busy"]) {
        server.ready(name).await;
    }
    let mut rare = JoinSet::new();
    for (number, name) in names.into_iter().enumerate() {
        let pace = Duration::from_millis(990 + 20 * number as u64);
        let prober = Prober::start(&server, &name, pace, 0).await;
        rare.spawn(async move { prober });
    }
    let prober = Prober::start(&server, "busy", PACE, 20).await;
    until_enough(&prober, CALLS).await;
    prober.stop().await.check(|_| false);
    for prober in rare.join_all().await {
        prober.stop().await.check(|_| false);
    }
    let idle = async || {
        let instances = server.status("busy").await["instances"]
            .as_array()
            .map(Vec::len);
        (instances == Some(0)).then_some(())
    };
    wait_until("it goes to zero", SOON, idle).await;
    let answer = server.call("busy", json!({"id": 0})).await.response();
    assert_eq!(answer["version"], 1, "and comes back");
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
    until_enough(&prober, 200).await;
    let before = prober.sent();
    server.delete("/functions/doomed").await;
    until_enough(&prober, before + 100).await;
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
    let mut ledgers = Vec::new();
    let mut server = server;
    for _ in 0..3 {
        let prober = Prober::start(&server, "paused", PACE, 50).await;
        until_enough(&prober, 300).await;
        server.signal(Signal::INT);
        assert!(server.end().await.success());
        let before = prober.sent();
        until_enough(&prober, before + 50).await;
        ledgers.push(prober.stop().await);
        let start = Start::default().with("--listen", address.to_string());
        server = start.at(&home).await;
    }
    for ledger in ledgers {
        ledger.check(|call| call.outcome == Outcome::Unreachable);
    }
}
