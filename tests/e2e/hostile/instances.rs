//! Instances that end, freeze, fill what they have, or put something else where their socket was.

use std::time::Duration;

use serde_json::json;

use super::{FLAT, Watch, ask, recovers, rogue, server};
use crate::support::{SOON, Server, client, docker, has_docker, own_engine::OwnEngine, wait_until};

/// Between two looks at what may grow fast.
const LOOK: Duration = Duration::from_millis(100);

/// An instance that is in the middle of a call.
async fn busy(server: &Server, name: &str) -> String {
    wait_until("a call runs", SOON, async || {
        let status = server.status(name).await;
        let mut instances = status["instances"].as_array()?.iter();
        let busy = instances.find(|i| i["inFlight"] == 1)?;
        Some(busy["id"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_ends_in_the_middle_of_a_call_costs_that_call_alone() {
    if !has_docker("e2e killed instances") {
        return;
    }
    let server = server().await;
    let more = json!({"timeoutSeconds": 60, "resources": {"cpu": "1", "memory": "64Mi"}});
    server.deploy("mortal", rogue(more)).await;
    let watch = Watch::begin(&server, "mortal").await;
    let kill = async || docker(&["kill", &busy(&server, "mortal").await]);
    let (reply, _) = tokio::join!(ask(&server, "mortal", "hang"), kill());
    reply.refused(502, "InstanceLost");
    recovers(&server, "mortal").await;
    let call = server.call("mortal", json!({"do": "hang"}));
    let (reply, _) = tokio::join!(call, kill());
    reply.refused(502, "InstanceLost");
    recovers(&server, "mortal").await;

    ask(&server, "mortal", "hog")
        .await
        .refused(502, "InstanceLost");
    wait_until("the cause is counted", SOON, async || {
        let metrics = server.get("/metrics").await.text;
        metrics.contains("\"OOMKilled\"").then_some(())
    })
    .await;
    recovers(&server, "mortal").await;
    watch.end().await;
    server.delete("/functions/mortal").await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_frozen_is_replaced() {
    if !has_docker("e2e frozen instances") {
        return;
    }
    let server = server().await;
    server
        .deploy("frozen", rogue(json!({"scale": {"min": 1}})))
        .await;
    let watch = Watch::begin(&server, "frozen").await;
    let gone = async |instance: &String| {
        wait_until("it is gone", SOON, async || {
            (!server.home.containers().contains(instance)).then_some(())
        })
        .await;
    };
    // Without a word of the engine's only calls show it.
    let instance = server.instances("frozen", "ready").await.remove(0);
    ask(&server, "frozen", "freeze")
        .await
        .refused(504, "Timeout");
    recovers(&server, "frozen").await;
    gone(&instance).await;
    // By the engine it is known at once, also to a call that runs.
    let pause = async || {
        let instance = busy(&server, "frozen").await;
        docker(&["pause", &instance]);
        instance
    };
    let (reply, instance) = tokio::join!(ask(&server, "frozen", "hang"), pause());
    reply.refused(502, "InstanceLost");
    recovers(&server, "frozen").await;
    gone(&instance).await;
    watch.end().await;
    server.delete("/functions/frozen").await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_fills_all_it_has_hurts_itself_alone() {
    if !has_docker("e2e full instances") {
        return;
    }
    let server = server().await;
    let resources = json!({"cpu": "1", "pids": 24, "tmp": "16Mi"});
    let more = json!({"timeoutSeconds": 30, "resources": resources, "scale": {"max": 1}});
    server.deploy("greedy", rogue(more)).await;
    let watch = Watch::begin(&server, "greedy").await;
    let filled = ask(&server, "greedy", "fill").await.expect(200);
    assert_eq!(filled.text, "ENOSPC ENOSPC");
    let answer = ask(&server, "greedy", "fine").await.expect(200);
    assert_eq!(answer.text, "fine");
    let forked = ask(&server, "greedy", "fork").await.expect(200);
    assert_eq!(forked.text, "EAGAIN true");
    recovers(&server, "greedy").await;
    let full = wait_until("it has stayed", SOON, async || {
        server.instances("greedy", "ready").await.pop()
    })
    .await;

    // However full it is, it can be ended, and the next one is not.
    docker(&["kill", &full]);
    recovers(&server, "greedy").await;
    let filled = ask(&server, "greedy", "fill").await.expect(200);
    assert_eq!(filled.text, "ENOSPC ENOSPC");
    watch.end().await;
    server.delete("/functions/greedy").await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_puts_where_its_socket_was_is_not_followed() {
    if !has_docker("e2e replaced sockets") {
        return;
    }
    let server = server().await;
    let more = json!({"scale": {"max": 1}});
    server.deploy("trickster", rogue(more)).await;
    let watch = Watch::begin(&server, "trickster").await;
    for deed in ["link", "file", "directory"] {
        recovers(&server, "trickster").await;
        let before = server.instances("trickster", "ready").await;
        let done = ask(&server, "trickster", deed).await.expect(200);
        assert_eq!(done.text, "done");
        // A path that the engine would answer. No byte of the call was sent, so another instance gets it.
        let answer = ask(&server, "trickster", "version").await.expect(200);
        assert_eq!(answer.text, "unknown", "{deed}");
        wait_until("it is gone", SOON, async || {
            let there = server.home.containers();
            (!there.iter().any(|one| before.contains(one))).then_some(())
        })
        .await;
    }
    watch.end().await;
    server.delete("/functions/trickster").await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_long_and_empty_lines_is_cut_and_harms_nobody() {
    if !has_docker("e2e floods of lines") {
        return;
    }
    let server = server().await;
    server
        .deploy("chatty", rogue(json!({"timeoutSeconds": 60})))
        .await;
    let watch = Watch::begin(&server, "chatty").await;
    // Somebody who follows and does not read.
    let url = server.url("/functions/chatty/logs?follow=true");
    let follower = client().get(url).send().await.unwrap();
    for deed in ["longline", "emptylines"] {
        let reply = ask(&server, "chatty", deed).await.expect(200);
        assert_eq!(reply.text, "said");
        watch.is_flat();
    }
    drop(follower);
    let log = server
        .get("/functions/chatty/logs?tail=100000")
        .await
        .expect(200)
        .text;
    assert!(log.len() < 2 << 20, "what is kept is little: {}", log.len());
    recovers(&server, "chatty").await;
    watch.end().await;
    server.delete("/functions/chatty").await.expect(202);
}

/// An engine of its own, so that nothing else needs memory there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_words_costs_the_engine_no_memory() {
    let Some(engine) = OwnEngine::with(&[], "e2e memory of a flooded engine").await else {
        return;
    };
    let server = engine.server().await;
    let more = json!({"timeoutSeconds": 60, "scale": {"min": 1, "max": 1}});
    server.deploy("chatty", rogue(more)).await;
    let before = engine.memory();
    for deed in ["words", "longline", "emptylines"] {
        let said = ask(&server, "chatty", deed);
        tokio::pin!(said);
        let mut look = tokio::time::interval(LOOK);
        let reply = loop {
            tokio::select! {
                reply = &mut said => break reply,
                _ = look.tick() => {
                    let now = engine.memory();
                    assert!(now < before + FLAT, "{deed}: {before} KiB have become {now}");
                }
            }
        };
        assert_eq!(reply.expect(200).text, "said");
    }
    engine.ends(server).await;
}
