//! Days on which the Docker engine itself, the real one, is stopped and begins again: with its containers kept (live
//! restore), and with them stopped, as an engine does unless told otherwise.

use serde_json::json;

use super::{PACE, TOLD, version};
use crate::support::{
    SOON, Server,
    own_engine::OwnEngine,
    prober::{Call, Outcome, Prober},
    wait_until,
};

/// One function that is called all the time, on two instances.
async fn deploy(server: &Server) -> Prober {
    let warm = json!({"scale": {"min": 2, "max": 2, "concurrency": 8}});
    server.deploy("warm", version("warm", 1, warm)).await;
    let prober = Prober::start(server, "warm", PACE, 20).await;
    prober.goes_on(40).await;
    prober
}

async fn is_told(server: &Server) {
    wait_until("the status knows", TOLD, async || {
        let status = server.get("/status").await.json();
        (status["loop"]["engine"]["reachable"] == false).then_some(())
    })
    .await;
    server.fails("warm", "EngineUnavailable").await;
}

/// Waits until the engine's containers are two instances, and those that the status tells of. Names them.
async fn settled(server: &Server, engine: &OwnEngine) -> Vec<String> {
    wait_until("containers and instances are the same", SOON, async || {
        let mut containers = engine.containers();
        containers.sort();
        let mut ready = server.instances("warm", "ready").await;
        ready.sort();
        (containers == ready && ready.len() == 2).then_some(ready)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_away_for_a_minute_and_keeps_its_containers_costs_no_call() {
    let Some(mut engine) = OwnEngine::with(&["--live-restore"], "e2e engine restarted, live").await
    else {
        return;
    };
    let server = engine.server().await;
    let mut prober = deploy(&server).await;
    let before = settled(&server, &engine).await;

    engine.stop();
    is_told(&server).await;
    // A minute of calls.
    prober.goes_on(2400).await;
    engine.begin().await;
    server.ready("warm").await;
    prober.listen_again(&server).await;
    prober.goes_on(40).await;
    assert_eq!(settled(&server, &engine).await, before);
    prober.stop().await.check(|_| false);
    engine.ends(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_stops_its_containers_gets_new_ones_when_it_is_back() {
    let Some(mut engine) = OwnEngine::with(&[], "e2e engine restarted").await else {
        return;
    };
    let server = engine.server().await;
    let mut prober = deploy(&server).await;
    let before = settled(&server, &engine).await;

    engine.stop();
    is_told(&server).await;
    prober.goes_on(40).await;
    engine.begin().await;
    server.ready("warm").await;
    prober.listen_again(&server).await;
    prober.goes_on(40).await;
    let after = settled(&server, &engine).await;
    assert!(after.iter().all(|id| !before.contains(id)), "{after:?}");
    assert_eq!(
        server.call("warm", json!({})).await.response()["version"],
        1
    );
    // Calls that ran ended with their instances; later ones waited, as long as their patience went.
    let fair = |call: &Call| match &call.outcome {
        Outcome::Refused(502, code) => code == "InstanceLost",
        Outcome::Refused(503, code) => code == "NoInstance",
        Outcome::Refused(429, code) => code == "QueueFull",
        _ => false,
    };
    prober.stop_after_losses().await.check_but(fair);
    engine.ends(server).await;
}
