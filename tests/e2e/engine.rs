//! Days on which the Docker engine is away, slow or wrong, and what is promised on them.

mod full;
mod hung;
mod leftovers;
mod restarted;
mod slow;

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Home, SOON, Server, Start, Streaming, client, docker,
    fault::{ALWAYS, Fault, Faulty},
    fresh, has_docker, node,
    prober::{Outcome, Prober, honest},
    wait_until,
};

/// Time between two calls of a function.
const PACE: Duration = Duration::from_millis(25);
/// Until a status says what is so.
const TOLD: Duration = Duration::from_secs(10);

/// A server behind an engine of its own.
async fn behind(engine: &Faulty) -> Server {
    let home = Arc::new(Home::new());
    Start::default().engine(engine.address()).at(&home).await
}

fn version(name: &str, version: u64, more: Value) -> Value {
    node(&honest(name, version), more)
}

/// Waits until the containers that exist are the instances that a Function should have, and those that it tells of.
async fn settled(server: &Server, name: &str, instances: usize) {
    wait_until("containers and instances are the same", SOON, async || {
        let mut containers = server.home.containers();
        containers.retain(|container| container.starts_with(&format!("faas-{name}-")));
        containers.sort();
        let mut ready = server.instances(name, "ready").await;
        ready.sort();
        let all = server.status(name).await["instances"]
            .as_array()
            .map(Vec::len);
        (containers == ready && ready.len() == instances && all == Some(instances)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_away_costs_no_call_of_what_runs() {
    if !has_docker("e2e engine away") {
        return;
    }
    let engine = Faulty::new();
    let server = behind(&engine).await;
    let warm = json!({"scale": {"min": 2, "max": 3, "concurrency": 8}});
    server.deploy("warm", version("warm", 1, warm)).await;
    let scale = json!({"min": 0, "idleAfterSeconds": 1});
    for (name, patience) in [("cold", 2), ("patient", 60)] {
        let more = json!({"scale": scale, "startupTimeoutSeconds": patience});
        server.deploy(name, version(name, 1, more)).await;
        settled(&server, name, 0).await;
    }
    let before = server.instances("warm", "ready").await;
    let mut prober = Prober::start(&server, "warm", PACE, 20).await;
    prober.goes_on(40).await;

    engine.stop();
    wait_until("the status knows", TOLD, async || {
        let status = server.get("/status").await.json();
        (status["loop"]["engine"]["reachable"] == false).then_some(())
    })
    .await;
    let reason = server.get("/readyz").await.expect(503).text;
    assert!(
        reason.contains("the Docker engine does not answer"),
        "{reason}"
    );
    server.fails("warm", "EngineUnavailable").await;
    server
        .condition("warm", "Serving", |c| c["status"] == "True")
        .await;
    let patient = tokio::spawn({
        let call = server.request(reqwest::Method::POST, "/functions/patient");
        call.json(&json!({})).send()
    });
    let refused = server.call("cold", json!({})).await;
    let refused = refused.refused(503, "NoInstance");
    assert!(
        refused.text.contains("the Docker engine does not answer"),
        "{}",
        refused.text
    );
    // As long as an engine may take to be updated.
    prober.goes_on(500).await;

    engine.begin();
    server.ready("warm").await;
    prober.listen_again(&server).await;
    server.get("/readyz").await.expect(200);
    let answer = crate::support::Reply::of(patient.await.unwrap().unwrap()).await;
    assert_eq!(answer.response()["name"], "patient");
    assert_eq!(
        server.call("cold", json!({})).await.response()["version"],
        1
    );
    prober.goes_on(40).await;
    settled(&server, "warm", 2).await;
    assert_eq!(server.instances("warm", "ready").await, before);
    prober.stop().await.check(|_| false);
}

/// What was asked for is done, though its answer is lost: nothing is done twice, and nothing stays behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_leaves_the_same_behind() {
    if !has_docker("e2e lost answers") {
        return;
    }
    let engine = Faulty::new();
    let server = behind(&engine).await;
    let warm = || json!({"scale": {"min": 1, "max": 1, "concurrency": 8}});
    server.deploy("same", version("same", 1, warm())).await;
    let prober = Prober::start(&server, "same", PACE, 20).await;
    let lost = [
        ("POST", "/containers/create"),
        ("POST", "/start"),
        ("POST", "/stop"),
        ("DELETE", "/containers/"),
    ];
    for (hits, (number, (method, path))) in (1..).zip((2..).zip(lost)) {
        engine.on(method, path, 1, Fault::LoseAnswer);
        server.deploy("same", version("same", number, warm())).await;
        settled(&server, "same", 1).await;
        assert_eq!(engine.hits(), hits, "{method} {path}");
    }
    prober.stop().await.check(|_| false);

    engine.on("POST", "/kill", 1, Fault::LoseAnswer);
    let before = server.instances("same", "ready").await;
    docker(&["kill", &before[0]]);
    wait_until("another takes its place", SOON, async || {
        let after = server.instances("same", "ready").await;
        (after != before && !after.is_empty()).then_some(())
    })
    .await;
    settled(&server, "same", 1).await;
    assert_eq!(engine.hits(), lost.len() + 1);
}

/// An engine that refuses for a while is no fault of the revision: it is tried again until it comes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_fails_for_a_while_is_quoted_and_tried_again() {
    if !has_docker("e2e engine fails") {
        return;
    }
    let engine = Faulty::new();
    let server = behind(&engine).await;
    let warm = || json!({"scale": {"min": 1, "max": 1, "concurrency": 8}});
    server.deploy("tried", version("tried", 1, warm())).await;
    let prober = Prober::start(&server, "tried", PACE, 20).await;
    for (number, path) in [(2, "/containers/create"), (3, "/start")] {
        let words = json!({"message": "layers are on strike"}).to_string();
        engine.on("POST", path, ALWAYS, Fault::Answer(500, words));
        server
            .apply("tried", version("tried", number, warm()))
            .await;
        let message = server.fails("tried", "EngineUnavailable").await;
        assert!(message.contains("layers are on strike"), "{message}");
        // As often as a revision is tried that fails by itself.
        wait_until("it is tried again and again", SOON, async || {
            let status = server.status("tried").await;
            (status["failures"][0]["attempts"].as_u64() >= Some(3)).then_some(())
        })
        .await;
        let goes_on = |c: &Value| c["status"] == "True";
        server.condition("tried", "Reconciling", goes_on).await;
        server.condition("tried", "Serving", goes_on).await;
        engine.heal();
        server.ready("tried").await;
        settled(&server, "tried", 1).await;
    }
    let ledger = prober.stop().await;
    ledger.check(|_| false);
    assert_eq!(ledger.versions(), [1, 2, 3], "{}", ledger.summary());
}

/// Whose words the engine does not tell at first is asked again, and tells them once; or with its end, if that comes before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_of_an_instance_is_told_later_or_with_its_end() {
    if !has_docker("e2e log refused") {
        return;
    }
    let engine = Faulty::new();
    let server = behind(&engine).await;
    let warm = || json!({"scale": {"min": 1, "max": 1, "concurrency": 8}});
    let words = || Fault::Answer(409, json!({"message": "not now"}).to_string());
    for (name, times, end) in [("later", 2, "\n"), ("ended", ALWAYS, " was ended]\n")] {
        server.deploy(name, version(name, 1, warm())).await;
        server
            .call(name, json!({"id": 7, "ms": 0}))
            .await
            .expect(200);
        let before = engine.hits();
        engine.on("GET", "/logs?follow=true", times, words());
        let url = server.url(&format!("/functions/{name}/logs?follow=true"));
        let mut log = Streaming(client().get(url).send().await.unwrap());
        wait_until("the engine refused", SOON, async || {
            (engine.hits() > before).then_some(())
        })
        .await;
        if times == ALWAYS {
            server.deploy(name, version(name, 2, warm())).await;
        }
        let said = log.until(end).await;
        assert_eq!(said.matches("did 7 ").count(), 1, "{said}");
    }
}

/// Waits until an instance is ready that was not there before.
async fn replaced(server: &Server, name: &str, before: &str) {
    wait_until("another takes its place", SOON, async || {
        let ready = server.instances(name, "ready").await;
        (!ready.is_empty() && !ready.iter().any(|id| id == before)).then_some(())
    })
    .await;
}

/// Waits until the status says that an instance is not what it was.
async fn noticed(server: &Server, name: &str, instance: &str) {
    wait_until("the status knows", TOLD, async || {
        let ready = server.instances(name, "ready").await;
        (!ready.iter().any(|id| id == instance)).then_some(())
    })
    .await;
}

/// Nobody can answer calls whose instance is taken away; every other call is answered, and none is executed twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_to_containers_behind_our_back_is_mended() {
    if !has_docker("e2e behind our back") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    let scale = json!({"min": 1, "max": 1, "concurrency": 8});
    let more_fields = json!({"scale": scale});
    server
        .deploy("hit", version("hit", 1, more_fields.clone()))
        .await;
    let prober = Prober::start(&server, "hit", PACE, 5).await;
    for command in [&["rm", "--force"][..], &["stop"], &["pause"]] {
        let before = server.instances("hit", "ready").await.remove(0);
        prober.goes_on(20).await;
        docker(&[command, &[before.as_str()]].concat());
        noticed(&server, "hit", &before).await;
        replaced(&server, "hit", &before).await;
        prober.goes_on(20).await;
    }
    let taken = Outcome::Refused(502, "InstanceLost".to_owned());
    let ledger = prober.stop_after_losses().await;
    ledger.check_but(|call| call.outcome == taken);
    settled(&server, "hit", 1).await;

    let renamed = server.instances("hit", "ready").await.remove(0);
    docker(&["rename", &renamed, &format!("{renamed}-by-somebody")]);
    server.deploy("hit", version("hit", 2, more_fields)).await;
    wait_until("what has another name goes too", SOON, async || {
        (home.containers() == server.instances("hit", "ready").await).then_some(())
    })
    .await;

    let image = server.object("hit").await.unwrap()["status"]["image"].clone();
    let before = server.instances("hit", "ready").await.remove(0);
    docker(&["rm", "--force", &before]);
    docker(&["rmi", "--force", image.as_str().unwrap()]);
    assert_eq!(server.call("hit", json!({})).await.response()["version"], 2);
}

/// Who looks into an instance by a copy has a container with all its labels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_runs_of_a_committed_instance_is_left_alone() {
    if !has_docker("e2e committed instance") {
        return;
    }
    let home = Arc::new(Home::new());
    let server = Start::default().at(&home).await;
    let more_fields = json!({"scale": {"min": 1, "max": 1}});
    for name in ["looked-at", "killed"] {
        server
            .deploy(name, version(name, 1, more_fields.clone()))
            .await;
    }
    let instance = server.instances("looked-at", "ready").await.remove(0);
    let copy = format!("copy-{}", fresh());
    docker(&["commit", "--pause=false", &instance, &copy]);
    let run = |name: &str, how: &str, program: &str| {
        let name = format!("{copy}-{name}");
        let head = ["run", how, "--name", &name, "--network=none", "--user=0"];
        let tail = ["--entrypoint=node", &copy, "-e", program];
        docker(&[&head[..], &tail].concat());
        let is_there = docker(&["inspect", "--format", "{{.Config.Labels}}", &name]);
        assert!(is_there.contains(&instance), "{is_there}");
        name
    };
    let ended = run("ended", "--tty=false", "0");
    let running = run("running", "--detach", "setInterval(() => {}, 1000)");
    // The engine tells of this end after that one.
    let killed = server.instances("killed", "ready").await.remove(0);
    docker(&["kill", &killed]);
    replaced(&server, "killed", &killed).await;
    assert_eq!(
        server.instances("looked-at", "ready").await,
        std::slice::from_ref(&instance)
    );
    let status = server.status("looked-at").await;
    assert_eq!(status["lastError"], json!(null), "{status:#}");

    server.signal(Signal::KILL);
    server.end().await;
    drop(server);
    let server = Start::default().at(&home).await;
    server.ready("looked-at").await;
    assert_eq!(
        server.instances("looked-at", "ready").await,
        std::slice::from_ref(&instance)
    );
    server.delete("/functions/looked-at").await.expect(202);
    wait_until("the function is gone", SOON, async || {
        server.object("looked-at").await.is_none().then_some(())
    })
    .await;
    for name in [&ended, &running] {
        let state = docker(&["inspect", "--format", "{{.State.Status}}", name]);
        let expected = if *name == running {
            "running"
        } else {
            "exited"
        };
        assert_eq!(state, expected, "{name}");
        docker(&["rm", "--force", name]);
    }
    docker(&["rmi", &copy]);
}
