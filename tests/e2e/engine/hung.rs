//! A day on which the Docker engine hangs: it takes connections and says nothing, not even that it is away.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{PACE, TOLD, behind, settled, version};
use crate::support::{
    Reply, Server,
    fault::Faulty,
    has_docker, node,
    prober::{Prober, honest},
    wait_until,
};

/// What a call may take, and by how much its 504 may come later where the instance must be gone before.
const LIMIT: Duration = Duration::from_secs(1);
const CONFIRMED: Duration = Duration::from_secs(2);

/// Of `warm`.
fn warm() -> Value {
    json!({"scale": {"min": 2, "max": 2, "concurrency": 8}})
}

/// Those whose calls take too long.
const STUCK: [&str; 3] = ["stuck-1", "stuck-2", "stuck-3"];

/// One that is called all the time, those whose calls take too long, and two at zero.
async fn deploy_all(server: &Server) {
    server.deploy("warm", version("warm", 1, warm())).await;
    let stuck = json!({
        "scale": {"min": 1, "max": 1, "concurrency": 1}, "timeoutSeconds": LIMIT.as_secs(),
    });
    let code = "module.exports = async (c) => c.stay ? new Promise(() => {}) : 'here'";
    for name in STUCK {
        server.deploy(name, node(code, stuck.clone())).await;
    }
    let scale = json!({"min": 0, "idleAfterSeconds": 1});
    for (name, patience) in [("cold", 2), ("patient", 120)] {
        let more = json!({"scale": scale, "startupTimeoutSeconds": patience});
        server.deploy(name, version(name, 1, more)).await;
        settled(server, name, 0).await;
    }
}

/// Everyone who asks hears that the engine does not answer, and soon.
async fn is_told(server: &Server) {
    wait_until("the status knows", TOLD, async || {
        let status = server.get("/status").await.json();
        (status["loop"]["engine"]["reachable"] == false).then_some(())
    })
    .await;
    let message = server.fails("warm", "EngineUnavailable").await;
    assert!(message.contains("no answer to"), "{message}");
    let serves = |c: &Value| c["status"] == "True";
    server.condition("warm", "Serving", serves).await;
    server.get("/readyz").await.expect(503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_hangs_costs_no_call_of_what_runs_and_is_told() {
    if !has_docker("e2e engine hangs") {
        return;
    }
    let engine = Faulty::new();
    let server = behind(&engine).await;
    deploy_all(&server).await;
    let mut prober = Prober::start(&server, "warm", PACE, 20).await;
    prober.goes_on(40).await;

    engine.hang();
    // Its container is asked for before anybody knows, and made when the engine goes on.
    let patient = server.request(Method::POST, "/functions/patient");
    let patient = tokio::spawn(patient.json(&json!({})).send());
    is_told(&server).await;
    let refused = server.call("cold", json!({})).await;
    let refused = refused.refused(503, "NoInstance");
    assert!(refused.text.contains("does not answer"), "{}", refused.text);
    let mut took = Duration::MAX;
    for name in STUCK {
        let began = Instant::now();
        let late = server.call(name, json!({"stay": true})).await;
        late.refused(504, "InstanceNotStopped");
        took = took.min(began.elapsed());
    }
    // The best of them, and with as much again for a busy machine: what waits for the engine's own deadlines comes after
    // ten seconds and more.
    assert!(took < LIMIT + CONFIRMED * 2, "{took:?}");

    // What is wanted meanwhile is there in the end.
    server.apply("warm", version("warm", 2, warm())).await;
    server
        .apply("new", node(&honest("new", 1), json!({})))
        .await;
    prober.goes_on(200).await;
    engine.go_on();
    for name in STUCK.into_iter().chain(["warm", "new"]) {
        server.ready(name).await;
    }
    prober.listen_again(&server).await;
    let answer = Reply::of(patient.await.unwrap().unwrap()).await;
    assert_eq!(answer.response()["name"], "patient");
    for name in STUCK {
        assert_eq!(server.call(name, json!({})).await.response(), "here");
        settled(&server, name, 1).await;
    }
    for name in ["cold", "new"] {
        server.call(name, json!({})).await.expect(200);
    }
    settled(&server, "warm", 2).await;
    for name in ["cold", "patient"] {
        settled(&server, name, 0).await;
    }
    let ledger = prober.stop().await;
    ledger.check(|_| false);
    assert_eq!(ledger.versions(), [1, 2], "{}", ledger.summary());
}
