//! Days on which the Docker engine is slow, breaks off builds, or tells no events.

use std::time::Duration;

use serde_json::{Value, json};

use super::{PACE, behind, replaced, settled, version};
use crate::support::{
    docker,
    fault::{ALWAYS, Fault, Faulty},
    has_docker, node,
    prober::{Prober, honest},
    upload::{tar_of, upload},
};

fn warm() -> Value {
    json!({"scale": {"min": 1, "max": 1, "concurrency": 8}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_engine_costs_no_call_and_holds_no_504_back() {
    if !has_docker("e2e slow engine") {
        return;
    }
    let engine = Faulty::new();
    let server = behind(&engine).await;
    server.deploy("moved", version("moved", 1, warm())).await;
    let single = json!({"scale": {"min": 1, "max": 2, "concurrency": 1}, "timeoutSeconds": 1});
    let code = "module.exports = async (c) => c.stay ? new Promise(() => {}) : 'here'";
    server.deploy("stuck", node(code, single)).await;
    let prober = Prober::start(&server, "moved", PACE, 20).await;
    let late = Fault::Delay(Duration::from_secs(2));
    engine.on("", "", ALWAYS, late);
    let ((), stuck) = tokio::join!(
        server.deploy("moved", version("moved", 2, warm())),
        server.call("stuck", json!({"stay": true})),
    );
    stuck.refused(504, "InstanceNotStopped");
    assert_eq!(server.call("stuck", json!({})).await.response(), "here");
    prober.goes_on(20).await;
    engine.heal();
    settled(&server, "moved", 1).await;
    settled(&server, "stuck", 1).await;
    let ledger = prober.stop().await;
    ledger.check(|_| false);
    assert_eq!(ledger.versions(), [1, 2], "{}", ledger.summary());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_is_interrupted_says_so_and_is_tried_again() {
    if !has_docker("e2e interrupted builds") {
        return;
    }
    let engine = Faulty::new();
    let server = behind(&engine).await;
    server.deploy("built", version("built", 1, warm())).await;
    let prober = Prober::start(&server, "built", PACE, 20).await;
    let endless = "{\"stream\":\"Step 1/9 : FROM nothing\\n\"}\r\n".to_owned();
    let faults = [
        Fault::CutAfter("Step 2/"),
        Fault::Garble,
        Fault::Answer(200, endless),
    ];
    for (number, fault) in (2..).zip(faults) {
        engine.on("POST", "/build?", 1, fault.clone());
        server
            .apply("built", version("built", number, warm()))
            .await;
        let message = server.fails("built", "BuildInterrupted").await;
        assert!(
            message.starts_with("the build was interrupted: "),
            "{message}"
        );
        let serves = |c: &Value| c["status"] == "True";
        server.condition("built", "Serving", serves).await;
        server.ready("built").await;
    }
    settled(&server, "built", 1).await;
    let ledger = prober.stop().await;
    ledger.check(|_| false);
    assert_eq!(ledger.versions(), [1, 2, 3, 4], "{}", ledger.summary());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_breaks_off_after_the_image_is_made_fails_no_build() {
    if !has_docker("e2e reports cut off at their end") {
        return;
    }
    let engine = Faulty::new();
    let server = behind(&engine).await;
    engine.on("POST", "/build?", 1, Fault::CutAfter("Successfully tagged"));
    let tar = tar_of(&[("index.js", &honest("made", 1)), ("package.json", "{}")]);
    let reply = server.post("/functions", &upload("made", &tar)).await;
    reply.expect(200);
    assert_eq!(engine.hits(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_dies_while_no_events_come_is_missed_and_replaced() {
    if !has_docker("e2e events lost") {
        return;
    }
    let engine = Faulty::new();
    let server = behind(&engine).await;
    server.deploy("missed", version("missed", 1, warm())).await;
    let words = json!({"message": "no events today"}).to_string();
    engine.on("GET", "/events", ALWAYS, Fault::Answer(500, words));
    engine.cut("/events");
    let before = server.instances("missed", "ready").await.remove(0);
    docker(&["kill", &before]);
    replaced(&server, "missed", &before).await;
    settled(&server, "missed", 1).await;

    // Asking for events again and again would be a load of its own.
    let prober = Prober::start(&server, "missed", PACE, 0).await;
    let (hits, sent) = (engine.hits(), prober.sent());
    prober.goes_on(100).await;
    let (hits, sent) = (engine.hits() - hits, prober.sent() - sent);
    assert!(
        hits < sent / 10,
        "{hits} questions in the time of {sent} calls"
    );
    prober.stop().await.check(|_| false);
}
